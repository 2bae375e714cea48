import itertools

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import pgjax
from pgjax.analysis import compare_methods, difference, holm, permutation_p, probability_of_improvement
from tests.analysis import simulations

RUNS = np.random.default_rng(0).lognormal(size=(2, 60))


def test_the_interval_of_a_difference_is_that_of_its_resamples():
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, 60, (1000, 60)), rng.integers(0, 60, (1000, 60))
    draws = pgjax.interquartile_mean(RUNS[0][i], 1) - pgjax.interquartile_mean(RUNS[1][j], 1)
    found = difference(*RUNS)
    assert found.value == pgjax.interquartile_mean(RUNS[0]) - pgjax.interquartile_mean(RUNS[1])
    low, high = np.percentile(draws, [2.5, 97.5])
    assert found.low < low < high < found.high  # expanded
    assert found.high - found.low < 1.05 * (high - low)  # by little


def test_pairs_are_resampled_together():
    index = np.random.default_rng(0).integers(0, 60, (1000, 60))
    draws = pgjax.interquartile_mean(RUNS[0][index], 1) - pgjax.interquartile_mean(RUNS[1][index], 1)
    level = 2 * stats.norm.sf(np.sqrt(60 / 59) * stats.t.ppf(0.975, 59))
    found = difference(*RUNS, paired=True)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [level / 2, 1 - level / 2])))


def test_the_difference_of_few_runs_by_hand():
    # Two runs each: Yuen's t is Welch's; variances 2 / 2 and 8 / 2, degrees of freedom (1 + 4)² / (1² + 4²) = 25 / 17.
    found = difference([1.0, 3.0], [2.0, 6.0])
    half = stats.t.ppf(0.975, 25 / 17) * np.sqrt(5)
    assert (found.value, found.low, found.high) == pytest.approx((-2, -2 - half, -2 + half))
    assert found.spread == pytest.approx(np.sqrt((2 + 8) / 2))
    assert found.gain == 1


def test_the_gain_of_pairing_by_hand():
    # Differences are 2, 0 and 1, of variance 1; the variances of the two are 1 and 4.
    found = difference([3.0, 2.0, 4.0], [1.0, 2.0, 3.0], paired=True)
    assert found.gain == pytest.approx((1 + 1) / 1)
    assert found.spread == pytest.approx(np.sqrt(1 / 2))
    assert difference([3.0, 2.0], [2.0, 1.0], paired=True).gain == np.inf
    assert difference([1.0, 1.0], [1.0, 1.0], paired=True).gain == 1


def test_the_gain_of_pairing_is_how_many_times_as_many_runs_it_saves():
    common, own = np.random.default_rng(0).normal(size=(2, 2, 400, 300))
    a, b = common[0] + own[0] / 2, common[0] + own[1] / 2
    values, gain = difference(a, b, paired=True, resamples=10).value, difference(a, b, paired=True, resamples=10).gain
    alone = difference(a, common[1] + own[1] / 2, resamples=10).value
    assert np.median(gain) == pytest.approx(np.var(alone) / np.var(values), rel=0.3)  # 3 standard errors of 300 trials


def test_of_a_single_run_no_difference_is_known():
    found = difference([3.0], [1.0, 2.0])
    assert (found.value, found.low, found.high) == (1.5, -np.inf, np.inf)
    assert probability_of_improvement([3.0], [1.0, 2.0]) == (1, 0, 1)
    assert permutation_p([3.0], [1.0, 2.0]) == 1


def test_a_failed_run_makes_the_numbers_nan():
    for compare in (difference, probability_of_improvement):
        assert all(np.isnan(x) for x in compare([1.0, np.nan, 2.0], [1.0, 2.0])[:3])
    assert np.isnan(permutation_p([1.0, np.nan, 2.0], [1.0, 2.0]))


def test_many_numbers_of_a_run_are_compared_at_once():
    found = difference(np.stack([RUNS[0], RUNS[1]], 1), np.stack([RUNS[1], RUNS[1]], 1))
    assert found.low.shape == (2,)
    np.testing.assert_allclose([found.low[0], found.high[0]], difference(*RUNS)[1:3])


@pytest.mark.parametrize("ties", [False, True])
def test_the_probability_of_improvement_is_that_of_all_pairs(ties):
    a, b = (np.round(runs) if ties else runs for runs in RUNS)
    pairs = [(x > y) + (x == y) / 2 for x, y in itertools.product(a, b)]
    found = probability_of_improvement(a, b)
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / 60**2)
    assert 0 < found.low < found.value < found.high < 1
    other = probability_of_improvement(b, a)
    assert (1 - other.high, 1 - other.low) == pytest.approx((found.low, found.high))


