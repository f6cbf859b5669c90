"""Train the same folds with this package and with nnU-Net v2, equally long, and compare the Dice of
their validation cases.

Usage: python tests/benchmarks/compare_quality.py --work DIR --data DIR --v2-python PYTHON [--folds
0,1,2,3,4] [--epochs 20]
       [--iterations 50] [--output FILE.md]

Task004_Hippocampus of --data, 3d_fullres, batches of 2, on CPU, no postprocessing. Each side plans,
preprocesses, augments, trains and predicts with its own code; both make the same folds, which is
checked. Trained folds are kept: the same command goes on. Five folds of 20 x 50 iterations take
about an hour here and two hours there, on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from preprocessing_sides import HERE, V2, Ours, run

#: {case: Dice of every label}
Scores = dict[str, list[float]]


def train_ours(side: Ours, fold: str, arguments: argparse.Namespace) -> Scores:
    """Train and validate a fold with the command line."""
    trainer = {
        "epochs": arguments.epochs,
        "iterations_per_epoch": arguments.iterations,
        "validation_iterations": 1,
    }
    sets = [
        "planner.max_batch_size=2",
        *(f"trainer.{name}={value}" for name, value in trainer.items()),
    ]
    command = [
        str(Path(sys.executable).with_name("nnunet")),
        "train",
        str(side.source),
        "-c",
        "3d_fullres",
    ]
    command += ["--folds", fold, "--device", "cpu", "--workspace", str(side.workspace)]
    run([*command, *(word for setting in sets for word in ("--set", setting))], side.environment)
    (path,) = (side.workspace / "results").glob(f"*/*/*/fold_{fold}/validation/summary.json")
    cases = json.loads(path.read_text())["results"]["all"]
    return {
        Path(case["reference"]).name: [case[label]["Dice"] for label in ("1", "2")]
        for case in cases
    }


def train_v2(side: V2, fold: str, arguments: argparse.Namespace) -> Scores:
    """Train and validate a fold with v2's own trainer, unless that is done."""
    results = Path(side.environment["nnUNet_results"]) / side.dataset  # type: ignore[arg-type]
    pattern = f"*/fold_{fold}/validation/summary.json"
    if not list(results.glob(pattern)):
        numbers = [fold, arguments.epochs, arguments.iterations, 2, os.cpu_count() or 1]
        run(
            [str(side.python), str(HERE / "peer_quality_v2.py"), side.dataset, *map(str, numbers)],
            side.environment,
        )
    (path,) = results.glob(pattern)
    cases = json.loads(path.read_text())["metric_per_case"]
    return {
        Path(c["reference_file"]).name: [c["metrics"][label]["Dice"] for label in ("1", "2")]
        for c in cases
    }


def table(ours: list[Scores], theirs: list[Scores]) -> str:
    """Return a Markdown table: per label the mean over cases, and its deviation over cases and over
    folds.
    """
    rows = ["| | Anterior | Posterior | mean |", "| --- | --: | --: | --: |"]
    for name, folds in (("nnunet-core", ours), ("nnunetv2", theirs)):
        cases = np.concatenate([list(fold.values()) for fold in folds])
        means = np.array([np.mean(list(fold.values()), axis=0) for fold in folds])
        over_folds = means.std(0, ddof=1) if len(folds) > 1 else np.full(2, np.nan)
        cells = [
            f"{mean:.4f} ({sd:.3f}; {fold:.3f})"
            for mean, sd, fold in zip(cases.mean(0), cases.std(0, ddof=1), over_folds, strict=True)
        ]
        rows.append(f"| {name} | {cells[0]} | {cells[1]} | {cases.mean():.4f} |")
    pairs = np.array(
        [np.subtract(a[name], b[name]) for a, b in zip(ours, theirs, strict=True) for name in a]
    )
    error = pairs.std(0, ddof=1) / np.sqrt(len(pairs))
    cells = [f"{mean:+.4f} ± {e:.4f}" for mean, e in zip(pairs.mean(0), error, strict=True)]
    rows.append(f"| difference, case by case | {cells[0]} | {cells[1]} | {pairs.mean():+.4f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with Task004_Hippocampus")
    parser.add_argument(
        "--v2-python", type=Path, required=True, help="python of an environment with nnunetv2"
    )
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=50, help="per epoch")
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    arguments = parser.parse_args()
    source = (arguments.data / "Task004_Hippocampus").resolve()
    here = Ours(source, arguments.work)
    there = V2(source, arguments.work, arguments.v2_python.absolute())
    if not there.folder.is_dir():
        there.lay_out()
        run(there.whole(), there.environment)
    ours, theirs = [], []
    for fold in arguments.folds.split(","):
        ours.append(train_ours(here, fold, arguments))
        theirs.append(train_v2(there, fold, arguments))
        if set(ours[-1]) != set(theirs[-1]):
            sys.exit(
                f"fold {fold} validates other cases in v2: "
                f"{sorted(set(ours[-1]) ^ set(theirs[-1]))}"
            )
        print(table(ours, theirs), flush=True)
    if arguments.output:
        arguments.output.write_text(table(ours, theirs) + "\n")


if __name__ == "__main__":
    main()
