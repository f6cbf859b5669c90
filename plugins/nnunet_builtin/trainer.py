"""The V2 trainer: its settings, training a fold, and applying what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from safetensors.torch import load_file

from nnunet_builtin import ranks
from nnunet_builtin.devices import placed, resolve
from nnunet_builtin.finetuning import Part
from nnunet_builtin.optimization import OptimizerName, Schedule, ScheduleName
from nnunet_builtin.sliding_window import predict_ensemble
from nnunet_builtin.training_loop import Loop, computing
from nnunet_core.errors import UsageError
from nnunet_core.interfaces import TrainedModel, TrainingTask
from nnunet_core.models import WEIGHTS, find_weights

Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]


class TrainerV2:
    """Trains and applies networks as nnU-Net v1's V2 trainer does (spec: training, inference).

    Args:
        epochs, iterations_per_epoch, validation_iterations: Length of the training.
        batch_size: Samples per batch, of all processes together; null follows the plans.
        optimizer, learning_rate, momentum, weight_decay: SGD with Nesterov momentum, Adam, AMSGrad or AdamW.
        schedule: Of the learning rate: `poly` (1 - epoch / epochs) ** poly_power, `cosine`, `constant`, or `steps`, times
            step_factor at each of step_epochs; warmup_epochs rise linearly before.
        gradient_clip: Largest L2 norm of all gradients together; null does not clip.
        accumulation: Batches whose gradients are averaged for one update.
        foreground_share: Share of each batch, from its end, that is centred on foreground.
        ema: Decay of a moving average of the weights, which is validated and kept instead of them; null keeps the weights.
        deep_supervision: Train the outputs of all resolutions, or the full one alone.
        checkpoint_interval: Epochs between checkpoints.
        early_stopping: Epochs without a better moving average of the Dice after which the training ends; null never.
        compile: Compile the network with PyTorch; where that fails it is said, and it runs as it is.
        deterministic: Reproducible operations on GPUs, where they exist; CPUs always are.
        pretrained: Weights file, or folder of a fold or model, to start from, also of nnU-Net v1 and v2;
            pretrained_digest pins its content.
        freeze: Part of the network that keeps its weights: `encoder`.
    """

    def __init__(
        self,
        epochs: PositiveInt = 1000,
        iterations_per_epoch: PositiveInt = 250,
        validation_iterations: NonNegativeInt = 50,
        batch_size: PositiveInt | None = None,
        optimizer: OptimizerName = "SGD",
        learning_rate: PositiveFloat = 0.01,
        momentum: Share = 0.99,
        weight_decay: NonNegativeFloat = 3e-5,
        schedule: ScheduleName = "poly",
        poly_power: NonNegativeFloat = 0.9,
        warmup_epochs: NonNegativeInt = 0,
        step_epochs: tuple[PositiveInt, ...] = (),
        step_factor: PositiveFloat = 0.1,
        gradient_clip: PositiveFloat | None = 12.0,
        accumulation: PositiveInt = 1,
        foreground_share: Share = 0.33,
        ema: Decay | None = None,
        deep_supervision: bool = True,
        checkpoint_interval: PositiveInt = 1,
        early_stopping: PositiveInt | None = None,
        compile: bool = False,  # noqa: A002
        deterministic: bool = False,
        pretrained: str | None = None,
        pretrained_digest: str | None = None,
        freeze: Part | None = None,
    ) -> None:
        self.epochs = epochs
        self.iterations_per_epoch = iterations_per_epoch
        self.validation_iterations = validation_iterations
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.poly_power = poly_power
        self.warmup_epochs = warmup_epochs
        self.step_epochs = step_epochs
        self.step_factor = step_factor
        self.gradient_clip = gradient_clip
        self.accumulation = accumulation
        self.foreground_share = foreground_share
        self.ema = ema
        self.deep_supervision = deep_supervision
        self.checkpoint_interval = checkpoint_interval
        self.early_stopping = early_stopping
        self.compile = compile
        self.deterministic = deterministic
        self.pretrained = pretrained
        self.pretrained_digest = pretrained_digest
        self.freeze = freeze

    def train(self, task: TrainingTask) -> dict[str, str]:
        """Train one fold, or go on from its last checkpoint (interfaces.Trainer).

        The final weights are written last: a fold that has them is trained. Started by `torchrun`, every process calls
        this; the first one writes.

        Raises:
            UsageError: Settings contradict each other, or the device or precision does not exist.
            TrainingError: The loss is not finite, a loader died again and again, or a case cannot be read.
            StoppedError: Ctrl-C or SIGTERM; the training is saved.
        """
        self._check()
        runtime = resolve(task.runtime)
        with ranks.joined(runtime.device), computing(runtime, self.deterministic):
            if ranks.told_by_first((task.folder / WEIGHTS).is_file()):
                return {}
            Loop(self, task, runtime).run()
        return {"device": str(runtime.device), "precision": str(runtime.dtype).removeprefix("torch.")}

    def _check(self) -> None:
        if self.early_stopping is not None and not self.validation_iterations:
            raise UsageError(
                "trainer.early_stopping needs the Dice of validation patches: trainer.validation_iterations is 0."
            )
        if self.freeze is not None and self.pretrained is None:
            raise UsageError(
                f"trainer.freeze={self.freeze} would keep random weights: give a model to start from, too (--pretrained)."
            )

    def predictor(self, model: TrainedModel) -> Callable[[np.ndarray], np.ndarray]:
        """Load every fold's weights; return images (C, *spatial) -> probabilities (K, *spatial) (interfaces.Trainer)."""
        runtime = resolve(model.runtime)
        networks = []
        for fold in model.folds:
            network = model.network.build(model.configuration.network)
            network.load_state_dict(load_file(fold / WEIGHTS))
            network.deep_supervision = False  # type: ignore[assignment]
            networks.append(placed(network, runtime, model.configuration.dimensions).eval())

        axes = tuple(range(model.configuration.dimensions)) if model.mirror_axes is None else model.mirror_axes

        def predict(images: np.ndarray) -> np.ndarray:
            with computing(runtime, deterministic=False), torch.inference_mode():
                return predict_ensemble(
                    networks,
                    images,
                    patch_size=model.configuration.patch_size,
                    runtime=runtime,
                    regions=bool(model.labels.regions),
                    mirror_axes=axes if model.mirroring else (),
                    step_size=model.step_size,
                )

        return predict

    def schedule_of(self) -> Schedule:
        """Return the learning rate of every epoch."""
        return Schedule(
            self.schedule,
            self.learning_rate,
            self.epochs,
            self.warmup_epochs,
            self.poly_power,
            self.step_epochs,
            self.step_factor,
        )

    def pretrained_file(self) -> Path:
        """Return the weights file of `pretrained`."""
        return find_weights(Path(self.pretrained or ""))
