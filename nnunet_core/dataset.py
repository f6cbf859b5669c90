"""Raw datasets: find them, read dataset.json of either layout, list and load cases."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core import files
from nnunet_core.errors import DatasetError, ImageError, StorageError, UsageError, nearest
from nnunet_core.images import Image, stack_channels
from nnunet_core.interfaces import Case, ImageFormat
from nnunet_core.labels import Labels
from nnunet_core.nifti import check_finite
from nnunet_core.registry import Registry
from nnunet_core.settings import build

_FOLDER_NAME = re.compile(r"(?:Task|Dataset)(\d+)_(.+)")
DEFAULT_ENDING = ".nii.gz"
#: Endings of images that labels and predictions cannot have: {ending: theirs, when dataset.json names none}.
READ_ONLY = {".dcm": ".nii.gz", ".jpg": ".png", ".jpeg": ".png"}
_BYTES_PER_VALUE = 12  # of an image while it is loaded or resampled: as it was, as it will be, and between
_BYTES_PER_VOXEL = 8  # of label and masks
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        name: Case name.
        images: One file per channel, in channel order.
        label: Label file, or None for cases to predict.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """A raw dataset on disk.

    Attributes:
        folder: Holds dataset.json, imagesTr, labelsTr.
        name: Folder name, for example `Task004_Hippocampus`.
        channels: Channel names, by channel index.
        labels: What label values mean.
        ending: Of image files, with the leading dot.
        image_format: Reads them.
        label_ending: Of label files and predictions.
        label_format: Reads and writes them.
        training: Training cases, sorted by name.
        document: The parsed dataset.json.
        digests: Content digests of its files.
    """

    folder: Path
    name: str
    channels: tuple[str, ...]
    labels: Labels
    ending: str
    image_format: ImageFormat
    label_ending: str
    label_format: ImageFormat
    training: tuple[CaseFiles, ...]
    document: Mapping[str, Any]
    digests: files.Digests = field(default_factory=files.Digests, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the training cases, sorted."""
        return tuple(case.name for case in self.training)

    def case(self, name: str) -> CaseFiles:
        """Return the files of a training case by name."""
        return next(case for case in self.training if case.name == name)

    def load(self, case: CaseFiles) -> Case:
        """Read one case and check that it can be used.

        Raises:
            ImageError: A file is missing or unreadable, channels or label do not lie on one grid, or a voxel is NaN.
            DatasetError: The label holds values that dataset.json does not declare.
        """
        image = stack_channels([self.image_format.read(path) for path in case.images], case.images)
        if image.array.shape[0] != len(self.channels):
            raise ImageError(
                f"Case {case.name} has {image.array.shape[0]} channels, dataset.json declares "
                f"{len(self.channels)}: {', '.join(self.channels)}."
            )
        check_finite(image.array, case.images[0])
        label = None if case.label is None else self.load_label(case.label, image, case.images[0])
        return Case(case.name, image.array, label, image.geometry)

    def load_label(self, path: Path, image: Image | None = None, image_path: Path | None = None) -> np.ndarray:
        """Read a label file to int16 (Z, Y, X), checked against dataset.json and, if given, against its image.

        Raises:
            ImageError: Unreadable file, more than one channel, or another grid than the image.
            DatasetError: Values that are no integers or are not declared.
        """
        label = self.label_format.read(path)
        if label.array.shape[0] != 1:
            raise ImageError(f"The label {path} has {label.array.shape[0]} channels; a label has one.")
        if image is not None and (different := image.geometry.differences(label.geometry)):
            details = "; ".join(
                f"{name} {getattr(image.geometry, name)} of the image, {getattr(label.geometry, name)} of the label"
                for name in different
            )
            raise ImageError(
                f"{image_path} and its label {path} lie on different grids: {details}. Resample the label to its image, "
                "or copy the image's geometry if only the header is wrong."
            )
        values = np.unique(label.array)
        unknown = [v.item() for v in values if v.item() not in self.labels.values]
        if unknown:
            raise DatasetError(
                f"The label {path} holds the values {unknown[:10]}, which dataset.json does not declare. "
                f"Declared: {sorted(self.labels.values)}. Correct the file or 'labels' of {self.folder / 'dataset.json'}."
            )
        return label.array[0].astype(np.int16)

    def slim(self) -> Dataset:
        """Return what loading needs, without the list of cases: cheap to send to another process."""
        return replace(self, training=(), document={}, digests=files.Digests())

    def memory(self, case: CaseFiles, spacing: Sequence[float] | None = None) -> int:
        """Estimate the bytes that loading a case takes, and resampling it to a spacing (mm), from its header.

        It is 0 when the header cannot be read: loading the case will say why.
        """
        try:
            header = self.image_format.header(case.images[0])
        except ImageError:
            return 0
        growth = 1.0 if spacing is None else 1 + max(1.0, math.prod(header.spacing) / math.prod(spacing))
        return int(growth * math.prod(header.shape) * (_BYTES_PER_VALUE * len(self.channels) + _BYTES_PER_VOXEL))

    @functools.cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that identify dataset.json and the content of every training file."""
        paths = [path for case in self.training for path in (*case.images, case.label) if path is not None]
        contents = dict(
            zip((str(path.relative_to(self.folder)) for path in paths), self.file_digests(paths), strict=True)
        )
        return files.digest({"document": self.document, "files": contents})

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        """Return 16 hexadecimal digits per file that identify its content; unchanged files are not read again.

        Raises:
            ImageError: A file cannot be read.
        """
        try:
            return self.digests.of(paths)
        except OSError as error:
            raise ImageError(f"A file of {self.name} cannot be read: {error}") from error

    def find_cases(self, folder: Path) -> tuple[CaseFiles, ...]:
        """List the cases of a folder of images `CASE_0000.ext`, complete with every channel, sorted by name.

        Raises:
            DatasetError: No image of the dataset's ending, or missing channels (all of them are listed).
        """
        return tuple(find_cases(folder, self.ending, len(self.channels), self.image_format))


def find_cases(folder: Path, ending: str, channels: int, image_format: ImageFormat) -> list[CaseFiles]:
    """List the cases of an image folder; see `Dataset.find_cases`."""
    if not folder.is_dir():
        raise DatasetError(f"The image folder {folder} does not exist.")
    found: dict[str, dict[int, Path]] = {}
    plain: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(ending):
            continue
        stem = path.name.removesuffix(ending)
        match = _CHANNEL.fullmatch(stem)
        if match:
            found.setdefault(match["case"], {})[int(match["channel"])] = path
        else:
            plain.append(path.name)
    if not found:
        hint = (
            f" It holds {plain[0]} and {len(plain) - 1} more without a channel number: 4D files of the decathlon layout "
            "are converted with: nnunet dataset convert FOLDER"
            if plain
            else ""
        )
        raise DatasetError(f"{folder} holds no image named CASE_0000{ending}.{hint}")
    expected = _expected_files(found, channels, image_format)
    missing = [f"{case}_{c:04d}{ending}" for case in found for c in range(expected) if c not in found[case]]
    if missing:
        raise DatasetError(
            f"{folder} lacks {len(missing)} channel files ({channels} channels are declared): {', '.join(missing[:10])}."
        )
    return [CaseFiles(case, tuple(found[case][c] for c in range(expected))) for case in sorted(found)]


def _expected_files(found: Mapping[str, Mapping[int, Path]], channels: int, image_format: ImageFormat) -> int:
    """Return the number of files per case: one file holds all channels when it is an RGB image."""
    if channels > 1 and all(list(case) == [0] for case in found.values()):
        first = next(iter(found.values()))[0]
        if image_format.header(first).channels == channels:
            return 1
    return channels


def open_dataset(reference: str, raw: Path, registry: Registry, preprocessed: Path | None = None) -> Dataset:
    """Open a dataset by path, by id (`4`, `004`) or by name (`Task004_Hippocampus`, `Hippocampus`) in the raw folder.

    Args:
        reference: Path, id or name.
        raw: Where ids and names are looked up.
        registry: Provides image formats.
        preprocessed: Of the workspace, to remember content digests in; None reads every file again.

    Raises:
        UsageError: There is no such dataset, or more than one.
        DatasetError: Its dataset.json is missing or invalid, it is empty, or files of cases are missing.
    """
    folder = find_dataset(reference, raw)
    path = folder / "dataset.json"
    if not path.is_file():
        raise DatasetError(f"{folder} has no dataset.json; see 'dataset.json' in the documentation for its content.")
    try:
        document = files.read_json(path)
    except StorageError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(document, dict):
        raise DatasetError(f"{path} holds a {type(document).__name__}; it must hold an object.")
    ending = str(document.get("file_ending", DEFAULT_ENDING))
    image_format = find_format(ending, registry, document.get("image_format"))
    channels = _channels(document, path)
    label_ending = find_label_ending(folder, document, registry)
    label_format = find_format(label_ending, registry, document.get("label_format"))
    cases = _training_images(folder, document, ending, len(channels), image_format)
    return Dataset(
        folder=folder,
        name=folder.name,
        channels=channels,
        labels=Labels.from_dataset_json(document, path),
        ending=ending,
        image_format=image_format,
        label_ending=label_ending,
        label_format=label_format,
        training=_with_labels(cases, folder / "labelsTr", label_ending),
        document=document,
        digests=files.Digests(None if preprocessed is None else preprocessed / folder.name / "digests.json"),
    )


def find_label_ending(folder: Path, document: Mapping[str, Any], registry: Registry) -> str:
    """Return the ending of label files: `label_ending` of dataset.json, else that of the images, else what is there.

    Raises:
        DatasetError: labelsTr holds files of several known endings, and none is that of the images.
    """
    declared, images = document.get("label_ending"), str(document.get("file_ending", DEFAULT_ENDING))
    if isinstance(declared, str):
        return declared
    known = {e for f in registry.components("image_format") for e in f.component.settings.get("endings", ())}
    labels = folder / "labelsTr"
    names = [path.name for path in labels.iterdir() if not path.name.startswith(".")] if labels.is_dir() else []
    if not names or any(name.endswith(images) for name in names):
        return READ_ONLY.get(images, images)
    found = sorted({max((e for e in known if name.endswith(e)), key=len, default="") for name in names} - {""})
    if len(found) > 1:
        raise DatasetError(
            f"{labels} holds files of several endings: {', '.join(found)}. Name one as 'label_ending' in "
            f"{folder / 'dataset.json'}."
        )
    return found[0] if found else images


def find_dataset(reference: str, raw: Path) -> Path:
    """Return the folder of a dataset; see `open_dataset`."""
    path = Path(reference).expanduser()
    if path.is_dir() and (path / "dataset.json").is_file():
        return path.absolute()
    known = sorted(p for p in raw.iterdir() if p.is_dir()) if raw.is_dir() else []
    hits = [folder for folder in known if _matches(folder.name, reference)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UsageError(f"'{reference}' names more than one dataset in {raw}: {', '.join(h.name for h in hits)}.")
    if path.is_dir():
        return path.absolute()
    names = [folder.name for folder in known]
    raise UsageError(
        f"There is no dataset '{reference}': no such folder, and no such id or name in {raw}.{nearest(reference, names)} "
        f"Datasets there: {', '.join(names) or 'none'}."
    )


def _matches(folder_name: str, reference: str) -> bool:
    match = _FOLDER_NAME.fullmatch(folder_name)
    by_id = bool(match and reference.isdigit() and int(match[1]) == int(reference))
    return reference == folder_name or by_id or bool(match and match[2] == reference)


def find_format(ending: str, registry: Registry, reference: str | None = None) -> ImageFormat:
    """Return the image format of a file ending, or the one that is named.

    Raises:
        DatasetError: No installed format reads the ending, or several plugins claim it and none is built in.
    """
    if reference is not None:
        return build(registry.resolve("image_format", reference))
    formats = registry.components("image_format")
    hits = [f for f in formats if ending.lower() in f.component.settings.get("endings", ())]
    builtin = [f for f in hits if f.reference.startswith("builtin/")]
    if not hits:
        known = sorted({e for f in formats for e in f.component.settings.get("endings", ())})
        raise DatasetError(f"No image format reads files ending in '{ending}'. Known endings: {', '.join(known)}.")
    if len(hits) > 1 and not builtin:
        names = ", ".join(f.reference for f in hits)
        raise DatasetError(
            f"Several image formats read '{ending}': {names}. Name one as 'image_format' in dataset.json."
        )
    return build((builtin or hits)[0])


def _channels(document: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    raw = document.get("channel_names", document.get("modality"))
    if not isinstance(raw, Mapping) or not raw:
        raise DatasetError(
            f"{path}: 'channel_names' (or 'modality') is missing; it maps '0' to the first channel's name."
        )
    try:
        by_index = {int(key): str(name) for key, name in raw.items()}
    except ValueError as error:
        raise DatasetError(f"{path}: the keys of 'channel_names' must be channel numbers, got {list(raw)}.") from error
    if sorted(by_index) != list(range(len(by_index))):
        raise DatasetError(f"{path}: channel numbers must be 0..{len(by_index) - 1}, got {sorted(by_index)}.")
    return tuple(by_index[index] for index in sorted(by_index))


def _training_images(
    folder: Path, document: Mapping[str, Any], ending: str, channels: int, image_format: ImageFormat
) -> list[CaseFiles]:
    cases = find_cases(folder / "imagesTr", ending, channels, image_format)
    listed = _listed(document, ending)
    return _select(cases, listed, folder) if listed else cases


def _with_labels(cases: Sequence[CaseFiles], folder: Path, ending: str) -> tuple[CaseFiles, ...]:
    labelled = [CaseFiles(c.name, c.images, folder / f"{c.name}{ending}") for c in cases]
    missing = [case.name for case in labelled if case.label is not None and not case.label.is_file()]
    if missing:
        raise DatasetError(
            f"{folder} lacks the labels of {len(missing)} cases: {', '.join(missing[:10])} (CASE{ending})."
        )
    return tuple(labelled)


def _listed(document: Mapping[str, Any], ending: str) -> list[str]:
    """Return the training cases that a v1 dataset.json lists; empty when it lists none."""
    entries = document.get("training")
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return []
    images = [entry.get("image", "") if isinstance(entry, Mapping) else str(entry) for entry in entries]
    return [str(image).replace("\\", "/").rpartition("/")[2].removesuffix(ending) for image in images]


def _select(cases: Iterable[CaseFiles], listed: Sequence[str], folder: Path) -> list[CaseFiles]:
    by_name = {case.name: case for case in cases}
    if len(set(listed)) != len(listed):
        double = sorted({name for name in listed if listed.count(name) > 1})
        raise DatasetError(f"{folder / 'dataset.json'} lists these training cases more than once: {', '.join(double)}.")
    missing = [name for name in listed if name not in by_name]
    if missing:
        raise DatasetError(
            f"{folder / 'dataset.json'} lists {len(missing)} training cases without images in {folder / 'imagesTr'}: "
            f"{', '.join(missing[:10])}."
        )
    return [by_name[name] for name in sorted(listed)]
