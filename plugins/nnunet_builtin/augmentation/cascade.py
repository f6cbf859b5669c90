"""What a cascade adds: the previous stage's label map as further image channels, and its random changes.

Spec: training, section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from nnunet_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnunet_builtin.augmentation.decisions import Draw, Removal
    from nnunet_core.data.plans import Configuration

#: Larger than every squared distance that matters, small enough that int16 holds its sum with one.
FAR = 16384


def append_previous(
    batch: dict[str, np.ndarray], configuration: Configuration
) -> dict[str, np.ndarray]:
    """Return the batch with one channel per foreground class of the previous stage, for batches that are not augmented.

    Args:
        batch: `images` float32 (B, C, *spatial) and, in a cascade, `previous` integer (B, 1, *spatial).
        configuration: Whose network has a channel for every image and foreground class.

    Returns:
        `images` float32 (B, C + classes, *spatial), without `previous`; the batch itself when it holds none.

    Raises:
        UsageError: The network has no channels for the previous stage.
    """
    if "previous" not in batch:
        return batch
    rest = {key: value for key, value in batch.items() if key != "previous"}
    classes = foreground_classes(batch["images"].shape[1], configuration)
    channels = [one_hot(previous[0], classes) for previous in batch["previous"]]
    return {**rest, "images": np.concatenate([batch["images"], np.stack(channels)], axis=1)}


def foreground_classes(images: int, configuration: Configuration) -> int:
    """Return how many input channels of the network are left for the previous stage beside so many images.

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


def one_hot(previous: np.ndarray, classes: int) -> np.ndarray:
    """Return float32 (classes, *spatial) of a label map (*spatial): where it is 1, 2, ..."""
    values = np.arange(1, classes + 1, dtype=previous.dtype).reshape(-1, *(1,) * previous.ndim)
    return (previous == values).astype(np.float32)


def change_previous(draw: Draw, channels: np.ndarray) -> None:
    """Do the drawn operations and removals to one-hot float32 (classes, *patch) channels, in place.

    Voxels that an operation adds to a class are taken from all others; voxels that it takes away become background.
    """
    for operator in draw.operators:
        before = channels[operator.channel] > 0
        after = operate(before, operator.operation, operator.radius)
        channels[:, after & ~before] = 0
        channels[operator.channel] = after
    for removal in draw.removals:
        remove_component(channels, removal)


def remove_component(channels: np.ndarray, removal: Removal) -> None:
    """Take one of the small connected components (neighbours share a face, edge or corner) from a class, in place."""
    channel = channels[removal.channel]
    components, count = ndimage.label(channel, np.ones((3,) * channel.ndim))
    sizes = np.bincount(components.reshape(-1), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < removal.size * channel.size) + 1
    if len(small):
        chosen = components == small[int(removal.position * len(small))]
        channel[chosen] = 0
        if removal.fill is not None:
            channels[removal.fill][chosen] = 1


def ball_size(radius: float) -> int:
    """Return the voxels per axis of v1's ball: the whole part of `2 radius + 1`, from `-radius` to `radius`.

    Of these grid points it has those within the radius, so it is the ball of radius `(size - 1) / 2` voxels; between
    two voxels lies the centre of an even size. Points on its surface belong to it; v1's rounding leaves some out.
    """
    return int(2 * radius + 1)


def operate(mask: np.ndarray, operation: str, radius: float) -> np.ndarray:
    """Return a bool (*spatial) mask after a binary operation with a ball; nothing comes in over the border.

    Args:
        mask: bool (*spatial).
        operation: `dilation`, `erosion`, `closing` (dilation, then erosion) or `opening`.
        radius: See `ball_size`.
    """
    size = ball_size(radius)
    window = _neighbourhood(mask, size + 1)
    result = np.zeros_like(mask)
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


def ball_steps(size: int, reflected: bool = False) -> list[tuple[int, int]]:
    """Return (shift in voxels, squared distance in half voxels) of a ball's grid points along one axis.

    Even balls have their centre between two voxels: their dilation looks one voxel further ahead, reflected one further
    back, as in SciPy.
    """
    first = -(size // 2) if reflected else -(size - 1) + size // 2
    return [(first + k, (2 * k - (size - 1)) ** 2) for k in range(size)]


def _dilated(mask: np.ndarray, size: int, reflected: bool = False) -> np.ndarray:
    """Return the voxels that are within a ball of the mask, by squared distances, one axis after the other."""
    distance = np.where(mask, 0, FAR).astype(np.int16)
    for axis in range(mask.ndim):
        distance = _nearest_along(distance, axis, ball_steps(size, reflected))
    return distance <= (size - 1) ** 2


def _nearest_along(distance: np.ndarray, axis: int, steps: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return, for every voxel, the smallest distance of its neighbours along an axis plus that of the step to them."""
    result = np.full_like(distance, FAR)
    source, target = np.moveaxis(distance, axis, 0), np.moveaxis(result, axis, 0)
    voxels = len(source)
    for shift, step in steps:
        if abs(shift) < voxels:
            here = target[max(0, -shift) : voxels - max(0, shift)]
            np.minimum(
                here, source[max(0, shift) : voxels - max(0, -shift)] + np.int16(step), out=here
            )
    return result


def _neighbourhood(mask: np.ndarray, margin: int) -> tuple[slice, ...] | None:
    """Return the box of the mask, grown by a margin within the array, or None for an empty mask."""
    window = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(
            mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis))
        )
        if not len(used):
            return None
        window.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + 1 + margin))
    return tuple(window)
