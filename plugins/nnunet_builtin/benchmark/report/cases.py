"""The worst cases: overlays, and volumes with the predictions of every variant."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.judgement import Judged
from nnunet_builtin.judging.rows import TEST
from nnunet_builtin.judging.runs import Run
from nnunet_builtin.pages.elements import (
    Element,
    Gallery,
    Picture,
    Section,
    Text,
    Viewer,
    Volume,
)
from nnunet_core.data.cases import Case
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.images import Image
from nnunet_core.data.labels import Labels
from nnunet_core.data.orientation import turned_like
from nnunet_core.errors import NnunetError, UsageError, listed, nearest
from nnunet_core.registry.hooks import Hooks
from nnunet_core.runtime.reporting import Reporter

#: Cases of each dataset that are shown unless others are chosen, and of all datasets.
WORST, MOST = 2, 8


@dataclass(frozen=True)
class Chosen:
    """A case that is shown.

    Attributes:
        dataset, configuration, case: Which one.
        scores: {variant: score, mean over seeds}, the worst first.
        why: For people.
    """

    dataset: str
    configuration: str
    case: str
    scores: Mapping[str, float]
    why: str


def choose(content: Content, names: Sequence[str], most: int) -> list[Chosen]:
    """Return the cases that are shown.

    Args:
        content: The benchmark.
        names: Of cases; empty takes the worst of each dataset.
        most: How many of each dataset, of the worst.

    Raises:
        UsageError: There is no such case.
    """
    judged = [each for each in content.judgement.main if each.configuration != TEST]
    if names:
        found = [one for each in judged for one in _named(each, names)]
        missing = sorted(set(names) - {one.case for one in found})
        if missing:
            known = {case for each in judged for s in each.scores.values() for case in s.cases}
            raise UsageError(
                f"The benchmark has no case {listed(missing)}.{nearest(missing[0], sorted(known))}"
            )
        return found
    worst = [one for each in judged for one in _worst(each, most)]
    return worst[:MOST]


def _named(each: Judged, names: Sequence[str]) -> Iterator[Chosen]:
    cases = next(iter(each.scores.values())).cases
    for name in names:
        if name in cases:
            yield _chosen(each, cases.index(name), "chosen")


def _worst(each: Judged, most: int) -> list[Chosen]:
    """Return the cases with the lowest mean over variants."""
    means = np.mean([scores.per_case for scores in each.scores.values()], axis=0)
    defined = [place for place in np.argsort(means) if not np.isnan(means[place])]
    return [
        _chosen(each, int(place), f"no. {number} from below")
        for number, place in enumerate(defined[:most], 1)
    ]


def _chosen(each: Judged, place: int, why: str) -> Chosen:
    scores = {name: abs(float(s.per_case[place])) for name, s in each.scores.items()}
    ordered = dict(sorted(scores.items(), key=lambda pair: each.scores[pair[0]].per_case[place]))
    case = next(iter(each.scores.values())).cases[place]
    return Chosen(each.dataset, each.configuration, case, ordered, why)


def case_section(
    content: Content, chosen: Sequence[Chosen], hooks: Hooks, report: Reporter
) -> Section | None:
    """Return overlays and volumes of cases; None where none can be shown."""
    pictures: list[Picture] = []
    volumes: list[Volume] = []
    for one in chosen:
        dataset = content.datasets[one.dataset]
        if one.case not in dataset.names:  # of a test set that only foreign results are of
            continue
        try:
            case = dataset.load(dataset.case(one.case))
            predictions = _predictions(content, one, dataset, case)
        except NnunetError as error:
            report.warning(f"{one.case} is not shown: {error}")
            continue
        if predictions:
            volumes.append(_volume(one, case, predictions, dataset.labels))
            pictures += _overlay(one, case, predictions, dataset.labels, hooks, report)
    elements: list[Element] = [
        Text(
            "Cases of each dataset with the lowest mean over variants and seeds, unless others "
            "were asked for. Predictions are those of the first seed; scores are means over seeds."
        )
    ]
    if pictures:
        elements.append(Gallery(pictures))
    if volumes:
        elements.append(Viewer(volumes))
    return Section("Worst cases", elements) if pictures or volumes else None


def _predictions(
    content: Content, one: Chosen, dataset: Dataset, case: Case
) -> dict[str, np.ndarray]:
    """Return {variant: prediction of its first seed}, integers (Z, Y, X), the worst first."""
    found = {}
    for variant in one.scores:
        for run in sorted(content.runs, key=lambda run: run.place.seed):
            path = _predicted(run, one, variant, dataset.label_ending)
            if path is not None:
                image = turned_like(dataset.label_format.read(path), case.geometry)
                if case.geometry.contrast(image.geometry, "case", "prediction"):
                    continue
                found[variant] = np.asarray(image.array[0])
                break
    return found


def _predicted(run: Run, one: Chosen, variant: str, ending: str) -> Path | None:
    place = (run.place.dataset, run.place.configuration, run.place.variant)
    path = run.folder / "validation" / f"{one.case}{ending}"
    return path if place == (one.dataset, one.configuration, variant) and path.is_file() else None


def _volume(
    one: Chosen, case: Case, predictions: Mapping[str, np.ndarray], labels: Labels
) -> Volume:
    maps = {"reference": case.label, **predictions} if case.label is not None else predictions
    names = {value: labels.names.get(value, str(value)) for value in labels.foreground}
    return Volume(
        name=f"{one.dataset}: {one.case}",
        image=case.images[0],
        maps=dict(maps),
        labels=names,
        spacing=case.geometry.spacing,
        direction=case.geometry.direction,
        caption=_caption(one),
    )


def _caption(one: Chosen) -> str:
    scores = ", ".join(f"{name} {score:.3f}" for name, score in one.scores.items())
    return f"{one.why}: {scores}"


def _overlay(
    one: Chosen,
    case: Case,
    predictions: Mapping[str, np.ndarray],
    labels: Labels,
    hooks: Hooks,
    report: Reporter,
) -> Iterator[Picture]:
    """Yield the picture that a plugin draws of the variant that is worst here."""
    variant, prediction = next(iter(predictions.items()))
    if case.label is None:
        return
    image = Image(case.images[:1], replace(case.geometry))
    title = f"{one.case}: {variant}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "overlay.png"
        for warning in hooks.worst_case_found(
            image, case.label, prediction, labels, labels.foreground, title, path
        ):
            report.warning(warning)
        if path.is_file():
            yield Picture(path.read_bytes(), f"{one.dataset}, {title}. {_caption(one)}")
