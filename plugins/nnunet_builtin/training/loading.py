"""The stream of training and validation batches, made in worker processes (spec: training, sections
4 and 5).

Every batch has its own seed, made from the run's seed and the batch's place in the training, and
every sample of it. Neither the number of workers, nor the place at which a training goes on, nor
the number of training processes changes what is in it.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import psutil
import torch
from threadpoolctl import ThreadpoolController, threadpool_limits
from torch.utils.data import DataLoader, Dataset

from nnunet_builtin.augmentation.cascade import append_previous
from nnunet_builtin.computing.allocation import keep_freed_memory
from nnunet_builtin.training import arrays
from nnunet_core.contracts.abilities import AugmentsTensors, ability
from nnunet_core.errors import NnunetError, TrainingError
from nnunet_core.runtime.signals import leave_interrupts_to_parent

if TYPE_CHECKING:
    from nnunet_builtin.training.sampling import PatchSampler
    from nnunet_core.contracts.augmentation import Augmentation
    from nnunet_core.data.plans import Configuration
    from nnunet_core.runtime.reporting import Reporter

#: Seconds without a batch after which the loaders count as stuck.
PATIENCE = 50.0
_CHECK_SECONDS = 2
_PREFETCH = 3
_ATTEMPTS = 3
_STARTING = 3  # times as patient with workers that have just been started, and import libraries
_SECONDS_TO_LIVE = 60  # of a loader after SIGTERM, which batch systems send to every process
_USE_FEWER = "Use fewer loader processes (--workers; 0 loads in the training process)."


@dataclass(frozen=True)
class Iteration:
    """The place of a batch in the training.

    Attributes:
        epoch: From 0.
        index: From 0 in each epoch, for training and for validation.
        training: Whether it is a training batch.
    """

    epoch: int
    index: int
    training: bool

    def __str__(self) -> str:
        kind = "training" if self.training else "validation"
        return f"batch {self.index + 1} of epoch {self.epoch + 1} ({kind})"


@dataclass(frozen=True)
class Failure:
    """Why a batch could not be made; what a worker hands over in its place."""

    message: str
    trace: str


@dataclass(frozen=True)
class Steps(Sequence[Iteration]):
    """The batches of a training in the order of their use: of every epoch, training first.

    Each is made when it is asked for: the length of a training costs no memory.

    Attributes:
        places: Of the batches, counted from the first one of epoch 0.
        training_iterations: Training batches per epoch.
        validation_iterations: Validation batches per epoch.
    """

    places: range
    training_iterations: int
    validation_iterations: int

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Iteration: ...
    @overload
    def __getitem__(self, index: slice) -> Steps: ...
    def __getitem__(self, index: int | slice) -> Iteration | Steps:
        if isinstance(index, slice):
            return replace(self, places=self.places[index])
        per_epoch = self.training_iterations + self.validation_iterations
        epoch, place = divmod(self.places[index], per_epoch)
        training = place < self.training_iterations
        return Iteration(epoch, place if training else place - self.training_iterations, training)


def steps_of(
    epochs: range, training_iterations: int, validation_iterations: int, position: int = 0
) -> Steps:
    """Return the batches of some epochs.

    Args:
        epochs: Numbers of the epochs, one after the other.
        training_iterations: Training batches per epoch.
        validation_iterations: Validation batches per epoch.
        position: Batches of the first epoch to leave out.
    """
    per_epoch = training_iterations + validation_iterations
    first = epochs.start * per_epoch + position
    places = range(first, max(first, epochs.stop * per_epoch))
    return Steps(places, training_iterations, validation_iterations)


class BatchDataset(Dataset[Any]):
    """Makes the batch of a step: the same one in any process.

    Args:
        training, validation: Samplers of the fold's cases.
        augmentation: Of training batches. One with `augment_tensors` is left to the training
            process, which has the GPU.
        configuration: Of the patches.
        seed: Of the run, not negative.
        positions: Samples of every batch to make, for one of several training processes; None makes
            all.
    """

    def __init__(
        self,
        training: PatchSampler,
        validation: PatchSampler,
        augmentation: Augmentation,
        configuration: Configuration,
        seed: int,
        positions: Sequence[int] | None = None,
    ) -> None:
        self.training = training
        self.validation = validation
        self.augmentation = augmentation
        self.configuration = configuration
        self.seed = seed
        self.positions = positions

    @functools.cached_property
    def _left_to_training(self) -> bool:
        """Whether the training process augments; looked up once, not for each batch."""
        return ability(self.augmentation, AugmentsTensors) is not None

    def __getitem__(self, step: Iteration) -> dict[str, Any] | Failure:
        """Return `images` float32 (B, C, *patch), `label` int16 (B, 1, *patch) without -1, `names`;
        or a failure.

        For augmentations on tensors, training patches have the generator's size, labels are -1
        outside, and `previous` is there in a cascade. If the cases have extra arrays, `arrays` and
        `like` are there (training/arrays.py).
        """
        try:
            batch = self._batch(step)
        except NnunetError as error:
            return Failure(str(error), traceback.format_exc())
        except Exception as error:  # noqa: BLE001 (the training process raises it again)
            return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        kinds = {"images": np.float32, "label": np.int16, "previous": np.int16}
        tensors = {
            key: torch.from_numpy(np.ascontiguousarray(batch[key], kind))
            for key, kind in kinds.items()
            if key in batch
        }
        if like := batch.get("like"):
            batch["arrays"] = {
                name: torch.from_numpy(np.ascontiguousarray(array, arrays.TYPES[like[name]]))
                for name, array in batch["arrays"].items()
            }
        return {**batch, **tensors}

    def names(self, step: Iteration) -> list[str]:
        """Return the cases of a batch without making it."""
        return self._sampler(step).draw_names(self._random(step))

    def _sampler(self, step: Iteration) -> PatchSampler:
        return self.training if step.training else self.validation

    def _random(self, step: Iteration) -> np.random.Generator:
        return np.random.default_rng([self.seed, step.epoch, step.index, step.training])

    def _batch(self, step: Iteration) -> dict[str, Any]:
        rng, sampler, configuration = self._random(step), self._sampler(step), self.configuration
        if not step.training:
            batch = sampler.draw(rng, configuration.patch_size, self.positions)
            batch["label"] = np.maximum(batch["label"], 0)
            return append_previous(batch, configuration)
        batch = sampler.draw(
            rng, self.augmentation.generator_patch_size(configuration), self.positions
        )
        if self._left_to_training:
            return batch
        samples = [
            self.augmentation.augment(arrays.one_sample(batch, index), configuration, seed)
            for index, seed in enumerate(batch["seeds"])
        ]
        return arrays.joined(samples, batch, self.augmentation)


def batches(
    dataset: BatchDataset,
    steps: Sequence[Iteration],
    workers: int,
    report: Reporter,
    patience: float = PATIENCE,
    pinned: bool = False,
) -> Generator[tuple[Iteration, dict[str, Any]], None, None]:
    """Yield the batches of a training in the order of their use.

    Workers that die or get stuck are named and replaced; nothing is lost, since a batch depends on
    its step alone.

    Args:
        dataset: Makes the batches.
        steps: Which ones, see `steps_of`.
        workers: Loader processes; 0 makes batches in this process. Closing the iterator ends them.
        report: Hears of workers that were replaced.
        patience: Seconds without a batch after which the workers count as stuck.
        pinned: Hand batches over in pinned memory, which GPUs copy from several times as fast.

    Yields:
        The step, and its batch as tensors; see `BatchDataset`.

    Raises:
        TrainingError: A batch cannot be made, workers failed at it several times, or there is too
            little shared memory for what they hand over.
    """
    if workers:
        _check_shared_memory(dataset, workers)
    done, failed_at, failures = 0, -1, 0
    while done < len(steps):
        stream = _stream(dataset, steps[done:], workers, patience, pinned)
        try:
            for step, batch in stream:
                done += 1
                yield step, batch
        except _WorkerError as error:
            failures = failures + 1 if failed_at == done else 1
            failed_at = done
            step = steps[done]
            cases = ", ".join(dataset.names(step))
            if failures >= _ATTEMPTS:
                raise TrainingError(
                    f"Loader workers failed {failures} times at {step}, cases {cases}: {error}. "
                    f"{_USE_FEWER}"
                ) from error
            report.warning(
                f"{error}, at {step} or soon after it (cases {cases}); the workers are replaced"
            )
        finally:
            stream.close()


def _check_shared_memory(dataset: BatchDataset, workers: int) -> None:
    """Raise TrainingError where workers would die, or wait for ever, as they hand a batch over."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return
    configuration = dataset.configuration
    samples = configuration.batch_size if dataset.positions is None else len(dataset.positions)
    channels = configuration.network.input_channels
    voxel = 4 * channels + 2  # bytes of float32 images and an int16 label
    batch = samples * math.prod(configuration.patch_size) * voxel
    needed, free = batch * workers * _PREFETCH, shutil.disk_usage(folder).free
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(
            f"Loader processes need shared memory, and {folder} cannot be written: "
            f"{error.strerror}. Mend that, or load in the training process: --workers 0."
        ) from error
    if needed > free:
        raise TrainingError(
            f"{workers} loader processes need {needed / 1e6:.1f} MB of shared memory, {folder} has "
            f"{free / 1e6:.1f} MB left. Give it more (docker: --shm-size), or use fewer: --workers "
            f"{free // (batch * _PREFETCH)}."
        )


