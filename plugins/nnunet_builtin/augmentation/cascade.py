"""What a cascade adds: random changes of the previous stage's label map, which becomes image
channels.

Spec: training, section 6. Both steps change the label map, so they may stand anywhere in the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from nnunet_builtin.augmentation.chance import RadiusRange, Share, happens
from nnunet_core.contracts.augmentation import Sample, Step
from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from nnunet_core.data.plans import Configuration

OPERATIONS = ("dilation", "erosion", "closing", "opening")
#: Larger than every squared distance that matters, small enough that int16 holds its sum with one.
_FAR = 16384


@dataclass(frozen=True)
class Operator:
    """A binary operation with a ball on one class of the previous stage.

    Attributes:
        channel: Foreground class, from 0.
        operation: `dilation`, `erosion`, `closing` or `opening`.
        radius: Of the ball, see `ball_size`.
    """

    channel: int
    operation: str
    radius: float


@dataclass(frozen=True)
class Removal:
    """The removal of one connected component of a class of the previous stage.

    Attributes:
        channel: Foreground class, from 0.
        position: From 0 to 1: which of the components that are small enough.
        fill: Class that takes its place, or None.
    """

    channel: int
    position: float
    fill: int | None


@dataclass(frozen=True)
class CascadeOperators(Step):
    """Dilation, erosion, closing or opening of classes of the previous stage, in random order.

    Voxels that an operation adds to a class are taken from all others; voxels that it takes away
    become background.

    Args:
        probability: Per sample.
        label_probability: Per class of such a sample.
        radius: Of the ball, voxels.
    """

    probability: Share = 0.4
    label_probability: Share = 1.0
    radius: RadiusRange = (1.0, 8.0)

    def draw(self, rng: np.random.Generator, sample: Sample) -> tuple[Operator, ...] | None:
        """Return the operations."""
        classes = _classes(sample)
        if classes < 1 or not happens(rng, self.probability):
            return None
        return tuple(
            Operator(int(c), OPERATIONS[rng.integers(4)], rng.uniform(*self.radius))
            for c in rng.permutation(classes)
            if happens(rng, self.label_probability)
        )

    def apply(self, sample: Sample, decision: tuple[Operator, ...]) -> Sample:
        """Change one class after the other."""
        previous = sample.previous
        assert previous is not None
        for operator in decision:
            before = previous == operator.channel + 1
            after = operate(before[0], operator.operation, operator.radius)
            previous = previous.masked_fill(before, 0).masked_fill_(after, operator.channel + 1)
        return replace(sample, previous=previous)


@dataclass(frozen=True)
class CascadeRemoval(Step):
    """Removal of one small connected component of each class of the previous stage.

    Args:
        probability: Per sample.
        size: Components of at least this share of the patch stay. In v1 none is ever small enough;
            0.15 is what it meant.
        fill_probability: Of another class in its place.
    """

    probability: Share = 0.2
    size: Share = 0.0
    fill_probability: Share = 0.0

    def draw(self, rng: np.random.Generator, sample: Sample) -> tuple[Removal, ...] | None:
        """Return the removals."""
        classes = _classes(sample)
        if classes < 1 or self.size == 0 or not happens(rng, self.probability):
            return None
        removals = []
        for channel in range(classes):
            others = [c for c in range(classes) if c != channel]
            filled = others and happens(rng, self.fill_probability)
            fill = int(rng.choice(others)) if filled else None
            removals.append(Removal(channel, rng.random(), fill))
        return tuple(removals)

    def apply(self, sample: Sample, decision: tuple[Removal, ...]) -> Sample:
        """Remove; components are searched on the CPU."""
        assert sample.previous is not None
        previous = sample.previous.cpu().numpy().copy()
        for removal in decision:
            component = self._component(previous[0] == removal.channel + 1, removal.position)
            previous[0][component] = 0 if removal.fill is None else removal.fill + 1
        return replace(sample, previous=torch.from_numpy(previous).to(sample.previous.device))

    def _component(self, mask: np.ndarray, position: float) -> np.ndarray:
        """Return one of the small components (neighbours share a face, edge or corner) of a mask,
        or an empty one.
        """
        components, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(components.reshape(-1), minlength=count + 1)[1:]
        small = np.flatnonzero(sizes < self.size * mask.size) + 1
        if not len(small):
            return np.zeros_like(mask)
        return components == small[int(position * len(small))]


def _classes(sample: Sample) -> int:
    """Return the foreground classes of the previous stage; 0 without one."""
    if sample.previous is None:
        return 0
    return sample.configuration.network.input_channels - len(sample.images)


def append_previous(
    batch: dict[str, np.ndarray], configuration: Configuration
) -> dict[str, np.ndarray]:
    """Return the batch with one channel per foreground class of the previous stage, for batches
    that are not augmented.

    Args:
        batch: `images` float32 (B, C, *spatial) and, in a cascade, `previous` integer (B, 1,
            *spatial).
        configuration: Whose network has a channel for every image and foreground class.

    Returns:
        `images` float32 (B, C + classes, *spatial), without `previous`; the batch itself when it
        holds none.

    Raises:
        UsageError: The network has no channels for the previous stage.
    """
    if "previous" not in batch:
        return batch
    rest = {key: value for key, value in batch.items() if key != "previous"}
    classes = foreground_classes(batch["images"].shape[1], configuration)
    channels = one_hot(torch.from_numpy(batch["previous"]), classes).numpy()
    return {**rest, "images": np.concatenate([batch["images"], channels], axis=1)}


def foreground_classes(images: int, configuration: Configuration) -> int:
    """Return how many input channels of the network are left for the previous stage beside so many
    images.

    Raises:
        UsageError: None.
    """
    classes = configuration.network.input_channels - images
    if classes < 1:
        raise UsageError(
            f"The batch holds the label map of a previous stage, but the network takes "
            f"{configuration.network.input_channels} channels, and {images} of them are images. "
            "A configuration of a cascade has one more for every foreground class: plan it again."
        )
    return classes


def one_hot(previous: torch.Tensor, classes: int) -> torch.Tensor:
    """Return float32 (B, classes, *spatial) of label maps (B, 1, *spatial): where they are 1, 2,
    ...
    """
    values = torch.arange(1, classes + 1, dtype=previous.dtype, device=previous.device)
    return (previous == values.reshape(-1, *(1,) * (previous.ndim - 2))).float()


def ball_size(radius: float) -> int:
    """Return the voxels per axis of v1's ball: the whole part of `2 radius + 1`, from `-radius` to
    `radius`.

    Of these grid points it has those within the radius, so it is the ball of radius `(size - 1) /
    2` voxels; between two voxels lies the centre of an even size. Points on its surface belong to
    it; v1's rounding leaves some out.
    """
    return int(2 * radius + 1)


def operate(mask: torch.Tensor, operation: str, radius: float) -> torch.Tensor:
    """Return a bool (*spatial) mask after a binary operation with a ball; nothing comes in over the
    border.

    Args:
        mask: bool (*spatial).
        operation: `dilation`, `erosion`, `closing` (dilation, then erosion) or `opening`.
        radius: See `ball_size`.
    """
    size = ball_size(radius)
    window = _neighbourhood(mask, size + 1)
    result = torch.zeros_like(mask)
    if window is None:
        return result
    inside = mask[window]
    if operation in ("dilation", "closing"):
        inside = _dilated(inside, size)
    if operation != "dilation":
        inside = ~_dilated(~inside, size, reflected=True)
    if operation == "opening":
        inside = _dilated(inside, size)
    result[window] = inside
    return result


def _neighbourhood(mask: torch.Tensor, margin: int) -> tuple[slice, ...] | None:
    """Return the box of the mask, grown by a margin within the array, or None for an empty mask."""
    window = []
    for axis in range(mask.ndim):
        others = [other for other in range(mask.ndim) if other != axis]
        used = mask.sum(others).nonzero().flatten().tolist()
        if not used:
            return None
        window.append(slice(max(0, used[0] - margin), used[-1] + 1 + margin))
    return tuple(window)


def _ball_steps(size: int, reflected: bool) -> list[tuple[int, int]]:
    """Return (shift in voxels, squared distance in half voxels) of a ball's grid points along one
    axis.

    Even balls have their centre between two voxels: their dilation looks one voxel further ahead,
    reflected one further back, as in SciPy.
    """
    first = -(size // 2) if reflected else -(size - 1) + size // 2
    return [(first + k, (2 * k - (size - 1)) ** 2) for k in range(size)]


def _dilated(mask: torch.Tensor, size: int, reflected: bool = False) -> torch.Tensor:
    """Return the voxels that are within a ball of the mask, by squared distances, one axis after
    the other.
    """
    distance = torch.where(mask, 0, _FAR).to(torch.int16)
    steps = _ball_steps(size, reflected)
    for axis in range(mask.ndim):
        distance = _nearest_along(distance, axis, steps)
    return distance <= (size - 1) ** 2


def _nearest_along(
    distance: torch.Tensor, axis: int, steps: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Return, for every voxel, the smallest distance of its neighbours along an axis plus that of
    the step to them.
    """
    result = torch.full_like(distance, _FAR)
    voxels = distance.shape[axis]
    for shift, step in steps:
        if abs(shift) < voxels:
            here = result.narrow(axis, max(0, -shift), voxels - abs(shift))
            there = distance.narrow(axis, max(0, shift), voxels - abs(shift))
            torch.minimum(here, there + step, out=here)
    return result
