"""Compare whole training iterations, loading and augmentation included, with nnU-Net v1 and v2 on
this machine, in one run.

Usage: python tests/benchmarks/compare_training.py --work DIR --data DIR [--v1-python PYTHON]
[--v2-python PYTHON]
       [--iterations 30] [--repeat 3] [--output FILE.md]

Task004_Hippocampus of --data, 3d_fullres (patch 40x56x40), batches of 2, on CPU. Each side plans
and preprocesses with its own commands, then trains with its own loaders and augmentation:
--iterations after a warm-up, in fresh processes, in turns. Ours uses its default precision and
float32; the peers float32, all that they have on CPU. Shown are seconds per iteration, the share of
them spent waiting for batches, and seconds per iteration on one batch again and again, without any
loading.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from compare_preprocessing import Results
from preprocessing_sides import HERE, V1, V2, Ours, run

WARM_UP, BATCH = 5, 2


def ours(side: Ours, precision: str, mode: str, arguments: argparse.Namespace) -> dict[str, float]:
    shutil.rmtree(side.workspace / "results", ignore_errors=True)
    trainer = {
        "epochs": 1,
        "iterations_per_epoch": WARM_UP + arguments.iterations + 1,
        "validation_iterations": 0,
    }
    settings = [
        f"planner.max_batch_size={BATCH}",
        *(f"trainer.{name}={value}" for name, value in trainer.items()),
    ]
    options = [
        "--workspace",
        str(side.workspace),
        "-c",
        "3d_fullres",
        "--device",
        "cpu",
        "--precision",
        precision,
    ]
    options += [word for setting in settings for word in ("--set", setting)]
    numbers = map(str, (WARM_UP, arguments.iterations))
    return timed(
        [sys.executable, str(HERE / "own_train.py"), mode, *numbers, str(side.source), *options],
        side,
    )


def peer(side: V1 | V2, mode: str, arguments: argparse.Namespace) -> dict[str, float]:
    script = "peer_train_v1.py" if isinstance(side, V1) else "peer_train_v2.py"
    dataset = side.source.name if isinstance(side, V1) else side.dataset
    numbers = [BATCH, WARM_UP, arguments.iterations, os.cpu_count() or 1]
    return timed([str(side.python), str(HERE / script), mode, dataset, *map(str, numbers)], side)


def timed(command: list[str], side: Ours | V1 | V2) -> dict[str, float]:
    """Run a training; return the line of JSON that it prints. Loaders that are killed may print
    after it.
    """
    lines = [line for line in run(command, side.environment).splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with Task004_Hippocampus")
    parser.add_argument("--v1-python", type=Path, help="python of an environment with nnunet 1.7.1")
    parser.add_argument("--v2-python", type=Path, help="python of an environment with nnunetv2")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    arguments = parser.parse_args()
    source, results = (arguments.data / "Task004_Hippocampus").resolve(), Results()
    sides: dict[str, object] = {
        "auto": Ours(source, arguments.work),
        "float32": Ours(source, arguments.work),
    }
    if arguments.v1_python:
        sides["v1"] = V1(source, arguments.work, arguments.v1_python.absolute())
    if arguments.v2_python:
        sides["v2"] = V2(source, arguments.work, arguments.v2_python.absolute())
    for side in sides.values():
        side.lay_out()
        side.clear()
        run(side.whole(), side.environment)
    for _ in range(arguments.repeat):
        for name, side in sides.items():
            side.name = "ours float32" if name == "float32" else side.name
            loading, one_batch = (
                ours(side, name, mode, arguments)
                if isinstance(side, Ours)
                else peer(side, mode, arguments)
                for mode in ("loading", "one-batch")
            )
            results.add("iteration: s", side, loading["seconds"])
            results.add("waiting for data: %", side, 100 * loading["wait"])
            results.add("iteration without loading: s", side, one_batch["seconds"])
    print(results.markdown())
    if arguments.output:
        arguments.output.write_text(results.markdown() + "\n")


if __name__ == "__main__":
    main()
