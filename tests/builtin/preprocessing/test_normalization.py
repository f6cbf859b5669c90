"""Normalisation: the spec's table, in place, and what cannot be normalised."""

import numpy as np
import pytest

from nnunet_builtin.preprocessing.normalization import normalize
from nnunet_core.data.fingerprint import IntensityStatistics
from nnunet_core.data.plans import Normalization
from nnunet_core.errors import ImageError, UsageError

STATISTICS = IntensityStatistics(
    mean=40, sd=30, median=38, minimum=-100, maximum=200, percentile_00_5=-60, percentile_99_5=110
)


def normalized(image, label, scheme, use_mask=False, statistics=STATISTICS):
    image = np.array(image, np.float32).reshape(1, 1, -1)
    label = np.array(label, np.int8).reshape(1, 1, -1)
    normalize(image, label, Normalization(scheme=scheme, use_mask=use_mask, statistics=statistics))
    assert image.dtype == np.float32
    return image.ravel()


def test_ct_clips_and_uses_the_statistics_of_the_dataset():
    result = normalized([-1000, -60, 40, 100, 3000], [-1, 0, 1, 0, 0], "CT")
    np.testing.assert_allclose(result, [-100 / 30, -100 / 30, 0, 2, 70 / 30], rtol=1e-6)


@pytest.mark.parametrize("scheme", ["CT", "CT2"])
def test_ct_with_mask_sets_the_outside_to_zero(scheme):
    result = normalized([-1000, 10, 40, 100], [-1, 0, 1, -1], scheme, use_mask=True)
    assert list(result[[0, 3]]) == [0, 0]
    assert result[1] != 0


def test_ct2_uses_the_voxels_strictly_inside_the_clipped_range():
    image = [-1000, -60, 10, 30, 50, 110, 3000]
    mean, sd = np.mean([10, 30, 50]), np.std([10, 30, 50])
    expected = (np.clip(image, -60, 110) - mean) / sd
    np.testing.assert_allclose(normalized(image, np.zeros(7), "CT2"), expected, rtol=1e-6)


def test_zscore_without_mask_uses_every_voxel():
    result = normalized([1, 2, 3, 6], [-1, -1, 0, 1], "zscore")
    np.testing.assert_allclose(
        result, (np.array([1, 2, 3, 6]) - 3) / np.std([1, 2, 3, 6]), rtol=1e-6
    )


def test_zscore_with_mask_uses_the_inside_and_sets_the_outside_to_zero():
    result = normalized([100, 2, 4, 6], [-1, 0, 2, 0], "zscore", use_mask=True)
    np.testing.assert_allclose(
        result, [0, -2 / np.std([2, 4, 6]), 0, 2 / np.std([2, 4, 6])], rtol=1e-6
    )


@pytest.mark.filterwarnings("error")
def test_constant_and_fully_masked_images_become_zero():
    assert not normalized([7, 7, 7], [0, 0, 0], "zscore").any()
    assert not normalized([7, 8, 9], [-1, -1, -1], "zscore", use_mask=True).any()


def test_none_leaves_the_image():
    assert list(normalized([3, -4, 500], [0, -1, 0], "none", use_mask=True)) == [3, -4, 500]


def test_an_unknown_scheme_lists_what_exists():
    with pytest.raises(
        UsageError, match=r"'zscor'. Did you mean 'zscore'\? Schemes: CT, CT2, zscore, none"
    ):
        normalized([1], [0], "zscor")


@pytest.mark.parametrize("scheme", ["CT", "CT2"])
@pytest.mark.parametrize("statistics", [None, STATISTICS.model_copy(update={"sd": float("nan")})])
def test_ct_needs_statistics(scheme, statistics):
    with pytest.raises(UsageError, match="foreground intensities"):
        normalized([1], [0], scheme, statistics=statistics)


def test_ct2_refuses_an_image_without_voxels_in_the_range():
    with pytest.raises(ImageError, match="CT2"):
        normalized([-60, 110, 900], [0, 0, 0], "CT2")


def test_rescaling_maps_each_case_to_zero_and_one():
    np.testing.assert_allclose(
        normalized([-1000, 0, 1000], [0, 0, 0], "rescale_to_0_1"), [0, 0.5, 1]
    )
    np.testing.assert_array_equal(normalized([7, 7, 7], [0, 0, 0], "rescale_to_0_1"), [0, 0, 0])


def test_pictures_are_divided_by_255_and_other_intensities_are_refused():
    np.testing.assert_allclose(normalized([0, 51, 255], [0, 0, 0], "rgb_to_0_1"), [0, 0.2, 1])
    with pytest.raises(ImageError, match="rescale_to_0_1"):
        normalized([0, 51, 65535], [0, 0, 0], "rgb_to_0_1")
