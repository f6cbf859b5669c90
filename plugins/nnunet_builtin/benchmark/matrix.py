"""bench.toml: what is compared with what, on which data, and how often."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
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

#: tomllib takes the square of the length for what is nested on purpose.
_MOST_BYTES, _MOST_LEVELS = 100_000, 20
#: Every stage before multiplies the trainings by the folds.
_MOST_TRAININGS, _MOST_STAGES = 20_000, 4
_SHOWN_PROBLEMS, _SHOWN_LENGTH = 10, 100
#: What may be part of a folder's name.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=100)]
_Fold = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3}|all)$")]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
#: A word of a command line.
_Word = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=10_000)]
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
        rope: Differences below this, in the unit of the first metric, are practically none.
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
    arguments: dict[str, list[_Word]] = Field(default_factory=dict)
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
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(
            f"The benchmark {path} cannot be read: {error}. Name a TOML file that is there."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error
    if _is_deep(content, _MOST_LEVELS):
        raise UsageError(f"{path} is no benchmark: tables lie in tables, {_MOST_LEVELS} and more.")
    try:
        found = Bench.model_validate(content)
    except ValidationError as error:
        problems = list(dict.fromkeys(_problem(each) for each in error.errors()))
        raise UsageError(f"{path} is no benchmark: {_some(problems)}") from error
    if wrong := _contradictions(found):
        raise UsageError(f"{path} is no benchmark: {_some(wrong)}")
    return found


def _is_deep(value: object, levels: int) -> bool:
    """Return whether tables and lists are nested to so many levels: JSON of them would not end."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deep(part, levels - 1) for part in parts)


def _some(problems: Sequence[str]) -> str:
    """Return the first problems."""
    more = len(problems) - _SHOWN_PROBLEMS
    return " ".join([*problems[:_SHOWN_PROBLEMS], *([f"And {more} more."] if more > 0 else [])])


def _short(text: str) -> str:
    """Return a text for a message: printable, and not longer than a line."""
    return printable(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}...")


def _contradictions(bench: Bench) -> list[str]:
    """Return a sentence for everything that is said twice, or that names what is not there."""
    return [*_twice(bench), *_impossible(bench), *_unknown(bench)]


def _twice(bench: Bench) -> list[str]:
    found = []
    lists = {"datasets": bench.datasets, "configurations": bench.configurations}
    lists |= {"folds": bench.folds, "seeds": [str(seed) for seed in bench.seeds]}
    lists |= {"metrics": list(bench.metrics)}
    for name, values in lists.items():
        if twice := sorted(value for value, number in Counter(values).items() if number > 1):
            found.append(f"{name} holds {_short(', '.join(twice))} twice.")
    lower = Counter(name.lower() for name in bench.variants)
    if alike := [name for name in bench.variants if lower[name.lower()] > 1]:
        found.append(
            f"variants {_short(', '.join(alike))}: not every disk tells folders of these names "
            "apart."
        )
    return found


def _impossible(bench: Bench) -> list[str]:
    found = []
    if bench.baseline not in bench.variants:
        names = _short(", ".join(bench.variants))
        found.append(f"baseline '{_short(bench.baseline)}' is none of the variants: {names}.")
    parts = (bench.datasets, bench.variants, bench.configurations or [""], bench.folds, bench.seeds)
    trainings = math.prod(map(len, parts))
    if trainings > _MOST_TRAININGS:
        found.append(
            f"It asks for {trainings:,} trainings; at most are {_MOST_TRAININGS:,}. Leave out some "
            "seeds, folds or variants, or make several benchmarks of it."
        )
    if "all" in bench.folds:
        found.append("folds holds 'all', which no case is left to judge by; name numbers.")
    ways = [_way(bench.previous, start) for start in bench.previous]
    if circle := next((way for way in ways if way[-1] in way[:-1]), None):
        found.append(
            f"previous goes in a circle: {' -> '.join(circle[circle.index(circle[-1]) :])}."
        )
    elif long := next((way for way in ways if len(way) > _MOST_STAGES), None):
        found.append(f"previous has more than {_MOST_STAGES} stages: {_short(' -> '.join(long))}.")
    return found


def _unknown(bench: Bench) -> list[str]:
    named: list[tuple[str, str, Iterable[str], Sequence[str]]] = [
        ("arguments", "stage", bench.arguments, STAGES),
        ("test", "dataset", bench.test, bench.datasets),
        ("resources", "stage", bench.resources, STAGES),
        ("settings", "kind", bench.settings, RUN_KINDS),
    ]
    named += [
        (f"variants.{name}.settings", "kind", entry.settings, RUN_KINDS)
        for name, entry in bench.variants.items()
    ]
    return [
        f"{table}.{_short(key)}: there is no such {what}.{nearest(key, known)}"
        for table, what, entries, known in named
        for key in entries
        if key not in known
    ]


def _way(previous: Mapping[str, str], start: str) -> list[str]:
    """Return a configuration and those that it needs trained; where they need each other, the last
    one stands in it twice.
    """
    way = [start]
    while way[-1] not in way[:-1] and (following := previous.get(way[-1])) is not None:
        way.append(following)
    return way


def _problem(error: Mapping[str, Any]) -> str:
    """Return a sentence for a problem that pydantic found."""
    place = _short(".".join(str(part) for part in error["loc"] if part != "[key]"))
    if error["type"] == "extra_forbidden":
        return f"There is no entry '{place}'."
    if error["type"] == "missing":
        return f"'{place}' is missing."
    return f"{place}: {error['msg']}, got {_short(json.dumps(error['input'], default=str))}."