class _WorkerError(Exception):
    """A loader worker died or is stuck."""


def _stream(
    dataset: BatchDataset, steps: Sequence[Iteration], workers: int, patience: float, pinned: bool
) -> Generator[tuple[Iteration, dict[str, Any]], None, None]:
    started = _process_context().Event() if workers else None
    iterator = iter(_loader(dataset, steps, workers, started, pinned))
    threads = ThreadpoolController()
    try:
        for step in steps:
            with threads.limit(
                limits=1, user_api="blas"
            ):  # small products; more threads only wait for each other
                batch = _next(iterator, patience, started)
            if isinstance(batch, Failure):
                cases = ", ".join(dataset.names(step))
                message = (
                    f"{str(step).capitalize()}, cases {cases}, cannot be made: {batch.message}"
                )
                raise TrainingError(message) from RuntimeError(batch.trace)
            yield step, batch
    finally:
        _end_workers(iterator)


def _end_workers(iterator: Any) -> None:
    """End the workers now; an error's traceback would keep the iterator alive, and a stuck worker
    its process.
    """
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()
    for worker in getattr(iterator, "_workers", ()):
        if worker.is_alive():
            worker.kill()
            worker.join()


def _loader(
    dataset: BatchDataset, steps: Sequence[Iteration], workers: int, started: Any, pinned: bool
) -> DataLoader[Any]:
    generator = torch.Generator()
    whole: dict[str, Any] = {"batch_size": None, "generator": generator, "pin_memory": pinned}
    if workers == 0:
        return DataLoader(dataset, sampler=steps, **whole)
    return DataLoader(
        dataset,
        sampler=steps,
        **whole,
        num_workers=workers,
        prefetch_factor=_PREFETCH,
        timeout=_CHECK_SECONDS,
        worker_init_fn=functools.partial(
            _start_worker, training=os.getpid(), environment=dict(os.environ), started=started
        ),
        multiprocessing_context=_process_context(),
    )


