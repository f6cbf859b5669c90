"""DICOM SEG: a label map as a segmentation of the series that it was found in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_core import __version__
from nnunet_core.errors import ImageError, UsageError
from nnunet_core.runtime.files import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from nnunet_core.data.images import Geometry
    from nnunet_core.data.meaning import Code, SegmentationMeaning

#: Of labels without codes: SNOMED CT's tissue, which is true of everything in a patient.
_TISSUE = ("85756007", "SCT", "Tissue")
#: What a file repeats of its series, whose standard allows it to be empty (type 2).
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)
_LONGEST = 64  # characters of a long string (LO)
_SERIES_NUMBER = 1000
_TOLERANCE = 0.01  # voxels by which a slice may lie beside its image


def write_segmentation(
    path: Path,
    names: Sequence[str],
    array: np.ndarray,
    geometry: Geometry,
    meaning: SegmentationMeaning,
) -> None:
    """Write a label map as binary DICOM SEG, atomically; each slice refers to its image.

    Slices are matched with the files of the series by their positions, whatever their order and the
    signs of their axes.

    Args:
        path: Ends in .dcm.
        names: The files of the series.
        array: Label values (Z, Y, X), segment numbers from 1 on.
        geometry: Of the image.
        meaning: Names and codes of the values.

    Raises:
        UsageError: highdicom is not installed.
        ImageError: The slices lie elsewhere than the label map, or lack what DICOM SEG must repeat
            of them (patient, study, frame of reference).
        StorageError: The disk is full, or the folder cannot be written.
    """
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise UsageError(
            f"{path} is DICOM SEG, which needs highdicom. Run: pip install nnunet-core[dicom]"
        ) from error
    series = meaning.images[0]
    sources = [pydicom.dcmread(name, stop_before_pixels=True) for name in names]
    for source in sources:
        _complete(source)
    order = _slices(sources, geometry, series)
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=array[order],
            segmentation_type="BINARY",
            segment_descriptions=_descriptions(meaning),
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            series_description=_text(f"Segmentation {meaning.maker}"),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="nnunet-core",
            manufacturer_model_name=_text(meaning.maker or "nnU-Net"),
            software_versions=__version__,
            device_serial_number="0",
            omit_empty_frames=bool(array.any()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{path} cannot be written as DICOM SEG of {series}: {error}. Complete the tags of the "
            "series, or write another format: --ending .nii.gz"
        ) from error
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def _complete(source: Any) -> None:
    """Fill in what the standard lets a file leave out or empty, and highdicom does not."""
    for tag in _MAY_BE_EMPTY:
        if tag not in source:  # as some anonymisers leave a series
            setattr(source, tag, "")
    found = source.pop("SpecificCharacterSet", None)
    names = found.value if found and found.VM > 1 else [found.value] if found else []
    if any(names):  # the first of several may be empty, as in Japan: ASCII
        source.SpecificCharacterSet = [name or "ISO 2022 IR 6" for name in names]


def _slices(sources: Sequence[Any], geometry: Geometry, series: Path) -> list[int]:
    """Return which slice of the label map each frame of the sources is, in their order."""
    matrix = np.reshape(geometry.direction, (3, 3)) * np.array(geometry.spacing[::-1])
    positions = [position for source in sources for position in _positions(source, series)]
    places = np.linalg.solve(matrix, (np.array(positions) - np.array(geometry.origin)).T).T
    beside = np.abs(places - np.round(places)).max(initial=0) > _TOLERANCE
    found = [int(place) for place in np.round(places[:, 2])]
    if beside or np.round(places[:, :2]).any() or sorted(found) != list(range(geometry.shape[0])):
        raise ImageError(
            f"{series}: its {len(positions)} slices do not lie where the {geometry.shape[0]} of "
            "its label map do, so that no DICOM SEG can refer to them. Write another format: "
            "--ending .nii.gz"
        )
    return found


def _positions(source: Any, series: Path) -> list[list[float]]:
    """Return where the first pixel of each frame of a file lies, mm (x, y, z)."""
    if "ImagePositionPatient" in source:
        return [[float(value) for value in source.ImagePositionPatient]]
    shared = source.get("SharedFunctionalGroupsSequence", [{}])[0]
    found = []
    for group in source.get("PerFrameFunctionalGroupsSequence", ()):
        plane = group.get("PlanePositionSequence") or shared.get("PlanePositionSequence")
        if plane:
            found.append([float(value) for value in plane[0].ImagePositionPatient])
    if not found:
        raise ImageError(
            f"{series} does not say where its slices lie, so that no DICOM SEG can refer to them. "
            "Write another format: --ending .nii.gz"
        )
    return found


def _descriptions(meaning: SegmentationMeaning) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_text(meaning.maker or "nnU-Net"),
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
    )
    found = []
    for value, name in sorted(meaning.names.items()):
        known = meaning.codes.get(name)
        segment = highdicom.seg.SegmentDescription(
            segment_number=value,
            segment_label=_text(name),
            segmented_property_category=_coded(known.category if known else None),
            segmented_property_type=_coded(known.type if known else None),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        if known is not None and known.modifier is not None:
            (kind,) = segment.SegmentedPropertyTypeCodeSequence
            kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(known.modifier)]
        found.append(segment)
    return found


def _coded(code: Code | None) -> Any:
    import highdicom

    if code is None:
        return highdicom.sr.CodedConcept(*_TISSUE)
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _text(text: str) -> str:
    """Return a text that a long string (LO) can hold."""
    shown = "".join(c if c.isprintable() and c != "\\" else "_" for c in text)
    return shown[:_LONGEST].strip() or "_"
