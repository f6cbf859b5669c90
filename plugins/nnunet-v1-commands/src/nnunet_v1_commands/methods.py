"""Trainer and plans of v1, in our words."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_cli.options import parse_assignments
from nnunet_core.errors import UsageError, nearest
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.method import choose
from nnunet_core.store.models import FILE
from nnunet_v1_commands.plugin import CASCADE, PLANS, RUN_OPTIONS, trainers, variant_name
from nnunet_v1_commands.running import (
    CONFIGURATIONS,
    nnunet,
    note,
    settings,
    v1_results,
    workspace,
)

_FOLDER = re.compile(r"(?P<trainer>\w+?)__(?P<plans>[\w.]+)(?P<digest>-[0-9a-f]{8})?")
TRAINER = "nnUNetTrainerV2"
CASCADE_TRAINER = f"{TRAINER}{CASCADE}"
#: {planner of v1: (identifier of its plans, options)}.
PLANNERS = {
    "ExperimentPlanner3D_v21": (PLANS, []),
    "ExperimentPlanner2D_v21": (PLANS, []),
    "ExperimentPlanner3D_v21_11GB": (f"{PLANS}_big", ["--planner", "v21_11GB"]),
    "ExperimentPlanner3D_v21_16GB": (f"{PLANS}_16GB", ["--planner", "v21_16GB"]),
    "ExperimentPlanner3D_v21_32GB": (f"{PLANS}_verybig", ["--planner", "v21_32GB"]),
    "ExperimentPlanner3D_v21_3cps": (f"{PLANS}_3cps", ["--planner", "v21_3convs"]),
    "ExperimentPlanner3D_v21_noResampling": (
        f"{PLANS}_noRes",
        ["--planner", "v21_no_resampling"],
    ),
    "ExperimentPlanner3D_v21_customTargetSpacing_2x2x2": (
        f"{PLANS}_trgSp_2x2x2",
        ["--planner", "v21_fixed_spacing"],
    ),
    "ExperimentPlanner3DFabiansResUNet_v21": (
        "nnUNetPlans_FabiansResUNet_v2.1",
        ["--network", "residual_unet"],
    ),
}
_PLANS = dict(PLANNERS.values())
#: The planner that takes the plans of another task, and what v1 calls these: with an identifier.
COPYING, PRETRAINED = "ExperimentPlanner3D_v21_Pretrained", "nnUNetPlans_pretrained_"
# what holds for the other dimensionality alone: the page of v1's trainers says to leave it out
_IN_2D = {
    "nnUNetTrainerV2_DA2": ["augmentation.rotation_axis_probability=1.0"],
    "nnUNetTrainerV2BraTSRegions_DA4_BN": ["augmentation.rotation_degrees=null"],
    "nnUNetTrainerV2BraTSRegions_DA4_BN_BD": ["augmentation.rotation_degrees=null"],
    **{
        name: ["augmentation.rotation_degrees=null", "augmentation.elastic_alpha=[0, 200]"]
        for name in ("nnUNetTrainer", "nnUNetTrainerCE")
    },
}
_IN_3D = {"nnUNetTrainerV2_momentum09in2D": ["trainer.momentum=0.99"]}


@dataclass(frozen=True)
class V1Method:
    """What names a model of v1.

    Attributes:
        configuration: 2d, 3d_lowres, 3d_fullres or 3d_cascade_fullres.
        trainer: Class name.
        plans: Identifier.
    """

    configuration: str
    trainer: str
    plans: str = PLANS

    @property
    def title(self) -> str:
        """Its name in v1's ensembles and tables."""
        return f"{self.configuration}__{self.trainer}__{self.plans}"

    def options(self, task: str) -> list[str]:
        """Return the options that make the method for a task.

        Raises:
            UsageError: The trainer or the plans have no counterpart.
        """
        words = self._trainer_words()
        planning = planner_options(self.plans, task)
        flags = {"--planner", "--network"} & set(planning) & set(words)
        if flags and planning != words:
            raise UsageError(
                f"The trainer {self.trainer} and the plans {self.plans} both set {flags.pop()}. "
                "Train with 'nnunet train' and the options that you want: docs/reference/"
                "v1-trainers.md."
            )
        table = _IN_2D if self.configuration == "2d" else _IN_3D
        trial = settings(planner="copied" not in planning)
        fitting = [word for text in table.get(self.trainer, []) for word in ("--set", text)]
        return ["--variant", variant_name(self.trainer), *planning, *fitting, *trial]

    def run_options(self) -> list[str]:
        """Return the options of a training that are no part of the method."""
        words = self._trainer_words()
        pairs = zip(words[::2], words[1::2], strict=True)
        return [word for pair in pairs if pair[0] in RUN_OPTIONS for word in pair]

    def name(self, task: str, registry: Registry) -> str:
        """Return the name of its folder in our results of a task."""
        words = self.options(task)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        choices = {flag.removeprefix("--"): value for flag, value in pairs}
        assignments = [value for flag, value in pairs if flag == "--set"]
        variant = choices.pop("variant")
        choices.pop("set", None)
        return choose(registry, variant, choices, parse_assignments(assignments)).name

    def model(self, task: str, registry: Registry) -> Path:
        """Return the folder of its model; one of v1 itself is imported first.

        Raises:
            UsageError: There is none, or several that may be meant.
        """
        found = self.here(task, registry)
        if len(found) == 1:
            return found[0]
        top = workspace().results / task
        if self._is_of_v1(task):
            note(f"{self.folder(task)} is a model of nnU-Net v1; it is imported")
            nnunet("models", "import", self.folder(task), "-c", self.configuration)
            return top / variant_name(self.trainer, self.plans) / self.configuration
        names = [folder.parent.name for folder in found]
        raise UsageError(
            f"No model of {self.configuration}, {self.trainer} and {self.plans} is in {top} or "
            f"{self.folder(task)}."
            + (f" There are several with other settings: {', '.join(names)}." if names else "")
            + " 'nnUNet_train' trains one, 'nnunet models list' shows what is there."
        )

    def here(self, task: str, registry: Registry) -> list[Path]:
        """Return the folder of its model in our results; where there is none, those of models with
        other settings.
        """
        top, exact = workspace().results / task, ""
        known = self.plans in _PLANS or kept_plans(task, self.plans).is_file()
        if trainers().get(self.trainer) is not None and known:
            exact = self.name(task, registry)
        for name in filter(None, (exact, variant_name(self.trainer, self.plans))):
            if (top / name / self.configuration / FILE).is_file():
                return [top / name / self.configuration]
        others = top.glob(f"{variant_name(self.trainer)}[-_]*/{self.configuration}/{FILE}")
        return sorted(path.parent for path in others)

    def folder(self, task: str) -> Path:
        """Return the folder of its model in v1's layout."""
        return v1_results() / self.configuration / task / f"{self.trainer}__{self.plans}"

    def _is_of_v1(self, task: str) -> bool:
        names = ("*/model_final_checkpoint.model", "*/model_final_checkpoint.model.pkl")
        return all(any(self.folder(task).glob(name)) for name in names)

    def _trainer_words(self) -> list[str]:
        known = trainers()
        if self.trainer not in known:
            raise UsageError(
                f"v1 has no trainer '{self.trainer}'.{nearest(self.trainer, known)} A trainer of "
                "your own becomes a plugin: docs/how-to/change-training.md. What v1's trainers are "
                "here: docs/reference/v1-trainers.md."
            )
        words = known[self.trainer]
        if words is None:
            raise UsageError(
                f"The trainer '{self.trainer}' has no counterpart; docs/reference/v1-trainers.md "
                "says why."
            )
        return words


