"""Models of nnU-Net v2: found in folders, and said in the words of ours."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_builtin.models.foreign import ForeignModel, ImportOptions
from nnunet_builtin.models.v2_checkpoint import Checkpoint, read_weights
from nnunet_builtin.models.v2_configuration import configuration_of, image_format, preparation
from nnunet_builtin.models.v2_network import V2Network, network_of
from nnunet_builtin.models.v2_plans import V2Configuration, V2Dataset, V2Plans, read_json
from nnunet_builtin.models.v2_postprocessing import cleaning_of
from nnunet_core.errors import StorageError, UsageError, listed, natural_order
from nnunet_core.runtime.names import is_plain

if TYPE_CHECKING:
    from nnunet_core.data.labels import Labels
    from nnunet_core.runtime.reporting import Reporter

_PLANS, _DATASET = "plans.json", "dataset.json"
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_DEPTH = 8  # folders in each other that are looked into
_DATASET_FOLDER = re.compile(r"Dataset\d+_.+")
_USUAL_TRAINER = re.compile(r"nnUNetTrainer(_\d+epochs?)?")
_UNPRINTED = re.compile(r"[^ -~]")


def find(folder: Path) -> list[V2Folder]:
    """Return the trained configurations of v2 in a folder and below, in natural order: folders of
    any name that hold plans.json and folds.
    """
    found, base = [], len(folder.parts)
    for place, inside, names in os.walk(folder):
        path = Path(place)
        if len(path.parts) - base >= _DEPTH:
            inside.clear()
        if _PLANS in names and (folds := _folds(path)):
            found.append(V2Folder(path, tuple(folds)))
            inside.clear()
    return sorted(found, key=lambda model: natural_order(str(model.folder)))


def _folds(folder: Path) -> list[str]:
    """Return the names of the folds that have a checkpoint, in natural order."""
    folds = [f for f in folder.glob("fold_*") if any((f / name).is_file() for name in _CHECKPOINTS)]
    return sorted((fold.name.removeprefix("fold_") for fold in folds), key=natural_order)


@dataclass(frozen=True)
class V2Folder:
    """A folder of a trained configuration: TRAINER__PLANS__CONFIGURATION, or of another name
    (foreign.Foreign).

    Attributes:
        folder: The folder.
        folds: Names of its folds: 0, 1, ..., all.
    """

    folder: Path
    folds: tuple[str, ...]

    @property
    def dataset(self) -> str | None:
        """Name of the folder above, where it is one of v2's datasets."""
        above = self.folder.parent.name
        return above if _DATASET_FOLDER.fullmatch(above) else None

    @property
    def configuration(self) -> str | None:
        """Last part of the name, where it has three."""
        return self.parts[2] if len(self.parts) == 3 else None

    @property
    def title(self) -> str:
        """What it is, for people."""
        noun = "fold" if len(self.folds) == 1 else "folds"
        return f"v2 {self.folder.name}, {noun} {listed(self.folds)}"

    @property
    def parts(self) -> list[str]:
        """Trainer, plans and configuration, or a name that says nothing of them."""
        return self.folder.name.rsplit("__", 2)

    def checkpoint(self, fold: str, wanted: str) -> Path:
        """Return the checkpoint of a fold: the last one, or the best; else the other one."""
        names = _CHECKPOINTS if wanted == "final" else _CHECKPOINTS[::-1]
        return next(
            path for name in names if (path := self.folder / f"fold_{fold}" / name).is_file()
        )

    def convert(self, options: ImportOptions, report: Reporter) -> ForeignModel:  # noqa: ARG002
        """Read it (foreign.Foreign).

        Raises:
            UsageError: dataset.json is missing, or the configuration is not known, or is not among
                those of the plans.
            StorageError: A file is damaged, or asks for what is not predicted here.
            DatasetError: Its labels are none that v2 can train with.
        """
        return _Conversion.begin(self, options).model()


