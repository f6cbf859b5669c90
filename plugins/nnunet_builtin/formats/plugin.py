"""The plugin `formats`: image files that SimpleITK reads and writes."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_FORMATS = {
    "nifti": ([".nii.gz", ".nii"], "NIfTI"),
    "nrrd": ([".nrrd", ".seg.nrrd", ".nhdr"], "NRRD"),
    "gipl": ([".gipl", ".gipl.gz"], "GIPL"),
    "metaimage": ([".mha", ".mhd"], "MetaImage"),
    "picture": ([".png", ".bmp", ".jpg", ".jpeg"], "2D pictures, grey or RGB"),
    "tiff": ([".tif", ".tiff"], "TIFF, 2D or 3D"),
}
_TARGET = "nnunet_builtin.formats.simpleitk:SimpleItkFormat"
_SIDECAR = "nnunet_builtin.formats.sidecar:SidecarTiff"
_STACKED = "nnunet_builtin.formats.stacked:StackedFormat"


@hookimpl
def nnunet_image_formats() -> list[Component]:
    """Return the file formats that hold medical images or pictures."""
    plain = [
        Component(name, _TARGET, summary, {"endings": endings})
        for name, (endings, summary) in _FORMATS.items()
    ]
    # Without `endings`, a format is used where it is named.
    return [
        *plain,
        Component("nifti_4d", _STACKED, "NIfTI, channels as fourth dimension"),
        Component("tiff_sidecar", _SIDECAR, "TIFF with the spacing in CASE.json, as nnU-Net v2"),
    ]
