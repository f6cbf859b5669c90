"""Images: geometry survives, every format reads back, damaged files are one message."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import SLICE_SPACING_2D, Geometry, stack_channels
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
