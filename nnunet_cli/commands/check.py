"""`nnunet plugins check`: run the conformance kit on a package or a component."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from nnunet_cli import options as o
from nnunet_cli.completion import complete_reference
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import UsageError, counted, listed
from nnunet_core.registry.components import RUN_KINDS
from nnunet_core.testing.check import Outcome, Row, Subject
from nnunet_core.testing.doors import checks_of, rows_of
from nnunet_core.testing.references import Finder

_STYLES: dict[Outcome, str] = {
    "passed": "green",
    "failed": "bold red",
    "skipped": "dim",
    "expected": "yellow",
}


def check(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="Plugin or distribution, for all of it; or one component or variant: name, "
            "plugin/name or package.module:Class.",
            show_default=False,
            autocompletion=complete_reference,
        ),
    ],
    kind: Annotated[
        str | None,
        typer.Option(help="Of the component, where a name is one of several: loss, planner, ..."),
    ] = None,
    checks: Annotated[
        list[str] | None,
        typer.Option("--check", help="A check to run; repeatable. Default: all of the kind."),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="CHECK=REASON",
            help="A check that is known to fail, and why; repeatable. It has to fail.",
        ),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(
            help="Dataset folder or image file that the component reads, where it reads another "
            "layout than the built-in ones."
        ),
    ] = None,
    partners: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="KIND=REF",
            help="A component that it is used with, in place of the default one: "
            "network=mine/swin; repeatable.",
        ),
    ] = None,
    settings: o.SetOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Check whether a plugin keeps the contracts; exit code 1 when a check fails.

    Components are imported, built and used on small data that is made for it.
    """
    finder = Finder(o.registry_of(context), example, _partners(partners or []))
    if kind is not None:
        checks_of(kind)  # a kind that does not exist is said first
    kind, own = _own_settings(settings or [], kind)
    subjects = finder.find(name, kind, own)
    rows, expected = [], _reasons(expect or [])
    total = sum(len(checks_of(subject.kind)) for subject in subjects)
    with make_reporter(quiet=as_json).track("check", 0 if checks else total) as tracker:
        for row in rows_of(subjects, checks or (), expected):
            rows.append(row)
            tracker.advance(1, f"{row.kind} {row.reference}")
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    else:
        _print(rows, subjects)
    if any(row.outcome == "failed" for row in rows):
        raise typer.Exit(1)


def _partners(texts: Sequence[str]) -> dict[str, str]:
    partners = {}
    for text in texts:
        kind, _, reference = text.partition("=")
        if kind not in RUN_KINDS or not reference:
            raise UsageError(
                f"--with got '{text}'; it takes KIND=REF, KIND one of {', '.join(RUN_KINDS)}."
            )
        partners[kind] = reference
    return partners


def _own_settings(
    texts: Sequence[str], kind: str | None
) -> tuple[str | None, dict[str, Any] | None]:
    """Return the kind of the component that is checked, as far as it is known, and its settings."""
    found = o.parse_assignments(texts)
    if not found:
        return kind, None
    if len(found) > 1 or kind not in (None, *found):
        raise UsageError(
            f"--set got settings of {listed(sorted(found))}; here it takes those of the one "
            f"component that is checked{'' if kind is None else f', a {kind}'}. Another one that "
            "it is used with: --with KIND=REF."
        )
    return next(iter(found.items()))


def _reasons(texts: Sequence[str]) -> dict[str, str]:
    reasons = {}
    for text in texts:
        name, _, reason = text.partition("=")
        if not reason.strip():
            raise UsageError(f"--expect got '{text}'; it takes CHECK=REASON.")
        reasons[name.strip()] = reason.strip()
    return reasons


def _print(rows: Sequence[Row], subjects: Sequence[Subject]) -> None:
    console = out()
    console.print(_one(rows) if len(subjects) == 1 else _several(rows))
    told: tuple[Outcome, ...] = ("failed", "expected", "skipped")
    for outcome in told:
        if (several := len(subjects) > 1) and outcome == "skipped":
            continue  # a package skips what is not for its kinds; --json has the reasons
        for row in rows:
            if row.outcome == outcome:
                who = f"{row.kind} {row.reference}: " if several else ""
                console.print(f"{outcome}  {who}{row.check}: {row.message}", soft_wrap=True)
    counts = Counter(row.outcome for row in rows)
    parts = [f"{counts[outcome]} {outcome}" for outcome in _STYLES if counts[outcome]]
    console.print(f"{counted(len(rows), 'check')}: {', '.join(parts)}")


def _one(rows: Sequence[Row]) -> Table:
    """Return the table of one component: a line for each check."""
    table = Table(title=f"{rows[0].kind} {rows[0].reference}", title_justify="left")
    table.add_column("check", overflow="fold")
    table.add_column("result")
    table.add_column("seconds", justify="right")
    for row in rows:
        outcome = Text(row.outcome, style=_STYLES[row.outcome])
        table.add_row(row.check, outcome, f"{row.seconds:.2f}")
    return table


def _several(rows: Sequence[Row]) -> Table:
    """Return the table of several components: a line for each."""
    table = Table(title="checks by component", title_justify="left")
    table.add_column("kind")
    table.add_column("component", overflow="fold")
    for name in (*_STYLES, "seconds"):
        table.add_column(name, justify="right")
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.kind, row.reference), []).append(row)
    for (kind, reference), own in found.items():
        counts = Counter(row.outcome for row in own)
        cells = [
            Text(str(counts[outcome]), style=style if counts[outcome] else "dim")
            for outcome, style in _STYLES.items()
        ]
        table.add_row(kind, reference, *cells, f"{sum(row.seconds for row in own):.1f}")
    return table
