"""What a generated package can hold: a working part of each kind."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_core.registry.components import RUN_KINDS


@dataclass(frozen=True)
class Kind:
    """One kind of part.

    Attributes:
        name: As in `--kind`; also the name of its file in the template.
        target: What is appended to the name of the package for the class, or the function; empty
            where no component is registered.
        summary: One line for `nnunet plugins list`.
        try_it: Arguments of `nnunet` that use it, with NAME for its name; empty where it acts by
            itself.
    """

    name: str
    target: str
    summary: str
    try_it: str = ""

    @property
    def word(self) -> str:
        """The kind for people."""
        return self.name.replace("_", " ")


_KINDS = (
    Kind("planner", "Planner", "nnU-Net v2.1 plans with patches of limited size"),
    Kind("preprocessor", "Preprocessor", "clips intensities at two percentiles first"),
    Kind("network", "Network", "a U-Net with max pooling and a single output"),
    Kind("loss", "Loss", "cross entropy of the hardest voxels"),
    Kind("augmentation", "Augmentation", "nnU-Net's, and a ramp of brightness"),
    Kind("trainer", "Trainer", "the learning rate stays, then falls as a cosine"),
    Kind("predictor", "Predictor", "sliding windows of the first folds alone"),
    Kind("postprocessor", "Postprocessor", "removes specks of few voxels"),
    Kind(
        "image_format",
        "Format",
        "voxels and geometry in a .npz file",
        "plugins show NAME --kind image_format",
    ),
    Kind(
        "dataset_reader",
        "Reader",
        "folders with CASE_image.nii.gz and CASE_mask.nii.gz",
        "dataset verify FOLDER",
    ),
    Kind("observer", "", "a table with a row per epoch, in the folder of each fold"),
    Kind(
        "executor",
        "Executor",
        "one job after the other on this machine",
        "plugins show NAME --kind executor",
    ),
    Kind("command", "show_progress", "how far trainings are", "NAME nnunet_workspace/results"),
    Kind("variant", "", "a short training", "run demo --variant NAME"),
)
#: {name: kind}, in the order of a run.
KINDS = {kind.name: kind for kind in _KINDS}


def run_option(kind: Kind) -> str:
    """Return how a run takes a component of the kind (`--loss NAME`), empty of other kinds."""
    return f"--{kind.name} NAME" if kind.name in RUN_KINDS else ""
