"""The report of `make gpu`: Markdown from the results of its stages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPORT, ENDS = "report.md", "ends.json"
ENDED, FAILED, TIMED_OUT, STOPPED = "ended", "failed", "ran out of time", "stopped"
_SENTENCES = {
    ENDED: "Ended after {seconds:.0f} s.",
    FAILED: "**Failed** after {seconds:.0f} s. Its log, {letter}.log, ends with:",
    TIMED_OUT: "**Ran out of time** after {seconds:.0f} s; what it had until then is shown.",
    STOPPED: "**Stopped** after {seconds:.0f} s; what it had until then is shown.",
}
_DIGITS = 3


@dataclass(frozen=True)
class End:
    """How a stage ended.

    Attributes:
        how: ENDED, FAILED, TIMED_OUT or STOPPED.
        seconds: That it ran.
        log: Last lines of what it printed.
    """

    how: str
    seconds: float
    log: tuple[str, ...] = ()


def write_report(folder: Path, titles: Mapping[str, str]) -> Path:
    """Write the report of every stage with results in a folder; return its path.

    Args:
        folder: Of the results, X.json per stage, and of ENDS.
        titles: {stage: what it is about}, in the order of the report.
    """
    ends, found = read_ends(folder), {letter: _read(folder / f"{letter}.json") for letter in titles}
    shown = [letter for letter in titles if found[letter] or letter in ends]
    machines = dict.fromkeys(_machine(found[one]["machine"]) for one in shown if found[one])
    lines = ["# What `make gpu` measured", "", "; ".join(machines) or "No stage has results.", ""]
    rows = [_overview(letter, titles[letter], ends.get(letter)) for letter in shown]
    lines += _table(["stage", "what", "result", "seconds"], rows)
    for letter in shown:
        lines += _section(letter, titles[letter], ends.get(letter), found[letter])
    path = folder / REPORT
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def read_ends(folder: Path) -> dict[str, End]:
    """Return how the stages with results in a folder ended."""
    content = _read(folder / ENDS) or {}
    return {letter: End(**{**end, "log": tuple(end["log"])}) for letter, end in content.items()}


def show(value: Any) -> str:
    """Return a cell: numbers with three digits, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|").replace("\n", " ")
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 10**_DIGITS else f"{value:.{_DIGITS}g}"


def _read(path: Path) -> dict[str, Any] | None:
    """Return a JSON file; None where there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _machine(found: Mapping[str, Any]) -> str:
    words = [found["card"], f"{found['cores']} cores", f"Python {found['python']}"]
    words.append(f"PyTorch {found['torch']}")
    if found["cuda"]:
        words.append(f"CUDA {found['cuda']}")
    return ", ".join(words)


def _overview(letter: str, title: str, end: End | None) -> list[Any]:
    return [letter, title, end.how if end else "not ended", end.seconds if end else None]


def _section(
    letter: str,
    title: str,
    end: End | None,
    results: Mapping[str, Any] | None,
) -> list[str]:
    """Return the lines of a stage."""
    lines = ["", f"## {letter}: {title}", ""]
    if end is not None:
        lines.append(_SENTENCES[end.how].format(seconds=end.seconds, letter=letter))
        if end.how == FAILED:
            lines += ["", "```", *end.log, "```"]
    for table in results["tables"] if results else ():
        if table["rows"]:
            lines += ["", f"### {table['title']}", "", *_table(table["columns"], table["rows"])]
    notes = results["notes"] if results else []
    return lines + ([""] if notes else []) + [f"* {note}" for note in notes]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a Markdown table; columns of numbers stand to the right."""
    by_column = list(zip(*rows, strict=True)) or [() for _ in columns]
    numbers = [all(_is_figure(value) for value in values) for values in by_column]
    cells = [list(columns), ["--:" if number else "---" for number in numbers]]
    cells += [[show(value) for value in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def _is_figure(value: Any) -> bool:
    return value in (None, "") or isinstance(value, int | float)
