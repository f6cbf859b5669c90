"""The tables of a judgement: scores, comparisons, ranks, suitability, datasets, costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from nnunet_builtin.judging.costs import Cost
from nnunet_builtin.judging.judgement import Judged, Judgement, OverDatasets, summary
from nnunet_builtin.judging.rendering import (
    Cell,
    Column,
    Table,
    bullets,
    csv_files,
    latex,
    markdown,
)
from nnunet_builtin.judging.rows import Row, csv_text
from nnunet_builtin.statistics import words
from nnunet_core.errors import listed
from nnunet_core.runtime import files

_LABEL, _VARIANT = Column("label", is_text=True), Column("variant", is_text=True)
_GB = 1e9
#: Names of the files of all kinds of tables.
_CSV_FILE = re.compile(
    r"(suitability|datasets|pairs|without|scores|comparisons|ranks_of_\d+|costs)\.csv"
)


def tables(judgement: Judgement) -> list[Table]:
    """Return all tables of a judgement, in the order in which they are read."""
    found = [_suitability(judgement)] if judgement.main else []
    found += [_over(over, judgement) for over in judgement.over_datasets]
    found += [table for over in judgement.over_datasets for table in _details(over)]
    by_place = groupby(judgement.judged, key=lambda e: (e.dataset, e.configuration, e.metric))
    for _, group in by_place:
        judged = list(group)
        found += [_scores(judged, judgement), *_compared(judged, judgement), *_ranks(judged)]
    return [*found, *([_costs(judgement)] if judgement.costs else [])]


def means(judgement: Judgement) -> list[Table]:
    """Return the scores that the summary speaks of: a table for each dataset and configuration."""
    return [_scores([each], judgement) for each in judgement.main]


def write(judgement: Judgement, rows: Sequence[Row], folder: Path) -> None:
    """Write all scores as scores.csv, comparison.md, and the tables as CSV and LaTeX into
    `tables/`; those of kinds that there are no longer go.
    """
    written = contents(judgement, rows)
    for name, text in written.items():
        files.write_text(folder / name, text)
    for path in list((folder / "tables").iterdir()):
        if f"tables/{path.name}" not in written and _CSV_FILE.fullmatch(path.name):
            path.unlink()


def contents(judgement: Judgement, rows: Sequence[Row]) -> dict[str, str]:
    """Return {name of a file: its text} of what `write` writes."""
    found = tables(judgement)
    csv = {f"tables/{kind}.csv": text for kind, text in csv_files(found).items()}
    head = "% needs \\usepackage{booktabs}\n\n"
    tex = head + "\n".join(map(latex, found))
    return {
        "scores.csv": csv_text(rows),
        "comparison.md": document(judgement, found),
        **csv,
        "tables/tables.tex": tex,
    }


def document(judgement: Judgement, found: list[Table]) -> str:
    """Return the summary and all tables as Markdown."""
    lines = summary(judgement) or ["Nothing is complete yet."]
    said = "\n".join(bullets(lines))
    return "\n".join([f"# Summary\n\n{said}\n", *map(markdown, found)])


def _keys(each: Judged) -> dict[str, str]:
    return {"dataset": each.dataset, "configuration": each.configuration, "metric": each.metric}


def _title(each: Judged) -> str:
    return f"{each.dataset}, {each.configuration}, {each.metric}"


def _scores(judged: list[Judged], judgement: Judgement) -> Table:
    """Return means, intervals and failures of each label and variant."""
    first = judged[0]
    names = ("mean", "95 % low", "95 % high")
    columns = (
        *(_LABEL, _VARIANT, Column("seeds"), Column("cases")),
        *(Column(name, ".4f") for name in names),
        *(Column("missed"), Column("false"), Column("crashed")),
    )
    rows = [(each.label, name, *_score(each, name)) for each in judged for name in each.order]
    head = [*judgement.deviations.get((first.dataset, first.configuration), ())]
    few = [e.label for e in judged if words.about_cases(e.cases)]
    if few:
        head.append(f"{words.about_cases(first.cases)}.")
    notes = [
        "Interval: of the mean over cases, bootstrap over cases (BCa), each case the mean of its "
        "seeds; none where the scores of all cases are equal or one is infinite.",
        "Missed, false, crashed: scores that are the worst there is and count as such: structures "
        "that only the reference or only the prediction has, and those of trainings that failed.",
    ]
    title = f"Scores: {_title(first)}"
    return Table("scores", _keys(first), title, columns, tuple(rows), tuple(head), tuple(notes))


def _score(each: Judged, name: str) -> tuple[Cell, ...]:
    scores, (interval, _), failed = each.scores[name], each.intervals[name], each.failures[name]
    defined = int((~np.isnan(scores.per_case)).sum())
    ends = interval or (None, None)
    counts = (failed.missed, failed.false, failed.crashed)
    return (scores.seeds, defined, each.mean(name), *ends, *counts)


def _compared(judged: list[Judged], judgement: Judgement) -> Iterator[Table]:
    """Yield what stands beside the baseline, label by label."""
    rows = [
        (each.label, name, *_comparison(each, name)) for each in judged for name in each.comparisons
    ]
    if not rows:
        return
    first = judged[0]
    columns = (
        *(_LABEL, _VARIANT, Column("seeds"), Column("seeds of the baseline"), Column("cases")),
        *(Column("difference", "+.2f"), Column("unit", is_text=True)),
        *(Column("95 % low", "+.2f"), Column("95 % high", "+.2f"), Column("p", ".3f")),
        *(Column("spread between seeds", ".2f"), Column("method", is_text=True)),
        *(Column("p over cases", ".3f"), Column("effect", "+.2f"), Column("P(false)", ".3f")),
    )
    notes = (
        f"Difference from {judgement.baseline}; its interval, p and verdict are of the method: "
        "seeds and cases are random. p is Holm's over the variants of a label, the interval is of "
        "one comparison alone. They need 3 seeds each, which gave different networks. Difference, "
        "interval and spread are in the unit beside them.",
        f"{words.about_networks(first.seeds, first.folds)}.",
        "Effect: matched-pairs rank-biserial correlation, -1 (worse in every case) to 1.",
    )
    title = f"Against {judgement.baseline}: {_title(first)}"
    yield Table("comparisons", _keys(first), title, columns, tuple(rows), (), notes)


def _comparison(each: Judged, name: str) -> tuple[Cell, ...]:
    found, unit = each.comparisons[name], each.unit
    ends = (None, None) if found.interval is None else unit.interval(found.interval)
    spread = None if found.seed_spread is None else abs(unit.of(found.seed_spread))
    return (
        *(*found.seeds, found.cases, unit.of(found.difference), unit.name, *ends),
        *(found.p_method, spread),
        *(words.verdict_of(found), found.p_networks, found.effect, found.false_claim),
    )


def _ranks(judged: list[Judged]) -> Iterator[Table]:
    """Yield the ranks of the variants on one dataset, where there are several."""
    mean = judged[-1]
    ranking = mean.ranking
    if ranking is None:
        return
    places = [str(place) for place in range(1, len(ranking.means) + 1)]
    columns = (
        *(_VARIANT, Column("rank of the mean", "g"), Column("mean of ranks", ".2f")),
        *(Column(f"rank {place} (%)", ".0f") for place in places),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, ranking.ranks[name], ranking.case_ranks[name], *(100 * s for s in shares))
        for name, shares in ranking.shares.items()
    )
    notes = (
        f"Kendall's tau between both orders, rank of the mean and mean of ranks in the single "
        f"cases: {words.about_orders(ranking.tau)}.",
        "Rank k: in how many of 1000 bootstrap samples of seeds and cases a variant has it; equals "
        "share.",
    )
    title = f"Ranks: {_title(mean)}, {mean.label}"
    # the number of columns is that of variants: tables of several datasets may differ
    kind = f"ranks_of_{len(places)}"
    yield Table(kind, {**_keys(mean), "label": mean.label}, title, columns, rows, (), notes)


def _suitability(judgement: Judgement) -> Table:
    """Return what each dataset can tell, and on how much it rests."""
    columns = (
        *(Column("dataset", is_text=True), Column("configuration", is_text=True)),
        *(Column("variants"), Column("seeds, at least"), Column("cases")),
        *(
            Column("spread of variants / of seeds", ".2f"),
            Column("can separate them", is_text=True),
        ),
    )
    rows: list[tuple[Cell, ...]] = []
    for each in judgement.main:
        ratio, why = each.separates
        verdict = f"not known: {why}" if ratio is None else "yes" if ratio >= 1 else "no"
        place = (each.dataset, each.configuration)
        rows.append((*place, len(each.scores), each.seeds, each.cases, ratio, verdict))
    notes = ("Below 1 a dataset cannot separate these variants, whatever a test says.",)
    return Table("suitability", {}, "What the datasets can tell", columns, tuple(rows), (), notes)


def _over(over: OverDatasets, judgement: Judgement) -> Table:
    """Return the ranking over datasets."""
    overall, rope = over.overall, judgement.rope
    columns = (
        *(_VARIANT, Column("mean of ranks", ".2f"), Column("rank of the mean", "g")),
        *(Column(f"{what} (%)", ".1f") for what in ("worse", "practically equal", "better")),
        Column(f"rope ({over.unit.name})", "g"),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, rank in overall.mean_ranks.items():
        known = over.practical.get(name)
        practice: list[float | None] = [None] * 4
        if known is not None:
            worse, equal, better = (100 * p for p in known)
            practice = [worse, equal if rope else None, better, abs(over.unit.of(rope))]
        rows.append((name, rank, overall.rank_of_means[name], *practice))
    notes = [
        f"Kendall's tau between both orders: {words.about_orders(overall.tau)}.",
        f"{words.about_datasets(overall)}.",
        f"{words.about_rope(rope, len(overall.datasets), over.unit)}.",
    ]
    absent = [n for n in overall.mean_ranks if n not in (judgement.baseline, *over.practical)]
    if absent and judgement.baseline in overall.mean_ranks:
        notes.append(
            f"No probabilities of {listed(absent)}: distances of theirs or of the baseline are "
            "infinite in some cases (missed structures), so that differences have no size."
        )
    notes += [f"Not told apart: {', '.join(clique)}." for clique in overall.cliques]
    title = f"Over {len(overall.datasets)} datasets {over.configuration}".strip()
    keys = {"configuration": over.configuration}
    return Table("datasets", keys, title, columns, tuple(rows), (), tuple(notes))


def _details(over: OverDatasets) -> Iterator[Table]:
    """Yield the tests of all pairs, and what each dataset decides, where there are enough."""
    overall, keys = over.overall, {"configuration": over.configuration}
    if overall.p:
        columns = (_VARIANT, Column("other", is_text=True), Column("p (Holm)", ".3f"))
        pairs = tuple((*pair, p) for pair, p in overall.p.items())
        yield Table(
            "pairs", keys, f"Pairs over datasets {over.configuration}".strip(), columns, pairs
        )
    if overall.without:
        columns = (
            Column("without", is_text=True),
            Column("tau", ".2f"),
            Column("first", is_text=True),
        )
        rows = tuple((name, *found) for name, found in overall.without.items())
        title = f"Leaving out a dataset {over.configuration}".strip()
        notes = ("Tau: Kendall's, with the ranking over all datasets.",)
        yield Table("without", keys, title, columns, rows, (), notes)


def _costs(judgement: Judgement) -> Table:
    columns = (
        *(Column("dataset", is_text=True), Column("configuration", is_text=True), _VARIANT),
        *(Column("trainings"), Column("GPU hours", ".3f"), Column("CPU hours", ".3f")),
        *(Column("memory (GB)", ".2f"), Column("GPU memory (GB)", ".2f")),
        *(Column("parameters (millions)", ".2f"), Column("seconds per case", ".2f")),
    )
    notes = [
        "Hours: of one training with its validation, mean; of what variants share (plan, prepare, "
        "test sets), all of it. Memory: the most of one process. Seconds per case: to predict a "
        "prepared validation case, write and score it.",
    ]
    if lost := sum(cost.uncounted for cost in judgement.costs):
        notes.append(f"{lost} tries were killed; what these took is not counted.")
    rows = tuple(map(_cost, judgement.costs))
    return Table("costs", {}, "Cost", columns, rows, (), tuple(notes))


def _cost(cost: Cost) -> tuple[Cell, ...]:
    gpu = None if cost.gpu_memory is None else cost.gpu_memory / _GB
    parameters = None if cost.parameters is None else cost.parameters / 1e6
    return (
        *(cost.dataset, cost.configuration or "-", cost.variant or "(shared)"),
        *(cost.trainings or None, cost.gpu_hours, cost.cpu_hours, cost.peak_memory / _GB),
        *(gpu, parameters, cost.seconds_per_case),
    )
