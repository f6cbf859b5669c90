"""Images whose networks want the axes of the body."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from plain_cases import CONFIGURATION

from nnunet_builtin.preprocessing.orientation import axes_to_ras
from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_builtin.preprocessing.resampling import resample_images
from nnunet_core.contracts.predictor import Slabs
from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import Normalization

ORIENTATIONS = [
    "".join(letters[i] for i in order)
    for order in itertools.permutations(range(3))
    for letters in itertools.product("RL", "AP", "IS")
]


def direction(letters):
    return sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation(letters)


@pytest.mark.parametrize("letters", ORIENTATIONS)
def test_every_orientation_becomes_ras(letters):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(array)
    image.SetDirection(direction(letters))
    order, turned = axes_to_ras(Geometry((2, 3, 4), direction=image.GetDirection()))
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "RAS"))
    assert np.array_equal(np.flip(array, turned).transpose(order), expected)


def test_oblique_axes_are_taken_for_the_nearest():
    turn = np.array([[0.9, -0.436, 0], [0.436, 0.9, 0], [0, 0, 1]])
    cosines = turn @ np.reshape(direction("LIP"), (3, 3))
    straight = axes_to_ras(Geometry((2, 3, 4), direction=direction("LIP")))
    assert axes_to_ras(Geometry((2, 3, 4), direction=tuple(cosines.ravel()))) == straight


@pytest.mark.parametrize("letters", ["RAS", "LPS", "LIP", "SAL"])
@pytest.mark.parametrize("part", ["whole", "slabs"])
def test_what_is_prepared_in_ras_comes_back_in_the_axes_of_the_file(letters, part):
    images = np.random.default_rng(0).normal(5, 1, (1, 12, 14, 10)).astype(np.float32)
    images[:, :, :3] = 0  # what is cropped is not the same at both ends
    grid = Geometry(images.shape[1:], (2.0, 1.0, 1.5), direction=direction(letters))
    case = Case("case", images, None, grid)
    preprocessor = DefaultPreprocessor(resample="none", steps="v2", orientation="RAS")
    zscore = CONFIGURATION.model_copy(update={"normalization": (Normalization(scheme="zscore"),)})
    prepared = preprocessor.prepare(case, zscore)
    if part == "whole":
        back = preprocessor.restore(prepared.images, prepared.geometry)
    else:
        slabs = Slabs(prepared.images.shape, np.array_split(prepared.images, 3, axis=1))
        back = np.zeros_like(case.images)
        for start, slab in preprocessor.restore_slabs(slabs, prepared.geometry):
            back[:, start : start + slab.shape[1]] = slab
    inside = tuple(slice(*sides) for sides in prepared.geometry.crop_box)
    expected = case.images[0][inside]
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(back[0][inside], expected, atol=1e-5)


def test_the_steps_of_v2_normalise_before_they_resample():
    """The masked voxels of v2 are those of the image, not of a resampled mask."""
    images = np.zeros((1, 8, 8, 8), np.float32)
    images[:, 1:7, 1:7, 1:7] = np.random.default_rng(0).normal(5, 1, (6, 6, 6))
    case = Case("case", images, None, Geometry((8, 8, 8)))
    masked = (Normalization(scheme="zscore", use_mask=True),)
    plans = CONFIGURATION.model_copy(update={"normalization": masked, "spacing": (0.5, 0.5, 0.5)})
    found = DefaultPreprocessor(steps="v2").prepare(case, plans).images
    inside = images[:, 1:7, 1:7, 1:7]
    expected = resample_images((inside - inside.mean()) / inside.std(), (12, 12, 12), None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(found, DefaultPreprocessor().prepare(case, plans).images, atol=1e-3)
