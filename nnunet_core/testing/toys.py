"""Small datasets that a network can learn: two boxes, one in the other, brighter than the noise
around them; no two axes are alike.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import built
from nnunet_core.data.cases import Case
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import SLICE_SPACING_2D, Geometry
from nnunet_core.data.labels import label_type
from nnunet_core.data.plans import Configuration, NetworkSpec, Normalization
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.formats import find_format
from nnunet_core.store.prepared import PreparedStore

_CLASSES = {"background": 0, "shell": 1, "core": 2}
_TURNED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)  # x and y run the other way
_VOLUME = Geometry((20, 26, 24), (1.5, 1.0, 1.2), (-10.0, 5.0, 2.0), _TURNED)


@dataclass(frozen=True)
class Toy:
    """What a toy dataset is made of.

    Attributes:
        geometry: Of every case.
        labels: As in dataset.json.
        channels: Their names.
        ignore: Value of voxels that nobody labelled: the first rows of every case.
        empty: Whether the last case has no foreground.
        patch_size, pool_kernels: Of the networks for it; one of two axes sees slices.
    """

    geometry: Geometry = _VOLUME
    labels: Mapping[str, Any] = field(default_factory=lambda: dict(_CLASSES))
    channels: tuple[str, ...] = ("MRI",)
    ignore: int | None = None
    empty: bool = False
    patch_size: tuple[int, ...] = (16, 16, 16)
    pool_kernels: tuple[tuple[int, ...], ...] = ((2, 2, 2), (2, 2, 2))


_TOYS = {
    "2d": Toy(
        Geometry((1, 40, 36), (SLICE_SPACING_2D, 0.8, 0.7)),
        patch_size=(24, 24),
        pool_kernels=((2, 2), (2, 2)),
    ),
    "3d": Toy(),
    "anisotropic": Toy(
        Geometry((8, 34, 30), (5.0, 0.9, 1.0), (1.0, -2.0, 3.0)),
        patch_size=(4, 16, 16),
        pool_kernels=((1, 2, 2), (2, 2, 2)),
    ),
    "one_slice": Toy(
        Geometry((1, 34, 30), (3.0, 0.9, 1.0)),
        patch_size=(16, 16),
        pool_kernels=((2, 2), (2, 2)),
    ),
    "empty_foreground": Toy(empty=True),
    "ignore": Toy(labels={**_CLASSES, "ignore": 3}, ignore=3),
    "regions": Toy(labels={"background": 0, "whole": [1, 2], "core": [2]}),
    "two_channels": Toy(channels=("CT", "MRI")),
}
#: Names of the toy datasets.
NAMES = tuple(_TOYS)
_CASES = 4
_ENDING = ".nii.gz"


class Toys:
    """The toy datasets in a folder, each made when it is asked for.

    Args:
        folder: Of all of them.
        registry: Of image formats and the built-in preprocessor.
    """

    def __init__(self, folder: Path, registry: Registry) -> None:
        self._folder = folder
        self.registry = registry
        self._datasets: dict[str, Dataset] = {}
        self._cases: dict[str, list[Case]] = {}

    def folder(self, name: str = "3d") -> Path:
        """Return the folder of a dataset: one of `NAMES`."""
        number, toy = NAMES.index(name) + 900, _TOYS[name]
        folder = self._folder / "raw" / f"Dataset{number}_{name}"
        if not (folder / "dataset.json").is_file():
            _write(toy, folder, self.registry)
        return folder

    def dataset(self, name: str = "3d") -> Dataset:
        """Open a dataset."""
        if name not in self._datasets:
            opened = open_dataset(str(self.folder(name)), self._folder, self.registry)
            self._datasets[name] = opened
        return self._datasets[name]

    def cases(self, name: str = "3d") -> list[Case]:
        """Return the training cases of a dataset, with arrays that may be changed."""
        if name not in self._cases:
            dataset = self.dataset(name)
            self._cases[name] = [dataset.load(case) for case in dataset.training]
        return [
            replace(case, images=case.images.copy(), label=np.array(case.label))
            for case in self._cases[name]
        ]

    def configuration(self, name: str = "3d", **changes: Any) -> Configuration:
        """Return plans for a small network on a dataset; `changes` are of its fields."""
        toy, dataset = _TOYS[name], self.dataset(name)
        dimensions = len(toy.patch_size)
        network = NetworkSpec(
            dimensions=dimensions,  # type: ignore[arg-type]
            input_channels=len(toy.channels),
            output_channels=dataset.labels.outputs,
            pool_kernels=toy.pool_kernels,
            conv_kernels=((3,) * dimensions,) * (len(toy.pool_kernels) + 1),
            base_features=4,
        )
        usual: dict[str, Any] = {
            "preprocessor": "builtin/default",
            "transpose_forward": (0, 1, 2),
            "spacing": toy.geometry.spacing,
            "median_shape": toy.geometry.shape,
            "patch_size": toy.patch_size,
            "batch_size": 2,
            "network": network,
            "dummy_2d_augmentation": False,
            "batch_dice": False,
            "normalization": (Normalization(scheme="zscore"),) * len(toy.channels),
        }
        return Configuration(**{**usual, **changes})

    def prepared(self, name: str = "3d") -> PreparedStore:
        """Return the cases of a dataset as the built-in preprocessor prepares them for
        `configuration(name)`.
        """
        configuration, dataset = self.configuration(name), self.dataset(name)
        keys = dict.fromkeys(dataset.names, "toy")
        store = PreparedStore(self._folder / "prepared" / name, keys)
        preprocessor = built(self.registry.resolve("preprocessor", configuration.preprocessor))
        for missing in store.missing():
            case = dataset.load(dataset.case(missing))
            ready = preprocessor.prepare(case, configuration, dataset.labels.foreground)
            store.write(ready, "toy", configuration.patch_size)
        return store


@functools.cache
def shared_toys() -> Toys:
    """Return the toys of this process, in a folder that is removed at its end."""
    folder = tempfile.TemporaryDirectory(prefix="nnunet-toys-")
    toys = Toys(Path(folder.name).resolve(), Registry.discover())
    toys._lives_as_long = folder  # type: ignore[attr-defined]
    return toys


def _write(toy: Toy, folder: Path, registry: Registry) -> None:
    """Write a dataset; dataset.json, which makes it one, comes last."""
    image_format = find_format(_ENDING, registry)
    random = np.random.default_rng(0)
    for number in range(_CASES):
        label = _label(toy, random, empty=toy.empty and number == _CASES - 1)
        for channel in range(len(toy.channels)):
            image = (100 + 60 * label + random.normal(0, 15, label.shape)).astype(np.float32)
            path = folder / "imagesTr" / f"case_{number}_{channel:04d}{_ENDING}"
            image_format.write(path, image, toy.geometry)
        if toy.ignore is not None:
            label[:, :5] = toy.ignore
        path = folder / "labelsTr" / f"case_{number}{_ENDING}"
        image_format.write(path, label.astype(label_type(int(label.max()))), toy.geometry)
    document = {
        "channel_names": {str(index): name for index, name in enumerate(toy.channels)},
        "labels": toy.labels,
        "file_ending": _ENDING,
        "numTraining": _CASES,
    }
    if any(isinstance(value, list) for value in toy.labels.values()):
        document["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")


def _label(toy: Toy, random: np.random.Generator, empty: bool) -> np.ndarray:
    """Return the boxes: the outer one covers half of each axis, and lies in another place in every
    case.
    """
    label = np.zeros(toy.geometry.shape, np.int16)
    if empty:
        return label
    outer, inner = [], []
    for size in label.shape:
        length = max(1, size // 2)
        start = int(random.integers(0, max(1, size // 3)))
        outer.append(slice(start, start + length))
        # nearer to its beginning, so that a mirrored box is another one
        inner.append(slice(start + (length > 3), start + max(1, length // 2)))
    label[tuple(outer)] = 1
    label[tuple(inner)] = 2
    return label
