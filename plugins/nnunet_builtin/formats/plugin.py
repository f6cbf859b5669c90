"""The plugin `formats`: image files that SimpleITK reads and writes."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_FORMATS = {
    "nifti": ([".nii.gz", ".nii"], "NIfTI"),
    "nrrd": ([".nrrd", ".nhdr"], "NRRD"),
    "gipl": ([".gipl", ".gipl.gz"], "GIPL"),
    "metaimage": ([".mha", ".mhd"], "MetaImage"),
    "picture": ([".png", ".bmp", ".jpg", ".jpeg"], "2D pictures, grey or RGB"),
    "tiff": ([".tif", ".tiff"], "TIFF, 2D or 3D"),
}


@hookimpl
def nnunet_image_formats() -> list[Component]:
    """Return the file formats that hold medical images or pictures."""
    target = "nnunet_builtin.formats.simpleitk:SimpleItkFormat"
    return [
        Component(name, target, summary, {"endings": endings})
        for name, (endings, summary) in _FORMATS.items()
    ]
