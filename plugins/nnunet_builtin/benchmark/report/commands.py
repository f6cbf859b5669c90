"""`nnunet benchmark report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nnunet_builtin.benchmark.opening import Opened, opened, words
from nnunet_builtin.benchmark.progress import stale_lines
from nnunet_builtin.benchmark.records import log_tail
from nnunet_builtin.benchmark.report.cases import WORST, Chosen, case_section, choose
from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.benchmark.report.page import report_page
from nnunet_builtin.judging import tables
from nnunet_builtin.judging.rows import VALIDATED
from nnunet_builtin.pages.cases import small_enough
from nnunet_builtin.pages.elements import Attachment
from nnunet_builtin.pages.writing import Page
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import UsageError
from nnunet_core.runtime import files, locks
from nnunet_core.runtime.reporting import Reporter

_FILE = "report.html"
_ENDINGS = {".html", ".htm"}
#: {ending of a table: its type}
_TYPES = {".csv": "text/csv", ".md": "text/markdown", ".tex": "text/x-tex"}
#: Larger ones are named, not taken in.
_MOST_TABLE_BYTES = 1_500_000


def report(
    context: typer.Context,
    bench: Annotated[
        Path,
        typer.Argument(help="bench.toml: datasets, variants, folds, seeds.", show_default=False),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write. Default: report.html in the folder of the benchmark.",
            show_default=False,
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="Show this case instead of the worst ones; may be given several times.",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[
        int, typer.Option(min=0, max=20, help="How many of the worst cases of each dataset.")
    ] = WORST,
    workspace: o.WorkspaceOption = None,
) -> None:
    """Write one HTML file that says what the scores of a benchmark show, with tables, plots and
    volumes. It opens without network.
    """
    if output is not None and output.suffix.lower() not in _ENDINGS:
        raise UsageError(f"{output} is no name of a page; name a file that ends in .html.")
    reporter, registry = make_reporter(), o.registry_of(context)
    found = opened(bench, registry, o.workspace_of(workspace), reporter)
    found.board.look()
    content = gathered(found)
    _refuse_stale(content, words(bench, workspace), found.root)
    chosen = choose(content, case or [], worst)
    path = output or found.root / _FILE
    for line in content.stale:
        reporter.warning(line)
    _write_tables(content, found.root, reporter)
    attached = _tables(content, found.root)

    def page(some: Sequence[Chosen]) -> Page:
        cases = case_section(content, some, registry.hooks, reporter) if some else None
        return report_page(content, cases, attached)

    files.write_text(path, small_enough(page, chosen, reporter))
    out().print(f"report: {path}", soft_wrap=True, markup=False)


def gathered(found: Opened) -> Content:
    """Return what the report is made of; the board has been asked to look."""
    judgement, rows = found.judged()
    board = found.board
    failed = {
        name: [why, *log_tail(board.folder(found.graph.jobs[name]))]
        for name, why in board.failed.items()
    }
    return Content(
        bench=found.bench,
        judgement=judgement,
        rows=rows,
        runs=found.runs(),
        methods={name: member.method for name, member in found.members.items()},
        datasets={each.dataset.name: each.dataset for each in found.subjects.values()},
        states=Counter(board.states().values()),
        failed={name: "\n".join(lines) for name, lines in failed.items()},
        stale=stale_lines(board),
    )


def _refuse_stale(content: Content, bench: str, root: Path) -> None:
    """Refuse to write that nothing is complete over what was.

    Raises:
        UsageError: All scores are stale.
    """
    if content.stale and not any(row.origin == VALIDATED for row in content.rows):
        told = "\n".join(content.stale)
        raise UsageError(
            f"No score is current, so there is nothing to report; what lies in {root} is left as "
            f"it was.\n{told}\nTo make these results anew: nnunet benchmark run {bench}"
        )


def _write_tables(content: Content, root: Path, reporter: Reporter) -> None:
    """Write the tables beside the page, unless somebody runs the benchmark, who will, or scores in
    those that are there are stale: they stay until there are new ones.
    """
    if content.stale:
        reporter.message(f"{root / 'comparison.md'} and the tables beside it stay as they were.")
        return
    if driver := locks.holder(root / locks.NAME):
        reporter.message(
            f"{driver} runs this benchmark and writes {root / 'comparison.md'} and the tables when "
            "it ends; the page has those of now."
        )
        return
    with locks.held(root / locks.NAME, "this benchmark", reporter, wait=False):
        tables.write(content.judgement, content.rows, root)


def _tables(content: Content, root: Path) -> list[Attachment]:
    """Return the tables as files to take along, and others that somebody put beside them."""
    texts = tables.contents(content.judgement, content.rows)
    for path in root.glob("*"):
        # a link in the folder of a stranger could lead to any file of who sends the report
        regular = path.is_file() and not path.is_symlink()
        small = regular and path.stat().st_size <= _MOST_TABLE_BYTES
        if path.suffix in _TYPES and small and path.name not in texts:
            texts[path.name] = path.read_text("utf-8", "replace")
    return [
        Attachment(name.replace("/", "_"), text, _TYPES[Path(name).suffix])
        for name, text in sorted(texts.items())
        if len(text) <= _MOST_TABLE_BYTES
    ]
