"""The V2 trainer: its settings, and training a fold."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from pathlib import Path

from nnunet_builtin.computing import ranks
from nnunet_builtin.computing.computation import computing
from nnunet_builtin.computing.devices import (
    ResolvedRuntime,
    resolve,
    with_exact_gradients,
)
from nnunet_builtin.training import finetuning
from nnunet_builtin.training.arrays import check_arrays
from nnunet_builtin.training.checkpoint import CHECKPOINT
from nnunet_builtin.training.loop import Loop
from nnunet_builtin.training.optimization import find_optimizer
from nnunet_builtin.training.seams import Seams
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.errors import UsageError
from nnunet_core.store.models import WEIGHTS


class TrainerV2(Seams):
    """Trains networks as nnU-Net v1's V2 trainer does (spec: training).

    Args:
        epochs, iterations_per_epoch, validation_iterations: Length of the training.
        batch_size: Samples per batch, of all processes together; null follows the plans.
        optimizer, optimizer_settings, learning_rate, weight_decay: `SGD` with Nesterov momentum,
            `Adam`, `AMSGrad`, `AdamW`, or `package.module:Class`; optimizer_settings are further
            arguments of it.
        momentum, final_momentum, momentum_epochs: Of SGD; it falls to final_momentum in the last
            momentum_epochs, unless that is null.
        schedule, poly_power, step_factor, plateau_patience, plateau_threshold: Of the learning
            rate: `poly` (1 - epoch / epochs) ** poly_power, `cosine` or `constant`; or `plateau`,
            times step_factor when the moving average of the training loss has not fallen by
            plateau_threshold in plateau_patience epochs.
        warmup_epochs, decay_start, step_epochs: The rate rises linearly in the first epochs; `poly`
            and `cosine` fall from decay_start on; any schedule is multiplied by step_factor at each
            of step_epochs.
        cycle_epochs, cycle_learning_rate: Epochs at the end, in which the rate rises to this one
            and falls again.
        gradient_clip: Largest L2 norm of all gradients together; null does not clip.
        accumulation: Batches whose gradients are averaged for one update.
        foreground_share: Share of each batch, from its end, that is centred on foreground.
        ema: Decay of a moving average of the weights, which is validated and kept instead of them;
            null keeps the weights.
        deep_supervision: Train the outputs of all resolutions, or the full one alone.
        checkpoint_interval: Epochs between checkpoints.
        early_stopping: Epochs without a better moving average of the Dice after which the training
            ends; null never.
        compile: Compile the network with PyTorch; where that fails it is said, and it runs as it
            is.
        deterministic: Reproducible operations on GPUs, where they exist; CPUs always are.
    """

    def train(self, task: TrainingTask) -> dict[str, str]:
        """Train one fold, or go on from its last checkpoint (contracts.Trainer).

        The final weights are written last: a fold that has them is trained. Started by `torchrun`,
        every process calls this; the first one writes.

        Raises:
            UsageError: Settings contradict each other, the device or precision does not exist, or
                the loss needs an extra array that the prepared cases do not have.
            TrainingError: The loss is not finite, a loader died again and again, or a case cannot
                be read.
            StoppedError: Ctrl-C or SIGTERM; the training is saved.
        """
        runtime = self._runtime(task)
        with ranks.joined(runtime.device), computing(runtime, self.deterministic):
            if ranks.told_by_first((task.folder / WEIGHTS).is_file()):
                (task.folder / CHECKPOINT).unlink(
                    missing_ok=True
                )  # left if the training was killed as it ended
                return {}
            Loop(self, task, runtime).open().run()
        return {
            "device": str(runtime.device),
            "precision": str(runtime.dtype).removeprefix("torch."),
            "threads": str(runtime.threads),
        }

    def try_rates(self, task: TrainingTask, rates: Sequence[float]) -> Generator[float, None, None]:
        """Train with a rate for each batch, and yield the losses (abilities.TriesRates).

        Accumulated batches (`accumulation`) are one update, with the rate of the last.
        """
        runtime = self._runtime(task)
        brief = copy.copy(self)
        brief.epochs, brief.iterations_per_epoch, brief.validation_iterations = 1, len(rates), 0
        with computing(runtime, self.deterministic):
            yield from Loop(brief, task, runtime).open().sweep(rates)

    def _runtime(self, task: TrainingTask) -> ResolvedRuntime:
        """Return what computes a task, after a look whether it can be trained."""
        self.check(task.runtime)
        check_arrays(task)
        asked, configuration = resolve(task.runtime), task.configuration
        runtime = with_exact_gradients(asked, configuration.network, configuration.patch_size)
        if runtime != asked:
            task.report.message(
                "training in float32: on CPU, bfloat16 is wrong for networks with 2 voxels or "
                "fewer along an axis"
            )
        return runtime

    def check(self, runtime: Runtime) -> None:
        """Raise UsageError where settings contradict each other, or the device or precision does
        not exist.
        """
        resolve(runtime)
        find_optimizer(self.optimizer)
        if self.warmup_epochs + self.cycle_epochs >= self.epochs and self.cycle_epochs:
            raise UsageError(
                f"trainer.warmup_epochs={self.warmup_epochs} and "
                f"trainer.cycle_epochs={self.cycle_epochs} leave none of "
                f"trainer.epochs={self.epochs} between them."
            )
        if self.early_stopping is not None and not self.validation_iterations:
            raise UsageError(
                "trainer.early_stopping needs the Dice of validation patches: "
                "trainer.validation_iterations is 0."
            )

    def find_weights(self, path: Path) -> Path:
        """Return the weights that a path stands for, also of nnU-Net v1 and v2
        (abilities.StartsFromWeights).
        """
        return finetuning.find_weights(path)
