"""Images whose axes run otherwise: every voxel stays at its place."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_core.data.images import Geometry, Image
from nnunet_core.data.orientation import turned_like

OBLIQUE = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5).GetMatrix()
REFERENCE = Geometry((3, 4, 5), (3.0, 2.0, 1.0), (7.0, -8.0, 9.0), OBLIQUE)
TURNS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


def _itk(array, geometry):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def _image(image):
    geometry = Geometry(
        image.GetSize()[::-1], image.GetSpacing()[::-1], image.GetOrigin(), image.GetDirection()
    )
    return Image(sitk.GetArrayFromImage(image)[None], geometry)


@pytest.mark.parametrize(("axes", "flips"), TURNS)
def test_what_itk_turns_comes_back_as_it_was(axes, flips):
    array = np.arange(60, dtype=np.uint8).reshape(REFERENCE.shape)
    turned = sitk.Flip(sitk.PermuteAxes(_itk(array, REFERENCE), axes), flips)
    back = turned_like(_image(turned), REFERENCE)
    assert not REFERENCE.differences(back.geometry)
    assert np.array_equal(back.array[0], array)


def test_axes_that_are_not_parallel_stay():
    image = Image(np.zeros((1, 3, 4, 5), np.uint8), Geometry((3, 4, 5)))
    assert turned_like(image, REFERENCE) is image
