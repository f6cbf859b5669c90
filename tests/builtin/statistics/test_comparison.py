"""What comparisons of two variants on one dataset claim: reference values, false positives under no
difference, coverage of intervals, planted differences.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from nnunet_builtin.statistics import words
from nnunet_builtin.statistics.comparison import (
    ENOUGH_SEEDS,
    Comparison,
    _between_methods,
    compare,
    corrected,
    false_claim,
    holm,
)
from nnunet_builtin.statistics.intervals import mean_interval
from nnunet_builtin.statistics.scores import Scores, paired, same_cases

REAL = Path(__file__).with_name("hippocampus_seeds.csv")
# Dice of cases of hippocampi: spread between cases, between trainings, of a case between trainings
CASE, SEED, NOISE, OF_METHOD = 0.03, 0.003, 0.01, 0.008


def scores(values):
    values = np.atleast_2d(np.asarray(values, float))
    return Scores(values, tuple(f"case_{i}" for i in range(values.shape[1])))


def trained(rng, cases, method, seeds=3, shift=0.0):
    """Scores of trainings of one method: cases, what the method makes of each, seeds, noise."""
    seed = rng.normal(0, SEED, (seeds, 1))
    return scores(cases + method + shift + seed + rng.normal(0, NOISE, (seeds, len(cases))))


def two_methods(rng, n=60, shift=0.0, same=False):
    cases = rng.normal(0.88, CASE, n)
    methods = rng.normal(0, OF_METHOD, (2, n))
    first = trained(rng, cases, methods[0], shift=shift)
    return first, trained(rng, cases, methods[0 if same else 1])


def test_reference_values():
    candidate = scores([[0.9, 0.8, 0.7, 0.95]])
    baseline = scores([[0.8, 0.75, 0.72, 0.9]])
    found = compare(candidate, baseline)
    assert found.difference == pytest.approx(0.045)
    # ranks of |0.1, 0.05, -0.02, 0.05| are 4, 2.5, 1, 2.5: the share of their signed sum
    assert found.effect == pytest.approx((4 + 2.5 - 1 + 2.5) / 10)
    differences = [0.1, 0.05, -0.02, 0.05]
    assert found.p_networks == pytest.approx(stats.wilcoxon(np.round(differences, 12)).pvalue)
    # one-sided p-value of the paired t-test: the closed form is the same number
    paired_test = stats.ttest_rel(candidate.values[0], baseline.values[0], alternative="greater")
    assert found.false_claim == pytest.approx(paired_test.pvalue)
    assert found.seeds == (1, 1)
    assert found.interval is None
    assert found.p_method is None


def test_the_closed_form_is_that_of_the_paper():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.86, 0.05, 30), rng.normal(0.85, 0.05, 30)
    deviations = first.std(ddof=1), second.std(ddof=1)
    correlation = np.corrcoef(first, second)[0, 1]
    spread = np.sqrt(
        deviations[0] ** 2 + deviations[1] ** 2 - 2 * np.prod(deviations) * correlation
    )
    statistic = np.sqrt(30) * -abs(first.mean() - second.mean()) / spread
    assert false_claim(first, second) == pytest.approx(stats.t.cdf(statistic, 29))


def test_holm_is_that_of_the_book():
    # Holm 1979: sorted p times 3, 2, 1, each at least the one before
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert holm({}) == {}
    rng = np.random.default_rng(0)
    cases = rng.normal(0.88, CASE, 40)
    base = trained(rng, cases, 0)
    several = {n: compare(trained(rng, cases, 0, shift=0.002 * n), base) for n in range(4)}
    adjusted = corrected(several)
    assert all(adjusted[n].p_method >= several[n].p_method for n in several)
    assert adjusted[3].p_networks >= several[3].p_networks


def test_missed_structures_count_and_right_absences_do_too():
    candidate = scores([[np.nan, np.nan, 0.0, 0.9]])
    baseline = scores([[np.nan, 0.0, 0.8, 0.9]])
    first, second = paired(candidate, baseline)
    assert first.tolist() == [[1.0, 0.0, 0.9]]
    assert second.tolist() == [[0.0, 0.8, 0.9]]
    assert candidate.mean == pytest.approx(0.45)
    with pytest.raises(ValueError, match="different cases"):
        compare(scores([[0.1, 0.2]]), scores([[0.1, 0.2, 0.3]]))
    with pytest.raises(ValueError, match="no case"):
        compare(scores([[np.nan]]), scores([[np.nan]]))
    shorter = same_cases({"a": scores([[0.1, 0.2, 0.3]]), "b": scores([[0.5, 0.6]])})
    assert shorter["a"].values.tolist() == [[0.1, 0.2]]


#: A rate of 5 % of so many runs has a standard error of 0.4 %.
RUNS, MOST = 3000, 0.05 + 2 * 0.004


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_methods_that_do_not_differ_are_rarely_told_apart(same):
    """An A/A experiment; the naive test over cases of one training each fails it."""
    rng = np.random.default_rng(0)
    false, naive = 0, 0
    for run in range(RUNS):
        first, second = two_methods(rng, same=same)
        false += _between_methods(first.values, second.values)[1] < 0.05
        if run < 400:
            naive += stats.wilcoxon(first.values[0] - second.values[0]).pvalue < 0.05
    assert false / RUNS <= MOST
    assert naive / 400 > 0.2


@pytest.mark.slow
def test_intervals_cover_the_truth():
    rng = np.random.default_rng(3)
    truth, held = 0.004, 0
    for _ in range(RUNS):
        first, second = two_methods(rng, shift=truth)
        (low, high), _ = _between_methods(first.values, second.values)
        held += low <= truth <= high
    assert 1 - MOST <= held / RUNS <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5, 300])
def test_intervals_of_means_are_those_of_scipy(count):
    values = 1 - np.random.default_rng(count).gamma(0.5, 0.2, count)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, random_state=np.random.default_rng(0)
    ).confidence_interval
    assert mean_interval(values)[0] == pytest.approx(tuple(expected), rel=1e-9)


def test_bootstrap_intervals_of_means_cover_the_truth():
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(600):
        low, high = mean_interval(1 - rng.gamma(4, 0.03, 100))[0]
        held += low <= 1 - 0.12 <= high
    assert 0.93 <= held / 600 <= 0.97


def test_planted_differences_are_found():
    rng = np.random.default_rng(5)
    found = sum(compare(*two_methods(rng, shift=0.02)).is_shown for _ in range(100))
    assert found >= 90


def test_a_variant_beside_itself_is_not_better():
    rng = np.random.default_rng(6)
    mine = trained(rng, rng.normal(0.88, CASE, 30), 0)
    found = compare(mine, mine)
    assert found.difference == 0
    assert not found.is_shown
    assert found.p_networks is None
    assert found.false_claim == 0.5
    constant = scores(np.full((3, 10), 0.8))
    assert not compare(constant, constant).is_shown


def test_seeds_that_gave_one_network_say_nothing_about_the_method():
    rng = np.random.default_rng(8)
    base, better = two_methods(rng, shift=0.05)
    deaf = scores(better.values[[0, 0, 0]])
    found = compare(deaf, base)
    assert (found.repeats, found.interval, found.p_method) == ((2, 0), None, None)
    assert "the 3 seeds of the variant gave one and the same" in words.about_method(found)
    half = compare(base, scores(better.values[[0, 0, 1]]))
    assert "2 of the 3 seeds of the baseline gave one and the same" in words.about_method(half)
    # networks that find nothing, or of distances everything, agree without being the same
    nothing = scores(np.zeros((3, 60)))
    assert compare(nothing, base).is_shown
    assert compare(Scores(nothing.values, nothing.cases, best=0.0), base).repeats == (0, 0)


def test_few_seeds_say_nothing_about_the_method():
    rng = np.random.default_rng(7)
    cases = rng.normal(0.88, CASE, 60)
    base, better = trained(rng, cases, 0), trained(rng, cases, 0, shift=0.05)
    for seeds in range(1, ENOUGH_SEEDS):
        few = compare(scores(better.values[:seeds]), scores(base.values[:seeds]))
        assert not few.is_shown
        assert "says nothing about the method" in words.about_method(few)
    one = compare(scores(better.values[:1]), scores(base.values[:1]))
    assert "one run each" in words.about_method(one)


def test_sentences():
    found = Comparison(60, (3, 3), 0.004, (-0.008, 0.016), 0.4, 0.009, 0.2, 0.1, 0.3)
    assert words.about_method(found) == (
        "difference +0.40 Dice points, spread between seeds 0.90, 95 % interval -0.80 to +1.60: "
        "not shown to be real"
    )
    shown = Comparison(60, (3, 3), -0.02, (-0.03, -0.01), 0.0001, 0.002, 0.01, -0.9, 0.0)
    assert words.about_method(shown).endswith("shown to be worse on this dataset (p < 0.001)")
    assert "these networks only (3 seeds of 5 folds of each variant)" in words.about_networks(3, 5)
    assert words.about_cases(50) == ""
    assert words.about_cases(49).startswith("49 cases, below 50")


@pytest.fixture(scope="module")
def real():
    """Mean Dice of both labels, (seeds, cases): trainings of one method that differ in their seed
    only, on Task004_Hippocampus (20 cases train, 50 validate; 2d, 200 iterations).
    """
    rows = np.genfromtxt(REAL, delimiter=",", skip_header=1)[:, 2:]
    return rows.reshape(-1, 2, rows.shape[1]).mean(axis=1).T


@pytest.mark.slow
def test_real_trainings_of_one_method_are_rarely_told_apart(real):
    """A/A from real scores: three seeds against three others, cases drawn anew. The naive test over
    the cases of one training each tells most of them apart.
    """
    rng = np.random.default_rng(0)
    false, naive, runs = 0, 0, 400
    for _ in range(runs):
        drawn = real[rng.permutation(len(real))[:6]][:, rng.integers(real.shape[1], size=50)]
        false += compare(scores(drawn[:3]), scores(drawn[3:])).is_shown
        naive += stats.wilcoxon(drawn[0] - drawn[3]).pvalue < 0.05
    assert false / runs <= 0.05
    assert naive / runs > 0.4


@pytest.mark.slow
def test_a_planted_difference_of_real_trainings_is_found(real):
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(100):
        drawn = real[rng.permutation(len(real))[:6]]
        found += compare(scores(drawn[:3] + 0.05), scores(drawn[3:])).is_shown
    assert found >= 80
