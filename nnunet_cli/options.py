"""Options that several commands share, and what they turn into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_core.errors import UsageError
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.memory import GB
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.runtime.workers import Workers, usable_cores
from nnunet_core.store.workspace import Workspace

_MOST_PROCESSES = 8
DatasetArgument = Annotated[
    str, typer.Argument(help="Path, id or name of a dataset.", show_default=False)
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with raw/, preprocessed/ and results/; default $NNUNET_WORKSPACE or ./nnunet_workspace."
    ),
]
VariantOption = Annotated[str, typer.Option(help="Named bundle of components to start from.")]
PlannerOption = Annotated[
    str | None, typer.Option(help="Planner: name, plugin/name or package.module:Class.")
]
PreprocessorOption = Annotated[
    str | None, typer.Option(help="Preprocessor; default: the one that the plans name.")
]
NetworkOption = Annotated[str | None, typer.Option(help="Network builder.")]
LossOption = Annotated[str | None, typer.Option(help="Loss.")]
AugmentationOption = Annotated[str | None, typer.Option(help="Augmentation of training patches.")]
TrainerOption = Annotated[str | None, typer.Option(help="Trainer.")]
PostprocessorOption = Annotated[str | None, typer.Option(help="Postprocessor.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KIND.FIELD=VALUE", help="A setting, e.g. trainer.epochs=50; repeatable."
    ),
]
ConfigurationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--configuration",
        "-c",
        help="2d, 3d_lowres, 3d_fullres, ...; repeatable. Default: 3d_fullres, or 2d for slices.",
    ),
]
FoldsOption = Annotated[
    str,
    typer.Option(
        help="Folds with commas between them (0,1,2,3,4), or 'all' to train on all cases."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=0, help="Loader processes; default: by the number of cores.")
]
ThreadsOption = Annotated[
    int, typer.Option(min=0, help="Compute threads on CPU; 0 uses OMP_NUM_THREADS, or every core.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that prepare cases; default: one per core, at most 8."),
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        min=0.1,
        help="Memory that the cases being prepared at once may need, estimated; default: 80 % of what is free.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
PretrainedOption = Annotated[
    Path | None,
    typer.Option(
        help="Model folder, fold folder or weights file to start from, also of nnU-Net v1 and v2; "
        "what does not fit is said and left out."
    ),
]
FreezeOption = Annotated[
    str | None, typer.Option(help="Part of the network that keeps its weights: encoder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def registry_of(context: typer.Context) -> Registry:
    """Return the registry that the entry point discovered."""
    found = context.find_root().obj
    return found if isinstance(found, Registry) else Registry.discover()


def workspace_of(folder: Path | None) -> Workspace:
    """Return the workspace of `--workspace`."""
    return Workspace.find(folder)


def choices_of(**kinds: str | None) -> dict[str, str]:
    """Return {kind: reference} of the component options that were given."""
    return {kind: kinds[kind] for kind in RUN_KINDS if kinds.get(kind) is not None}  # type: ignore[misc]


def folds_of(text: str) -> tuple[str, ...]:
    """Parse `--folds`.

    Raises:
        UsageError: Neither `all` nor numbers.
    """
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if (
        not parts
        or ("all" in parts and parts != ("all",))
        or not all(p == "all" or p.isdigit() for p in parts)
    ):
        raise UsageError(
            f"--folds got '{text}'; it takes numbers with commas between them (0,1,2,3,4), or 'all'."
        )
    return tuple(part if part == "all" else str(int(part)) for part in parts)


def processes_of(given: int | None) -> int:
    """Return the number of processes that prepare cases."""
    return given or max(1, min(_MOST_PROCESSES, usable_cores()))


def memory_of(gigabytes: float | None) -> int | None:
    """Return the bytes of `--memory-gb`."""
    return None if gigabytes is None else int(gigabytes * GB)


def workers_of(processes: int | None, memory_gb: float | None, report: Reporter) -> Workers:
    """Return the processes that read and prepare cases; use them in a `with` block."""
    return Workers(processes_of(processes), memory_of(memory_gb), report)
