"""Trained models in no time: a trainer that learns nothing and a predictor that knows the tiny
dataset, right in every other slice; which ones, depends on the configuration.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from commands import nnunet
from tiny_dataset import make_tiny

from nnunet_core.data.splits import Splits, equal_folds
from nnunet_core.errors import UsageError

METHOD = ("--trainer", "instant_models:InstantTrainer", "--predictor", "instant_models:HalfRight")
COMPUTING = ("--device", "cpu", "--precision", "float32", "--threads", "1")
PROCESSES = ("--workers", "0", "--processes", "1")


@dataclass
class InstantTrainer:
    """Writes a weights file that nobody reads; it differs between folds."""

    kind: str = "a"

    def train(self, task):
        if self.kind == "refused":
            raise UsageError("trainer.kind=refused cannot be trained.")
        weights = task.folder / "weights.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_text(f"{self.kind} {task.configuration.patch_size} {task.folder.name}")
        return {}


@dataclass
class HalfRight:
    """Finds the bright cube: 2D networks surely in even slices, 3D ones in odd ones; elsewhere the
    background seems a little more likely. The mean of both finds all of it.
    """

    certainty: float = 0.9

    def load(self, model):
        parity = len(model.configuration.patch_size) - 2

        def apply(images):
            found = np.where(images[:1] > 2, 0.45, 0.1).astype(np.float32)
            sure = found[:, parity::2]
            sure[images[:1, parity::2] > 2] = self.certainty
            return np.concatenate([1 - found, found])

        return apply


@dataclass(frozen=True)
class Space:
    """A workspace with the tiny dataset in two folds."""

    folder: Path

    @property
    def dataset(self):
        return self.folder / "raw" / "Dataset001_Tiny"

    @property
    def results(self):
        return self.folder / "results" / "Dataset001_Tiny"

    def model(self, configuration):
        (found,) = self.results.glob(f"*/{configuration}/model.json")
        return found.parent

    def go(self, command, *more, method=METHOD):
        """Run a command of the main path with the method of the models."""
        return nnunet(
            *(command, self.dataset, "--workspace", self.folder, *more),
            *(*method, *COMPUTING, *PROCESSES, "--no-plugin", "pictures"),
        )

    def find_best(self, *more):
        return nnunet("find-best", "Tiny", "--workspace", self.folder, *more)

    def predict(self, model, output, *more):
        images = self.dataset / "imagesTr"
        return nnunet("predict", model, images, output, "--trust", *COMPUTING, *more)


def make_space(folder):
    """Make the dataset and its two folds; nothing is trained."""
    space = Space(folder)
    make_tiny(space.dataset)
    path = folder / "preprocessed" / space.dataset.name / "splits.json"
    path.parent.mkdir(parents=True)
    Splits(folds=equal_folds([f"case_{i}" for i in range(6)], 2)).write(path)
    return space
