"""Models of nnU-Net v1: found in its folders, and said in the words of ours."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_builtin.models.dataset_json import labels_of, read_dataset_json
from nnunet_builtin.models.foreign import ForeignModel, ImportOptions
from nnunet_builtin.models.v1_plans import V1Plans, check_patch
from nnunet_builtin.models.v1_weights import UNSEEN, FoundNetwork, found_network, read_state
from nnunet_builtin.untrusted.pickles import read_pickle
from nnunet_core.errors import StorageError, UsageError, listed, natural_order
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.store.foreign_postprocessing import foreign_state

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
_CHECKPOINTS = {"final": "model_final_checkpoint.model", "best": "model_best.model"}
_FOLD = re.compile(r"fold_(\d+)|(?:fold_)?(all)")
_TASK = re.compile(r"Task\d{3}_.+")
_IDENTIFIER = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_CASCADE = "CascadeFullRes"
#: v1's trainers whose networks need nothing else than weights show; of others, a note says so.
_USUAL = ("nnUNetTrainerV2", "nnUNetTrainer", "nnUNetTrainerV2_MMS")
_UNMIRRORED = ("nnUNetTrainerV2_noMirroring", "nnUNetTrainerV2_noDataAugmentation")


@dataclass(frozen=True)
class V1Model:
    """A trainer's folder of v1.

    Attributes:
        folder: It holds plans.pkl, and a folder for each fold.
        folds: {our name of a fold: its folder}.
    """

    folder: Path
    folds: Mapping[str, Path]

    @property
    def dataset(self) -> str | None:
        """Its name, where the folder above has one of v1's form."""
        name = self.folder.parent.name
        return name if _TASK.fullmatch(name) else None

    @property
    def configuration(self) -> str | None:
        """Its name, where a folder above it has it."""
        above = [folder.name for folder in list(self.folder.parents)[:2]]
        return next((name for name in above if name in CONFIGURATIONS), None)

    @property
    def title(self) -> str:
        """What it is, for people."""
        names = (self.configuration, self.folder.name)
        return f"nnU-Net v1 {' '.join(filter(None, names))}, fold {', '.join(self.folds)}"

    def convert(self, options: ImportOptions, report: Reporter) -> ForeignModel:
        """See `foreign.Foreign`."""
        return _Conversion.open(self, options, report).model()


def find(folder: Path) -> list[V1Model]:
    """Return the models of v1 in a folder and below; nothing is read."""
    found: dict[Path, dict[str, Path]] = {}
    for name in _CHECKPOINTS.values():
        for path in sorted(folder.rglob(name)):
            fold = path.parent
            if match := _FOLD.fullmatch(fold.name):
                found.setdefault(fold.parent, {})[match[1] or match[2]] = fold
    return [
        V1Model(path, {name: folds[name] for name in sorted(folds, key=natural_order)})
        for path, folds in sorted(found.items())
    ]


