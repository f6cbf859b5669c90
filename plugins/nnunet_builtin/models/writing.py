"""Write models of other frameworks as ours: all of them, checked, or none."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from nnunet_builtin.models.foreign import ForeignModel, State
from nnunet_builtin.networks.weights import check_finite, shapes_of
from nnunet_core.contracts.abilities import built
from nnunet_core.data.metadata import first_problem
from nnunet_core.errors import StorageError, UsageError, listed
from nnunet_core.registry.components import PREDICTING_KINDS
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.provenance import component_record
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import ComponentRecord, FoldRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.store.models import FILE as MODEL_FILE
from nnunet_core.store.models import WEIGHTS, ModelDocument, weights_digests, weights_record
from nnunet_core.store.postprocessing import PostprocessingRecord, postprocessing_file

_UNKNOWN = "unknown"


def write_models(
    models: Iterable[ForeignModel], results: Path, registry: Registry, overwrite: bool = False
) -> list[Path]:
    """Write model folders; return them. When one cannot be written, none is.

    Raises:
        UsageError: A folder exists, and is not to be overwritten or holds a model that was trained
            here.
        StorageError: Weights do not fit the network, or are not finite; a disk is full.
    """
    folders: list[Path] = []
    try:
        with contextlib.ExitStack() as stack:
            for model in models:
                folders.append(folder := model.folder(results))
                _check_place(folder, overwrite)
                temporary = stack.enter_context(files.atomic_folder(folder, overwrite=overwrite))
                _write(model, temporary, registry)
    except BaseException:
        for folder in folders:
            _remove_empty(folder.parent, results)
        raise
    return folders


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and those above it, up to `top`, as long as they are empty."""
    with contextlib.suppress(OSError):
        while folder != top:
            folder.rmdir()
            folder = folder.parent


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise UsageError(
            f"{folder} exists already. Give --overwrite to replace an imported model, or --name to "
            "import under another name of the dataset."
        )
    if (folder / MODEL_FILE).is_file() and ModelDocument.read(folder / MODEL_FILE).origin is None:
        raise UsageError(
            f"{folder} holds a model that was trained here, which an import does not replace. Give "
            "--name to import under another name of the dataset."
        )


def _write(model: ForeignModel, folder: Path, registry: Registry) -> None:
    """Write the files of one model."""
    resolved = {
        kind: registry.resolve(kind, reference).with_settings(settings)
        for kind, (reference, settings) in model.components.items()
    }
    components = {kind: component_record(resolved[kind]) for kind in PREDICTING_KINDS}
    document = _document(model, components)
    document.write(folder / MODEL_FILE)
    shapes = shapes_of(built(resolved["network"]), model.configuration.network)
    for name, read in model.folds.items():
        fold = below(folder, f"fold_{name}")
        fold.mkdir()
        weights = _checked(read(), shapes, f"fold {name} of {model.origin}")
        save_file(weights, fold / WEIGHTS)
        _record(model, document, name, weights_record(fold)).write(fold / RUN_FILE)
    _write_postprocessing(model, components["postprocessor"], folder)


def _document(model: ForeignModel, components: dict[str, ComponentRecord]) -> ModelDocument:
    try:
        return _described(model, components)
    except ValidationError as error:
        raise StorageError(
            f"{model.origin} cannot be imported: {first_problem(error)}. Get an intact copy."
        ) from error


def _described(model: ForeignModel, components: dict[str, ComponentRecord]) -> ModelDocument:
    return ModelDocument(
        dataset=model.dataset,
        variant=model.variant,
        configuration_name=model.configuration_name,
        channels=model.channels,
        labels=model.labels,
        file_ending=model.file_ending,
        label_ending=model.label_ending,
        image_format=model.image_format,
        mirror_axes=model.mirror_axes,
        configuration=model.configuration,
        components=components,
        origin=model.origin,
    )


def _record(
    model: ForeignModel, document: ModelDocument, fold: str, weights: tuple[int, str]
) -> FoldRecord:
    """Describe a fold; of its training we know nothing."""
    return FoldRecord(
        status="imported",
        dataset=model.dataset,
        dataset_digest="",
        variant=model.variant,
        configuration=model.configuration_name,
        fold=fold,
        seed=0,
        inputs_digest="",
        model_digest=document.digest(),
        components=document.components,
        weights=weights,
        python=_UNKNOWN,
        device=_UNKNOWN,
        precision=_UNKNOWN,
        threads=_UNKNOWN,
        finished=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _write_postprocessing(model: ForeignModel, component: ComponentRecord, folder: Path) -> None:
    names = tuple(model.folds)
    record = PostprocessingRecord(
        component=component,
        folds=names,
        weights=weights_digests(folder / f"fold_{name}" for name in names),
        inputs="",
        state=dict(model.postprocessing),
    )
    record.write(postprocessing_file(folder, component, names))


def _checked(
    weights: State, shapes: Mapping[str, tuple[int, ...]], source: str
) -> dict[str, torch.Tensor]:
    """Return weights in float32, each with memory of its own.

    Raises:
        StorageError: They are not those of the network: names, shapes, or types; or not finite.
    """
    missing = [name for name in shapes if name not in weights]
    further = [name for name in weights if name not in shapes]
    if missing or further:
        raise StorageError(
            f"{source}: the weights are of another network than its plans describe. Missing: "
            f"{listed(missing) or 'none'}. Too many: {listed(further) or 'none'}. Get the plans "
            "and the weights of one training."
        )
    wrong = [
        f"{name} is {_shown(weights[name].shape)}, not {_shown(shape)}"
        for name, shape in shapes.items()
        if weights[name].shape != shape
    ]
    if wrong:
        raise StorageError(
            f"{source}: the weights are of another network than its plans describe: "
            f"{listed(wrong)}. Get the plans and the weights of one training."
        )
    made = {}
    for name, tensor in weights.items():
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        made[name] = tensor.to(dtype, copy=True).contiguous()
    check_finite(made, source, "Get an intact copy.")
    return made


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
