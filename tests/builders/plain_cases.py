"""Five cases of 4x5x6 voxels, and a preprocessor that leaves them as they are."""

import os
import sys

import numpy as np
from threadpoolctl import threadpool_info

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.cases import PreparedCase, PreparedGeometry
from nnunet_core.data.dataset import CaseFiles, Dataset
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.errors import DatasetError
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.prepare import case_keys, prepare_cases
from nnunet_core.store.prepared import PreparedStore

SHAPE = (4, 5, 6)
ENDING = ".nii.gz"
IDENTITY = {"reference": "test/plain", "settings": {}}
CONFIGURATION = Configuration(
    preprocessor="test/plain",
    transpose_forward=(0, 1, 2),
    spacing=(1.0, 1.0, 1.0),
    median_shape=SHAPE,
    patch_size=SHAPE,
    batch_size=2,
    network=NetworkSpec(
        dimensions=3,
        input_channels=1,
        output_channels=3,
        pool_kernels=(),
        conv_kernels=((3, 3, 3),),
    ),
    dummy_2d_augmentation=False,
    batch_dice=False,
    normalization=(Normalization(scheme="none"),),
)


class Plain:
    """Leaves images as they are; voxel 0 tells about the process: its id, whether it has torch, its
    threads.
    """

    def __init__(self, die: str = "", fail: str = "") -> None:
        self.die = die
        self.fail = fail

    def prepare(self, case, configuration, foreground=()):
        if case.name == self.die:
            os._exit(9)
        if case.name == self.fail:
            raise DatasetError(f"Case {case.name} has no voxel.")
        threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
        images = case.images.copy()
        images[0, 0, 0, :3] = os.getpid(), "torch" in sys.modules, threads
        box = tuple((0, n) for n in case.label.shape)
        geometry = PreparedGeometry(
            case.geometry, box, (0, 1, 2), case.label.shape, (1.0, 1.0, 1.0)
        )
        locations = {value: np.argwhere(case.label == value) for value in foreground}
        return PreparedCase(case.name, images, case.label, geometry, locations)


def make_dataset(folder) -> Dataset:
    """Write five labelled cases, a to e."""
    random = np.random.default_rng(0)
    image_format, cases = SimpleItkFormat(), []
    for name in "abcde":
        case = CaseFiles(name, (folder / f"{name}_0000.nii.gz",), folder / f"{name}.nii.gz")
        image_format.write(
            case.images[0], random.normal(size=SHAPE).astype(np.float32), Geometry(SHAPE)
        )
        image_format.write(
            case.label, random.integers(0, 3, SHAPE).astype(np.uint8), Geometry(SHAPE)
        )
        cases.append(case)
    labels = Labels(names={0: "background", 1: "one", 2: "two"}, foreground=(2, 1))
    return Dataset(
        folder,
        "Task999_Tiny",
        ("MRI",),
        labels,
        ENDING,
        image_format,
        ENDING,
        image_format,
        tuple(cases),
        {},
    )


def prepare(dataset, store, preprocessor=None, workers=1) -> list[str]:
    """Prepare the cases that are missing or stale; return their names."""
    keys = case_keys(dataset, CONFIGURATION, IDENTITY)
    todo = PreparedStore(store.folder, keys).missing()
    with Workers(workers) as processes:
        return list(
            prepare_cases(dataset, CONFIGURATION, preprocessor or Plain(), store, todo, processes)
        )
