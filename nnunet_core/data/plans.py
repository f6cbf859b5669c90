"""Plans: what a planner decided, one configuration per network to train."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nnunet_core.data.fingerprint import IntensityStatistics
from nnunet_core.data.limits import (
    PATCH_VOXELS,
    STAGES,
    BatchSize,
    Channels,
    Features,
    Kernel,
    Layers,
    Millimetres,
    PatchSize,
    Voxels,
)
from nnunet_core.data.metadata import JsonMapping
from nnunet_core.errors import UsageError, nearest
from nnunet_core.runtime.files import Document
from nnunet_core.runtime.names import PlainName

Triple = tuple[Millimetres, Millimetres, Millimetres]
Kernels = Annotated[tuple[tuple[Kernel, ...], ...], Field(max_length=STAGES)]


class NetworkSpec(BaseModel):
    """What a network builder needs to know.

    Attributes:
        dimensions: 2 or 3; the length of every kernel.
        input_channels: Image channels, and one per foreground class of the previous stage in a
            cascade.
        output_channels: Classes with background, or regions.
        pool_kernels: Stride of each downsampling, finest first; P entries.
        conv_kernels: Kernel of each resolution, finest first, bottleneck last; P + 1 entries.
        base_features: Features at full resolution; doubled at each downsampling up to
            `max_features`.
        convs_per_stage: Convolutions per resolution in the encoder and in the decoder.
        extra: What a planner of one's own tells its network builder, JSON values.
        patch_size: Voxels, as in the configuration: for networks that are built for one size. Empty
            while a planner still looks for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimensions: Literal[2, 3]
    input_channels: Channels
    output_channels: Channels
    pool_kernels: Kernels
    conv_kernels: Kernels
    base_features: Features = 32
    max_features: Features = 320
    convs_per_stage: Layers = 2
    extra: JsonMapping = Field(default_factory=dict)
    patch_size: tuple[PatchSize, ...] = Field(
        default=(), exclude=True
    )  # stands in the configuration

    @model_validator(mode="after")
    def _consistent(self) -> NetworkSpec:
        if len(self.conv_kernels) != len(self.pool_kernels) + 1:
            raise ValueError("conv_kernels needs one entry more than pool_kernels")
        if any(
            len(kernel) != self.dimensions for kernel in (*self.pool_kernels, *self.conv_kernels)
        ):
            raise ValueError(f"every kernel needs {self.dimensions} entries")
        return self

    def features(self, stage: int) -> int:
        """Return the features at a resolution; 0 is the finest."""
        return min(self.base_features * 2**stage, self.max_features)


class Normalization(BaseModel):
    """How one channel is normalised.

    Attributes:
        scheme: `CT`, `CT2`, `zscore` (`nonCT` in v1), `none`, `rescale_to_0_1` or `rgb_to_0_1`
            (spec: preprocessing, section 3).
        use_mask: Restrict to the non-zero region (voxels with label >= 0).
        statistics: Foreground intensities of the dataset; CT schemes need them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str
    use_mask: bool = False
    statistics: IntensityStatistics | None = None


class Configuration(BaseModel):
    """One network to train, and the data that it is trained on.

    Arrays of prepared cases have their axes permuted by `transpose_forward`; spacing, median shape
    and patch size are in that order: axis 0 has the lowest resolution.

    Attributes:
        preprocessor: Reference of the preprocessor component.
        transpose_forward: Axis permutation of the (z, y, x) image.
        spacing: Target spacing in mm.
        median_shape: Median case at the target spacing, voxels.
        patch_size: Voxels, multiples of the network builder's divisor; two entries in 2D.
        batch_size: Patches per iteration.
        network: Input of the network builder.
        dummy_2d_augmentation: Spatial augmentation in plane only.
        batch_dice: Sum the Dice over the batch before dividing.
        normalization: One per image channel.
        previous: Configuration whose predictions are further input channels (cascade), or None.
        notes: Why these values: which axis is anisotropic, which limit set the batch size.
        extra: What a planner of one's own tells its preprocessor and trainer, JSON values. Prepared
            cases depend on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    preprocessor: str
    transpose_forward: tuple[int, int, int]
    spacing: Triple
    median_shape: tuple[Voxels, Voxels, Voxels]
    patch_size: tuple[PatchSize, ...]
    batch_size: BatchSize
    network: NetworkSpec
    dummy_2d_augmentation: bool
    batch_dice: bool
    normalization: tuple[Normalization, ...]
    previous: PlainName | None = None
    notes: tuple[str, ...] = ()
    extra: JsonMapping = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Configuration:
        if sorted(self.transpose_forward) != [0, 1, 2]:
            raise ValueError(
                f"transpose_forward {self.transpose_forward} is no permutation of 0, 1, 2"
            )
        if len(self.patch_size) != self.network.dimensions:
            raise ValueError(
                f"patch_size {self.patch_size} needs {self.network.dimensions} entries"
            )
        if math.prod(self.patch_size) > PATCH_VOXELS:
            raise ValueError(
                f"patch_size {self.patch_size} has more than {PATCH_VOXELS} voxels, the limit"
            )
        # the one place where a network hears of its patch; the model is frozen for everybody else
        network = self.network.model_copy(update={"patch_size": self.patch_size})
        object.__setattr__(self, "network", network)
        return self

    @property
    def dimensions(self) -> int:
        """2 for networks that see single slices, 3 for volumes."""
        return self.network.dimensions

    def preprocessing_inputs(self) -> dict[str, object]:
        """Return what the prepared arrays depend on; configurations that agree in it share prepared
        cases.
        """
        fields = {"preprocessor", "transpose_forward", "spacing", "normalization", "extra"}
        return self.model_dump(mode="json", include=fields)


class Plans(Document):
    """The plans of a dataset.

    Attributes:
        dataset: Dataset name.
        planner: Full reference of the planner component.
        fingerprint_digest: Identity of the fingerprint that was planned from.
        configurations: `2d`, `3d_fullres`, `3d_lowres`, `3d_cascade_fullres`, or names of the
            planner's own.
        skipped: {configuration: why there is none}, for people.
        notes: What a person should know about all configurations.
    """

    dataset: str
    planner: str
    fingerprint_digest: str
    configurations: dict[PlainName, Configuration]
    skipped: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _cascades_end(self) -> Plans:
        for start in self.configurations:
            seen, name = {start}, self._before(start)
            while name is not None:
                if name in seen:
                    raise ValueError(f"'previous' of {start} leads back to {name}: it never ends")
                seen.add(name)
                name = self._before(name)
        return self

    def _before(self, name: str) -> str | None:
        found = self.configurations.get(name)
        return None if found is None else found.previous

    def configuration(self, name: str) -> Configuration:
        """Return one configuration.

        Raises:
            UsageError: It is not in the plans; the message lists what is, and why it was left out.
        """
        try:
            return self.configurations[name]
        except KeyError:
            why = nearest(name, self.configurations)
            if name in self.skipped:
                why = f" The planner left it out: {self.skipped[name]}."
            raise UsageError(
                f"There is no configuration '{name}' in the plans of {self.dataset} by "
                f"{self.planner}.{why} Available: "
                f"{', '.join(self.configurations)}."
            ) from None
