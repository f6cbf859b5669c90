"""Rankings: ideal, random and worst-case ones; what few datasets cannot show."""

import numpy as np
import pytest

from nnunet_builtin.statistics import words
from nnunet_builtin.statistics.ranking import (
    practically_better,
    rank_dataset,
    rank_overall,
    suitability,
)
from nnunet_builtin.statistics.scores import Scores

NAMES = ("a", "b", "c", "d")


def scores(values):
    values = np.atleast_2d(np.asarray(values, float))
    return Scores(values, tuple(f"case_{i}" for i in range(values.shape[1])))


def table(datasets, gap, rng=None, noise=0.0):
    rng = rng or np.random.default_rng(0)
    return {
        name: {f"d{i}": 0.9 - gap * rank + rng.normal(0, noise) for i in range(datasets)}
        for rank, name in enumerate(NAMES)
    }


def test_an_ideal_ranking_is_stable():
    cases = np.random.default_rng(0).normal(0.8, 0.05, 40)
    found = rank_dataset({name: scores(cases - 0.05 * i) for i, name in enumerate(NAMES)})
    assert list(found.means) == list(NAMES)
    assert found.ranks == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert found.case_ranks == found.ranks
    assert found.tau == pytest.approx(1)
    assert [found.shares[name][i] for i, name in enumerate(NAMES)] == [1, 1, 1, 1]


def test_a_random_ranking_is_not():
    rng = np.random.default_rng(0)
    found = rank_dataset({name: scores(rng.normal(0.8, 0.05, (3, 40))) for name in NAMES})
    assert max(share for row in found.shares.values() for share in row) < 0.9
    for row in found.shares.values():
        assert sum(row) == pytest.approx(1)


def test_in_the_worst_case_both_orders_contradict_each_other():
    """One case decides the means, all others the ranks within cases."""
    better = np.full(20, 0.82)
    better[0] = 0.0
    found = rank_dataset({"a": scores(np.full(20, 0.8)), "b": scores(better)})
    assert found.ranks == {"a": 1, "b": 2}
    assert found.case_ranks["b"] < found.case_ranks["a"]
    assert found.tau == pytest.approx(-1)


def test_a_variant_beside_itself_shares_its_ranks():
    values = np.random.default_rng(1).normal(0.8, 0.05, (1, 30))
    found = rank_dataset({"a": scores(values), "b": scores(values.copy())})
    assert found.ranks == {"a": 1.5, "b": 1.5}
    assert found.shares == {"a": (0.5, 0.5), "b": (0.5, 0.5)}


def test_missed_structures_rank_last():
    cases = np.full(10, 0.7)
    missing = cases.copy() + 0.2
    missing[:6] = 0
    found = rank_dataset({"complete": scores(cases), "missing": scores(missing)})
    assert found.ranks == {"complete": 1, "missing": 2}


@pytest.mark.parametrize("n", [2, 5])
def test_few_datasets_have_no_test(n):
    found = rank_overall(table(n, 0.05))
    assert found.p == {}
    assert found.cliques == ()
    said = words.about_datasets(found)
    assert said.startswith(f"{n} datasets, no test: the smallest p")
    assert f"{2 / 2**n:.2g}" in said


def test_six_equal_datasets_are_not_enough_for_four_variants_and_nine_are():
    """Holm over the six pairs of four variants: 6 * 2 / 2**6 is more than 0.05."""
    assert min(rank_overall(table(6, 0.05)).p.values()) == pytest.approx(6 * 2 / 2**6)
    found = rank_overall(table(9, 0.05))
    assert max(found.p.values()) < 0.05
    assert found.cliques == ()
    assert "a before d" in words.about_datasets(found)
    assert list(found.mean_ranks) == list(NAMES)
    assert found.tau == pytest.approx(1)
    assert set(found.without) == {f"d{i}" for i in range(9)}
    assert all(first == "a" for _, first in found.without.values())


