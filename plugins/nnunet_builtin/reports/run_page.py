"""The page of a run, or of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nnunet_builtin.pages.elements import (
    Cell,
    Column,
    Details,
    Element,
    Facts,
    Gallery,
    Picture,
    Plot,
    Section,
    Sentences,
    Source,
    Table,
    Text,
    Value,
    Viewer,
    Volume,
)
from nnunet_builtin.pages.figures import distributions
from nnunet_builtin.pages.writing import Page
from nnunet_builtin.reports.content import CaseScore, LabelScore, ModelContent, Part, RunContent
from nnunet_builtin.reports.curves import training_section
from nnunet_builtin.reports.dataset_page import dataset_section
from nnunet_builtin.reports.overlays import worst_first
from nnunet_builtin.reports.provenance import cost_section, provenance_section, without_empty
from nnunet_builtin.reports.selection import selection_section
from nnunet_builtin.reports.trained import MEAN
from nnunet_builtin.statistics.words import about_cases
from nnunet_core.errors import counted

#: Labels that a table has a column of its own for.
_MOST_COLUMNS = 20
#: Labels whose distributions one figure shows.
_MOST_SHAPES = 16


def run_page(
    run: RunContent, pictures: Mapping[str, Sequence[Picture]], volumes: Sequence[Volume] = ()
) -> Page:
    """Return the page of a run.

    Args:
        run: What it says.
        pictures: {configuration: worst cases, the worst first}.
        volumes: Cases to look through.
    """
    sections = [Section("Summary", _summary(run))]
    for model in run.models:
        if model.cases:
            own = pictures.get(model.name, ())
            sections.append(_results_section(model, own, _title(run, model, "Results")))
    if volumes:
        said = "Arrow keys move the cross-hair, Page Up and Page Down go through slices."
        sections.append(Section("Worst cases in 3D", [Text(said), Viewer(volumes)]))
    sections.append(selection_section(run))
    sections += [
        training_section(model, _title(run, model, "Training"))
        for model in run.models
        if any(fold.epochs for fold in model.folds)
    ]
    sections += [dataset_section(run.data), _plans_section(run)]
    sections += [Section("Method", _method(run.models)), cost_section(run.models)]
    sections.append(provenance_section(run.models))
    kinds = {model.received is not None for model in run.models}
    kind = "Model" if kinds == {True} else "Run"
    return Page(run.title, [each for each in sections if each.elements], kind)


def _title(run: RunContent, model: ModelContent, what: str) -> str:
    return what if len(run.models) == 1 else f"{what}: {model.name}"


def _summary(run: RunContent) -> list[Element]:
    lines = [_in_words(model) for model in run.models]
    if run.inference is not None and run.inference.scores:
        best = run.inference.scores[0]
        dice = "undefined" if best.mean_dice is None else f"{best.mean_dice:.4f}"
        lines.append(f"Selected to predict: {' + '.join(best.models)}, mean Dice {dice}.")
    elements: list[Element] = [Text(line, "lead") for line in lines]
    if run.problems:
        elements += [Text("Not complete:", "warning"), Sentences(run.problems)]
    if any(model.cases for model in run.models):
        elements.append(
            Text(
                "Each case was predicted by the fold that did not see it. The intervals say how "
                "much the mean depends on the cases; they do not say how much another training "
                "(another seed) would differ."
            )
        )
    received = [model.received for model in run.models if model.received]
    for each in received[:1]:
        texts = {"licence": each.licence, "citation": each.citation}
        if shown := {name: text for name, text in texts.items() if text}:
            elements.append(Facts(shown))
    return elements


def _in_words(model: ModelContent) -> str:
    """Return what a reader should take home of a model."""
    document, score = model.document, model.mean
    if score is not None and score.mean is not None:
        return f"{model.name}: {_score_in_words(model, score)}"
    if model.received is not None:
        made = f"imported, made by {document.origin}" if document.origin else "installed"
        text = f"{model.name}: {made}; {counted(len(model.folds), 'fold')}."
        if model.received.cases:
            dice = [value for value in model.received.dice.values() if value is not None]
            mean = f"{sum(dice) / len(dice):.4f}" if dice else "undefined"
            cases = counted(model.received.cases, "validation case")
            return f"{text} Its makers state a mean Dice of {mean} over {cases}."
        return f"{text} No validation scores came with it."
    states = ", ".join(f"fold {fold.name} {fold.state}" for fold in model.folds) or "no fold began"
    return f"{model.name}: no validation yet ({states})."


def _score_in_words(model: ModelContent, score: LabelScore) -> str:
    interval = score.no_interval
    if score.interval:
        interval = f"95 % interval {score.interval[0]:.4f} to {score.interval[1]:.4f}"
    folds = sorted({case.fold for case in model.cases})
    text = (
        f"mean Dice {score.mean:.4f} ({interval}) over {counted(score.cases, 'validation case')} "
        f"of {counted(len(folds), 'fold')} ({', '.join(folds)})."
    )
    if score.missed:
        text += f" Missed structures: {score.missed} (the prediction has nothing of the label)."
    if score.invented:
        text += f" Invented ones: {score.invented} (the reference has nothing of it)."
    few = about_cases(len(model.cases))
    seen = " The fold 'all' was trained on these cases." if folds == ["all"] else ""
    return f"{text}{f' {few.capitalize()}.' if few else ''}{seen}"


def _plans_section(run: RunContent) -> Section:
    elements: list[Element] = []
    for model in run.models:
        own = _plan(model)
        single = len(run.models) == 1
        elements += own if single else [Details(model.name, own, is_open=model is run.models[0])]
    if skipped := run.models[0].planned.skipped:
        lines = [f"{name}: {why}" for name, why in skipped.items()]
        elements += [Text("Configurations that were not planned:"), Sentences(lines)]
    return Section("Plans", elements)


def _plan(model: ModelContent) -> list[Element]:
    """Return what was decided, and why, as far as that is known."""
    planned, facts = model.planned, _plan_facts(model)
    elements: list[Element] = []
    if planned.reasons:
        named = dict.fromkeys([*facts, *planned.reasons])
        rows = [[what, facts.get(what), planned.reasons.get(what)] for what in named]
        caption = "What was decided: the rule, and the numbers that led to it"
        elements.append(Table(["what", "value", "why"], rows, caption))
    else:
        elements.append(Facts(facts))
        elements.append(Text(f"Reasons with numbers are not known. {planned.missing}"))
    if planned.notes:
        elements.append(Details("Notes of the planner", [Sentences(list(planned.notes))]))
    return elements


def _plan_facts(model: ModelContent) -> dict[str, str]:
    plan, network = model.document.configuration, model.document.configuration.network
    stages = range(len(network.pool_kernels) + 1)
    pools = ", ".join("×".join(map(str, kernel)) for kernel in network.pool_kernels)
    kernels = ", ".join("×".join(map(str, kernel)) for kernel in network.conv_kernels)
    facts = {
        "target spacing": f"{_size(plan.spacing)} mm",
        "order of the axes": ", ".join("zyx"[axis] for axis in plan.transpose_forward),
        "median shape": f"{_size(plan.median_shape)} voxels",
        "patch size": f"{_size(plan.patch_size)} voxels",
        "batch size": str(plan.batch_size),
        "pooling and kernels": f"strides {pools or 'none'}; kernels {kernels}",
        "features": ", ".join(str(network.features(stage)) for stage in stages),
        "normalisation": ", ".join(
            f"{name}: {each.scheme}{' inside the mask' if each.use_mask else ''}"
            for name, each in zip(model.document.channels, plan.normalization, strict=False)
        ),
        "loss over the batch": "Dice of the batch" if plan.batch_dice else "Dice of each patch",
        "augmentation": "rotated in plane only"
        if plan.dummy_2d_augmentation
        else "rotated around every axis",
    }
    return facts | ({"stage before": plan.previous} if plan.previous else {})


def _method(models: Sequence[ModelContent]) -> list[Element]:
    """Return the components; those of the first model stand for all, which differ in nothing but
    their preprocessor.
    """
    first = models[0]
    columns = ["kind", "component", "package", "settings that differ (usual)", "to know"]
    rows = [_part_row(part) for part in first.parts]
    caption = "Components; settings that differ from those that each has on its own"
    elements: list[Element] = [without_empty(columns, rows, caption)]
    for model in models[1:]:
        for part, usual in zip(model.parts, first.parts, strict=False):
            if part.record.identity() != usual.record.identity():
                elements.append(Text(f"{model.name}: {part.kind} is {part.record.described()}."))
    commands = [model.command for model in models if model.command]
    if commands:
        elements.append(Text("What makes it again:"))
        elements.append(Source("\n".join(commands)))
    lines = [f"{p.kind} {p.record.reference}: {_settings(p)}" for p in first.parts]
    return [*elements, Details("All settings", [Sentences(lines)])]


def _part_row(part: Part) -> list[Value]:
    record = part.record
    package = " ".join(filter(None, (record.distribution, record.version))) or record.target
    changed = "; ".join(f"{s.name} = {s.value} ({s.usual})" for s in part.changed)
    return [part.kind, record.reference, package, changed or None, part.remark or None]


def _settings(part: Part) -> str:
    return ", ".join(f"{name} = {value}" for name, value in part.record.settings.items()) or "none"


def _results_section(model: ModelContent, pictures: Sequence[Picture], title: str) -> Section:
    elements: list[Element] = [_label_table(model)]
    if len(folds := list(model.labels[0].folds)) > 1:
        rows = [[each.label, *(each.folds[fold] for fold in folds)] for each in model.labels]
        columns = ["label", *(f"fold {fold}" for fold in folds)]
        elements.append(Table(columns, rows, "Mean Dice of each fold, over its own cases"))
    if len(model.labels) - 1 <= _MOST_SHAPES:
        elements.append(_plot(model))
    elements.append(_case_table(worst_first(model.cases)))
    if pictures:
        elements += [Text("Worst cases, the outline of the reference in white:"), Gallery(pictures)]
    return Section(title, elements)


def _plot(model: ModelContent) -> Plot:
    labels = [each.label for each in model.labels if each.label != MEAN]
    values = {name: [_or_nan(case.dice[name]) for case in model.cases] for name in labels}
    texts = {name: [case.case for case in model.cases] for name in labels}
    return Plot(distributions(values, "Dice", texts), "Dice of every validation case, by label")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _label_table(model: ModelContent) -> Table:
    columns: list[str | Column] = [
        "label",
        Column("mean Dice", help="over the validation cases of all folds"),
        Column("95 % interval", help="bootstrap over cases (BCa)"),
        "median",
        "lowest",
        Column("cases", help="where the Dice is defined"),
        Column("missed", help="cases whose reference alone holds the label"),
        Column("invented", help="cases whose prediction alone holds it"),
    ]
    rows = []
    for each in model.labels:
        interval = Cell(each.no_interval, None)
        if each.interval:
            low, high = each.interval
            interval = Cell(f"{low:.4f} – {high:.4f}", low)
        row: list[Value] = [Cell(each.label, each.label, strong=each.label == MEAN), each.mean]
        rows.append(
            [*row, interval, each.median, each.lowest, each.cases, each.missed, each.invented]
        )
    return Table(columns, rows, "Dice per label")


def _case_table(cases: Sequence[CaseScore]) -> Table:
    labels = list(cases[0].dice)[:_MOST_COLUMNS]
    left = len(cases[0].dice) - len(labels)
    columns: list[str | Column] = ["case", "fold", "mean Dice", *labels]
    rows = [
        [case.case, case.fold, case.mean, *(case.dice[name] for name in labels)] for case in cases
    ]
    more = f"; {left} more labels are in the validation's summary.json" if left > 0 else ""
    return Table(columns, rows, f"Dice of every validation case, the worst first{more}")


def _size(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.4g}" for value in values)
