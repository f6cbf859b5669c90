"""Why plans are as they are: the rule, and the numbers that it was given, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnunet_builtin.planning.normalizations import MASK_BELOW
from nnunet_builtin.planning.patches import DATASET_SHARE, EDGE, Candidate, Grid
from nnunet_builtin.planning.spacings import ANISOTROPY, median_spacing
from nnunet_builtin.planning.steps import PlanningSteps
from nnunet_builtin.planning.target import Target
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.plans import Configuration
from nnunet_core.errors import counted

_CHANGED = "The plans have another one: they were edited, or another version made them."
_LONGEST = {
    "relative": "the one that covers most of the median case",
    "mm": "the longest in mm",
    "voxels": "the longest in voxels",
}


@dataclass(frozen=True)
class Reasons:
    """One configuration, and what the planner was given when it decided.

    Attributes:
        planner: That decided.
        fingerprint: Of the dataset.
        configuration: Of the plans.
        target, grid, budget: The median case, and the bytes of training on one patch.
        first: The patch that the search began with.
        chosen: The patch that the rules choose now.
        batch_size: That the rules choose now, before `max_batch_size`.
    """

    planner: PlanningSteps
    fingerprint: Fingerprint
    configuration: Configuration
    target: Target
    grid: Grid
    budget: float
    first: Candidate
    chosen: Candidate
    batch_size: int

    def all(self) -> dict[str, str]:
        """Return {what was decided: why}."""
        return {
            "target spacing": self._spacing(),
            "order of the axes": self._axes(),
            "median shape": self._shape(),
            "patch size": self._patch(),
            "batch size": self._batch(),
            "pooling and kernels": self._network(),
            "features": self._features(),
            "normalisation": self._normalization(),
            "loss over the batch": self._batch_dice(),
            "augmentation": self._rotation(),
        }

    def _other(self, step: str) -> str:
        """Name the class whose own rule a step is; empty where it is the one described here."""
        if getattr(type(self.planner), step) is getattr(PlanningSteps, step):
            return ""
        return f"By the rule of its own of {type(self.planner).__qualname__} ({step})."

    def _spacing(self) -> str:
        planner, cases = self.planner, counted(len(self.fingerprint.cases), "case")
        median = median_spacing(self.fingerprint)
        if other := self._other("choose_spacing"):
            return f"{other} The median of {cases} is {_mm(median)} (z, y, x)."
        if self.configuration.dimensions == 2:
            return (
                f"The median of {cases}: {_mm(median)} (z, y, x). Slices are resampled in plane "
                "only; the first axis is never resampled."
            )
        if planner.target_spacing is not None:
            return f"Set by planner.target_spacing. The median of {cases} is {_mm(median)}."
        text = f"The median of {cases} is {_mm(median)} (z, y, x). {self._anisotropy(median)}"
        full = self.target.spacing[list(self.target.transpose)]
        if np.allclose(full, self.configuration.spacing):
            return text
        share = planner.low_resolution_coverage
        return (
            f"{text} At that spacing a patch covers less than {share:.0%} of the median case, so "
            f"the spacing grows by 1 % a step until it covers {share:.0%}."
        )

    def _anisotropy(self, median: np.ndarray) -> str:
        """Say whether the coarsest axis takes a percentile of its spacings, and why."""
        sizes = np.median([case.size for case in self.fingerprint.cases], axis=0)
        worst = int(np.argmax(median))
        others = [axis for axis in range(3) if axis != worst]
        facts = (
            f"axis {'zyx'[worst]} has {median[worst]:.4g} mm beside {median[others].max():.4g} mm "
            f"and {sizes[worst]:g} voxels beside {sizes[others].min():g}"
        )
        rule = f"more than {ANISOTROPY} times coarser with fewer than a third of the voxels"
        coarse = median[worst] > ANISOTROPY * median[others].max()
        if coarse and ANISOTROPY * sizes[worst] < sizes[others].min():
            return f"An axis that is {rule} takes the 10th percentile of its spacings: {facts}."
        return f"No axis is {rule} ({facts}), so it stays."

    def _axes(self) -> str:
        axis = "zyx"[self.configuration.transpose_forward[0]]
        return self._other("choose_axis_order") or (
            f"The axis with the largest target spacing comes first: {axis}. Sizes below are in "
            "this order."
        )

    def _shape(self) -> str:
        return self._other("choose_median_shape") or (
            "The median over the cases of size x spacing / target spacing, after cropping to what "
            "is not 0."
        )

    def _patch(self) -> str:
        chosen, first = self.chosen, self.first
        parts = [self._other("choose_patch") or self._first_patch()]
        parts.append(
            f"Rounded up to multiples of {_size(first.divisor)}, {_size(first.patch_size)} needs "
            f"{_gb(first.memory)} for one patch of the {_gb(self.budget)} allowed "
            f"({self._allowed()})."
        )
        if chosen.patch_size == first.patch_size:
            parts.append("It fits.")
        else:
            shrink = "relative" if self.configuration.dimensions == 2 else self.planner.shrink
            parts.append(
                f"The longest axis ({_LONGEST[shrink]}) is made shorter until it fits: "
                f"{_size(chosen.patch_size)} needs {_gb(chosen.memory)}."
            )
        if chosen.patch_size != self.configuration.patch_size:
            parts.append(_CHANGED)
        return " ".join(parts)

    def _first_patch(self) -> str:
        shape = _size(self.grid.shape)
        if other := self._other("first_patch"):
            return f"{other} The median case has {shape} voxels."
        if self.configuration.dimensions == 2 or self.planner.shrink == "voxels":
            return f"The search begins with the median case, {shape} voxels."
        return (
            f"The search begins with {EDGE} voxels on the coarsest axis and as many mm on the "
            f"others, at most the median case of {shape} voxels."
        )

    def _allowed(self) -> str:
        if self._other("patch_budget"):
            return "the planner's own budget"
        if self.configuration.dimensions == 2:
            return "fixed for 2D"
        features = self.configuration.network.base_features
        return (
            f"as v1 counts for planner.gpu_memory_gb = {self.planner.gpu_memory_gb:g} and "
            f"{features} features"
        )

    def _batch(self) -> str:
        planner, found, wanted = self.planner, self.chosen, self.batch_size
        fitting = max(self.budget / found.memory, 1) * 2
        share = DATASET_SHARE * self.grid.voxels / found.voxels
        text = self._other("choose_batch_size") or (
            f"Memory allows {math.floor(fitting)} patches; {DATASET_SHARE:.0%} of the dataset's "
            f"voxels are {share:.1f} patches. The smaller number counts, at least "
            f"{2 if self.configuration.dimensions == 3 else 1}: {wanted}."
        )
        if planner.max_batch_size is not None and planner.max_batch_size < wanted:
            wanted = planner.max_batch_size
            text += f" planner.max_batch_size lowers it to {wanted}."
        return text if wanted == self.configuration.batch_size else f"{text} {_CHANGED}"

    def _network(self) -> str:
        spec = self.configuration.network
        if other := self._other("choose_topology"):
            return other
        halved = [sum(k[axis] > 1 for k in spec.pool_kernels) for axis in range(spec.dimensions)]
        thin = sum(1 in kernel for kernel in spec.conv_kernels)
        kernels = "Kernels are 3 on every axis"
        if thin:
            kernels += (
                f", but 1 at {counted(thin, 'resolution')} on axes whose spacing there differs by "
                "a factor of 2 or more from that of the others"
            )
        return (
            "An axis is halved while its spacing is below twice the finest one and it has at least "
            f"8 voxels: {_size(halved)} times. {kernels}."
        )

    def _features(self) -> str:
        spec = self.configuration.network
        return (
            f"{spec.base_features} at full resolution, doubled at each of "
            f"{counted(len(spec.pool_kernels), 'step', 'steps')} down to at most "
            f"{spec.max_features}; {spec.convs_per_stage} convolutions at each resolution."
        )

    def _normalization(self) -> str:
        if other := self._other("choose_normalization"):
            return other
        kept = float(np.median([case.size_reduction for case in self.fingerprint.cases]))
        pairs = zip(self.fingerprint.channels, self.configuration.normalization, strict=True)
        shown = ", ".join(f"{name}: {each.scheme}" for name, each in pairs)
        masked = "below" if kept < MASK_BELOW else "not below"
        return (
            f"By the name of the channel ({shown}). Cropping keeps {kept:.0%} of the median case, "
            f"{masked} {MASK_BELOW:.0%}: statistics of channels other than CT are those of "
            f"{'what is not 0' if kept < MASK_BELOW else 'the whole image'}."
        )

    def _batch_dice(self) -> str:
        if self.configuration.batch_dice:
            return (
                "The Dice is summed over the batch: a patch shows only a part of a case (2D, or "
                "full resolution beside a low one)."
            )
        return "The Dice is that of each patch: it covers much of a case."

    def _rotation(self) -> str:
        if self.configuration.dimensions == 2:
            return "Patches of 2D networks have one plane."
        sizes = self.configuration.patch_size
        return (
            f"A patch that is more than {ANISOTROPY} times longer than thick is rotated in plane "
            f"only: {max(sizes)} voxels beside {sizes[0]}."
        )


def _size(values: Iterable[float]) -> str:
    return " × ".join(f"{value:g}" for value in values)


def _mm(values: Iterable[float]) -> str:
    return f"{' × '.join(f'{value:.4g}' for value in values)} mm"


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB"
