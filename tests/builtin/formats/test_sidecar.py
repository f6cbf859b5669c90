"""TIFF files whose spacing stands in a JSON file beside them."""

import json

import numpy as np
import pytest

from nnunet_builtin.formats.sidecar import SidecarTiff
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import SLICE_SPACING_2D, Geometry
from nnunet_core.errors import ImageError

VOLUME = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def written(path, array=VOLUME, spacing=(1.0, 0.5, 0.5)):
    SimpleItkFormat((".tif",)).write(path, array, Geometry(array.shape, spacing))
    return path


def test_the_file_beside_a_volume_says_its_spacing(tmp_path):
    path = written(tmp_path / "case_0001.tif")
    assert SidecarTiff().read(path).geometry.spacing == (1, 1, 1)
    (tmp_path / "case.json").write_text(json.dumps({"spacing": [5, 0.7, 0.8]}))
    image = SidecarTiff().read(path)
    assert image.geometry.spacing == SidecarTiff().header(path).spacing == (5, 0.7, 0.8)
    assert np.array_equal(image.array[0], VOLUME)


def test_a_picture_has_one_millimetre_whatever_it_says(tmp_path):
    path = written(tmp_path / "case_0000.tif", VOLUME[:1], (SLICE_SPACING_2D, 0.3, 0.3))
    assert SidecarTiff().read(path).geometry.spacing == (SLICE_SPACING_2D, 1, 1)


def test_what_is_written_is_read_with_its_spacing(tmp_path):
    SidecarTiff().write(tmp_path / "case.tif", VOLUME, Geometry((2, 3, 4), (5.0, 0.7, 0.8)))
    assert SidecarTiff().read(tmp_path / "case.tif").geometry.spacing == (5, 0.7, 0.8)


@pytest.mark.parametrize("content", ["{", "[]", '{"spacing": [1, 0, 1]}', '{"spacing": [1, 1]}'])
def test_a_spacing_that_is_none_is_one_message(tmp_path, content):
    path = written(tmp_path / "case_0000.tif")
    (tmp_path / "case.json").write_text(content)
    with pytest.raises(ImageError, match=r"case\.json, which says the spacing of case_0000\.tif"):
        SidecarTiff().read(path)
