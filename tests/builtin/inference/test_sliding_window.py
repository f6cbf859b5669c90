"""Sliding-window prediction: v1's window starts, importance maps and probabilities."""

import json

import numpy as np
import pytest
import torch
from golden_networks import load_golden_network
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.computing.devices import resolve
from nnunet_builtin.inference import sliding_window
from nnunet_builtin.inference.networks import probabilities_of
from nnunet_builtin.inference.sliding_window import (
    gaussian_map,
    predict,
    predict_ensemble,
    window_starts,
)
from nnunet_core.contracts.trainer import Runtime

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
