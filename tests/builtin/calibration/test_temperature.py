"""A temperature: found where it is known, used and recorded where it is asked for."""

import json

import numpy as np
import pytest
from commands import nnunet
from finished_run import QUICK, one_error
from tiny_model import make_tiny_model

import nnunet_core
from nnunet_builtin.calibration.temperature import calibration_error, fit
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.store.calibration import tempered
from nnunet_core.store.probabilities import write_probabilities
from nnunet_core.store.summaries import Summary

FORMAT = SimpleItkFormat()
CLASSES = Labels.from_names({"background": 0, "a": 1, "b": 2})
REGIONS = Labels.from_names({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])


def classes(factor, count=40_000):
    """Return probabilities of three classes that are `factor` times too sure, and what is true."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, count))
    right = np.exp(logits) / np.exp(logits).sum(axis=0)
    truth = (rng.random(count) > right.cumsum(axis=0)).sum(axis=0)
    sure = np.exp(factor * logits)
    return (sure / sure.sum(axis=0)).astype(np.float32), np.minimum(truth, 2)


def regions(factor, count=40_000):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, count))
    truth = rng.random((2, count)) < 1 / (1 + np.exp(-logits))
    return (1 / (1 + np.exp(-factor * logits))).astype(np.float32), truth


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    ("drawn", "labels"), [(classes, CLASSES), (regions, REGIONS)], ids=["classes", "regions"]
)
def test_the_temperature_is_found_and_makes_the_model_as_sure_as_it_is_right(drawn, labels, factor):
    record = fit(*drawn(factor), labels)
    assert record.temperature == pytest.approx(factor, rel=0.05)
    assert record.error_after < 0.015
    assert record.loss_after <= record.loss_before
    if factor != 1:
        assert record.error_before > 3 * record.error_after


def test_the_calibration_error_of_known_cases():
    sure = np.array([[0.9] * 10, [0.1] * 10], np.float32)
    assert calibration_error(sure, np.array([0] * 9 + [1]), False) == pytest.approx(0, abs=1e-6)
    assert calibration_error(sure, np.array([0] * 5 + [1] * 5), False) == pytest.approx(0.4)
    outside = np.zeros((1, 4), np.float32)
    assert calibration_error(outside, np.array([[False] * 3 + [True]]), True) == pytest.approx(0.25)


def test_tempering_keeps_the_winner_the_sum_and_what_nobody_saw():
    probabilities, _ = classes(2.0, 200)
    probabilities[:, 0] = 0
    found = tempered(probabilities, 2.5, False)
    np.testing.assert_array_equal(found.argmax(axis=0), probabilities.argmax(axis=0))
    np.testing.assert_allclose(found[:, 1:].sum(axis=0), 1, rtol=1e-5)
    assert not found[:, 0].any()
    np.testing.assert_allclose(tempered(probabilities, 1.0, False), probabilities, atol=1e-6)
    both, _ = regions(2.0, 200)
    np.testing.assert_array_equal(tempered(both, 3.0, True) > 0.5, both > 0.5)


@pytest.fixture
def model(tmp_path):
    """A model whose validation cases are 4 times too sure."""
    folder = make_tiny_model(tmp_path / "3d_fullres", predictor="bright:Bright", folds=2)
    for fold in range(2):
        validation = folder / f"fold_{fold}" / "validation"
        probabilities, truth = classes(4.0, 20 * 40 * 30)
        shape = (20, 40, 30)
        label = truth.reshape(shape).astype(np.uint8)
        reference = tmp_path / f"case_{fold}.nii.gz"
        FORMAT.write(reference, label, Geometry(shape))
        write_probabilities(validation / f"case_{fold}.b2nd", probabilities.reshape(3, *shape))
        # of a folder that was moved since
        row = {"test": f"/elsewhere/case_{fold}.nii.gz", "reference": str(reference)}
        results = {"all": [row], "mean": {}}
        summary = {"id": "", "author": "", "description": "", "name": "", "task": ""}
        Summary(**summary, timestamp="", results=results).write(validation / "summary.json")
    return folder


def predict(model, *words):
    return nnunet("predict", model, *words, "--trust", "--no-postprocessing", *QUICK)


def test_a_fitted_temperature_is_used_and_recorded_when_it_is_asked_for(model, tmp_path):
    image = np.random.default_rng(0).normal(100, 20, (9, 12, 10)).astype(np.float32)
    FORMAT.write(tmp_path / "scan.nii.gz", image, Geometry(image.shape))
    save = ("--save-probabilities", "--entropy")
    asked = (tmp_path / "scan.nii.gz", tmp_path / "calibrated", *save, "--calibrated")
    assert "nnunet models calibrate" in one_error(predict(model, *asked), code=2)
    done = nnunet("models", "calibrate", model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("temperature 3.9") or done.stdout.startswith("temperature 4.0")
    assert "(2 cases, 48000 voxels)" in done.stdout
    temperature = json.loads((model / "calibration.json").read_text())["temperature"]
    assert predict(model, *asked).returncode == 0
    plain = (tmp_path / "scan.nii.gz", tmp_path / "plain", *save)
    assert predict(model, *plain).returncode == 0
    records = [
        json.loads((tmp_path / name / "predictions.json").read_text())
        for name in ("calibrated", "plain")
    ]
    assert [record["temperature"] for record in records] == [temperature, None]
    assert records[0]["identity"] != records[1]["identity"]
    labels = [(tmp_path / n / "scan.nii.gz").read_bytes() for n in ("calibrated", "plain")]
    assert labels[0] == labels[1]
    found, before = (
        nnunet_core.read_probabilities(tmp_path / n / "scan.b2nd") for n in ("calibrated", "plain")
    )
    np.testing.assert_allclose(found, tempered(before, temperature, False), atol=2e-3)
    unsure, sure = (
        FORMAT.read(tmp_path / n / "entropy/scan.nii.gz").array.mean()
        for n in ("calibrated", "plain")
    )
    assert unsure > sure


def test_what_cannot_be_calibrated_says_what_to_run(model):
    path = model / "fold_1/validation/case_1.b2nd"
    path.unlink()
    message = one_error(nnunet("models", "calibrate", model), code=2)
    assert "nnunet validate Dataset001_Tiny --save-probabilities" in message
    assert not (model / "calibration.json").exists()
    write_probabilities(path, np.ones((3, 2, 2, 2), np.float32))
    assert "shape" in one_error(nnunet("models", "calibrate", model))


def test_an_imported_model_is_not_told_to_validate(tmp_path):
    folder = make_tiny_model(tmp_path / "3d_fullres", folds=1)
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**document, "origin": "nnU-Net v2"}))
    message = one_error(nnunet("models", "calibrate", folder), code=2)
    assert "was imported or installed" in message
    assert "validate " not in message
