"""Headers that contradict their file or themselves, in every container: one message, before any
voxel is invented; and names and kinds of files that must not be opened at all.
"""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.errors import ImageError

VOLUME = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
PLANE = np.arange(240, dtype=np.uint8).reshape(12, 20)


def put(content, offset, form, *values):
    changed = bytearray(content)
    struct.pack_into(form, changed, offset, *values)
    return bytes(changed)


def nifti(**_):
    return {
        "more slices than the header says": (lambda c: put(c, 46, "<h", 3), "holds more than"),
        "fewer slices": (lambda c: put(c, 46, "<h", 5), "truncated"),
        "no slice": (lambda c: put(c, 46, "<h", 0), "declares the dimensions"),
        "type against bits": (lambda c: put(c, 72, "<h", 8), "contradicts itself"),
        "unknown type": (lambda c: put(c, 70, "<h", 77), "unknown type 77"),
        "complex": (lambda c: put(c, 70, "<h", 32), "complex numbers.*magnitude"),
        "128 bits": (lambda c: put(c, 70, "<h", 1536), "128-bit numbers"),
        "no spacing": (lambda c: put(c, 80, "<3f", 0, 0, 0), r"spacing \(0, 0, 0\)"),
        "negative spacing": (lambda c: put(c, 80, "<f", -1), "positive number of mm"),
        "spacing is NaN": (lambda c: put(c, 84, "<f", np.nan), "positive number of mm"),
        "sform is NaN": (lambda c: put(c, 280, "<f", np.nan), "sform holds"),
        "qform is infinite": (lambda c: put(c, 268, "<f", np.inf), "qform holds"),
        "flat sform": (lambda c: put(c, 312, "<3f", 0, 0, 0), "in one plane"),
        "sheared": (
            lambda c: put(put(c, 252, "<2h", 0, 1), 288, "<f", 0.3),
            "sheared axes.*right angles",
        ),
        "voxels before the header's end": (lambda c: put(c, 108, "<f", 17), "from byte 17"),
        "detached": (lambda c: put(c, 344, "3s", b"ni1"), "another file"),
    }


def nrrd():
    def changed(old, new):
        return lambda c: c.replace(old, new)

    return {
        "more slices": (changed(b"sizes: 6 5 4", b"sizes: 6 5 3"), "holds more than"),
        "fewer slices": (changed(b"sizes: 6 5 4", b"sizes: 6 5 5"), "truncated"),
        "sizes that overflow": (
            changed(b"6 5 4", b"4294967296 4294967296 4"),
            "GB of memory are free|truncated",
        ),
        "a negative size": (changed(b"6 5 4", b"6 -5 4"), "positive whole numbers"),
        "no spacing": (changed(b"space directions", b"x"), "no spacing"),
        "sheared": (changed(b"(0,1,0)", b"(0.3,1,0)"), "sheared axes"),
        "NaN": (changed(b"(0,1,0)", b"(0,nan,0)"), "not 3 numbers"),
        "another file": (changed(b"type:", b"data file: /etc/passwd\ntype:"), "name it"),
    }


def metaimage():
    def changed(old, new):
        return lambda c: c.replace(old, new)

    return {
        "more slices": (changed(b"DimSize = 6 5 4", b"DimSize = 6 5 3"), "holds more than"),
        "fewer slices": (changed(b"DimSize = 6 5 4", b"DimSize = 6 5 5"), "truncated"),
        "no spacing": (changed(b"ElementSpacing", b"X"), "no spacing"),
        "spacing 0": (changed(b"ElementSpacing = 1", b"ElementSpacing = 0"), "positive number"),
        "NaN": (changed(b"Offset = 0", b"Offset = nan"), "not 3 numbers"),
        "sheared": (
            changed(b"TransformMatrix = 1 0 0 0", b"TransformMatrix = 1 0 0 .3"),
            "sheared",
        ),
        "another file": (changed(b"LOCAL", b"/etc/passwd"), "name it"),
        "type": (changed(b"MET_SHORT", b"MET_UCHAR"), "holds more than"),
    }


