"""Compile a network with PyTorch, and go on without where that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from nnunet_builtin.computing.heads import sum_of
from nnunet_builtin.computing.trial import heads_on_zeros
from nnunet_core.runtime.reporting import Reporter


def compile_in_place(
    network: torch.nn.Module,
    shape: Sequence[int],
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]],
    report: Reporter,
) -> None:
    """Let the network compute through `torch.compile`; names and weights stay as they are.

    Compilers fail at the first use, if they do (no C++ compiler, an operation that is not
    supported). So one forward and backward pass is tried at once; where it fails `report` says so,
    and the network computes as it is.

    Args:
        network: On its device.
        shape: Of the batches to train on, (B, C, *patch).
        device: Of the network.
        precision: Context of the forward pass.
        report: Where a failure is told.
    """
    plain = network.forward
    try:
        network.forward = torch.compile(plain, dynamic=False)
        with heads_on_zeros(network, shape, device, precision) as heads:
            sum_of(heads).backward()
    except Exception as error:  # noqa: BLE001 (compilers raise anything)
        network.forward = plain
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        report.warning(f"the network cannot be compiled, it runs as it is: {reason}")
