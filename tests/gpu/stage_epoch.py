"""Stage c of `make gpu`: training with its loaders, and how fast the loaders alone could be.

Two augmentations, on CPU in the loaders and on the card in the training process, with many and with
few loaders. Where the loaders alone are slower than the training, they bind it.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from common import Asked, Results, Table, asked, left_out, seconds_left
from drawn_cases import configuration_of, task_of, write_cases

from nnunet_builtin.augmentation.v2 import AugmentationV2, AugmentationV2Torch
from nnunet_builtin.training import loop as training_loop
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.trainer import Runtime
from nnunet_core.data.plans import Configuration
from nnunet_core.runtime.workers import usable_cores
from nnunet_core.store.prepared import PreparedStore

CLASSES = 4  # three labels and the background
AUGMENTATIONS = {"v2": AugmentationV2, "v2_torch": AugmentationV2Torch}
COLUMNS = (
    "augmentation",
    "loaders",
    "ms / iteration",
    "samples / s",
    "waiting %",
    "CPU cores",
    "peak GB",
    "iterations",
)
RATE_COLUMNS = ("augmentation", "loaders", "ms / batch", "samples / s", "CPU cores", "batches")


@dataclass(frozen=True)
class Sizes:
    """How large, and how long.

    Attributes:
        shape, cases: Of the drawn cases; voxels (Z, Y, X).
        patch, batch, poolings, base_features: Of the network.
        loaders: Many and few processes.
        warm: Batches before the clock starts: workers start, cuDNN tries its algorithms.
        seconds, least: A training is timed so long, and for so many iterations at least.
        budget: Seconds of the stage where `measure.py` does not tell.
    """

    shape: tuple[int, int, int]
    cases: int
    patch: tuple[int, int, int]
    batch: int
    poolings: int
    base_features: int
    loaders: tuple[int, int]
    warm: int
    seconds: float
    least: int
    budget: float


FULL = Sizes((200, 300, 300), 8, (128, 128, 128), 2, 5, 32, (12, 4), 8, 7.0, 8, 75)
TINY = Sizes((24, 28, 28), 3, (16, 16, 16), 2, 2, 4, (2, 1), 2, 0.5, 3, 60)


_LEAST = 12  # seconds that a measurement takes, with the start of its loaders


class EnoughError(Exception):
    """Ends a training that has been timed."""


class Watch:
    """Stands between loaders and training: times batches after the first ones, then ends it all.

    Args:
        batches: The trainer's own stream of batches.
        sizes: When to start and to end.
        idle: Take batches as fast as they come, and train on none.
    """

    def __init__(self, batches: Callable[..., Any], sizes: Sizes, idle: bool) -> None:
        self.batches, self.sizes, self.idle = batches, sizes, idle
        self.count, self.waited, self.seconds, self.cores = 0, 0.0, 0.0, 0.0
        self.started = (0.0, 0.0)

    def __call__(self, *arguments: Any, **settings: Any) -> Iterator[Any]:
        """Yield the batches of `training_loop.batches`."""
        with contextlib.closing(self.batches(*arguments, **settings)) as stream:
            for _ in range(self.sizes.warm):
                item = next(stream)
                if not self.idle:
                    yield item
            self.started = _clocks()
            while not self._over():
                before = time.perf_counter()
                item = next(stream)
                self.waited += time.perf_counter() - before
                self.count += 1
                if not self.idle:
                    yield item
            now = _clocks()
        self.seconds = now[0] - self.started[0]
        self.cores = (now[1] - self.started[1]) / self.seconds
        raise EnoughError

    def _over(self) -> bool:
        long = time.perf_counter() - self.started[0] > self.sizes.seconds
        return long and self.count >= self.sizes.least


def _clocks() -> tuple[float, float]:
    """Return the time and the CPU time of this process and all below it, in seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    this = psutil.Process()
    used = 0.0
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            used += times.user + times.system
    return time.perf_counter(), used


