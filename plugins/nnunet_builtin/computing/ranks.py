"""Several processes that train one network: their parts of a batch, and sums and means over all of
them.

Each process computes the loss of its own samples, and DistributedDataParallel averages the
gradients. With these functions the average is the gradient of the loss of the joined batch,
whatever the number of samples or ignored voxels per process.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import functools
import gc
import importlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from nnunet_builtin.computing.heads import sum_of
from nnunet_core.contracts.abilities import ChangesGraph, ability
from nnunet_core.errors import StoppedError, TrainingError, UsageError
from nnunet_core.runtime.processes import in_several_processes

#: The first process also validates folds; the others wait for it.
_PATIENCE = datetime.timedelta(days=2)
_GLOO = "gloo/transport"  # in its errors, which have no type of their own
_SENT: collections.deque[torch.Tensor] = collections.deque(
    maxlen=64
)  # the last small tensors that were sent
#: Makes the heads of a network on a batch of zeros, for as long as the block runs.
Trial = Callable[[], contextlib.AbstractContextManager[list[torch.Tensor]]]


def world_size() -> int:
    """Return the number of processes that train together, 1 without torch.distributed."""
    return (
        distributed.get_world_size()
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def total(own: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes; its gradient flows into the own part, times
    the number of processes.

    The factor is that number because each of W processes derives the same joined loss by its own
    part only: the average over processes of W times these parts is their sum, which is the gradient
    of the joined batch.

    Every process must call this equally often, also in validation.
    """
    processes = world_size()
    if processes == 1:
        return own
    joined = _sum(own.detach().clone())
    return joined + processes * (own - own.detach())


