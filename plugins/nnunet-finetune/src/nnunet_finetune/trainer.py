"""The trainer that starts from the weights of another model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import PositiveFloat

from nnunet_builtin.training.seams import Training
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.data.limits import CountFromZero
from nnunet_core.errors import UsageError
from nnunet_finetune.channels import match_inputs
from nnunet_finetune.nnssl import read_encoder

_HEADS = "heads."
# of MultiTalent and nnssl, whose trainings have 1000 epochs
_FIRST_SHARE, _WARMUP_SHARE = 0.01, 0.05


@dataclass
class Finetune(TrainerV2):
    """Trains from the weights of `--pretrained`, with two warm-ups (Ulrich et al. 2023,
    MultiTalent; Wald et al. 2024, OpenMind).

    First, parts of the network learn alone, with a rate that rises linearly to `learning_rate`.
    Then all of it does, with a rate that rises again, and falls as that of `v2` to the end. A
    first convolution for another number of channels is repeated; heads are new. Other settings are
    those of `v2`; epochs in them count from the end of the first part.

    Args:
        learning_rate: The largest; a tenth of a training from random weights.
        first_parts: Parts of the network (names of its children) that learn alone at first: `heads`
            after a supervised training; upsampling, decoder and heads after one of the encoder
            alone.
        first_epochs: How long; null is 1 % of the epochs.
        warmup_epochs: In which the rate of the whole network rises; null is 5 % of the epochs.
        new_heads: Initialise heads anew even where those of the file would fit; false goes on with
            them, for a model of the same classes.
    """

    learning_rate: PositiveFloat = 1e-3
    first_parts: tuple[str, ...] = ("heads",)
    first_epochs: CountFromZero | None = None
    warmup_epochs: CountFromZero | None = None  # type: ignore[assignment]  # null is allowed here
    new_heads: bool = True

    def train(self, task: TrainingTask) -> dict[str, str]:
        """Train one fold, or go on from its last checkpoint (contracts.Trainer)."""
        if task.initial is None:
            task.report.warning(
                "fine-tuning starts from random weights: give a model to start from (--pretrained)"
            )
        return super().train(task)

    def check(self, runtime: Runtime) -> None:
        """Raise UsageError where settings contradict each other, or the device or precision does
        not exist (abilities.ChecksRuntime).
        """
        if self._first + self._warmup >= self.epochs:
            raise UsageError(
                f"trainer.first_epochs={self._first} and trainer.warmup_epochs={self._warmup} "
                f"leave none of trainer.epochs={self.epochs} after them. Lower them; null takes "
                "1 % and 5 % of the epochs."
            )
        TrainerV2.check(self._after_first(), runtime)

    def rate(self, epoch: int, losses: Sequence[float]) -> float:
        """Return the learning rate of an epoch (Seams)."""
        if epoch < self._first:
            return self.learning_rate * (epoch + 1) / self._first
        rest = self._after_first()
        return TrainerV2.rate(rest, epoch - self._first, losses[self._first :])

    def modules(self, network: torch.nn.Module) -> dict[str, torch.nn.Module]:
        """Check that the network has the parts that learn first (Seams)."""
        there = [name for name, child in network.named_children() if list(child.parameters())]
        missing = [name for name in self.first_parts if name not in there]
        if self._first and (missing or not self.first_parts):
            raise UsageError(
                f"trainer.first_parts={list(self.first_parts)} must name parts of the network; it "
                f"has {', '.join(there)}. Without a first part: --set trainer.first_epochs=0."
            )
        return super().modules(network)

    def initial_weights(
        self, task: TrainingTask, network: torch.nn.Module
    ) -> Mapping[str, torch.Tensor]:
        """Return the tensors to start from (Seams): of this project, nnU-Net v1 and v2, or an
        encoder of nnssl.
        """
        encoder = None if task.initial is None else read_encoder(Path(task.initial.path))
        found = dict(super().initial_weights(task, network) if encoder is None else encoder)
        if self.new_heads:
            found = {name: found[name] for name in found if not name.startswith(_HEADS)}
        self._match_stem(found, task, network)
        return found

    def training_step(
        self, training: Training, images: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        """Learn from one batch; at first, only what learns first (Seams)."""
        loss = self.training_loss(training, images, label)
        training.backward(loss)
        if training.epoch < self._first:
            for name, weight in training.network.named_parameters():
                if name.partition(".")[0] not in self.first_parts:
                    weight.grad = None  # an optimiser leaves out weights without a gradient
        training.update()
        return loss

    @property
    def _first(self) -> int:
        own = self.first_epochs
        return round(_FIRST_SHARE * self.epochs) if own is None else own

    @property
    def _warmup(self) -> int:
        own = self.warmup_epochs
        return round(_WARMUP_SHARE * self.epochs) if own is None else own

    def _after_first(self) -> Finetune:
        """Return the settings of the training of the whole network, whose epochs count from 0."""
        return replace(
            self,
            epochs=self.epochs - self._first,
            first_epochs=0,
            warmup_epochs=self._warmup,
        )

    def _match_stem(
        self, found: dict[str, torch.Tensor], task: TrainingTask, network: torch.nn.Module
    ) -> None:
        """Replace the first convolution by one for the channels of the network, if only they
        differ.
        """
        own = network.state_dict()
        first = next((name for name, tensor in own.items() if tensor.ndim > 3), None)
        if first is None or first not in found:
            return
        here, there = own[first].shape, found[first].shape
        if here[1] == there[1] or (here[0], *here[2:]) != (there[0], *there[2:]):
            return
        images = len(task.configuration.normalization)
        found[first] = match_inputs(found[first], images, here[1])
        task.report.message(
            f"pretrained weights: {first} of {there[1]} channels is now of {images}"
        )
