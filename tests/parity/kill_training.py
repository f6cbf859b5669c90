"""Kill a training again and again at random moments: it ends with the weights of one that nobody
disturbed, bit for bit.

Usage: python tests/parity/kill_training.py [--kills 20] [--seed 0] [--workers 1]

Trains on a small dataset in a temporary folder. Exit code 1 when a weight differs.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "builders"))
from tiny_dataset import make_tiny

SETTINGS = (
    *("planner.max_batch_size=2", "planner.base_features=4"),
    *("trainer.epochs=6", "trainer.iterations_per_epoch=12", "trainer.validation_iterations=2"),
)
WEIGHTS = ("weights.safetensors", "weights_best.safetensors")


def command(dataset: Path, workers: int = 1, *options: str) -> list[str]:
    """Return the command that trains fold 0, in one thread on the CPU."""
    arguments = [
        sys.executable,
        "-m",
        "nnunet_cli",
        "train",
        str(dataset),
        "--workspace",
        str(dataset.parents[1]),
    ]
    arguments += [
        "--workers",
        str(workers),
        "--precision",
        "float32",
        "--threads",
        "1",
        "--device",
        "cpu",
        *options,
    ]
    return arguments + [part for setting in SETTINGS for part in ("--set", setting)]


def finish(dataset: Path, workers: int) -> Path:
    """Train to the end; return the fold's folder."""
    subprocess.run(command(dataset, workers), check=True, capture_output=True)
    (weights,) = dataset.parents[1].glob(f"results/*/*/*/fold_0/{WEIGHTS[0]}")
    return weights.parent


def killed_trainings(
    dataset: Path, kills: int, seed: int, workers: int
) -> tuple[list[str], list[str]]:
    """Kill trainings until there were so many kills; a training that ends in between is compared,
    and another one begins.

    Args:
        dataset: Folder of the dataset, in `raw` of its workspace.
        kills: How many.
        seed: Of the moments, drawn between the first batch and the end of an undisturbed training.
        workers: Loader processes.

    Returns:
        Where each kill hit, and for each training that ended what is wrong with it: other weights
        than those of the undisturbed one, or half-written files that are left; an empty text where
        nothing is.
    """
    moments, hits, wrong = random.Random(seed), [], []
    fold = finish(dataset, workers)  # also prepares the cases
    expected = [(fold / name).read_bytes() for name in WEIGHTS]
    fold.rename(fold.with_name("undisturbed"))
    started = time.monotonic()
    start_up = _first_batch(dataset, workers) - started
    whole = time.monotonic() - started

    def compare() -> None:
        other = [
            name
            for name, content in zip(WEIGHTS, expected, strict=True)
            if (fold / name).read_bytes() != content
        ]
        wrong.append(", ".join([*other, *(path.name for path in fold.rglob("*.tmp"))]))
        fold.rename(fold.with_name(f"ended_{len(wrong)}"))

    compare()
    while len(hits) < kills:
        process = subprocess.Popen(
            command(dataset, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(moments.uniform(0.8 * start_up, whole))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            hits.append(_where(fold))
        else:
            compare()
    finish(dataset, workers)
    compare()
    return hits, wrong


def _first_batch(dataset: Path, workers: int) -> float:
    """Train to the end; return when the fold's folder appeared, which is soon before its first
    batch.
    """
    process = subprocess.Popen(
        command(dataset, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(
        dataset.parents[1].glob("results/*/*/*/fold_0/run.json")
    ):
        time.sleep(0.02)
    first = time.monotonic()
    process.wait()
    return first


def _where(fold: Path) -> str:
    """Say how far a killed training came."""
    path = fold / "metrics.jsonl"
    epochs = len(path.read_text().splitlines()) if path.is_file() else 0
    left = sum(1 for _ in fold.glob(".*.tmp")) if fold.is_dir() else 0
    return f"{epochs} epochs" + (f", {left} half-written files" if left else "")


def make_dataset(folder: Path) -> Path:
    """Write the dataset of the tests' fixture `tiny`; return its folder."""
    return make_tiny(folder / "ws" / "raw" / "Dataset001_Tiny")


def main() -> int:
    """Kill trainings as often as asked, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hits, wrong = killed_trainings(
            make_dataset(Path(folder)), options.kills, options.seed, options.workers
        )
    for number, where in enumerate(hits, 1):
        print(f"kill {number}: after {where}")
    for number, what in enumerate(wrong, 1):
        print(
            f"training {number}: "
            f"{what or 'ended with the weights of an undisturbed one, nothing is left over'}"
        )
    return int(any(wrong))


if __name__ == "__main__":
    sys.exit(main())
