"""Optimisers, learning rates and momentum of the trainer (spec: training, sections 1 and 11)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch

from nnunet_builtin.training.settings import TrainerSettings
from nnunet_core.errors import NnunetError, UsageError
from nnunet_core.registry.discovery import Registry

_LOSS_MEMORY = 0.93
_LOWEST_RATE = 1e-6
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
    "AMSGrad": functools.partial(torch.optim.Adam, amsgrad=True),
    "AdamW": torch.optim.AdamW,
}


def learning_rate(settings: TrainerSettings, epoch: int, losses: Sequence[float] = ()) -> float:
    """Return the learning rate of an epoch; it is constant within one.

    Args:
        settings: Of the trainer.
        epoch: From 0.
        losses: Mean training losses of the epochs before; `plateau` looks at them.
    """
    falling = settings.epochs - settings.cycle_epochs
    if epoch < settings.warmup_epochs:
        return settings.learning_rate * (epoch + 1) / settings.warmup_epochs
    if epoch >= falling:
        return _cycle_rate(settings, epoch - falling)
    start = max(settings.warmup_epochs, settings.decay_start)
    progress = max(0, epoch - start) / max(1, falling - start)
    steps = sum(epoch >= step for step in settings.step_epochs)
    rate = settings.learning_rate * settings.step_factor**steps
    if settings.schedule == "poly":
        return rate * (1 - progress) ** settings.poly_power
    if settings.schedule == "cosine":
        return rate * (1 + math.cos(math.pi * progress)) / 2
    if settings.schedule == "plateau":
        return rate * settings.step_factor ** _plateaus(settings, losses)
    return rate


def momentum(settings: TrainerSettings, epoch: int) -> float | None:
    """Return the momentum of an epoch while it falls to `final_momentum`, which it all but reaches;
    None leaves it.
    """
    fallen = epoch - 1 - (settings.epochs - settings.momentum_epochs)
    if settings.final_momentum is None or fallen <= 0:
        return None
    return (
        settings.momentum
        - (settings.momentum - settings.final_momentum) * fallen / settings.momentum_epochs
    )


def make_optimizer(
    settings: TrainerSettings, parameters: Iterable[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Return an optimiser of the parameters that are trained; SGD has Nesterov momentum.

    Raises:
        UsageError: There is no such optimiser, or it does not take the settings.
    """
    chosen: dict[str, object] = {
        "lr": settings.learning_rate,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "SGD":
        chosen.update(momentum=settings.momentum, nesterov=settings.momentum > 0)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        return find_optimizer(settings.optimizer)(
            trained, **{**chosen, **settings.optimizer_settings}
        )
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"trainer.optimizer={settings.optimizer} does not take these settings: {error}. It got "
            "learning_rate, weight_decay and "
            f"trainer.optimizer_settings={settings.optimizer_settings}."
        ) from error


def find_optimizer(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimiser by its name, or by `package.module:Class`.

    Raises:
        UsageError: There is none.
    """
    if name in _OPTIMIZERS:
        return _OPTIMIZERS[name]
    reason = "it is not among the names"
    if ":" in name:
        try:
            found = Registry().resolve("optimizer", name).load()
            if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
                return found
            reason = "it is not a torch.optim.Optimizer"
        except NnunetError as error:
            reason = str(error).rstrip(".")
    raise UsageError(
        f"trainer.optimizer={name} cannot be used: {reason}. Allowed: {', '.join(_OPTIMIZERS)}, or "
        "package.module:Class of an installed package."
    )


def _cycle_rate(settings: TrainerSettings, epoch: int) -> float:
    """Return the rate of an epoch of the triangle at the end."""
    rising = max(1, settings.cycle_epochs // 2)
    height = (
        (settings.cycle_learning_rate - _LOWEST_RATE)
        * (epoch if epoch < rising else 2 * rising - epoch)
        / rising
    )
    return max(_LOWEST_RATE, _LOWEST_RATE + height)


def _plateaus(settings: TrainerSettings, losses: Sequence[float]) -> int:
    """Return how often the moving average of the loss has stopped to fall; as v1, the first epoch
    does not count.
    """
    best, bad, found = math.inf, 0, 0
    averages = itertools.accumulate(
        losses, lambda average, loss: _LOSS_MEMORY * average + (1 - _LOSS_MEMORY) * loss
    )
    for average in itertools.islice(averages, 1, None):
        better = average < best - settings.plateau_threshold
        best, bad = (average, 0) if better else (best, bad + 1)
        if bad > settings.plateau_patience:
            bad, found = 0, found + 1
    return found
