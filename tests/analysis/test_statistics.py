import itertools
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import pgjax


def results(returns, episodes, **extra):
    returns = np.asarray(returns, float)
    shape = returns.shape
    data = {
        "episode_return": (("seed", "iteration"), returns),
        "episodes": (("seed", "iteration"), np.broadcast_to(np.asarray(episodes, float), shape)),
        "steps": (("seed", "iteration"), np.full(shape, 10.0)),
        "seconds": (("seed",), np.full(shape[0], 0.5)),
        "completed": (("seed",), np.full(shape[0], extra.get("completed", True))),
    }
    return xr.Dataset(data, {"seed": np.arange(shape[0]) + 40})


def test_interquartile_mean_by_hand():
    assert pgjax.interquartile_mean([1, 2, 3, 100]) == 2.5
    assert np.isnan(pgjax.interquartile_mean([1, 2, 3, np.nan]))  # and not the mean of 2 and 3
    np.testing.assert_array_equal(pgjax.interquartile_mean(np.arange(8).reshape(2, 4), axis=1), [1.5, 5.5])


def test_confidence_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    low, high = pgjax.confidence_interval(rng.normal(size=(60, 400)), resamples=400)
    covered = np.mean((low <= 0) & (high >= 0))
    assert 0.90 < covered < 0.98  # 0.95 nominal; the bootstrap's own error and 3 standard errors of 400 trials


def test_confidence_interval_repeats():
    runs = np.random.default_rng(0).normal(size=30)
    assert pgjax.confidence_interval(runs) == pgjax.confidence_interval(runs)
    assert pgjax.confidence_interval(runs, seed=1) != pgjax.confidence_interval(runs)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_confidence_interval_of_few_runs_covers_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    low, high = pgjax.confidence_interval(rng.normal(size=(2000, n)), axis=1)
    assert low.shape == high.shape == (2000,)
    covered = np.mean((low <= 0) & (high >= 0))
    assert 0.935 < covered < 0.99  # 0.95 nominal, less 3 standard errors of 2000 trials; and not whatever there is


def test_confidence_interval_of_runs_of_two_kinds_covers_as_often_as_it_says():
    # Student's t alone would cover 89% here: of two heaps, the middle half of the runs looks too much alike.
    rng = np.random.default_rng(0)
    runs = rng.normal(size=(10, 2000)) + 6 * (rng.random((10, 2000)) < 0.5)
    low, high = pgjax.confidence_interval(runs)
    assert np.mean((low <= 3) & (high >= 3)) > 0.935


def test_confidence_interval_of_two_runs_by_hand():
    low, high = pgjax.confidence_interval([1.0, 3.0])
    assert (low, high) == pytest.approx((2 - 12.7062, 2 + 12.7062), rel=1e-5)  # t of one degree of freedom


def test_confidence_interval_of_five_runs_by_hand():
    # Winsorized, these are 1 1 2 3 3: three are kept, t of two degrees of freedom is 4.3027, the error √(4 / (3 · 2)).
    low, high = pgjax.confidence_interval([0.0, 1.0, 2.0, 3.0, 4.0])
    assert (low, high) == pytest.approx((2 - 4.3027 * np.sqrt(4 / 6), 2 + 4.3027 * np.sqrt(4 / 6)), rel=1e-4)


def test_confidence_interval_from_50_runs_on_is_the_percentile_bootstrap():
    runs = np.random.default_rng(0).normal(size=50)
    rng, n = np.random.default_rng(0), 50
    means = pgjax.interquartile_mean(runs[rng.integers(0, n, (1000, n))], axis=1)
    assert pgjax.confidence_interval(runs) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_of_a_single_run_nothing_is_known():
    assert pgjax.confidence_interval([3.0]) == (-np.inf, np.inf)
    low, high = pgjax.confidence_interval(np.ones((4, 1)), axis=1)
    np.testing.assert_array_equal([low, high], [[-np.inf] * 4, [np.inf] * 4])
    assert pgjax.analysis.mean_interval([3.0]) == {"mean": 3.0, "low": None, "high": None}
    [row] = pgjax.summarize(results([[1, 2]], 100))
    assert (row["iqm"], row["interval"]) == (2, None)


@pytest.mark.parametrize(("coverage", "least"), [(0.9, 46), (0.95, 93)])
def test_tolerance_interval_is_least_to_most_from_the_known_number_of_runs(coverage, least):
    runs = np.random.default_rng(0).permutation(np.arange(least, dtype=float))
    assert pgjax.tolerance_interval(runs, coverage=coverage) == (0, least - 1)
    assert pgjax.tolerance_interval(runs[1:], coverage=coverage) == (-np.inf, np.inf)


