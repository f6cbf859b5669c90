"""Compare planning, preprocessing and the reading of patches with nnU-Net v1 and v2 on this
machine, in one run.

Usage: python tests/benchmarks/compare_preprocessing.py --work DIR [--data DIR] [--v1-python PYTHON]
[--v2-python PYTHON]
       [--cases 6] [--repeat 3] [--output FILE.md]

(a) Task004_Hippocampus of --data: plan and preprocess, from raw files to prepared cases, each with
its own command line. (b) --cases synthetic CT cases of 120x320x320 voxels, to 1.5x1x1 mm:
preprocess with given plans. v1 preprocesses from cases
    that its planning has cropped; they are cropped again here, and both numbers are shown.
(c) Files of (b), and the time to read a patch of 128x128x128 from them, opened as each one's own
training does.

Every run is a fresh process with two workers; the sides take turns. Memory is the largest sum of
the proportional set sizes (PSS) of the process and its children, in a run of its own because
looking at it slows a process down. Without a peer's interpreter its columns are left out. Needs
psutil.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
from patch_reading import EDGE, time_reads
from preprocessing_sides import PROCESSES, READS, V1, V2, Ours, Side, run
from scipy import ndimage

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.store.prepared import PreparedStore

CT_SHAPE, CT_SPACING, CT_LABELS = (120, 320, 320), (2.5, 0.8, 0.8), 5


@dataclass
class Results:
    """Rows of the table: {measure: {side: values}}; a row shows the median and the range."""

    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, measure: str, side: Side, value: float) -> None:
        self.rows.setdefault(measure, {}).setdefault(side.name, []).append(value)

    def markdown(self) -> str:
        sides = list(dict.fromkeys(name for values in self.rows.values() for name in values))
        peers = [name for name in sides if name != Ours.name]
        header = ["measure", *sides, *(f"{name} / ours" for name in peers)]
        lines = [header, ["---", *["--:"] * (len(header) - 1)]]
        for measure, values in self.rows.items():
            cells = [_cell(values.get(name)) for name in sides]
            lines.append(
                [
                    measure,
                    *cells,
                    *(_ratio(values.get(name), values.get(Ours.name)) for name in peers),
                ]
            )
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(values: list[float] | None) -> str:
    if not values:
        return "–"
    middle, low, high = (
        f"{value:.4g}" for value in (statistics.median(values), min(values), max(values))
    )
    return middle if low == high else f"{middle} ({low}–{high})"


def _ratio(peer: list[float] | None, ours: list[float] | None) -> str:
    return f"{statistics.median(peer) / statistics.median(ours):.2f}" if peer and ours else "–"


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Return the seconds of a command, and what it prints."""
    started = perf_counter()
    output = run(command, environment)
    return perf_counter() - started, output


def peak_memory(command: list[str], environment: dict[str, str]) -> int:
    """Run a command, look at the memory of its processes every 50 ms, and return the largest sum in
    bytes.
    """
    process = psutil.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak = 0
    while True:
        try:
            code = process.wait(timeout=0.05)
            return (
                peak if code == 0 else sys.exit(f"{' '.join(command)} failed with exit code {code}")
            )
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            peak = max(peak, memory_of(process))


def memory_of(process: psutil.Process) -> int:
    """Return the memory of a process and its children in bytes; pages that they share count
    once.
    """
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_full_info().pss
        except psutil.Error:  # it has ended meanwhile
            continue
    return total


