"""Devices and precisions: what is here works, what is not is refused with a list."""

from dataclasses import replace

import pytest
import torch

from nnunet_builtin.computing import devices
from nnunet_builtin.computing.devices import available_devices, memory_format, resolve
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.errors import UsageError


def test_auto_takes_the_first_device_there_is():
    assert str(resolve(Runtime()).device) == available_devices()[0]


def test_explicit_choices_are_kept():
    runtime = resolve(Runtime("cpu", "bfloat16", 3, 1))
    assert (runtime.dtype, runtime.workers, runtime.threads) == (torch.bfloat16, 3, 1)
    assert resolve(Runtime("cpu", "float32")).dtype == torch.float32


def test_threads_are_as_many_as_asked_then_as_the_environment_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert resolve(Runtime("cpu")).threads == 3
    assert resolve(Runtime("cpu", threads=2)).threads == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert resolve(Runtime("cpu")).threads == devices.usable_cores()


def test_the_order_of_features_can_be_chosen():
    usual = resolve(Runtime("cpu"))
    assert memory_format(usual, 3) == torch.channels_last_3d
    assert memory_format(replace(usual, channels_last=False), 3) == torch.contiguous_format
    card = replace(usual, device=torch.device("cuda"))
    assert memory_format(card, 2) == torch.contiguous_format
    assert memory_format(replace(card, channels_last=True), 2) == torch.channels_last


@pytest.mark.parametrize(
    "runtime",
    [Runtime("cuda:99"), Runtime("tpu"), Runtime("cpu", "float16"), Runtime("cpu", "int8")],
)
def test_what_is_not_here_is_refused(runtime):
    with pytest.raises(UsageError, match="cpu"):
        resolve(runtime)


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_on_cpu_asks_for_the_instructions(monkeypatch, native, expected):
    monkeypatch.setattr(devices, "_native_bfloat16", lambda: native)
    assert resolve(Runtime("cpu")).dtype == expected


def test_cuda_is_preferred_and_trains_in_float16_as_v1(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert available_devices()[:2] == ["cuda:0", "cuda:1"]
    runtime = resolve(Runtime())
    assert (str(runtime.device), runtime.dtype) == ("cuda:0", torch.float16)
    with pytest.raises(UsageError, match="Allowed: auto, float32, float16"):
        resolve(Runtime("cuda:1", "bfloat16"))