def gipl():
    return {
        "more slices": (lambda c: put(c, 4, ">H", 3), "holds more than"),
        "fewer slices": (lambda c: put(c, 4, ">H", 5), "truncated"),
        "spacing 0": (lambda c: put(c, 10, ">f", 0), "positive number of mm"),
        "type": (lambda c: put(c, 8, ">H", 99), "type 99"),
    }


def bmp():
    return {
        "cut to 2 %": (lambda c: c[: len(c) // 50], "no BMP header"),
        "cut": (lambda c: c[:-40], "truncated"),
        "higher": (lambda c: put(c, 22, "<i", 9000), "truncated"),
        "compressed": (lambda c: put(c, 30, "<I", 1), "Save it as .png"),
        "too many colours": (lambda c: put(c, 46, "<I", 1 << 30), "contradicts itself"),
    }


def circle(content):
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    return put(content, first + 2 + 12 * count, "<I", first)


def tiff():
    return {
        "cut to 60 %": (lambda c: c[: len(c) * 6 // 10], "truncated|not there"),
        "nothing": (lambda c: b"", "no TIFF header"),
        "a circle of pages": (circle, "is not there"),
    }


def jpeg():
    return {
        "cut": (lambda c: c[: len(c) // 2], "truncated"),
        "larger": (lambda c: c.replace(b"\0\x0c\0\x14", b"\xf0\x0c\xf0\x14"), "cannot be in it"),
    }


def png():
    return {"larger": (lambda c: put(c, 16, ">2I", 1 << 20, 1 << 20), "cannot be in it|cannot")}


CONTAINERS = {
    ".nii": nifti, ".nrrd": nrrd, ".mha": metaimage, ".gipl": gipl, ".bmp": bmp, ".tif": tiff,
    ".jpg": jpeg, ".png": png,
}  # fmt: skip
TABLE = [(ending, name) for ending, table in CONTAINERS.items() for name in table()]


def write(folder, ending):
    path = folder / f"case_0000{ending}"
    array = PLANE if ending in (".bmp", ".jpg", ".png") else VOLUME
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.mark.parametrize("capitals", [False, True], ids=["small", "CAPITALS"])
@pytest.mark.parametrize(("ending", "name"), TABLE)
def test_a_contradiction_is_one_message(tmp_path, ending, name, capitals):
    path = write(tmp_path, ending)
    change, message = CONTAINERS[ending]()[name]
    content = change(path.read_bytes())
    assert content != path.read_bytes()
    path.write_bytes(content)
    if capitals:
        path = path.rename(path.with_suffix(ending.upper()))
    for read in (SimpleItkFormat().header, SimpleItkFormat().read):
        with pytest.raises(ImageError, match=rf"case_0000.*({message})") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ending", [".nii.gz", ".NII.GZ", ".GIPL", ".NRRD", ".PNG", ".Mha", ".mhd", ".NHDR"]
)
def test_images_of_any_spelling_are_written_and_read(tmp_path, ending):
    array = PLANE[None] if ending == ".PNG" else VOLUME
    geometry = Geometry(array.shape, (999.0 if ending == ".PNG" else 2.0, 1.0, 1.0))
    path = tmp_path / f"a{ending}"
    SimpleItkFormat().write(path, array, geometry)
    np.testing.assert_array_equal(SimpleItkFormat().read(path).array[0], array)
    if ending.lower().endswith(".gz"):
        assert gzip.decompress(path.read_bytes())
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ImageError, match="truncated or damaged"):
            SimpleItkFormat().read(path)


def test_what_readers_do_not_take_in_capitals_is_said(tmp_path):
    write(tmp_path, ".gipl.gz").rename(tmp_path / "a.GIPL.GZ")
    with pytest.raises(ImageError, match=r"rename it to \*\.gipl\.gz"):
        SimpleItkFormat().read(tmp_path / "a.GIPL.GZ")


def test_lossy_files_in_capitals_take_no_labels(tmp_path):
    with pytest.raises(ImageError, match="lose exact values"):
        SimpleItkFormat().write(tmp_path / "a.JPG", PLANE[None], Geometry((1, 12, 20)))


@pytest.mark.parametrize("name", ["../outside.raw", "/etc/passwd", "LIST", "x%03d.raw", ".hidden"])
@pytest.mark.parametrize(
    ("ending", "field"), [(".mhd", "ElementDataFile = "), (".nhdr", "data file: ")]
)
def test_voxels_beside_a_header_are_in_its_folder(tmp_path, ending, field, name):
    path = write(tmp_path, ending)
    (tmp_path.parent / "outside.raw").write_bytes(VOLUME.tobytes())
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{field}{name}" if x.startswith(field) else x for x in lines) + "\n")
    with pytest.raises(ImageError, match=r"case_0000.*one file beside the header"):
        SimpleItkFormat().read(path)


@pytest.mark.parametrize(("ending", "voxels"), [(".mhd", ".raw"), (".nhdr", ".raw")])
def test_voxels_beside_a_header_are_in_the_digest(tmp_path, ending, voxels):
    path = write(tmp_path, ending)
    image_format = SimpleItkFormat((ending,))
    case = CaseFiles("case", (path,))
    names = {"ending": ending, "label_ending": ending, "document": {}, "training": (case,)}
    labels = Labels.from_names({"background": 0, "a": 1}, None, "x")
    digests = []
    for _ in range(2):
        dataset = Dataset(
            folder=tmp_path, name="D", channels=("MRI",), labels=labels, image_format=image_format,
            label_format=image_format, **names,
        )  # fmt: skip
        digests.append(dataset.digest)
        other = path.with_suffix(voxels)
        other.write_bytes(other.read_bytes()[::-1])
    assert digests[0] != digests[1]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero")])
@pytest.mark.parametrize("ending", [".nii.gz", ".tif", ".nrrd", ".bmp"])
def test_pipes_and_devices_are_not_opened(tmp_path, ending, make):
    path = tmp_path / f"case_0000{ending}"
    make(path)
    with pytest.raises(ImageError, match="no regular file"):
        SimpleItkFormat().read(path)
    with pytest.raises(OSError, match="no regular file"):
        Dataset.__dataclass_fields__["digests"].default_factory().of([path])


def test_names_that_are_not_utf_8_do_not_reach_itk(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff_0000.nii"))
    path.write_bytes(b"x")
    with pytest.raises(ImageError, match=r"not UTF-8; rename"):
        SimpleItkFormat().read(path)


def test_contradicting_forms_are_a_warning_with_numbers_and_predictions_carry_both(tmp_path):
    path = write(tmp_path, ".nii")
    content = put(path.read_bytes(), 252, "<2h", 1, 2)
    path.write_bytes(put(content, 292, "<f", 30.0))
    image = SimpleItkFormat().read(path)
    (note,) = image.geometry.notes
    assert "30 voxels apart" in note
    assert "is used, predictions carry both" in note
    SimpleItkFormat().write(tmp_path / "out.nii.gz", image.array[0], image.geometry)
    written = gzip.decompress((tmp_path / "out.nii.gz").read_bytes())
    assert written[252:328] == path.read_bytes()[252:328]
    again = SimpleItkFormat().read(tmp_path / "out.nii.gz")
    assert again.geometry.differences(image.geometry) == []
    np.testing.assert_array_equal(again.array, image.array)


def test_a_label_at_the_place_of_the_other_form_is_on_the_grid_of_its_image(tmp_path):
    plain = SimpleItkFormat().read(write(tmp_path, ".nii")).geometry
    path = tmp_path / "both.nii"
    content = put(next(tmp_path.glob("*.nii")).read_bytes(), 252, "<2h", 1, 2)
    path.write_bytes(put(content, 292, "<f", 30.0))
    both = SimpleItkFormat().read(path).geometry
    places = [both, both.elsewhere]
    assert sorted(place.displacement(plain) > 1 for place in places) == [False, True]
    for place in places:
        one_form = Geometry(place.shape, place.spacing, place.origin, place.direction)
        assert both.differences(one_form) == one_form.differences(both) == []
        assert both.noted(one_form, path).notes == both.notes
    moved = Geometry(plain.shape, plain.spacing, (500.0, 0.0, 0.0), plain.direction)
    assert both.differences(moved) == ["origin"]
