"""Training curves of all folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnunet_builtin.pages.elements import Details, Element, Plot, Section, Table, Value
from nnunet_builtin.pages.figures import colour, curves, number_of
from nnunet_builtin.reports.content import Fold, ModelContent

Line = Mapping[str, Any]


def training_section(model: ModelContent, title: str) -> Section:
    """Return the curves of the folds that have any."""
    folds = [fold for fold in model.folds if fold.epochs]
    several = len(folds) > 1
    elements: list[Element] = [_table(folds)]
    elements += [
        _plot(
            folds,
            {"training": "train_loss", "validation": "validation_loss"},
            "loss",
            f"Loss of {'each fold' if several else 'the fold'}: training and validation patches",
        ),
        _plot(
            folds,
            {"epoch": "mean_dice", "average": "mean_dice_average"},
            "pseudo Dice",
            "Mean Dice over the labels of validation patches, and its moving average. Patches are "
            "no cases: it says how the training went, not how good the model is",
        ),
    ]
    further = [
        _plot(folds, {"": "learning_rate"}, "learning rate", "Learning rate"),
        _plot(folds, {"": "seconds"}, "seconds", "Seconds of each epoch"),
    ]
    return Section(title, [*elements, Details("Learning rate and time of epochs", further)])


def _plot(folds: Sequence[Fold], fields: Mapping[str, str], title: str, caption: str) -> Plot:
    """Return one figure: a colour for each fold, a dash for each field after the first."""
    series, colours, dashes = {}, {}, {}
    for number, fold in enumerate(folds):
        for place, (what, field) in enumerate(fields.items()):
            name = " ".join(filter(None, (f"fold {fold.name}", what)))
            x = [float(line["epoch"]) for line in fold.epochs]
            series[name] = (x, [number_of(line.get(field)) for line in fold.epochs])
            colours[name] = colour(number)
            dashes[name] = ("solid", "dot")[min(place, 1)]
    figure = curves(series, "epoch", title, colours, dashes)
    return Plot(figure, caption)


def _table(folds: Sequence[Fold]) -> Table:
    rows: list[list[Value]] = []
    for fold in folds:
        last = fold.epochs[-1]
        best = _best(fold, max, "mean_dice_average")
        rows.append(
            [
                f"fold {fold.name}",
                fold.state,
                len(fold.epochs),
                number_of(last.get("train_loss")),
                number_of(last.get("validation_loss")),
                best,
                sum(number_of(line.get("seconds")) for line in fold.epochs) / len(fold.epochs),
            ]
        )
    columns = ["fold", "state", "epochs", "training loss", "validation loss"]
    columns += ["best Dice", "s / epoch"]
    return Table(
        columns, rows, "Losses of the last epoch; the best moving average of the pseudo Dice"
    )


def _best(fold: Fold, choose: Callable[..., float], field: str) -> float | None:
    values = [value for line in fold.epochs if (value := number_of(line.get(field))) == value]
    return choose(values) if values else None
