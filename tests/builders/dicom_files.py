"""Small DICOM series and DICOM SEG files for tests."""

from pathlib import Path

import highdicom
import numpy as np
import pydicom

SHAPE = (5, 6, 7)
SPACING = (2.5, 0.8, 0.6)
ORIGIN = (-20.0, 10.0, 3.0)
STUDY = pydicom.uid.generate_uid()


def write_series(
    folder: Path, array: np.ndarray, positions: list[float] | None = None, **tags: object
) -> str:
    """Write slices with file names that are not in the order of their positions; return the series
    UID.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid, frame = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    for index, plane in enumerate(array):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = pydicom.uid.CTImageStorage
        data.SOPInstanceUID = pydicom.uid.generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = STUDY, uid, frame
        data.Modality, data.SeriesDescription, data.PatientID, data.PatientName = (
            "CT",
            f"stack {uid[-3:]}",
            "p",
            "p^",
        )
        data.StudyDate = data.StudyTime = data.PatientBirthDate = data.PatientSex = (
            data.AccessionNumber
        ) = ""
        data.StudyID, data.InstanceNumber, data.SeriesNumber = "1", index + 1, 1
        data.Rows, data.Columns = plane.shape
        data.PixelSpacing = [SPACING[1], SPACING[2]]
        data.SliceThickness = SPACING[0]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        offset = index * SPACING[0] if positions is None else positions[index]
        data.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + offset]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.RescaleSlope, data.RescaleIntercept = 2, -1024
        data.PixelData = plane.astype("<u2").tobytes()
        for name, value in tags.items():
            setattr(data, name, value(index) if callable(value) else value)
        data.save_as(folder / f"{(index * 3) % 7}.img", enforce_file_format=True)
    return str(uid)


def write_seg(
    path: Path, series: Path, masks: np.ndarray, labels: list[str], kind: str = "BINARY"
) -> None:
    """Write masks (Z, Y, X, segments) of a series as DICOM SEG."""
    sources = [pydicom.dcmread(name) for name in sorted(series.iterdir())]
    sources.sort(key=lambda data: data.ImagePositionPatient[2])
    code = highdicom.sr.CodedConcept("T-D0050", "SRT", "Tissue")
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=code,
            segmented_property_type=code,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(labels, start=1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=pydicom.uid.generate_uid(),
        series_number=2,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
