"""Stage e of `make gpu`: a short training on the Hippocampus, and the Dice of its validation cases.

This package and nnunetv2. It reads the folder that prepare_hippocampus.py makes, and no images.
Both train fold 0 equally long on what they prepared themselves, each as it plans; cases are scored
on the prepared grid.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Asked, Results, Table, asked, find_peer, left_out, run_peer, seconds_left
from drawn_cases import configuration_of, labels_of, write_cases

from nnunet_builtin.augmentation.v2 import AugmentationV2
from nnunet_builtin.inference.sliding_window import SlidingWindow
from nnunet_builtin.losses.dice_ce import DiceCE
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.data.splits import Split, Splits, five_folds
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import usable_cores
from nnunet_core.stages.case import to_segmentation
from nnunet_core.stages.evaluate import dice, joint_counts
from nnunet_core.store.prepared import PreparedStore

HOW_TO_PREPARE = "see tests/gpu/prepare_hippocampus.py; name its folder by --prepared"
#: The Dice of every label of a case; None where neither map holds it.
Scores = list[float | None]
_PATIENCE = 20  # seconds for a process to end when its time is up


@dataclass(frozen=True)
class Sizes:
    """How long is trained.

    Attributes:
        epochs, iterations, validation_iterations: Iterations are per epoch.
        batch: Patches; 0 follows the plans.
        cases: Validation cases to score, at most.
        workers: Loader processes, at most one per core.
        peer_seconds: Of the stage, nnunetv2 included, where `measure.py` does not tell.
    """

    epochs: int
    iterations: int
    validation_iterations: int
    batch: int
    cases: int
    workers: int
    peer_seconds: float


FULL = Sizes(20, 50, 5, 0, 1000, 12, 200)
TINY = Sizes(2, 1, 1, 2, 1, 1, 90)


@dataclass(frozen=True)
class Material:
    """What this package trains on."""

    store: PreparedStore
    configuration: Configuration
    labels: Labels
    split: Split


@dataclass
class Outcome:
    """What a side reached.

    Attributes:
        training, prediction: Seconds, of all epochs with what lies between them, and of all cases.
        epochs: Seconds of every epoch.
        dice: Of every case.
        card: Peak of the card's memory, GB.
    """

    training: float = 0.0
    prediction: float = 0.0
    epochs: list[float] = field(default_factory=list)
    dice: Sequence[Scores] = ()
    card: float | None = None


def read_material(folder: Path) -> Material:
    """Read what prepare_hippocampus.py has made of our side."""
    plans = Plans.read(folder / "plans.json")
    labels = Labels.model_validate_json((folder / "labels.json").read_text())
    split = Splits.read(folder / "splits.json").folds[0]
    store = PreparedStore(folder / "prepared")
    return Material(store, plans.configuration("3d_fullres"), labels, split)


def drawn_material(folder: Path) -> Material:
    """Return a few drawn cases, to try the stage."""
    configuration = configuration_of((16, 16, 16), 2, 3, 2, 4)
    store = write_cases(folder, 5, (20, 24, 22), 3, configuration.patch_size, threads=1)
    return Material(store, configuration, labels_of(3), five_folds(store.names())[0])


def train_ours(given: Asked, sizes: Sizes, material: Material, folder: Path) -> Outcome:
    """Train fold 0, then score its validation cases."""
    outcome = Outcome()

    def epoch_finished(line: Mapping[str, Any]) -> None:
        outcome.epochs.append(line["seconds"])

    workers = min(sizes.workers, usable_cores())
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    runtime = Runtime(given.device, workers=workers, threads=threads)
    task = TrainingTask(
        folder=folder,
        configuration=material.configuration,
        labels=material.labels,
        training=material.split.train,
        validation=material.split.val,
        store=material.store,
        network=PlainUNet(),
        loss=DiceCE(),
        augmentation=AugmentationV2(),
        runtime=runtime,
        seed=0,
        report=Silence(),
        epoch_finished=epoch_finished,
    )
    trainer = TrainerV2(
        epochs=sizes.epochs,
        iterations_per_epoch=sizes.iterations,
        validation_iterations=sizes.validation_iterations,
        batch_size=sizes.batch or None,
    )
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    trainer.train(task)
    trained = time.perf_counter()
    outcome.dice = score_ours(task, material.split.val[: sizes.cases])
    outcome.training, outcome.prediction = trained - started, time.perf_counter() - trained
    if given.device == "cuda":
        outcome.card = torch.cuda.max_memory_allocated() / 1e9
    return outcome


def score_ours(task: TrainingTask, names: Sequence[str]) -> list[Scores]:
    """Predict cases on their prepared grid; return the Dice of every label of each."""
    what = (task.configuration, task.labels, task.network, task.runtime)
    predict = SlidingWindow().load(TrainedModel((task.folder,), *what, mirror_axes=(0, 1, 2)))
    scores = []
    for name in names:
        case = task.store.open(name)
        segmentation = to_segmentation(predict(case.images[:]).whole(), task.labels)
        truth = np.maximum(case.label[:], 0)
        joint = joint_counts(segmentation, truth, task.labels)
        scores.append([dice(joint, (value,)) for value in task.labels.foreground])
    return scores


def train_v2(given: Asked, sizes: Sizes, peer: str, prepared: Path, results: Path) -> Outcome:
    """Train fold 0 and score its validation cases with nnunetv2.

    Raises:
        RuntimeError: It failed, or its time was up.
    """
    wanted = {
        **asdict(sizes),
        "folder": str(prepared),
        "results": str(results),
        "device": given.device,
    }
    seconds = seconds_left(sizes.peer_seconds) - _PATIENCE
    wanted |= {"workers": min(sizes.workers, usable_cores()), "until": time.time() + seconds}
    found = run_peer(peer, "peer_training.py", json.dumps(wanted), timeout=seconds + _PATIENCE)
    if "stopped" in found:
        epochs, where = found.get("epoch_seconds", []), found["stopped"]
        raise RuntimeError(f"its time was up in '{where}'; seconds of its epochs: {epochs}")
    times = (found["training"], found["prediction"], found["epoch_seconds"])
    return Outcome(*times, found["dice"], found.get("card_gb"))


def add_row(results: Results, table: Table, side: str, outcome: Outcome) -> None:
    """Add the row of a side: the mean Dice of each label over the cases that have it."""
    means = []
    for column in zip(*outcome.dice, strict=True):
        defined = [value for value in column if value is not None]
        means.append(statistics.fmean(defined) if defined else float("nan"))
    scores = [round(value, 4) for value in (*means, statistics.fmean(means))]
    epoch = statistics.median(outcome.epochs[1:] or outcome.epochs)
    times = [round(outcome.training, 1), round(epoch, 2), round(outcome.prediction, 1)]
    card = "" if outcome.card is None else round(outcome.card, 2)
    results.row(table, side, *times, *scores, len(outcome.dice), card)


def run(results: Results, given: Asked, sizes: Sizes, work: Path) -> None:
    """Train with both sides, this package first."""
    ours = None if given.prepared is None else given.prepared / "ours"
    material = drawn_material(work / "drawn") if ours is None else read_material(ours)
    names = [f"Dice {material.labels.names[value]}" for value in material.labels.foreground]
    columns = (
        "side",
        "training s",
        "epoch s",
        "prediction s",
        *names,
        "mean Dice",
        "cases",
        "card GB",
    )
    title = f"Training of {sizes.epochs} x {sizes.iterations} iterations, neither side compiled"
    table = results.table(title, *columns)
    with left_out(results, "nnunet-core"):
        add_row(results, table, "nnunet-core", train_ours(given, sizes, material, work / "fold_0"))
    peer = find_peer(given.peer)
    prepared = None if given.prepared is None else given.prepared / "v2"
    if peer is None:
        results.note("nnunetv2 left out: it is not installed; name a Python with it by --peer")
    elif prepared is None or not prepared.is_dir():
        results.note(f"nnunetv2 left out: no cases of its own. To make them: {HOW_TO_PREPARE}")
    else:
        with left_out(results, "nnunetv2"):
            outcome = train_v2(given, sizes, peer, prepared, work / "results")
            add_row(results, table, "nnunetv2", outcome)


def main() -> None:
    given = asked(__doc__ or "")
    sizes = TINY if given.tiny else FULL
    results = Results("A short training", given)
    if given.device == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"  # of both sides; cores are few where there is no card
    if given.prepared is None and not given.tiny:
        results.note(f"left out: no prepared cases. To make them: {HOW_TO_PREPARE}")
    else:
        with tempfile.TemporaryDirectory() as temporary, left_out(results, "training"):
            run(results, given, sizes, Path(temporary))
    results.finish()


if __name__ == "__main__":
    main()
