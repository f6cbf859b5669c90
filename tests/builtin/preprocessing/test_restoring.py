"""Slabs taken back to the grid of the file: the labels and probabilities of the whole, bit for
bit.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.datasets.reading import read_labels
from nnunet_builtin.preprocessing import restoring
from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_core.contracts.abilities import restores_slabs
from nnunet_core.contracts.predictor import Slabs
from nnunet_core.data.cases import PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.errors import ImageError, PluginError
from nnunet_core.stages.case import CasePredictor, to_segmentation

CLASSES = {"background": 0, **{f"organ {number}": number for number in range(1, 12)}}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
FORWARDS = list(itertools.permutations(range(3)))


def labels_of(count, regions):
    if regions:
        return read_labels({"labels": REGIONS, "regions_class_order": [1, 2, 3]}, "test")
    return read_labels({"labels": dict(list(CLASSES.items())[:count])}, "test")


def geometry_of(prepared, original, forward=(0, 1, 2), above=(0, 0, 0), spacings=None):
    """Return the way back to a crop box of `original` voxels with `above` more before it."""
    file_spacing, prepared_spacing = spacings or ((1, 1, 1), (1, 1, 1))
    box = tuple((start, start + size) for start, size in zip(above, original, strict=True))
    shape = tuple(stop + 1 for _, stop in box)
    return PreparedGeometry(
        Geometry(shape, file_spacing), box, forward, tuple(prepared), prepared_spacing
    )


def cut(values, slices):
    """Return the values as slabs of this many slices."""
    return [values[:, i : i + slices] for i in range(0, values.shape[1], slices)]


def smooth(random, shape, kind):
    """Return probabilities: like those of a network, with classes that are often equal, or 0."""
    logits = random.normal(size=shape)
    for axis in (1, 2, 3):
        logits = logits + np.roll(logits, 1, axis) + np.roll(logits, 2, axis)
    logits *= {"sharp": 8, "flat": 0.1, "equal": 1}[kind]
    if kind == "equal":
        logits = logits.round()
    odds = np.exp(logits - logits.max(0))
    return (odds / odds.sum(0)).astype(np.float32), logits.astype(np.float32)


@st.composite
def problems(draw):
    sizes = st.tuples(*[st.integers(1, 20)] * 3)
    prepared, original, above = draw(sizes), draw(sizes), draw(st.tuples(*[st.integers(0, 2)] * 3))
    spacings = draw(
        st.sampled_from([((1, 1, 1), (1, 1, 1)), ((5, 1, 1), (1, 1, 1)), ((1, 1, 4), (1, 1, 1))])
    )
    if draw(st.booleans()):
        original = prepared
    geometry = geometry_of(prepared, original, draw(st.sampled_from(FORWARDS)), above, spacings)
    regions = draw(st.booleans())
    count = 3 if regions else draw(st.integers(2, 12))
    kind, seed = draw(st.sampled_from(["sharp", "flat", "equal"])), draw(st.integers(0, 2**32 - 1))
    values = smooth(np.random.default_rng(seed), (count, *prepared), kind)
    return geometry, labels_of(count, regions), values, draw(st.integers(1, 20))


@settings(max_examples=150, deadline=None)
@given(
    problems(),
    st.booleans(),
    st.sampled_from([(2, 3, 4), (8, 16, 32)]),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
)
def test_labels_and_probabilities_are_those_of_the_whole(problem, of_logits, block, signs):
    geometry, labels, (probabilities, logits), slices = problem
    turned = replace(geometry.original, direction=tuple(np.diag(signs).ravel().tolist()))
    geometry = replace(geometry, original=turned)
    preprocessor = DefaultPreprocessor(orientation="file" if signs[0] == 1 else "RAS")
    values = "logits" if of_logits else "probabilities"
    array = logits if of_logits else probabilities

    def predict(images):
        return Slabs(array.shape, iter(cut(array, slices)), values)

    case = CasePredictor(predict, preprocessor, labels)
    images = np.zeros((1, *geometry.prepared_shape), np.float32)
    plain = preprocessor.restore(array, geometry)
    found, restored = case(images, geometry)
    inside = (slice(None), *(slice(*sides) for sides in geometry.crop_box))
    expected = Slabs(array.shape, [], values).probabilities(plain[inside], bool(labels.regions))
    np.testing.assert_array_equal(restored[inside], expected)
    outside = restored.copy()
    outside[inside] = 0
    sure = of_logits and not labels.regions  # logits: background with certainty
    assert outside.sum() == sure * (outside[0].size - expected[0].size)
    decisive = restored if labels.regions or not of_logits else plain
    np.testing.assert_array_equal(found, to_segmentation(decisive, labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "_BLOCK", block)
        np.testing.assert_array_equal(case.segment(images, geometry), found)


def test_equal_classes_after_rounding_are_the_first_one():
    # the second class is above the first one at every voxel, but by less than float32 can tell
    # between them: the whole has the first one there
    below = np.full((4, 4, 4), 0.001, np.float32)
    below[::2] = 0.9
    values = np.stack([below, np.nextafter(below, np.float32(1))])
    geometry = geometry_of((4, 4, 4), (7, 9, 5))
    whole = DefaultPreprocessor().restore(values, geometry)
    assert (whole[0] == whole[1])[:7, :9, :5].any()
    found = DefaultPreprocessor().restore_labels(
        Slabs(values.shape, [values]), geometry, labels_of(2, regions=False)
    )
    np.testing.assert_array_equal(found, whole.argmax(0))


def test_most_of_a_case_needs_no_interpolation(monkeypatch):
    computed = []
    plain = restoring.interpolate

    def counting(values, taps):
        found = plain(values, taps)
        computed.append(found.size)
        return found

    monkeypatch.setattr(restoring, "interpolate", counting)
    monkeypatch.setattr(restoring, "_BLOCK", (8, 8, 8))
    centres = np.random.default_rng(0).random((12, 3)) * (24, 48, 48)
    places = np.moveaxis(np.indices((24, 48, 48)), 0, -1)[None]
    logits = -3 * np.linalg.norm(places - centres[:, None, None, None], axis=-1)
    odds = np.exp(logits - logits.max(0))
    values = (odds / odds.sum(0)).astype(np.float32)
    geometry = geometry_of((24, 48, 48), (48, 96, 96))
    slabs = Slabs(values.shape, cut(values, 5))
    DefaultPreprocessor().restore_labels(slabs, geometry, labels_of(12, regions=False))
    assert 0 < sum(computed) < 0.15 * 12 * 48 * 96 * 96


def test_a_subclass_with_another_restore_restores_whole():
    class Upright(DefaultPreprocessor):
        def restore(self, probabilities, geometry):
            return super().restore(probabilities, geometry)[:, ::-1]

    class Other(Upright):
        def restore_labels(self, slabs, geometry, labels):
            return super().restore_labels(slabs, geometry, labels)[::-1]

    class Whole(Other):
        def restore_slabs(self, slabs, geometry):
            yield 0, self.restore(slabs.whole(), geometry)

    class Finer(DefaultPreprocessor):
        def prepare(self, case, configuration, foreground=()):
            return super().prepare(case, configuration, foreground)

    assert restores_slabs(DefaultPreprocessor())
    assert restores_slabs(Finer())
    assert restores_slabs(Upright()) is None
    assert restores_slabs(Other()) is None  # it has one of two
    assert restores_slabs(Whole())
    values, _ = smooth(np.random.default_rng(0), (3, 4, 5, 6), "sharp")
    geometry = geometry_of((4, 5, 6), (8, 9, 7))
    images = np.zeros((1, 4, 5, 6), np.float32)
    labels = labels_of(3, regions=False)
    found = CasePredictor(lambda _: values, Upright(), labels).segment(images, geometry)
    plain = CasePredictor(lambda _: values, DefaultPreprocessor(), labels).segment(images, geometry)
    np.testing.assert_array_equal(found, plain[::-1])
    assert not np.array_equal(found, plain)


def test_whole_arrays_that_would_fill_the_memory_are_one_message():
    class Upright(DefaultPreprocessor):
        def restore(self, probabilities, geometry):
            return super().restore(probabilities, geometry)[:, ::-1]

    geometry = geometry_of((10**4, 10**4, 10**4), (10**4, 10**4, 10**4))
    images = np.broadcast_to(np.float32(0), (1, *geometry.prepared_shape))
    slabs = Slabs((12, *geometry.prepared_shape), [])
    case = CasePredictor(lambda _: slabs, Upright(), labels_of(12, regions=False))
    message = r"Upright restores whole arrays: of 12 classes .* 96\d\d\d GB"
    with pytest.raises(ImageError, match=message):
        case.segment(images, geometry)


def test_slabs_that_are_none_are_the_predictors_fault():
    values = np.full((2, 6, 4, 4), 0.5, np.float32)
    geometry, labels = geometry_of((6, 4, 4), (6, 4, 4)), labels_of(2, regions=False)

    def predict(*parts):
        slabs = Slabs(values.shape, parts)
        case = CasePredictor(lambda _: slabs, DefaultPreprocessor(), labels)
        return case.segment(np.zeros((1, 6, 4, 4), np.float32), geometry)

    assert predict(values[:, :2], values[:, 2:]).shape == geometry.original.shape
    with pytest.raises(PluginError, match="slabs of 4 slices; the case has 6"):
        predict(values[:, :4])
    with pytest.raises(PluginError, match=r"slab of shape \(2, 6, 3, 4\)"):
        predict(values[:, :, :3])
    with pytest.raises(PluginError, match=r"slab of shape \(1, 6, 4, 4\)"):
        predict(values[:1])
    with pytest.raises(PluginError, match="slabs of 8 slices; the case has 6"):
        predict(values, values[:, :2])
