"""Weights of another model: what fits is taken over, what does not is named, what was loaded can be
frozen.
"""

import pytest
import small_training as small
import torch
from safetensors.torch import load_file, save_file

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.training.checkpoint import CHECKPOINT
from nnunet_builtin.training.finetuning import (
    check_unchanged,
    freeze,
    hold_frozen_layers,
    read_initial_weights,
    transfer,
)
from nnunet_core.errors import StorageError, TrainingError
from nnunet_core.runtime.files import file_digest
from nnunet_core.store.models import WEIGHTS

FIRST, FIRST_BIAS = "encoder.0.0.conv.weight", "encoder.0.0.conv.bias"
HEADS = ("heads.0.weight", "heads.1.weight")


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return PlainUNet().build(small.CONFIGURATION.network.model_copy(update=changes))


def file_of(folder, tensors):
    path = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def taken(network, path):
    return transfer(network, read_initial_weights(path), path)


def test_tensors_of_other_shapes_or_names_keep_their_initial_values(tmp_path):
    source, target = network(1), network(2, input_channels=2, output_channels=4)
    tensors = dict(source.state_dict())
    del tensors["encoder.0.0.norm.bias"]
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    report = taken(target, file_of(tmp_path, {**tensors, "extra": torch.ones(1)}))
    assert set(report.skipped) == {FIRST, "encoder.0.0.norm.bias", *HEADS}
    assert report.skipped[FIRST] == "shape (4, 1, 3, 3, 3) in the file, (4, 2, 3, 3, 3) here"
    assert report.skipped["encoder.0.0.norm.bias"] == "no weights for it"
    assert report.unused == ("extra",)
    assert set(report.loaded) | set(report.skipped) == set(before)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name] if name in report.skipped else tensors[name]), name
    first, *others = report.lines()
    assert f"{len(report.loaded)} of {len(before)} tensors loaded" in first
    assert any("not used: extra" in line for line in others)


def test_files_that_cannot_be_taken_are_refused_and_change_nothing(tmp_path):
    target = network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    path = file_of(tmp_path, network(1).state_dict())
    with pytest.raises(TrainingError, match="has changed since it was chosen"):
        check_unchanged(path, "0" * 16)
    path.write_bytes(path.read_bytes()[:500])
    check_unchanged(path, file_digest(path))
    with pytest.raises(StorageError, match="cannot be read"):
        taken(target, path)
    with pytest.raises(TrainingError, match=r"No tensor of .* fits this network \(encoder"):
        taken(target, file_of(tmp_path, {"other": torch.ones(1)}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_frozen_is_what_was_loaded():
    target = network()
    frozen = freeze(target, "encoder", {FIRST})
    still = {name for name, parameter in target.named_parameters() if not parameter.requires_grad}
    assert (
        set(frozen)
        == still
        == {name for name in target.state_dict() if name.startswith("encoder.")}
        - {FIRST, FIRST_BIAS}
    )


def test_layers_that_were_loaded_in_part_are_trained():
    """Weights of an instance norm fit a batch norm, whose statistics are new: it has to learn
    them.
    """
    target = PlainUNet(norm="batch").build(small.CONFIGURATION.network)
    norm = "encoder.0.0.norm"
    frozen = freeze(
        target,
        "encoder",
        {f"{norm}.running_mean", f"{norm}.running_var", f"{norm}.num_batches_tracked"},
    )
    assert {f"{norm}.weight", f"{norm}.bias"}.isdisjoint(frozen)
    hold_frozen_layers(target.train())
    training = {
        name
        for name, layer in target.named_modules()
        if isinstance(layer, torch.nn.BatchNorm3d) and layer.training
    }
    assert {name for name in training if name.startswith("encoder.")} == {norm}
    assert any(name.startswith("decoder.") for name in training)


def test_parts_that_cannot_be_frozen_are_named():
    with pytest.raises(
        TrainingError, match=r"no part 'brain'.*encoder, upsampling, decoder, heads"
    ):
        freeze(network(), "brain", ())
    target = network()
    with pytest.raises(TrainingError, match="No tensor of the encoder was loaded"):
        freeze(target, "encoder", list(target.state_dict()))


def test_new_channels_of_a_frozen_encoder_are_trained_also_after_a_resume(tmp_path):
    """The first convolution fits neither the channels nor anything else: frozen, it would stay
    random.
    """
    source = small.train(tmp_path / "a" / "fold_0")
    started = {"cascade": True, "initial": small.frozen_encoder(source)}
    undisturbed = small.train(tmp_path / "b" / "fold_0", **started)

    class InterruptedTrainingError(Exception):
        pass

    def epoch_finished(line):
        if line["epoch"] == 2:
            raise InterruptedTrainingError

    folder = tmp_path / "c" / "fold_0"
    with pytest.raises(InterruptedTrainingError):
        small.train(folder, epoch_finished=epoch_finished, **started)
    (source / WEIGHTS).rename(tmp_path / "moved")  # it is not needed any more
    first = torch.load(folder / CHECKPOINT, weights_only=True)["network"][FIRST]
    small.train(folder, **started)
    before = load_file(tmp_path / "moved")
    found = load_file(folder / WEIGHTS)
    expected = load_file(undisturbed / WEIGHTS)
    assert not torch.equal(first, found[FIRST])
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        if name.startswith("encoder.") and not name.startswith("encoder.0.0.conv."):
            assert torch.equal(tensor, before[name]), name
    assert "frozen: what was loaded of the encoder" in (folder / "pretrained.txt").read_text()
