"""Sliding-window prediction with Gaussian weights and mirroring (spec: inference, sections 2 to
4).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nnunet_builtin.computing.ahead import ahead
from nnunet_builtin.computing.allocation import give_freed_memory_back
from nnunet_builtin.computing.computation import computing
from nnunet_builtin.computing.devices import ResolvedRuntime, resolve
from nnunet_builtin.inference.networks import Forward, load_networks
from nnunet_builtin.inference.sums import Sums
from nnunet_core.contracts.predictor import Slabs, TrainedModel, Values
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError

#: Voxels that one forward pass may hold; tiles and mirrored versions are joined up to it.
VOXELS_PER_PASS = {"cpu": 2**16, "cuda": 2**23, "mps": 2**21}
_LEAST_STEP = 0.01  # a window in about every voxel of usual patches


@dataclass
class SlidingWindow:
    """Averages windows with Gaussian weights, mirrored windows and folds, as nnU-Net v1 does (spec:
    inference).

    Args:
        step_size: Distance of windows as a fraction of the patch, from 0.01 to 1.
        mirroring: Average over inputs that are mirrored along every combination of the axes that
            training mirrored: 8 in 3D, and as many times slower.
        average: What is averaged: `probabilities`, as in nnU-Net v1; or `logits`, which become
            probabilities on the grid of the image, as in v2.
    """

    step_size: float = 0.5
    mirroring: bool = True
    average: Values = "probabilities"

    def check(self, runtime: Runtime) -> None:
        """Raise UsageError where the step size is none, or the device or precision does not
        exist.
        """
        resolve(runtime)
        if not _LEAST_STEP <= self.step_size <= 1:
            raise UsageError(
                f"The step size is {self.step_size}; it is a fraction of the patch, from "
                f"{_LEAST_STEP} to 1."
            )

    def load(self, model: TrainedModel) -> Callable[[np.ndarray], Slabs]:
        """Load every fold's weights; return images (C, *spatial) -> slabs of what is averaged (K,
        *spatial) (contracts.Predictor).
        """
        self.check(model.runtime)
        runtime = resolve(model.runtime)
        networks = load_networks(model, runtime, self.average)

        def parts(images: np.ndarray) -> Generator[np.ndarray, None, None]:
            with computing(runtime):
                yield from predict_slabs(
                    networks,
                    images,
                    patch_size=model.configuration.patch_size,
                    runtime=runtime,
                    mirror_axes=model.mirror_axes if self.mirroring else (),
                    step_size=self.step_size,
                    memory_gb=model.runtime.memory_gb,
                )

        def apply(images: np.ndarray) -> Slabs:
            shape, slabs = (model.labels.outputs, *images.shape[1:]), parts(images)
            if runtime.device.type != "cpu":  # which labels are made on meanwhile
                slabs = ahead(slabs)
            return Slabs(shape, slabs, self.average)

        return apply


def window_starts(
    image_size: Sequence[int], patch_size: Sequence[int], step: float = 0.5
) -> list[list[int]]:
    """Return the start of every window per axis; the image is at least as large as the patch,
    `step` in (0, 1].
    """
    starts = []
    for size, patch in zip(image_size, patch_size, strict=True):
        count = math.ceil((size - patch) / (patch * step)) + 1
        distance = (size - patch) / (count - 1) if count > 1 else 0.0
        starts.append([int(np.round(distance * index)) for index in range(count)])
    return starts


def gaussian_map(patch_size: Sequence[int]) -> np.ndarray:
    """Return float32 weights of the patch's size: a Gaussian of sigma size / 8, 1 in the centre,
    nowhere 0.
    """
    from scipy import ndimage  # 0.3 s, which images of one window do without

    weights = np.zeros(patch_size)
    weights[tuple(size // 2 for size in patch_size)] = 1
    weights = ndimage.gaussian_filter(
        weights, [size / 8 for size in patch_size], 0, mode="constant", cval=0
    )
    weights = (weights / weights.max()).astype(np.float32)
    weights[weights == 0] = weights[weights > 0].min()
    return weights


def predict(
    forward: Forward,
    images: np.ndarray,
    patch_size: Sequence[int],
    runtime: ResolvedRuntime,
    mirror_axes: Sequence[int] = (),
    step_size: float = 0.5,
) -> np.ndarray:
    """Predict an image of any size, whole.

    Args:
        forward: Tiles float32 (B, C, *patch) on the device -> probabilities (B, K, *patch).
        images: float32 (C, *spatial), three spatial axes.
        patch_size: Three entries, or two for networks of single slices along axis 0.
        runtime: Device and precision.
        mirror_axes: Spatial axes of the patch to mirror; probabilities are averaged over every
            combination.
        step_size: Distance of windows as a fraction of the patch.

    Returns:
        float32 (K, *spatial).
    """
    return predict_ensemble([forward], images, patch_size, runtime, mirror_axes, step_size)


def predict_ensemble(
    networks: Sequence[Forward],
    images: np.ndarray,
    patch_size: Sequence[int],
    runtime: ResolvedRuntime,
    mirror_axes: Sequence[int] = (),
    step_size: float = 0.5,
) -> np.ndarray:
    """Return the mean of the networks' probabilities (K, *spatial), in their order (spec:
    inference, section 4).

    Args:
        networks: Functions of tiles to probabilities, see `networks.load_networks`.
        images: float32 (C, *spatial).
        patch_size: See `predict`.
        runtime: See `predict`.
        mirror_axes: See `predict`.
        step_size: See `predict`.
    """
    slabs = predict_slabs(networks, images, patch_size, runtime, mirror_axes, step_size)
    return np.concatenate(list(slabs), axis=1)


def predict_slabs(
    networks: Sequence[Forward],
    images: np.ndarray,
    patch_size: Sequence[int],
    runtime: ResolvedRuntime,
    mirror_axes: Sequence[int] = (),
    step_size: float = 0.5,
    memory_gb: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield what `predict_ensemble` returns, slab by slab along axis 0: slices are given out as
    soon as no later window touches them.

    Args:
        networks: See `predict_ensemble`.
        images: See `predict`.
        patch_size: See `predict`.
        runtime: See `predict`.
        mirror_axes: See `predict`.
        step_size: See `predict`.
        memory_gb: Memory in GB that the process may fill; sums that do not fit are kept in a
            temporary file.

    Yields:
        float32 (K, slices, *rest).

    Raises:
        TrainingError: The device, or the disk of temporary files, is too small.
    """
    if not networks:
        raise ValueError("an ensemble needs at least one network")
    grid = _Grid.of(images, patch_size, step_size)
    flips = _combinations(mirror_axes)
    per_pass = max(1, VOXELS_PER_PASS[runtime.device.type] // math.prod(grid.patch))
    groups = list(_groups(itertools.product(*grid.starts), max(1, per_pass // len(flips))))
    sums: Sums | None = None
    for number, windows in enumerate(groups):
        places = [grid.place(window) for window in windows]
        tiles = torch.stack([grid.tile(place) for place in places]).to(runtime.device)
        for network, forward in enumerate(networks):
            found = _mirrored(forward, tiles, flips, per_pass).cpu()
            if sums is None:
                shape = found.shape[1], grid.depth(groups), *grid.padded.shape[2:]
                sums = Sums(len(networks), shape, memory_gb)
            for place, tile in zip(places, found, strict=True):
                sums.add(network, place, tile.reshape(-1, *grid.patch), grid.weights)
        assert sums is not None
        del found, tile  # they are large
        following = groups[number + 1][0][0] if number + 1 < len(groups) else None
        finished = grid.finished(windows[0][0], following)
        for slab in sums.finish(finished, grid.inside[1:]):
            give_freed_memory_back()  # what windows need, slabs cannot use, and the other way
            yield slab


@dataclass(frozen=True)
class _Grid:
    """The windows of an image.

    Attributes:
        padded: The images (C, *spatial), at least as large as the patch.
        inside: Where the image lies in them.
        patch_size: Of the network: of three axes, or without axis 0.
        starts: First voxels of the windows along each axis.
        weights: Of the voxels of a window, float32 (*patch).
    """

    padded: torch.Tensor
    inside: tuple[slice, ...]
    patch_size: tuple[int, ...]
    starts: list[list[int]]
    weights: torch.Tensor

    @classmethod
    def of(cls, images: np.ndarray, patch_size: Sequence[int], step_size: float) -> _Grid:
        slices_along = 3 - len(patch_size)  # axes along which every slice is an image of its own
        patch = (1,) * slices_along + tuple(patch_size)
        padded, inside = _pad(torch.from_numpy(np.ascontiguousarray(images, np.float32)), patch)
        tiles_at = window_starts(padded.shape[1 + slices_along :], patch_size, step_size)
        starts = [list(range(count)) for count in padded.shape[1 : 1 + slices_along]] + tiles_at
        one_tile = math.prod(len(axis) for axis in tiles_at) == 1
        weights = np.ones(patch_size, np.float32) if one_tile else gaussian_map(patch_size)
        of_window = torch.from_numpy(weights).reshape(patch)
        return cls(padded, inside, tuple(patch_size), starts, of_window)

    @property
    def patch(self) -> tuple[int, ...]:
        """Voxels of a window along the three axes."""
        return tuple(self.weights.shape)

    def place(self, window: Sequence[int]) -> tuple[slice, ...]:
        """Return where the window with these first voxels lies in the padded images."""
        return tuple(slice(s, s + size) for s, size in zip(window, self.patch, strict=True))

    def tile(self, place: Sequence[slice]) -> torch.Tensor:
        """Return the images (C, *patch_size) of a window."""
        return self.padded[(slice(None), *place)].reshape(-1, *self.patch_size)

    def depth(self, groups: Sequence[Sequence[Sequence[int]]]) -> int:
        """Return the most slices that a group of windows spans."""
        return max(group[-1][0] + self.patch[0] - group[0][0] for group in groups)

    def finished(self, start: int, following: int | None) -> slice:
        """Return the slices of the image from `start` to the next group's first window, or all."""
        first, end = self.inside[0], self.padded.shape[1] if following is None else following
        return slice(max(start, first.start), min(end, first.stop))


@torch.inference_mode()
def _mirrored(
    forward: Forward, tiles: torch.Tensor, flips: Sequence[tuple[int, ...]], per_pass: int
) -> torch.Tensor:
    """Average over mirrored tiles (B, C, *patch), `per_pass` of them at once."""
    together = max(1, per_pass // len(tiles))
    total: torch.Tensor | None = None
    for group in _groups(flips, together):
        batch = torch.cat([tiles.flip([axis + 2 for axis in axes]) for axes in group])
        for axes, found in zip(group, forward(batch).split(len(tiles)), strict=True):
            back = found.flip([axis + 2 for axis in axes]) if axes else found
            if len(flips) > 1:  # what the network returned stays as it is
                back = back.div_(len(flips)) if axes else back / len(flips)
            total = back if total is None else total.add_(back)
    assert total is not None
    return total


def _combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every subset of the axes, in v1's order: none, {2}, {1}, {1, 2}, {0}, ..."""
    subsets = itertools.product(*(((), (axis,)) for axis in sorted(axes)))
    return [tuple(axis for part in subset for axis in part) for subset in subsets]


def _groups(items: Iterator | Sequence, size: int) -> Iterator[list]:
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _pad(images: torch.Tensor, patch: Sequence[int]) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Pad with 0 to at least the patch, symmetrically, the extra voxel above; return where the
    image lies.
    """
    sizes = images.shape[1:]
    missing = [max(wanted - size, 0) for wanted, size in zip(patch, sizes, strict=True)]
    widths = [width for gap in reversed(missing) for width in (gap // 2, gap - gap // 2)]
    inside = tuple(
        slice(gap // 2, gap // 2 + size) for gap, size in zip(missing, sizes, strict=True)
    )
    return nn.functional.pad(images, widths), inside
