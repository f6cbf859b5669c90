"""The result of a conversion: image files, label files and dataset.json of either layout."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_builtin.datasets.conversion.folders import PICTURES
from nnunet_builtin.datasets.conversion.source import FileLabels, Source
from nnunet_core.data.dataset import CaseFiles
from nnunet_core.data.images import SLICE_SPACING_2D, Geometry, Image, ImageFormat
from nnunet_core.data.transparency import without_alpha
from nnunet_core.errors import DatasetError, ImageError, UsageError, counted
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.workers import Workers

LAYOUTS = ("v1", "v2")
NIFTI = ".nii.gz"
_LOSSY = (".jpg", ".jpeg")
_TIFF = (".tif", ".tiff")
_DETACHED = (".mhd", ".nhdr")
_FOLDER_NAME = re.compile(r"(?P<kind>Task|Dataset)?_?(?P<id>\d+)_(?P<name>.+)")
_PREFIXES = {"v1": "Task", "v2": "Dataset"}
_OWN_FIELDS = {
    *(
        "modality",
        "channel_names",
        "labels",
        "channels",
        "training",
        "test",
        "numTraining",
        "numTest",
        "tensorImageSize",
    ),
    *(
        "file_ending",
        "label_ending",
        "image_format",
        "regions_class_order",
        "dataset",
        "overwrite_image_reader_writer",
    ),
}


def default_destination(
    source: Path | None,
    raw: Path,
    dataset_id: int | None = None,
    name: str | None = None,
    layout: str = "v2",
) -> Path:
    """Return where a converted dataset goes: `raw/DatasetXXX_NAME` (v2) or `raw/TaskXXX_NAME` (v1).

    Args:
        source: Dataset folder, whose name may hold id and name (`Task90_Lesions4D`); None for
            folders of images.
        raw: The workspace's raw folder.
        dataset_id: Id, when the source has none or another one is wanted.
        name: Name, when the source has none or another one is wanted.
        layout: `v1` or `v2`.

    Raises:
        UsageError: No id or name, an id that is not within 0..999, a name with a path separator, or
            no such layout.
    """
    prefix = _PREFIXES.get(layout)
    if prefix is None:
        raise UsageError(
            f"There is no layout '{layout}' to convert to. Layouts: {', '.join(LAYOUTS)}."
        )
    match = _FOLDER_NAME.fullmatch(source.name) if source is not None else None
    number = dataset_id if dataset_id is not None or match is None else int(match["id"])
    if number is None or not 0 <= number <= 999:
        raise UsageError(
            f"No dataset id from 0 to 999 for {source or 'the folders'}: got {number}. Give one "
            "with --id, or name the folder like Task90_Name."
        )
    chosen = name or (match["name"] if match else source.name if source is not None else None)
    if not chosen or re.search(r"[\\/]", chosen):
        raise UsageError(
            f"No usable dataset name: got {chosen!r}. Give one with --name, without '/'."
        )
    return raw / f"{prefix}{number:03d}_{chosen}"


def convert(
    source: Source,
    destination: Path,
    layout: str = "v2",
    overwrite: bool = False,
    workers: Workers | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a dataset in the layout of nnU-Net v1 or v2. The source is not changed.

    Files are copied byte for byte where their format can stay: always `.nii.gz` with one file per
    channel; in v2 also other formats that images and labels share. Pictures in lossy or different
    formats become `.png` or `.tif`. Everything else becomes `.nii.gz`, with its voxel type and
    geometry.

    Args:
        source: See `find_source` and `find_folders`.
        destination: Dataset folder to make; it appears when everything is converted. See
            `default_destination`.
        layout: `v1` or `v2`.
        overwrite: Replace an existing destination.
        workers: Processes to write cases in; None writes them in this one.
        progress: Called with the name of each case that is converted.

    Raises:
        UsageError: No such layout, or a destination that holds the source.
        StorageError: The destination exists, or cannot be written.
        DatasetError: The source is of this layout already, or has regions or an ignore label, which
            v1 cannot express.
        ImageError: An image is unreadable or has another number of channels than the source
            declares.
    """
    ending = _check(source, destination, layout)
    cases = [("Tr", case) for case in source.training] + [("Ts", case) for case in source.test]
    reading = replace(source, training=(), test=(), further={})
    with files.atomic_folder(destination, overwrite) as temporary:
        for part, case in cases:
            (temporary / f"images{part}").mkdir(exist_ok=True)
            if case.label is not None:
                (temporary / f"labels{part}").mkdir(exist_ok=True)
        target = _Target(temporary, ending, source.writers[ending])
        write = functools.partial(_write_case, source=reading, target=target)
        for name in (workers or Workers()).each(
            write, cases, name=lambda job: f"case {job[1].name}"
        ):
            if progress is not None:
                progress(name)
        document = _document_v1(source) if layout == "v1" else _document_v2(source, ending)
        files.write_json(temporary / "dataset.json", document)
    return destination


def _check(source: Source, destination: Path, layout: str) -> str:
    """Return the ending of the result's files; raise when the conversion makes no sense."""
    if layout not in LAYOUTS:
        raise UsageError(
            f"There is no layout '{layout}' to convert to. Layouts: {', '.join(LAYOUTS)}."
        )
    if source.kind == layout:
        raise DatasetError(
            f"{source.inputs[0]} is of the layout {layout} already: it needs no conversion, use it "
            "as it is."
        )
    target = destination.resolve()
    for path in source.inputs:
        if (
            target == path.resolve()
            or target in path.resolve().parents
            or path.resolve() in target.parents
        ):
            raise UsageError(
                f"The result {destination} and the source {path} lie in one another. Choose "
                "another --output."
            )
    if layout == "v1":
        regions = [name for name, value in source.labels.items() if isinstance(value, list)]
        if regions or "ignore" in source.labels:
            what = f"regions ({', '.join(regions)})" if regions else "an ignore label"
            raise DatasetError(
                f"{source.inputs[0]} has {what}, which dataset.json of v1 cannot express. Use --to "
                "v2."
            )
        return NIFTI
    return _target_ending(source.image_ending, source.label_ending)


