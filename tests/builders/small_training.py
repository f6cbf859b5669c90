"""A training of milliseconds in this process: four drawn cases, a network of two resolutions."""

import contextlib
import multiprocessing
import os
import signal
import socket
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import save_file

from nnunet_builtin.augmentation.v2 import NoAugmentation
from nnunet_builtin.computing.devices import ResolvedRuntime
from nnunet_builtin.datasets.reading import read_labels
from nnunet_builtin.losses.dice_ce import DiceCE
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.training.loop import Loop
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.predictor import TrainedModel
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.data.cases import PreparedCase, PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.data.weights import InitialWeights
from nnunet_core.errors import StoppedError
from nnunet_core.runtime.files import file_digest
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import WEIGHTS
from nnunet_core.store.prepared import LabelStore, PreparedStore

SHAPE, PATCH = (10, 14, 12), (8, 8, 8)
NAMES = tuple(f"case_{number}" for number in range(4))
CLASSES = {"background": 0, "edge": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
IGNORE = {"ignore": 3}


def isotropic(depth, dimensions=3, **changes):
    """Return the sizes of a network that halves every axis `depth` times."""
    usual = {
        "dimensions": dimensions,
        "input_channels": 1,
        "output_channels": 2,
        "pool_kernels": ((2,) * dimensions,) * depth,
        "conv_kernels": ((3,) * dimensions,) * (depth + 1),
    }
    return NetworkSpec(**{**usual, **changes})


CONFIGURATION = Configuration(
    preprocessor="default",
    transpose_forward=(0, 1, 2),
    spacing=(1, 1, 1),
    median_shape=SHAPE,
    patch_size=PATCH,
    batch_size=2,
    network=isotropic(2, output_channels=3, base_features=4),
    dummy_2d_augmentation=False,
    batch_dice=True,
    normalization=(Normalization(scheme="zscore"),),
)
SETTINGS = {
    "epochs": 3,
    "iterations_per_epoch": 3,
    "validation_iterations": 1,
    "learning_rate": 0.01,
}


class Told(Silence):
    """A reporter that remembers warnings."""

    def __init__(self):
        self.warnings = []

    def warning(self, text):
        self.warnings.append(text)


def labels_of(declared):
    return read_labels({"labels": declared, "regions_class_order": [1, 2]}, "test")


def make_runtime():
    return Runtime("cpu", "float32", 0, 1)


def make_task(folder, declared=None, cascade=False, epoch_finished=lambda _: None, **changes):
    """Return a task whose cases lie beside the fold's folder."""
    labels = labels_of(declared or CLASSES)
    store, previous = prepare(folder, labels)
    network = CONFIGURATION.network.model_dump()
    network["output_channels"] = labels.outputs
    if cascade:
        network["input_channels"] += len(labels.foreground)
    configuration = CONFIGURATION.model_copy(
        update={"network": NetworkSpec(**network), "previous": "3d_lowres" if cascade else None}
    )
    task = task_without_cases(
        folder,
        configuration,
        labels,
        training=NAMES[:3],
        validation=NAMES[3:],
        store=store,
        epoch_finished=epoch_finished,
        previous=previous if cascade else None,
    )
    return replace(task, **changes)


def task_without_cases(folder, configuration, labels, **changes):
    """Return a task for what draws its own batches; its store is empty."""
    folder.mkdir(parents=True, exist_ok=True)
    task = TrainingTask(
        folder=folder,
        configuration=configuration,
        labels=labels,
        training=(),
        validation=(),
        store=PreparedStore(folder.parent / "prepared"),
        network=PlainUNet(),
        loss=DiceCE(labels="any"),
        augmentation=NoAugmentation(),
        runtime=make_runtime(),
        seed=3,
        report=Silence(),
        epoch_finished=lambda _: None,
    )
    return replace(task, **changes)


def make_loop(task, settings=None):
    """Return the training of a task before its first step, on the CPU in float32."""
    runtime = ResolvedRuntime(torch.device("cpu"), torch.float32, 1, 0)
    return Loop(settings or TrainerV2(**SETTINGS), task, runtime).open()


def make_model(folder, declared=None, configuration=CONFIGURATION, folds=2):
    """Return a model whose folds have random weights."""
    labels, builder = labels_of(declared or CLASSES), PlainUNet()
    network = configuration.network.model_copy(update={"output_channels": labels.outputs})
    folders = tuple(folder / f"fold_{fold}" for fold in range(folds))
    for seed, fold in enumerate(folders):
        torch.manual_seed(seed)
        fold.mkdir()
        save_file(builder.build(network).state_dict(), fold / WEIGHTS)
    return TrainedModel(
        folds=folders,
        configuration=configuration.model_copy(update={"network": network}),
        labels=labels,
        network=builder,
        runtime=make_runtime(),
        mirror_axes=tuple(range(configuration.dimensions)),
    )


def prepare(folder, labels):
    """Return the stores of the cases and of their previous stage, written before if they are not
    there.
    """
    store = PreparedStore(folder.parent / "prepared")
    previous = LabelStore(folder.parent / "previous")
    if not store.names():
        _write_cases(store, previous, labels)
    return store, previous


def train(folder, settings=None, **changes):
    """Train; return the folder."""
    TrainerV2(**{**SETTINGS, **(settings or {})}).train(make_task(folder, **changes))
    return folder


def frozen_encoder(folder):
    """Start from the weights of a trained fold, and keep its encoder."""
    path = folder / WEIGHTS
    return InitialWeights(path=str(path), digest=file_digest(path), frozen=("encoder",))


def free_port():
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_processes(function, arguments, count):
    """Call function(rank, *arguments) in so many processes, copies of one that imported PyTorch:
    new ones would take seconds for that.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    torch.multiprocessing.start_processes(
        function, arguments, nprocs=count, start_method="forkserver"
    )


def train_in_process(rank, size, port, trainings, fails_after, stops_after):
    """Train {folder: changes} as one of several processes.

    After `fails_after` epochs each of them fails. The last one gets SIGTERM in the second batch
    after `stops_after` epochs.
    """
    here = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_PORT": port,
    }
    os.environ.update(
        {name: str(value) for name, value in here.items()},
        MASTER_ADDR="127.0.0.1",
        OMP_NUM_THREADS="1",
    )

    def epoch_finished(line):
        if line["epoch"] == fails_after:
            raise RuntimeError("as planned")

    if stops_after and rank == size - 1:
        step = Loop._training_step

        def stopping(loop, at, *arguments):
            if (at.epoch, at.index) == (stops_after, 1):
                os.kill(os.getpid(), signal.SIGTERM)
            return step(loop, at, *arguments)

        Loop._training_step = stopping
    with contextlib.suppress(StoppedError) if stops_after else contextlib.nullcontext():
        for folder, changes in trainings.items():
            train(folder, epoch_finished=epoch_finished, **changes)


def _write_cases(store, previous, labels):
    for number, name in enumerate(NAMES):
        random = np.random.default_rng(number)
        label = np.zeros(SHAPE, np.int8)
        z, y, x = random.integers(1, 4, 3)
        (
            label[z : z + 5, y : y + 6, x : x + 6],
            label[z + 1 : z + 4, y + 2 : y + 5, x + 2 : x + 5],
        ) = 1, 2
        if labels.ignore is not None:
            label[:, :3] = labels.ignore
        write_case(store, name, label, random)
        previous.write(
            name, np.where(label == labels.ignore, 0, label).astype(np.int16), "key", PATCH
        )


def write_case(store, name, label, random):
    """Write a prepared case whose image is its label (int8) and noise."""
    shape = label.shape
    geometry = PreparedGeometry(
        Geometry(shape), tuple((0, n) for n in shape), (0, 1, 2), shape, (1.0, 1.0, 1.0)
    )
    images = (label + random.normal(0, 0.5, (1, *shape))).astype(np.float32)
    locations = {value: np.argwhere(label == value) for value in (1, 2)}
    store.write(PreparedCase(name, images, label, geometry, locations), "key", PATCH)
