"""The state of a training, and its checkpoint on disk: written beside the training, whole or not at
all.
"""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nnunet_core.errors import TrainingError
from nnunet_core.runtime import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHECKPOINT = "checkpoint.pt"
_FORMAT = 6


@dataclass
class Progress:
    """What the current epoch has done so far.

    Attributes:
        position: Batches done, training first.
        training_losses, validation_losses: Of these batches.
        counts: True positives, false positives and false negatives (3, foreground) of the
            validation batches.
        seconds, waited: Spent in all, and spent waiting for batches.
    """

    counts: np.ndarray
    position: int = 0
    training_losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0


@dataclass
class State:
    """What changes during a training; everything that a checkpoint holds.

    Attributes:
        network: What is trained, without wrappers.
        optimizer, scaler: Their states.
        average: Moving average of the weights, or None.
        modules: Further ones that belong to the training.
        epoch: Finished epochs.
        progress: Of the epoch that is running.
        dice_average, best_dice: Moving average of finished epochs, and its highest value.
        stale_epochs: Finished epochs since the best one.
        metrics: One line per finished epoch.
    """

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    average: AveragedModel | None = None
    modules: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    epoch: int = 0
    dice_average: float | None = None
    best_dice: float | None = None
    stale_epochs: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best_network(self) -> torch.nn.Module:
        """The network to validate and to keep: the averaged weights, if there are any."""
        return self.network if self.average is None else self.average.module

    def weights(self) -> bytes:
        """Return the content of a weights file; weights that a network uses under two names are
        there twice.
        """
        named = self.best_network.state_dict()
        plain = torch.contiguous_format
        return save(
            {
                name: tensor.detach().clone(memory_format=plain).cpu()
                for name, tensor in named.items()
            }
        )

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of everything, tensors on the CPU, to be written while the training goes
        on.
        """
        return {
            "format": _FORMAT,
            "epoch": self.epoch,
            "network": _copy(self.network.state_dict()),
            "average": None if self.average is None else _copy(self.average.state_dict()),
            "modules": {name: _copy(module.state_dict()) for name, module in self.modules.items()},
            "optimizer": _copy(self.optimizer.state_dict()),
            "scaler": _copy(self.scaler.state_dict()),
            "frozen": [
                name
                for name, parameter in self.network.named_parameters()
                if not parameter.requires_grad
            ],
            "averages": [self.dice_average, self.best_dice, self.stale_epochs],
            "metrics": json.dumps(self.metrics),
            "progress": json.dumps(
                {**vars(self.progress), "counts": self.progress.counts.tolist()}
            ),
        }

    def restore(self, content: dict[str, Any], path: Path) -> None:
        """Take over the content of a checkpoint.

        Raises:
            TrainingError: It is of another network or optimiser.
        """
        with readable(path):
            self.network.load_state_dict(content["network"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
            for name, module in self.modules.items():
                module.load_state_dict(content["modules"][name])
            self.optimizer.load_state_dict(content["optimizer"])
            if content["scaler"]:  # empty unless that part of the training was in float16
                self.scaler.load_state_dict(content["scaler"])
            progress = json.loads(content["progress"])
            self.progress = Progress(**{**progress, "counts": np.array(progress["counts"])})
            self.epoch, self.metrics = content["epoch"], json.loads(content["metrics"])
            self.dice_average, self.best_dice, self.stale_epochs = content["averages"]


def averaged_weights(network: torch.nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of the weights of a network."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))


class Writer:
    """Does one piece of writing at a time beside the training; an error is raised at the next one,
    or at the end.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def submit(self, work: Callable[[], None]) -> None:
        """Start to write, after what is being written is finished."""
        self.wait()
        self._running = self._threads.submit(work)

    def wait(self) -> None:
        """Return when everything is written; raise what went wrong."""
        if self._running is not None:
            self._running.result()
            self._running = None

    def close(self) -> None:
        """Finish, and raise what went wrong."""
        self._threads.shutdown(wait=True)
        self.wait()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, tensors on the CPU.

    Raises:
        TrainingError: It is damaged, or of another version of this software.
    """
    with readable(path):
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        written = content["format"]
    if written != _FORMAT:
        raise TrainingError(
            f"The checkpoint {path} is of another version of this software (format {written}, here "
            f"{_FORMAT}). Go on with that version, or delete it to train this fold from the start."
        )
    return content


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong with the content of a checkpoint into a TrainingError that says what to
    do.
    """
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise TrainingError(
            f"The checkpoint {path} cannot be read: {reason[0]}. Delete it to train this fold from "
            "the start."
        ) from error


def write_checkpoint(folder: Path, snapshot: dict[str, Any]) -> None:
    """Write a snapshot atomically."""
    files.write_with(folder / CHECKPOINT, lambda file: torch.save(snapshot, file))


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value
