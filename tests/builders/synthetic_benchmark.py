"""A benchmark that nobody trained: scores, and with `files` records, curves, predictions too."""

import json
from dataclasses import dataclass

import numpy as np
from tiny_dataset import make_tiny

from nnunet_builtin.benchmark.matrix import Bench
from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_builtin.judging.costs import Cost
from nnunet_builtin.judging.judgement import judge
from nnunet_builtin.judging.rows import MEAN, Row
from nnunet_builtin.judging.runs import Place, find
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FoldRecord
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.method import choose

CASES = 12


@dataclass(frozen=True)
class Shape:
    """What is made up: numbers of datasets, seeds, epochs; {variant: Dice beyond the baseline}."""

    datasets: int = 2
    seeds: int = 3
    epochs: int = 40
    shifts: tuple = (("default", 0.0), ("topk", 0.02), ("wide", 0.0))
    spread: float = 0.004
    labels: tuple = ("cube",)
    files: bool = False


def synthetic(folder, shape=Shape()):
    """Return the content of a report, with its files below a folder, and the registry."""
    registry, variants = Registry.discover(), [name for name, _ in shape.shifts]
    names = [f"Dataset{number:03d}_Tiny" for number in range(1, shape.datasets + 1)]
    datasets = {}
    for each in names if shape.files else ():
        make_tiny(folder / "raw" / each, CASES)
        datasets[each] = open_dataset(str(folder / "raw" / each), folder / "raw", registry)
    bench = Bench.model_validate(
        {
            "name": "synthetic",
            "datasets": names,
            "baseline": variants[0],
            "folds": [0, 1],
            "seeds": list(range(1, shape.seeds + 1)),
            "variants": {n: {"settings": {"trainer": {"epochs": 40}}} for n in variants},
        }
    )
    methods = {}
    for number, variant in enumerate(variants):
        settings = {"trainer": {"epochs": 40 + number}}
        methods[variant] = choose(registry, ["default"], {}, settings)
    rows = list(_rows(names, shape))
    places = [
        _train(folder, datasets[p.dataset], p, shape) for p in _places(names, shape) if shape.files
    ]
    costs = [
        Cost(n, "3d_fullres", v, 6, 0.0, 1.5, 3 * 10**9, None, 7 * 10**6, 0.4)
        for n in names
        for v in variants
    ]
    judgement = judge(rows, bench.baseline, bench.rope, {}, costs)
    return Content(bench, judgement, rows, find(places), methods, datasets, {"done": 50}), registry


def _places(names, shape):
    for dataset in names:
        for variant, _ in shape.shifts:
            for seed in range(1, shape.seeds + 1):
                for fold in ("0", "1"):
                    yield Place(dataset, "3d_fullres", variant, seed, fold)


def _rows(names, shape):
    rng = np.random.default_rng(0)
    for number, dataset in enumerate(names):
        difficulty = rng.normal(0, 0.03, CASES)
        for variant, shift in shape.shifts:
            for seed in range(1, shape.seeds + 1):
                luck = rng.normal(0, shape.spread)
                for case in range(CASES):
                    value = (
                        0.85
                        - 0.02 * number
                        + shift
                        + luck
                        + difficulty[case]
                        + rng.normal(0, 0.004)
                    )
                    place = (dataset, "3d_fullres", variant, seed, str(case % 2), f"case_{case}")
                    dice = float(np.clip(value, 0, 1))
                    for label in (*shape.labels, MEAN):
                        yield Row(*place, label, "Dice", dice, "found" if label != MEAN else "")


def _train(folder, dataset, place, shape):
    """Write what a training leaves: its record, its curve, its predictions."""
    fold = (
        folder
        / "results"
        / place.variant
        / f"seed_{place.seed}"
        / place.dataset
        / f"fold_{place.fold}"
    )
    rng = np.random.default_rng(place.seed)
    (fold / "validation").mkdir(parents=True)
    with (fold / "metrics.jsonl").open("w") as file:
        for epoch in range(shape.epochs):
            loss = -0.8 + float(np.exp(-epoch / 10) + rng.normal(0, 0.01))
            line = {
                "epoch": epoch,
                "validation_loss": loss,
                "mean_dice_average": -loss,
                "seconds": 1.0,
            }
            file.write(json.dumps(line) + "\n")
    component = {
        "reference": "builtin/v2",
        "target": "a.b:C",
        "distribution": "nnunet-core",
        "version": "0.1.0",
        "settings": {"epochs": 40, "iterations_per_epoch": 2},
    }
    FoldRecord(
        status="finished",
        dataset=place.dataset,
        dataset_digest="d",
        variant=place.variant,
        configuration=place.configuration,
        fold=place.fold,
        seed=place.seed,
        inputs_digest="i",
        model_digest="m",
        components={"trainer": component},
        libraries={"torch": "2.10"},
        device="cpu",
        precision="float32",
        threads="1",
    ).write(fold / "run.json")
    for number, case in enumerate(dataset.training):
        if str(number % 2) == place.fold and place.seed == 1:
            loaded = dataset.load(case)
            shifted = np.roll(loaded.label, place.seed, 1)
            path = fold / "validation" / f"{case.name}.nii.gz"
            SimpleItkFormat().write(path, shifted.astype(np.uint8), loaded.geometry)
    return place, fold