def test_variants_that_do_not_differ_are_one_clique():
    found = rank_overall(table(12, 0.0, noise=0.01))
    assert found.cliques == (tuple(found.mean_ranks),)
    assert "no two variants are shown to differ" in words.about_datasets(found)
    means = table(12, 0.0, noise=0.01)
    means["worst"] = dict.fromkeys(means["a"], 0.1)
    found = rank_overall(means)
    assert found.cliques == (tuple(found.mean_ranks)[:-1],)


def test_one_dataset_that_decides_is_seen_by_leaving_it_out():
    means = {
        "a": {"d0": 0.9, "d1": 0.8, "d2": 0.7},
        "b": {"d0": 0.1, "d1": 0.81, "d2": 0.7},
    }
    found = rank_overall(means)
    assert found.rank_of_means == {"a": 1, "b": 2}
    assert found.without["d0"][1] == "b"
    assert found.without["d1"][1] == "a"


def test_practical_equality():
    datasets = np.linspace(0.7, 0.9, 8)
    worse, equal, better = practically_better(datasets + 0.001, datasets, rope=0.01)
    assert equal > 0.95
    worse, equal, better = practically_better(datasets + 0.05, datasets, rope=0.01)
    assert better > 0.95
    worse, equal, better = practically_better(datasets - 0.05, datasets, rope=0.01)
    assert worse > 0.95
    assert worse + equal + better == pytest.approx(1)


def test_without_a_rope_there_are_two_probabilities():
    datasets = np.linspace(0.7, 0.9, 8)
    assert practically_better(datasets, datasets, rope=0) == (0.5, 0.0, 0.5)
    worse, equal, better = practically_better(datasets + 0.001, datasets, rope=0)
    assert better > 0.95
    assert (worse + better, equal) == (pytest.approx(1), 0)
    assert practically_better(datasets - 0.001, datasets, rope=0)[0] > 0.95
    said = words.about_practice((0.25, 0.0, 0.75), 0)
    assert said == "probably worse 25.0%, better 75.0%"
    assert "within 1 point)" in words.about_practice((0.2, 0.2, 0.6), 0.01)
    assert "within 0.5 points)" in words.about_practice((0.2, 0.2, 0.6), 0.005)
    assert "within 1 mm)" in words.about_practice((0.2, 0.2, 0.6), 1, words.MILLIMETRES)


def test_a_dataset_that_cannot_separate():
    rng = np.random.default_rng(2)
    cases = rng.normal(0.8, 0.02, 50)

    def trained(shift, spread):
        return scores(cases + shift + rng.normal(0, spread, (4, 1)))

    apart = {"a": trained(0, 0.001), "b": trained(0.05, 0.001)}
    assert suitability(apart)[0] > 5
    assert "can separate" in words.about_suitability(*suitability(apart))
    alike = {name: trained(0, 0.02) for name in NAMES}
    ratio, _ = suitability(alike)
    assert ratio < 1
    assert "cannot separate" in words.about_suitability(ratio)


def test_a_dataset_of_which_nobody_knows():
    cases = np.random.default_rng(2).normal(0.8, 0.02, 50)
    same = scores(np.tile(cases, (3, 1)))
    two = "it takes two seeds of each"
    assert suitability({name: scores(cases) for name in NAMES}) == (None, two)
    varied = scores(cases + np.array([[0.0], [0.01]]))
    assert suitability({"a": varied, "b": scores(cases)}) == (None, two)
    assert suitability({"a": same, "b": varied})[1].endswith("one and the same network: a")
    none = {name: scores(np.zeros((3, 50))) for name in NAMES}
    assert suitability(none) == (None, "the means of the seeds do not differ")
    missing = scores(np.where(np.arange(50) == 3, -np.inf, -5 * varied.values))
    assert "infinite" in suitability({"a": missing, "b": missing})[1]
    assert "not known: why" in words.about_suitability(None, "why")
