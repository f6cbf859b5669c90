"""Peak memory and time of predicting one large volume with a trivial network, from the prepared
case to the label map.

Usage: python tests/benchmarks/bench_memory.py [--classes 10 50 100] [--folds 1] [--memory-gb 10]
       [--step-size 0.5]
       [--shape 600 512 512] [--patch 128 128 128] [--keep] [--output FILE.md]

Each figure is of a process of its own: without resampling the networks' grid is that of the volume,
with it that of 1.5 times its spacing. The network is a convolution with a kernel of 1 of a volume
of soft blobs, so that label maps have boundaries. `--keep` also asks for probabilities, and throws
them away. Memory is the resident set, at most (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from nnunet_builtin.inference.networks import Forward

FINER = 1.5  # spacing of the networks, beside 1


def one(arguments: argparse.Namespace) -> dict[str, float]:
    """Predict in this process; return GB and seconds."""
    import numpy as np
    from scipy import ndimage

    from nnunet_builtin.computing.computation import computing
    from nnunet_builtin.computing.devices import resolve
    from nnunet_builtin.inference.sliding_window import predict_slabs
    from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
    from nnunet_core.contracts.predictor import Slabs
    from nnunet_core.contracts.trainer import Runtime
    from nnunet_core.data.cases import PreparedGeometry
    from nnunet_core.data.images import Geometry
    from nnunet_core.data.labels import Labels
    from nnunet_core.stages.case import CasePredictor

    (classes,), shape = arguments.classes, tuple(arguments.shape)
    prepared = tuple(round(size / arguments.spacing) for size in shape)
    geometry = PreparedGeometry(
        Geometry(shape),
        tuple((0, size) for size in shape),
        (0, 1, 2),
        prepared,
        (arguments.spacing,) * 3,
    )
    coarse = np.random.default_rng(0).normal(size=[size // 24 + 2 for size in prepared])
    zoom = [size / old for size, old in zip(prepared, coarse.shape, strict=True)]
    images = ndimage.zoom(coarse.astype(np.float32), zoom, order=1, grid_mode=True, mode="nearest")
    raw = np.zeros((1, *shape), np.float32)
    raw[...] = 1  # what the file holds is in memory, too
    networks = [trivial_network(classes, fold) for fold in range(arguments.folds)]
    labels = Labels.from_names({"background": 0, **{str(i): i for i in range(1, classes)}})
    runtime, given = resolve(Runtime("cpu", "float32")), []

    def parts(array: np.ndarray) -> Iterator[np.ndarray]:
        with computing(runtime):
            yield from predict_slabs(
                networks,
                array,
                arguments.patch,
                runtime,
                step_size=arguments.step_size,
                memory_gb=arguments.memory_gb,
            )

    def apply(array: np.ndarray) -> Slabs:
        return Slabs((classes, *array.shape[1:]), parts(array))

    case = CasePredictor(apply, DefaultPreprocessor(), labels)
    started = time.perf_counter()
    keep = (lambda start, slab: given.append(start)) if arguments.keep else None
    label = case.segment(np.ascontiguousarray(images[None]), geometry, None, keep)
    seconds = time.perf_counter() - started
    assert label.shape == raw.shape[1:] == shape
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM"))
    return {"GB": peak * 1024 / 1e9, "s": seconds, "labels": float(len(np.unique(label)))}


def trivial_network(classes: int, fold: int) -> Forward:
    """Return the network of a fold: the nearest of evenly spaced intensities wins."""
    import torch

    from nnunet_builtin.computing.devices import resolve
    from nnunet_builtin.inference.networks import probabilities_of
    from nnunet_core.contracts.trainer import Runtime

    network = torch.nn.Conv3d(1, classes, 1)
    places = torch.linspace(-1.5, 1.5, classes) + 0.01 * fold
    with torch.no_grad():
        network.weight[:, 0, 0, 0, 0], network.bias[:] = 40 * places, -20 * places**2
    return probabilities_of(network, resolve(Runtime("cpu", "float32")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--memory-gb", type=float)
    parser.add_argument("--step-size", type=float, default=0.5)
    parser.add_argument("--shape", type=int, nargs=3, default=[600, 512, 512])
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    parser.add_argument("--spacing", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.spacing is not None:
        print(json.dumps(one(arguments)))
        return
    rows = ["| classes | grid of the networks | peak memory: GB | s |", "| --: | --- | --: | --: |"]
    for spacing, grid in ((1.0, "that of the volume"), (FINER, f"{FINER} times the spacing")):
        for classes in arguments.classes:
            words = [sys.executable, __file__, "--spacing", str(spacing), "--classes", str(classes)]
            words += [word for word in sys.argv[1:] if word == "--keep"]
            for name in ("folds", "memory_gb", "step_size"):
                if (value := getattr(arguments, name)) is not None:
                    words += [f"--{name.replace('_', '-')}", str(value)]
            for name in ("shape", "patch"):
                words += [f"--{name}", *map(str, getattr(arguments, name))]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append(f"| {classes} | {grid} | {found['GB']:.1f} | {found['s']:.0f} |")
            print(rows[-1], file=sys.stderr, flush=True)
    print("\n".join(rows))
    if arguments.output:
        arguments.output.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