@dataclass(frozen=True)
class Bench:
    """What the measurements of the stage share."""

    asked: Asked
    sizes: Sizes
    configuration: Configuration
    store: PreparedStore
    folder: Path

    def watched(self, augmentation: str, loaders: int, idle: bool) -> Watch:
        """Train until the watch ends it."""
        trainer = TrainerV2(epochs=1, iterations_per_epoch=5000, validation_iterations=0)
        threads = 1 if self.asked.device == "cpu" else 0  # cores are few where there is no card
        runtime = Runtime(self.asked.device, workers=loaders, threads=threads)
        folder = self.folder / f"{augmentation}_{loaders}_{idle}"
        augment = AUGMENTATIONS[augmentation]()
        task = task_of(folder, self.store, self.configuration, augment, runtime)
        original = training_loop.batches
        watch = Watch(original, self.sizes, idle)
        training_loop.batches = watch  # type: ignore[assignment]
        try:
            with contextlib.suppress(EnoughError):
                trainer.train(task)
        finally:
            training_loop.batches = original
        gc.collect()
        return watch

    def train(self, results: Results, table: Table, augmentation: str, loaders: int) -> None:
        """Add the row of a training."""
        cuda = self.asked.device == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        watch = self.watched(augmentation, loaders, idle=False)
        peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0
        each = watch.seconds / watch.count
        speed = [round(1e3 * each, 1), round(self.sizes.batch / each, 2)]
        waiting = round(100 * watch.waited / watch.seconds, 1)
        cells = [*speed, waiting, round(watch.cores, 1), round(peak, 2), watch.count]
        results.row(table, augmentation, loaders, *cells)

    def load(self, results: Results, table: Table, augmentation: str, loaders: int) -> None:
        """Add the row of loaders whose batches nobody trains on."""
        watch = self.watched(augmentation, loaders, idle=True)
        each = watch.seconds / watch.count
        speed = [round(1e3 * each, 1), round(self.sizes.batch / each, 2)]
        results.row(table, augmentation, loaders, *speed, round(watch.cores, 1), watch.count)


def measure(results: Results, bench: Bench) -> None:
    """Measure the most informative first, until the time is up."""
    trained = results.table("Training with loaders", *COLUMNS)
    rates = results.table("Loaders alone: batches that nobody trains on", *RATE_COLUMNS)
    many, few = bench.sizes.loaders
    training, loading = (bench.train, trained, "training"), (bench.load, rates, "loading")
    plan = [
        (training, "v2", many),
        (training, "v2_torch", many),
        (training, "v2_torch", few),
        (training, "v2", few),
        (loading, "v2", many),
        (loading, "v2_torch", few),
        (loading, "v2", few),
    ]
    for (measurement, table, name), augmentation, loaders in plan:
        what = f"{name} with {augmentation} and {loaders} loaders"
        if seconds_left(bench.sizes.budget) < _LEAST:
            results.note(f"{what} left out: the time of the stage is over")
            continue
        with left_out(results, what):
            measurement(results, table, augmentation, loaders)


def main() -> None:
    given = asked(__doc__ or "")
    sizes = TINY if given.tiny else FULL
    results = Results("An epoch with its loaders", given)
    shapes = (sizes.patch, sizes.batch, CLASSES, sizes.poolings, sizes.base_features)
    configuration = configuration_of(*shapes)
    with tempfile.TemporaryDirectory() as temporary, left_out(results, "drawn cases"):
        folder, started = Path(temporary), time.monotonic()
        drawn = (sizes.cases, sizes.shape, CLASSES, sizes.patch)
        store = write_cases(folder / "prepared", *drawn, threads=usable_cores())
        seconds = time.monotonic() - started
        results.note(
            f"{sizes.cases} cases of {sizes.shape} voxels drawn in {seconds:.1f} s; patches of "
            f"{sizes.patch}, batches of {sizes.batch}"
        )
        measure(results, Bench(given, sizes, configuration, store, folder))
    results.finish()


if __name__ == "__main__":
    main()
