"""Drawn prepared cases, and all that a trainer needs to learn from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nnunet_builtin.losses.dice_ce import DiceCE
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.preprocessing.preprocessor import class_locations
from nnunet_core.contracts.augmentation import Augmentation
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.data.cases import PreparedCase, PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.prepared import PreparedStore


def labels_of(classes: int) -> Labels:
    """Return the labels of a network with so many outputs, background included."""
    names = {value: f"structure {value}" for value in range(1, classes)}
    return Labels(names={0: "background", **names}, foreground=tuple(names))


def configuration_of(
    patch: Sequence[int], batch: int, classes: int, poolings: int, base_features: int
) -> Configuration:
    """Return an isotropic 3D configuration of 1 mm.

    Args:
        patch: Voxels.
        batch: Patches.
        classes: Outputs of the network, background included.
        poolings: Times that every axis is halved.
        base_features: At full resolution.
    """
    network = NetworkSpec(
        dimensions=3,
        input_channels=1,
        output_channels=classes,
        pool_kernels=((2, 2, 2),) * poolings,
        conv_kernels=((3, 3, 3),) * (poolings + 1),
        base_features=base_features,
    )
    return Configuration(
        preprocessor="default",
        transpose_forward=(0, 1, 2),
        spacing=(1.0, 1.0, 1.0),
        median_shape=tuple(patch),
        patch_size=tuple(patch),
        batch_size=batch,
        network=network,
        dummy_2d_augmentation=False,
        batch_dice=True,
        normalization=(Normalization(scheme="zscore"),),
    )


def write_cases(
    folder: Path,
    count: int,
    shape: tuple[int, int, int],
    classes: int,
    patch: Sequence[int],
    threads: int,
) -> PreparedStore:
    """Return a store of `count` drawn cases of a shape (Z, Y, X), written in several threads."""
    store = PreparedStore(folder)

    def write(number: int) -> None:
        store.write(_draw(number, shape, classes), "drawn", patch)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(count)))
    return store


def task_of(
    folder: Path,
    store: PreparedStore,
    configuration: Configuration,
    augmentation: Augmentation,
    runtime: Runtime,
    epoch_finished: Callable[[Mapping[str, object]], None] = lambda _: None,
) -> TrainingTask:
    """Return the training of all cases of a store; the first one validates, too."""
    names = store.names()
    folder.mkdir(parents=True)
    return TrainingTask(
        folder=folder,
        configuration=configuration,
        labels=labels_of(configuration.network.output_channels),
        training=names,
        validation=names[:1],
        store=store,
        network=PlainUNet(),
        loss=DiceCE(),
        augmentation=augmentation,
        runtime=runtime,
        seed=3,
        report=Silence(),
        epoch_finished=epoch_finished,
    )


def _draw(number: int, shape: tuple[int, int, int], classes: int) -> PreparedCase:
    """Return a case with a box of every class, brighter than the noise around it."""
    random = np.random.default_rng(number)
    label = np.zeros(shape, np.int8)
    for value in range(1, classes):
        start = [int(random.integers(0, size - size // 3)) for size in shape]
        box = tuple(slice(low, low + size // 3) for low, size in zip(start, shape, strict=True))
        label[box] = value
    images = random.standard_normal((1, *shape), dtype=np.float32)
    images += label
    whole = tuple((0, size) for size in shape)
    geometry = PreparedGeometry(Geometry(shape), whole, (0, 1, 2), shape, (1.0, 1.0, 1.0))
    locations = class_locations(label, range(1, classes))
    return PreparedCase(f"case_{number}", images, label, geometry, locations)
