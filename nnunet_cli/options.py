"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_cli.groups import Group
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import SettingsError, StorageError, UsageError, nearest
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.runtime.memory import GB
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.runtime.workers import Workers, usable_cores
from nnunet_core.store.workspace import Workspace

_MOST_PROCESSES = 8
#: What `--help` says about the option of a kind of component, where that is more than its name.
_KINDS = {
    "planner": "Planner: name, plugin/name or package.module:Class.",
    "preprocessor": "Preprocessor; default: the one that the plans name.",
    "network": "Network builder.",
    "augmentation": "Augmentation of training patches.",
    "predictor": "Predictor: how trained networks are applied to a case.",
}
DatasetArgument = Annotated[
    str, typer.Argument(help="Path, id or name of a dataset.", show_default=False)
]
#: Of the commands of the main path, which makes datasets that plugins know by name.
RunDatasetArgument = Annotated[
    str,
    typer.Argument(
        help="Path, id or name of a dataset; 'demo' makes a small one.", show_default=False
    ),
]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with raw/, preprocessed/ and results/; default $NNUNET_WORKSPACE or "
        "./nnunet_workspace."
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        help="Dataset, or dataset.json, that declares the labels; default: what predictions.json "
        "in the folder says, which folders of nnU-Net v1 and v2 do not have.",
        show_default=False,
    ),
]
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
        help="Memory that the cases being prepared at once may need, estimated; default: 80 % of "
        "what is free.",
    ),
]
PredictionMemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        min=0.1,
        help="Memory that a prediction may fill; what does not fit lies in a temporary file "
        "(TMPDIR). Default: 10, or what is free if that is less.",
        show_default=False,
    ),
]
ValidationProbabilitiesOption = Annotated[
    bool,
    typer.Option(
        "--save-probabilities",
        help="Keep the probabilities of validation cases beside their label maps, which ensembles "
        "need.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def components_of(*kinds: str) -> Group:
    """Return the options of these kinds of component; the argument is {kind: reference} of those
    that are given.
    """

    def choices(**given: str | None) -> dict[str, str]:
        return {kind: reference for kind, reference in given.items() if reference is not None}

    choices.__signature__ = inspect.Signature(list(map(_option_of, kinds)))  # type: ignore[attr-defined]
    return Group(choices)


def _option_of(kind: str) -> inspect.Parameter:
    text = _KINDS.get(kind, f"{kind.capitalize()}.")
    option = Annotated[str | None, typer.Option(help=text)]
    named = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(kind, named, default=None, annotation=option)


def _variants(
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="Named bundle of components and settings, or a TOML file of one, to start from; "
            "repeatable, the later ones go on top. Default: default.",
            show_default=False,
        ),
    ] = None,
    save_variant: Annotated[
        Path | None,
        typer.Option(
            help="Write variants, components and settings of this command to a TOML file that "
            "--variant takes."
        ),
    ] = None,
) -> dict[str, Any]:
    chosen = {} if not variant else {"variant": tuple(variant)}
    return {**chosen, "save_variant": save_variant}


def _settings(settings: SetOption = None) -> dict[str, dict[str, Any]]:
    return parse_assignments(settings or [])


def _computing(
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    workers: WorkersOption = None,
    threads: ThreadsOption = 0,
) -> Runtime:
    return Runtime(device, precision, workers, threads)


def _pool(processes: ProcessesOption = None, memory_gb: MemoryOption = None) -> dict[str, Any]:
    return {"processes": processes_of(processes), "memory": memory_of(memory_gb)}


def _start(
    pretrained: Annotated[
        Path | None,
        typer.Option(
            help="Model folder, fold folder or weights file to start from, also of nnU-Net v1 and "
            "v2; what does not fit is said and left out."
        ),
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Part of the network that keeps its weights: encoder.")
    ] = None,
) -> dict[str, Any]:
    return {"pretrained": pretrained, "freeze": () if freeze is None else (freeze,)}


