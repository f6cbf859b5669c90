"""A network as ONNX computes what it computes here."""

import json
import sys

import numpy as np
import pytest
import torch
from commands import nnunet
from finished_run import one_error
from small_training import make_runtime
from trained_model import make_trained

from nnunet_builtin.computing.devices import resolve
from nnunet_builtin.inference.networks import load_networks
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.sharing import onnx_export
from nnunet_core.contracts.predictor import TrainedModel

onnxruntime = pytest.importorskip("onnxruntime")


def softmax_here(model, fold, images):
    """Return what the predictor's network, with its layers for CPUs, makes of images."""
    document = model.document
    trained = TrainedModel(
        folds=(model.fold_folder(fold),),
        configuration=document.configuration,
        labels=document.labels,
        network=PlainUNet(),
        runtime=make_runtime(),
        mirror_axes=document.mirror_axes,
    )
    (forward,) = load_networks(trained, resolve(make_runtime()))
    return forward(torch.from_numpy(images)).numpy()


@pytest.mark.slow
def test_onnxruntime_computes_what_the_predictor_computes(tmp_path):
    model, file = make_trained(tmp_path / "results"), tmp_path / "a.onnx"
    done = nnunet("models", "onnx", model.folder, file, "--fold", "1")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.onnx"]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape, images.type) == ("images", [1, 1, 8, 8, 8], "tensor(float)")
    assert (logits.name, logits.shape) == ("logits", [1, 3, 8, 8, 8])
    patch = np.random.default_rng(1).normal(0, 1, (1, 1, 8, 8, 8)).astype(np.float32)
    (found,) = session.run(None, {"images": patch})
    softmax = np.exp(found) / np.exp(found).sum(1, keepdims=True)
    np.testing.assert_allclose(softmax, softmax_here(model, "1", patch), atol=1e-5)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["nnunet"])
    assert facts["channels"] == ["MRI"]
    assert facts["patch_size"] == [8, 8, 8]
    assert facts["normalization"][0]["scheme"] == "zscore"
    assert str(tmp_path) not in file.read_bytes().decode("latin-1")


@pytest.mark.slow
def test_a_network_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    model, plain = make_trained(tmp_path / "results", folds=("0",)), onnx_export._convert

    def wrong(network, images, path):
        plain(network, images, path)
        with torch.no_grad():
            next(network.parameters()).add_(1)

    monkeypatch.setattr(onnx_export, "_convert", wrong)
    message = one_error(nnunet("models", "onnx", model.folder, tmp_path / "a.onnx"))
    assert "differs" in message
    assert not (tmp_path / "a.onnx").exists()


def test_a_fold_has_to_be_chosen(tmp_path):
    model = make_trained(tmp_path / "results")
    assert "--fold" in one_error(nnunet("models", "onnx", model.folder, tmp_path / "a.onnx"), 2)
    one_error(nnunet("models", "onnx", model.folder, tmp_path / "a.onnx", "--fold", "7"), 2)
    one_error(nnunet("models", "onnx", model.folder, tmp_path / "a.zip", "--fold", "0"), 2)


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    model = make_trained(tmp_path / "results", folds=("0",))
    message = one_error(nnunet("models", "onnx", model.folder, tmp_path / "a.onnx"), 2)
    assert "nnunet-core[onnx]" in message
