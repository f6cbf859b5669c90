"""One asymmetric phantom, stored along every direction of its axes and read by every format, gets
the same label in world space.
"""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from tiny_model import make_tiny_model

import nnunet_core
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.prediction.predict import PredictionOptions, predict_folder
from nnunet_core.registry.discovery import Registry
from nnunet_core.store.models import Model

SPACING = np.array([0.6, 0.8, 2.5])  # x, y, z
ORIGIN = np.array([-20.0, 10.0, 3.0])
FLIPS = list(itertools.product((1, -1), repeat=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("m") / "3d_fullres"
    return make_tiny_model(
        place,
        predictor="bright:Bright",
        settings={"low": 2.0, "high": 7.0},  # of z-scores
        folds=1,
        preprocessor="no_resampling",
    )


def phantom():
    """Return intensities (Z, Y, X): an L of bright voxels with a brighter foot, off the centre."""
    array = np.random.default_rng(0).normal(100, 3, (6, 9, 8))
    array[1, 2:7, 2] = array[1, 6, 2:5] = 300
    array[2:5, 6, 4] = 600
    return array.astype(np.int16)


def stored(flip):
    """Return the phantom as an image whose axes x, y, z run in these directions."""
    signs = np.array(flip)
    image = sitk.GetImageFromArray(phantom()[tuple(slice(None, None, s) for s in signs[::-1])])
    ends = np.where(signs < 0, (np.array(image.GetSize()) - 1) * SPACING, 0)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN + ends)
    image.SetDirection(np.diag(signs).astype(float).ravel())
    return image


def places(image):
    """Return {label: its voxels' places in mm}."""
    array = sitk.GetArrayFromImage(image)
    return {
        int(value): {
            tuple(np.round(image.TransformIndexToPhysicalPoint([int(v) for v in index[::-1]]), 2))
            for index in np.argwhere(array == value)
        }
        for value in (1, 2)
    }


def expected():
    values = phantom()
    label = (values >= 300).astype(np.uint8) + (values >= 600)
    image = sitk.GetImageFromArray(label)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return places(image)


def name_of(flip):
    return "".join("LPS"[axis] if sign > 0 else "RAI"[axis] for axis, sign in enumerate(flip))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_every_direction_of_the_axes_through_every_format(folder, tmp_path, ending):
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for flip in FLIPS:
        sitk.WriteImage(stored(flip), images / f"{name_of(flip)}{ending}")
    options = PredictionOptions(
        runtime=Runtime("cpu", "float32", 0, 1), postprocess=False, ending=ending
    )
    predict_folder(Model.open(folder, trusted=True), images, output, Registry.discover(), options)
    wanted = expected()
    assert {value: len(found) for value, found in wanted.items()} == {1: 7, 2: 3}
    for flip in FLIPS:
        image = sitk.ReadImage(output / f"{name_of(flip)}{ending}")
        assert places(image) == wanted, name_of(flip)
        assert image.GetDirection() == stored(flip).GetDirection()


def test_every_direction_of_the_axes_as_image_in_memory_and_as_dicom(folder, tmp_path):
    wanted = expected()
    with nnunet_core.load_model(folder, "cpu", threads=1, trust=True, postprocess=False) as model:
        for flip in FLIPS:
            assert places(model.predict(stored(flip))) == wanted, name_of(flip)
            write_dicom(tmp_path / name_of(flip), stored(flip))
            assert places(model.predict(tmp_path / name_of(flip))) == wanted, name_of(flip)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3)))[1:], ids=str)
def test_axes_in_another_order(folder, axes):
    """A sagittal or coronal stack, whose slices are not axial."""
    image = sitk.PermuteAxes(stored((1, -1, 1)), axes)
    with nnunet_core.load_model(folder, "cpu", threads=1, trust=True, postprocess=False) as model:
        assert places(model.predict(image)) == expected()


def write_dicom(folder, image):
    """Write an image as a series: its slices in the order of its third axis."""
    direction = np.reshape(image.GetDirection(), (3, 3))
    origin, step = np.array(image.GetOrigin()), direction[:, 2] * SPACING[2]
    write_series(
        folder,
        sitk.GetArrayFromImage(image) // 2 + 512,  # rescaled by 2 and -1024
        ImageOrientationPatient=[*direction[:, 0], *direction[:, 1]],
        ImagePositionPatient=lambda index: list(origin + step * index),
    )
