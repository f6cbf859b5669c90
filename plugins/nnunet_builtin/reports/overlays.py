"""Pictures of cases, drawn by the plugins that draw; those that lie there already are used."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_builtin.pages.cases import MOST_VOLUMES, ShownCase, read_prediction
from nnunet_builtin.pages.elements import Picture, Volume
from nnunet_builtin.reports.content import CaseScore, ModelContent
from nnunet_core.data.dataset import Dataset
from nnunet_core.errors import NnunetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.evaluate import targets
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.summaries import SUMMARY

_STORED = "overlay_worst.png"
#: Cases on a contact sheet.
_SHEET = 30


def worst_first(cases: Iterable[CaseScore]) -> list[CaseScore]:
    """Return cases by their mean Dice, the lowest first; those without one come last."""

    def key(case: CaseScore) -> tuple[float, str]:
        return (2.0 if case.mean is None else case.mean), case.case

    return sorted(cases, key=key)


def stored_pictures(model: ModelContent) -> list[Picture]:
    """Return the pictures of the worst case of each fold that its validation left, the worst
    first.
    """
    found = []
    for fold in model.folds:
        ranked = [case for case in worst_first(fold.cases) if case.mean is not None]
        path = model.folder / f"fold_{fold.name}" / VALIDATION / _STORED
        summary = path.with_name(SUMMARY)
        # one that is older shows a validation that was replaced
        if ranked and path.is_file() and path.stat().st_mtime >= summary.stat().st_mtime:
            found.append((ranked[0].mean or 0.0, _caption(ranked[0]), path.read_bytes()))
    return [Picture(png, caption) for _, caption, png in sorted(found)]


def drawn_cases(
    model: str, cases: Sequence[CaseScore], dataset: Dataset, registry: Registry, report: Reporter
) -> tuple[list[Picture], list[Volume]]:
    """Return what plugins draw of cases over their images, and volumes of the first of them; one
    that cannot be read is a warning.
    """
    pictures: list[Picture] = []
    volumes: list[Volume] = []
    for case in cases:
        try:
            shown = _shown(case, dataset)
        except (NnunetError, KeyError) as error:
            report.warning(f"{case.case} is not drawn: {error}")
            continue
        values = _worst_values(case, dataset)
        if png := shown.picture(shown.caption, values, registry.hooks, report):
            pictures.append(Picture(png, shown.caption))
        if len(volumes) < MOST_VOLUMES:
            volumes.append(shown.volume(f"{model}: {case.case}"))
    return pictures, volumes


def _shown(case: CaseScore, dataset: Dataset) -> ShownCase:
    loaded = dataset.load(dataset.case(case.case))
    prediction = read_prediction(case.prediction, loaded, dataset)
    if loaded.label is None or prediction is None:
        raise KeyError("it has no label" if prediction is not None else "its grid is another one")
    return ShownCase(loaded, {"prediction": prediction}, dataset.labels, _caption(case))


def _worst_values(case: CaseScore, dataset: Dataset) -> tuple[int, ...]:
    """Return the values of the label that is worst in a case."""
    found = targets(dataset.labels)
    dice = dict(zip([t for t in found if t != "0"], case.dice.values(), strict=False))
    defined = {target: value for target, value in dice.items() if value is not None}
    return found[min(defined, key=lambda t: defined[t])] if defined else ()


def _caption(case: CaseScore) -> str:
    mean = "undefined" if case.mean is None else f"{case.mean:.4f}"
    return f"{case.case} (fold {case.fold}): mean Dice {mean}"


def contact_sheet(
    dataset: Dataset, names: Sequence[str], registry: Registry, report: Reporter
) -> list[Picture]:
    """Let plugins draw cases of a dataset that can be read, at most thirty of them, evenly
    chosen.
    """
    count = min(len(names), _SHEET)
    chosen = [names[place * len(names) // count] for place in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.png"
        cases = (dataset.load(dataset.case(name)) for name in chosen)
        for warning in registry.hooks.cases_shown(cases, dataset.labels, path):
            report.warning(warning)
        if not path.is_file():
            return []
        text = f"{count} of {len(names)} training cases, each through the slice that shows most"
        return [Picture(path.read_bytes(), f"{text} of its labels")]
