"""Names of tensors in v1's and v2's state dicts: real models of both load, predict as they did, and
go back unchanged.
"""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import isotropic

from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.inference.networks import probabilities_of
from nnunet_builtin.inference.sliding_window import predict, predict_ensemble
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_builtin.networks.state_names import from_v1, from_v2, to_v1, to_v2
from nnunet_builtin.training import foreign_checkpoint
from nnunet_builtin.training.foreign_checkpoint import read_foreign_weights
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import TrainingError, UsageError

RUNTIME = ResolvedRuntime(torch.device("cpu"), torch.float32, 2, 1)
PATCH = (40, 56, 40)
V1 = ("v1/Task004_Hippocampus_v1.zip", "3d_fullres", "model_final_checkpoint.model")
V1_2D = (V1[0], "2d", V1[2])
V2 = ("v2/Dataset004_Hippocampus_plain_3d.zip", "", "checkpoint_final.pth")
V2_2D = ("v2/Dataset004_Hippocampus_plain_2d.zip", "", V2[2])
RESIDUAL = ("v2/Dataset004_Hippocampus_resenc_3d.zip", "", V2[2])


def checkpoints(models, folder, model):
    """Unpack the checkpoints of a model, one per fold."""
    archive, under, name = model
    with zipfile.ZipFile(models / archive) as content:
        members = [m for m in content.namelist() if m.startswith(under) and m.endswith(name)]
        assert members
        return [Path(content.extract(member, folder)) for member in sorted(members)]


def hippocampus(layout):
    return PlainUNet(layout=layout).build(isotropic(3, output_channels=3, base_features=8))


def networks(models, folder, model, layout):
    found = []
    for path in checkpoints(models, folder, model):
        network = hippocampus(layout)
        network.load_state_dict(read_foreign_weights(path))
        network.deep_supervision = False
        found.append(network.eval())
    return found


def normalised(models):
    """Return an image (1, Z, Y, X) as its models expect it: spacing 1 mm, nothing to crop,
    z-score.
    """
    image = sitk.GetArrayFromImage(
        sitk.ReadImage(models / "inputs" / "hippocampus_353_0000.nii.gz")
    ).astype(np.float32)
    return ((image - image.mean()) / image.std())[None]


@pytest.mark.shared
@pytest.mark.parametrize(
    "model",
    [V1, V1_2D, V2, V2_2D, RESIDUAL],
    ids=["v1-3d", "v1-2d", "v2-3d", "v2-2d", "residual"],
)
def test_real_models_go_here_and_back_unchanged(models, tmp_path, model):
    to, key = (to_v1, "state_dict") if model in (V1, V1_2D) else (to_v2, "network_weights")
    for path in checkpoints(models, tmp_path, model):
        theirs = foreign_checkpoint._content(path)[key]
        back = to(read_foreign_weights(path))
        assert set(back) == set(theirs)
        assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())


@pytest.mark.shared
def test_a_real_v1_model_predicts_what_v1_predicts(models, tmp_path):
    found = predict_ensemble(
        [probabilities_of(n, RUNTIME) for n in networks(models, tmp_path, V1, "v1")],
        normalised(models),
        patch_size=PATCH,
        runtime=RUNTIME,
        mirror_axes=(0, 1, 2),
        step_size=0.5,
    )
    with np.load(models / "v1/predictions_3d_fullres/hippocampus_353.npz") as content:
        np.testing.assert_allclose(found, content["softmax"].astype(np.float32), atol=1e-3)


@pytest.mark.shared
def test_a_real_v2_model_predicts_what_v2_predicts(models, tmp_path):
    """v2 averages logits of windows, mirrored passes and folds; the softmax comes last."""
    images, folds = normalised(models), networks(models, tmp_path, V2, "v2")
    with torch.inference_mode():
        logits = sum(
            predict(network, images, PATCH, RUNTIME, (0, 1, 2), 0.5) for network in folds
        ) / len(folds)
    with np.load(models / "v2/predictions_plain_3d/hippocampus_353.npz") as content:
        np.testing.assert_allclose(
            torch.from_numpy(logits).softmax(0), content["probabilities"], atol=1e-3
        )


@st.composite
def specs(draw):
    dimensions = draw(st.sampled_from([2, 3]))
    depth = draw(st.integers(1, 4))

    def kernel(sizes):
        return tuple(draw(st.sampled_from(sizes)) for _ in range(dimensions))

    return NetworkSpec(
        dimensions=dimensions,
        input_channels=draw(st.integers(1, 3)),
        output_channels=draw(st.integers(2, 4)),
        pool_kernels=tuple(kernel([1, 2]) for _ in range(depth)),
        conv_kernels=tuple(kernel([1, 3]) for _ in range(depth + 1)),
        base_features=2,
        max_features=8,
        convs_per_stage=draw(st.integers(1, 3)),
    )


