"""Label maps and probabilities on the grid of the file, from slabs on the networks' grid.

Restoring interpolates linearly, so most voxels need no interpolation to know their label: where the
winner is the same all around a block, it has won in it, and a class that is nowhere above a winner
cannot win. What is left, blocks on boundaries with their few candidates, is interpolated as the
whole would be, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunet_builtin.computing.scratch import Scratch, check_disk
from nnunet_builtin.preprocessing.linear import Tap, Taps, interpolate, part_of, stays, taps_of
from nnunet_core.data.labels import label_type

if TYPE_CHECKING:
    from nnunet_core.contracts.predictor import Slabs
    from nnunet_core.data.labels import Labels

#: Voxels per axis of blocks of the result; x is contiguous, and long to make few blocks.
_BLOCK = (8, 16, 32)
#: Two values that differ by less, relative to them, may be equal once interpolated and rounded.
_CLOSE = 1e-6
_VOXELS_AT_ONCE = 1 << 14  # whose values of one class stay in the caches of a processor
_SPOOLED_BYTES = 1 << 30
_SLAB_BYTES = 1 << 28
#: Logits below and above which a region is surely outside and inside; probabilities: 0.5.
_REGION = {"probabilities": (0.5, 0.5), "logits": (0.0, 1e-5)}


@dataclass(frozen=True)
class Grid:
    """How slabs lie in the crop box of the file.

    Attributes:
        back: For each axis of the file, the prepared axis that it was.
        taps: Of each axis of the file, between the prepared grid and the crop box.
        shape: Voxels of the crop box.
    """

    back: tuple[int, ...]
    taps: tuple[Taps, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls,
        prepared: Sequence[int],
        forward: Sequence[int],
        shape: Sequence[int],
        low_axis: int | None,
    ) -> Grid:
        """Return the way back from a prepared grid.

        Args:
            prepared: Its voxels, permuted axes.
            forward: The permutation, `PreparedGeometry.transpose_forward`.
            shape: Voxels of the crop box.
            low_axis: Axis of the file along which the nearest sample is taken, or None.
        """
        back = tuple(forward.index(axis) for axis in range(3))
        before = [prepared[axis] for axis in back]
        return cls(back, tuple(taps_of(before, shape, low_axis)), tuple(shape))

    @property
    def axis(self) -> int:
        """The axis of the file that slabs follow each other along."""
        return self.back.index(0)


@dataclass(frozen=True)
class _Piece:
    """Some slices of the prepared grid, and what can be interpolated between them.

    Attributes:
        values: float32 (K, *spatial), axes of the file.
        taps: Between these slices.
        outputs: Where the result lies along the axis of the slabs.
    """

    values: np.ndarray
    taps: list[Taps]
    outputs: slice


def restored_labels(slabs: Slabs, grid: Grid, labels: Labels) -> np.ndarray:
    """Return the label map of the crop box, uint8 or uint16 (z, y, x)."""
    result = np.zeros(grid.shape, label_type(max(labels.foreground, default=0)))
    for piece in _pieces(slabs, grid):
        target = result[(slice(None),) * grid.axis + (piece.outputs,)]
        if labels.regions:
            _write_regions(piece, labels, slabs, target)
        else:
            target[...] = _classes(piece, slabs.values == "probabilities")
    return result


def restored_slabs(slabs: Slabs, grid: Grid) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first slice of the crop box and the values float32 (K, slices, y, x) of the next
    ones.
    """
    if grid.axis != 0:
        slabs, grid = _turned(slabs, grid)
    size = max(1, _SLAB_BYTES // (4 * slabs.shape[0] * math.prod(grid.shape[1:])))
    for piece in _pieces(slabs, grid):
        first, *others = piece.taps
        for start in range(0, piece.outputs.stop - piece.outputs.start, size):
            stop = min(start + size, piece.outputs.stop - piece.outputs.start)
            source, taps = part_of(first, start, stop)
            values = piece.values[:, source]
            found = np.empty((len(values), stop - start, *grid.shape[1:]), np.float32)
            for channel, out in zip(values, found, strict=True):
                out[...] = interpolate(channel[None], [taps, *others])[0]
            yield piece.outputs.start + start, found


def _turned(slabs: Slabs, grid: Grid) -> tuple[Slabs, Grid]:
    """Return slabs along the first axis of the file, of ones along another axis: they are laid down
    whole, on disk if they are large.
    """
    size = 4 * math.prod(slabs.shape)
    if size > _SPOOLED_BYTES:
        check_disk(size)  # writing to a map of a file on a full disk would end the process
        scratch, start = Scratch(slabs.shape, on_disk=True), 0
        for part in slabs:
            scratch.array[:, start : start + part.shape[1]] = part
            scratch.release()
            start += part.shape[1]
        whole = scratch.array
    else:
        whole = slabs.whole()
    turned = whole.transpose(0, *(axis + 1 for axis in grid.back))
    step = max(1, _SLAB_BYTES // (turned[:, :1].nbytes))
    parts = (turned[:, i : i + step] for i in range(0, turned.shape[1], step))
    return type(slabs)(turned.shape, parts, slabs.values), Grid((0, 1, 2), grid.taps, grid.shape)


def _pieces(slabs: Slabs, grid: Grid) -> Iterator[_Piece]:
    """Join slabs with the last slices before them, which the next ones are interpolated with."""
    lower, upper = grid.taps[grid.axis][0], grid.taps[grid.axis][-1]
    order = (0, *(axis + 1 for axis in grid.back))
    held, first, have, done = None, 0, 0, 0
    for part in slabs:
        have += part.shape[1]
        held = part if held is None or not held.shape[1] else np.concatenate([held, part], 1)
        ready = int(np.searchsorted(upper.samples, have))
        if ready > done:
            taps = list(grid.taps)
            taps[grid.axis] = tuple(
                Tap(tap.samples[done:ready] - first, tap.weights[done:ready])
                for tap in grid.taps[grid.axis]
            )
            yield _Piece(held.transpose(order), taps, slice(done, ready))
            done = ready
        needed = min(int(lower.samples[done]), have) if done < len(lower.samples) else have
        held, first = held[:, needed - first :].copy(), needed


def _classes(piece: _Piece, not_negative: bool) -> np.ndarray:
    """Return the number of the first largest class, int16 (z, y, x)."""
    if all(map(stays, piece.taps)):
        return _winners(piece.values)[0]
    best, clear = _winners(piece.values)
    blocks = _Blocks.of(piece.taps)
    lowest, highest = blocks.extremes(np.where(clear, best, -1))
    result = blocks.spread(lowest)
    for index in np.argwhere((lowest != highest) | (lowest < 0)):
        place, source, taps = blocks.at(index.tolist())
        values = np.ascontiguousarray(piece.values[(slice(None), *source)])
        candidates = _candidates(values, np.unique(best[source]), not_negative)
        if len(candidates) == 1:
            result[place] = candidates[0]
        else:
            result[place] = candidates[interpolate(values[candidates], taps).argmax(0)]
    return result


def _winners(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first largest class, int16 (z, y, x), and whether no other one is close to it."""
    best, clear = np.zeros(values.shape[1:], np.int16), np.empty(values.shape[1:], bool)
    for z in range(values.shape[1]):
        plane = values[:, z].reshape(len(values), -1)
        winners, alone = best[z].reshape(-1), clear[z].reshape(-1)
        for start in range(0, plane.shape[1], _VOXELS_AT_ONCE):
            some = slice(start, start + _VOXELS_AT_ONCE)
            first, second = _two_largest(plane[:, some], winners[some])
            np.less(second, first - _CLOSE * np.abs(first), out=alone[some])
    return best, clear


def _two_largest(values: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest and the second largest values of (K, n); write the first of the largest
    classes to `best`, which is 0.

    A class after the other: ten times as fast as `argmax` along an axis that is not the last one.
    """
    largest, second = values[0].copy(), np.full(values.shape[1:], -np.inf, np.float32)
    smaller, number = np.empty_like(largest), np.empty_like(best)
    for index, found in enumerate(values[1:], start=1):
        np.multiply(found > largest, best.dtype.type(index), out=number)
        np.maximum(best, number, out=best)
        np.minimum(largest, found, out=smaller)
        np.maximum(second, smaller, out=second)
        np.maximum(largest, found, out=largest)
    return largest, second


def _candidates(values: np.ndarray, winners: np.ndarray, not_negative: bool) -> np.ndarray:
    """Return the classes, ascending, that may be the first largest one somewhere between the voxels
    of a block: the winners, and those that none of the winners is above at every voxel.

    A class that comes before the winner has to be below it by more than rounding, since the first
    of equal ones wins. 0 below 0 will do if values are not negative: another class is above both.
    """
    flat = values.reshape(len(values), -1)
    left = np.setdiff1d(np.arange(len(flat)), winners)
    for winner in winners:
        before, after = left[left < winner], left[left > winner]
        margin = flat[winner] - _CLOSE * np.abs(flat[winner])
        below = np.less_equal if not_negative else np.less
        left = np.concatenate(
            [
                before[~below(flat[before], margin).all(1)],
                after[~(flat[after] <= flat[winner]).all(1)],
            ]
        )
    return np.union1d(winners, left)


def _write_regions(piece: _Piece, labels: Labels, slabs: Slabs, target: np.ndarray) -> None:
    """Write the values of regions, later ones over earlier ones, where they exceed 0.5."""
    blocks = _Blocks.of(piece.taps)
    low, high = _REGION[slabs.values]
    for channel, value in zip(piece.values, labels.region_order, strict=True):
        sure = (channel > low).view(np.int8) + (channel > high).view(np.int8)  # 0, 1: no, 2
        lowest, highest = blocks.extremes(sure)
        inside = blocks.spread(lowest == 2)
        for index in np.argwhere((lowest != highest) | (lowest == 1)):
            place, source, taps = blocks.at(index.tolist())
            found = interpolate(np.ascontiguousarray(channel[source])[None], taps)
            inside[place] = slabs.probabilities(found, regions=True)[0] > 0.5
        target[inside] = value


@dataclass(frozen=True)
class _Blocks:
    """Blocks of a result, and the samples around each.

    Attributes:
        places: For each axis, where the blocks lie in the result.
        sources: For each axis, the input samples that each block needs.
        taps: For each axis, the taps of each block.
    """

    places: list[list[slice]]
    sources: list[list[slice]]
    taps: list[list[Taps]]

    @classmethod
    def of(cls, taps: Sequence[Taps]) -> _Blocks:
        places, sources, cuts = [], [], []
        for sides, edge in zip(taps, _BLOCK, strict=True):
            size = len(sides[0].samples)
            places.append([slice(i, min(i + edge, size)) for i in range(0, size, edge)])
            parts = [part_of(sides, place.start, place.stop) for place in places[-1]]
            sources.append([source for source, _ in parts])
            cuts.append([cut for _, cut in parts])
        return cls(places, sources, cuts)

    def at(self, index: Iterable[int]) -> tuple[tuple[slice, ...], tuple[slice, ...], list[Taps]]:
        """Return place, source and taps of the block of this number along each axis."""
        place = tuple(places[number] for places, number in zip(self.places, index, strict=True))
        source = tuple(sources[number] for sources, number in zip(self.sources, index, strict=True))
        taps = [cuts[number] for cuts, number in zip(self.taps, index, strict=True)]
        return place, source, taps

    def extremes(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest of the values (z, y, x) around each block."""
        return self._reduced(np.min, values), self._reduced(np.max, values)

    def _reduced(self, reduce: Callable, values: np.ndarray) -> np.ndarray:
        for axis in (2, 1, 0):
            before = (slice(None),) * axis
            parts = [
                reduce(values[(*before, source)], axis=axis, keepdims=True)
                for source in self.sources[axis]
            ]
            values = np.concatenate(parts, axis)
        return values

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return the result in which each block is filled with its value."""
        for axis, places in enumerate(self.places):
            values = values.repeat([place.stop - place.start for place in places], axis)
        return values
