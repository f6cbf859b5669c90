"""Image formats by the ending of a file, or by their name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_core.contracts.abilities import WritesSegmentations, ability, built
from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.images import Geometry, Header, Image, ImageFormat
from nnunet_core.data.labels import label_type
from nnunet_core.data.meaning import SegmentationMeaning
from nnunet_core.errors import DatasetError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.names import checked_ending
from nnunet_core.store.models import ModelDocument

_OTHERWISE = (
    "Correct or remove the entry, or install a plugin that registers the format (nnunet plugins "
    "list shows what is there)."
)


def find_format(
    ending: str,
    registry: Registry,
    reference: object = None,
    source: object = "dataset.json",
    entry: str = "image_format",
) -> ImageFormat:
    """Return the image format of a file ending, or the one that a file names.

    Args:
        ending: With the leading dot.
        registry: Of the image formats.
        reference: What the file names; None goes by the ending.
        source: That file, for messages.
        entry: In that file, for messages.

    Raises:
        DatasetError: It is no ending, no installed format reads it, or several plugins claim it and
            none is built in.
        UnknownComponentError: The file names something else than a registered format.
    """
    checked_ending(ending, source)
    if reference is not None:
        named = registry.registered("image_format", reference, f"{entry} of {source}", _OTHERWISE)
        return built(named)
    formats = registry.components("image_format")
    hits = [f for f in formats if ending.lower() in f.component.settings.get("endings", ())]
    own = [f for f in hits if f.is_own]
    if not hits:
        known = ", ".join(sorted(known_endings(registry)))
        raise DatasetError(
            f"No image format reads files ending in '{ending}'. Known endings: {known}."
        )
    if len(hits) > 1 and not own:
        names = ", ".join(f.reference for f in hits)
        raise DatasetError(
            f"Several image formats read '{ending}': {names}. Name one as 'image_format' in "
            "dataset.json."
        )
    return built((own or hits)[0])


def known_endings(registry: Registry) -> set[str]:
    """Return the endings of files that an image format reads, with the leading dot."""
    formats = registry.components("image_format")
    return {str(e) for f in formats for e in f.component.settings.get("endings", ())}


def meaning_of(model: ModelDocument, case: CaseFiles) -> SegmentationMeaning:
    """Return what a format that refers to the images says of a label map."""
    names = {value: name for value, name in model.labels.names.items() if value}
    maker = f"{model.dataset} {model.variant} {model.configuration_name}"
    return SegmentationMeaning(case.images, names, model.codes, maker)


def write_label(
    image_format: ImageFormat,
    path: Path,
    array: np.ndarray,
    geometry: Geometry,
    meaning: SegmentationMeaning | None,
) -> None:
    """Write a label map (Z, Y, X), with its meaning where the format and the caller have one.

    Raises:
        ImageError: The format cannot hold it, or it does not fit its image.
        StorageError: The disk is full, or the folder cannot be written.
    """
    able = ability(image_format, WritesSegmentations)
    if able is None or meaning is None:
        image_format.write(path, array, geometry)
    else:
        able.write_segmentation(path, array, geometry, meaning)


class OriginalValues:
    """A format of label files that hold the values from before `dataset convert --renumber`; in
    memory they are those of the dataset.

    Args:
        image_format: Reads and writes the files.
        originals: {value of the dataset: value in the files}, every value of a label map.
    """

    def __init__(self, image_format: ImageFormat, originals: Mapping[int, int]) -> None:
        self.image_format, self.originals = image_format, originals
        self.endings = image_format.endings

    def header(self, path: Path) -> Header:
        """Read size and spacing. Raises ImageError."""
        return self.image_format.header(path)

    def read(self, path: Path) -> Image:
        """Read a label file.

        Raises:
            ImageError: Unreadable.
            DatasetError: Values that the dataset did not have.
        """
        image = self.image_format.read(path)
        values, places = np.unique(image.array, return_inverse=True)
        known = {original: value for value, original in self.originals.items()}
        if unknown := [value for value in values.tolist() if value not in known]:
            raise DatasetError(
                f"{path} holds the values {unknown[:10]}; before it was renumbered, the dataset "
                f"had {sorted(known)}."
            )
        numbers = np.array([known[value] for value in values.tolist()])
        return replace(image, array=numbers[places].reshape(image.array.shape))

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Write a label map (Z, Y, X). Raises ImageError and StorageError."""
        table = np.zeros(max(self.originals) + 1, label_type(max(self.originals.values())))
        table[list(self.originals)] = list(self.originals.values())
        self.image_format.write(path, table[array], geometry)


def with_original_values(image_format: ImageFormat, model: ModelDocument) -> OriginalValues:
    """Return the format that writes the values that labels had before they were renumbered.

    Raises:
        UsageError: The labels of the model's dataset were not renumbered.
    """
    if not model.original_values:
        raise UsageError(
            f"The labels of {model.dataset} were not renumbered, so that there are no values to "
            "restore. Leave out --restore-values."
        )
    return OriginalValues(image_format, model.original_values)
