"""The v2.1 planner: target spacing, patch and batch size, pooling for 2D, 3D and low-resolution networks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from nnunet_builtin.planning.architecture import Topology, topology
from nnunet_builtin.planning.fingerprinting import extract
from nnunet_core.contracts.network import NetworkBuilder
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization, Plans
from nnunet_core.errors import UsageError, nearest
from nnunet_core.runtime.workers import Workers

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")

#: Normalisation by channel name; z-score for every other name (spec: planning, section 3; names of v1 and v2).
SCHEMES: Mapping[str, str] = {
    "CT": "CT",
    "ct": "CT",
    "noNorm": "none",
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}

MAX_FEATURES = {2: 480, 3: 320}
_ANISOTROPY = 3
_EDGE = 512
_LOWRES_SHARE = 4
_DATASET_SHARE = 0.05
_MASK_BELOW = 0.75
#: What v1 counts with in 2D, though it builds networks of `base_features` and MAX_FEATURES.
_ESTIMATED_BASE_2D = 30
_ESTIMATED_FEATURES_2D = 512
_REFERENCE_2D = 19_739_648 * 50 / 2
_REFERENCE_3D = 520_000_000
_REFERENCE_FEATURES = 30


_FIXED = "the target spacing is planner.target_spacing"

#: patch size -> a number per axis; the axis of the greatest is shortened.
_Longest = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Data:
    """What the rules need of a dataset.

    Attributes:
        spacing: Target spacing in mm, axes as in the file.
        median: Median shape at the target spacing, not rounded, axes as in the file.
        transpose: Permutation that makes the axis of the lowest resolution the first.
        cases, inputs, outputs: Training cases, image channels, network outputs.
        convs: Convolutions per stage.
        notes: How the target spacing was found.
    """

    spacing: np.ndarray
    median: np.ndarray
    transpose: tuple[int, int, int]
    cases: int
    inputs: int
    outputs: int
    convs: int
    notes: tuple[str, ...]

    def permuted(self, values: np.ndarray) -> np.ndarray:
        """Return per-axis values in the axis order of the network."""
        return values[list(self.transpose)]


@dataclass(frozen=True)
class _Stage:
    """One network; axes permuted.

    Attributes:
        spacing, shape: mm and voxels of the median case.
        net: Pooling, kernels, patch size.
        batch_size: Patches per iteration.
        notes: Which limits decided.
    """

    spacing: np.ndarray
    shape: tuple[int, int, int]
    net: Topology
    batch_size: int
    notes: tuple[str, ...]

    @property
    def patch_voxels(self) -> int:
        """Volume of the patch."""
        return math.prod(self.net.patch_size)


class PlannerV21:
    """Plans configurations as nnU-Net v2.1 (spec: planning).

    Args:
        gpu_memory_gb: GPU memory that 3D patches are sized for; 2D plans do not depend on it. 8 and 16 hold v1's own
            constants, which are not quite proportional; every other value is.
        configurations: Which of 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres to plan; None plans all that apply.
        max_batch_size: Upper limit of every batch size.
        base_features: Features at full resolution.
        convs_per_stage: Convolutions per resolution, in 3D.
        target_spacing: mm (z, y, x) of 3D networks; None derives it from the dataset.
        low_resolution: Plan 3d_lowres and the cascade where the patch covers little of a case.
        shrink: Which axis of a 3D patch gets shorter until the network fits: the longest against the median case
            (`relative`), in mm, or in voxels.
        all_conv3: Kernels of 3 on every axis, at every resolution.
        schemes: {channel name: normalisation}; z-score for other names.
        preprocessor: Of 3D configurations.
    """

    def __init__(
        self,
        gpu_memory_gb: PositiveFloat = 8,
        configurations: tuple[str, ...] | None = None,
        max_batch_size: PositiveInt | None = None,
        base_features: PositiveInt = 32,
        convs_per_stage: PositiveInt = 2,
        target_spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None,
        low_resolution: bool = True,
        shrink: Literal["relative", "mm", "voxels"] = "relative",
        all_conv3: bool = False,
        schemes: Mapping[str, str] = SCHEMES,
        preprocessor: str = "default",
    ) -> None:
        self.gpu_memory_gb = gpu_memory_gb
        self.configurations = configurations
        self.max_batch_size = max_batch_size
        self.base_features = base_features
        self.convs_per_stage = convs_per_stage
        self.target_spacing = target_spacing
        self.low_resolution = low_resolution
        self.shrink = shrink
        self.all_conv3 = all_conv3
        self.schemes = schemes
        self.preprocessor = preprocessor

    def fingerprint(
        self, dataset: Dataset, workers: Workers, progress: Callable[[str], None] | None = None
    ) -> Fingerprint:
        """Read every training case once and describe it (contracts.Planner)."""
        return extract(dataset, workers, progress)

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder) -> Plans:
        """Return the plans (contracts.Planner).

        Raises:
            UsageError: `configurations` names one that this planner does not know.
        """
        wanted = self.configurations or CONFIGURATIONS
        for name in wanted:
            if name not in CONFIGURATIONS:
                raise UsageError(
                    f"planner.configurations names '{name}'.{nearest(name, CONFIGURATIONS)} "
                    f"This planner plans {', '.join(CONFIGURATIONS)}."
                )
        planned: dict[str, Configuration] = {}
        skipped: dict[str, str] = {}
        if "2d" in wanted:
            planned["2d"] = self._plan_2d(dataset, fingerprint, network)
        if any(name != "2d" for name in wanted):
            volumes, skipped = self._plan_3d(dataset, fingerprint, network)
            planned.update(volumes)
        return Plans(
            dataset=dataset.name,
            planner=f"{type(self).__module__}:{type(self).__qualname__}",
            fingerprint_digest=fingerprint.digest,
            configurations={
                name: planned[name] for name in CONFIGURATIONS if name in planned and name in wanted
            },
            skipped={name: why for name, why in skipped.items() if name in wanted},
            notes=self._notes(fingerprint),
        )

    def _notes(self, fingerprint: Fingerprint) -> tuple[str, ...]:
        """Say which channels have names that stand for no normalisation."""
        return tuple(
            f"channel {index} '{name}' is normalised by z-score, as every name without a scheme of its own; "
            f"another one: --set preprocessor.normalization.{index}=CT"
            for index, name in enumerate(fingerprint.channels)
            if name not in self.schemes
        )

    def _plan_2d(
        self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder
    ) -> Configuration:
        data = _describe(dataset, fingerprint, median_spacing(fingerprint), ())
        stage = self._stage_2d(data, network)
        return self._configuration(fingerprint, data, stage, batch_dice=True)

    def _plan_3d(
        self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder
    ) -> tuple[dict[str, Configuration], dict[str, str]]:
        """Return the 3D configurations, and why others are left out."""
        if self.target_spacing is None:
            data = _describe(dataset, fingerprint, *target_spacing(fingerprint))
        else:
            data = _describe(dataset, fingerprint, np.array(self.target_spacing, float), (_FIXED,))
        data = dataclasses.replace(data, convs=self.convs_per_stage)
        full = self._stage_3d(data, data.spacing, network)
        low, why = self._plan_low_resolution(data, full, network)
        fullres = self._configuration(fingerprint, data, full, batch_dice=low is not None)
        if low is None:
            return {"3d_fullres": fullres}, {
                "3d_lowres": why,
                "3d_cascade_fullres": "there is no 3d_lowres",
            }
        lowres = self._configuration(fingerprint, data, low, batch_dice=False)
        inputs = fullres.network.input_channels + len(dataset.labels.foreground)
        cascade = fullres.model_copy(
            update={
                "previous": "3d_lowres",
                "network": fullres.network.model_copy(update={"input_channels": inputs}),
            }
        )
        return {"3d_lowres": lowres, "3d_fullres": fullres, "3d_cascade_fullres": cascade}, {}

    def _stage_3d(self, data: _Data, spacing: np.ndarray, network: NetworkBuilder) -> _Stage:
        """Plan one 3D network at a spacing in mm, axes as in the file (spec: planning, section 6)."""
        limit = self._reference()
        current = data.permuted(spacing)
        shape = (
            np.round(data.permuted(data.spacing) / current * data.permuted(data.median))
            .astype(int)
            .clip(min=1)
        )

        def memory(net: Topology) -> float:
            return network.memory(
                self._spec(data, net, self.base_features, MAX_FEATURES[3]), net.patch_size
            )

        start = topology(current, self._first_patch(current, shape))
        net, shrunk = _shrink(start, current, memory, limit, self._longest(current, shape))
        fitting = math.floor(max(limit / memory(net), 1) * 2)
        share = max(
            round(
                _DATASET_SHARE * math.prod(map(int, shape)) * data.cases / math.prod(net.patch_size)
            ),
            2,
        )
        return _Stage(
            current,
            _triple(shape),
            net,
            max(1, min(fitting, share)),
            _limits(shrunk, fitting, share),
        )

    def _reference(self) -> float:
        """Return the memory that a network may take; v1 scales it unevenly (spec: planning, sections 1 and 11).

        8 GB counts the features of the network instead of 30, 16 GB divides by 8.5.
        """
        if self.gpu_memory_gb == 8:
            return _REFERENCE_3D * self.base_features / _REFERENCE_FEATURES
        return _REFERENCE_3D * self.gpu_memory_gb / (8.5 if self.gpu_memory_gb == 16 else 8)

    def _first_patch(self, spacing: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Return the patch to start from: 512 voxels on the coarsest axis and as many mm on the others, in the case."""
        if self.shrink == "voxels":
            return shape
        inverse = 1 / spacing
        inverse = inverse / inverse.mean()
        return np.minimum(np.round(inverse * (1 / inverse.min() * _EDGE)), shape).astype(int)

    def _longest(self, spacing: np.ndarray, shape: np.ndarray) -> _Longest:
        """Return what finds the axis of a patch to shorten; the last one in a tie."""
        if self.shrink == "relative":
            return lambda patch: patch / shape
        if self.shrink == "mm":
            return lambda patch: patch * spacing
        return lambda patch: spacing if np.all(patch == patch[0]) else patch

    def _plan_low_resolution(
        self, data: _Data, full: _Stage, network: NetworkBuilder
    ) -> tuple[_Stage | None, str]:
        """Plan the low-resolution network, or say why there is none (spec: planning, section 8)."""
        if not self.low_resolution:
            return None, "planner.low_resolution is false"
        patch, voxels = full.patch_voxels, float(np.prod(data.median))
        if voxels / patch <= _LOWRES_SHARE:
            return (
                None,
                f"a patch of 3d_fullres covers {patch / voxels:.0%} of the median case (limit 25 %)",
            )
        spacing, low = data.spacing.copy(), full
        while voxels > _LOWRES_SHARE * patch:
            finer = spacing.max() / spacing > 2
            spacing[finer if finer.any() else slice(None)] *= 1.01
            voxels = float(np.prod(data.spacing / spacing * data.median))
            low = self._stage_3d(data, spacing, network)
            patch = low.patch_voxels
        if 2 * math.prod(low.shape) < math.prod(full.shape):
            return low, ""
        return None, "it would hold more than half the voxels of 3d_fullres"

    def _configuration(
        self, fingerprint: Fingerprint, data: _Data, stage: _Stage, *, batch_dice: bool
    ) -> Configuration:
        dimensions = len(stage.net.patch_size)
        largest, first = max(stage.net.patch_size), stage.net.patch_size[0]
        flat = dimensions == 3 and largest / first > _ANISOTROPY
        notes = [*data.notes, *stage.notes]
        if flat:
            notes.append(
                f"the patch is more than {_ANISOTROPY} times longer than thick: it is rotated in plane only"
            )
        batch_size = stage.batch_size
        if self.max_batch_size is not None and self.max_batch_size < batch_size:
            notes.append(
                f"planner.max_batch_size lowers the batch size from {batch_size} to {self.max_batch_size}"
            )
            batch_size = self.max_batch_size
        return Configuration(
            preprocessor=self.preprocessor if dimensions == 3 else "planes",
            transpose_forward=data.transpose,
            spacing=_floats(stage.spacing),
            median_shape=stage.shape,
            patch_size=stage.net.patch_size,
            batch_size=batch_size,
            network=self._spec(data, stage.net, self.base_features, MAX_FEATURES[dimensions]),
            dummy_2d_augmentation=flat,
            batch_dice=batch_dice,
            normalization=normalization(fingerprint, self.schemes),
            notes=tuple(notes),
        )

    def _stage_2d(self, data: _Data, network: NetworkBuilder) -> _Stage:
        """Plan the 2D network (spec: planning, section 7); v1 counts 30 features at first and 32 while it shrinks."""
        spacing, shape = (
            data.permuted(data.spacing),
            np.round(data.permuted(data.median)).astype(int).clip(min=1),
        )

        def memory(features: int) -> Callable[[Topology], float]:
            return lambda net: network.memory(
                self._spec(data, net, features, _ESTIMATED_FEATURES_2D), net.patch_size
            )

        net, shrunk, estimate = topology(spacing[1:], shape[1:]), False, memory(_ESTIMATED_BASE_2D)
        if estimate(net) > _REFERENCE_2D:
            estimate = memory(self.base_features)
            net, shrunk = _shrink(
                net,
                spacing[1:],
                estimate,
                _REFERENCE_2D,
                lambda patch: patch / shape[1:],
                at_least_once=True,
            )
        fitting = math.floor(_REFERENCE_2D / estimate(net)) * 2
        share = round(
            _DATASET_SHARE * math.prod(map(int, shape)) * data.cases / math.prod(net.patch_size)
        )
        return _Stage(
            spacing,
            _triple(shape),
            net,
            max(1, min(fitting, share)),
            _limits(shrunk, fitting, share),
        )

    def _spec(
        self, data: _Data, net: Topology, base_features: int, max_features: int
    ) -> NetworkSpec:
        kernels = [[3] * len(kernel) if self.all_conv3 else kernel for kernel in net.kernels]
        return NetworkSpec(
            dimensions=2 if len(net.patch_size) == 2 else 3,
            input_channels=data.inputs,
            output_channels=data.outputs,
            pool_kernels=net.pools,
            conv_kernels=tuple(tuple(kernel) for kernel in kernels),
            base_features=base_features,
            max_features=max_features,
            convs_per_stage=data.convs,
        )


