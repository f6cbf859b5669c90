"""The training of one fold: iterations, epochs, online evaluation, checkpoints (spec: training,
sections 1 and 7).
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunet_builtin.computing import ranks
from nnunet_builtin.computing.compilation import compile_in_place
from nnunet_builtin.computing.devices import ResolvedRuntime, autocast, memory_format
from nnunet_builtin.computing.heads import heads_of, set_deep_supervision
from nnunet_builtin.computing.trial import heads_on_zeros
from nnunet_builtin.losses.deep_supervision import DeepSupervisionLoss, targets, weights
from nnunet_builtin.losses.dice_ce import region_maps
from nnunet_builtin.losses.resolutions import at_resolutions
from nnunet_builtin.networks.placing import placed
from nnunet_builtin.networks.summary import describe_network
from nnunet_builtin.training.arrays import joined, one_sample
from nnunet_builtin.training.checkpoint import (
    CHECKPOINT,
    Progress,
    State,
    Writer,
    averaged_weights,
    read_checkpoint,
    readable,
    write_checkpoint,
)
from nnunet_builtin.training.finetuning import (
    check_unchanged,
    freeze,
    freeze_parameters,
    hold_frozen_layers,
    transfer,
)
from nnunet_builtin.training.first_batch import count_heads
from nnunet_builtin.training.loading import BatchDataset, Iteration, batches, steps_of
from nnunet_builtin.training.optimization import momentum
from nnunet_builtin.training.progress import progress_picture
from nnunet_core.contracts.abilities import AugmentsTensors, UsesArrays, ability
from nnunet_core.errors import StoppedError, TrainingError
from nnunet_core.runtime import files
from nnunet_core.runtime.signals import stop_requests
from nnunet_core.store.models import WEIGHTS

if TYPE_CHECKING:
    from nnunet_builtin.training.seams import Seams
    from nnunet_core.contracts.trainer import TrainingTask
    from nnunet_core.runtime.reporting import Tracker

BEST_WEIGHTS = "weights_best.safetensors"
METRICS = "metrics.jsonl"
PROGRESS = "progress.png"
#: Where an optimiser's group keeps the rate that it was made with, as PyTorch's schedulers do.
INITIAL_RATE = "initial_lr"
_DICE_MEMORY = 0.9
_HOPELESS_EPOCHS = 101
_PICTURE_SECONDS = (
    30  # at least, between two pictures of the progress; one takes a third of a second
)


class Loop:
    """One training, from its last checkpoint or from the start, to its weights file."""

    def __init__(self, settings: Seams, task: TrainingTask, runtime: ResolvedRuntime) -> None:
        self.settings = settings
        self.task = task
        self.runtime = runtime
        self.batch_size = settings.batch_size or task.configuration.batch_size
        self.classes = len(task.labels.regions) or len(task.labels.foreground)
        self.precision = functools.partial(autocast, runtime)
        self.drawn = -math.inf
        self.arrays: dict[str, torch.Tensor] = {}
        self.like: dict[str, str] = {}
        self.heads_built, self.has_deep_supervision = 0, False
        self.names: list[str] = []
        self.share, self.updating = 1, True
        self.learnt: list[torch.Tensor] = []  # losses of the batch that gradients were taken of

    def open(self) -> Loop:
        """Build network, optimiser and loss, or restore them from the last checkpoint; return the
        loop.

        Raises:
            TrainingError: The network, the weights to start from or the checkpoint do not fit.
        """
        self.writer = Writer()
        self.state = self._initial_state()
        self.loss = self._loss()
        self.forward = self._forward()
        return self

    def run(self) -> None:
        """Train to the end, once it is open.

        Raises:
            StoppedError: Ctrl-C or SIGTERM; everything is saved.
            TrainingError: The training cannot go on.
        """
        state, settings = self.state, self.settings
        if self.runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.runtime.device)
        per_epoch = settings.iterations_per_epoch + settings.validation_iterations
        done = state.epoch * per_epoch + state.progress.position
        title = f"train {self.task.folder.name}"
        with (
            stop_requests() as stop,
            self.task.report.track(title, settings.epochs * per_epoch, done) as tracker,
        ):
            stream = self._stream()
            try:
                while state.epoch < settings.epochs and not self._is_stale():
                    self._epoch(stream, tracker, lambda: ranks.any_of(stop.signal is not None))
                    if ranks.any_of(stop.signal is not None):
                        self._stop(stop.signal)
            finally:
                stream.close()
                self.writer.close()
        if ranks.rank() == 0:
            progress_picture(state.metrics, self.task.folder / PROGRESS)
            files.write_bytes(self.task.folder / WEIGHTS, state.weights())
            (self.task.folder / CHECKPOINT).unlink(missing_ok=True)

    def sweep(self, rates: Sequence[float]) -> Iterator[float]:
        """Learn from one batch with each learning rate, once it is open; yield its loss, which may
        be infinite or NaN. Nothing is validated or written.
        """
        settings, stream = self.settings, self._stream()
        self.loss.set_epoch(0)
        try:
            for rate, (step, batch) in zip(rates, stream, strict=True):
                self._set_rate(rate)
                updating = (step.index + 1) % settings.accumulation == 0
                yield self._training_step(step, batch, updating)
        finally:
            stream.close()
            self.writer.close()

    def _initial_state(self) -> State:
        """Return the state of a new training, or of the last checkpoint."""
        settings, task, runtime = self.settings, self.task, self.runtime
        torch.manual_seed(task.seed)
        network = task.network.build(task.configuration.network)
        path = task.folder / CHECKPOINT
        content = read_checkpoint(path) if path.is_file() else None
        if content is None:
            self._start_from_weights(network)
        else:
            with readable(path):
                freeze_parameters(network, content["frozen"])
        network = placed(network, runtime, task.configuration.dimensions)
        outputs = task.configuration.network.output_channels
        self.heads_built = count_heads(
            network, self._shape, outputs, runtime.device, self.precision
        )
        self.has_deep_supervision = set_deep_supervision(network, settings.deep_supervision)
        optimizer = settings.make_optimizer(network.parameters())
        for group in optimizer.param_groups:
            group.setdefault(INITIAL_RATE, group["lr"])
        scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == torch.float16)
        average = None if settings.ema is None else averaged_weights(network, settings.ema)
        modules = settings.modules(network)
        state = State(network, optimizer, scaler, self._no_progress(), average, modules)
        if content is not None:
            state.restore(content, path)
            if ranks.rank() > 0:
                state.progress.counts[:] = 0  # they are those of all processes
            task.report.message(
                f"going on after epoch {state.epoch} of {settings.epochs}"
                + (f" and {state.progress.position} batches" if state.progress.position else "")
                + f": {path}"
            )
        elif ranks.rank() == 0:
            describe_network(network, task, self.batch_size)
        return state

    def _start_from_weights(self, network: torch.nn.Module) -> None:
        """Take over what fits of the weights that the task names, and keep the parts that it names
        as they are.
        """
        initial = self.task.initial
        if initial is None:
            return
        path = Path(initial.path)
        check_unchanged(path, initial.digest)
        report = transfer(network, self.settings.initial_weights(self.task, network), path)
        lines = report.lines()
        for part in initial.frozen:
            frozen = freeze(network, part, report.skipped)
            count = sum(network.get_parameter(name).numel() for name in frozen)
            lines.append(f"frozen: what was loaded of the {part}, {count} parameters")
        if ranks.rank() == 0:
            files.write_text(self.task.folder / "pretrained.txt", "\n".join(lines) + "\n")
        for line in lines:
            self.task.report.message(line)

    def _no_progress(self) -> Progress:
        return Progress(np.zeros((3, self.classes)))

    def _forward(self) -> Callable[[torch.Tensor], Any]:
        """Return the network, compiled if asked, that averages its gradients over all processes."""
        network = self.state.network
        device = self.runtime.device
        wanted = self.settings.deep_supervision
        if ranks.world_size() == 1 and not self.settings.compile:
            return network

        @contextlib.contextmanager
        def every_head() -> Iterator[list[torch.Tensor]]:
            if self.has_deep_supervision:
                network.deep_supervision = True  # type: ignore[assignment]
            with heads_on_zeros(network, self._shape, device, self.precision) as heads:
                yield heads
            set_deep_supervision(network, wanted)

        trained = [
            head for head, weight in enumerate(weights(self.heads_built if wanted else 1)) if weight
        ]
        if self.settings.compile:
            compile_in_place(network, self._shape, device, self.precision, self.task.report)
        return ranks.distributed_network(network, device, trained, every_head)

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of the batches of this process, (B, C, *patch)."""
        configuration = self.task.configuration
        samples = self.batch_size // ranks.world_size() or 1
        return (samples, configuration.network.input_channels, *configuration.patch_size)

    def _loss(self) -> DeepSupervisionLoss:
        task = self.task
        one = task.loss.build(
            batch_dice=task.configuration.batch_dice,
            ignore_label=task.labels.ignore,
            regions=bool(task.labels.regions),
        )
        return DeepSupervisionLoss(one)

    def _stream(self) -> Any:
        task, settings = self.task, self.settings
        training, validation = (
            settings.make_sampler(task, names, self.batch_size)
            for names in (task.training, task.validation)
        )
        dataset = BatchDataset(
            training=training,
            validation=validation,
            augmentation=task.augmentation,
            configuration=task.configuration,
            seed=task.seed,
            positions=ranks.own_part(self.batch_size),
        )
        epochs = range(self.state.epoch, settings.epochs)
        steps = steps_of(
            epochs,
            settings.iterations_per_epoch,
            settings.validation_iterations,
            self.state.progress.position,
        )
        pinned = self.runtime.device.type == "cuda"
        return batches(dataset, steps, self.runtime.workers, task.report, pinned=pinned)

    def _epoch(
        self,
        stream: Iterator[tuple[Iteration, dict]],
        tracker: Tracker,
        stopping: Callable[[], bool],
    ) -> None:
        """Run an epoch to its end, or until somebody asks to stop."""
        progress, settings = self.state.progress, self.settings
        self._set_rates()
        last = settings.iterations_per_epoch - 1
        while progress.position < settings.iterations_per_epoch + settings.validation_iterations:
            started = time.perf_counter()
            step, batch = next(stream)
            progress.waited += time.perf_counter() - started
            if step.training:
                updating = (step.index + 1) % settings.accumulation == 0 or step.index == last
                value = self._training_step(step, batch, updating)
                progress.training_losses.append(self._finite(value))
            else:
                updating = True
                progress.validation_losses.append(self._validation_step(batch))
            progress.position += 1
            progress.seconds += time.perf_counter() - started
            tracker.advance(1)
            if updating and stopping():
                return
        self._finish_epoch(tracker)

    def _set_rates(self) -> None:
        """Set the learning rate of the epoch, and its momentum and loss where these change."""
        state = self.state
        self.loss.set_epoch(state.epoch)
        losses = [line["train_loss"] for line in state.metrics]
        rate = self.settings.rate(state.epoch, losses)
        falling = momentum(self.settings, state.epoch)
        self._set_rate(rate)
        for group in state.optimizer.param_groups:
            if falling is not None and "momentum" in group:
                # it may be lower, see _start_over
                group["momentum"] = min(group["momentum"], falling)

    def _set_rate(self, rate: float) -> None:
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group[INITIAL_RATE] / self.settings.learning_rate

    def _training_step(self, step: Iteration, batch: dict[str, Any], updating: bool) -> float:
        """Learn from a batch, and return its loss, or that of its losses which is not finite."""
        state, settings = self.state, self.settings
        self.names, self.share, self.updating = batch["names"], self._accumulated(step), updating
        state.network.train()
        if self.task.initial is not None and self.task.initial.frozen:
            hold_frozen_layers(state.network)
        images, label = self._on_device(batch, training=True)
        if step.index % settings.accumulation == 0:
            state.optimizer.zero_grad(set_to_none=True)
        self.learnt.clear()
        with ranks.gradients_at(self.forward, updating):
            value = settings.training_step(self, images, label)
        # reading it waits for the device, so this comes last: a look at it before the backward pass
        # would leave a GPU idle for a twentieth of the step
        found = float(value.detach())
        losses = (*map(float, self.learnt), found)
        return next((loss for loss in losses if not math.isfinite(loss)), found)

    def _finite(self, loss: float) -> float:
        """Return the loss of a batch.

        Raises:
            TrainingError: It is not finite.
        """
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss of epoch {self.state.epoch + 1} became {loss} (cases "
                f"{', '.join(self.names)}). Check these cases with 'nnunet dataset verify', lower "
                "trainer.learning_rate, or train with --precision float32."
            )
        return loss

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a batch's loss (seams.Training)."""
        self.learnt.append(loss.detach())
        self.state.scaler.scale(loss / self.share).backward()

    def update(self) -> None:
        """Change the weights, if this batch is the last of an update (seams.Training)."""
        state, settings = self.state, self.settings
        if not self.updating:
            return
        state.scaler.unscale_(state.optimizer)
        if settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(state.network.parameters(), settings.gradient_clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update_parameters(state.network)
        settings.updated(self)

    def _accumulated(self, step: Iteration) -> int:
        """Return the number of batches whose gradients make up the update that a step belongs
        to.
        """
        first = step.index - step.index % self.settings.accumulation
        return min(self.settings.accumulation, self.settings.iterations_per_epoch - first)

    # looked up once: the search for misspelt names takes a millisecond

    @functools.cached_property
    def _on_tensors(self) -> AugmentsTensors | None:
        return ability(self.task.augmentation, AugmentsTensors)

    @functools.cached_property
    def _loss_uses_arrays(self) -> bool:
        return ability(self.task.loss, UsesArrays) is not None

    @property
    def network(self) -> torch.nn.Module:
        """The network that is trained (seams.Training)."""
        return self.state.network

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What `Seams.make_optimizer` returned (seams.Training)."""
        return self.state.optimizer

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Further modules of the training (seams.Training)."""
        return self.state.modules

    @property
    def epoch(self) -> int:
        """The current epoch (seams.Training)."""
        return self.state.epoch

    def heads(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits of a training batch (seams.Training)."""
        return self._heads(self.forward, images)

    def compare(
        self,
        heads: Sequence[torch.Tensor],
        label: torch.Tensor,
        arrays: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the loss over all resolutions (seams.Training)."""
        sizes = [head.shape[2:] for head in heads]
        labels = targets(label, sizes)
        further: list[Any] = []
        if self._loss_uses_arrays:
            given = self.arrays if arrays is None else arrays
            further.append(at_resolutions(given, self.like, sizes))
        value: torch.Tensor = self.loss(heads, labels, *further)
        return value

    def _heads(
        self, forward: Callable[[torch.Tensor], Any], images: torch.Tensor
    ) -> list[torch.Tensor]:
        with autocast(self.runtime):
            heads = heads_of(forward(images))
        return heads if self.settings.deep_supervision else heads[:1]

    @torch.no_grad()
    def _validation_step(self, batch: dict[str, Any]) -> float:
        """Return the loss, and count TP, FP and FN of the full-resolution head over the batch."""
        images, label = self._on_device(batch, training=False)
        heads = self._heads(self.state.best_network.eval(), images)
        self.state.progress.counts += _counts(heads[0], label, self.task)
        return float(self.compare(heads, label))

    def _on_device(
        self, batch: dict[str, Any], training: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images, and the label (B, 1, *patch) or the binary maps of the regions (B, R,
        *patch); keep the arrays.
        """
        task, device = self.task, self.runtime.device
        moved: dict[str, Any] = {
            key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
        }
        arrays = batch.get("arrays", {})
        if arrays:
            moved["arrays"] = {k: v.to(device, non_blocking=True) for k, v in arrays.items()}
        if training and self._on_tensors is not None:
            moved = self._augmented(self._on_tensors, moved)
        self.arrays, self.like = moved.get("arrays", {}), moved.get("like", {})
        order = memory_format(self.runtime, task.configuration.dimensions)
        images, label = moved["images"].to(memory_format=order), moved["label"]
        if task.labels.regions:
            label = region_maps(label, task.labels.regions, task.labels.ignore)
        return images, label

    def _augmented(self, augmentation: AugmentsTensors, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch after an augmentation on tensors, sample by sample, each with its own
        seed.
        """
        configuration = self.task.configuration
        try:
            samples = [
                augmentation.augment_tensors(one_sample(batch, index), configuration, seed)
                for index, seed in enumerate(batch["seeds"])
            ]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise TrainingError(
                f"A batch of the cases {', '.join(batch['names'])} cannot be augmented: "
                f"{type(error).__name__}: {error}"
            ) from error
        return joined(samples, batch, augmentation, torch.cat)

    def _finish_epoch(self, tracker: Tracker) -> None:
        """Update averages; write metrics, picture, best weights and checkpoint beside the next
        epoch.
        """
        state, settings = self.state, self.settings
        self._check_weights()
        line = self._metrics_line()
        state.dice_average = _moving(state.dice_average, line["mean_dice"], _DICE_MEMORY)
        line["mean_dice_average"] = state.dice_average
        state.metrics.append(line)
        state.epoch += 1
        state.progress = self._no_progress()
        better = state.best_dice is None or (
            state.dice_average is not None and state.dice_average > state.best_dice
        )
        state.best_dice = state.dice_average if better else state.best_dice
        state.stale_epochs = 0 if better else state.stale_epochs + 1
        if state.epoch == _HOPELESS_EPOCHS and line["mean_dice"] == 0:
            _start_over(self.task, state)
        if ranks.rank() == 0:
            due = state.epoch % settings.checkpoint_interval == 0 or state.epoch == settings.epochs
            self._write(state.snapshot() if due else None, state.weights() if better else None)
        tracker.advance(0, _detail(line, settings.epochs))
        self.task.epoch_finished(line)

    def _check_weights(self) -> None:
        """Raise before weights that are not finite take the place of the last checkpoint."""
        if not all(
            bool(tensor.isfinite().all()) for tensor in self.state.network.state_dict().values()
        ):
            raise TrainingError(
                f"Weights became infinite or NaN in epoch {self.state.epoch + 1}; the last "
                "checkpoint, if there is one, is kept. Lower trainer.learning_rate, or train with "
                "--precision float32."
            )

    def _metrics_line(self) -> dict[str, Any]:
        """Return one line of metrics.jsonl; the Dice is pooled over the epoch's patches (spec:
        training, section 7).
        """
        state, progress = self.state, self.state.progress
        counts = ranks.summed(progress.counts)
        dice, mean_dice = _dice(counts)
        line = {
            "epoch": state.epoch + 1,  # as people count them; state.epoch is how many are finished
            "train_loss": _mean(ranks.averaged(progress.training_losses)),
            "validation_loss": _mean(ranks.averaged(progress.validation_losses)),
            "dice": dice,
            "mean_dice": mean_dice,
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "seconds": round(progress.seconds, 3),
            "data_wait": round(progress.waited / max(progress.seconds, 1e-9), 4),
        }
        if self.runtime.device.type == "cuda":
            line["gpu_memory_gb"] = round(
                torch.cuda.max_memory_allocated(self.runtime.device) / 1e9, 3
            )
        return line

    def _write(self, snapshot: dict[str, Any] | None, best: bytes | None) -> None:
        folder, metrics = self.task.folder, list(self.state.metrics)
        drawing = time.monotonic() - self.drawn >= _PICTURE_SECONDS
        self.drawn = time.monotonic() if drawing else self.drawn

        def write() -> None:
            if best is not None:
                files.write_bytes(folder / BEST_WEIGHTS, best)
            files.write_text(folder / METRICS, "".join(json.dumps(line) + "\n" for line in metrics))
            if snapshot is not None:
                write_checkpoint(
                    folder, snapshot
                )  # last: a training that goes on has the rest of its epochs
            if drawing:
                progress_picture(metrics, folder / PROGRESS)

        self.writer.submit(write)

    def _is_stale(self) -> bool:
        """Return whether early stopping ends the training."""
        patience = self.settings.early_stopping
        if patience is None or self.state.stale_epochs < patience:
            return False
        self.task.report.message(
            f"no better Dice in {patience} epochs: the training ends after epoch {self.state.epoch}"
        )
        return True

    def _stop(self, number: int | None) -> None:
        self._check_weights()
        state, progress, settings = self.state, self.state.progress, self.settings
        progress.counts = ranks.summed(progress.counts)
        progress.training_losses = ranks.averaged(progress.training_losses)
        progress.validation_losses = ranks.averaged(progress.validation_losses)
        if ranks.rank() == 0:
            self.writer.wait()
            write_checkpoint(self.task.folder, state.snapshot())
            if state.metrics:
                progress_picture(state.metrics, self.task.folder / PROGRESS)
        ranks.told_by_first(
            True
        )  # no process ends before everything is saved: torchrun would end the others
        raise StoppedError(
            f"Stopped in epoch {min(state.epoch + 1, settings.epochs)} of {settings.epochs}, after "
            f"{state.progress.position} batches; everything is saved in {self.task.folder}. Run "
            "the same command again to go on.",
            number,
        )


def _start_over(task: TrainingTask, state: State) -> None:
    """Initialise anew with less momentum when 101 epochs found no foreground at all (spec:
    training, section 1).
    """
    task.report.warning(
        "No foreground was found in 101 epochs: the weights are initialised anew, momentum is now "
        "0.95."
    )
    fresh = task.network.build(task.configuration.network).state_dict()
    weights = {
        name for name, parameter in state.network.named_parameters() if parameter.requires_grad
    }
    convolutions = {name.rpartition(".")[0] for name in weights if fresh[name].ndim > 1}
    anew = {name: fresh[name] for name in weights if name.rpartition(".")[0] in convolutions}
    state.network.load_state_dict(anew, strict=False)
    if state.average is not None:
        state.average.module.load_state_dict(state.network.state_dict())
        state.average.n_averaged.zero_()
    for group in state.optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = 0.95


def _counts(logits: torch.Tensor, label: torch.Tensor, task: TrainingTask) -> np.ndarray:
    """Return TP, FP, FN (3, foreground) over a batch."""
    regions = len(task.labels.regions)
    if regions:
        predicted, expected = logits > 0, label[:, :regions]
    else:
        classes = torch.tensor(task.labels.foreground, device=label.device).view(
            1, -1, *[1] * (label.ndim - 2)
        )
        predicted, expected = logits.argmax(1, keepdim=True) == classes, label == classes
    if task.labels.ignore is not None:
        seen = ~label[:, regions:] if regions else label != task.labels.ignore
        predicted, expected = predicted & seen, expected & seen
    axes = [0, *range(2, label.ndim)]
    found = [predicted & expected, predicted & ~expected, ~predicted & expected]
    return np.stack([count.sum(axes).cpu().numpy() for count in found]).astype(float)


def _dice(counts: np.ndarray) -> tuple[list[float | None], float | None]:
    """Return the Dice per class, None where there is nothing, and its mean over the others."""
    tp, fp, fn = counts
    size = 2 * tp + fp + fn
    dice = [float(2 * t / s) if s else None for t, s in zip(tp, size, strict=True)]
    present = [value for value in dice if value is not None]
    return dice, _mean(present)


def _detail(line: dict[str, Any], epochs: int) -> str:
    validation, dice = line["validation_loss"], line["mean_dice"]
    return (
        f"epoch {line['epoch']}/{epochs}  loss {line['train_loss']:.4f}"
        + (f" / {validation:.4f}" if validation is not None else "")
        + (f"  Dice {dice:.4f}" if dice is not None else "")
        + f"  lr {line['learning_rate']:.2e}  {line['seconds']:.1f} s"
    )


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _moving(average: float | None, value: float | None, weight: float) -> float | None:
    if value is None:
        return average
    return value if average is None else weight * average + (1 - weight) * value
