"""The worst cases: overlays, and volumes with the predictions of every variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_builtin.benchmark.report.content import Content
from nnunet_builtin.judging.judgement import Judged
from nnunet_builtin.judging.rows import TEST
from nnunet_builtin.judging.runs import Run
from nnunet_builtin.pages.cases import MOST_VOLUMES, ShownCase, read_prediction
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
from nnunet_core.errors import NnunetError, UsageError, listed, nearest
from nnunet_core.registry.hooks import Hooks
from nnunet_core.runtime.reporting import Reporter

#: Cases of each dataset that are shown unless others are chosen.
WORST = 2


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

    @property
    def caption(self) -> str:
        """Why it is shown, and its scores, for people."""
        scores = ", ".join(f"{name} {score:.3f}" for name, score in self.scores.items())
        return f"{self.why}: {scores}"


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
    return worst[:MOST_VOLUMES]


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
            shown = ShownCase(case, predictions, dataset.labels, one.caption)
            volumes.append(shown.volume(f"{one.dataset}: {one.case}"))
            title = f"{one.case}: {next(iter(predictions))}"
            png = shown.picture(title, dataset.labels.foreground, hooks, report)
            if png is not None:
                pictures.append(Picture(png, f"{one.dataset}, {title}. {one.caption}"))
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
            prediction = None if path is None else read_prediction(path, case, dataset)
            if prediction is not None:
                found[variant] = prediction
                break
    return found


def _predicted(run: Run, one: Chosen, variant: str, ending: str) -> Path | None:
    place = (run.place.dataset, run.place.configuration, run.place.variant)
    path = run.folder / "validation" / f"{one.case}{ending}"
    return path if place == (one.dataset, one.configuration, variant) and path.is_file() else None