def _target_ending(image: str, label: str) -> str:
    both = {image.lower(), label.lower()}
    if len(both) == 1 and image and not both & {*_LOSSY, *_DETACHED}:
        return image
    if both <= {*PICTURES, *_TIFF}:
        return ".tif" if both & {*_TIFF} else ".png"
    return NIFTI


@dataclass(frozen=True)
class _Target:
    """Where files go, the ending that they have, and what writes them."""

    folder: Path
    ending: str
    writer: ImageFormat

    def write(self, path: Path, array: np.ndarray, geometry: Geometry) -> None:
        """Write one channel or a label; NIfTI files always have three dimensions, as v1 asks
        for.
        """
        if self.ending == NIFTI and geometry.spacing[0] == SLICE_SPACING_2D:
            # The next larger number is the same one in the header's 32 bits, but does not ask for a
            # 2D file.
            spacing = (float(np.nextafter(SLICE_SPACING_2D, np.inf)), *geometry.spacing[1:])
            geometry = replace(geometry, spacing=spacing)
        self.writer.write(path, array, geometry)


def _write_case(job: tuple[str, CaseFiles], source: Source, target: _Target) -> str:
    """Write the files of one case; return its name."""
    part, case = job
    geometry = _write_images(case, source, target, target.folder / f"images{part}")
    if case.label is None:
        return case.name
    path = below(target.folder / f"labels{part}", f"{case.name}{target.ending}")
    reader = source.label_reader
    if source.label_ending == target.ending and isinstance(reader, FileLabels) and reader.unchanged:
        shutil.copyfile(case.label, path)
    else:
        label = reader.read(case.label, geometry)
        target.write(path, label.array[0], label.geometry)
    return case.name


def _write_images(
    case: CaseFiles, source: Source, target: _Target, folder: Path
) -> Geometry | None:
    """Write the channel files of one case; return the geometry of its image, None where it was not
    read.
    """
    ending = target.ending
    paths = [
        below(folder, f"{case.name}_{channel:04d}{ending}")
        for channel in range(len(source.channels))
    ]
    trusted = source.kind in LAYOUTS and len(case.images) == len(paths)
    if trusted and source.image_ending == ending:
        for origin, path in zip(case.images, paths, strict=True):
            shutil.copyfile(origin, path)
        return None
    images = [source.image_format.read(path) for path in case.images]
    if len(images) == 1:
        images = [without_alpha(images[0], len(source.channels), case.images[0])]
    found = sum(image.array.shape[0] for image in images)
    if found != len(paths):
        raise ImageError(
            f"The image {case.images[0]} has {counted(found, 'channel')}, {len(paths)} are "
            f"declared: {', '.join(source.channels)}. Correct the file, or the names of the "
            "channels."
        )
    if source.image_ending == ending and _stays(case, source, target):
        for origin, path in zip(case.images, paths, strict=False):
            shutil.copyfile(origin, path)
    elif ending in (".png", ".tif") and len(images) == 1 and found > 1:
        _write_colours(paths[0], images[0])
    else:
        pairs = [(channel, image.geometry) for image in images for channel in image.array]
        for path, (array, geometry) in zip(paths, pairs, strict=True):
            target.write(path, array, geometry)
    return images[0].geometry


def _stays(case: CaseFiles, source: Source, target: _Target) -> bool:
    """Return whether a case's files may be copied: one per channel, or a colour picture with all
    channels.
    """
    try:
        target.writer.header(case.images[0])
    except ImageError:  # of four dimensions: only the format of the source reads it
        return False
    picture = target.ending.lower() in (*PICTURES, *_TIFF)
    return picture or len(case.images) == len(source.channels)


def _write_colours(path: Path, image: Image) -> None:
    picture = sitk.GetImageFromArray(np.moveaxis(image.array[:, 0], 0, -1), isVector=True)
    try:
        sitk.WriteImage(picture, str(path), useCompression=True)
    except RuntimeError as error:
        raise ImageError(
            f"{path} cannot be written: {str(error).strip().splitlines()[-1]}"
        ) from error


def _document_v2(source: Source, ending: str) -> dict[str, Any]:
    document = {
        **_kept(source),
        "channel_names": {str(index): name for index, name in enumerate(source.channels)},
        "labels": {
            ("background" if value == 0 else name): value for name, value in source.labels.items()
        },
        "numTraining": len(source.training),
        "file_ending": ending,
    }
    order = source.further.get("regions_class_order")
    return document if order is None else {**document, "regions_class_order": order}


def _document_v1(source: Source) -> dict[str, Any]:
    return {
        **_kept(source),
        "tensorImageSize": "3D",
        "modality": {str(index): name for index, name in enumerate(source.channels)},
        "labels": {str(value): name for name, value in source.labels.items()},
        "numTraining": len(source.training),
        "numTest": len(source.test),
        "training": [
            {"image": f"./imagesTr/{case.name}{NIFTI}", "label": f"./labelsTr/{case.name}{NIFTI}"}
            for case in source.training
        ],
        "test": [f"./imagesTs/{case.name}{NIFTI}" for case in source.test],
    }


def _kept(source: Source) -> Mapping[str, Any]:
    return {key: value for key, value in source.further.items() if key not in _OWN_FIELDS}
