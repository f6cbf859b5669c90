"""A training step of ours on one batch again and again: no stored cases, loaders, augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunet_builtin.augmentation.v2 import NoAugmentation
from nnunet_builtin.computing.devices import PRECISIONS, ResolvedRuntime
from nnunet_builtin.datasets.reading import read_labels
from nnunet_builtin.losses.dice_ce import DiceCE
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.training.loading import Iteration
from nnunet_builtin.training.loop import Loop
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.runtime.reporting import Silence

LABELS = {"background": 0, "edge": 1, "core": 2}
#: Layers as nnunetv2 has them, so that both compute the same.
NETWORK = PlainUNet(layout="v2")
#: Forward pass, gradients of features, gradients of weights.
PASSES = 3


@dataclass(frozen=True)
class Size:
    """A network and its batches.

    Attributes:
        patch: Voxels.
        batch: Samples.
        pools: Stride of each downsampling, finest first.
        kernels: Of each resolution, finest first.
        features: At full resolution.
        most_features: At any resolution.
    """

    patch: tuple[int, ...]
    batch: int
    pools: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    features: int = 32
    most_features: int = 320

    @property
    def name(self) -> str:
        """Return the patch for people."""
        return "x".join(map(str, self.patch))

    @property
    def spec(self) -> NetworkSpec:
        """Return what a network builder needs to know: one channel, three classes."""
        return NetworkSpec(
            dimensions=len(self.patch),
            input_channels=1,
            output_channels=len(LABELS),
            pool_kernels=self.pools,
            conv_kernels=self.kernels,
            base_features=self.features,
            max_features=self.most_features,
        )

    def teraflops(self) -> float:
        """Return 10^12 operations of a training step; counted without computing anything."""
        with torch.device("meta"):
            network = NETWORK.build(self.spec)
            images = torch.empty(self.batch, 1, *self.patch)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images)
        return PASSES * counter.get_total_flops() / 1e12


@dataclass(frozen=True)
class Choice:
    """How to compute.

    Attributes:
        precision: Of convolutions.
        channels_last: Order of features in memory.
        compiled: By PyTorch's compiler.
    """

    precision: str
    channels_last: bool
    compiled: bool

    @property
    def order(self) -> str:
        """Return the order of features for people."""
        return "channels-last" if self.channels_last else "contiguous"

    def __str__(self) -> str:
        return f"{self.precision}, {self.order}, {'compiled' if self.compiled else 'eager'}"


def isotropic(patch: Sequence[int], batch: int, pools: int, **features: int) -> Size:
    """Return the size of a network that halves every axis, with kernels of 3."""
    twos, threes = (2,) * len(patch), (3,) * len(patch)
    return Size(tuple(patch), batch, (twos,) * pools, (threes,) * (pools + 1), **features)


def anisotropic(
    patch: Sequence[int],
    batch: int,
    flat: int,
    deep: int,
    last: int,
    **features: int,
) -> Size:
    """Return a size with coarse slices, as v1 plans them.

    Args:
        patch: Voxels, slices first.
        batch: Samples.
        flat: First poolings, and kernels, in plane.
        deep: Poolings of every axis that follow.
        last: Poolings in plane after them; kernels stay 3 along every axis.
        features: Of `Size`.
    """
    plane, space = (1, 2, 2), (2, 2, 2)
    pools = (plane,) * flat + (space,) * deep + (plane,) * last
    kernels = ((1, 3, 3),) * flat + ((3, 3, 3),) * (deep + last + 1)
    return Size(tuple(patch), batch, pools, kernels, **features)


FULL = (
    isotropic((128, 128, 128), 2, 5),
    anisotropic((20, 320, 256), 2, flat=2, deep=2, last=2),
    isotropic((40, 56, 40), 9, 3),
    isotropic((512, 512), 12, 7, most_features=480),
)
TINY = (
    isotropic((16, 16, 16), 2, 2, features=4),
    anisotropic((4, 32, 32), 2, flat=1, deep=1, last=1, features=4),
    isotropic((8, 16, 8), 3, 2, features=4),
    isotropic((32, 32), 3, 3, features=4),
)


class _Warnings(Silence):
    """Keeps what a training warns of."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def warning(self, text: str) -> None:
        """Keep it."""
        self.kept.append(text)


def own_runtime(choice: Choice, device: str) -> ResolvedRuntime:
    """Return how to compute, on as many cores as PyTorch has now."""
    dtype, threads = PRECISIONS[choice.precision], torch.get_num_threads()
    where = torch.device("cuda:0" if device == "cuda" else device)
    return ResolvedRuntime(where, dtype, threads, 0, choice.channels_last)


@dataclass(frozen=True)
class OwnStep:
    """One training step on one batch; call it again and again.

    Attributes:
        loop: The training.
        batch: On the host.
    """

    loop: Loop
    batch: dict[str, Any]

    def __call__(self) -> float:
        """Return the loss."""
        return self.loop._training_step(Iteration(0, 0, training=True), self.batch, updating=True)


def own_step(size: Size, choice: Choice, device: str, folder: Path) -> OwnStep:
    """Return a training step; for a card its batch is in pinned memory, as loaders hand it over.

    The table and the drawing of the network are left out: they take seconds of the measurement.

    Args:
        size, choice, device: What to train, and how.
        folder: Of the training; nothing is written there.

    Raises:
        RuntimeError: The network was to be compiled and cannot be.
    """
    warnings = _Warnings()
    settings = TrainerV2(compile=choice.compiled)
    task, runtime = _task(size, device, folder, warnings), own_runtime(choice, device)
    with mock.patch("nnunet_builtin.training.loop.describe_network"):
        loop = Loop(settings, task, runtime).open()
    failed = [text for text in warnings.kept if "cannot be compiled" in text]
    if failed:
        raise RuntimeError(failed[0])
    batch = one_batch(size)
    if device == "cuda":
        batch |= {name: batch[name].pin_memory() for name in ("images", "label")}
    return OwnStep(loop, batch)


def one_batch(size: Size) -> dict[str, Any]:
    """Return a batch as loaders hand it over: bright boxes within boxes, and noise."""
    shape = (size.batch, 1, *size.patch)
    label = torch.zeros(shape, dtype=torch.int16)
    outer = tuple(slice(length // 4, 3 * length // 4) for length in size.patch)
    inner = tuple(slice(3 * length // 8, 5 * length // 8) for length in size.patch)
    label[(..., *outer)], label[(..., *inner)] = 1, 2
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    samples = range(size.batch)
    return {
        "images": label + noise,
        "label": label,
        "names": [f"case_{number}" for number in samples],
        "seeds": list(samples),
    }


def _task(size: Size, device: str, folder: Path, report: Silence) -> TrainingTask:
    folder.mkdir(parents=True, exist_ok=True)
    no_store: Any = None
    return TrainingTask(
        folder=folder,
        configuration=_configuration(size),
        labels=read_labels({"labels": LABELS}, "steps"),
        training=(),
        validation=(),
        store=no_store,
        network=NETWORK,
        loss=DiceCE(),
        augmentation=NoAugmentation(),
        runtime=Runtime(device),
        seed=0,
        report=report,
        epoch_finished=lambda _: None,
    )


def _configuration(size: Size) -> Configuration:
    return Configuration(
        preprocessor="default",
        transpose_forward=(0, 1, 2),
        spacing=(1, 1, 1),
        median_shape=(1, *size.patch)[-3:],
        patch_size=size.patch,
        batch_size=size.batch,
        network=size.spec,
        dummy_2d_augmentation=False,
        batch_dice=False,
        normalization=(Normalization(scheme="zscore"),),
    )
