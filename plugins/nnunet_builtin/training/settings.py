"""The settings of the V2 trainer, described at `trainer.TrainerV2` (spec: training, sections 1 and
11).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from nnunet_core.data.limits import BatchSize, Count, CountFromZero

ScheduleName = Literal["poly", "cosine", "constant", "plateau"]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]


@dataclass
class TrainerSettings:
    """Settings of a training; they do not depend on the dataset."""

    epochs: Count = 1000
    iterations_per_epoch: Count = 250
    validation_iterations: CountFromZero = 50
    batch_size: BatchSize | None = None
    optimizer: str = "SGD"
    optimizer_settings: dict[str, Any] = field(default_factory=dict)
    learning_rate: PositiveFloat = 0.01
    momentum: Share = 0.99
    final_momentum: Share | None = None
    momentum_epochs: Count = 200
    weight_decay: NonNegativeFloat = 3e-5
    schedule: ScheduleName = "poly"
    poly_power: NonNegativeFloat = 0.9
    warmup_epochs: CountFromZero = 0
    decay_start: CountFromZero = 0
    step_epochs: tuple[Count, ...] = ()
    step_factor: PositiveFloat = 0.1
    plateau_patience: Count = 30
    plateau_threshold: NonNegativeFloat = 1e-3
    cycle_epochs: CountFromZero = 0
    cycle_learning_rate: PositiveFloat = 1e-3
    gradient_clip: PositiveFloat | None = 12.0
    accumulation: Count = 1
    foreground_share: Share = 0.33
    ema: Decay | None = None
    deep_supervision: bool = True
    checkpoint_interval: Count = 1
    early_stopping: Count | None = None
    compile: bool = False
    deterministic: bool = False