def make_ct(folder: Path, cases: int) -> Path:
    """Write a dataset of v1 layout: smooth organs of five labels in a smooth body, with noise, in
    Hounsfield units.
    """
    shutil.rmtree(folder, ignore_errors=True)
    image_format, names = SimpleItkFormat(), [f"ct_{index:02d}" for index in range(cases)]
    for index, name in enumerate(names):
        image, label = draw_ct(np.random.default_rng((0, index)))
        geometry = Geometry(CT_SHAPE, CT_SPACING)
        image_format.write(folder / "imagesTr" / f"{name}_0000.nii.gz", image, geometry)
        image_format.write(folder / "labelsTr" / f"{name}.nii.gz", label, geometry)
    labels = {
        "0": "background",
        **{str(value): f"organ {value}" for value in range(1, CT_LABELS + 1)},
    }
    training = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in names
    ]
    content = {"name": "CT", "tensorImageSize": "3D", "modality": {"0": "CT"}, "labels": labels}
    content |= {"numTraining": cases, "numTest": 0, "training": training, "test": []}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def draw_ct(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an int16 image and a uint8 label map of CT_SHAPE."""
    grid = np.meshgrid(
        *(np.linspace(-1, 1, size, dtype=np.float32) for size in CT_SHAPE),
        indexing="ij",
        sparse=True,
    )
    coarse, fine = (_smooth(rng, cells) for cells in (6, 20))
    label = np.zeros(CT_SHAPE, np.uint8)
    for value in range(1, CT_LABELS + 1):
        centre, radius = rng.uniform(-0.5, 0.5, 3), rng.uniform(0.15, 0.4, 3)
        distance = sum(
            ((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radius, strict=True)
        )
        label[distance + 0.3 * fine < 1] = value
    body = sum((axis / 0.9) ** 2 for axis in grid) + 0.2 * coarse < 1.2
    signal = np.where(body, 40 + 30 * coarse + 15 * fine + 25.0 * label, -1000) + rng.normal(
        0, 12, CT_SHAPE
    )
    return signal.astype(np.int16), label


def _smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    noise = rng.normal(size=(cells,) * 3).astype(np.float32)
    return ndimage.zoom(noise, np.array(CT_SHAPE) / cells, order=3)


def compare_whole(sides: list[Side], repeat: int, results: Results) -> None:
    """Part (a)."""
    for side in sides:
        side.lay_out()
    for _ in range(repeat):
        for side in sides:
            side.clear()
            results.add(
                "a) hippocampus, raw to prepared: s", side, timed(side.whole(), side.environment)[0]
            )
    for side in sides:
        side.clear()
        results.add("a) peak memory: MB", side, peak_memory(side.whole(), side.environment) / 1e6)


def compare_prepare(sides: list[Side], repeat: int, results: Results) -> None:
    """Part (b)."""
    for side in sides:
        side.lay_out()
        side.clear()
        side.plan()
    for _ in range(repeat):
        for side in sides:
            side.clear_prepared()
            seconds, output = timed(side.prepare(), side.environment)
            results.add("b) CT, preprocess with given plans: s", side, seconds)
            cropping = (
                json.loads(output.splitlines()[-1])["cropping"] if isinstance(side, V1) else 0
            )
            results.add("b) the same without v1's cropping: s", side, seconds - cropping)
    for side in sides:
        side.clear_prepared()
        results.add("b) peak memory: MB", side, peak_memory(side.prepare(), side.environment) / 1e6)


def compare_reading(sides: list[Side], cases: int, repeat: int, results: Results) -> None:
    """Part (c)."""
    commands = {side.name: side.read() for side in sides}
    for side in sides:
        sizes = side.sizes()
        results.add("c) files, per case: MB", side, sizes["files"] / cases / 1e6)
        results.add(
            "c) files that are read, per case: MB",
            side,
            sizes.get("unpacked", sizes["files"]) / cases / 1e6,
        )
    for _ in range(repeat):
        for side in sides:
            seconds = json.loads(run(commands[side.name], side.environment).splitlines()[-1])[
                "seconds"
            ]
            results.add(f"c) reading {EDGE}x{EDGE}x{EDGE}, warm: ms", side, seconds * 1e3)


def read_ours(folder: Path) -> None:
    """Time the reads of a store in this process; print JSON."""
    store = PreparedStore(folder)
    cases = {name: store.open(name) for name in store.names()}  # the training keeps them open

    def patch(name: str, slices: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
        return cases[name].images[(slice(None), *slices)], cases[name].label[slices]

    time_reads(patch, {name: case.spatial_shape for name, case in cases.items()}, READS)


def sides_of(source: Path, arguments: argparse.Namespace) -> list[Side]:
    sides: list[Side] = [Ours(source, arguments.work)]
    if arguments.v1_python:
        sides.append(V1(source, arguments.work, arguments.v1_python.absolute()))
    if arguments.v2_python:
        sides.append(V2(source, arguments.work, arguments.v2_python.absolute()))
    return sides


def compare(arguments: argparse.Namespace) -> Results:
    """Measure everything that was asked for."""
    results = Results()
    if arguments.data:
        source = (arguments.data / "Task004_Hippocampus").resolve()
        compare_whole(sides_of(source, arguments), arguments.repeat, results)
    if arguments.cases:
        source = make_ct(arguments.work / "source" / "Task701_CT", arguments.cases)
        sides = sides_of(source, arguments)
        compare_prepare(sides, arguments.repeat, results)
        compare_reading(sides, arguments.cases, arguments.repeat, results)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = "folder for everything that is written"
    parser.add_argument(
        "--work", type=lambda path: Path(path).absolute(), required=True, help=folder
    )
    parser.add_argument(
        "--data", type=Path, help="folder with Task004_Hippocampus; part (a) is left out without"
    )
    parser.add_argument("--v1-python", type=Path, help="python of an environment with nnunet 1.7.1")
    parser.add_argument("--v2-python", type=Path, help="python of an environment with nnunetv2")
    parser.add_argument(
        "--cases", type=int, default=6, help="synthetic CT cases; 0 leaves out (b) and (c)"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_ours(arguments.work)
        return
    table = compare(arguments).markdown()
    machine = f"{PROCESSES} processes, {os.cpu_count()} cores"
    counts = f"{arguments.repeat} runs; {arguments.cases} CT cases, {machine}"
    notes = f"Median (range) of {counts}."
    print(f"{table}\n\n{notes}")
    if arguments.output:
        arguments.output.write_text(f"{table}\n\n{notes}\n")


if __name__ == "__main__":
    main()