@settings(max_examples=40, deadline=None)
@given(specs(), st.sampled_from(["v1", "v2"]), st.sampled_from(["instance", "batch"]))
def test_every_network_goes_there_and_back(spec, layout, norm):
    state = PlainUNet(layout=layout, norm=norm).build(spec).state_dict()
    for there, back in ((to_v1, from_v1), (to_v2, from_v2)):
        returned = back({f"module.{name}": tensor for name, tensor in there(state).items()})
        assert all(returned[name] is tensor for name, tensor in state.items() if name in returned)
        left = {name for name in state if name not in returned}
        assert all(
            name.endswith("bias") and name.startswith(("upsampling", "heads")) for name in left
        )
        assert not left or (layout, there) == ("v2", to_v1)


@settings(max_examples=40, deadline=None)
@given(specs(), st.sampled_from(["instance", "batch"]), st.sampled_from([0, 6]), st.data())
def test_every_residual_network_of_v2_goes_there_and_back(spec, norm, stem, data):
    stages = len(spec.conv_kernels)
    features = tuple(data.draw(st.sampled_from([4, 8])) for _ in range(stages))
    blocks = tuple(data.draw(st.integers(1, 3)) for _ in range(stages))
    builder = ResidualUNet(
        blocks=blocks, norm=norm, layout="v2", features=features, stem_features=stem
    )
    state = builder.build(spec).state_dict()
    returned = from_v2(to_v2(state))
    assert set(returned) == set(state)
    assert all(returned[name] is tensor for name, tensor in state.items())


def test_a_residual_network_of_v1_has_no_equal_in_v2():
    state = ResidualUNet().build(isotropic(2)).state_dict()
    with pytest.raises(UsageError, match=r"network\.layout=v2"):
        to_v2(state)


def test_a_network_without_biases_is_the_same_in_v2():
    torch.manual_seed(0)
    own, theirs = hippocampus("v1"), hippocampus("v2")
    theirs.load_state_dict(from_v2(to_v2(own.state_dict())))
    images = torch.randn(1, 1, 16, 16, 16)
    for ours, other in zip(own(images), theirs(images), strict=True):
        torch.testing.assert_close(ours, other)


def test_biases_that_v1_does_not_have_are_refused():
    network = hippocampus("v2")
    to_v1(network.state_dict())
    torch.nn.init.ones_(network.heads[1].bias)
    with pytest.raises(UsageError, match=r"seg_outputs\.1\.bias"):
        to_v1(network.state_dict())


@pytest.mark.parametrize("translate", [to_v1, to_v2])
def test_other_networks_have_no_names_there(translate):
    state = {"encoder.0.0.conv.weight": torch.ones(1), "attention.weight": torch.ones(1)}
    with pytest.raises(UsageError, match=r"attention\.weight"):
        translate(state)


class Malicious:
    def __reduce__(self):
        return exec, ("print('this was run')",)


def test_nothing_in_a_checkpoint_is_called(tmp_path, capsys):
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "logging": Malicious()}, path)
    with pytest.raises(TrainingError, match=r"__builtin__\.exec.* nothing of it was run"):
        read_foreign_weights(path)
    assert "this was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no weights"),
        ([1, 2], "holds no weights"),
        ({"state_dict": {"tu.0.weight": 3}}, "other things than tensors"),
        (
            {"state_dict": {"classifier.weight": torch.ones(1)}},
            "no tensor of a U-Net of nnU-Net v1",
        ),
    ],
)
def test_files_without_weights_are_refused(tmp_path, content, message):
    path = tmp_path / "model.model"
    torch.save(content, path)
    with pytest.raises(TrainingError, match=message):
        read_foreign_weights(path)


def test_numpy_numbers_and_arrays_are_passed_over(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    weight = torch.arange(4.0)
    numbers = {"dice": [np.float64(0.5), np.float32(1)], "curve": np.arange(3.0)}
    torch.save(
        {"network_weights": {"decoder.seg_layers.0.weight": weight}, "logging": numbers}, path
    )
    assert torch.equal(read_foreign_weights(path)["heads.0.weight"], weight)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 damaged", pickle.dumps({"state_dict": {}}, protocol=2)]
)
def test_damaged_checkpoints_are_one_message(tmp_path, content):
    path = tmp_path / "model.model"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"model\.model"):
        read_foreign_weights(path)
