"""What `auto` takes on a card, how batches get there, and what a training says about it."""

import contextlib
import itertools
from dataclasses import replace

import pytest
import small_training as small
import torch
from small_on_card import lines_of, loop_of, resolved_on, runtime_on

from nnunet_builtin.computing.devices import CHANNELS_LAST, memory_format, resolve
from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError

pytestmark = pytest.mark.gpu


def test_auto_takes_the_card_and_float16(card):
    runtime = resolve(Runtime("auto"))
    assert (runtime.device, runtime.dtype) == (card, torch.float16)
    assert resolve(Runtime("cuda", "bfloat16")).dtype == torch.bfloat16


def test_a_card_that_is_not_there_is_refused(device):
    with pytest.raises(UsageError, match=f"Available: auto, .*{device.type}"):
        resolve(Runtime("cuda:99"))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_lie_in_the_order_that_the_device_is_fastest_in(device, dimensions):
    cpu = device.type == "cpu"
    expected = CHANNELS_LAST[dimensions] if cpu else torch.contiguous_format
    runtime = resolved_on(device)
    assert memory_format(runtime, dimensions) == expected
    spec = small.isotropic(1, dimensions, base_features=4)
    weight = placed(PlainUNet().build(spec), runtime, dimensions).encoder[0][1].conv.weight
    assert weight.device == device
    assert weight.is_contiguous(memory_format=expected)


def test_a_training_says_where_it_ran_and_how_much_memory_it_took(tmp_path, device):
    folder = tmp_path / "fold_0"
    task = small.make_task(folder, runtime=runtime_on(device, "auto"))
    found = TrainerV2(**small.SETTINGS).train(task)
    assert found["device"] == str(device)
    lines = lines_of(folder)
    assert len(lines) == small.SETTINGS["epochs"]
    for line in lines:
        assert ("gpu_memory_gb" in line) == (device.type == "cuda")
        assert device.type == "cpu" or 0 < line["gpu_memory_gb"] < 10
    if device.type == "cuda":
        assert found["precision"] == "float16"


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_as_they_were_sent(tmp_path, device, workers):
    """Copies run beside the CPU: what they read may be thrown away, but not before it was read."""
    runtime = replace(resolved_on(device), workers=workers)
    loop = loop_of(tmp_path / "fold_0", runtime, {"iterations_per_epoch": 30})
    sent, arrived = [], []
    with contextlib.closing(loop._stream()) as stream:
        for _, batch in itertools.islice(stream, 30):
            sent.append((batch["images"].clone(), batch["label"].clone()))
            pinned = [batch[key].is_pinned() for key in ("images", "label")]
            assert pinned == [device.type == "cuda"] * 2
            arrived.append(loop._on_device(batch, training=True))
    for (images, label), (images_there, label_there) in zip(sent, arrived, strict=True):
        assert images_there.device == label_there.device == device
        assert torch.equal(images_there.cpu(), images)
        assert torch.equal(label_there.cpu(), label)


def test_a_loader_process_sends_the_batches_of_this_process(tmp_path, device):
    batches = []
    for workers in (0, 1):
        runtime = replace(resolved_on(device), workers=workers)
        loop = loop_of(tmp_path / "fold_0", runtime)
        with contextlib.closing(loop._stream()) as stream:
            pairs = [loop._on_device(next(stream)[1], training=True) for _ in range(3)]
        batches.append(pairs)
    for own, loaded in zip(*batches, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(own, loaded, strict=True))
