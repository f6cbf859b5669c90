"""The table that `nnunet evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from nnunet_builtin.evaluation.documents import Evaluation
from nnunet_builtin.evaluation.statistics import Distribution, LabelStatistics, Row, name_of
from nnunet_builtin.statistics.intervals import LEVEL
from nnunet_cli.reporter import out
from nnunet_core.data.labels import Labels
from nnunet_core.errors import counted

_PRINTED = ("Dice", "Surface Dice", "HD95", "ASSD", "Relative Volume Error", "Lesion F1")
#: With more labels, only these metrics are printed.
_MANY_LABELS, _SHORT = 12, ("Dice", "Surface Dice", "HD95")
#: Missed and false labels that are named of a case.
_NAMED = 3
_PERCENT = "Relative Volume Error"


def print_table(evaluation: Evaluation) -> None:
    """Print what each label reaches."""
    labels = evaluation.statistics.values()
    table = Table(title=counted(evaluation.cases, "case"), title_justify="left")
    for column in ("label", "metric"):
        table.add_column(column)
    for column in ("mean", f"{LEVEL:.0%} interval", "median", "n", "missed", "false"):
        table.add_column(column, justify="right")
    shown = _SHORT if len(labels) > _MANY_LABELS else _PRINTED
    for label in labels:
        names = [metric.name for metric in evaluation.metrics if metric.name in shown]
        counts = [str(label.counts["missed"]), str(label.counts["false"])]
        for name in names:
            first = name == names[0]
            table.add_row(
                label.name if first else "",
                titled(name, label),
                *_numbers(name, label.metrics[name]),
                *(counts if first else ("", "")),
                end_section=name == names[-1],
            )
    out().print(table)


def describe(rows: Sequence[Row], labels: Labels) -> str:
    """Return a line about one case, given its labels with the worst first: those that are missed or
    false, or else the worst one.
    """
    wrong = [f"{name_of(row.target, labels)} {row.status}" for row in rows if row.status != "found"]
    if wrong:
        more = f", and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        return f"{rows[0].case} ({', '.join(wrong[:_NAMED])}{more})"
    row = rows[0]
    hausdorff = row.scores.get("HD95")
    distance = "" if hausdorff is None else f", HD95 {hausdorff:.2f} mm"
    dice = _number("Dice", row.scores["Dice"])
    return f"{row.case} ({name_of(row.target, labels)}: Dice {dice}{distance})"


def titled(metric: str, label: LabelStatistics) -> str:
    """Return how a metric is headed: with the tolerance or the unit that it is meaningless
    without.
    """
    if metric == "Surface Dice":
        return f"{metric} at {label.tolerance:g} mm"
    return {"HD95": "HD95 (mm)", "ASSD": "ASSD (mm)", _PERCENT: "volume error (%)"}.get(
        metric, metric
    )


def _numbers(metric: str, found: Distribution) -> Sequence[str]:
    interval = found.note
    if found.interval is not None:
        interval = " to ".join(_number(metric, bound) for bound in found.interval)
    elif found.n_infinite:
        interval = f"{found.n_infinite} infinite"
    return (_number(metric, found.mean), interval, _number(metric, found.median), str(found.n))


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if metric == _PERCENT:
        return f"{100 * value:+.1f}" if abs(value) >= 0.0005 else "0.0"
    return f"{value:.2f}" if metric in {"HD95", "ASSD"} else f"{value:.4f}"