def test_where_all_are_better_the_interval_is_that_of_a_proportion():
    found = probability_of_improvement(np.arange(10.0) + 20, np.arange(10.0))
    assert (found.low, found.high) == pytest.approx(pgjax.analysis.proportion_interval(10, 10))


@pytest.mark.parametrize("paired", [False, True])
def test_p_values_are_those_of_all_permutations(paired):
    a, b = np.array([1.0, 5.0, 2.0, 7.0]), np.array([2.5, 8.0, 9.0, 7.5])
    if paired:
        moved = [np.where(swap, [b, a], [a, b]) for swap in itertools.product([False, True], repeat=4)]
    else:
        pool = np.concatenate([a, b])
        chosen = [list(some) for some in itertools.combinations(range(8), 4)]
        moved = [(pool[some], np.delete(pool, some)) for some in chosen]

    def t(a, b):
        # ⌊4/4⌋ runs at either end are clipped, and two are kept
        w, v = (np.clip(x, *np.sort(x)[[1, 2]]) for x in (a, b))
        squares = [4 * np.var(x) / 2 for x in ([w - v] if paired else [w, v])]
        apart = abs(np.sort(a)[1:3].mean() - np.sort(b)[1:3].mean())
        return apart and apart / np.sqrt(sum(squares)) if sum(squares) else apart and np.inf

    exact = np.mean([t(*each) >= t(a, b) * (1 - 1e-9) for each in moved])
    found = permutation_p(a, b, paired=paired, permutations=20_000)
    assert found == pytest.approx(exact, abs=0.015)  # 4 standard errors of 20,000


def test_p_values_are_as_seldom_small_as_they_say():
    rng = np.random.default_rng(0)
    p = [permutation_p(*rng.lognormal(size=(2, 8)), permutations=199) for _ in range(600)]
    assert np.mean(np.array(p) <= 0.1) < 0.1 + 3 * np.sqrt(0.09 / 600)
    assert np.mean(np.array(p) <= 0.1) > 0.06


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.5]), [0.04, 0.06, 0.06, 0.5])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])


def test_several_methods_are_compared_in_pairs():
    rng = np.random.default_rng(0)
    methods = {"a": rng.normal(size=12) + 3, "b": rng.normal(size=12), "c": rng.normal(size=12)}
    methods["c"][3] = np.nan
    rows = compare_methods(methods)
    assert [(row["a"], row["b"], row["runs"]) for row in rows] == [
        ("a", "b", [12, 12]),
        ("a", "c", [12, 11]),
        ("b", "c", [12, 11]),
    ]
    assert rows[0]["p_holm"] < 0.01 < rows[2]["p"]
    np.testing.assert_allclose([row["p_holm"] for row in rows], holm([row["p"] for row in rows]))
    good = np.isfinite(methods["c"])
    pairs = compare_methods({name: methods[name] for name in "bc"}, paired=True)
    assert pairs[0]["runs"] == [11, 11]
    assert pairs[0]["gain"] == difference(methods["b"][good], methods["c"][good], paired=True).gain


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(pgjax.InputError, match="as many runs of each method to pair them, got 2 and 3"):
        difference([1, 2], [1, 2, 3], paired=True)
    with pytest.raises(pgjax.InputError, match="one or more runs of each method, got none of one"):
        difference([], [1])
    with pytest.raises(pgjax.InputError, match=r"got \(2,\) and \(3,\)"):
        difference(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(pgjax.InputError, match="two or more methods, got 1"):
        compare_methods({"a": [1, 2]})
    a, b = (xr.DataArray([1.0, 2.0], {"seed": seeds}, "seed") for seeds in ([0, 1], [1, 2]))
    assert difference(a, b).value == 0
    with pytest.raises(pgjax.InputError, match="runs of the same seeds to pair, got runs of others"):
        difference(a, b, paired=True)


@pytest.mark.parametrize("population", simulations.POPULATIONS)
@pytest.mark.parametrize("options", [{}, {"correlation": 0.8}], ids=["unpaired", "paired"])
def test_intervals_of_differences_cover_as_often_as_they_say(population, options):
    covered = simulations.covered_difference(population, 10, 400, **options)
    assert 0.925 < covered < 0.995  # of 95 to 98%, 3 standard errors of 400 trials


@pytest.mark.parametrize("population", simulations.POPULATIONS)
def test_intervals_of_the_probability_of_improvement_cover_as_often_as_they_say(population):
    assert 0.935 < simulations.covered_improvement(population, 30, 2000) < 0.97  # 3 standard errors of 2000 trials
