"""An ensemble of an inference.json takes what a single model takes: parts, uncertainty, a
temperature, DICOM SEG; its images beside label maps are those of the mean.
"""

import json
import shutil

import numpy as np
import pytest
from dicom_files import write_series
from tiny_model import make_tiny_model

from nnunet_builtin.dicom.segmentation import read_segmentation
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core import read_probabilities
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.images import Geometry
from nnunet_core.errors import NnunetError, UsageError
from nnunet_core.prediction.infer import predict_inference, predict_inference_file
from nnunet_core.prediction.predict import PredictionOptions, predict_folder
from nnunet_core.prediction.uncertainty import entropy
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.calibration import CalibrationRecord, tempered
from nnunet_core.store.inference import InferenceDocument, member_record
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.predictions import Part

FORMAT = SimpleItkFormat()
GRID = Geometry((9, 12, 10), (1.5, 1.0, 0.8), (5.0, -7.0, 11.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
CASES = ["a", "b", "c"]
SETTINGS = {"2d": {"low": -1.0, "other": 0.1}, "3d_fullres": {"low": 0.5, "other": 0.4}}
TEMPERATURES = {"2d": 2.0, "3d_fullres": 0.5}


@pytest.fixture(scope="module")
def inference(tmp_path_factory):
    """Two models that label other voxels, and their inference.json."""
    results = tmp_path_factory.mktemp("results") / "Dataset001_Tiny"
    models = []
    for name, settings in SETTINGS.items():
        folder = results / "default" / name
        make_tiny_model(folder, folds=1, predictor="bright:Bright", settings=settings)
        calibrate(Model.open(folder), TEMPERATURES[name])
        models.append(Model.open(folder))
    path = results / "inference.json"
    members = tuple(member_record(model, ("0",), results) for model in models)
    InferenceDocument(dataset="Dataset001_Tiny", members=members, postprocessing=None).write(path)
    return path


def calibrate(model, temperature):
    numbers = dict.fromkeys(("error_before", "error_after", "loss_before", "loss_after"), 0.0)
    weights = weights_digests(model.folds())
    CalibrationRecord(temperature=temperature, cases=1, voxels=1, weights=weights, **numbers).write(
        model.folder / "calibration.json"
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(CASES):
        array = np.random.default_rng(seed).normal(100, 20, GRID.shape).astype(np.float32)
        FORMAT.write(place / f"{name}_0000.nii.gz", array, GRID)
    return place


@pytest.fixture(scope="module")
def members(inference, images, tmp_path_factory):
    """{case: float32 probabilities of each model}, predicted one by one."""
    found = {name: [] for name in CASES}
    for name in SETTINGS:
        out = tmp_path_factory.mktemp(name)
        model = Model.open(inference.parent / "default" / name, trusted=True)
        predict_folder(model, images, out, Registry.discover(), options(save_probabilities=True))
        for case in CASES:
            found[case].append(read_probabilities(out / f"{case}.b2nd").astype(np.float32))
    return found


def options(**changes):
    return PredictionOptions(
        runtime=Runtime("cpu", "float32", 0, 1), **{"postprocess": False, **changes}
    )


def predict(path, source, output, **changes):
    return predict_inference(
        path, source, output, Registry.discover(), options(**changes), trusted=True
    )


def label(path):
    return FORMAT.read(path).array[0]


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_maps_beside_label_maps_are_those_of_the_mean(inference, images, members, tmp_path):
    out = tmp_path / "out"
    predict(inference, images, out, entropy=True, disagreement=True, save_probabilities=True)
    for case in CASES:
        mean = np.mean(members[case], axis=0)
        labels = mean.argmax(0)
        np.testing.assert_array_equal(label(out / f"{case}.nii.gz"), labels)
        stored = read_probabilities(out / f"{case}.b2nd")
        np.testing.assert_allclose(stored, mean, atol=1e-3)
        sure = label(out / "entropy" / f"{case}.nii.gz")
        np.testing.assert_allclose(sure, entropy(mean, False), atol=1e-5)
        share = np.mean([each.argmax(0) != labels for each in members[case]], axis=0)
        assert 0 < share.mean() < 1
        np.testing.assert_allclose(label(out / "disagreement" / f"{case}.nii.gz"), share)
    assert not (out / "members").exists()


def test_a_temperature_changes_probabilities_and_no_label(inference, images, members, tmp_path):
    predict(inference, images, tmp_path / "raw")
    out = tmp_path / "out"
    predict(inference, images, out, calibrated=True, entropy=True, save_probabilities=True)
    for case in CASES:
        name = f"{case}.nii.gz"
        np.testing.assert_array_equal(label(out / name), label(tmp_path / "raw" / name))
        pairs = zip(members[case], TEMPERATURES.values(), strict=True)
        mean = np.mean([tempered(each, number, False) for each, number in pairs], axis=0)
        np.testing.assert_allclose(read_probabilities(out / f"{case}.b2nd"), mean, atol=1e-3)
        np.testing.assert_allclose(label(out / "entropy" / name), entropy(mean, False), atol=1e-5)
    record = json.loads((out / "predictions.json").read_text())
    assert record["temperature"] == list(TEMPERATURES.values())
    predict(inference, images, out, calibrated=True, entropy=True, save_probabilities=True)
    with pytest.raises(UsageError, match="--overwrite"):
        predict(inference, images, out)


def test_a_model_without_temperature_is_named_before_anything_is_made(images, inference, tmp_path):
    results = shutil.copytree(inference.parent, tmp_path / "results" / "Dataset001_Tiny")
    (results / "default" / "2d" / "calibration.json").unlink()
    with pytest.raises(UsageError, match=r"default/2d\. Run: nnunet models calibrate"):
        predict(results / "inference.json", images, tmp_path / "out", calibrated=True)
    assert not (tmp_path / "out").exists()


def test_parts_make_what_one_prediction_makes(inference, images, tmp_path):
    predict(inference, images, tmp_path / "whole", entropy=True)
    out = tmp_path / "parts"
    assert [p.name for p in predict(inference, images, out, entropy=True, part=Part(2, 2))] == [
        "b.nii.gz"
    ]
    assert sorted(p.name for p in out.glob("*.nii.gz")) == ["b.nii.gz"]
    assert (out / "members").is_dir(), "other parts may be writing there"
    predict(inference, images, out, entropy=True, part=Part(1, 2))
    assert tree(out) == tree(tmp_path / "whole")
    predict(inference, images, out, entropy=True, part=Part(1, 2))
    assert tree(out) == tree(tmp_path / "whole")


def test_a_case_that_fails_leaves_the_others_of_its_part(inference, images, tmp_path):
    here = shutil.copytree(images, tmp_path / "images")
    (here / "c_0000.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    with pytest.raises(NnunetError, match="c: "):
        predict(inference, here, out, part=Part(1, 2))
    assert [p.name for p in out.glob("*.nii.gz")] == ["a.nii.gz"]
    shutil.copy(images / "c_0000.nii.gz", here)
    predict(inference, here, out, part=Part(1, 2))
    predict(inference, here, out, part=Part(2, 2))
    predict(inference, images, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


def test_one_file_keeps_what_lies_beside_it(inference, images, tmp_path):
    source, output = images / "a_0000.nii.gz", tmp_path / "one.nrrd"
    asked = options(entropy=True, save_probabilities=True)
    where = (source, output, Registry.discover(), asked)
    predict_inference_file(inference, *where, report=Silence(), trusted=True)
    names = {str(path) for path in tree(tmp_path)}
    assert names == {"one.nrrd", "one.b2nd", "entropy/one.nii.gz", ".one.nrrd.json"}
    before = tree(tmp_path)
    predict_inference_file(inference, *where, report=Silence(), trusted=True)
    assert tree(tmp_path) == before
    other = (images / "b_0000.nii.gz", output, Registry.discover(), asked)
    with pytest.raises(UsageError, match="exists already"):
        predict_inference_file(inference, *other, report=Silence(), trusted=True)
    with pytest.raises(UsageError, match="would replace its image"):
        predict_inference_file(
            inference,
            *(source, source, Registry.discover(), options(overwrite=True), Silence(), True),
        )


def test_dicom_series_give_dicom_seg(inference, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("p1", "p2"):
        write_series(tmp_path / "series" / name, rng.integers(500, 900, (5, 6, 7)))
    predict(inference, tmp_path / "series", tmp_path / "nifti")
    predict(inference, tmp_path / "series", tmp_path / "dicom", ending=".dcm", entropy=True)
    for name in ("p1", "p2"):
        expected = FORMAT.read(tmp_path / "nifti" / f"{name}.nii.gz")
        found = read_segmentation(tmp_path / "dicom" / f"{name}.dcm", expected.geometry)
        np.testing.assert_array_equal(found, expected.array[0])
        assert found.any()
