"""Checks of observers: they look, they change nothing."""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Image
from nnunet_core.errors import printable
from nnunet_core.registry.discovery import ENTRY_POINT_GROUP
from nnunet_core.registry.hooks import Hooks
from nnunet_core.registry.provenance import component_record
from nnunet_core.registry.records import FoldRecord
from nnunet_core.runtime.reporting import Silence
from nnunet_core.stages.evaluate import evaluate_case, summarise
from nnunet_core.stages.method import choose
from nnunet_core.store.models import FILE as MODEL_FILE
from nnunet_core.store.models import ModelDocument
from nnunet_core.store.workspace import Workspace
from nnunet_core.testing.check import Subject, check, require
from nnunet_core.testing.files import contents

_EPOCHS = 3


@check("observer")
def observer_raises_nothing(subject: Subject) -> None:
    """A whole training, validation and evaluation can be observed without a warning; a training
    that goes on, too.
    """
    fold = _Fold(subject)
    warnings = [*fold.trained(), *fold.told()]
    require(not warnings, printable("; ".join(dict.fromkeys(warnings))))


@check("observer")
def observer_changes_nothing(subject: Subject) -> None:
    """Records, metrics, arrays, files of the fold, environment and random states are the same
    afterwards; what is written lies in a folder of its own, in that of the validation, or where it
    was asked for.
    """
    fold = _Fold(subject)
    objects, before = copy.deepcopy(fold.objects), contents(fold.folder)
    state = _state()
    fold.told()
    for name, value in fold.objects.items():
        require(_same(value, objects[name]), f"{name} is another one than before.")
    require(_state() == state, "The environment or a random state is another one than before.")
    after = contents(fold.folder)
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    require(not changed, f"Files of the fold changed: {', '.join(changed)}.")
    beside = [name for name in after if name not in before and Path(name).parent == Path()]
    beside = [name for name in beside if (fold.folder / name).is_file()]
    require(not beside, f"It writes {', '.join(beside)} beside the files of the fold.")


@check("observer")
def observer_failure_is_only_a_warning(subject: Subject) -> None:
    """Where it cannot write, it fails with an exception that becomes a warning: the training goes
    on, and no process ends.
    """
    fold = _Fold(subject)
    shutil.rmtree(fold.folder)
    fold.folder.write_text("a file in the place of the folder")
    try:
        fold.told()
    except BaseException as error:
        raise AssertionError(
            f"It raises {type(error).__name__}, which stops the training: {error}"
        ) from error


class _Fold:
    """A trained fold of a toy dataset as observers see it: files, record, metrics, summary."""

    def __init__(self, subject: Subject) -> None:
        self.hooks, self.toys = _hooks_of(subject), subject.toys
        root = subject.folder.absolute()
        self.workspace = Workspace(root / "raw", root / "preprocessed", root / "results")
        self.model = self.workspace.results / "Toy" / "default" / "3d_fullres"
        self.folder = self.model / "fold_0"
        validation = self.folder / "validation"
        validation.mkdir(parents=True)
        dataset = subject.toys.dataset("3d")
        self.dataset = dataset
        case = subject.toys.cases("3d")[0]
        label = np.zeros(case.images.shape[1:], np.uint8) if case.label is None else case.label
        self.prediction = np.roll(label, 1, axis=2).astype(np.uint8)
        summary = self._summary(dataset, label, validation)
        metrics = {"training_loss": 0.5, "rate": 0.01, "dice": [0.5, 0.25], "seconds": 1.0}
        self.objects: dict[str, Any] = {
            "record": _record(subject, dataset),
            "metrics": metrics,
            "summary": summary,
            "image": case.images.copy(),
            "reference": label.copy(),
            "prediction": self.prediction.copy(),
        }
        self.image = Image(self.objects["image"], case.geometry)
        self._write_model(self.objects["record"])
        self.objects["record"].write(self.folder / "run.json")

    def _summary(self, dataset: Dataset, label: np.ndarray, validation: Path) -> dict[str, Any]:
        scored = []
        for case in dataset.training:
            path = validation / f"{case.name}{dataset.label_ending}"
            shutil.copyfile(case.label or path, path)
            scores = evaluate_case(self.prediction, label, dataset.labels)
            scored.append({**scores, "test": str(path), "reference": str(case.label)})
        return summarise(scored, dataset.name)

    def _write_model(self, record: FoldRecord) -> None:
        """Write the model.json that the results of the fold are a part of."""
        ModelDocument(
            dataset=record.dataset,
            variant=record.variant,
            configuration_name=record.configuration,
            channels=self.dataset.channels,
            labels=self.dataset.labels,
            file_ending=self.dataset.ending,
            label_ending=self.dataset.label_ending,
            mirror_axes=(),
            configuration=self.toys.configuration("3d"),
            components=record.components,
        ).write(self.model / MODEL_FILE)

    def trained(self) -> list[str]:
        """Tell the observer of the epochs of a training; return its warnings."""
        record = self.objects["record"]
        warnings = self.hooks.run_started(record, self.folder)
        for epoch in range(1, _EPOCHS + 1):
            metrics: Mapping[str, object] = {"epoch": epoch, **self.objects["metrics"]}
            warnings += self.hooks.epoch_finished(record, self.folder, metrics)
        return warnings

    def told(self) -> list[str]:
        """Tell the observer everything; return its warnings."""
        about, warnings = self.objects, self.trained()
        record, folder, summary = about["record"], self.folder, about["summary"]
        warnings += self.hooks.fold_validated(record, folder, self.dataset, summary)
        warnings += self.hooks.run_finished(record, folder, summary["results"]["mean"])
        warnings += self.hooks.results_ready(
            self.model.parent, self.dataset, self.workspace, Silence()
        )
        cases, path = self.toys.cases("3d"), self.folder / "validation" / "cases.png"
        warnings += self.hooks.cases_shown(cases, self.dataset.labels, path)
        return warnings + self.hooks.worst_case_found(
            self.image,
            about["reference"],
            about["prediction"],
            self.dataset.labels,
            (1,),
            "a case",
            self.folder / "validation" / "worst.png",
        )


def _hooks_of(subject: Subject) -> Hooks:
    """Return the hooks of one plugin alone."""
    (info,) = [each for each in subject.registry.plugins() if each.name == subject.reference]
    require(info.status == "active", f"The plugin is {info.status}: {info.error}")
    hooks = Hooks()
    entry = metadata.EntryPoint(info.name, info.module, ENTRY_POINT_GROUP)
    hooks.register(entry.load(), info.name)
    return hooks


def _record(subject: Subject, dataset: Dataset) -> FoldRecord:
    method = choose(subject.registry)
    resolved = {"preprocessor": subject.registry.resolve("preprocessor", "builtin/default")}
    resolved |= method.components
    components = {kind: component_record(found) for kind, found in resolved.items()}
    return FoldRecord(
        status="running",
        dataset=dataset.name,
        dataset_digest="0" * 16,
        variant="default",
        configuration="3d_fullres",
        fold="0",
        seed=0,
        inputs_digest="0" * 16,
        model_digest="0" * 16,
        components=components,
        started="2026-01-01T00:00:00",
    )


def _state() -> tuple[object, ...]:
    return dict(os.environ), random.getstate(), str(np.random.get_state())


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)  # type: ignore[arg-type]
    return one == other
