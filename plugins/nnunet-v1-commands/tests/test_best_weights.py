"""`nnUNet_predict -chk model_best`: the best weights of a training predict, not the final ones."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_model import make_tiny_model

import nnunet_core
from nnunet_core.errors import UsageError
from nnunet_core.store.models import Model
from nnunet_v1_commands.predicting import _with_best_weights


def probabilities(folder, array):
    with nnunet_core.load_model(folder, "cpu", precision="float32", threads=1) as model:
        return model.predict(array, (1.5, 1.0, 1.0), probabilities=True)[1]


def test_the_best_weights_predict_and_the_model_stays_as_it_is(tmp_path):
    quick = {"settings": {"mirroring": False}, "folds": 2}
    model = make_tiny_model(tmp_path / "a" / "3d_fullres", **quick)
    refused = pytest.raises(UsageError, match=r"no weights_best\.safetensors")
    with refused, _with_best_weights(model):
        pass
    weights = load_file(model / "fold_1" / "weights.safetensors")
    changed = {name: np.ascontiguousarray(value[::-1]) for name, value in weights.items()}
    save_file(changed, model / "fold_1" / "weights_best.safetensors")
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    array = np.random.default_rng(0).normal(100, 20, (12, 15, 11)).astype(np.float32)
    with _with_best_weights(model) as best:
        assert Model.open(best).trained().keys() == {"1"}
        found = probabilities(best, array)
    assert not best.exists()
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before
    # the same weights as final ones
    save_file(changed, model / "fold_1" / "weights.safetensors")
    record = json.loads((model / "fold_1" / "run.json").read_text())
    with _with_best_weights(model) as best:
        record["weights"] = json.loads((best / "fold_1" / "run.json").read_text())["weights"]
    (model / "fold_1" / "run.json").write_text(json.dumps(record))
    with nnunet_core.load_model(model, "cpu", precision="float32", threads=1, folds="1") as final:
        expected = final.predict(array, (1.5, 1.0, 1.0), probabilities=True)[1]
    np.testing.assert_array_equal(found, expected)
