"""Every hook of the framework, in life-cycle order.

A plugin is a module (or object) named by an entry point of the group `nnunet_plugins`. It implements any of these hooks
with the `hookimpl` marker. Hook modules are imported at every start of the command line: they return records and import
nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nnunet_core.components import Component, Variant
    from nnunet_core.record import RunRecord

PROJECT = "nnunet"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def nnunet_commands() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return sub-commands of `nnunet`; called once at start.

    The target is a function whose typed parameters become arguments and options (as typer reads them); it is imported
    when the command is used.
    """


@hookspec
def nnunet_image_formats() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return readers and writers of image files; see `interfaces.ImageFormat`.

    `settings["endings"]` lists the file endings (`[".nii.gz", ".nii"]`). Two formats may claim one ending: the built-in
    one is used unless dataset.json names another.
    """


@hookspec
def nnunet_planners() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return planners: dataset to fingerprint, fingerprint to plans; see `interfaces.Planner`."""


@hookspec
def nnunet_preprocessors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return preprocessors: raw case to prepared arrays and back; see `interfaces.Preprocessor`."""


@hookspec
def nnunet_networks() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return network builders; see `interfaces.NetworkBuilder`."""


@hookspec
def nnunet_losses() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return loss builders; see `interfaces.LossBuilder`."""


@hookspec
def nnunet_augmentations() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return augmentation builders; see `interfaces.Augmentation`."""


@hookspec
def nnunet_trainers() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return trainers; see `interfaces.Trainer`."""


@hookspec
def nnunet_postprocessors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return postprocessors; see `interfaces.Postprocessor`."""


@hookspec
def nnunet_executors() -> Sequence[Component]:  # type: ignore[empty-body]
    """Return executors: where the jobs of a benchmark will run; nothing uses them yet. See `interfaces.Executor`."""


@hookspec
def nnunet_variants() -> Sequence[Variant]:  # type: ignore[empty-body]
    """Return named bundles of components and settings, the unit of publishing and benchmarking."""


@hookspec
def nnunet_run_started(record: RunRecord, folder: Path) -> None:
    """Observe that the training of one fold starts or resumes; change nothing, return nothing.

    `folder` is that of the fold; what an observer writes goes into a folder of its own there. An exception in an observer
    is reported as a warning that names the plugin; the training goes on.
    """


@hookspec
def nnunet_epoch_finished(record: RunRecord, folder: Path, metrics: Mapping[str, object]) -> None:
    """Observe one epoch; `metrics` is the line that was appended to metrics.jsonl."""


@hookspec
def nnunet_run_finished(record: RunRecord, folder: Path, summary: Mapping[str, object]) -> None:
    """Observe that a fold is trained and validated; `summary` is the mean part of its summary.json."""
