"""One forward pass of a network on zeros that leaves no trace: what is known only after it was
tried.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from nnunet_builtin.computing.heads import heads_of


@contextlib.contextmanager
def heads_on_zeros(
    network: torch.nn.Module,
    shape: Sequence[int],
    device: torch.device,
    precision: Callable[[], contextlib.AbstractContextManager[Any]],
) -> Iterator[list[torch.Tensor]]:
    """Yield the logits of every head that the network returns; afterwards its state is as before.

    Args:
        network: On its device.
        shape: Of the batch, (B, C, *patch).
        device: Of the network.
        precision: Context of the forward pass.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            with precision():
                found = network(torch.zeros(tuple(shape), device=device))
            yield heads_of(found)
        finally:
            network.load_state_dict(buffers, strict=False)
            network.zero_grad(set_to_none=True)
