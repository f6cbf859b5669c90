"""Optimisers and learning rates of the trainer (spec: training, sections 1 and 11)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

OptimizerName = Literal["SGD", "Adam", "AMSGrad", "AdamW"]
ScheduleName = Literal["poly", "cosine", "constant", "steps"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every epoch; it is constant within one.

    Attributes:
        name: `poly` falls as (1 - progress) ** power, `cosine` as half a wave, both to 0 at the end; `constant` stays;
            `steps` is multiplied by `step_factor` at each epoch of `step_epochs`.
        base: The highest rate.
        epochs: Of the training.
        warmup_epochs: First epochs, in which the rate rises linearly to `base`.
        power: Of `poly`.
        step_epochs, step_factor: Of `steps`.
    """

    name: ScheduleName
    base: float
    epochs: int
    warmup_epochs: int = 0
    power: float = 0.9
    step_epochs: tuple[int, ...] = ()
    step_factor: float = 0.1

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return self.base * (epoch + 1) / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs)
        if self.name == "poly":
            return self.base * (1 - progress) ** self.power
        if self.name == "cosine":
            return self.base * (1 + math.cos(math.pi * progress)) / 2
        if self.name == "steps":
            return self.base * self.step_factor ** sum(epoch >= step for step in self.step_epochs)
        return self.base


def make_optimizer(
    name: OptimizerName, parameters: Iterable[torch.nn.Parameter], rate: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return an optimiser of the parameters that are trained; `momentum` (Nesterov) is that of SGD."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if name == "SGD":
        nesterov = momentum > 0
        return torch.optim.SGD(trained, rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
    if name == "AdamW":
        return torch.optim.AdamW(trained, rate, weight_decay=weight_decay)
    return torch.optim.Adam(trained, rate, weight_decay=weight_decay, amsgrad=name == "AMSGrad")
