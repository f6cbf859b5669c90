"""A table of names and numbers as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nnunet_builtin.untrusted.spreadsheets import as_text
from nnunet_core.errors import printable

Cell = str | int | float | None

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # at the start of a row they would be options of the line end before it
    "[": "{[}",
    "*": "{*}",
}
#: A table ends where a line does that is no row; tags would be HTML.
_MARKDOWN = str.maketrans({"\n": " ", "\t": " ", "\\": "\\\\", "|": "\\|", "<": "&lt;"})


@dataclass(frozen=True)
class Column:
    """What stands below one title.

    Attributes:
        name: Title, with the unit.
        number_format: Format of its numbers, such as `.4f`; empty shows them as they are.
        is_text: Whether it holds text, which stands on the left.
    """

    name: str
    number_format: str = ""
    is_text: bool = False

    def shown(self, cell: Cell) -> str:
        """Return a cell for people: `-` where there is nothing."""
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return "-"
        if isinstance(cell, float) and math.isinf(cell):
            return "infinite" if cell > 0 else "-infinite"
        return cell if isinstance(cell, str) else format(cell, self.number_format)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        kind: Tables of one kind have the same columns, and make one CSV file.
        keys: {what it is of: name}, such as the dataset: columns in CSV, part of the title else.
        title: For people.
        columns: Titles and formats.
        rows: Cells.
        head: Sentences above it.
        notes: Sentences below it.
    """

    kind: str
    keys: Mapping[str, str]
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    head: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def shown(self) -> list[list[str]]:
        """Return the cells of all rows for people."""
        return [
            [column.shown(cell) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]


def markdown(table: Table) -> str:
    """Return a section with a table of Markdown."""
    marks = [":--" if column.is_text else "--:" for column in table.columns]
    lines = [_line([column.name for column in table.columns]), _line(marks)]
    lines += [_line(row) for row in table.shown()]
    title = f"## {in_markdown(table.title)}"
    parts = [title, *bullets(table.head), "\n".join(lines), *bullets(table.notes)]
    return "\n\n".join(parts) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(in_markdown, cells)) + " |"


def in_markdown(text: str) -> str:
    """Return a text as a part of a line, in which Markdown sees no cell and no HTML."""
    return printable(text.translate(_MARKDOWN))


def bullets(sentences: Iterable[str]) -> list[str]:
    """Return a list of sentences for Markdown; nothing where there are none."""
    lines = [f"- {in_markdown(sentence)}" for sentence in sentences]
    return ["\n".join(lines)] if lines else []


def latex(table: Table) -> str:
    """Return a table for LaTeX with the package booktabs; sentences around it become comments."""
    columns = "".join("l" if column.is_text else "r" for column in table.columns)
    lines = [_comment(sentence) for sentence in table.head]
    lines += [r"\begin{table}", r"\centering", rf"\caption{{{escaped(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [_latex_row(column.name for column in table.columns), r"\midrule"]
    lines += [_latex_row(row) for row in table.shown()]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    lines += [_comment(sentence) for sentence in table.notes]
    return "\n".join(lines) + "\n"


def _comment(sentence: str) -> str:
    return f"% {printable(' '.join(sentence.split()))}"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def escaped(text: str) -> str:
    """Return a text in which LaTeX sees no command."""
    shown = printable(" ".join(text.split()))
    return "".join(_LATEX.get(character, character) for character in shown)


def csv_files(tables: Sequence[Table]) -> dict[str, str]:
    """Return {kind: text of a CSV file with the rows of all tables of that kind}; numbers have all
    their digits, and what is not there is empty.
    """
    texts: dict[str, io.StringIO] = {}
    for table in tables:
        if table.kind not in texts:
            texts[table.kind] = io.StringIO()
            names = [column.name for column in table.columns]
            _writer(texts[table.kind]).writerow([*table.keys, *names])
        for row in table.rows:
            cells = ["" if cell is None else cell for cell in (*table.keys.values(), *row)]
            _writer(texts[table.kind]).writerow(map(as_text, cells))
    return {kind: text.getvalue() for kind, text in texts.items()}


def _writer(text: io.StringIO):  # type: ignore[no-untyped-def]
    return csv.writer(text, lineterminator="\n")
