"""A trainer that fails in one of several processes, between two iterations of it."""

import os
from dataclasses import dataclass

from nnunet_builtin.training.loop import Loop
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.errors import TrainingError


@dataclass
class FailingTrainer(TrainerV2):
    """Fails in the process of the last rank, in its third batch."""

    def train(self, task):
        step = Loop._training_step

        def failing(loop, at, *arguments):
            if at.index == 2 and os.environ["RANK"] == "1":
                raise TrainingError("as planned")
            return step(loop, at, *arguments)

        Loop._training_step = failing
        return super().train(task)
