"""Models of other frameworks, in the words of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nnunet_core.runtime.names import below

if TYPE_CHECKING:
    import torch

    from nnunet_core.data.labels import Labels
    from nnunet_core.data.plans import Configuration
    from nnunet_core.runtime.reporting import Reporter

#: {name of a tensor: tensor}.
State = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class ImportOptions:
    """What the user says of a model that its files do not.

    Attributes:
        name: Name of the dataset in the results; None takes the one of the files.
        configuration: Name of the configuration, where the files leave it open.
        dataset_json: File with channels, labels and regions.
        mirror_axes: Axes of the patch to average over when predicting; None takes what the files
            say, or what the framework does by default.
        settings: {kind: {field: value}} on top of what was found.
        checkpoint: `final` or `best`.
    """

    name: str | None = None
    configuration: str | None = None
    dataset_json: Path | None = None
    mirror_axes: tuple[int, ...] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checkpoint: str = "final"


class Foreign(Protocol):
    """A trained configuration that was found in a folder: nothing of it was read but names.

    Attributes:
        dataset: As the folders name it; None where they do not.
        configuration: The same.
        title: Short, for people: "v1 3d_fullres nnUNetTrainerV2__nnUNetPlansv2.1, folds 0, 1".
    """

    @property
    def dataset(self) -> str | None: ...  # noqa: D102

    @property
    def configuration(self) -> str | None: ...  # noqa: D102

    @property
    def title(self) -> str: ...  # noqa: D102

    def convert(self, options: ImportOptions, report: Reporter) -> ForeignModel:
        """Read it, and say it in the words of ours.

        Raises:
            UsageError: Something is missing that an option can give; the message names it.
            StorageError: A file is damaged, or asks for more than a model has.
        """
        ...


@dataclass(frozen=True)
class ForeignModel:
    """A model of another framework in the words of ours; nothing of it names a case or a path.

    Attributes:
        dataset, variant, configuration_name: Where it goes:
            `results/<dataset>/<variant>/<configuration>`.
        channels, labels, file_ending, label_ending, image_format, mirror_axes, configuration: See
            `ModelDocument`.
        components: {kind: (reference, settings)} of what predicts: `PREDICTING_KINDS`.
        origin: What made it, for people: "nnU-Net v1, trainer ..., plans ...".
        folds: {name of a fold: function that returns its weights under the names of our network}.
        postprocessing: State of the postprocessor, fitted on the validation cases of all folds.
        notes: What the user should know about it.
    """

    dataset: str
    variant: str
    configuration_name: str
    channels: tuple[str, ...]
    labels: Labels
    configuration: Configuration
    mirror_axes: tuple[int, ...]
    components: Mapping[str, tuple[str, Mapping[str, Any]]]
    origin: str
    folds: Mapping[str, Callable[[], State]]
    postprocessing: Mapping[str, Any]
    file_ending: str = ".nii.gz"
    label_ending: str = ".nii.gz"
    image_format: str | None = None
    notes: tuple[str, ...] = field(default=())

    def folder(self, results: Path) -> Path:
        """Return where it goes."""
        return below(results, self.dataset, self.variant, self.configuration_name)
