"""Compile a network with PyTorch, and go on without where that fails."""

from __future__ import annotations

from typing import Any

import torch

from nnunet_core.reporting import Reporter


def compile_in_place(network: torch.nn.Module, report: Reporter) -> None:
    """Let the network compute through `torch.compile`; names and weights stay as they are.

    Compilers fail at the first use, if they do (no C++ compiler, an operation that is not supported). The network then
    computes as it is, and `report` says so once.
    """
    plain, compiled, usable = network.forward, torch.compile(network.forward), True

    def forward(images: torch.Tensor) -> Any:
        nonlocal usable
        if usable:
            try:
                return compiled(images)
            except Exception as error:  # noqa: BLE001 (compilers raise anything)
                usable = False
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                report.warning(f"the network cannot be compiled, it runs as it is: {reason}")
        return plain(images)

    network.forward = forward