#: `variant` and `save_variant` of a Request.
Variants = Annotated[dict[str, Any], Group(_variants)]
#: {kind: reference} of every kind that a run chooses.
Components = Annotated[dict[str, str], components_of(*RUN_KINDS)]
#: {kind: {field: value}} of `--set`.
Settings = Annotated[dict[str, dict[str, Any]], Group(_settings)]
#: How to compute.
Computing = Annotated[Runtime, Group(_computing)]
#: `processes` and `memory` of a Request.
Pool = Annotated[dict[str, Any], Group(_pool)]
#: `pretrained` and `freeze` of a Request.
Start = Annotated[dict[str, Any], Group(_start)]


def _training(
    *,
    variants: Variants,
    choices: Components,
    settings: Settings,
    configuration: ConfigurationOption = None,
    runtime: Computing,
    pool: Pool,
    seed: SeedOption = 12345,
    start: Start,
) -> dict[str, Any]:
    return {
        "choices": choices,
        "settings": settings,
        "configurations": tuple(configuration or ()),
        "runtime": runtime,
        "seed": seed,
        **variants,
        **pool,
        **start,
    }


#: What a Request for training or its validation holds, beside dataset and folds.
Training = Annotated[dict[str, Any], Group(_training)]


def parse_assignments(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse `KIND.FIELD=VALUE` arguments of `--set` to {kind: {field: value}}.

    VALUE is read as JSON, and as plain text when it is not JSON. `KIND.FIELD.KEY=VALUE` sets one
    entry of a mapping.

    Raises:
        SettingsError: No `=`, no field, or a kind that does not exist.
    """
    settings: dict[str, dict[str, Any]] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        kind, *fields = path.strip().split(".")
        if not equals or not fields or not all(fields):
            raise SettingsError(
                f"--set got '{text}'; it takes KIND.FIELD=VALUE, for example trainer.epochs=50."
            )
        if kind not in RUN_KINDS:
            raise SettingsError(
                f"--set got '{text}': there is no kind '{kind}'.{nearest(kind, RUN_KINDS)} Kinds: "
                f"{', '.join(RUN_KINDS)}."
            )
        target = settings.setdefault(kind, {})
        for part in fields[:-1]:
            target = target.setdefault(part, {})
        target[fields[-1]] = _json_or_text(value)
    return settings


def registry_of(context: typer.Context) -> Registry:
    """Return the registry that the entry point discovered."""
    found = context.find_root().obj
    return found if isinstance(found, Registry) else Registry.discover()


def workspace_of(folder: Path | None) -> Workspace:
    """Return the workspace of `--workspace`."""
    return Workspace.find(folder)


def folds_of(text: str) -> tuple[str, ...]:
    """Parse `--folds`.

    Raises:
        UsageError: Neither `all` nor numbers.
    """
    from nnunet_core.data.splits import (
        fold_names,
    )  # with NumPy, which listing plugins need not wait for

    parts = fold_names(text)
    if (
        not parts
        or ("all" in parts and parts != ("all",))
        or not all(p == "all" or p.isdecimal() for p in parts)
    ):
        raise UsageError(
            f"--folds got '{text}'; it takes numbers with commas between them (0,1,2,3,4), or "
            "'all'."
        )
    return parts


def processes_of(given: int | None) -> int:
    """Return the number of processes that prepare cases."""
    return given or max(1, min(_MOST_PROCESSES, usable_cores()))


def memory_of(gigabytes: float | None) -> int | None:
    """Return the bytes of `--memory-gb`."""
    return None if gigabytes is None else int(gigabytes * GB)


def workers_of(processes: int | None, memory_gb: float | None, report: Reporter) -> Workers:
    """Return the processes that read and prepare cases; use them in a `with` block."""
    return Workers(processes_of(processes), memory_of(memory_gb), report)


def _json_or_text(value: str) -> Any:
    try:
        return files.parse_json(value, "--set")
    except StorageError:
        return value
