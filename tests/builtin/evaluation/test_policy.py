"""Missed, false and absent labels: which values they have, and that misses never make a score
better.
"""

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_builtin.evaluation import statistics as statistics_module
from nnunet_builtin.evaluation.measuring import Measuring
from nnunet_builtin.evaluation.scores import METRICS, chosen, status_of
from nnunet_builtin.evaluation.statistics import Row, mean_over_labels, summed_up, worst_first
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels
from nnunet_core.stages.evaluate import evaluate_case

THREE = Labels(names={0: "background", 1: "liver", 2: "tumour"}, foreground=(1, 2))
TOLERANCES = {"1": 1.0, "2": 1.0}
GRID = Geometry((2, 3, 4), (2.0, 1.0, 1.0))
SCORES = [metric for metric in METRICS if metric.better != "none"]


def judged(prediction: np.ndarray, reference: np.ndarray, labels: Labels = THREE) -> dict:
    """All metrics of a case, {target: {metric: value}}."""
    further = Measuring(labels, TOLERANCES)(prediction, reference, GRID)
    overlap = evaluate_case(prediction, reference, labels)
    return {target: {**overlap[target], **scores} for target, scores in further.items()}


def label_map(**voxels: int) -> np.ndarray:
    """A map with the first voxels of each row: `liver=2, tumour=1`."""
    array = np.zeros(GRID.shape, np.uint8)
    array[0, 0, : voxels.get("liver", 0)] = 1
    array[1, 2, : voxels.get("tumour", 0)] = 2
    return array


@pytest.mark.parametrize(
    ("predicted", "true", "status", "error", "relative"),
    [(0, 3, "missed", -6.0, -1.0), (3, 0, "false", 6.0, math.inf)],
)
def test_a_label_in_one_map_only_has_the_worst_scores(predicted, true, status, error, relative):
    scores = judged(label_map(liver=predicted), label_map(liver=true))["1"]
    assert status_of(scores) == status
    assert {m.name: scores[m.name] for m in SCORES} == {m.name: m.one_empty for m in SCORES}
    assert [scores[m] for m in ("HD95", "ASSD")] == [math.inf] * 2
    assert (scores["Volume Error"], scores["Relative Volume Error"]) == (error, relative)


def test_a_label_in_neither_map_is_undefined_in_every_metric():
    scores = judged(label_map(liver=1), label_map(liver=1))["2"]
    assert status_of(scores) == "absent"
    assert {scores[metric.name] for metric in METRICS} == {None}


def test_ignored_voxels_belong_to_neither_map():
    labels = Labels(names=THREE.names, foreground=(1, 2), ignore=3)
    prediction, reference = label_map(liver=4), label_map(liver=2)
    reference[0, 0, 2:] = 3
    scores = judged(prediction, reference, labels)["1"]
    assert (scores["HD95"], scores["Volume Error"], scores["Lesion F1"]) == (0, 0, 1)


def test_regions_are_measured_as_the_union_of_their_values():
    labels = Labels(
        names={0: "background", 1: "edema", 2: "core"},
        foreground=(1, 2),
        regions=((1, 2), (2,)),
        region_names=("whole", "core"),
        region_order=(1, 2),
    )
    prediction, reference = label_map(liver=3), label_map(liver=3)
    prediction[0, 0, 1] = 2
    found = Measuring(labels, {"whole": 1.0, "core": 1.0})(prediction, reference, GRID)
    assert (found["whole"]["HD95"], found["core"]["HD95"]) == (0, math.inf)


def statistics(cases: list[dict]) -> dict:
    rows = [
        Row(f"case_{number}", target, status_of(scores), scores)
        for number, case in enumerate(cases)
        for target, scores in case.items()
    ]
    with mock.patch.object(statistics_module, "mean_interval", return_value=(None, "")):  # is slow
        return summed_up(rows, chosen([m.group for m in METRICS]), THREE, TOLERANCES)


VALUES = st.sampled_from([0, 0, 0, 1, 2])
SMALL_MAPS = arrays(np.uint8, GRID.shape, elements=VALUES, fill=st.nothing())
CASES = st.lists(st.tuples(SMALL_MAPS, SMALL_MAPS), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(CASES, st.data(), st.sampled_from([1, 2]))
def test_no_score_of_a_dataset_gets_better_as_misses_rise(cases, data, value):
    """Whatever a case was like before: without its prediction of a label every mean and median, of
    the label and over labels, is as bad or worse, and it ranks as bad or worse.
    """
    before = [judged(*case) for case in cases]
    number = data.draw(st.integers(0, len(cases) - 1))
    prediction, reference = cases[number]
    if not (reference == value).any():
        return
    emptied = np.where(prediction == value, 0, prediction)
    after = [judged(emptied, reference) if i == number else c for i, c in enumerate(before)]
    target, old, new = str(value), statistics(before), statistics(after)
    assert new[target].counts["missed"] >= old[target].counts["missed"]
    for metric in SCORES:
        sign = 1 if metric.better == "higher" else -1
        for kind in ("mean", "median"):
            was, now = (getattr(s[target].metrics[metric.name], kind) for s in (old, new))
            assert sign * now <= sign * was, (metric.name, kind)
        was, now = (mean_over_labels(s, metric.name) for s in (old, new))
        assert sign * now <= sign * was, metric.name
    names = [[row.case for row in found[target].worst] for found in (old, new)]
    assert names[1].index(f"case_{number}") <= names[0].index(f"case_{number}")


@settings(max_examples=20, deadline=None)
@given(CASES)
def test_no_score_gets_better_as_false_labels_rise(cases):
    before = [judged(*case) for case in cases]
    empty = np.zeros(GRID.shape, np.uint8)
    old = statistics([*before, judged(empty, empty)])
    new = statistics([*before, judged(label_map(liver=2), empty)])
    for metric in SCORES:
        sign = 1 if metric.better == "higher" else -1
        was, now = (found["1"].metrics[metric.name].mean for found in (old, new))
        assert was is None or sign * now <= sign * was, metric.name
    assert new["1"].counts["false"] == old["1"].counts["false"] + 1


def test_missed_and_false_cases_rank_after_those_without_any_overlap():
    far = (label_map(liver=1), np.roll(label_map(liver=1), 2, 2))
    missed, false = (label_map(), label_map(liver=1)), (label_map(liver=1), label_map())
    cases = {"far": far, "missed": missed, "false": false}
    rows = [
        Row(name, "1", status_of(scores := judged(*maps)["1"]), scores)
        for name, maps in cases.items()
    ]
    assert judged(*far)["1"]["Dice"] == 0
    assert [row.case for row in worst_first(rows)] == ["false", "missed", "far"]
