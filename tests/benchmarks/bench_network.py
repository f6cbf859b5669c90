"""Time a training iteration of the network (forward, backward, SGD step) in several
implementations, in turns.

Usage: python tests/benchmarks/bench_network.py [--rounds 5] [--threads 2] [--curve 0]

Patch 40x56x40, batch 2, features 32..256. `plain` is the network as it is built, `ours` what
`accelerate` makes of it. Printed are the fastest and the median iteration, and how many times
faster than plain float32 each is. With `--curve N`, also the losses of N iterations of training on
the same batches in float32 and in bfloat16.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn

from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.losses.deep_supervision import DeepSupervisionLoss, targets
from nnunet_builtin.losses.dice_ce import DiceCE
from nnunet_builtin.networks.cpu.acceleration import accelerate
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_core.data.plans import NetworkSpec

POOLS = ((2, 2, 2),) * 3
SPEC = NetworkSpec(
    dimensions=3,
    input_channels=1,
    output_channels=3,
    pool_kernels=POOLS,
    conv_kernels=((3, 3, 3),) * 4,
)


def make_batches(count: int = 8, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return batches of two volumes (2, 1, 40, 56, 40) with two ellipsoids as labels 1 and 2."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 56, 40)], indexing="ij"))
    batches = []
    for _ in range(count):
        label = np.zeros((2, 1, 40, 56, 40), np.int16)
        for sample in label:
            for value in (1, 2):
                centre = rng.uniform(-0.4, 0.4, 3)[:, None, None, None]
                radius = rng.uniform(0.2, 0.45, 3)[:, None, None, None]
                sample[0][(((grid - centre) / radius) ** 2).sum(0) < 1] = value
        batches.append(
            (
                torch.from_numpy(
                    (label * 1.0 + rng.normal(0, 0.7, label.shape)).astype(np.float32)
                ),
                torch.from_numpy(label),
            )
        )
    return batches


class Iteration:
    """One way to train: call it with images and label to do one iteration."""

    def __init__(self, plain: bool, layout: torch.memory_format, precision: torch.dtype):
        torch.manual_seed(0)
        self.network = PlainUNet().build(SPEC)
        self.network.to(memory_format=layout)
        if not plain:
            accelerate(self.network, ResolvedRuntime(torch.device("cpu"), precision, 1, 0))
        self.layout, self.precision = layout, precision
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5
        )
        self.loss = DeepSupervisionLoss(DiceCE().build(batch_dice=False))

    def __call__(self, images: torch.Tensor, label: torch.Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == torch.bfloat16):
            heads = self.network(images.contiguous(memory_format=self.layout))
        value = self.loss(heads, targets(label, [head.shape[2:] for head in heads]))
        value.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return value.item()


VARIANTS = {
    f"{'plain' if plain else 'ours'} {str(precision).removeprefix('torch.')} {name}": (
        plain,
        layout,
        precision,
    )
    for precision in (torch.float32, torch.bfloat16)
    for plain in (True, False)
    for name, layout in (
        ("contiguous", torch.contiguous_format),
        ("channels-last", torch.channels_last_3d),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--curve", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batches = make_batches()
    compare(batches, arguments.rounds)
    if arguments.curve:
        curves(batches, arguments.curve)


def compare(batches, rounds: int) -> None:
    variants = {name: Iteration(*settings) for name, settings in VARIANTS.items()}
    seconds = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, iteration in variants.items():
            started = time.perf_counter()
            iteration(*batches[number % len(batches)])
            seconds[name].append(time.perf_counter() - started)
    plain = min(seconds["plain float32 contiguous"][1:])
    for name, values in seconds.items():
        fastest, median = min(values[1:]), statistics.median(values[1:])
        print(f"{name:32} {fastest:.3f} s  median {median:.3f} s  {plain / fastest:.2f} x")


def curves(batches, iterations: int) -> None:
    layout = torch.channels_last_3d
    trainings = {
        str(precision): Iteration(False, layout, precision)
        for precision in (torch.float32, torch.bfloat16)
    }
    losses = {
        name: [run(*batches[i % len(batches)]) for i in range(iterations)]
        for name, run in trainings.items()
    }
    exact, coarse = losses.values()
    for name, values in losses.items():
        print(
            f"{name:16} "
            + " ".join(f"{value:.3f}" for value in values[:: max(1, iterations // 10)])
        )
    print(
        "mean difference "
        f"{statistics.mean(abs(a - b) for a, b in zip(exact, coarse, strict=True)):.4f}"
    )


if __name__ == "__main__":
    main()
