"""Time per case of every command, for datasets of more and more small pictures: it must stay flat.

Usage: python tests/benchmarks/growth.py --work DIR [--cases 200 2000 20000] [--processes 2]
       [--only evaluate predict]

Datasets of grey pictures of 32x32 pixels are drawn; each command runs once in a fresh process, and
`plan` and `preprocess` once more with nothing left to do. `predict` has a small network that was
trained for one iteration on five of the pictures. CPU seconds are of a command and all its
processes, those per case without what five cases take. Memory is the largest resident set of the
main process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

SIZE = 32  # pixels along both axes
MODEL = "model"  # a link to the folder of the one that predicts
BRIEF = ("epochs", "iterations_per_epoch", "validation_iterations")  # of the training, 1 each
COLUMNS = ("command", "cases", "s", "CPU s", "CPU ms per case", "MB")


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, CPU seconds of it and all its processes, and MB of itself."""

    seconds: float
    cpu: float
    megabytes: float


def draw(folder: Path, cases: int) -> Path:
    """Draw a dataset of pictures with a bright disc each; return its folder."""
    if folder.is_dir():
        return folder
    images, labels = folder / "imagesTr", folder / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    grid = np.stack(np.meshgrid(*[np.arange(SIZE)] * 2, indexing="ij"))
    rng = np.random.default_rng(0)
    for number in range(cases):
        centre, radius = rng.uniform(8, SIZE - 8, (2, 1, 1)), rng.uniform(3, 7)
        disc = ((grid - centre) ** 2).sum(0) < radius**2
        noisy = np.clip(rng.normal(80, 20, disc.shape) + 80 * disc, 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(images / f"case_{number:05d}_0000.png")
        Image.fromarray(disc.astype(np.uint8)).save(labels / f"case_{number:05d}.png")
    document = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "disc": 1},
        "numTraining": cases,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def watched(words: Sequence[object]) -> Cost:
    """Run a command and return what it took."""
    started, most = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [sys.executable, "-m", "nnunet_cli", *map(str, words)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seen = psutil.Process(process.pid)
    while True:
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        with contextlib.suppress(psutil.Error):
            most = max(most, seen.memory_info().rss / 1e6)
        time.sleep(0.02)
    if status:
        sys.exit(f"nnunet {' '.join(map(str, words))} failed")
    return Cost(time.perf_counter() - started, used.ru_utime + used.ru_stime, most)


def commands(work: Path, raw: Path, processes: int) -> dict[str, list[object]]:
    """Return the commands to time, by name, in an order in which each finds what it needs."""
    workspace = ["--workspace", work]
    counted = [*workspace, "--processes", processes]
    plan = ["plan", raw, *counted]
    preprocess = ["preprocess", raw, *counted, "-c", "2d"]
    converted = work / "converted" / f"Task{raw.name[7:]}"
    labels = raw / "labelsTr"
    return {
        "dataset list": ["dataset", "list", *workspace],
        "dataset verify": ["dataset", "verify", raw, *counted],
        "plan": plan,
        "plan again": plan,
        "preprocess": preprocess,
        "preprocess again": preprocess,
        "dataset convert": ["dataset", "convert", raw, "--to", "v1", "--output", converted],
        "evaluate": ["evaluate", labels, labels, "--dataset", raw, "--output", work / "s.json"],
        "predict": [
            *("predict", work / MODEL, raw / "imagesTr", work / f"predictions_{raw.name}"),
            *("--no-mirroring", "--device", "cpu", "--threads", 1),
        ],
    }


def train(work: Path) -> None:
    """Train the model that predicts, if it is not there."""
    raw = draw(work / "raw" / "Dataset000_Trained", 5)
    brief = [word for name in BRIEF for word in ("--set", f"trainer.{name}=1")]
    small = ["--set", "planner.base_features=8", "--set", "trainer.batch_size=2"]
    options = ["-c", "2d", "--folds", "0", "--workers", "0", "--device", "cpu"]
    words = ["train", raw, "--workspace", work, *options, *brief, *small]
    watched(words)
    (found,) = (work / "results" / raw.name).glob("*/2d")
    link = work / MODEL
    if not link.is_symlink():
        link.symlink_to(found)


def measure(
    work: Path, sizes: Sequence[int], processes: int, only: Sequence[str]
) -> list[tuple[str, int, Cost]]:
    """Return (command, cases, cost) of every command, or of some, and size; the size 0 stands for
    its start.
    """
    rows = []
    train(work)
    for number, cases in enumerate([0, *sizes], start=1):
        raw = draw(work / "raw" / f"Dataset{number:03d}_Pictures{cases}", max(cases, 5))
        for name, words in commands(work, raw, processes).items():
            if only and name not in only:
                continue
            cost = watched(words)
            rows.append((name, cases, cost))
            print(f"{name:18} {cases:6d} {cost.seconds:8.2f} s {cost.cpu:8.2f} CPU s", flush=True)
    return rows


def table(rows: Sequence[tuple[str, int, Cost]]) -> str:
    """Return a Markdown table; what a command takes for five cases counts as its start."""
    starts = {name: cost.cpu for name, cases, cost in rows if not cases}
    lines = [COLUMNS, ("---", *["--:"] * (len(COLUMNS) - 1))]
    for name, cases, cost in sorted(rows, key=lambda row: list(starts).index(row[0])):
        if cases:
            figures = (cost.seconds, cost.cpu, 1000 * (cost.cpu - starts[name]) / cases)
            cells = (*(f"{figure:.2f}" for figure in figures), f"{cost.megabytes:.0f}")
            lines.append((name, str(cases), *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--work", type=Path, required=True, help="folder for datasets and results")
    parser.add_argument("--cases", type=int, nargs="+", default=[200, 2000, 20000])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], help="names of commands")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    rows = measure(work, arguments.cases, arguments.processes, arguments.only)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