@dataclass(frozen=True)
class _Conversion:
    """What was read of a folder, and what the user says."""

    source: V2Folder
    options: ImportOptions
    plans: V2Plans
    dataset: V2Dataset
    first: Checkpoint
    name: str
    configuration: V2Configuration
    network: V2Network

    @classmethod
    def begin(cls, source: V2Folder, options: ImportOptions) -> _Conversion:
        plans = read_json(V2Plans, source.folder / _PLANS)
        if plans.label_manager != "LabelManager":
            raise StorageError(
                f"{source.folder / _PLANS} names the label manager {plans.label_manager}; known is "
                "LabelManager. It cannot be predicted as v2 does."
            )
        dataset = read_json(V2Dataset, _dataset_file(source, options))
        first = Checkpoint.read(source.checkpoint(source.folds[0], options.checkpoint))
        name = _configuration_name(source, plans, first, options)
        configuration = plans.configuration(name, source.folder / _PLANS)
        arguments = configuration.architecture.arch_kwargs
        network = network_of(first.weights, arguments, str(first.path))
        return cls(source, options, plans, dataset, first, name, configuration, network)

    def model(self) -> ForeignModel:
        folder, plans, dataset = self.source.folder, self.plans, self.dataset
        where = f"{folder / _PLANS}: configuration '{self.name}'"
        channels, labels = dataset.channels(folder / _DATASET), dataset.meaning(folder / _DATASET)
        self._check_ends(channels, labels, where)
        clean, state, notes = cleaning_of(folder, self.source.folds)
        components = {
            "preprocessor": preparation(plans, self.configuration, where),
            "network": self.network.component,
            "predictor": ("builtin/sliding_window_logits", {}),
            "postprocessor": clean,
        }
        return ForeignModel(
            dataset=self.options.name or self.source.dataset or _plain(plans.dataset_name),
            variant=_plain(f"{self._trainer}__{plans.plans_name}"),
            configuration_name=_plain(self.name),
            channels=channels,
            labels=labels,
            configuration=configuration_of(plans, self.configuration, self.network.spec, where),
            mirror_axes=self._mirror_axes(),
            components=_with_settings(components, self.options.settings),
            origin=f"nnU-Net v2, trainer {_shown(self._trainer)}, plans {_shown(plans.plans_name)}",
            folds={
                fold: functools.partial(read_weights, path) for fold, path in self._paths().items()
            },
            postprocessing=state,
            file_ending=dataset.file_ending,
            label_ending=dataset.file_ending,
            image_format=image_format(plans, dataset.file_ending),
            notes=(*self._notes(), *notes),
        )

    @property
    def _trainer(self) -> str:
        parts = self.source.parts
        return (parts[0] if len(parts) == 3 else self.first.said.trainer_name) or "unknown"

    def _check_ends(self, channels: tuple[str, ...], labels: Labels, where: str) -> None:
        """Raise StorageError where the weights are of other channels or classes than dataset.json
        says, or of another number of axes than the configuration.
        """
        spec, extra = self.network.spec, 0
        if self.configuration.previous_stage is not None:
            extra = len(labels.foreground)
        said = {
            "image channels, and classes of the stage before": (
                spec.input_channels,
                len(channels) + extra,
            ),
            "outputs": (spec.output_channels, labels.outputs),
            "axes": (spec.dimensions, len(self.configuration.patch_size)),
            "normalised channels": (len(self.configuration.normalization_schemes), len(channels)),
        }
        for what, (found, declared) in said.items():
            if found != declared:
                raise StorageError(
                    f"{where} and its weights have {found} {what}, {_DATASET} and plans declare "
                    f"{declared}. Use the files of one training, or name its dataset.json with "
                    "--dataset-json."
                )

    def _mirror_axes(self) -> tuple[int, ...]:
        axes = self.options.mirror_axes
        if axes is None:
            axes = self.first.said.inference_allowed_mirroring_axes or ()
        axes = tuple(sorted(set(axes)))
        count = self.network.spec.dimensions
        if any(not 0 <= axis < count for axis in axes):
            raise StorageError(
                f"{self.first.path} mirrors the axes {list(axes)}; the patch has {count} axes, "
                "counted from 0. Name others with --mirror-axes."
            )
        return axes

    def _paths(self) -> dict[str, Path]:
        """Return {fold: its checkpoint}."""
        source, wanted = self.source, self.options.checkpoint
        return {fold: source.checkpoint(fold, wanted) for fold in source.folds}

    def _notes(self) -> list[str]:
        notes, wanted = [], _CHECKPOINTS[self.options.checkpoint != "final"]
        others = [path.parent.name for path in self._paths().values() if path.name != wanted]
        if others:
            notes.append(f"No {wanted} in {listed(others)}; the other checkpoint is taken.")
        names = sorted(path.name for path in self.source.folder.glob("fold_*"))
        if empty := [name for name in names if name[5:] not in self.source.folds]:
            notes.append(f"No checkpoint in {listed(empty)}: not imported.")
        if not _USUAL_TRAINER.fullmatch(self._trainer):
            notes.append(
                f"The trainer is {self._trainer}. Its code is not needed: the network is found "
                "from the weights. If it prepares or predicts otherwise than v2, that is not known "
                "here."
            )
        if self.options.mirror_axes is None and not self._mirror_axes():
            notes.append(
                "The checkpoint names no mirrored axes, so nothing is mirrored when predicting, as "
                "in v2."
            )
        before = self.configuration.previous_stage
        if before is not None:
            notes.append(f"It needs the model of '{before}' beside it; import that, too.")
        return notes


def _dataset_file(source: V2Folder, options: ImportOptions) -> Path:
    if options.dataset_json is not None:
        return options.dataset_json
    path = source.folder / _DATASET
    if not path.is_file():
        raise UsageError(
            f"{path} is missing: it says what channels and labels are. Name one with "
            "--dataset-json."
        )
    return path


def _configuration_name(
    source: V2Folder, plans: V2Plans, first: Checkpoint, options: ImportOptions
) -> str:
    """Return which configuration of the plans was trained: as the user says, the checkpoint, the
    folder, or the only one that there is.

    Raises:
        UsageError: None of them says it.
    """
    only = list(plans.configurations) if len(plans.configurations) == 1 else []
    said = [options.configuration, first.said.configuration, source.configuration, *only]
    known = [name for name in said if name is not None]
    if not known:
        raise UsageError(
            f"Neither the name of {source.folder} nor {first.path.name} says which configuration "
            f"it is. Its plans have: {listed(list(plans.configurations))}. Name one with "
            "--configuration."
        )
    return known[0]


def _with_settings(
    components: Mapping[str, tuple[str, Mapping[str, Any]]],
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        kind: (reference, {**own, **settings.get(kind, {})})
        for kind, (reference, own) in components.items()
    }


def _plain(name: str) -> str:
    """Return a name of a folder.

    Raises:
        StorageError: It could lead elsewhere.
    """
    if not is_plain(name):
        raise StorageError(
            f"{name!r} cannot be the name of a folder: no '/', no '\\', not empty. Choose one with "
            "--name."
        )
    return name


def _shown(text: str) -> str:
    return _UNPRINTED.sub("?", text)[:200]