def method_of(
    configuration: str, trainer: str | None, cascade_trainer: str | None, plans: str
) -> V1Method:
    """Return the method of the flags -m, -tr, -ctr and -p."""
    if configuration == "3d_cascade_fullres":
        return V1Method(configuration, cascade_trainer or CASCADE_TRAINER, plans)
    return V1Method(configuration, trainer or TRAINER, plans)


def method_of_folder(folder: Path, registry: Registry) -> V1Method | None:
    """Return what v1 calls the model in the folder TASK/VARIANT/CONFIGURATION of our results; None
    where it has no name, or its name means another model of the task.
    """
    match = _FOLDER.fullmatch(folder.parent.name)
    if match is None or folder.name not in CONFIGURATIONS:
        return None
    task, trainer = folder.parents[1].name, match["trainer"]
    if folder.name == "3d_cascade_fullres":
        beside = (t for t in trainers() if CASCADE in t and t.replace(CASCADE, "", 1) == trainer)
        trainer = next(beside, trainer + CASCADE)
    for plans in _PLANS if trainer in trainers() else ():
        method = V1Method(folder.name, trainer, plans)
        with contextlib.suppress(UsageError):  # trainer and plans do not go together
            if method.name(task, registry) == folder.parent.name:
                return method
    method = V1Method(folder.name, trainer, PLANS if match["digest"] else match["plans"])
    with contextlib.suppress(UsageError):
        return method if method.here(task, registry) == [folder] else None
    return None


