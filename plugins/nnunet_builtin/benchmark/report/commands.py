"""`nnunet benchmark report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nnunet_builtin.benchmark.opening import Opened, opened
from nnunet_builtin.benchmark.records import log_tail
from nnunet_builtin.benchmark.report.cases import WORST, Chosen, case_section, choose
from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.benchmark.report.page import report_page
from nnunet_builtin.judging import tables
from nnunet_builtin.judging.rows import write_csv
from nnunet_builtin.pages.cases import small_enough
from nnunet_builtin.pages.elements import Attachment
from nnunet_builtin.pages.writing import Page
from nnunet_cli import options as o
from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import UsageError
from nnunet_core.runtime import files

_FILE = "report.html"
_ENDINGS = {".html", ".htm"}
#: {file of a benchmark that goes into its report: its type}
_TABLES = {".csv": "text/csv", ".md": "text/markdown", ".tex": "text/x-tex"}
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
    chosen = choose(content, case or [], worst)
    path = output or found.root / _FILE
    write_csv(found.root / "scores.csv", content.rows)
    tables.write(content.judgement, found.root)
    attached = _tables(found.root)

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
    )


def _tables(root: Path) -> list[Attachment]:
    """Return the tables that lie in the folder of a benchmark."""
    everything = [*root.glob("*"), *(root / "tables").glob("*")]
    paths = sorted(path for path in everything if path.suffix in _TABLES)
    found = []
    for path in paths:
        # a link in the folder of a stranger could lead to any file of who sends the report
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MOST_TABLE_BYTES:
            name, text = "_".join(path.relative_to(root).parts), path.read_text("utf-8", "replace")
            found.append(Attachment(name, text, _TABLES[path.suffix]))
    return found
