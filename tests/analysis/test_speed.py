import numpy as np
import pytest
from scipy import stats

import pgjax
from pgjax.analysis.speed import Reached, area_under_curve, log_rank, median_steps, share_reached, steps_to_return
from tests.analysis import simulations
from tests.analysis.test_statistics import results

RNG = np.random.default_rng(0)
STEPS, REACHED = RNG.integers(1, 20, 40).astype(float), RNG.random(40) < 0.7
RUNS = Reached(STEPS, REACHED)


def test_the_area_under_a_curve_is_its_mean_over_steps():
    found = results([[1, 2, 6], [0, np.nan, 3]], 10)
    found["steps"] = found.steps.copy(data=[[10, 20, 70], [10, 20, 70]])
    np.testing.assert_allclose(area_under_curve(found), [(10 + 40 + 420) / 100, np.nan])
    np.testing.assert_allclose(area_under_curve(found, steps=60), [(10 + 40 + 6 * 30) / 60, np.nan])
    np.testing.assert_allclose(area_under_curve(found.drop_vars("steps")), [3, np.nan])


def test_steps_to_a_return_by_hand():
    # Means over the last 2 iterations of 5 episodes each: 1, 4, 7; 1, 1, 2; and one that failed.
    found = results([[0, 2, 6, 8], [0, 2, 0, 4], [9, 9, 9, np.nan]], 5)
    when, reached = steps_to_return(found, threshold=4, episodes=10)
    np.testing.assert_array_equal(when, [30, 40, 40])  # 10 steps an iteration
    np.testing.assert_array_equal(reached, [True, False, False])
    when, reached = steps_to_return(found, threshold=4, episodes=5)
    np.testing.assert_array_equal(when, [30, 40, 40])
    np.testing.assert_array_equal(reached, [True, True, False])
    assert not steps_to_return(found, threshold=0, episodes=21).reached.any()  # nobody had so many
    assert when.dims == ("seed",)


def test_the_window_is_that_of_the_final_return():
    returns, counts = RNG.normal(size=(5, 30)), RNG.integers(0, 6, (5, 30))
    found = results(returns, counts)
    for cut in (5, 17, 30):
        level = pgjax.analysis.final_return(found.isel(iteration=slice(cut)), episodes=20).values
        enough = counts[:, :cut].sum(1) >= 20
        for run in range(5):
            when, reached = steps_to_return(found.isel(iteration=slice(cut)), level[run], episodes=20)
            assert bool(reached[run]) == bool(enough[run])  # at the latest at the end, where it is the final return
            assert when[run] <= 10 * cut


def test_the_share_that_reached_it_is_kaplan_and_meiers():
    found = share_reached(RUNS)
    data = stats.CensoredData(uncensored=STEPS[REACHED], right=STEPS[~REACHED])
    np.testing.assert_allclose(found.share[1:], stats.ecdf(data).cdf.evaluate(found.steps[1:]))
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()
    assert (found.steps[0], found.share[0], found.low[0]) == (0, 0, 0)


def test_without_censored_runs_it_is_a_proportion():
    found = share_reached(Reached(STEPS, np.ones(40, bool)))
    for step, share, low, high in zip(*found, strict=True):
        assert share == pytest.approx(np.mean(step >= STEPS))
        wilson = pgjax.analysis.proportion_interval(int((step >= STEPS).sum()), 40)
        assert (low, high) == pytest.approx(wilson, abs=1e-6)


def test_the_median_is_where_half_have_reached_it():
    assert median_steps(Reached(np.arange(1.0, 12), np.ones(11, bool))).value == 6
    none = Reached([5.0, 5.0, 5.0], [False, False, False])
    assert median_steps(none) == (np.inf, 0, np.inf)
    assert share_reached(none).share.tolist() == [0]
    found = median_steps(RUNS)
    assert found.low <= found.value <= found.high


def test_log_rank_by_hand():
    # Steps 1 2 3 of A, 4 5 6 of B, all seen. Of A are expected 3/6 + 2/5 + 1/4; the variance is 1/4 + 6/25 + 3/16.
    a, b = Reached([1, 2, 3], np.ones(3, bool)), Reached([4, 5, 6], np.ones(3, bool))
    z = (3 - 1.15) / np.sqrt(1 / 4 + 6 / 25 + 3 / 16)
    assert log_rank(a, b) == pytest.approx(2 * stats.norm.sf(z))
    never = Reached([9.0, 9.0], [False, False])
    assert log_rank(never, never) == 1
    assert log_rank(a, never) < 0.2


def test_log_rank_is_as_seldom_small_as_it_says():
    rng = np.random.default_rng(0)
    drawn = [Reached(rng.exponential(size=20), rng.random(20) < 0.7) for _ in range(800)]
    p = np.array([log_rank(a, b) for a, b in zip(drawn[::2], drawn[1::2], strict=True)])
    assert 0.02 < np.mean(p <= 0.05) < 0.05 + 3.5 * np.sqrt(0.05 * 0.95 / 400)


def test_what_is_no_time_is_refused():
    with pytest.raises(pgjax.InputError, match="expected finite steps"):
        share_reached(Reached([1.0, np.nan], [True, False]))
    with pytest.raises(pgjax.InputError, match=r"one or more runs, \[n\], got \(0,\) and \(0,\)"):
        share_reached(Reached([], []))


@pytest.mark.parametrize("population", simulations.POPULATIONS)
def test_bands_cover_as_often_as_they_say(population):
    # Of 95 to 97%, 3 standard errors of 300 trials
    assert simulations.covered_share(population, 30, 300) > 0.91
    assert simulations.covered_median(population, 30, 300) > 0.91
