"""Sliding-window prediction: v1's window starts, importance maps and probabilities."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import small_training as small
import torch
from golden_networks import load_golden_network
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.computing import scratch
from nnunet_builtin.computing.devices import resolve
from nnunet_builtin.inference import networks, sliding_window, sums
from nnunet_builtin.inference.networks import probabilities_of
from nnunet_builtin.inference.sliding_window import (
    SlidingWindow,
    gaussian_map,
    predict,
    predict_ensemble,
    predict_slabs,
    window_starts,
)
from nnunet_builtin.inference.sums import Sums
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import TrainingError

FLOAT32 = resolve(Runtime("cpu", "float32"))


@pytest.mark.shared
def test_window_starts_are_those_of_v1(golden):
    for entry in json.loads((golden / "window_starts.json").read_text()):
        assert window_starts(entry["image"], entry["patch"], entry["step"]) == entry["starts"]


@pytest.mark.shared
def test_importance_maps_are_those_of_v1(golden):
    with np.load(golden / "sliding_window.npz") as content:
        names = [name for name in content.files if name.startswith("gaussian_")]
        assert names
        for name in names:
            size = tuple(map(int, name.removeprefix("gaussian_").split("x")))
            np.testing.assert_allclose(gaussian_map(size), content[name], atol=1e-7)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "network", "patch", "voxels"),
    [
        ("larger", "iso3d", (16, 24, 16), 2**16),
        ("smaller_than_patch", "iso3d", (16, 24, 16), 1),
        ("smaller_than_patch", "iso3d", (16, 24, 16), 2**14),
        ("planes", "planes2d", (32, 40), 1),
        ("planes", "planes2d", (32, 40), 2**18),
    ],
)
def test_probabilities_are_those_of_v1(golden, monkeypatch, case, network, patch, voxels):
    monkeypatch.setitem(sliding_window.VOXELS_PER_PASS, "cpu", voxels)
    model, _ = load_golden_network(golden, network)
    model.deep_supervision = False
    with np.load(golden / "sliding_window.npz") as content:
        arrays = {key: content[key] for key in content.files if key.startswith(case)}
    for mirroring, name in ((True, "mirrored"), (False, "plain")):
        expected = arrays.get(f"{case}__softmax_{name}")
        if expected is not None:
            found = predict_ensemble(
                [probabilities_of(model.eval(), FLOAT32)],
                arrays[f"{case}__x"],
                patch,
                FLOAT32,
                mirror_axes=range(len(patch)) if mirroring else (),
            )
            np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.array_equal(
        predict_ensemble(
            [probabilities_of(model, FLOAT32)],
            arrays[f"{case}__x"],
            patch,
            FLOAT32,
            mirror_axes=range(len(patch)),
        ).argmax(0),
        arrays[f"{case}__seg_mirrored"],
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(4, 40), st.integers(0, 100), st.sampled_from([0.25, 0.5, 0.7, 1.0]))
def test_windows_cover_the_image_and_stay_inside(patch, more, step):
    size = patch + more
    (starts,) = window_starts([size], [patch], step)
    covered = np.zeros(size, bool)
    for start in starts:
        assert 0 <= start <= size - patch
        covered[start : start + patch] = True
    assert covered.all()


def test_a_forward_that_only_copies_gives_the_image_back():
    image = np.random.default_rng(0).random((2, 13, 30, 21), np.float32)
    found = predict(lambda tiles: tiles, image, (8, 16, 8), FLOAT32, mirror_axes=(0, 1, 2))
    np.testing.assert_allclose(found, image, atol=1e-5)


def test_folds_are_averaged():
    class Constant(torch.nn.Module):
        def __init__(self, logit):
            super().__init__()
            self.logit = logit

        def forward(self, tiles):
            return torch.cat([tiles * 0, tiles * 0 + self.logit], 1)

    networks = [probabilities_of(Constant(logit), FLOAT32) for logit in (0.0, 100.0)]
    found = predict_ensemble(networks, np.zeros((1, 4, 4, 4), np.float32), (4, 4, 4), FLOAT32)
    np.testing.assert_allclose(found[1], 0.75, atol=1e-6)


def test_every_slice_goes_through_a_network_of_planes_once():
    seen = []

    def forward(tiles):
        seen.append(len(tiles))
        return tiles[:, :1]

    images = np.random.default_rng(0).normal(size=(1, 9, 20, 16)).astype(np.float32)
    found = predict(forward, images, (20, 16), FLOAT32, mirror_axes=(0, 1), step_size=0.25)
    np.testing.assert_allclose(found, images, atol=1e-6)
    assert sum(seen) == 9 * 4


class Mixed(torch.nn.Module):
    """Channels that depend on neighbours, and on the fold."""

    def __init__(self, dimensions, channels, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            convolution = torch.nn.Conv3d if dimensions == 3 else torch.nn.Conv2d
            self.layer = convolution(2, channels, 3, padding=1)

    def forward(self, tiles):
        return self.layer(tiles)


def sums_of_the_whole(forward, padded, patch_size, step):
    """Return weighted sums and weights as v1 has them: window after window, all of the image."""
    patch = (1,) * (3 - len(patch_size)) + patch_size
    starts = window_starts(padded.shape[1:], patch, step)
    if len(patch_size) == 2:
        starts[0] = list(range(padded.shape[1]))
    one = len(starts[1]) * len(starts[2]) * (len(patch_size) == 2 or len(starts[0])) == 1
    weights = torch.ones(patch) if one else torch.from_numpy(gaussian_map(patch_size))
    total, normaliser = 0, torch.zeros(padded.shape[1:])
    for window in itertools.product(*starts):
        part = tuple(slice(s, s + size) for s, size in zip(window, patch, strict=True))
        tile = padded[(slice(None), *part)].reshape(1, 2, *patch_size)
        found = forward(tile)[0].reshape(-1, *patch)
        if isinstance(total, int):
            total = torch.zeros(len(found), *padded.shape[1:])
        total[(slice(None), *part)] += found * weights.reshape(patch)
        normaliser[part] += weights.reshape(patch)
    return total, normaliser


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(8, 20), st.integers(8, 20)),
    st.sampled_from([(8, 8, 8), (4, 10, 8), (8, 12)]),
    st.sampled_from([0.3, 0.5, 1.0]),
    st.integers(1, 3),
    st.sampled_from([1, 5 * 512]),
    st.booleans(),
)
def test_slabs_have_the_bits_of_the_whole(shape, patch, step, folds, voxels, on_disk):
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    modules = [Mixed(len(patch), 3, fold).eval() for fold in range(folds)]

    # tile by tile: what a batch holds may change the last bit of a convolution
    @torch.inference_mode()
    def one_by_one(module, tiles):
        return torch.cat([module(tile[None]).softmax(1) for tile in tiles])

    networks = [lambda tiles, m=module: one_by_one(m, tiles) for module in modules]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sliding_window.VOXELS_PER_PASS, "cpu", voxels)
        patched.setattr(sums, "_SLAB_BYTES", 1 << 13)
        memory_gb = 0.001 if on_disk else 100
        slabs = list(predict_slabs(networks, images, patch, FLOAT32, (), step, memory_gb))
    found = np.concatenate(slabs, axis=1)
    padded, inside = sliding_window._pad(torch.from_numpy(images), (1,) * (3 - len(patch)) + patch)
    expected = None
    with torch.inference_mode():
        for network in networks:
            total, weights = sums_of_the_whole(network, padded, patch, step)
            mean = (total[(slice(None), *inside)] / weights[inside]).numpy()
            expected = mean if expected is None else expected + mean
    np.testing.assert_array_equal(found, expected / folds)
    assert all(slab.shape[1] == 1 or slab.nbytes <= 1 << 13 for slab in slabs)


def test_slices_are_given_out_while_windows_are_still_to_come(monkeypatch):
    monkeypatch.setitem(sliding_window.VOXELS_PER_PASS, "cpu", 1)
    windows = []

    def forward(tiles):
        windows.extend(tiles)
        return tiles[:, :1]

    images = np.zeros((1, 40, 8, 8), np.float32)
    slabs = predict_slabs([forward], images, (8, 8, 8), FLOAT32)
    given_out = [(len(windows), slab.shape[1]) for slab in slabs]
    assert given_out == [(1, 4), (2, 4), (3, 4), (4, 4), (5, 4), (6, 4), (7, 4), (8, 4), (9, 8)]


def test_sums_that_fit_nowhere_are_one_message(monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9))
    with pytest.raises(
        TrainingError, match=r"takes 2\.1 GB .* \(--memory-gb\).* has 1\.0 GB.*TMPDIR"
    ):
        Sums(2, (4, 64, 1024, 1024), memory_gb=0.5)


def test_little_memory_gives_the_same_probabilities(tmp_path, monkeypatch):
    made = []

    class Seen(scratch.Scratch):
        def __init__(self, shape, on_disk):
            made.append(on_disk)
            super().__init__(shape, on_disk)

    monkeypatch.setattr(sums, "Scratch", Seen)
    model = small.make_model(tmp_path, folds=2)
    images = np.random.default_rng(0).normal(size=(1, 19, 14, 9)).astype(np.float32)
    runtime = Runtime("cpu", "float32", memory_gb=0.1)
    plain = SlidingWindow().load(model)(images).whole()
    little = SlidingWindow().load(replace(model, runtime=runtime))(images)
    np.testing.assert_array_equal(little, plain)
    assert made == [False] * 2 + [True] * 2


@pytest.mark.parametrize("regions", [False, True])
def test_probabilities_of_many_classes_are_made_part_by_part_and_the_same(monkeypatch, regions):
    logits = 5 * torch.randn(1, 7, 9, 5, 6).to(memory_format=torch.channels_last_3d)
    forward = probabilities_of(lambda tiles: [logits], FLOAT32, regions)
    expected, sizes = forward(logits), []
    whole = "sigmoid" if regions else "_softmax"
    plain = getattr(torch if regions else networks, whole)

    def part(values):
        sizes.append(values.shape[2])
        return plain(values)

    monkeypatch.setattr(torch if regions else networks, whole, part)
    monkeypatch.setattr(networks, "_VALUES_AT_ONCE", 500)
    found = forward(logits)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # small parts round otherwise
    assert found.is_contiguous(), "as sums are"
    assert sizes == [3, 2, 2, 2]
