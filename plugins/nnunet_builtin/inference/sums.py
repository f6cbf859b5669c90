"""Weighted sums of windows, for as many slices as windows that are to come may touch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from nnunet_builtin.computing.scratch import Scratch, fits

_VALUES_AT_ONCE = 1 << 18  # that stay in the caches of a processor
_SLAB_BYTES = 1 << 28
_SLABS = 4  # that are in memory at once: sums, mean, what is restored, and what it is joined with


class Sums:
    """The sums of every network.

    Slice z of the image lies at z modulo `depth`: it is given out, and 0 again, before a window
    touches slice z + `depth`.

    Args:
        networks: Their number.
        shape: K, depth, and the voxels of a slice with its padding: (K, depth, Y, X).
        memory_gb: What the process may fill, see `contracts.trainer.Runtime`.
    """

    def __init__(self, networks: int, shape: Sequence[int], memory_gb: float | None = None) -> None:
        _, self._depth, *plane = shape
        of_slice = 4 * math.prod(shape) // self._depth
        self._slices = max(1, _SLAB_BYTES // of_slice)  # given out at once
        beside = _SLABS * of_slice * min(self._slices, self._depth)
        on_disk = not fits(networks * of_slice * self._depth, beside, memory_gb)
        self._scratch = [Scratch(shape, on_disk) for _ in range(networks)]
        self._totals = [torch.from_numpy(scratch.array) for scratch in self._scratch]
        self._weights = torch.zeros(self._depth, *plane)

    @torch.inference_mode()
    def add(
        self, network: int, place: Sequence[slice], tile: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """Add a window's values (K, *patch) times their weights (*patch)."""
        scratch, totals = self._scratch[network], self._totals[network]
        rows, *others = place
        for ring, window in self._turns(rows, max(1, _VALUES_AT_ONCE // weights[0].numel())):
            factors = weights[window]
            step = max(1, _VALUES_AT_ONCE // factors.numel())
            for first in range(0, len(tile), step):
                some = slice(first, first + step)
                totals[(some, ring, *others)] += tile[some, window] * factors
            if network == 0:  # the weights are the same for all
                self._weights[(ring, *others)] += factors
            scratch.release()

    @torch.inference_mode()
    def finish(self, slices: slice, inside: Sequence[slice]) -> Iterator[np.ndarray]:
        """Yield the networks' mean of the weighted means of slices that no window touches any more,
        float32 (K, slices, *inside), in as many parts as fit in memory; and forget them.
        """
        for ring, _ in self._turns(slices, self._slices):
            yield self._mean(ring, inside)
            self._forget(ring)

    def _mean(self, ring: slice, inside: Sequence[slice]) -> np.ndarray:
        weights = self._weights[(ring, *inside)]
        mean: torch.Tensor | None = None
        for totals in self._totals:
            found = totals[(slice(None), ring, *inside)] / weights
            mean = found if mean is None else mean.add_(found)
        assert mean is not None
        result = mean.numpy()
        result /= len(self._totals)
        return result

    def _forget(self, ring: slice) -> None:
        for scratch, totals in zip(self._scratch, self._totals, strict=True):
            totals[:, ring] = 0
            scratch.release()
        self._weights[ring] = 0

    def _turns(self, slices: slice, most: int) -> Iterator[tuple[slice, slice]]:
        """Yield where slices lie here, and which of them these are: at most so many at once, and
        not around the end.
        """
        start = slices.start
        while start < slices.stop:
            first = start % self._depth
            count = min(most, slices.stop - start, self._depth - first)
            begin = start - slices.start
            yield slice(first, first + count), slice(begin, begin + count)
            start += count
