"""The image files of a folder, by name, of the one ending that they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_core.errors import DatasetError, MissingFolderError, counted
from nnunet_core.registry.discovery import Registry


@dataclass(frozen=True)
class Listing:
    """The image files of a folder.

    Attributes:
        folder: Where they are.
        ending: Of every file, with the leading dot, in small letters.
        files: {name without ending: path}, sorted by name.
    """

    folder: Path
    ending: str
    files: Mapping[str, Path]


def list_images(folder: Path, registry: Registry) -> Listing:
    """List the image files of a folder. Hidden files and files that no image format reads are left
    out.

    Raises:
        MissingFolderError: There is no such folder.
        DatasetError: No image, or images of more than one ending.
    """
    if not folder.is_dir():
        raise MissingFolderError(folder, "It should hold image files.")
    formats = registry.components("image_format")
    known = {str(ending) for f in formats for ending in f.component.settings.get("endings", ())} - {
        ".dcm"
    }
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        endings = [ending for ending in known if path.name.lower().endswith(ending)]
        if endings and path.is_file() and not path.name.startswith("."):
            ending = max(endings, key=len)
            named = found.setdefault(ending, {})
            other = named.setdefault(path.name[: -len(ending)], path)
            if other is not path:
                raise DatasetError(
                    f"{folder} holds {other.name} and {path.name}, two files of one name. Remove "
                    "one."
                )
    if not found:
        raise DatasetError(
            f"{folder} holds no image. Known endings: {', '.join(sorted(known))}, and DICOM files."
        )
    if len(found) > 1:
        kinds = ", ".join(
            f"{counted(len(paths), 'file')} ending in {ending}"
            for ending, paths in sorted(found.items())
        )
        raise DatasetError(
            f"{folder} holds images of several formats: {kinds}. Move all but one kind elsewhere."
        )
    ((ending, paths),) = found.items()
    return Listing(folder, ending, paths)