def _process_context() -> Any:
    """Return how to start workers: copies of a small process that has imported what they need, but
    runs no threads.

    Copies of the training process itself would inherit the locks of its compute and display
    threads.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [__name__, "nnunet_builtin.training.sampling", "nnunet_builtin.augmentation.v2"]
    )
    return context


def _start_worker(number: int, training: int, environment: Mapping[str, str], started: Any) -> None:
    """Compute in one thread, and outlive signals that ask the training to stop: it may need the
    next batch.
    """
    os.environ.update(environment)  # the process that this one is a copy of may be older
    threadpool_limits(1)
    keep_freed_memory()
    threading.Thread(target=_end_with, args=[training], daemon=True).start()
    leave_interrupts_to_parent(_SECONDS_TO_LIVE)
    if number == 0:  # it makes the first batch
        started.set()


def _end_with(process: int) -> None:
    """End this process when another one has ended; a training that is killed cannot end its workers
    itself.
    """
    while psutil.pid_exists(process):
        time.sleep(_CHECK_SECONDS)
    os._exit(1)


def _next(iterator: Iterator[Any], patience: float, started: Any) -> Any:
    """Return the next item; while it is not there, the loader looks after its workers every few
    seconds.

    Patience counts from now, or from the moment at which the first worker has started.
    """
    since, starting = time.monotonic(), started is not None and not started.is_set()
    while True:
        try:
            return next(iterator)
        except (EOFError, OSError) as error:  # it died while it handed a batch over
            raise _WorkerError(f"a loader worker died: {_last_line(error)}") from error
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise _WorkerError(f"a loader worker died: {_last_line(error)}") from error
            if starting and started.is_set():
                since, starting = time.monotonic(), False
            if time.monotonic() - since > (patience * _STARTING if starting else patience):
                processes = [str(worker.pid) for worker in getattr(iterator, "_workers", ())]
                raise _WorkerError(
                    f"no batch arrived for {time.monotonic() - since:.0f} s: loader workers are "
                    f"stuck (processes {', '.join(processes)}), or the disk of the prepared cases "
                    "is that slow"
                ) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
