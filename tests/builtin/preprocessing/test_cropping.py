"""Cropping to the non-zero region."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_builtin.preprocessing.cropping import crop, nonzero_mask
from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.errors import ImageError


def case_of(images, label=None):
    return Case("a", images, label, Geometry(images.shape[1:]))


def test_example_of_the_specification():
    images = np.zeros((2, 6, 6, 6), np.float32)
    images[0, 1:5, 1:5, 1:5] = 1
    images[0, 2:4, 2:4, 2:4] = 0
    images[1, 1, 0, 1] = 1
    cropped, label, box = crop(case_of(images, np.zeros((6, 6, 6), np.int16)))
    assert box == ((1, 5), (0, 5), (1, 5))
    assert cropped.shape == (2, 4, 5, 4)
    assert (label == -1).sum() == 15
    assert (label == 0).sum() == label.size - 15


def test_labels_outside_the_mask_stay_and_without_a_label_the_mask_is_the_label():
    images = np.zeros((1, 4, 4, 4), np.float32)
    images[0, 0, 0, 0] = images[0, 3, 3, 3] = 1
    reference = np.zeros((4, 4, 4), np.int16)
    reference[1, 1, 1] = 2
    assert crop(case_of(images, reference))[1][1, 1, 1] == 2
    label = crop(case_of(images))[1]
    assert label[0, 0, 0] == 0
    assert label[1, 1, 1] == -1


def test_an_empty_image_names_its_case():
    with pytest.raises(ImageError, match="case a"):
        crop(case_of(np.zeros((1, 3, 3, 3), np.float32)))


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (1, 5, 6, 4), elements=st.sampled_from([0.0, 0.0, 0.0, 1.0])))
def test_nothing_that_is_not_zero_is_lost(images):
    if not images.any():
        return
    cropped, label, _ = crop(case_of(images))
    assert cropped.sum() == images.sum()
    assert ((label == 0) | (cropped[0] == 0)).all()
    assert nonzero_mask(images).sum() == (label == 0).sum()
