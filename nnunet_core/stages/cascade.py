"""Cascades: the label maps of one configuration become input channels of the next (spec: training
6, inference 6).

Training and prediction make these inputs alike: from label maps on the grid of the raw image,
cropped as the case is. In training they are the validation predictions of the previous stage, so
that no case is seen by a network trained on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_core.contracts.abilities import PreparesLabels, ability, built
from nnunet_core.data.splits import ALL, Split, load_splits
from nnunet_core.errors import UsageError, listed
from nnunet_core.runtime import files, locks
from nnunet_core.stages.evaluate import read_label_map
from nnunet_core.store.origins import command
from nnunet_core.store.prepared import LabelStore

if TYPE_CHECKING:
    from nnunet_core.contracts.preprocessor import Preprocessor
    from nnunet_core.data.cases import PreparedGeometry
    from nnunet_core.stages.experiment import Experiment


def append_one_hot(images: np.ndarray, label: np.ndarray, foreground: Sequence[int]) -> np.ndarray:
    """Return images (C, *spatial) with one more float32 channel per foreground value, ascending, of
    a label (*spatial).
    """
    return np.concatenate(
        [images, *((label == value)[None].astype(np.float32) for value in sorted(foreground))]
    )


def prepared_label(
    preprocessor: Preprocessor, label: np.ndarray, geometry: PreparedGeometry
) -> np.ndarray:
    """Take a label map (Z, Y, X) of the raw image to the grid of a prepared case.

    Raises:
        UsageError: The preprocessor cannot do that, or the label map has another shape than the
            image.
    """
    able = ability(preprocessor, PreparesLabels)
    if able is None:
        raise UsageError(
            f"The preprocessor {type(preprocessor).__name__} has no 'prepare_label': it cannot be "
            "used in a cascade."
        )
    if label.shape != geometry.original.shape:
        raise UsageError(
            f"The label map of the previous stage has shape {label.shape}, its image "
            f"{geometry.original.shape}; they must be equal. Predict the previous stage anew."
        )
    return np.asarray(able.prepare_label(label, geometry))


def stage_splits(names: Sequence[str], folds: Sequence[str], path: Path) -> dict[str, Split]:
    """Return the folds of the previous stage that folds of a cascade need: every stored one, and
    `all` for `all`.
    """
    every_case = load_splits(names, [ALL], path) if ALL in folds else {}
    stored = {} if set(folds) == {ALL} else load_splits(names, (), path)
    return {**every_case, **stored}


def connect(
    experiment: Experiment, previous: Experiment, splits: Mapping[str, Split]
) -> Experiment:
    """Return the experiment with the label maps that the previous stage predicted for its
    validation cases.

    Args:
        experiment: The cascade.
        previous: The stage before, trained.
        splits: The folds of the previous stage, see `stage_splits`; a case is taken from the last
            fold that validates it.

    Raises:
        UsageError: Folds of the previous stage are not trained, the message says what to run; or a
            case is validated in no fold of it.
    """
    dataset = experiment.dataset
    sources = {
        name: previous.validation_file(fold, name)
        for fold, split in splits.items()
        for name in split.val
    }
    unpredicted = sorted({name for split in splits.values() for name in split.train} - set(sources))
    if unpredicted:
        raise UsageError(
            f"{experiment.configuration_name} needs a prediction of {previous.configuration_name} "
            "for every case, made by a fold that validates it; no fold validates "
            f"{listed(unpredicted)}. Use folds that validate every case once: see 'nnunet splits "
            f"{dataset.name}'."
        )
    missing = sorted(
        {fold for fold, split in splits.items() if not previous.is_finished(fold, split)}
    )
    if missing:
        words = [
            *previous.options(),
            "-c",
            previous.configuration_name,
            "--folds",
            ",".join(missing),
        ]
        raise UsageError(
            f"{experiment.configuration_name} needs {previous.configuration_name}, whose folds "
            f"{', '.join(missing)} are not trained, or were validated with another predictor. Run: "
            f"{command('train', dataset.name, words)}, or let 'nnunet run' do it."
        )
    digests = dict(zip(sources, dataset.digests.of(list(sources.values())), strict=True))
    keys = {
        name: files.digest([digests[name], experiment.store.record(name).key]) for name in sources
    }
    name = "previous_stage_all" if ALL in splits else "previous_stage"
    store = LabelStore(experiment.folder / name, keys)
    if store.missing():
        purpose = f"the inputs of {experiment.configuration_name}"
        with locks.held(store.folder / locks.NAME, purpose, experiment.report):
            files.remove_leftovers(store.folder)
            todo = store.missing()  # another run may have prepared them while this one waited
            _prepare(experiment, store, {name: (sources[name], key) for name, key in todo.items()})
    return dataclasses.replace(experiment, previous=store)


def _prepare(
    experiment: Experiment, store: LabelStore, todo: Mapping[str, tuple[Path, str]]
) -> None:
    preprocessor = built(experiment.method.preprocessor(experiment.configuration))
    with experiment.report.track(
        f"inputs of {experiment.configuration_name}", len(todo)
    ) as tracker:
        for name, (source, key) in todo.items():
            label = read_label_map(source, experiment.dataset.label_format)
            prepared = prepared_label(preprocessor, label, experiment.store.open(name).geometry)
            store.write(name, prepared.astype(np.int16), key, experiment.configuration.patch_size)
            tracker.advance(1, name)
