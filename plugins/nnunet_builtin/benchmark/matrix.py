"""bench.toml: what is compared with what, on which data, and how often."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from nnunet_core.errors import UsageError, nearest, printable
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.runtime import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST_BYTES = 1_000_000
#: What may be part of a folder's name.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]
_Fold = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3}|all)$")]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Metric = Literal["Dice", "Surface Dice", "HD95", "ASSD"]
#: v1's cascade trains on what this configuration predicts.
_CASCADE = {"3d_cascade_fullres": "3d_lowres"}
STAGES = ("plan", "preprocess", "train", "measure", "select", "predict", "evaluate")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Entry(_Table):
    """One variant of the comparison: named or TOML variants, with changes of its own.

    Attributes:
        variant: References, composed from left to right; empty starts from `default`.
        settings: {kind: {field: value}} on top.
        planner, preprocessor, network, loss, augmentation, trainer, predictor, postprocessor:
            References that replace those of the variants.
    """

    variant: list[str] = Field(default_factory=list)
    settings: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    planner: str | None = None
    preprocessor: str | None = None
    network: str | None = None
    loss: str | None = None
    augmentation: str | None = None
    trainer: str | None = None
    predictor: str | None = None
    postprocessor: str | None = None

    @field_validator("variant", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    def choices(self) -> dict[str, str]:
        """Return {kind: reference} of the kinds that it decides."""
        return {kind: value for kind in RUN_KINDS if (value := getattr(self, kind)) is not None}


class Resources(_Table):
    """What a job needs.

    Attributes:
        gpus: Whole cards; 0 hides all of them from the job.
        cpus: Cores.
        memory_gb: Main memory.
        hours: Time limit where the executor has one.
    """

    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    memory_gb: Annotated[float, Field(gt=0, le=1e5)] = 4.0
    hours: Annotated[float, Field(gt=0, le=1e4)] = 24.0


class TestSet(_Table):
    """Images of a dataset that the trained models predict.

    Attributes:
        images: Folder, or the name of one in the dataset's (imagesTs).
        labels: Folder of references, or the name of one; None predicts only.
    """

    images: str
    labels: str | None = None


class Executor(_Table):
    """Where jobs run.

    Attributes:
        name: Reference to an executor.
        settings: Of it.
    """

    name: str = "local"
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class Bench(_Table):
    """The content of a bench.toml.

    Attributes:
        name: Folder of its results, below `benchmarks/` of the workspace.
        datasets: Paths, ids or names.
        variants: {name: entry}.
        baseline: Name of the variant that the others are compared with.
        configurations: None means what `nnunet run` trains by default.
        folds, seeds: Of each training.
        settings: {kind: {field: value}} of every variant, below its own.
        test: {dataset, as in `datasets`: images to predict}.
        ensembles: Of several configurations, also compare all pairs before the test set is
            predicted, as `nnunet run` does; it keeps the probabilities of validation cases.
        previous: {configuration: the one whose predictions it trains on}; nnU-Net's cascade is
            known.
        arguments: {stage: further words of its commands}, such as `["--precision", "float32"]`.
        retries: How often a failed job is tried again.
        metrics: What is judged, as `nnunet evaluate` calls it; the summary speaks of the first.
        rope: Differences in Dice below this are practically none.
        resources: {stage: what its jobs need}.
        executor: Where they run.
    """

    name: _Name
    datasets: Annotated[list[str], Field(min_length=1)]
    variants: Annotated[dict[_Name, Entry], Field(min_length=1)]
    baseline: str
    configurations: list[_Name] = Field(default_factory=list)
    folds: Annotated[list[_Fold], Field(min_length=1)] = ["0", "1", "2", "3", "4"]
    seeds: Annotated[list[_Seed], Field(min_length=1)] = [12345]
    settings: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    test: dict[str, TestSet] = Field(default_factory=dict)
    ensembles: bool = False
    previous: Annotated[dict[_Name, _Name], Field(validate_default=True)] = {}
    arguments: dict[str, list[str]] = Field(default_factory=dict)
    retries: Annotated[int, Field(ge=0, le=20)] = 1
    metrics: Annotated[list[_Metric], Field(min_length=1)] = ["Dice"]
    rope: Annotated[float, Field(ge=0, lt=1)] = 0.01
    resources: dict[str, Resources] = Field(default_factory=dict)
    executor: Executor = Executor()

    @field_validator("folds", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        return [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in value]

    @field_validator("previous")
    @classmethod
    def _with_cascade(cls, value: dict[str, str]) -> dict[str, str]:
        return {**_CASCADE, **value}

    def needs(self, stage: str) -> Resources:
        """Return what a job of a stage needs."""
        return self.resources.get(stage, Resources())

    def with_previous(self, names: Iterable[str]) -> list[str]:
        """Return configurations, each followed by those that its cascade needs."""
        found: dict[str, None] = {}
        for name in names:
            needed: str | None = name
            while needed is not None:
                found[needed] = None
                needed = self.previous.get(needed)
        return list(found)

    def settings_of(self, entry: Entry) -> dict[str, dict[str, Any]]:
        """Return the settings of a variant on top of those of all."""
        kinds = {*self.settings, *entry.settings}
        return {
            kind: {**self.settings.get(kind, {}), **entry.settings.get(kind, {})}
            for kind in RUN_KINDS
            if kind in kinds
        }


def read(path: Path) -> Bench:
    """Read a bench.toml; nothing that it names is looked up.

    Raises:
        UsageError: There is no such file, it is no TOML, or it has entries that do not exist, of
            other types, or that contradict each other; the message names all of them.
    """
    try:
        files.check_regular(path)
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is no benchmark: it has more than {_MOST_BYTES} bytes.")
        content = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(
            f"The benchmark {path} cannot be read: {error}. Name a TOML file that is there."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error
    try:
        found = Bench.model_validate(content)
    except ValidationError as error:
        problems = dict.fromkeys(_problem(each) for each in error.errors())
        raise UsageError(f"{path} is no benchmark: {' '.join(problems)}") from error
    if wrong := _contradictions(found):
        raise UsageError(f"{path} is no benchmark: {' '.join(wrong)}")
    return found


def _contradictions(bench: Bench) -> list[str]:
    """Return a sentence for everything that is said twice, or that names what is not there."""
    found = []
    lists = {"datasets": bench.datasets, "configurations": bench.configurations}
    lists |= {"folds": bench.folds, "seeds": [str(seed) for seed in bench.seeds]}
    lists |= {"metrics": list(bench.metrics)}
    for name, values in lists.items():
        if twice := sorted({value for value in values if values.count(value) > 1}):
            found.append(f"{name} holds {', '.join(map(printable, twice))} twice.")
    if bench.baseline not in bench.variants:
        names = ", ".join(bench.variants)
        found.append(f"baseline '{printable(bench.baseline)}' is none of the variants: {names}.")
    if "all" in bench.folds:
        found.append("folds holds 'all', which no case is left to judge by; name numbers.")
    if circle := _circle(bench.previous):
        found.append(f"previous goes in a circle: {' -> '.join(circle)}.")
    named: list[tuple[str, str, Iterable[str], Sequence[str]]] = [
        ("arguments", "stage", bench.arguments, STAGES),
        ("test", "dataset", bench.test, bench.datasets),
        ("resources", "stage", bench.resources, STAGES),
    ]
    found += [
        f"{table}.{printable(key)}: there is no such {what}.{nearest(key, known)}"
        for table, what, entries, known in named
        for key in entries
        if key not in known
    ]
    tables: dict[str, Mapping[str, object]] = {"settings": bench.settings}
    tables |= {
        f"variants.{name}.settings": entry.settings for name, entry in bench.variants.items()
    }
    found += [
        f"{table}.{printable(kind)}: there is no such kind.{nearest(kind, RUN_KINDS)}"
        for table, settings in tables.items()
        for kind in settings
        if kind not in RUN_KINDS
    ]
    return found


def _circle(previous: Mapping[str, str]) -> list[str]:
    """Return configurations that train on each other's predictions; empty where none do."""
    for start in previous:
        way = [start]
        while (following := previous.get(way[-1])) is not None:
            way.append(following)
            if following in way[:-1]:
                return way[way.index(following) :]
    return []


def _problem(error: Mapping[str, Any]) -> str:
    """Return a sentence for a problem that pydantic found."""
    place = ".".join(printable(str(part)) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        return f"There is no entry '{place}'."
    if error["type"] == "missing":
        return f"'{place}' is missing."
    return f"{place}: {error['msg']}, got {printable(json.dumps(error['input'], default=str))}."
