"""A trained model as a run leaves it, made without training: random weights, and all that tells
where it was made and on whom.
"""

import json
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file
from small_training import CLASSES, CONFIGURATION, labels_of

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_core.data.images import Geometry
from nnunet_core.data.weights import InitialWeights
from nnunet_core.registry.components import PREDICTING_KINDS, RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.provenance import component_record
from nnunet_core.registry.records import FoldRecord
from nnunet_core.stages.evaluate import evaluate_case, summarise
from nnunet_core.store.models import WEIGHTS, Model, ModelDocument, weights_digests, weights_record
from nnunet_core.store.postprocessing import PostprocessingRecord, postprocessing_file

PATIENTS = ("Doe_Jane_1931", "Roe_Richard_1944")
DATASET, VARIANT = "Dataset007_Ward", "default"
USUAL = {
    "planner": "v21",
    "preprocessor": "default",
    "network": "plain_unet",
    "loss": "dice_ce",
    "augmentation": "v2",
    "trainer": "v2",
    "predictor": "sliding_window",
    "postprocessor": "largest_component",
}


def make_trained(results, home="/home/jane_roe", name="3d_fullres", folds=("0", "1"), **changes):
    """Write a model folder; return the model.

    Args:
        results: Where the datasets lie.
        home: Of the user who trained it.
        name: Of the configuration.
        folds: Names of its folds.
        changes: Of the configuration.
    """
    registry = Registry.discover()
    labels = labels_of(CLASSES)
    components = {
        kind: component_record(registry.resolve(kind, f"builtin/{USUAL[kind]}"))
        for kind in RUN_KINDS
    }
    configuration = CONFIGURATION.model_copy(
        update={"notes": (f"{PATIENTS[0]} is the largest case",), **changes}
    )
    document = ModelDocument(
        dataset=DATASET,
        variant=VARIANT,
        configuration_name=name,
        channels=("MRI",),
        labels=labels,
        file_ending=".nii.gz",
        label_ending=".nii.gz",
        mirror_axes=(0, 1, 2),
        configuration=configuration,
        components=components,
        initial=InitialWeights(path=f"{home}/older/weights.safetensors", digest="0" * 16),
    )
    folder = results / DATASET / VARIANT / name
    document.write(folder / "model.json")
    for seed, fold in enumerate(folds):
        _write_fold(folder / f"fold_{fold}", document, seed, labels, home)
    _write_postprocessing(folder, document, folds)
    (folder / "crossval_summary.json").write_text(json.dumps({"case": PATIENTS[0]}))
    (results / DATASET / "logs").mkdir(parents=True, exist_ok=True)
    (results / DATASET / "logs" / "1_run.log").write_text(f"{home} {PATIENTS[0]}")
    return Model.open(folder)


def _write_fold(folder, document, seed, labels, home):
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    network = PlainUNet().build(document.configuration.network)
    save_file(network.state_dict(), folder / WEIGHTS)
    FoldRecord(
        status="finished",
        dataset=DATASET,
        dataset_digest="1" * 16,
        variant=VARIANT,
        configuration=document.configuration_name,
        fold=folder.name.removeprefix("fold_"),
        seed=seed,
        inputs_digest="2" * 16,
        model_digest=document.digest(),
        components=document.components,
        initial=document.initial,
        weights=weights_record(folder),
        plugins={"builtin": "nnunet-core 0.1.0", "secret": "hospital-internal 1.0"},
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-02T00:00:00+00:00",
    ).write(folder / "run.json")
    (folder / "checkpoint.pt").write_bytes(b"optimiser state")
    (folder / "metrics.jsonl").write_text(json.dumps({"case": PATIENTS[0]}))
    (folder / "validation").mkdir()
    cases = []
    for number, patient in enumerate(PATIENTS):
        true = np.zeros((4, 4, 4), np.uint8)
        true[:2], true[2:3] = 1, 2
        found = true.copy()
        found[0, : number + 1] = 0
        paths = (f"{home}/ws/validation/{patient}.nii.gz", f"{home}/raw/{patient}.nii.gz")
        scores = evaluate_case(found, true, labels)
        cases.append({**scores, "test": paths[0], "reference": paths[1]})
    (folder / "validation" / "summary.json").write_text(json.dumps(summarise(cases)))


def _write_postprocessing(folder, document, folds):
    component = document.components["postprocessor"]
    PostprocessingRecord(
        component=component,
        folds=folds,
        weights=weights_digests(folder / f"fold_{fold}" for fold in folds),
        inputs="3" * 16,
        state={"for_which_classes": [1]},
    ).write(postprocessing_file(folder, component, folds))


def make_images(folder, count=2):
    """Write images for the model; return their folder."""
    random = np.random.default_rng(5)
    for number in range(count):
        array = random.normal(0, 1, (10, 14, 12)).astype(np.float32)
        path = folder / f"new_{number}_0000.nii.gz"
        SimpleItkFormat().write(path, array, Geometry(array.shape))
    return folder


def repacked(archive, target, change):
    """Write a zip whose entries are what `change` makes of {name: bytes}, digests as they should be
    for these.
    """
    from nnunet_builtin.sharing.manifest import digest_of

    with zipfile.ZipFile(archive) as file:
        content = {name: file.read(name) for name in file.namelist()}
    change(content)
    manifest = json.loads(content["manifest.json"])
    manifest["files"] = {
        name: digest_of(part).model_dump()
        for name, part in content.items()
        if name != "manifest.json"
    }
    content["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(target, "w") as file:
        for name, part in content.items():
            file.writestr(name, part)
    return target


def renamed(content, kind, **changes):
    """Let the component of a kind be another one, in every file of the archive."""
    for name in [name for name in content if name.endswith(".json")]:
        document = json.loads(content[name])
        for record in (document.get("components", {}).get(kind), document.get("component")):
            if record is not None and (kind == "postprocessor" or "components" in document):
                record.update(changes)
        content[name] = json.dumps(document).encode()


def with_digest(content):
    """Let run.json and the manifest belong to model.json again."""
    (model,) = (name for name in content if name.endswith("model.json"))
    document = ModelDocument.model_validate_json(content[model])
    digest, manifest = document.digest(), json.loads(content["manifest.json"])
    records = [document.components[kind] for kind in PREDICTING_KINDS]
    manifest["models"][0]["packages"] = {
        r.distribution: r.version or "" for r in records if r.distribution
    }
    manifest["models"][0]["unregistered"] = [r.reference for r in records if ":" in r.reference]
    content["manifest.json"] = json.dumps(manifest).encode()
    for name in [name for name in content if name.endswith("run.json")]:
        record = json.loads(content[name])
        record["model_digest"] = digest
        content[name] = json.dumps(record).encode()
