"""The page on changing the prediction: its code, written down as a user would, predicts what it
says.
"""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_training as small

from nnunet_builtin.inference.sliding_window import SlidingWindow
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build

PAGE = Path(__file__).parents[2] / "docs/how-to/change-prediction.md"
CODE = re.findall(r'```python title="my_predictors\.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)
IMAGES = np.random.default_rng(0).normal(size=(1, 11, 14, 9)).astype(np.float32)


@pytest.fixture
def predictor(tmp_path, monkeypatch):
    """Return a function that builds a predictor of the page by reference, with settings."""
    (tmp_path / "my_predictors.py").write_text("\n\n".join(CODE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_predictors", raising=False)
    importlib.invalidate_caches()

    def make(name, **settings):
        resolved = Registry().resolve("predictor", f"my_predictors:{name}")
        return build(resolved.with_settings(settings))

    yield make
    sys.modules.pop("my_predictors", None)


def test_mirrored_along_one_axis(predictor, tmp_path):
    model = small.make_model(tmp_path)
    found = predictor("MirroredOnce", axis=1).load(model)(IMAGES)
    one = SlidingWindow().load(replace(model, mirror_axes=(1,)))(IMAGES)
    np.testing.assert_array_equal(found, one)
    assert not np.allclose(found, SlidingWindow().load(model)(IMAGES), atol=1e-4)
    # an axis that training did not mirror is not mirrored
    unmirrored = replace(model, mirror_axes=(0, 2))
    plain = SlidingWindow(mirroring=False).load(model)(IMAGES)
    np.testing.assert_array_equal(predictor("MirroredOnce", axis=1).load(unmirrored)(IMAGES), plain)


@pytest.mark.parametrize("declared", [small.CLASSES, small.REGIONS], ids=["classes", "regions"])
def test_the_median_of_the_folds(predictor, tmp_path, declared):
    model = small.make_model(tmp_path, declared, folds=3)
    found = predictor("MedianOfFolds").load(model)(IMAGES)
    folds = [SlidingWindow().load(replace(model, folds=(fold,)))(IMAGES) for fold in model.folds]
    middle = np.sort(folds, axis=0)[1]
    expected = middle if model.labels.regions else middle / middle.sum(0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found, np.mean(folds, axis=0), atol=1e-4)


def test_what_changes_every_voxel_keeps_the_slabs(predictor, tmp_path):
    model = small.make_model(tmp_path)
    slabs = predictor("Sharpened", power=3).load(model)(IMAGES)
    plain = np.asarray(SlidingWindow().load(model)(IMAGES)) ** 3
    np.testing.assert_allclose(slabs, plain / plain.sum(0), atol=1e-6)


def test_an_augmentation_at_test_time(predictor, tmp_path):
    model = small.make_model(tmp_path)
    plain = SlidingWindow(mirroring=False).load(model)
    same = predictor("Scaled", factors=[1.0]).load(model)(IMAGES)
    np.testing.assert_allclose(same, plain(IMAGES), atol=1e-6)
    scaled = predictor("Scaled").load(model)(IMAGES)
    expected = np.mean([plain(IMAGES * factor) for factor in (0.9, 1.0, 1.1)], axis=0)
    np.testing.assert_allclose(scaled, expected, atol=1e-5)
