"""What was compared and selected, and what is done to predictions."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_builtin.pages.elements import (
    Cell,
    Element,
    Section,
    Sentences,
    Source,
    Table,
    Text,
    Value,
)
from nnunet_builtin.reports.content import RunContent
from nnunet_core.store.inference import FILE, InferenceDocument
from nnunet_core.store.origins import shell_line
from nnunet_core.store.postprocessing import PostprocessingRecord

_NONE = "builtin/none"


def selection_section(run: RunContent) -> Section:
    """Return the comparison of configurations and ensembles, postprocessing and calibration."""
    elements: list[Element] = []
    if run.inference is not None:
        elements += _compared(run.inference)
        if (decided := run.inference.postprocessing) is not None:
            names = run.models[0].document.labels.names
            elements.append(_decided(decided, "What predicts", names))
    names = run.models[0].document.labels.names
    for model in run.models:
        elements += [_decided(record, model.name, names) for record in model.postprocessing]
        if (found := model.calibration) is not None:
            elements.append(
                Text(
                    f"{model.name}: temperature {found.temperature:.3f}; the calibration error "
                    f"goes from {found.error_before:.4f} to {found.error_after:.4f} "
                    f"({found.cases} cases)."
                )
            )
    if run.inference is not None:
        folder = run.models[0].folder.parent
        line = shell_line(["nnunet", "predict", str(folder / FILE), "IMAGES", "OUTPUT"])
        elements += [Text("What predicts with it:"), Source(line)]
    return Section("Selection and postprocessing", elements)


def _compared(inference: InferenceDocument) -> list[Element]:
    if not inference.scores:
        return []
    labels = list(inference.scores[0].dice)
    rows: list[list[Value]] = []
    for place, score in enumerate(inference.scores):
        name = " + ".join(score.models)
        rows.append(
            [
                Cell(name, name, strong=not place),
                score.mean_dice,
                *(score.dice.get(label) for label in labels),
                score.cases,
            ]
        )
    chosen = " + ".join(inference.scores[0].models)
    lines = [f"{chosen} predicts: the highest mean Dice on the validation cases."]
    if len(inference.scores) > 1 and inference.scores[1].mean_dice is not None:
        best, second = inference.scores[0].mean_dice, inference.scores[1].mean_dice
        if best is not None:
            lines.append(
                f"It is {100 * (best - second):.2f} Dice points before the next. One training "
                "each: this chooses what predicts, and does not show which one is better."
            )
    caption = "Before postprocessing, the best first"
    return [
        Sentences(lines),
        Table(["models", "mean Dice", *labels, "cases"], rows, caption),
    ]


def _decided(record: PostprocessingRecord, who: str, names: Mapping[int, str]) -> Text:
    """Say in a sentence what was decided on validation cases."""
    folds = f", folds {', '.join(record.folds)}" if record.folds else ""
    start = f"{who}{folds}: {record.component.reference}"
    if record.component.reference == _NONE:
        return Text(f"{who}{folds}: label maps stay as they are predicted.")
    chosen = record.state.get("for_which_classes")
    if isinstance(chosen, list):
        shown = ", ".join(_entry(entry, names) for entry in chosen)
        return Text(
            f"{start} keeps the largest component of {shown}."
            if chosen
            else f"{start} changes nothing: no label got better by it."
        )
    decided = {key: value for key, value in record.state.items() if not isinstance(value, Mapping)}
    return Text(f"{start} decided {decided}.")


def _entry(entry: object, names: Mapping[int, str]) -> str:
    if isinstance(entry, list):
        return f"({' + '.join(_entry(each, names) for each in entry)} as one)"
    return names.get(entry, str(entry)) if isinstance(entry, int) else str(entry)