def planner_options(plans: str, task: str) -> list[str]:
    """Return the options of an identifier of plans.

    Raises:
        UsageError: It has no counterpart, or the task has no such plans.
    """
    if plans in _PLANS:
        return _PLANS[plans]
    kept = kept_plans(task, plans)
    if kept.is_file():
        return ["--planner", "copied", "--set", f"planner.source={kept}"]
    if plans.startswith(PRETRAINED):
        raise UsageError(
            f"{task} has no plans '{plans}': there is no {kept}. 'nnUNet_plan_and_preprocess "
            "-pl3d ExperimentPlanner3D_v21_Pretrained -overwrite_plans FILE "
            "-overwrite_plans_identifier ID' makes them."
        )
    raise UsageError(
        f"The plans '{plans}' have no counterpart.{nearest(plans, _PLANS)} Known: "
        f"{', '.join(_PLANS)}, and {PRETRAINED}ID of -overwrite_plans. Plans of your own: edit the "
        "file that 'nnunet plan' prints."
    )


def kept_plans(task: str, plans: str) -> Path:
    """Return where the plans of another task are kept for a task."""
    return workspace().preprocessed / task / f"{plans}_plans_3D.json"


def keep_plans(task: str, plans: str, file: Path) -> None:
    """Keep the plans of another task, in our form, for a task.

    Args:
        task: Name.
        plans: Their identifier there.
        file: Plans of v1, v2 or ours; also the place that v1 would have them at, in a task that is
            planned here or beside a model that is trained here.

    Raises:
        UsageError: There are none.
        StorageError: They are damaged.
    """
    from nnunet_builtin.models.copied.reading import read_source
    from nnunet_core.data.plans import Plans

    found = read_source(_ours(file) or file)
    made = Plans(
        dataset=plans,
        planner="-overwrite_plans",
        fingerprint_digest="",
        configurations=dict(found.configurations),
    )
    made.write(kept_plans(task, plans))


def _ours(file: Path) -> Path | None:
    """Return what is here in the place of plans of v1 that do not exist: the model that v1's folder
    of a trainer links, or the plans file of a task.
    """
    if file.exists():
        return None
    for link in sorted(file.parent.glob("*/model_final_checkpoint.model")):
        return link.resolve().parents[1]
    identifier, _, ending = file.name.rpartition("_plans_")
    if ending in ("3D.pkl", "2D.pkl") and identifier in _PLANS:
        from nnunet_v1_commands.plans import plans_file_of

        task = file.absolute().parent.name
        return plans_file_of(task, [*planner_options(identifier, task), *settings()])
    return None
