"""Every hook of the framework, in life-cycle order.

A plugin is a module (or object) named by an entry point of the group `nnunet_plugins`. It
implements any of these hooks with the `hookimpl` marker. Hook modules are imported at every start
of the command line: they return records and import nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from nnunet_core.data.cases import Case
    from nnunet_core.data.dataset import Dataset
    from nnunet_core.data.images import Image
    from nnunet_core.data.labels import Labels
    from nnunet_core.registry.components import Component, Variant
    from nnunet_core.registry.records import FoldRecord
    from nnunet_core.runtime.reporting import Reporter
    from nnunet_core.store.workspace import Workspace

PROJECT = "nnunet"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def nnunet_commands() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return sub-commands of `nnunet`; called once at start.

    The target is a function whose typed parameters become arguments and options (as typer reads
    them); it is imported when the command is used.
    """


@hookspec
def nnunet_image_formats() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return readers and writers of image files; see `data.images.ImageFormat`.

    `settings["endings"]` lists the file endings (`[".nii.gz", ".nii"]`). Two formats may claim one
    ending: the built-in one is used unless dataset.json names another.
    """


@hookspec
def nnunet_dataset_readers() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return readers of dataset folders, one per layout; see `contracts.DatasetReader`.

    Our own readers are asked first; of those of other plugins, exactly one may fit a folder.
    """


@hookspec
def nnunet_datasets() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return datasets that are made or fetched when somebody runs them: `nnunet run demo`; see
    `contracts.DatasetMaker`.
    """


@hookspec
def nnunet_executors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return executors: where the jobs of a benchmark run; see `contracts.Executor`."""


@hookspec
def nnunet_planners() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return planners: dataset to fingerprint, fingerprint to plans; see `contracts.Planner`."""


@hookspec
def nnunet_preprocessors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return preprocessors: raw case to prepared arrays and back; see `contracts.Preprocessor`."""


@hookspec
def nnunet_networks() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return network builders; see `contracts.NetworkBuilder`."""


@hookspec
def nnunet_losses() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return loss builders; see `contracts.LossBuilder`."""


@hookspec
def nnunet_augmentations() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return augmentation builders; see `contracts.Augmentation`."""


@hookspec
def nnunet_trainers() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return trainers; see `contracts.Trainer`."""


@hookspec
def nnunet_predictors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return predictors: trained weights and prepared images to probabilities; see
    `contracts.Predictor`.
    """


@hookspec
def nnunet_postprocessors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return postprocessors; see `contracts.Postprocessor`."""


@hookspec
def nnunet_variants() -> Sequence[Variant]:  # type: ignore[empty-body]
    """Return named bundles of components and settings, the unit of publishing and benchmarking."""


@hookspec
def nnunet_run_started(record: FoldRecord, folder: Path) -> None:
    """Observe that the training of one fold starts or resumes; change nothing, return nothing.

    `folder` is that of the fold; what an observer writes goes into a folder of its own there. An
    exception in an observer is reported as a warning that names the plugin; the training goes on.
    """


@hookspec
def nnunet_epoch_finished(record: FoldRecord, folder: Path, metrics: Mapping[str, object]) -> None:
    """Observe one epoch; `metrics` is the line of metrics.jsonl, whose `epoch` counts from 1."""


@hookspec
def nnunet_fold_validated(
    record: FoldRecord, folder: Path, dataset: Dataset, summary: Mapping[str, Any]
) -> None:
    """Observe that the validation cases of a fold are predicted and scored; draw them, for example.

    Predictions are label maps `folder/validation/CASE.ext`; `summary` is the whole summary.json
    beside them.
    """


@hookspec
def nnunet_run_finished(record: FoldRecord, folder: Path, summary: Mapping[str, object]) -> None:
    """Observe that a fold is trained and validated; `summary` is the mean part of its
    summary.json.
    """


@hookspec
def nnunet_results_ready(
    folder: Path, dataset: Dataset, workspace: Workspace, report: Reporter
) -> None:
    """Observe that `nnunet run` has trained, validated and compared what was asked for; write about
    it, for example.

    `folder` is `results/DATASET/VARIANT`. Tell people by `report.message`, in a line.
    """


@hookspec
def nnunet_cases_shown(cases: Iterable[Case], labels: Labels, path: Path) -> None:
    """Observe cases of a dataset that somebody wants to see; draw all of them to the PNG file
    `path`, for example.

    `cases` are read one after the other while they are asked for: go through them once.
    """


@hookspec
def nnunet_worst_case_found(
    image: Image,
    reference: np.ndarray,
    prediction: np.ndarray,
    labels: Labels,
    values: Sequence[int],
    title: str,
    path: Path,
) -> None:
    """Observe one of the worst cases of `nnunet evaluate`; draw it to the PNG file `path`, for
    example.

    `reference` and `prediction` are integers (Z, Y, X) on the grid of `image`, whose first channel
    is shown; it is all 0 where no image was found. `values` are those of the label or region that
    is worst.
    """
