"""A plans.json of nnU-Net v2 as a source of plans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from nnunet_builtin.models.copied.source import Source, with_planes
from nnunet_builtin.models.v2_configuration import configuration_of, preparation
from nnunet_builtin.models.v2_network import activation
from nnunet_builtin.models.v2_plans import (
    NetworkArguments,
    V2Configuration,
    V2Dataset,
    V2Plans,
    checked,
    read_json,
)
from nnunet_core.data.limits import STAGES, Features, Kernel, Layers
from nnunet_core.data.metadata import first_problem
from nnunet_core.data.plans import Configuration, NetworkSpec
from nnunet_core.errors import StorageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.provenance import component_record
from nnunet_core.registry.records import ComponentRecord

_PerStage = Annotated[tuple[Any, ...], Field(max_length=STAGES)]
_Counts = Annotated[tuple[Layers, ...], Field(max_length=STAGES)]
_OLD_RESIDUAL = "ResidualEncoderUNet"


class _Sizes(BaseModel):
    """What a network of v2 is made of, finest resolution first; older plans have other names for
    it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    strides: Annotated[
        tuple[Kernel | tuple[Kernel, ...], ...],
        Field(
            min_length=2,
            max_length=STAGES,
            validation_alias=AliasChoices("strides", "pool_op_kernel_sizes"),
        ),
    ]
    kernels: Annotated[
        tuple[Kernel | tuple[Kernel, ...], ...],
        Field(
            max_length=STAGES, validation_alias=AliasChoices("kernel_sizes", "conv_kernel_sizes")
        ),
    ]
    features: Annotated[
        tuple[Features, ...],
        Field(max_length=STAGES, validation_alias="features_per_stage"),
    ] = ()
    base: Annotated[Features, Field(validation_alias="UNet_base_num_features")] = 32
    most: Annotated[Features, Field(validation_alias="unet_max_num_features")] = 320
    convs: Annotated[
        _Counts | Layers,
        Field(validation_alias=AliasChoices("n_conv_per_stage", "n_conv_per_stage_encoder")),
    ] = ()
    blocks: Annotated[_Counts, Field(validation_alias="n_blocks_per_stage")] = ()
    decoder: Annotated[_Counts, Field(validation_alias="n_conv_per_stage_decoder")] = ()


def read_v2(path: Path) -> Source:
    """Return the configurations of a plans.json; one that has no equal here is left out, with the
    reason.

    Raises:
        StorageError: It holds no plans of v2, or none that has an equal here.
    """
    plans = read_json(V2Plans, path)
    found: dict[str, Configuration] = {}
    skipped: dict[str, str] = {}
    components: dict[str, Mapping[str, ComponentRecord]] = {}
    for name in plans.configurations:
        try:
            found[name], components[name] = _configuration(plans, name, path)
        except StorageError as error:
            skipped[name] = str(error)
    if not found:
        raise StorageError(
            f"No configuration of {path} has an equal here. {'; '.join(skipped.values())}"
        )
    beside = path.with_name("dataset.json")
    channels = read_json(V2Dataset, beside).channels(beside) if beside.is_file() else ()
    return Source("plans of nnU-Net v2", found, channels, skipped, components)


def _configuration(
    plans: V2Plans, name: str, path: Path
) -> tuple[Configuration, dict[str, ComponentRecord]]:
    where = f"{path}: configuration '{name}'"
    found = plans.configuration(name, path)
    content = plans.merged(name, path)
    architecture = content.get("architecture")
    arguments = architecture.get("arch_kwargs") if isinstance(architecture, dict) else content
    sizes = checked(_Sizes, arguments or {}, where)
    residual = bool(sizes.blocks) or content.get("UNet_class_name") == _OLD_RESIDUAL
    try:
        spec = _spec(found, sizes, residual)
        settings = _settings(found.architecture.arch_kwargs, sizes, spec, residual)
    except (ValidationError, ValueError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StorageError(f"{where} has a network that is not built here: {problem}.") from error
    parts = {
        "network": (f"builtin/{'residual' if residual else 'plain'}_unet", settings),
        "preprocessor": preparation(plans, found, where),
    }
    registry = Registry.discover()
    records = {
        kind: component_record(registry.resolve(kind, reference).with_settings(chosen))
        for kind, (reference, chosen) in parts.items()
    }
    return with_planes(configuration_of(plans, found, spec, where), records)


def _spec(found: V2Configuration, sizes: _Sizes, residual: bool) -> NetworkSpec:
    axes = len(found.patch_size)
    first, *strides = (_triple(stride, axes) for stride in sizes.strides)
    if set(first) != {1}:
        raise ValueError(f"its first stride is {first}, and only 1 is built")
    counts = sizes.blocks if residual else sizes.convs
    convs = counts if isinstance(counts, int) else next(iter(counts), 2)
    return NetworkSpec(
        dimensions=2 if axes == 2 else 3,
        input_channels=len(found.normalization_schemes),
        output_channels=1,  # that of the dataset comes in its place
        pool_kernels=tuple(strides),
        conv_kernels=tuple(_triple(kernel, axes) for kernel in sizes.kernels),
        base_features=sizes.features[0] if sizes.features else sizes.base,
        max_features=max(sizes.features) if sizes.features else sizes.most,
        convs_per_stage=2 if residual else convs,
    )


def _settings(
    arguments: NetworkArguments, sizes: _Sizes, spec: NetworkSpec, residual: bool
) -> dict[str, Any]:
    """Return the settings of the network that takes the weights of these plans."""
    stages = range(len(spec.conv_kernels))
    settings: dict[str, Any] = {"layout": "v2", **activation(arguments)}
    if sizes.features and sizes.features != tuple(spec.features(stage) for stage in stages):
        settings["features"] = list(sizes.features)
    if residual:
        settings["blocks"] = list(sizes.blocks)
    elif not isinstance(sizes.convs, int) and set(sizes.convs) - {spec.convs_per_stage}:
        settings["convs"] = list(sizes.convs)
    usual = 1 if residual else spec.convs_per_stage
    if set(sizes.decoder) - {usual}:
        settings["decoder_convs"] = list(sizes.decoder)
    return settings


def _triple(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else value
