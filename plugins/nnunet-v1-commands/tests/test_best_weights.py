"""`nnUNet_predict -chk model_best` and `nnUNet_train -val --valbest`: the best weights of a
training predict, not the final ones.
"""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_dataset import make_tiny
from tiny_model import make_tiny_model

import nnunet_core
from nnunet_core.errors import UsageError
from nnunet_core.store.models import Model
from nnunet_v1_commands import running, training
from nnunet_v1_commands.predicting import with_best_weights


def probabilities(folder, array):
    with nnunet_core.load_model(folder, "cpu", precision="float32", threads=1) as model:
        return model.predict(array, (1.5, 1.0, 1.0), probabilities=True)[1]


def test_the_best_weights_predict_and_the_model_stays_as_it_is(tmp_path):
    quick = {"settings": {"mirroring": False}, "folds": 2}
    model = make_tiny_model(tmp_path / "a" / "3d_fullres", **quick)
    refused = pytest.raises(UsageError, match=r"no weights_best\.safetensors")
    with refused, with_best_weights(model):
        pass
    weights = load_file(model / "fold_1" / "weights.safetensors")
    changed = {name: np.ascontiguousarray(value[::-1]) for name, value in weights.items()}
    save_file(changed, model / "fold_1" / "weights_best.safetensors")
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    array = np.random.default_rng(0).normal(100, 20, (12, 15, 11)).astype(np.float32)
    with with_best_weights(model) as best:
        assert Model.open(best).trained().keys() == {"1"}
        found = probabilities(best, array)
    assert not best.exists()
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    # the same weights as final ones
    save_file(changed, model / "fold_1" / "weights.safetensors")
    record = json.loads((model / "fold_1" / "run.json").read_text())
    with with_best_weights(model) as best:
        record["weights"] = json.loads((best / "fold_1" / "run.json").read_text())["weights"]
    (model / "fold_1" / "run.json").write_text(json.dumps(record))
    with nnunet_core.load_model(model, "cpu", precision="float32", threads=1, folds="1") as final:
        expected = final.predict(array, (1.5, 1.0, 1.0), probabilities=True)[1]
    np.testing.assert_array_equal(found, expected)


def test_validation_with_the_best_weights_is_beside_that_with_the_final_ones(
    tmp_path, monkeypatch, capsys
):
    task, trainer = "Task004_Tiny", "nnUNetTrainerV2__nnUNetPlansv2.1"
    for variable in (running.RAW, running.PREPROCESSED, running.RESULTS):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    raw = make_tiny(tmp_path / running.RAW / "nnUNet_raw_data" / task, cases=3)
    declared = json.loads((raw / "dataset.json").read_text())
    declared["labels"]["ball"] = 2
    (raw / "dataset.json").write_text(json.dumps(declared))
    model = make_tiny_model(tmp_path / running.RESULTS / task / trainer / "3d_fullres", folds=1)
    flags = ["3d_fullres", "nnUNetTrainerV2", "4", "0", "-val", "--valbest", "--fp32"]

    def refused():
        with pytest.raises(SystemExit) as end:
            training.train(flags)
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "has no validation. Train it first" in refused()
    validation = model / "fold_0" / "validation"
    validation.mkdir()
    shutil.copy(raw / "labelsTr" / "case_1.nii.gz", validation)
    assert "no weights_best.safetensors" in refused()
    shutil.copy(
        model / "fold_0" / "weights.safetensors", model / "fold_0" / "weights_best.safetensors"
    )
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    for _ in range(2):
        training.train(flags)
        folder = tmp_path / running.RESULTS / "nnUNet" / "3d_fullres" / task / trainer / "fold_0"
        summary = json.loads((folder / "validation_best" / "summary.json").read_text())
        assert set(summary["results"]["mean"]) == {"0", "1", "2"}
        assert len(summary["results"]["all"]) == 1
        assert (folder / "validation_best" / "case_1.nii.gz").is_file()
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