@dataclass(frozen=True)
class _Conversion:
    """One model while it is converted.

    Attributes:
        found, options, report: See `foreign.Foreign.convert`.
        checkpoints: {our name of a fold: its weights}.
        info: What lies beside the first one: name of the trainer, its arguments, plans.
    """

    found: V1Model
    options: ImportOptions
    report: Reporter
    checkpoints: Mapping[str, Path]
    info: Mapping[str, Any]

    @classmethod
    def open(cls, found: V1Model, options: ImportOptions, report: Reporter) -> _Conversion:
        """Look for the weights of every fold, and read what lies beside the first."""
        checkpoints = _checkpoints(found, options.checkpoint, report)
        return cls(found, options, report, checkpoints, _info(next(iter(checkpoints.values()))))

    @property
    def first(self) -> Path:
        """The first checkpoint, whose plans count."""
        return next(iter(self.checkpoints.values()))

    def model(self) -> ForeignModel:
        """Return the model in our words."""
        state = read_state(self.first)
        network = found_network(state, self.trainer, self.first)
        plans, source = self._plans()
        name = self._configuration_name(plans, network)
        document = read_dataset_json(self.options.dataset_json)
        labels = labels_of(document, plans.num_classes, network.spec.output_channels, self.title)
        self._check_inputs(plans, network, name)
        batch_dice = self._trained_with(4, name != "2d" and len(plans.plans_per_stage) == 1)
        configuration = plans.configuration(name, network.spec, bool(batch_dice), source)
        check_patch(configuration, source)
        decided = self.found.folder / "postprocessing.json"
        state_of = foreign_state(decided) if decided.is_file() else None
        return ForeignModel(
            dataset=self._dataset(),
            variant=self._variant(),
            configuration_name=name,
            channels=(document and document.channels) or plans.channels(),
            labels=labels,
            configuration=configuration,
            mirror_axes=self._mirror_axes(network.spec.dimensions),
            components={
                "preprocessor": (configuration.preprocessor, self._settings("preprocessor")),
                "network": (network.component, self._settings("network", **network.settings)),
                "predictor": ("builtin/sliding_window", self._settings("predictor")),
                "postprocessor": _postprocessor(state_of),
            },
            origin=self.title,
            folds={
                fold: functools.partial(read_state, path) for fold, path in self.checkpoints.items()
            },
            postprocessing=state_of or {"for_which_classes": []},
            notes=tuple(self._notes(plans)),
        )

    @property
    def title(self) -> str:
        """What it is, for people: its trainer and its plans."""
        plans = self.found.folder.name.rpartition("__")[2]
        known = f", plans {plans}" if _IDENTIFIER.fullmatch(plans) else ""
        return f"nnU-Net v1, trainer {self.trainer}{known}"

    @property
    def trainer(self) -> str:
        """Its name in the checkpoint, or in the name of the folder."""
        names = (self.info.get("name"), self.found.folder.name.partition("__")[0])
        fitting = [n for n in names if isinstance(n, str) and _IDENTIFIER.fullmatch(n)]
        return fitting[0] if fitting else "unknown"

    def _trained_with(self, position: int, default: Any) -> Any:
        """Return an argument of the trainer: plans file, fold, output folder, dataset folder, batch
        dice, stage.
        """
        init = self.info.get("init")
        values = init if isinstance(init, tuple | list) else ()
        return values[position] if len(values) > position else default

    def _plans(self) -> tuple[V1Plans, Path]:
        """Return the plans, and the file that they are of.

        As in v1, those beside the checkpoint count; plans.pkl is read where there are none, and
        when both are there and differ, the user hears of it.
        """
        shared = self.found.folder / "plans.pkl"
        beside = _beside(self.first)
        of_folder = V1Plans.of(read_pickle(shared), shared) if shared.is_file() else None
        of_fold = V1Plans.of(self.info["plans"], beside) if "plans" in self.info else None
        if of_fold is None:
            if of_folder is None:
                raise StorageError(
                    f"{self.found.folder} has no plans.pkl, and no plans beside its checkpoints. "
                    "Get a complete copy of the model."
                )
            return of_folder, shared
        if of_folder not in (None, of_fold):
            self.report.warning(
                f"{shared} differs from the plans in {beside}; as in nnU-Net v1, the latter count."
            )
        return of_fold, beside

    def _configuration_name(self, plans: V1Plans, network: FoundNetwork) -> str:
        """Return the name that the user gives, that folders say, or that the weights leave open."""
        name = self.options.configuration or self.found.configuration
        if name is None and (place := self._told()) is not None:
            name = place[0]
        if name is None:
            name = self._guessed(plans, network)
        if name not in CONFIGURATIONS:
            raise UsageError(
                f"{name!r} is no configuration of nnU-Net v1; it has {', '.join(CONFIGURATIONS)}."
            )
        return name

    def _guessed(self, plans: V1Plans, network: FoundNetwork) -> str:
        if network.spec.dimensions == 2:
            return "2d"
        if network.spec.input_channels != plans.num_modalities:
            return "3d_cascade_fullres"
        low = len(plans.plans_per_stage) > 1 and self._trained_with(5, None) == 0
        return "3d_lowres" if low else "3d_fullres"

    def _told(self) -> tuple[str, str] | None:
        """Return (configuration, dataset) of the folder that the trainer wrote to; the rest of that
        path is nobody's business.
        """
        output = self._trained_with(2, None)
        parts = re.split(r"[/\\]", output) if isinstance(output, str) else []
        for name, dataset in itertools.pairwise(parts):
            if name in CONFIGURATIONS and _TASK.fullmatch(dataset):
                return name, dataset
        return None

    def _dataset(self) -> str:
        told = self._told()
        name = self.options.name or self.found.dataset or (told and told[1])
        if not name:
            raise UsageError(
                f"{self.found.folder} does not say which dataset it was trained on. Give a name "
                "for it: --name Task004_Hippocampus"
            )
        return name

    def _variant(self) -> str:
        """Return the name of the folder; a cascade goes beside its low resolution, of another
        trainer.
        """
        name = self.found.folder.name
        plain = name if "__" in name else self.trainer
        return plain.replace(_CASCADE, "", 1)

    def _mirror_axes(self, dimensions: int) -> tuple[int, ...]:
        axes = self.options.mirror_axes
        if axes is None:
            return () if self.trainer in _UNMIRRORED else tuple(range(dimensions))
        if any(axis >= dimensions for axis in axes):
            raise UsageError(
                f"--mirror-axes {','.join(map(str, axes))}: the patch has axes 0 to "
                f"{dimensions - 1}."
            )
        return axes

    def _settings(self, kind: str, **found: Any) -> dict[str, Any]:
        return {**found, **self.options.settings.get(kind, {})}

    def _check_inputs(self, plans: V1Plans, network: FoundNetwork, name: str) -> None:
        """Raise StorageError where the weights take another number of channels than the
        configuration has.
        """
        previous = plans.num_classes if name == "3d_cascade_fullres" else 0
        expected = plans.num_modalities + previous
        if network.spec.input_channels != expected:
            raise StorageError(
                f"{self.first} is of a network with {network.spec.input_channels} input channels; "
                f"{name} of these plans has {expected}. Get the plans and the weights of one "
                "training, or give another --configuration."
            )

    def _notes(self, plans: V1Plans) -> list[str]:
        notes = []
        trainer = self.trainer.replace(_CASCADE, "", 1)
        known = trainer in (*_USUAL, *_UNMIRRORED, *UNSEEN)
        if not known:
            notes.append(
                f"the trainer '{self.trainer}' is not needed: keys and shapes of the weights "
                "decide. What they do not show is taken as nnUNetTrainerV2 has it: leaky ReLU "
                "(--set network.negative_slope=...), mirroring along all axes (--mirror-axes)."
            )
        usual = {"force_separate_z": None, "interpolation_order": 1, "interpolation_order_z": 0}
        export = plans.segmentation_export_params or {}
        if odd := [f"{k} = {v}" for k, v in export.items() if usual.get(k, v) != v]:
            notes.append(
                f"its plans resample probabilities in another way ({listed(odd)}), which is not "
                "done here: linear, and nearest along an axis of low resolution."
            )
        return notes


def _checkpoints(found: V1Model, which: str, report: Reporter) -> dict[str, Path]:
    """Return the weights of every fold that has them.

    Raises:
        UsageError: None has these, but others.
    """
    file = _CHECKPOINTS[which]
    paths = {fold: folder / file for fold, folder in found.folds.items()}
    missing = [fold for fold, path in paths.items() if not path.is_file()]
    if len(missing) == len(paths):
        other = next(name for name in _CHECKPOINTS if name != which)
        raise UsageError(
            f"{found.folder} has no {file}, but {_CHECKPOINTS[other]}: give --checkpoint {other} "
            "to import that."
        )
    if missing:
        report.warning(
            f"fold {', '.join(missing)} of {found.folder} has no {file} and is left out."
        )
    return {fold: path for fold, path in paths.items() if fold not in missing}


def _info(checkpoint: Path) -> Mapping[str, Any]:
    """Return what v1 writes beside a checkpoint; empty where it is not there."""
    path = _beside(checkpoint)
    if not path.is_file():
        return {}
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise StorageError(f"{path} is not what nnU-Net v1 writes beside a checkpoint.")
    return content


def _beside(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.pkl")


def _postprocessor(state: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    return ("builtin/none", {}) if state is None else ("builtin/largest_component", {})