def mean(summed: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return this process's share of the mean over the joined batch: shares average to it. 0 where
    nothing has weight.

    Args:
        summed: Weighted sum of the own values, scalar.
        weight: Sum of the own weights, scalar without gradient.
    """
    joined = total(weight)
    return summed * world_size() / joined.masked_fill(joined == 0, 1)


def rank() -> int:
    """Return the number of this process among those that train together; 0 is the one that
    writes.
    """
    return distributed.get_rank() if world_size() > 1 else 0


def own_part(batch_size: int) -> range | None:
    """Return the samples of a batch that this process trains on; None is all of them.

    Raises:
        UsageError: There are more processes than samples.
    """
    size = world_size()
    if size == 1:
        return None
    if batch_size < size:
        raise UsageError(
            f"{size} processes share batches of {batch_size} samples; each needs one. Use fewer "
            f"processes, or a larger batch: --set trainer.batch_size={size * batch_size}"
        )
    first, last = (batch_size * number // size for number in (rank(), rank() + 1))
    return range(first, last)


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` has started, while the block runs; nothing happens without
    it.

    Raises:
        TrainingError: Another process of the training has ended.
    """
    if not in_several_processes() or distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # averaging needs it; imported within a group, it keeps that one for ever
    importlib.import_module("torch._dynamo")
    store, number, size = _meeting()
    # the store keeps what the last training said; it also counts them, for each process alike
    training = store.add(f"trainings_of_{number}", 1)
    own = distributed.PrefixStore(f"training_{training}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend, store=own, rank=number, world_size=size, timeout=_PATIENCE
    )
    try:
        yield
    except StoppedError:  # all processes stop together
        _leave()
        raise
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or _GLOO in str(error):
            raise TrainingError(
                "Another process of this training has ended; the message of that process says why."
            ) from error
        # without leaving the group, here and below: that would wait for processes that wait for us
        raise
    _leave()


@functools.cache
def _meeting() -> tuple[distributed.Store, int, int]:
    """Return the store of all processes, the number of this one, and how many there are.

    There is one store as long as this process runs: one that the first process closes after a
    training could be found by another that begins the next one.
    """
    store, number, size = next(rendezvous("env://", timeout=_PATIENCE))
    store.set_timeout(_PATIENCE)
    return store, number, size


def _leave() -> None:
    """End the process group and its threads: one that still runs when Python ends takes the process
    down.
    """
    distributed.destroy_process_group()
    gc.collect()  # the threads live as long as the averaging network, which is part of circles


def distributed_network(
    network: nn.Module, device: torch.device, trained: Sequence[int], trial: Trial
) -> nn.Module:
    """Return the network that averages its gradients over all processes, or the network itself.

    Weights that no trained head depends on have no gradient in any batch, and are left out. If
    there are others that no head depends on, PyTorch looks in every batch for those that it must
    not wait for.

    Args:
        network: On its device; it may have `graph_changes = True` if it uses other weights from
            batch to batch.
        device: Of the network.
        trained: Which of its heads the loss depends on.
        trial: Makes its heads on the device, all of them.
    """
    if world_size() == 1:
        return network
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    with trial() as heads:
        own, every = (
            _gradients([heads[head] for head in some], weights)
            for some in (trained, range(len(heads)))
        )
    idle = [weight for weight, gradient in zip(weights, own, strict=True) if gradient is None]
    unused = any(gradient is None for gradient in every)
    for weight, gradient in zip(weights, own, strict=True):
        _take_strides(weight, gradient)
    for weight in idle:
        weight.requires_grad_(unused)  # PyTorch waits for weights that require a gradient now
    changing = ability(network, ChangesGraph)
    averaging = DistributedDataParallel(
        network,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=unused or (changing is not None and changing.graph_changes),
    )
    for weight in idle:
        weight.requires_grad_(True)
    return averaging


def _gradients(
    heads: list[torch.Tensor], weights: list[nn.Parameter]
) -> tuple[torch.Tensor | None, ...]:
    """Return the gradient of every weight, None where the heads do not depend on it."""
    return torch.autograd.grad(sum_of(heads), weights, retain_graph=True, allow_unused=True)


def _take_strides(weight: nn.Parameter, gradient: torch.Tensor | None) -> None:
    """Describe the order of a weight in memory as its gradient does: of an axis of one voxel any
    stride is right.
    """
    if gradient is None or weight.stride() == gradient.stride():
        return
    pairs = zip(weight.shape, weight.stride(), gradient.stride(), strict=True)
    if all(own == other for size, own, other in pairs if size > 1):
        weight.data = weight.data.as_strided(weight.shape, gradient.stride())


def gradients_at(network: object, now: bool) -> contextlib.AbstractContextManager[object]:
    """Average gradients in this backward pass only if `now`; otherwise they are summed up in each
    process.
    """
    if isinstance(network, DistributedDataParallel) and not now:
        return network.no_sync()
    return contextlib.nullcontext()


def any_of(own: bool) -> bool:
    """Return whether it is true in any process."""
    if world_size() == 1:
        return own
    return bool(_sum(torch.tensor(float(own), device=_device())) > 0)


def summed(own: np.ndarray) -> np.ndarray:
    """Return the sum of an array of floats over all processes."""
    if world_size() == 1:
        return own
    return _sum(torch.tensor(own, dtype=torch.float64, device=_device())).cpu().numpy()


def averaged(own: list[float]) -> list[float]:
    """Return the mean of each number over all processes."""
    return (summed(np.array(own)) / world_size()).tolist() if own else []


def told_by_first(own: bool) -> bool:
    """Return what the first process says."""
    if world_size() == 1:
        return own
    flag = _kept(torch.tensor(float(own), device=_device()))
    distributed.broadcast(flag, src=0)
    return bool(flag > 0)


def _sum(own: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, in place."""
    distributed.all_reduce(_kept(own))
    return own


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    """Keep a tensor for a while after it was sent.

    A thread of gloo drops it some time after that. If nobody else held it then, the thread would
    need Python's lock; and where the group is being destroyed meanwhile, or Python ends, it would
    never get it: a deadlock, or an abort.
    """
    _SENT.append(tensor)
    return tensor


def _device() -> torch.device:
    cuda = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
