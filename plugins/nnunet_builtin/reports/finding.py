"""What a report is asked of: a run, a model, an archive or a dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_core.errors import UsageError, nearest
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.stages.dataset import find_dataset, fitting_readers, is_named
from nnunet_core.store.inference import FILE as INFERENCE
from nnunet_core.store.inference import read_inference
from nnunet_core.store.models import FILE as MODEL
from nnunet_core.store.models import WEIGHTS
from nnunet_core.store.predictions import RECORD as PREDICTIONS
from nnunet_core.store.workspace import Workspace

_ARCHIVES = (".zip", ".tar.gz", ".tgz")
_WANTED = (
    "A report is made of a run (results/DATASET/VARIANT), a model (results/DATASET/VARIANT/"
    "CONFIGURATION, or the archive of 'nnunet models export'), an inference.json, or a dataset."
)


@dataclass(frozen=True)
class Found:
    """What a reference names.

    Attributes:
        kind: `run`, `archive` or `dataset`.
        folder: Of the run, where its report goes; the archive; or the dataset.
        models: Folders of the models of a run.
        title: Of a run: DATASET/VARIANT, or one of its models.
    """

    kind: str
    folder: Path
    models: tuple[Path, ...] = ()
    title: str = ""


def find(reference: str, workspace: Workspace, registry: Registry) -> Found:
    """Return what a reference names.

    Raises:
        UsageError: It names nothing, or something that no report is made of; the message says what
            to do with that.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return _file(path.absolute())
    if path.is_dir() and not _is_dataset_of_results(path, workspace):
        return _folder(path.absolute(), registry)
    parts = reference.strip("/").split("/")
    if 2 <= len(parts) <= 3 and workspace.results.joinpath(*parts).is_dir():
        return _folder(workspace.results.joinpath(*parts), registry)
    try:
        return Found("dataset", find_dataset(reference, workspace.raw, registry))
    except UsageError as error:
        raise UsageError(f"{error}{_runs(reference, workspace.results)} {_WANTED}") from error


def _file(path: Path) -> Found:
    if path.name == INFERENCE:
        return _selected(path)
    if path.name == MODEL:
        return run_of(path.parent)
    if path.name.lower().endswith(_ARCHIVES):
        return Found("archive", path)
    raise UsageError(f"{path} is nothing that a report is made of. {_WANTED}")


def _selected(path: Path) -> Found:
    """Return the models of an inference.json; beside models it is that of their run."""
    if _models(path.parent):
        return run_of(path.parent)
    members = read_inference(path).members
    models = tuple(Path(os.path.normpath(path.parent / member.model)) for member in members)
    return Found("run", path.parent, models, f"{path.parent.name}/{path.name}")


def _folder(path: Path, registry: Registry) -> Found:
    if (path / MODEL).is_file() or _models(path):
        return run_of(path)
    _refuse_other(path)
    if fitting_readers(path, registry):
        return Found("dataset", path)
    raise UsageError(f"{path} holds nothing that a report is made of. {_WANTED}")


def run_of(folder: Path) -> Found:
    """Return the run, or the one model, of a folder that holds models or is one."""
    if (folder / MODEL).is_file():
        return Found("run", folder, (folder,), "/".join(folder.parts[-3:]))
    return Found("run", folder, tuple(_models(folder)), "/".join(folder.parts[-2:]))


def _models(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{MODEL}"))


def _is_dataset_of_results(path: Path, workspace: Workspace) -> bool:
    """Return whether a relative name of a dataset happens to be its folder of results."""
    return path.absolute().parent == workspace.results and (workspace.raw / path.name).is_dir()


def _refuse_other(path: Path) -> None:
    """Raise UsageError where a folder is something else that nnU-Net makes.

    The first that fits is said: what is nearest to a report comes first.
    """
    if (path / RUN_FILE).is_file() or (path / WEIGHTS).is_file():
        raise UsageError(
            f"{path} is one fold. The report of its model: nnunet report {path.parent}"
        )
    if runs := sorted({model.parent.parent for model in path.glob(f"*/*/{MODEL}")}):
        shown = "; ".join(f"nnunet report {run}" for run in runs)
        raise UsageError(f"{path} holds the results of a dataset. Its runs: {shown}")
    if (path / PREDICTIONS).is_file():
        raise UsageError(
            f"{path} holds predictions. 'nnunet evaluate' compares them with references; a report "
            "is made of the model that made them."
        )
    if (path / "jobs").is_dir() and (path / "results").is_dir():
        raise UsageError(f"{path} is a benchmark: nnunet benchmark report {path}")
    patterns = ("checkpoint_*.pth", "model_*.model", "plans.pkl", "nnUNetPlans.json")
    foreign = ("plans.json", *(f"{depth}{p}" for p in patterns for depth in ("", "*/", "*/*/")))
    if any(found for pattern in foreign for found in path.glob(pattern)):
        raise UsageError(
            f"{path} looks like a model of an earlier nnU-Net. Import it first: nnunet models "
            f"import {path}; then ask for the report of what that makes."
        )


def _runs(reference: str, results: Path) -> str:
    """Return a sentence on runs whose names are like a reference; empty without any."""
    runs = sorted(
        {str(m.parent.parent.relative_to(results)) for m in results.glob(f"*/*/*/{MODEL}")}
    )
    dataset, _, _ = reference.partition("/")
    own = [run for run in runs if is_named(run.split("/")[0], dataset)]
    if own:
        return f" Runs of it: {', '.join(own)}."
    return nearest(reference, runs)
