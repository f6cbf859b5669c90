"""Names of strangers in tables: no HTML, no command of LaTeX, no formula, no row that is none."""

import csv
import io
from dataclasses import replace

import pytest

from nnunet_builtin.judging.rendering import Column, Table, csv_files, latex, markdown
from nnunet_builtin.judging.rows import Row, read_csv, write_csv
from nnunet_core.errors import StorageError

NAMES = ["=cmd|' /C calc'!A0", "a|b\\", "x\n\n\\input{y}", "[x] <script>", "*", "\x1b[31m", "-2+3"]
COLUMNS = (Column("name", is_text=True), Column("score", ".2f"))
TABLE = Table(
    *("kind", {"dataset": "@SUM(1)"}, "T\n# <b>", COLUMNS, tuple((n, -0.5) for n in NAMES)),
    head=("a\n\\input{z}",),
)
ROW = Row("d", "3d", "v", 1, "", "c", "1", "Dice", 0.5, "found", "f.csv")


def test_markdown_has_one_line_a_row_and_no_tags():
    lines = markdown(TABLE).splitlines()
    assert lines[0] == "## T # &lt;b>"
    assert sum(line.startswith("|") for line in lines) == len(NAMES) + 2
    assert r"| a\|b\\ | -0.50 |" in lines
    assert "<" not in markdown(TABLE)
    assert "\x1b" not in markdown(TABLE)


def test_latex_sees_no_commands_and_no_options_of_the_line_before():
    text = latex(TABLE)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(NAMES) + 1
    assert not any(line.startswith(("[", "*")) for line in rows)
    assert not any(line.lstrip().startswith(r"\input") for line in text.splitlines())
    assert r"\input" not in text.replace(r"% a \input{z}", "")


def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay():
    (text,) = csv_files([TABLE]).values()
    rows = list(csv.reader(io.StringIO(text)))[1:]
    assert [row[1].lstrip("'") for row in rows] == NAMES
    assert not any(cell[0] in "=+-@" for row in rows for cell in row[:2] if len(cell) > 1)
    assert {row[2] for row in rows} == {"-0.5"}


def test_scores_are_read_as_they_were_written(tmp_path):
    rows = [replace(ROW, case=name) for name in (*NAMES, "'=x", "'", "''", "x'")]
    write_csv(tmp_path / "scores.csv", rows)
    assert read_csv(tmp_path / "scores.csv") == rows


DAMAGE = [
    ("0.5", "7"),
    ("0.5", "x"),
    ("Dice", "IoU"),
    (",f.csv", ""),
    ("d,3d", "3d"),
    ("v,1", "v,?"),
]


@pytest.mark.parametrize(("old", "new"), DAMAGE)
def test_damaged_scores_get_a_message(tmp_path, old, new):
    path = tmp_path / "scores.csv"
    write_csv(path, [ROW])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(StorageError, match=r"is no table of scores.*add the results again"):
        read_csv(path)
