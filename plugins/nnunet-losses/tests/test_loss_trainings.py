"""Each loss with its preprocessor trains through the framework: arrays are stored, augmented, and
brought to the resolutions of the network.
"""

import json

import numpy as np
import pytest

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.prepared import PreparedStore

BRIEF = {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1}
VARIANTS = {
    "skeleton_recall": {"skeleton": "label"},
    "boundary": {"distance": "image"},
    "unified_focal": {},
}


def prepare(toys, toy, preprocessor, folder):
    """Prepare the cases of a toy dataset."""
    configuration, dataset = toys.configuration(toy), toys.dataset(toy)
    store = PreparedStore(folder, dict.fromkeys(dataset.names, "key"))
    for case in toys.cases(toy):
        ready = preprocessor.prepare(case, configuration, dataset.labels.foreground)
        store.write(ready, "key", configuration.patch_size)
    return store


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "toy",
    ["regions", *(pytest.param(toy, marks=pytest.mark.slow) for toy in ("ignore", "2d"))],
)
def test_a_training_with_arrays_runs(toy_datasets, tmp_path, variant, toy):
    toys, chosen = toy_datasets, toy_datasets.registry.variant(variant)[1]
    choices = {"preprocessor": "default", **chosen.choices()}
    settings = {"trainer": BRIEF, **chosen.settings}

    def component(kind, name):
        return built(toys.registry.resolve(kind, name).with_settings(settings.get(kind, {})))

    store = prepare(toys, toy, component("preprocessor", choices["preprocessor"]), tmp_path / "p")
    assert store.record("case_0").like == VARIANTS[variant]
    (tmp_path / "fold_0").mkdir()
    task = TrainingTask(
        folder=tmp_path / "fold_0",
        configuration=toys.configuration(toy),
        labels=toys.dataset(toy).labels,
        training=("case_0", "case_1", "case_2"),
        validation=("case_3",),
        store=store,
        network=component("network", "plain_unet"),
        loss=component("loss", choices["loss"]),
        augmentation=component("augmentation", "v2"),
        runtime=Runtime("cpu", "float32", 0, 1),
        seed=1,
        report=Silence(),
        epoch_finished=lambda line: None,
    )
    component("trainer", "v2").train(task)
    line = json.loads((tmp_path / "fold_0" / "metrics.jsonl").read_text())
    assert np.isfinite([line["train_loss"], line["validation_loss"]]).all()
