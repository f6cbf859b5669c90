"""The report of a benchmark: a page that says first what the numbers show, and then all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.benchmark.report.datasets import dataset_sections, shown
from nnunet_builtin.benchmark.report.provenance import provenance_section
from nnunet_builtin.benchmark.report.ranks import clique_plots
from nnunet_builtin.benchmark.report.trainings import training_section
from nnunet_builtin.judging.judgement import summary
from nnunet_builtin.pages.elements import (
    Attachment,
    Attachments,
    Details,
    Element,
    Facts,
    Section,
    Sentences,
    Source,
    Text,
)
from nnunet_builtin.pages.writing import Page
from nnunet_core.errors import counted

_FEW_LINES = 8


def report_page(content: Content, cases: Section | None, tables: Sequence[Attachment]) -> Page:
    """Return the page.

    Args:
        content: The benchmark.
        cases: What `cases.case_section` returns.
        tables: Files to take along.
    """
    parts = [
        _summary(content),
        _over_datasets(content),
        *dataset_sections(content),
        cases,
        training_section(content),
        _cost(content),
        provenance_section(content),
        _tables(tables),
    ]
    sections = [part for part in parts if part is not None]
    return Page(f"Benchmark {content.bench.name}", sections, _subtitle(content))


def _subtitle(content: Content) -> str:
    bench = content.bench
    parts = [
        counted(len(content.datasets), "dataset"),
        counted(len(content.variants), "variant"),
        counted(len(bench.folds), "fold"),
        counted(len(bench.seeds), "seed"),
    ]
    return f"{', '.join(parts)}; baseline {bench.baseline}"


def _summary(content: Content) -> Section:
    elements: list[Element] = [*_unfinished(content)]
    lines = summary(content.judgement)
    if lines:
        elements.append(Sentences(lines, "lead" if len(lines) <= _FEW_LINES else "plain"))
        elements.append(
            Text(
                "Differences, intervals and spreads stand in the tables 'Against "
                f"{content.bench.baseline}' of each dataset, in the rows of the mean; what is said "
                "of other datasets, and what a dataset can tell, in 'Over datasets'.",
                "small",
            )
        )
    else:
        elements.append(Text("No score is complete yet: there is nothing to compare.", "lead"))
    elements.append(Facts(_facts(content)))
    return Section("Summary", elements)


def _unfinished(content: Content) -> Iterator[Element]:
    """Yield what is missing or failed."""
    done, all_jobs = content.states.get("done", 0), sum(content.states.values())
    if done < all_jobs:
        others = ", ".join(f"{n} {state}" for state, n in content.states.items() if n)
        yield Text(
            f"This benchmark is not finished ({others}): numbers are those of what is complete.",
            "warning",
        )
    if content.stale:
        yield Text("These results are stale, and in no number of this page:", "warning")
        yield Sentences(content.stale)
    if content.failed:
        logs = [Details(name, [Source(tail)]) for name, tail in content.failed.items()]
        yield Details(f"{counted(len(content.failed), 'failed job')}, last lines of the logs", logs)


def _facts(content: Content) -> dict[str, object]:
    costs, bench = content.judgement.costs, content.bench
    each = [(cost.trainings or 1, cost) for cost in costs]
    seeds = ", ".join(map(str, bench.seeds))
    facts: dict[str, object] = {
        "Datasets": ", ".join(content.datasets),
        "Variants": ", ".join(content.variants),
        "Baseline": bench.baseline,
        "Folds": ", ".join(bench.folds),
        "Seeds": seeds,
        "Trainings done": len(content.runs),
    }
    if costs:
        facts["GPU hours"] = f"{sum(n * cost.gpu_hours for n, cost in each):.2f}"
        facts["CPU hours"] = f"{sum(n * cost.cpu_hours for n, cost in each):.2f}"
    return facts


def _over_datasets(content: Content) -> Section | None:
    """Return what is said of all datasets together."""
    kinds = ("suitability", "datasets", "pairs", "without")
    tables = [table for table in content.tables if table.kind in kinds]
    elements = [element for table in tables for element in shown(table)]
    return Section("Over datasets", [*elements, *clique_plots(content)]) if elements else None


def _cost(content: Content) -> Section | None:
    """Return what the variants cost; None where nothing is known of it."""
    tables = [table for table in content.tables if table.kind == "costs"]
    return Section("Cost", [e for table in tables for e in shown(table)]) if tables else None


def _tables(tables: Sequence[Attachment]) -> Section | None:
    if not tables:
        return None
    shown: list[Element] = [
        Details(each.name, [Source(each.content)])
        for each in tables
        if not each.name.endswith(".csv")
    ]
    return Section("Tables to take along", [Attachments(tables), *shown])
