"""The plugin `dicom`: DICOM series as images."""

from __future__ import annotations

from nnunet_core import Component, hookimpl


@hookimpl
def nnunet_image_formats() -> list[Component]:
    """Return the reader of DICOM series."""
    target = "nnunet_builtin.dicom.series:DicomSeriesFormat"
    return [
        Component(
            "dicom", target, "DICOM series; predictions become DICOM SEG", {"endings": [".dcm"]}
        )
    ]
