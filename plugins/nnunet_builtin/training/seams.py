"""What a trainer of one's own may do otherwise: each method is called at one place of the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nnunet_builtin.training import finetuning, optimization
from nnunet_builtin.training.sampling import PatchSampler
from nnunet_builtin.training.settings import TrainerSettings

if TYPE_CHECKING:
    import torch

    from nnunet_core.contracts.trainer import TrainingTask


class Training(Protocol):
    """A training that runs, as the methods of `Seams` see it.

    Attributes:
        network: What is trained, on its device.
        optimizer: What `Seams.make_optimizer` returned.
        modules: What `Seams.modules` returned.
        epoch: The current one, from 0.
        arrays: Extra arrays of the current batch on the device, {name: (B, K, *patch)}, augmented
            as the image is; empty if the prepared cases have none.
    """

    @property
    def network(self) -> torch.nn.Module: ...  # noqa: D102
    @property
    def optimizer(self) -> torch.optim.Optimizer: ...  # noqa: D102
    @property
    def modules(self) -> Mapping[str, torch.nn.Module]: ...  # noqa: D102
    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def arrays(self) -> Mapping[str, torch.Tensor]: ...  # noqa: D102

    def heads(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Apply the network to images (B, C, *patch); return logits (B, K, *resolution), full
        resolution first.

        Mixed precision and several processes are taken care of.
        """
        ...

    def compare(
        self,
        heads: Sequence[torch.Tensor],
        label: torch.Tensor,
        arrays: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the loss of logits and the label (B, 1, *patch), or region maps, over all
        resolutions; a scalar.

        A loss that uses extra arrays gets those of the batch, or the ones given here, at each
        resolution.
        """
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss, a scalar, to those of the network: scaled in float16,
        averaged over accumulated batches.

        A loss that is not finite ends the training after the step; no checkpoint has seen it.
        """
        ...

    def update(self) -> None:
        """Clip the gradients and let the optimiser change the weights; nothing while batches are
        accumulated.
        """
        ...


class Seams(TrainerSettings):
    """The methods of the V2 trainer that a subclass overrides to change one thing (docs:
    how-to/change-training).
    """

    def rate(self, epoch: int, losses: Sequence[float]) -> float:
        """Return the learning rate of an epoch; it is constant within one.

        Groups of the optimiser that were made with another rate than `trainer.learning_rate` keep
        their proportion to it.

        Args:
            epoch: From 0.
            losses: Mean training losses of the epochs before.
        """
        return optimization.learning_rate(self, epoch, losses)

    def make_optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of the network's weights; those without `requires_grad` are kept as
        they are.
        """
        return optimization.make_optimizer(self, parameters)

    def make_sampler(
        self, task: TrainingTask, names: Sequence[str], batch_size: int
    ) -> PatchSampler:
        """Return what draws patches from the cases of these names; it is pickled for the loader
        processes.

        It is called for the training and for the validation cases.
        """
        return PatchSampler(
            store=task.store,
            names=names,
            configuration=task.configuration,
            batch_size=batch_size,
            foreground_share=self.foreground_share,
            foreground=task.labels.foreground,
            previous=task.previous,
        )

    def initial_weights(
        self,
        task: TrainingTask,
        network: torch.nn.Module,  # noqa: ARG002
    ) -> Mapping[str, torch.Tensor]:
        """Return the tensors that a training with `--pretrained` starts from, on the CPU, under the
        names of the network's state dict.

        Those that the network lacks or has in another shape are left out, and named in
        pretrained.txt.

        Args:
            task: `task.initial.path` is the file, of the digest that was chosen.
            network: With the random weights that it would start from.
        """
        if task.initial is None:
            return {}
        return finetuning.read_initial_weights(Path(task.initial.path))

    def modules(self, network: torch.nn.Module) -> dict[str, torch.nn.Module]:  # noqa: ARG002
        """Return further modules that belong to the training, such as a teacher; checkpoints hold
        them.
        """
        return {}

    def training_loss(
        self, training: Training, images: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a training batch, a scalar with gradient.

        Args:
            training: The network and its loss.
            images: float32 (B, C, *patch), augmented, on the device.
            label: Integers (B, 1, *patch), or for regions bool maps (contracts.LossBuilder).
        """
        return training.compare(training.heads(images), label)

    def training_step(
        self, training: Training, images: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        """Learn from one batch, and return its loss, a scalar; arguments as of `training_loss`.

        Override it for more than one loss and one update: two backward passes, clipping of one's
        own.
        """
        loss = self.training_loss(training, images, label)
        training.backward(loss)
        training.update()
        return loss

    def updated(self, training: Training) -> None:
        """Do something after each update of the weights."""
