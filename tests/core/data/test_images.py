"""Images: geometry survives, every format reads back, damaged files are one message."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import (
    SLICE_SPACING_2D,
    Geometry,
    check_planar,
    ending_of,
    spacing_outliers,
    stack_channels,
)
from nnunet_core.errors import ImageError

ANGLE = 0.3
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_volumes_come_back_with_their_geometry(tmp_path, ending):
    geometry = Geometry(
        (4, 5, 6), (2.5, 1.25, 0.5), (10.0, -20.0, 30.0), tuple(map(float, OBLIQUE))
    )
    array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    image_format = SimpleItkFormat((ending,))
    image_format.write(tmp_path / f"a{ending}", array, geometry)
    image = image_format.read(tmp_path / f"a{ending}")
    assert np.array_equal(image.array[0], array)
    assert image.geometry.differences(geometry) == []
    assert [p.name for p in tmp_path.iterdir()] == [f"a{ending}"]


def test_a_colour_picture_is_one_slice_with_three_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.png"))
    image = SimpleItkFormat((".png",)).read(tmp_path / "a.png")
    assert image.array.shape == (3, 1, 7, 9)
    assert np.array_equal(image.array[:, 0], np.moveaxis(pixels, -1, 0))
    assert image.geometry.spacing == (SLICE_SPACING_2D, 1.0, 1.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_picture_comes_back(tmp_path, dtype):
    array = np.arange(63, dtype=dtype).reshape(1, 7, 9) * 3
    image_format = SimpleItkFormat((".png",))
    image_format.write(tmp_path / "a.png", array, Geometry((1, 7, 9), (SLICE_SPACING_2D, 1.0, 1.0)))
    assert np.array_equal(image_format.read(tmp_path / "a.png").array[0], array)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".png"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_damaged_files_are_one_message_with_their_name(tmp_path, ending, damage):
    path = tmp_path / f"a{ending}"
    shape = (1, 40, 40) if ending == ".png" else (20, 40, 40)
    array = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    SimpleItkFormat((ending,)).write(path, array, Geometry(shape, (SLICE_SPACING_2D, 1.0, 1.0)))
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "truncated": content[: len(content) // 3], "text": b"hello world" * 50}[
            damage
        ]
    )
    with pytest.raises(ImageError, match=f"a{ending}"):
        SimpleItkFormat((ending,)).read(path)


def test_several_gzip_members_are_one_file(tmp_path):
    import gzip

    path = tmp_path / "a.nii.gz"
    array = np.arange(8000, dtype=np.int16).reshape(20, 20, 20)
    SimpleItkFormat().write(path, array, Geometry(array.shape))
    plain = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]))
    assert np.array_equal(SimpleItkFormat().read(path).array[0], array)


def test_a_missing_file_and_a_4d_file_say_so(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        SimpleItkFormat().read(tmp_path / "none.nii.gz")
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.float32), isVector=False),
        str(tmp_path / "a.nii.gz"),
    )
    with pytest.raises(ImageError, match="nnunet dataset convert"):
        SimpleItkFormat().read(tmp_path / "a.nii.gz")


def test_channels_of_different_grids_are_refused(tmp_path):
    image_format, paths = SimpleItkFormat(), [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path, spacing in zip(paths, (1.0, 1.5), strict=True):
        image_format.write(
            path, np.ones((3, 3, 3), np.uint8), Geometry((3, 3, 3), (spacing, 1.0, 1.0))
        )
    with pytest.raises(ImageError, match=r"b\.nii\.gz.*spacing"):
        stack_channels([image_format.read(path) for path in paths], paths)


TURNED = (0.9998618, -0.0166248, 0.0, 0.0166248, 0.9998618, 0.0, 0.0, 0.0, 1.0)
PLACED = Geometry((20, 30, 40), (3.0, 0.8, 0.8), (-100.0, 50.0, 7.0), TURNED)


@pytest.mark.parametrize(
    ("field", "step", "found", "noted"),
    [
        ("origin", 1e-6, [], False),
        ("direction", 1e-7, [], False),
        ("spacing", 1e-6, [], False),
        ("origin", 0.02, [], True),
        ("origin", 0.2, ["origin"], None),
        ("spacing", 0.1, ["spacing"], None),
        ("direction", 0.01, ["direction"], None),
    ],
)
def test_grids_are_compared_by_their_corners_in_voxels(field, step, found, noted):
    values = (getattr(PLACED, field)[0] + step, *getattr(PLACED, field)[1:])
    other = replace(PLACED, **{field: values})
    assert PLACED.differences(other) == found
    if noted is not None:
        notes = PLACED.noted(other, Path("x.nii")).notes
        assert bool(notes) == noted, notes


def test_a_single_slice_of_another_thickness_lies_elsewhere():
    flat = replace(PLACED, shape=(1, 30, 40))
    assert flat.differences(replace(flat, spacing=(999.0, 0.8, 0.8))) == ["spacing"]


def test_spacings_far_from_the_median_are_named():
    usual = {f"c{i}": (3.0, 0.8, 0.8) for i in range(5)}
    assert spacing_outliers(usual | {"d": (6.0, 0.4, 0.4)}) == []
    (sentence,) = spacing_outliers(usual | {"d": (3.0, 800.0, 0.8)})
    assert "d has a spacing of 3 x 800 x 0.8 mm" in sentence
    assert spacing_outliers({}) == []


def test_pictures_among_volumes_are_named():
    check_planar({"a": True, "b": True})
    with pytest.raises(ImageError, match="1 of 3 cases are 2D images, the others volumes: b"):
        check_planar({"a": False, "b": True, "c": False})


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.NII.GZ", ".nii.gz"), ("a.seg.nrrd", ".seg.nrrd"), ("a.nrrd", ".nrrd"), ("a.txt", "")],
)
def test_the_longest_ending_counts_in_any_letters(name, ending):
    assert ending_of(name, [".gz", ".nii.gz", ".nrrd", ".seg.nrrd"]) == ending


def test_grids_whose_numbers_are_nearly_equal_can_lie_apart():
    """Far from the origin a part of a millimetre is little of the number, and many small voxels."""
    far = replace(PLACED, spacing=(0.1, 0.1, 0.1), origin=(100_000.0, 50.0, 7.0))
    other = replace(far, origin=(100_000.5, 50.0, 7.0))
    told = far.contrast(other, "image", "label")
    assert told == "the label lies 5 voxels beside the image"
    assert far.contrast(far, "image", "label") == ""