def test_tolerance_interval_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    low, high = pgjax.tolerance_interval(rng.uniform(size=(200, 2000)))
    held = np.mean(high - low >= 0.9)
    assert 0.935 < held < 1  # at least 0.95, less 3 standard errors of 2000 trials
    assert np.mean(high - low) < 0.95


@given(st.lists(st.floats(-1e6, 1e6), min_size=46, max_size=80), st.floats(-100, 100), st.floats(0.1, 10))
def test_intervals_move_with_the_numbers(runs, shift, scale):
    runs = np.asarray(runs)
    for statistic in (pgjax.interquartile_mean, pgjax.tolerance_interval):
        np.testing.assert_allclose(
            statistic(runs * scale + shift), np.asarray(statistic(runs)) * scale + shift, atol=1e-3
        )


def test_final_return_counts_episodes_backwards():
    found = pgjax.analysis.final_return(
        results([[1, 2, 3, 4], [5, 6, 7, 8]], [[40, 60, 50, 50], [100, 10, 60, 39]]), episodes=100
    )
    np.testing.assert_allclose(found, [(3 * 50 + 4 * 50) / 100, (6 * 10 + 7 * 60 + 8 * 39) / 109])


def test_final_return_of_a_short_run_is_its_mean():
    np.testing.assert_allclose(pgjax.analysis.final_return(results([[1, 3]], [[1, 3]])), [10 / 4])


def test_runs_are_compared_after_equally_many_steps():
    found = results([[1, 2, 3], [4, 5, 6], [7, 8, np.nan]], 60)  # of 10 steps an iteration
    found["steps"] = found.steps.copy(data=[[10, 10, 10], [5, 5, 5], [1, 1, 1]])
    steps = pgjax.analysis.common_steps([found, found.isel(seed=[0])])
    assert steps == 15  # the failed run counts for nothing
    np.testing.assert_allclose(pgjax.analysis.final_return(found, steps=steps), [1, (5 + 6) / 2, np.nan])


def test_failed_runs_are_named_and_left_out():
    found = results([[500, 500], [500, np.nan], [0, 10]], 100)
    np.testing.assert_array_equal(pgjax.analysis.failed(found), [False, True, False])
    [row] = pgjax.summarize(found, solved_at=475)
    assert row["failed_seeds"] == [41]
    assert row["iqm"] == 255
    assert row["solved_fraction"] == pytest.approx(1 / 3)
    assert row["tolerance_interval"] is None
    assert row["environment_steps"] == 60
    assert row["seconds"] == 1.5


def test_an_unfinished_sweep_is_not_summarized():
    with pytest.raises(pgjax.InputError, match="3 runs missing"):
        pgjax.summarize(results(np.ones((3, 2)), 1, completed=False))


def test_proportion_interval_by_the_formula():
    k, n, z = 80, 100, 1.959964
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    np.testing.assert_allclose(pgjax.analysis.proportion_interval(k, n), (centre - half, centre + half), rtol=1e-6)


def test_pass_at_k_is_the_mean_over_all_choices_of_k_answers():
    n = 6
    for c in range(n + 1):
        answers = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            expected = np.mean([any(chosen) for chosen in itertools.combinations(answers, k)])
            assert pgjax.analysis.pass_at_k(c, n, k) == pytest.approx(expected, abs=1e-12)
    found = pgjax.analysis.pass_at_k([[0, 1], [150, 200]], 200, 100)  # where factorials are too large for a float
    np.testing.assert_allclose(found, [[0, 0.5], [1, 1]])


def test_pass_at_k_is_unbiased():
    # Of a question answered right with probability p, over all outcomes of n answers: 1 − (1 − p)^k.
    n, p = 5, 0.3
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    for k in range(1, n + 1):
        assert pgjax.analysis.pass_at_k(np.arange(n + 1), n, k) @ chances == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 4, 5), "expected k to be an integer from 1 to 4, got 5"),
        ((1, 4, 0), "expected k to be an integer from 1 to 4, got 0"),
        (([0, 5], 4, 1), "expected from 0 to 4 right answers to a question, got 5"),
    ],
)
def test_pass_at_k_of_answers_that_there_are_not_is_refused(arguments, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.analysis.pass_at_k(*arguments)
