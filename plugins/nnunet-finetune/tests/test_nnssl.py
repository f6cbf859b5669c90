"""Encoders of nnssl: found by the plan in the checkpoint, read without running it, or refused."""

import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from toy_task import BRIEF, make_task

from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_builtin.networks.state_names import to_v2
from nnunet_core.data.plans import NetworkSpec
from nnunet_core.errors import StorageError, TrainingError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.workers import Workers
from nnunet_finetune.nnssl import read_encoder
from nnunet_finetune.planner import PlannerOfEncoder
from nnunet_finetune.trainer import Finetune

PLAN = {
    "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
    "pretrain_plan": {"configurations": {"onemmiso": {"patch_size": [160, 160, 160]}}},
    "pretrain_num_input_channels": 1,
    "recommended_downstream_patchsize": [160, 160, 160],
    "key_to_encoder": "encoder.stages",
    "key_to_stem": "encoder.stem",
    "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
    "key_to_lpe": None,
}
BLOCKS = (1, 2, 1)


def encoder_network(configuration):
    """Return a residual network of v2's layout, with weights of its own."""
    torch.manual_seed(5)
    return ResidualUNet(blocks=BLOCKS, layout="v2").build(configuration.network)


def checkpoint(path, network, prefix="", **plan):
    """Write what nnssl writes: names of v2, a decoder that paints images, and the plan."""
    state = {prefix + name: tensor for name, tensor in to_v2(network.state_dict()).items()}
    state["decoder.to_pixels.0.weight"] = torch.ones(3)
    content = {
        "network_weights": OrderedDict(state),
        "nnssl_adaptation_plan": {**PLAN, **plan},
        "trainer_name": "BaseMAETrainer",
        "citations": [{"type": "Architecture", "name": "ResEncL", "apa_citations": ["..."]}],
    }
    torch.save(content, path)
    return path


@pytest.fixture
def network(toy_datasets):
    return encoder_network(toy_datasets.configuration("3d"))


def test_the_encoder_is_what_the_plan_names(tmp_path, network):
    found = read_encoder(checkpoint(tmp_path / "checkpoint_final.pth", network))
    own = {n: t for n, t in network.state_dict().items() if n.startswith("encoder.")}
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_an_encoder_in_a_wrapper_is_found_by_its_keys(tmp_path, network):
    keys = {"key_to_encoder": "student.encoder.stages", "key_to_stem": "student.encoder.stem"}
    found = read_encoder(checkpoint(tmp_path / "final.pth", network, prefix="student.", **keys))
    assert torch.equal(found["encoder.0.0.conv.weight"], network.encoder[0][0].conv.weight)


def test_a_training_starts_from_it(tmp_path, toy_datasets, network):
    path = checkpoint(tmp_path / "checkpoint_final.pth", network)
    task = make_task(toy_datasets, tmp_path / "fold_0", name="two_channels", path=path)
    task = type(task)(**{**vars(task), "network": ResidualUNet(blocks=BLOCKS, layout="v2")})
    seen = []

    class Seen(Finetune):
        def modules(self, network):
            seen.append({name: t.clone() for name, t in network.state_dict().items()})
            return super().modules(network)

    Seen(**BRIEF).train(task)
    (start,), own = seen, network.state_dict()
    for name in own:
        if name == "encoder.0.0.conv.weight":
            torch.testing.assert_close(start[name], own[name].repeat(1, 2, 1, 1, 1) / 2)
        elif name.startswith("encoder."):
            assert torch.equal(start[name], own[name]), name
    assert not torch.equal(start["decoder.0.0.conv.weight"], own["decoder.0.0.conv.weight"])


def test_checkpoints_of_others_are_left_to_the_framework(tmp_path, network):
    torch.save({"network_weights": to_v2(network.state_dict())}, tmp_path / "v2.pth")
    assert read_encoder(tmp_path / "v2.pth") is None
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    assert read_encoder(tmp_path / "weights.safetensors") is None


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"key_to_encoder": "eva", "key_to_stem": "down_projection"}, "no tensor of the encoder"),
        ({"key_to_encoder": 3}, "must say where the encoder is"),
        ({"key_to_encoder": "decoder", "key_to_stem": "x"}, "no tensor of a U-Net"),
    ],
)
def test_other_encoders_are_refused(tmp_path, network, plan, message):
    with pytest.raises(TrainingError, match=message):
        read_encoder(checkpoint(tmp_path / "final.pth", network, **plan))


def test_values_that_are_not_finite_are_refused(tmp_path, network):
    with torch.no_grad():
        network.encoder[1][0].second.weight[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        read_encoder(checkpoint(tmp_path / "final.pth", network))


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    content = {"network_weights": {}, "nnssl_adaptation_plan": {**PLAN, "x": Touch(tmp_path / "x")}}
    torch.save(content, tmp_path / "final.pth", pickle_module=pickle)
    with pytest.raises(StorageError):
        read_encoder(tmp_path / "final.pth")
    assert not (tmp_path / "x").exists()


def test_the_planner_gives_any_dataset_the_network_of_the_encoder(toy_datasets):
    registry = Registry.discover()
    dataset = toy_datasets.dataset("anisotropic")
    planner, network = PlannerOfEncoder(), ResidualUNet(blocks=(1, 3, 4, 6, 6, 6), layout="v2")
    with Workers(1) as workers:
        fingerprint = planner.fingerprint(dataset, workers)
    plans = planner.plan(dataset, fingerprint, network)
    (planned,) = plans.configurations.values()
    assert planned.patch_size == (160, 160, 160)
    assert planned.spacing == (1, 1, 1)
    assert planned.batch_size == 2
    spec: NetworkSpec = planned.network
    assert spec.pool_kernels == ((2, 2, 2),) * 5
    assert spec.conv_kernels == ((3, 3, 3),) * 6
    assert [spec.features(stage) for stage in range(6)] == [32, 64, 128, 256, 320, 320]
    _, variant = registry.variant("finetune_resenc_l")
    assert variant.settings["network"]["blocks"] == [1, 3, 4, 6, 6, 6]
    smaller = PlannerOfEncoder(patch=(50, 64, 70))
    plans = smaller.plan(dataset, fingerprint, network)
    assert plans.configurations["3d_fullres"].patch_size == (64, 64, 96)
