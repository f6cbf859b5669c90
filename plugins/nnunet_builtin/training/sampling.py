"""Patches of prepared cases for training and validation batches (spec: training, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_builtin.training.arrays import check_same, empty_arrays
from nnunet_core.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnunet_core.data.plans import Configuration
    from nnunet_core.store.arrays import StoredArray
    from nnunet_core.store.prepared import LabelStore, PreparedStore, StoredCase

#: Label of voxels outside the volume and outside the non-zero region.
OUTSIDE = -1
_OPEN_CASES = 32


class PatchSampler:
    """Draws batches of patches; equal random generators draw equal batches in any process.

    Args:
        store: Prepared cases.
        names: Cases to draw from, uniformly and with replacement.
        configuration: The network's patch size decides how far patches may reach out of the volume.
        batch_size: Patches per batch.
        foreground_share: Share of the batch, from its end, that is placed on foreground: the
            samples from round(batch_size * (1 - foreground_share)) on.
        foreground: Label values that patches are placed on.
        previous: Label maps of the previous stage, in a cascade.
    """

    def __init__(
        self,
        store: PreparedStore,
        names: Sequence[str],
        configuration: Configuration,
        batch_size: int,
        foreground_share: float = 0.33,
        foreground: Sequence[int] = (),
        previous: LabelStore | None = None,
    ) -> None:
        self.store = store
        self.names = tuple(names)
        self.configuration = configuration
        self.batch_size = batch_size
        self.foreground_share = foreground_share
        self.foreground = tuple(foreground)
        self.previous = previous
        self._opened: dict[str, StoredCase] = {}
        self._previous: dict[str, StoredArray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind when the sampler goes to another process."""
        return {**self.__dict__, "_opened": {}, "_previous": {}}

    def draw_names(self, rng: np.random.Generator) -> list[str]:
        """Return the cases of one batch: the first thing that `draw` does with a generator."""
        return [self.names[index] for index in rng.integers(len(self.names), size=self.batch_size)]

    def draw(
        self,
        rng: np.random.Generator,
        patch_size: Sequence[int],
        positions: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Draw one batch, or some samples of it: each is the same whichever others are read.

        Args:
            rng: Source of everything random.
            patch_size: Of the patches, voxels: the generator's or the network's size. Two entries
                draw single slices.
            positions: Samples of the batch to read, ascending; None reads all.

        Returns:
            For B positions: `images` float32 (B, C, *patch_size), 0 outside the volume; `label`
            int16 (B, 1, *patch_size), -1 outside the volume and the non-zero region; `previous`
            likewise in a cascade, 0 outside; `names`, the case of each patch; `seeds`, one integer
            per sample for what comes after. If the cases have extra arrays, also `arrays` and
            `like` (`arrays.empty_arrays`), 0 outside.

        Raises:
            TrainingError: There is no case to draw from, or cases have different extra arrays.
            StorageError: A case cannot be read.
        """
        if not self.names:
            raise TrainingError(
                "There is no case to draw patches from. Give the fold's split at least one case."
            )
        drawn = self.draw_names(rng)
        seeds = rng.integers(2**62, size=(self.batch_size, 2))
        chosen = range(self.batch_size) if positions is None else positions
        names = [drawn[position] for position in chosen]
        first_forced = round(self.batch_size * (1 - self.foreground_share))
        batch = self._empty(names, patch_size)
        batch["seeds"] = [int(seeds[position, 1]) for position in chosen]
        for index, (position, name) in enumerate(zip(chosen, names, strict=True)):
            self._read(
                name,
                batch,
                index,
                position >= first_forced,
                np.random.default_rng(seeds[position, 0]),
            )
        return batch

    def _empty(self, names: list[str], patch_size: Sequence[int]) -> dict[str, Any]:
        """Return the batch of these cases before anything is read."""
        first = self._case(names[0])
        batch: dict[str, Any] = {
            "images": np.zeros((len(names), first.images.shape[0], *patch_size), np.float32),
            "label": np.full((len(names), 1, *patch_size), OUTSIDE, np.int16),
            "names": names,
            **empty_arrays(first, len(names), patch_size),
        }
        if self.previous is not None:
            batch["previous"] = np.zeros((len(names), 1, *patch_size), np.int16)
        return batch

    def _read(
        self, name: str, batch: dict[str, Any], index: int, forced: bool, rng: np.random.Generator
    ) -> None:
        """Place a patch, and read what it covers into one sample of the batch."""
        case, patch_size = self._case(name), batch["images"].shape[2:]
        start = self._start(case, patch_size, forced, rng)
        size = (1,) * (3 - len(patch_size)) + patch_size
        source, target = _overlap(case.spatial_shape, start, size)
        inside, covered = (slice(None), *target), (slice(None), *source)
        batch["images"][index].reshape(-1, *size)[inside] = case.images[covered]
        batch["label"][index].reshape(size)[target] = case.label[source]
        if self.previous is not None:
            batch["previous"][index].reshape(size)[target] = self._previous_label(name)[source]
        check_same(case, batch)
        for key, array in case.arrays.items():
            batch["arrays"][key][index].reshape(-1, *size)[inside] = array[covered]

    def _start(
        self,
        case: StoredCase,
        patch_size: Sequence[int],
        forced: bool,
        rng: np.random.Generator,
    ) -> list[int]:
        """Draw the first voxel (z, y, x) of a patch; with `forced`, a foreground voxel is in its
        middle.
        """
        slices = len(patch_size) == 2
        voxel = _foreground_voxel(case, self.foreground, slices, rng) if forced else None
        start: list[int] = []
        if slices:
            start.append(int(rng.integers(case.spatial_shape[0]) if voxel is None else voxel[0]))
        sizes = zip(
            case.spatial_shape[-len(patch_size) :],
            patch_size,
            self.configuration.patch_size,
            strict=True,
        )
        for axis, (volume, patch, network) in enumerate(sizes, start=len(start)):
            low, high = start_range(volume, patch, network)
            start.append(
                int(rng.integers(low, high + 1))
                if voxel is None
                else max(low, int(voxel[axis]) - patch // 2)
            )
        return start

    def _previous_label(self, name: str) -> StoredArray:
        """Return the open label map of the previous stage; the last few stay open."""
        if self.previous is not None and name not in self._previous:
            if len(self._previous) >= _OPEN_CASES:
                del self._previous[next(iter(self._previous))]
            self._previous[name] = self.previous.open(name)
        return self._previous[name]

    def _case(self, name: str) -> StoredCase:
        """Return an open case; the last few stay open, with the class locations that were read."""
        if name not in self._opened:
            if len(self._opened) >= _OPEN_CASES:
                del self._opened[next(iter(self._opened))]
            self._opened[name] = self.store.open(name)
        return self._opened[name]


def start_range(volume: int, patch: int, network: int) -> tuple[int, int]:
    """Return the lowest and the highest first voxel of a patch along one axis.

    Args:
        volume: Voxels of the volume.
        patch: Voxels of the patch to cut.
        network: Voxels of the network's patch: what augmentation will leave of it.
    """
    padding = max(patch - network, patch - volume)
    reach = -(-padding // 2)
    return -reach, volume + reach - patch


def _foreground_voxel(
    case: StoredCase, foreground: Sequence[int], slices: bool, rng: np.random.Generator
) -> np.ndarray | None:
    """Return a voxel of a class that is drawn first, (z, y, x) of the prepared array; None without
    foreground.

    With `slices` a slice that holds the class is drawn before the voxel, so that slices are equally
    likely.
    """
    located = [
        case.class_locations[v]
        for v in foreground
        if v > 0 and len(case.class_locations.get(v, ()))
    ]
    if not located:
        return None
    voxels = located[rng.integers(len(located))]
    if slices:
        voxels = voxels[voxels[:, 0] == rng.choice(np.unique(voxels[:, 0]))]
    return voxels[rng.integers(len(voxels))]


def _overlap(
    volume: Sequence[int], start: Sequence[int], size: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of a volume that a patch covers, in the volume's and in the patch's
    voxels.
    """
    source, target = [], []
    for length, first, count in zip(volume, start, size, strict=True):
        low, high = max(first, 0), min(first + count, length)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    return tuple(source), tuple(target)
