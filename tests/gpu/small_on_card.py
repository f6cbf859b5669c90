"""Trainings of seconds on a device, and how far two results lie apart."""

import contextlib
import itertools
import json

import numpy as np
import small_training as small
import torch

from nnunet_builtin.computing.computation import computing
from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.training.loop import METRICS, Loop
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.plans import NetworkSpec

#: More voxels than `small_training` has: in bfloat16 a CPU needs more than two along every axis.
CONFIGURATION = small.CONFIGURATION.model_copy(update={"patch_size": (16, 16, 16)})


def runtime_on(device, precision="float32"):
    return Runtime(str(device), precision, 0, 1)


def resolved_on(device, dtype=torch.float32):
    """Return a runtime of any precision; `resolve` refuses those that a device is slow in."""
    return ResolvedRuntime(device, dtype, threads=1, workers=0)


def loop_of(folder, runtime, settings=None, **changes):
    task = small.make_task(folder, **changes)
    return Loop(TrainerV2(**{**small.SETTINGS, **(settings or {})}), task, runtime).open()


def losses_of(loop, steps):
    """Do some steps of a training; return the loss of each."""
    losses = []
    with contextlib.closing(loop._stream()) as stream, computing(loop.runtime, deterministic=False):
        for step, batch in itertools.islice(stream, steps):
            losses.append(loop._training_step(step, batch, updating=True))
    return np.array(losses)


def lines_of(folder):
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def relative_error(found, expected):
    """Return the norm of the difference of two tensors in units of the expected norm."""
    exact = expected.detach().cpu().double()
    difference = found.detach().cpu().double() - exact
    return float(difference.norm() / exact.norm())


def with_network(configuration, **changes):
    """Return a configuration whose network is another in some numbers."""
    network = NetworkSpec(**{**configuration.network.model_dump(), **changes})
    return configuration.model_copy(update={"network": network})
