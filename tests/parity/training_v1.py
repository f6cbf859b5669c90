"""Compare training steps with those of nnU-Net v1 1.7.1: the same weights, batches and settings,
loss after loss.

Usage: python tests/parity/training_v1.py --v1-python /path/to/nnunet/venv/bin/python [--store]

Prints the largest differences; exit code 1 when one is above what rounding explains. `--store`
replaces the figures of v1 in training_v1.json, which tests/builtin/training/test_v1_steps.py
compares with on every run of the tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_builtin.computing.computation import computing
from nnunet_builtin.datasets.reading import read_labels
from nnunet_builtin.losses.dice_ce import DiceCE
from nnunet_builtin.networks.state_names import from_v1
from nnunet_builtin.training.loading import Iteration
from nnunet_builtin.training.loop import Loop
from nnunet_builtin.training.optimization import learning_rate
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.data.plans import NetworkSpec

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "builders"))
import small_training as small
from training_problems import EPOCHS, PROBLEMS, STEPS, draw_batch, draw_weights

HERE = Path(__file__).parent
FIGURES = HERE / "training_v1.json"
#: {precision: largest difference of a loss, and largest relative one of the norm of a tensor}
LIMITS = {"float32": (1e-4, 1e-4), "float64": (1e-9, 1e-9)}


def our_loop(problem: dict[str, Any], shapes: dict[str, Any], kind: str, **settings: Any) -> Loop:
    """Return the training of a problem before its first step, with v1's weights.

    Args:
        problem: One of PROBLEMS.
        shapes: {v1's name: shape} of the weights.
        kind: `float32` or `float64`.
        settings: Of the trainer, where they are not v1's.
    """
    spec = NetworkSpec(
        dimensions=len(problem["patch_size"]),
        input_channels=problem["input_channels"],
        output_channels=problem["classes"],
        pool_kernels=problem["pool_kernels"],
        conv_kernels=problem["conv_kernels"],
        base_features=problem["base_features"],
        max_features=320,
    )
    names = ["background", *(f"class {value}" for value in range(1, problem["classes"]))]
    configuration = small.CONFIGURATION.model_copy(
        update={
            "network": spec,
            "patch_size": tuple(problem["patch_size"]),
            "batch_size": problem["batch_size"],
            "batch_dice": problem["batch_dice"],
        }
    )
    labels = read_labels({"labels": {name: value for value, name in enumerate(names)}}, "problem")
    trainer = TrainerV2(**{"epochs": EPOCHS, "iterations_per_epoch": STEPS // EPOCHS, **settings})
    with tempfile.TemporaryDirectory() as folder:
        task = small.task_without_cases(
            Path(folder, "fold_0"), configuration, labels, loss=DiceCE(), seed=0
        )
        loop = small.make_loop(task, trainer)
    drawn = {name: torch.from_numpy(array) for name, array in draw_weights(problem, shapes).items()}
    loop.state.network.load_state_dict(from_v1(drawn))
    loop.state.network.to(getattr(torch, kind))
    return loop


def our_steps(name: str, shapes: dict[str, Any], kind: str, **settings: Any) -> dict[str, Any]:
    """Make the steps of a problem; return `losses` and the `norms` of the final weights, by our
    names.
    """
    problem = PROBLEMS[name]
    loop, losses = our_loop(problem, shapes, kind, **settings), []
    for step in range(STEPS):
        epoch, index = divmod(step, STEPS // EPOCHS)
        for group in loop.state.optimizer.param_groups:
            group["lr"] = learning_rate(loop.settings, epoch)
        images, label = (torch.from_numpy(array) for array in draw_batch(problem, step))
        batch = {"images": images.to(getattr(torch, kind)), "label": label, "names": ["drawn"]}
        with computing(loop.runtime, deterministic=False):
            losses.append(loop._training_step(Iteration(epoch, index, True), batch, True))
    weights = loop.state.network.state_dict()
    return {
        "losses": losses,
        "norms": {key: float(tensor.double().norm()) for key, tensor in weights.items()},
    }


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, float]:
    """Return the largest difference of the losses, and the largest relative one of the norms of
    final tensors.
    """
    loss = float(np.abs(np.subtract(ours["losses"], theirs["losses"])).max())
    expected = from_v1(
        {key: torch.tensor(value, dtype=torch.float64) for key, value in theirs["norms"].items()}
    )
    if set(expected) != set(ours["norms"]):
        raise ValueError(f"different tensors: {set(expected) ^ set(ours['norms'])}")
    return loss, max(abs(ours["norms"][key] / float(value) - 1) for key, value in expected.items())


def main() -> int:
    """Run both sides and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--v1-python", required=True)
    parser.add_argument("--store", action="store_true", help=f"replace {FIGURES.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figures.json")
        subprocess.run(
            [options.v1_python, str(HERE / "peer_v1_training.py"), str(path)], check=True
        )
        figures = json.loads(path.read_text())
    wrong = 0
    for name, figure in figures.items():
        for kind, limits in LIMITS.items():
            found = differences(our_steps(name, figure["shapes"], kind), figure[kind])
            clipped = sum(norm > 12 for norm in figure[kind]["gradients"])
            wrong += any(value > limit for value, limit in zip(found, limits, strict=True))
            print(
                f"{name} {kind}: loss {found[0]:.1e}, norms {found[1]:.1e}; {clipped} of {STEPS} "
                "gradients clipped"
            )
    if options.store and not wrong:
        FIGURES.write_text(json.dumps(figures, indent=0) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
