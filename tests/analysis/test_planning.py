import numpy as np
import pytest

import pgjax
from pgjax.analysis import difference, more_seeds, seeds_needed
from pgjax.analysis.comparisons import Difference


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 394), (0.5, 64), (0.8, 26), (-0.5, 64)])
def test_seeds_needed_are_those_of_the_tables(effect, seeds):
    assert seeds_needed(effect, 1.0) == seeds
    assert seeds_needed(7 * effect, 7.0) == seeds


def test_so_many_seeds_find_it_as_often_as_they_should():
    n = seeds_needed(effect=1.0, spread=1.0, power=0.8)
    a, b = np.random.default_rng(0).normal(size=(2, n, 2000))
    sem = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / n)
    found = np.abs((a + 1).mean(0) - b.mean(0)) / sem > 2.03  # t of 2 (17 − 1) degrees of freedom
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_the_spread_of_a_difference_says_how_many():
    # Interquartile means of normal runs: the standard error is 1.09 σ/√n, so it takes 1.19 times as many.
    a, b = np.random.default_rng(0).normal(size=(2, 2000))
    assert difference(a, b).spread == pytest.approx(1.09, abs=0.05)
    assert seeds_needed(1, 0.0) == 2


def test_pairs_that_share_more_need_fewer():
    common, own = np.random.default_rng(0).normal(size=(2, 2, 500))
    a, b = common[0], common[0] + 0.3 * own[0]
    paired, alone = difference(a, b, paired=True), difference(a, b)
    fewer, more = (seeds_needed(0.2, float(found.spread)) for found in (paired, alone))
    assert more / fewer == pytest.approx(float(paired.gain), rel=0.15)


@pytest.mark.parametrize(
    ("low", "high", "more", "reason"),
    [
        (1, 9, 0, "A is better"),
        (-9, -1, 0, "B is better"),
        (-1, 3, 0, "the difference is smaller than 4"),
        (-3, 9, seeds_needed(4, 8.0) - 20, "a difference of 4 shows with 64 seeds in 80% of studies"),
    ],
)
def test_whether_more_seeds_are_worth_it(low, high, more, reason):
    found = Difference(value=(low + high) / 2, low=low, high=high, spread=8.0, gain=1.0)
    advice = more_seeds(found, 20, smallest=4)
    assert advice.more == more
    assert reason in advice.reason


def test_no_more_where_it_would_have_been_seen():
    found = Difference(value=2.0, low=-1.0, high=5.0, spread=8.0, gain=1.0)
    assert more_seeds(found, 64, smallest=4) == (0, "64 seeds would have shown a difference of 4 in 80% of studies")
    assert more_seeds(difference([1.0], [2.0]), 1, smallest=4).more == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1), "an effect other than 0"), ((1, -1), "a spread of 0 or more"), ((1, 1, 1.0), "a power and a confidence")],
)
def test_what_is_no_plan_is_refused(arguments, message):
    with pytest.raises(pgjax.InputError, match=message):
        seeds_needed(*arguments)
    with pytest.raises(pgjax.InputError, match="a smallest difference above 0, got 0"):
        more_seeds(Difference(value=2.0, low=-1.0, high=5.0, spread=8.0, gain=1.0), 9, smallest=0)
