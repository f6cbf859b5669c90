"""Dice and loss over epochs, fine-tuned against from random weights: the figure of the README.

    python benchmarks/finetune_hippocampus.py --data Task04_Hippocampus --work /tmp/finetune

Both sides learn the two parts of the hippocampus from the first 20 cases of the decathlon's task,
in two folds, slice by slice, with equal plans, seeds, batches, augmentation and largest rate. The
weights to start from learnt the whole hippocampus, one class, from all other cases of the folder.
What is there is not trained again.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk

CASES, FOLDS = 20, "0,1"
# slices, and few features: minutes on one core
SMALL = ["planner.base_features=16", "planner.max_batch_size=12"]
LONG = ["trainer.iterations_per_epoch=25", "trainer.validation_iterations=5"]
LONG_EPOCHS = 30
SHORT = ["trainer.iterations_per_epoch=10", "trainer.validation_iterations=4"]
WARM = ["trainer.learning_rate=0.01", "trainer.first_epochs=1", "trainer.warmup_epochs=3"]
COLOURS = {"from random weights": "#8a8a8a", "fine-tuned": "#c0392b"}


def main() -> None:
    """Make the datasets, train, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="has imagesTr and labelsTr")
    parser.add_argument("--work", type=Path, required=True, help="for datasets and results")
    parser.add_argument("--epochs", type=int, default=20, help="of both sides")
    parser.add_argument("--figure", type=Path, default=Path(__file__).with_name("hippocampus.png"))
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    names = sorted(path.name.removesuffix(".nii.gz") for path in cases_of(arguments.data))
    raw = work / "raw"
    whole = make_dataset(arguments.data, raw / "Dataset301_Whole", names[CASES:], ["hippocampus"])
    parts = ["anterior", "posterior"]
    make_dataset(arguments.data, raw / "Dataset302_Parts", names[:CASES], parts)
    source = train(work, whole.name, "all", LONG_EPOCHS, LONG)
    initial = ("--trainer", "finetune", "--pretrained", str(source))
    side = functools.partial(train, work, "Dataset302_Parts", FOLDS, arguments.epochs)
    sides = {"from random weights": side(SHORT), "fine-tuned": side([*SHORT, *WARM], initial)}
    draw(sides, arguments.figure)


def cases_of(data: Path) -> list[Path]:
    """Return the label files of a dataset."""
    return [path for path in (data / "labelsTr").glob("*.nii.gz") if path.name[0] != "."]


def make_dataset(data: Path, folder: Path, names: Sequence[str], classes: Sequence[str]) -> Path:
    """Write a dataset of some cases; with one class, every label is that one."""
    if (folder / "dataset.json").is_file():
        return folder
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        (image,) = (data / "imagesTr").glob(f"{name}*.nii.gz")
        shutil.copy(image, folder / "imagesTr" / f"{name}_0000.nii.gz")
        label = sitk.Cast(sitk.ReadImage(str(data / "labelsTr" / f"{name}.nii.gz")), sitk.sitkUInt8)
        if len(classes) == 1:
            label = label > 0
        sitk.WriteImage(label, str(folder / "labelsTr" / f"{name}.nii.gz"))
    labels = {"background": 0, **{name: value for value, name in enumerate(classes, 1)}}
    document = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    document["numTraining"] = len(names)
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def train(
    work: Path,
    dataset: str,
    folds: str,
    epochs: int,
    settings: Sequence[str],
    more: Sequence[str] = (),
) -> Path:
    """Train folds with `nnunet train`; return the folder of the model."""
    every = [*SMALL, f"trainer.epochs={epochs}", *settings]
    chosen = [word for setting in every for word in ("--set", setting)]
    fixed = ("--workspace", str(work), "--folds", folds, "--configuration", "2d")
    fixed += ("--workers", "0", "--threads", "1", "--processes", "1")
    command = [sys.executable, "-m", "nnunet_cli", "train", dataset, *fixed, *more, *chosen]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for model in sorted((work / "results" / dataset).glob("*/2d")):
        records = list(model.glob("fold_*/run.json"))
        if records and matches(json.loads(records[0].read_text()), "finetune" in more, epochs):
            return model
    raise SystemExit(f"no model of {dataset} in {work / 'results'}")


def matches(record: dict, finetuned: bool, epochs: int) -> bool:
    """Return whether a fold is of one side."""
    trainer = record["components"]["trainer"]
    is_finetuned = trainer["reference"] == "nnunet-finetune/finetune"
    return is_finetuned == finetuned and trainer["settings"]["epochs"] == epochs


def values_of(model: Path, key: str) -> np.ndarray:
    """Return a number of metrics.jsonl, (folds, epochs); a Dice of nothing is 0."""
    folds = []
    for path in sorted(model.glob("fold_*/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        folds.append([line[key] or 0.0 for line in lines])
    return np.array(folds)


def draw(sides: dict[str, Path], path: Path) -> None:
    """Draw the mean over folds, and the range of the folds."""
    figure, (dice, loss) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axes, key in ((dice, "mean_dice"), (loss, "validation_loss")):
        for name, model in sides.items():
            values = values_of(model, key)
            epochs = np.arange(1, values.shape[1] + 1)
            low, high = values.min(0), values.max(0)
            axes.fill_between(epochs, low, high, color=COLOURS[name], alpha=0.15, lw=0)
            axes.plot(epochs, values.mean(0), color=COLOURS[name], lw=2, label=name)
        axes.set_xlabel("epoch of 10 batches")
        axes.set_xlim(1, epochs[-1])
        axes.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    dice.set(ylabel="mean Dice of validation patches")
    dice.set_ylim(bottom=0)
    loss.set(ylabel="validation loss (Dice + cross entropy)")
    loss.legend(frameon=False)
    title = "The start of a training: anterior and posterior hippocampus, 20 cases, 2 folds"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
