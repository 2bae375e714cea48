import numpy as np
import pytest

import pgjax
from pgjax.analysis import (
    aggregate_score,
    average_improvement,
    normalized_scores,
    performance_profile,
    probability_of_improvement,
)
from tests.analysis import simulations

SCORES = np.random.default_rng(0).normal(size=(12, 3)) + np.arange(3.0)


def test_scores_are_0_at_one_return_and_1_at_another():
    np.testing.assert_allclose(normalized_scores([[10, 0], [30, -5]], [10, 0], [20, -10]), [[0, 0], [2, 0.5]])
    with pytest.raises(pgjax.InputError, match="two different returns of each task"):
        normalized_scores([[1, 2]], [0, 1], [1, 1])


def test_the_aggregate_is_of_all_runs_together_and_resampled_within_tasks():
    found = aggregate_score(SCORES)
    assert found.value == pgjax.interquartile_mean(SCORES.ravel())
    index = np.random.default_rng(0).integers(0, 12, (1000, 12, 3))
    draws = [pgjax.interquartile_mean(np.take_along_axis(SCORES, i, 0).ravel()) for i in index]
    assert found.low <= np.percentile(draws, 2.5) < np.percentile(draws, 97.5) <= found.high
    assert found.high - found.low < 1.15 * np.subtract(*np.percentile(draws, [97.5, 2.5]))


def test_tasks_are_not_resampled():
    constant = np.tile([0.0, 1.0, 2.0, 9.0], (5, 1))
    assert aggregate_score(constant) == (1.5, 1.5, 1.5)


def test_the_aggregate_of_a_single_run_or_a_failed_one():
    assert aggregate_score([[1.0, 3.0]]) == (2, -np.inf, np.inf)
    assert np.isnan(aggregate_score([[1.0, np.nan], [1.0, 2.0]]).value)


def test_the_profile_is_a_mean_of_proportions():
    levels = [-1.0, 0.5, 1.5, 9.0]
    found = performance_profile(SCORES, levels)
    np.testing.assert_allclose(found.value, [np.mean(level < SCORES) for level in levels])
    alone = performance_profile(SCORES[:, :1], levels)
    for i, level in enumerate(levels):
        expected = pgjax.analysis.proportion_interval(int((SCORES[:, 0] > level).sum()), 12)
        assert (alone.low[i], alone.high[i]) == pytest.approx(expected)
    assert performance_profile([[1.0], [np.nan]], [0.0]).value == [0.5]  # a failed run reaches nothing


def test_improvement_is_averaged_over_tasks():
    other = SCORES[::-1] - [0, 0.5, 3]
    each = [probability_of_improvement(SCORES[:, i], other[:, i]) for i in range(3)]
    found = average_improvement(SCORES, other)
    assert found.value == pytest.approx(np.mean([one.value for one in each]))
    below = np.sqrt(sum((one.value - one.low) ** 2 for one in each)) / 3
    assert found.value - found.low == pytest.approx(below)
    with pytest.raises(pgjax.InputError, match=r"scores of shape \[runs, tasks\], got \[12\]"):
        average_improvement(SCORES[:, 0], other)


@pytest.mark.parametrize("population", simulations.POPULATIONS)
def test_intervals_over_tasks_cover_as_often_as_they_say(population):
    # Of 95 to 98%, 3 standard errors of 200 and of 1000 trials
    assert simulations.covered_score(population, 10, 200) > 0.90
    assert 0.925 < simulations.covered_profile(population, 10, 1000) < 0.995
    assert 0.925 < simulations.covered_improvement(population, 10, 1000, probability=0.8, count=4) < 0.995
