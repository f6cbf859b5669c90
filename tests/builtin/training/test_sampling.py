"""Patches: where they lie, what is around the volume, how often foreground is in their centre."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_builtin.training.sampling import PatchSampler, start_range
from nnunet_core.data.cases import PreparedCase, PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.errors import StorageError, TrainingError
from nnunet_core.store.prepared import PreparedStore

SIZES = st.integers(1, 60)


def configuration(patch) -> Configuration:
    dimensions = len(patch)
    return Configuration(
        preprocessor="default",
        transpose_forward=(0, 1, 2),
        spacing=(1, 1, 1),
        median_shape=(30, 30, 30),
        patch_size=patch,
        batch_size=2,
        network=NetworkSpec(
            dimensions=dimensions,
            input_channels=3,
            output_channels=3,
            pool_kernels=(),
            conv_kernels=((3,) * dimensions,),
        ),
        dummy_2d_augmentation=False,
        batch_dice=False,
        normalization=(Normalization(scheme="none"),) * 3,
    )


class Recorder:
    """An array that remembers how many voxels were read."""

    def __init__(self, array):
        self.array, self.shape, self.read = array, array.shape, 0

    def __getitem__(self, index):
        self.read += self.array[index].size
        return self.array[index]


@dataclass
class CaseInMemory:
    """What the sampler sees of a stored case."""

    images: Recorder
    label: Recorder
    class_locations: dict
    spatial_shape: tuple
    arrays: dict = field(default_factory=dict)
    like: dict = field(default_factory=dict)


class Cases(dict):
    """A store in memory. The channels of a case hold each voxel's own coordinates plus 1, so that 0
    is outside.
    """

    def add(self, shape, locations=None, name="case"):
        images = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32) + 1
        label = np.zeros(shape, np.int8)
        found = {
            value: np.array(voxels, int).reshape(-1, 3)
            for value, voxels in (locations or {}).items()
        }
        for value, voxels in found.items():
            label[tuple(voxels.T)] = value
        self[name] = CaseInMemory(Recorder(images), Recorder(label), found, shape)
        return self

    def open(self, name):
        return self[name]


class Counted(Cases):
    """A store that counts how often cases are opened."""

    opened = 0

    def open(self, name):
        self.opened += 1
        return self[name]


class LabelMaps(Cases):
    """The label maps of these cases, as a stage before would have found them."""

    def open(self, name):
        return self[name].label.array


def draw(cases, patch, network=None, *, batch=200, share=0.0, seed=0):
    sampler = PatchSampler(
        cases, tuple(cases), configuration(network or patch), batch, share, (1, 2, 7)
    )
    return sampler.draw(np.random.default_rng(seed), patch)


def starts(batch) -> np.ndarray:
    """Return the first voxel (B, 3) of every patch, from the coordinates that its voxels hold."""
    images = batch["images"]
    axes = images.ndim - 2
    result = []
    for sample in images:
        inside = np.argwhere(sample[-1] > 0)[0]
        coordinates = sample[(slice(None), *inside)] - 1
        coordinates[-axes:] -= inside
        result.append(coordinates)
    return np.array(result, int)


@pytest.mark.parametrize(
    ("batch", "forced"),
    [
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 2),
        (6, 2),
        (8, 3),
        (9, 3),
        (12, 4),
        (16, 5),
        (32, 11),
        (50, 16),
        (366, 121),
    ],
)
def test_forced_foreground_of_a_batch(batch, forced):
    cases = Cases().add((60, 60, 60), {1: [30, 30, 30]})
    drawn = draw(cases, (3, 3, 3), batch=batch, share=0.33)
    centred = (starts(drawn) == 29).all(1)
    np.testing.assert_array_equal(centred, np.arange(batch) >= batch - forced)


@given(volume=SIZES, network=SIZES, more=st.integers(0, 40))
def test_start_range_is_the_specified_one(volume, network, more):
    patch = network + more
    pad = patch - network
    if pad + volume < patch:
        pad = patch - volume
    low, high = start_range(volume, patch, network)
    assert (low, high) == ((-pad) // 2, volume + (pad // 2 + pad % 2) - patch)
    assert low <= high
    assert low + patch > 0
    assert high < volume


def test_free_patches_start_anywhere_in_the_range():
    cases = Cases().add((12, 9, 4))
    first = starts(draw(cases, (9, 6, 6), (6, 6, 6), batch=500))
    for axis, (volume, patch, network) in enumerate([(12, 9, 6), (9, 6, 6), (4, 6, 6)]):
        low, high = start_range(volume, patch, network)
        values, counts = np.unique(first[:, axis], return_counts=True)
        np.testing.assert_array_equal(values, np.arange(low, high + 1))
        assert counts.min() > 0.6 * counts.mean()


def test_forced_patches_have_the_voxel_in_their_centre_but_start_no_lower_than_free_ones():
    for voxel in [(0, 0, 0), (15, 15, 15), (19, 19, 19)]:
        first = starts(
            draw(Cases().add((20, 20, 20), {2: [voxel]}), (9, 8, 8), (7, 8, 8), share=1.0, batch=1)
        )
        np.testing.assert_array_equal(first, [np.maximum((-1, 0, 0), np.array(voxel) - 4)])


@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    planes=st.booleans(),
    share=st.sampled_from([0.0, 1.0]),
)
def test_patches_of_small_volumes_are_padded(shape, planes, share):
    patch = (7, 9) if planes else (7, 9, 6)
    cases = Cases().add(shape, {1: [tuple(n - 1 for n in shape)]})
    batch = draw(cases, patch, batch=3, share=share)
    assert batch["images"].shape == (3, 3, *patch)
    assert batch["label"].shape == (3, 1, *patch)
    assert batch["images"].dtype == np.float32
    assert batch["label"].dtype == np.int16
    outside = batch["label"][:, 0] == -1
    assert (batch["images"].transpose(1, 0, *range(2, batch["images"].ndim))[:, outside] == 0).all()
    for axis, first in enumerate(starts(batch).T):
        assert (first < shape[axis]).all()
    volume = shape[-len(patch) :]
    if all(n <= p for n, p in zip(volume, patch, strict=True)) and share == 0:
        assert ((~outside).reshape(3, -1).sum(1) == np.prod(volume)).all()


def test_classes_are_equally_likely_however_large_and_empty_ones_are_not_drawn():
    large = [(z, y, 2) for z in range(10) for y in range(10)]
    cases = Cases().add((20, 20, 20), {1: large, 2: [(18, 18, 18)], 7: []})
    batch = draw(cases, (3, 3, 3), share=1.0, batch=1000)
    centres = batch["label"][:, 0, 1, 1, 1]
    assert set(centres) <= {1, 2, 0}
    assert 0.45 < (batch["label"] == 2).any((1, 2, 3, 4)).mean() < 0.55


def test_cases_without_foreground_are_drawn_freely():
    for locations in ({}, {1: []}, {5: [(9, 9, 9)]}):  # 5 is not asked for
        first = starts(draw(Cases().add((10, 10, 10), locations), (3, 3, 3), share=1.0))
        np.testing.assert_array_equal(first.min(0), 0)
        np.testing.assert_array_equal(first.max(0), 7)


def test_slices_with_foreground_are_equally_likely_however_much_they_hold():
    many = [(2, y, x) for y in range(10) for x in range(10)]
    cases = Cases().add((9, 20, 20), {1: [*many, (5, 15, 12)]})
    first = starts(draw(cases, (4, 4), share=1.0, batch=1000))
    assert set(first[:, 0]) == {2, 5}
    assert 0.45 < (first[:, 0] == 5).mean() < 0.55
    np.testing.assert_array_equal(np.unique(first[first[:, 0] == 5, 1:], axis=0), [[13, 10]])


def test_free_slices_are_equally_likely():
    first = starts(draw(Cases().add((5, 6, 6), {1: [(2, 2, 2)]}), (4, 4), batch=1000))
    counts = np.bincount(first[:, 0], minlength=5)
    assert counts.min() > 150


def test_cases_are_drawn_with_replacement():
    cases = Cases().add((4, 4, 4), name="a").add((4, 4, 4), name="b")
    names = draw(cases, (4, 4, 4), batch=1000)["names"]
    assert 0.45 < names.count("a") / 1000 < 0.55


def test_only_what_the_patch_covers_is_read():
    cases = Cases().add((50, 50, 50), {1: [(49, 49, 49)]})
    draw(cases, (8, 8, 8), share=1.0, batch=1)
    assert cases["case"].images.read == 3 * 5**3
    assert cases["case"].label.read == 5**3


def test_equal_generators_draw_equal_batches():
    cases = Cases().add((20, 20, 20), {1: [(3, 3, 3)], 2: [(9, 9, 9)]})
    first, second, other = (
        draw(cases, (8, 8, 8), share=0.33, batch=6, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["images"], second["images"])
    assert not np.array_equal(first["images"], other["images"])


def test_patches_of_stored_cases(tmp_path):
    store = PreparedStore(tmp_path)
    random = np.random.default_rng(0)
    images = random.normal(size=(1, 6, 7, 8)).astype(np.float32)
    label = random.integers(-1, 3, (6, 7, 8)).astype(np.int8)
    geometry = PreparedGeometry(
        Geometry((6, 7, 8)), ((0, 6), (0, 7), (0, 8)), (0, 1, 2), (6, 7, 8), (1.0, 1.0, 1.0)
    )
    store.write(
        PreparedCase("a", images, label, geometry, {1: np.argwhere(label == 1)}), "key", (6, 7, 8)
    )
    sampler = PatchSampler(store, ("a",), configuration((6, 7, 8)), 2, 0.33, (1, 2))
    batch = sampler.draw(random, (6, 7, 8))
    np.testing.assert_array_equal(batch["images"][0], images)
    np.testing.assert_array_equal(batch["label"][0, 0], label)
    copy = pickle.loads(pickle.dumps(sampler))  # open files do not travel
    np.testing.assert_array_equal(copy.draw(random, (6, 7, 8))["images"][0], images)


def test_few_cases_stay_open(tmp_path):
    cases = Counted()
    for name in range(100):
        cases.add((2, 2, 2), name=str(name))
    sampler = PatchSampler(cases, tuple(cases), configuration((2, 2, 2)), 500)
    sampler.draw(np.random.default_rng(0), (2, 2, 2))
    assert 300 < cases.opened < 400  # 32 of 100 stay open


def test_what_cannot_be_drawn_is_an_error(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(TrainingError, match="no case"):
        PatchSampler(PreparedStore(tmp_path), (), configuration((2, 2, 2)), 2).draw(rng, (2, 2, 2))
    with pytest.raises(StorageError, match="liver_7"):
        PatchSampler(PreparedStore(tmp_path), ("liver_7",), configuration((2, 2, 2)), 2).draw(
            rng, (2, 2, 2)
        )


@pytest.mark.parametrize("patch", [(5, 6, 7), (6, 7)])
def test_the_previous_stage_is_cut_where_the_label_is(patch):
    shape = (9, 12, 11)
    foreground = {1: [(2, 3, 4), (8, 11, 10)], 2: [(0, 0, 0)]}
    cases = Cases().add(shape, foreground)
    previous = LabelMaps(cases)
    sampler = PatchSampler(cases, tuple(cases), configuration(patch), 60, 0.5, (1, 2, 7), previous)
    batch = sampler.draw(np.random.default_rng(0), patch)
    assert batch["previous"].dtype == np.int16
    np.testing.assert_array_equal(batch["previous"], np.maximum(batch["label"], 0))
    assert set(np.unique(batch["previous"])) == {0, 1, 2}