def median_spacing(fingerprint: Fingerprint) -> np.ndarray:
    """Return the median spacing per axis (z, y, x) in mm."""
    return np.median([case.spacing for case in fingerprint.cases], axis=0)


def target_spacing(fingerprint: Fingerprint) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the 3D target spacing (z, y, x) in mm, and notes for people (spec: planning, section 2).

    It is the median; an axis that is much coarser and has far fewer voxels than the others takes its 10th percentile.
    """
    spacing = median_spacing(fingerprint)
    sizes = np.median([case.size for case in fingerprint.cases], axis=0)
    worst = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != worst]
    finest = spacing[others].max()
    if not (
        spacing[worst] > _ANISOTROPY * finest and _ANISOTROPY * sizes[worst] < sizes[others].min()
    ):
        return spacing, ()
    median = spacing[worst]
    tenth = np.percentile([case.spacing[worst] for case in fingerprint.cases], 10)
    spacing[worst] = finest + 1e-5 if tenth < finest else tenth
    axis = "zyx"[worst]
    return spacing, (
        f"axis {axis} is anisotropic ({median:.4g} mm): its spacing is the 10th percentile",
    )


def normalization(
    fingerprint: Fingerprint, schemes: Mapping[str, str] = SCHEMES
) -> tuple[Normalization, ...]:
    """Return the scheme of each channel from its name (spec: planning, section 3; fingerprint, section 4)."""
    cropped = float(np.median([case.size_reduction for case in fingerprint.cases])) < _MASK_BELOW
    statistics = fingerprint.intensities or (None,) * len(fingerprint.channels)
    return tuple(
        Normalization(
            scheme=schemes.get(name, "zscore"),
            use_mask="CT" not in name and cropped,
            statistics=values,
        )
        for name, values in zip(fingerprint.channels, statistics, strict=True)
    )


def _describe(
    dataset: Dataset, fingerprint: Fingerprint, spacing: np.ndarray, notes: tuple[str, ...]
) -> _Data:
    shapes = [np.array(case.spacing) / spacing * np.array(case.size) for case in fingerprint.cases]
    coarsest = int(np.argmax(spacing))
    first, second = (axis for axis in range(3) if axis != coarsest)
    return _Data(
        spacing=spacing,
        median=np.median(shapes, axis=0),
        transpose=(coarsest, first, second),
        cases=len(fingerprint.cases),
        inputs=len(fingerprint.channels),
        outputs=dataset.labels.outputs,
        convs=2,
        notes=notes,
    )


def _shrink(
    net: Topology,
    spacing: np.ndarray,
    memory: Callable[[Topology], float],
    limit: float,
    length: _Longest,
    at_least_once: bool = False,
) -> tuple[Topology, bool]:
    """Shorten the patch along the axis of the greatest `length` until its memory is within the limit."""
    shrunk = False
    while memory(net) > limit or (at_least_once and not shrunk):
        sizes = np.array(net.patch_size)
        can_shrink = sizes > net.divisor  # v1 shortens thin axes to nothing, and fails
        axis = int(np.argsort(np.where(can_shrink, length(sizes), -1), kind="stable")[-1])
        patch = list(net.patch_size)
        patch[axis] -= net.divisor[axis]
        patch[axis] = net.patch_size[axis] - topology(spacing, patch).divisor[axis]
        net, shrunk = topology(spacing, patch), True
    return net, shrunk


def _limits(shrunk: bool, fitting: int, share: int) -> tuple[str, str]:
    """Say what decided the patch and the batch size."""
    patch = "GPU memory limits the patch size" if shrunk else "the patch covers the median case"
    batch = "5 % of the dataset's voxels limit" if share < fitting else "GPU memory limits"
    return patch, f"{batch} the batch size"


def _floats(values: np.ndarray) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _triple(values: np.ndarray) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in values)
    return first, second, third
