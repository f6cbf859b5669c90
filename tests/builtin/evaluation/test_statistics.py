"""Means, medians and intervals over cases."""

import math

import numpy as np
import pytest

from nnunet_builtin.evaluation.documents import plain
from nnunet_builtin.evaluation.statistics import distribution


def test_the_interval_holds_the_mean_of_the_population_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(60):
        low, high = distribution(rng.gamma(2.0, 1.0, 40).tolist()).interval
        hits += low <= 2.0 <= high
    assert 51 <= hits <= 60  # 57 of 60 are 95 %


def test_the_interval_is_the_same_each_time_and_leans_with_skewed_values():
    values = np.random.default_rng(0).exponential(1.0, 30).tolist()
    found = distribution(values)
    assert distribution(values).interval == found.interval
    assert found.interval[1] - found.mean > found.mean - found.interval[0]


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([], "undefined in every case"),
        ([None, None], "undefined in every case"),
        ([0.7, None], "one case"),
        ([0.7, 0.7, 0.7], "equal in all cases"),
        ([0.0, 0.0], "equal in all cases"),
        ([1.0, 2.0, math.inf], "infinite in some cases"),
    ],
)
def test_where_there_is_no_interval_it_is_said_why(values, note):
    found = distribution(values)
    assert (found.interval, found.note) == (None, note)


def test_infinite_values_make_means_infinite_and_are_the_largest_of_a_median():
    found = distribution([1.0, 3.0, 2.0, math.inf, None])
    assert (found.n, found.n_infinite, found.mean) == (4, 1, math.inf)
    assert (found.median, found.minimum, found.maximum) == (2.5, 1.0, math.inf)
    assert distribution([1.0, math.inf]).median == math.inf


def test_infinity_is_a_text_that_float_reads():
    assert [plain(value) for value in (None, 0.5, math.inf, -math.inf)] == [
        None,
        0.5,
        "Infinity",
        "-Infinity",
    ]
    assert float(plain(math.inf)) == math.inf
