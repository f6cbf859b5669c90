"""Components that are slow until a file is there: time to interrupt them."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from nnunet_builtin.planning.planner import PlannerV21
from nnunet_builtin.training.trainer import TrainerV2

#: Environment variable: path of the file.
HURRY = "SLOW_COMPONENTS_HURRY"


def _is_in_hurry():
    return Path(os.environ[HURRY]).exists()


@dataclass
class SlowTrainer(TrainerV2):
    """Takes half a second for each batch until somebody is in a hurry."""

    def training_step(self, training, images, label):
        if not _is_in_hurry():
            time.sleep(0.5)
        return super().training_step(training, images, label)


@dataclass
class SlowPlanner(PlannerV21):
    """Does not begin before somebody is in a hurry."""

    def plan(self, dataset, fingerprint, network):
        while not _is_in_hurry():
            time.sleep(0.05)
        return super().plan(dataset, fingerprint, network)
