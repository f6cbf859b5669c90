"""Like for like: what differs between the trainings that a table puts side by side, beside the
variant and the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from nnunet_builtin.judging.rows import CRASHED, MEAN, TEST, Row, compared, lacking
from nnunet_builtin.judging.runs import Run
from nnunet_core.errors import counted, listed, natural_order


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        variants, seeds, metrics, folds: Of a benchmark.
    """

    variants: Sequence[str]
    seeds: Sequence[int]
    metrics: Sequence[str]
    folds: Sequence[str] = ()


def deviations(
    wanted: Wanted,
    runs: Sequence[Run],
    rows: Sequence[Row],
    tolerances: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return {(dataset, configuration): sentences for the head of its table}: what was measured
    how, what is missing, what is not alike.

    Args:
        wanted: What was asked for.
        runs: Trainings that are done.
        rows: All scores.
        tolerances: {dataset: {label: mm}} of the surface Dice, where it is judged.
    """
    found = {}
    for place in dict.fromkeys((row.dataset, row.configuration) for row in rows):
        mine = [r for r in runs if (r.place.dataset, r.place.configuration) == place]
        here = [row for row in rows if (row.dataset, row.configuration) == place]
        found[place] = (
            *_measured(wanted, (tolerances or {}).get(place[0], {})),
            *_incomplete(wanted, here),
            *_other_cases(here),
            *_repeated(here),
            *(line for look in _LOOKS if (line := look(mine))),
            *_foreign(here),
        )
    return found


def _measured(wanted: Wanted, tolerances: Mapping[str, float]) -> Iterable[str]:
    yield f"Metrics: {', '.join(wanted.metrics)}, computed by nnunet-core {version('nnunet-core')}."
    if "Surface Dice" in wanted.metrics:
        declared = "".join(f"; {label} {mm:g} mm" for label, mm in tolerances.items())
        yield f"Surface Dice at a tolerance of 1 mm{declared}."  # that of `nnunet evaluate`
    if set(wanted.metrics) - {"Dice"}:
        yield f"Surfaces: surface-distance {version('surface-distance')}."


def _incomplete(wanted: Wanted, rows: Sequence[Row]) -> Iterable[str]:
    """Yield what is not there yet, or failed: folds and seeds that are left out, or count as the
    worst.
    """
    mine = [row for row in rows if not row.is_foreign]
    there = {row.fold for row in mine}
    tested = any(row.configuration == TEST for row in mine)  # it has no folds
    if gone := [fold for fold in wanted.folds if fold not in there and not tested]:
        yield f"Left out, since no training has validated it: fold {', '.join(gone)}."
    yield from _not_complete(wanted, mine)
    crashed = {(r.variant, r.seed, r.fold): None for r in mine if r.status == CRASHED}
    for variant, seed, fold in crashed:
        what = f"fold {fold}: the training" if fold else "its prediction of the test set"
        yield (
            f"{variant}, seed {seed}, {what} failed, or a job that it needs; its cases count as "
            "the worst there is."
        )


def _not_complete(wanted: Wanted, rows: Sequence[Row]) -> Iterable[str]:
    """Yield which seeds are left out; of a metric of its own where it lacks more than others."""
    everything = compared(rows)
    by_metric: dict[str, list[Row]] = {metric: [] for metric in wanted.metrics}
    for row in rows:
        by_metric.setdefault(row.metric, []).append(row)
    for metric, measured in by_metric.items():
        names = {case for _, case in everything - compared(measured)}
        if rows and names:
            yield f"{metric} is not measured in {_cases_of(names)}, which it leaves out."
    left = {
        metric: _left_out(wanted, measured) for metric, measured in by_metric.items() if measured
    }
    for variant in wanted.variants:
        told = {metric: seeds[variant] for metric, seeds in left.items() if seeds[variant]}
        alike = len(told) == len(left) and len(set(told.values())) == 1
        for metric, out in list(told.items())[: 1 if alike else None]:
            what = variant if alike else f"{variant}, {metric}"
            yield (
                f"{what}: {counted(len(out), 'seed')} of {len(wanted.seeds)} not complete and "
                f"left out: {', '.join(map(str, out))}."
            )


def _cases_of(names: Iterable[str]) -> str:
    some = sorted(names, key=natural_order)
    return f"{counted(len(some), 'case')} ({listed(some)})"


def _left_out(wanted: Wanted, rows: Sequence[Row]) -> dict[str, tuple[int, ...]]:
    """Return {variant: seeds that are not complete} of the rows of one metric."""
    everything = compared(rows)
    mine: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        mine.setdefault((row.variant, row.seed), []).append(row)
    return {
        variant: tuple(s for s in wanted.seeds if lacking(mine.get((variant, s), []), everything))
        for variant in wanted.variants
    }


def _other_cases(rows: Sequence[Row]) -> Iterable[str]:
    """Yield which foreign results have other cases: these are not compared."""
    wanted = {case for _, case in compared(rows)}
    cases: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row.is_foreign and row.label == MEAN:
            cases.setdefault((row.variant, row.origin), set()).add(row.case)
    for (variant, origin), names in cases.items():
        if missing := sorted(wanted - names):
            yield (
                f"{variant} ({origin}) is not compared: it lacks {counted(len(missing), 'case')} "
                f"of {len(wanted)}: {listed(missing)}."
            )
        elif further := sorted(names - wanted):
            yield (
                f"{variant} ({origin}): {counted(len(further), 'further case')} that the others "
                f"lack not counted: {listed(further)}."
            )


def _repeated(rows: Sequence[Row]) -> Iterable[str]:
    """Yield how many cases several folds have validated, as random folds may."""
    numbers = Counter(case for _, case in compared(rows))
    if repeated := sum(number > 1 for number in numbers.values()):
        yield (
            f"{counted(repeated, 'case')} of {len(numbers)} validated in several folds; each "
            "counts once, with the mean of these networks."
        )


def _foreign(rows: Sequence[Row]) -> Iterable[str]:
    """Yield what nobody can check of results that other programs made."""
    for variant, origin in dict.fromkeys((r.variant, r.origin) for r in rows if r.is_foreign):
        yield (
            f"{variant} is foreign ({origin}): its folds, epochs, seeds and metric are taken on "
            "trust, and its cost is not known."
        )


def _different(what: str, values: Mapping[str, set[str]], why: str = "") -> str:
    """Return a sentence where not all variants have the same one value; empty otherwise."""
    if len(set().union(*values.values())) < 2:
        return ""
    by_value: dict[str, list[str]] = {}
    for variant, found in values.items():
        by_value.setdefault(" and ".join(sorted(found)), []).append(variant)
    if len(by_value) == 1:
        return f"{what} not the same in all trainings: {next(iter(by_value))}.{why}"
    shown = "; ".join(f"{', '.join(names)}: {value}" for value, names in by_value.items())
    return f"{what} not the same: {shown}.{why}"


def _each(runs: Sequence[Run], value: Callable[[Run], str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for run in runs:
        found.setdefault(run.place.variant, set()).add(value(run))
    return found


def _epochs(runs: Sequence[Run]) -> str:
    return _different("Epochs", _each(runs, _length))


def _length(run: Run) -> str:
    """Return how long a run was trained: epochs that it has lines of, times its iterations."""
    settings = run.record.components["trainer"].settings
    iterations = settings.get("iterations_per_epoch")
    epochs = len(run.epochs) or settings.get("epochs", "not known")
    return f"{epochs} of {iterations} iterations" if iterations else str(epochs)


def _splits(runs: Sequence[Run]) -> str:
    """Name folds that were trained or validated on other cases."""
    folds: dict[str, set[str]] = {}
    for run in runs:
        folds.setdefault(run.place.fold, set()).add(run.record.split_digest)
    other = sorted(fold for fold, digests in folds.items() if len(digests) > 1)
    return f"Folds of other cases in some trainings: {', '.join(other)}." if other else ""


def _data(runs: Sequence[Run]) -> str:
    digests = {run.record.dataset_digest for run in runs}
    return "The dataset changed between trainings." if len(digests) > 1 else ""


def _versions(runs: Sequence[Run]) -> str:
    """Name packages of which trainings had other versions."""
    found: dict[str, set[str]] = {}
    for run in runs:
        packages = {**run.record.libraries, "Python": run.record.python}
        for name, installed in packages.items():
            found.setdefault(name, set()).add(installed)
    shown = [f"{name} {' and '.join(sorted(v))}" for name, v in found.items() if len(v) > 1]
    return f"Versions not the same in all trainings: {', '.join(shown)}." if shown else ""


def _code(runs: Sequence[Run]) -> str:
    """Name components that are the same by name and settings, but whose code is not."""
    found: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for kind, record in run.record.components.items():
            digests = found.setdefault((kind, record.reference), set())
            digests.add(f"{record.version} {record.code_digest}")
    changed = [f"{kind} {name}" for (kind, name), digests in found.items() if len(digests) > 1]
    return f"Code changed between trainings: {', '.join(changed)}." if changed else ""


def _machine(runs: Sequence[Run]) -> str:
    return _different(
        "Device and precision",
        _each(runs, lambda run: f"{run.record.device} in {run.record.precision}"),
        " Costs cannot be compared.",
    )


def _processors(runs: Sequence[Run]) -> str:
    known = [run for run in runs if run.processor]
    return _different(
        "Processors", _each(known, lambda run: run.processor), " Costs cannot be compared."
    )


_LOOKS = (_epochs, _splits, _data, _versions, _code, _machine, _processors)
