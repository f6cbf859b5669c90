"""Trainings of seconds on a toy dataset."""

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.trainer import Runtime, TrainingTask
from nnunet_core.data.weights import InitialWeights
from nnunet_core.runtime.files import file_digest
from nnunet_core.runtime.reporting import Silence

BRIEF = {"epochs": 4, "iterations_per_epoch": 2, "validation_iterations": 1}


class Told(Silence):
    """A reporter that remembers what it is told."""

    def __init__(self):
        self.messages, self.warnings = [], []

    def message(self, text):
        self.messages.append(text)

    def warning(self, text):
        self.warnings.append(text)


def make_task(toys, folder, name="3d", path=None, epoch_finished=lambda line: None, **settings):
    """Return a training of a toy dataset that starts from the weights in `path`; `settings` are of
    the plain U-Net.
    """
    folder.mkdir(parents=True, exist_ok=True)
    find = toys.registry.resolve
    initial = path and InitialWeights(path=str(path), digest=file_digest(path))
    return TrainingTask(
        folder=folder,
        configuration=toys.configuration(name),
        labels=toys.dataset(name).labels,
        training=("case_0", "case_1", "case_2"),
        validation=("case_3",),
        store=toys.prepared(name),
        network=built(find("network", "plain_unet").with_settings(settings)),
        loss=built(find("loss", "dice_ce")),
        augmentation=built(find("augmentation", "none")),
        runtime=Runtime("cpu", "float32", 0, 1),
        seed=3,
        report=Told(),
        epoch_finished=epoch_finished,
        initial=initial,
    )
