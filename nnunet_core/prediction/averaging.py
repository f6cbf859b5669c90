"""One case of an ensemble: the mean of the probabilities of its members, and what is made of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.data.dataset import DatasetContent
from nnunet_core.data.images import Geometry, ImageFormat
from nnunet_core.data.labels import Labels, label_type
from nnunet_core.data.meaning import SegmentationMeaning
from nnunet_core.errors import DatasetError
from nnunet_core.prediction.uncertainty import entropy
from nnunet_core.stages.case import Keep, to_segmentation
from nnunet_core.stages.formats import write_label
from nnunet_core.store.arrays import StoredArray
from nnunet_core.store.calibration import tempered
from nnunet_core.store.npz import NpzProbabilities
from nnunet_core.store.predictions import Beside, map_file
from nnunet_core.store.probabilities import (
    open_probabilities,
    probabilities_file,
    probabilities_writer,
)

_SLAB_VALUES = 1 << 25  # of the mean in memory, float32
Stored = StoredArray | NpzProbabilities


@dataclass(frozen=True)
class LabelFiles:
    """What is known of the label files of a folder.

    Attributes:
        labels: What their values mean.
        ending: Of the files.
        format: The component that reads them, where dataset.json names one.
    """

    labels: Labels
    ending: str
    format: str | None = None

    @classmethod
    def of(cls, content: DatasetContent) -> LabelFiles:
        """Return what a dataset says of its label files."""
        return cls(content.labels, content.label_ending or content.ending, content.label_format)


@dataclass(frozen=True)
class Averaging:
    """What becomes of the mean of the probabilities of a case.

    Attributes:
        kind: Of the label files that are written.
        reading, writing: Formats of the label files of the members, and of these.
        clean: Postprocessor and its state; None leaves label maps as they are.
        beside: What else is written: the mean, its entropy, the share of the members whose label is
            another one than that of the mean.
        map_format: Writes images beside label maps; needed where there are any.
        temperatures: Of the members, applied to the probabilities and the entropy that are written,
            not to label maps; empty leaves them as they are.
        meanings: {label file: what it says of itself}, where its format does.
    """

    kind: LabelFiles
    reading: ImageFormat
    writing: ImageFormat
    clean: tuple[Postprocessor, Mapping[str, Any]] | None = None
    beside: Beside = field(default_factory=Beside)
    map_format: ImageFormat | None = None
    temperatures: tuple[float, ...] = ()
    meanings: Mapping[Path, SegmentationMeaning] = field(default_factory=dict)

    def write(self, sources: Sequence[Path], output: Path) -> None:
        """Average one case slab by slab, and write it.

        Args:
            sources: Label files of the members, with probabilities beside them.
            output: Label file to write.

        Raises:
            DatasetError: The members lie on different grids, or have other classes.
            StorageError: A file is damaged or missing, or the disk is full.
        """
        geometry = self._common_geometry(sources)
        members = self._members(sources, geometry)
        self.beside.remove_others(output)
        maps = {name: np.zeros(geometry.shape, np.float32) for name in self.beside.maps}
        with contextlib.ExitStack() as stack:
            keep = None
            if self.beside.probabilities:
                file = probabilities_writer(probabilities_file(output), members[0].shape)
                keep = stack.enter_context(file)
            label = self._label(members, maps, keep)
        for name, values in maps.items():
            assert self.map_format is not None  # it was asked for maps
            self.map_format.write(map_file(output, name), values, geometry)
        if self.clean is not None:
            postprocessor, state = self.clean
            label = postprocessor.apply(label, geometry, state)
        write_label(self.writing, output, label, geometry, self.meanings.get(output))

    def _label(
        self, members: Sequence[Stored], maps: Mapping[str, np.ndarray], keep: Keep | None
    ) -> np.ndarray:
        """Return the label map (Z, Y, X) of the mean; fill maps (Z, Y, X), and pass on what is to
        be written of the probabilities.
        """
        labels, (classes, slices, *plane) = self.kind.labels, members[0].shape
        label = np.empty((slices, *plane), label_type(max(labels.foreground, default=0)))
        step = max(1, _SLAB_VALUES // (classes * plane[0] * plane[1]))
        for start in range(0, slices, step):
            part = slice(start, min(start + step, slices))
            mean = _mean(members, part)
            label[part] = to_segmentation(mean, labels)
            if "disagreement" in maps:
                for member in members:
                    own = to_segmentation(member[:, part].astype(np.float32), labels)
                    maps["disagreement"][part] += (own != label[part]) / np.float32(len(members))
            if self.temperatures and (keep is not None or "entropy" in maps):
                mean = _mean(members, part, self.temperatures, bool(labels.regions))
            if "entropy" in maps:
                maps["entropy"][part] = entropy(mean, bool(labels.regions))
            if keep is not None:
                keep(start, mean)
        return label

    def _members(self, sources: Sequence[Path], geometry: Geometry) -> list[Stored]:
        members = [_open(source) for source in sources]
        shape = (self.kind.labels.outputs, *geometry.shape)
        for source, member in zip(sources, members, strict=True):
            if member.shape != shape:
                raise DatasetError(_other_shape(source, member.shape, shape))
        return members

    def _common_geometry(self, sources: Sequence[Path]) -> Geometry:
        first, *others = (self.reading.read(source).geometry for source in sources)
        for source, geometry in zip(sources[1:], others, strict=True):
            if details := first.contrast(geometry, str(sources[0].parent), str(source.parent)):
                raise DatasetError(
                    f"{source} lies on another grid than {sources[0]}: {details}. Predict the same "
                    "images with every model."
                )
        return first


def stored_beside(label: Path) -> Path | None:
    """Return the file of probabilities beside a label file, of ours or of v1 and v2, if there is
    one.
    """
    path = probabilities_file(label)
    found = (path, path.with_name(f"{path.name.removesuffix(path.suffix)}.npz"))
    return next((each for each in found if each.is_file()), None)


def _open(label: Path) -> Stored:
    path = stored_beside(label) or probabilities_file(label)
    return NpzProbabilities(path) if path.suffix == ".npz" else open_probabilities(path)


def _mean(
    members: Sequence[Stored],
    part: slice,
    temperatures: Sequence[float] = (),
    regions: bool = False,
) -> np.ndarray:
    """Return the mean of slices, float32 (K, slices, Y, X); of tempered ones, where temperatures
    are given.
    """
    total: np.ndarray | None = None
    for number, member in enumerate(members):
        values = member[:, part].astype(np.float32)
        if temperatures:
            values = tempered(values, temperatures[number], regions)
        total = values if total is None else np.add(total, values, out=total)
    assert total is not None  # an ensemble has members
    total /= len(members)
    return total


def _other_shape(source: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    hint = ""
    if found[0] == wanted[0]:
        hint = " nnU-Net v1 cuts them to the cropped image; its nnUNet_ensemble joins those."
    return (
        f"The probabilities of {source} have shape {found}; the labels and the image ask for "
        f"{wanted} (classes or regions, z, y, x).{hint} Predict the case again."
    )
