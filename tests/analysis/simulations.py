"""How often intervals cover what they are of: the tables in the docstrings of `pgjax.analysis`.

`uv run python -m tests.analysis.simulations NAME n…` prints the columns of a table; the tests run some of it with fewer
simulations. Runs are drawn from a population of 200,000, whose own numbers are the truth: skewed (lognormal, σ = 1),
heavy-tailed (Student's t of 3 degrees of freedom), or with two modes (half of it 6σ above the other).
"""

import sys

import numpy as np
from scipy import stats

from pgjax.analysis import comparisons, speed, tasks
from pgjax.analysis.intervals import Estimate
from pgjax.analysis.statistics import interquartile_mean

GRID = (np.arange(200_000) + 0.5) / 200_000
POPULATIONS = {
    "lognormal": np.exp(stats.norm.ppf(GRID)),
    "t of 3": stats.t.ppf(GRID, 3),
    "two modes": np.concatenate([stats.norm.ppf(GRID[::2]), stats.norm.ppf(GRID[::2]) + 6]),
}


def share(estimate, truth):
    """The share of intervals that cover a truth."""
    return float(np.mean((estimate.low <= truth) & (truth <= estimate.high)))


def covered_difference(name, n, simulations, scale=1.0, correlation=None):
    """Of A and of B, whose runs are `scale` as far apart; paired with this rank correlation, or unpaired."""
    rng = np.random.default_rng(n)
    a = POPULATIONS[name]
    shape = (n, simulations)
    if correlation is None:
        i, j = rng.integers(0, len(a), (2, *shape))
    else:
        common, own = rng.normal(size=(2, *shape))
        ranks = stats.norm.cdf([common, correlation * common + np.sqrt(1 - correlation**2) * own])
        i, j = (np.argsort(a, kind="stable")[(r * len(a)).astype(int)] for r in ranks)
    truth = interquartile_mean(a) * (1 - scale)
    runs, others = a[i], scale * a[j]
    batch = max(1, 10**5 // n)
    return float(
        np.mean(
            [
                share(comparisons.difference(runs[:, k], others[:, k], paired=correlation is not None), truth)
                for k in np.array_split(np.arange(simulations), -(-simulations // batch))
            ]
        )
    )


def improvement_of(a, b):
    """P(A > B) of two populations."""
    ordered = np.sort(b)
    return np.mean(np.searchsorted(ordered, a, "left") + np.searchsorted(ordered, a, "right")) / 2 / len(b)


def shift_for(name, probability):
    """By how much A must be above B, of the same form, to be better with a probability."""
    low, high = 0.0, 20.0
    a = POPULATIONS[name]
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if improvement_of(a[::20] + middle, a[::20]) < probability else (low, middle)
    return low


def covered_improvement(name, n, simulations, probability=0.5, count=1):
    """Of A over B, of the same form, and averaged over several tasks of which A is better in the second half."""
    rng = np.random.default_rng(n)
    a = POPULATIONS[name]
    shifts = shift_for(name, probability) * (np.arange(count) >= count // 2)
    truth = np.mean([improvement_of(a + shift, a) for shift in shifts])
    i, j = rng.integers(0, len(a), (2, n, count, simulations))
    each = comparisons.probability_of_improvement(a[i] + shifts[:, None], a[j])
    return share(tasks.mean_over_tasks(each), truth)


def covered_score(name, n, simulations, count=4):
    """The aggregate over tasks with different levels."""
    rng, a = np.random.default_rng(n), POPULATIONS[name]
    levels = np.arange(count) / 2
    truth = interquartile_mean(np.concatenate([a + level for level in levels]))
    scores = a[rng.integers(0, len(a), (simulations, n, count))] + levels
    found = [tasks.aggregate_score(each) for each in scores]
    return float(np.mean([share(each, truth) for each in found]))


def covered_profile(name, n, simulations, quantile=0.5, count=4):
    """The share of runs above a level, over tasks with different levels."""
    rng, a = np.random.default_rng(n), POPULATIONS[name]
    levels = np.arange(count) / 2
    tau = np.quantile(a, quantile)
    truth = np.mean([np.mean(a + level > tau) for level in levels])
    scores = a[rng.integers(0, len(a), (simulations, n, count))] + levels
    return float(np.mean([share(tasks.performance_profile(each, [tau]), truth) for each in scores]))


def survivals(name, n, simulations):
    """Runs that take so many steps, each censored at random, of which a third ends without."""
    rng, a = np.random.default_rng(n), POPULATIONS[name] - POPULATIONS[name].min() + 1
    times = a[rng.integers(0, len(a), (simulations, n))]
    ends = np.quantile(a, rng.uniform(0.4, 1, (simulations, n)))
    return a, [speed.Reached(np.minimum(t, e), t <= e) for t, e in zip(times, ends, strict=True)]


def covered_share(name, n, simulations, quantile=0.5):
    """The share of runs that have reached it by a quantile of the steps."""
    a, drawn = survivals(name, n, simulations)
    found = []
    for runs in drawn:
        curve = speed.share_reached(runs)
        at = np.searchsorted(curve.steps, np.quantile(a, quantile), "right") - 1
        found.append(share(Estimate(curve.share[at], curve.low[at], curve.high[at]), quantile))
    return float(np.mean(found))


def covered_median(name, n, simulations):
    """The median of the steps."""
    a, drawn = survivals(name, n, simulations)
    return float(np.mean([share(speed.median_steps(runs), np.quantile(a, 0.5)) for runs in drawn]))


TABLES = {
    "difference": (covered_difference, {"alike": {}, "half": {"scale": 0.5}, "paired": {"correlation": 0.8}}),
    "improvement": (
        covered_improvement,
        {
            "0.5": {},
            "0.75": {"probability": 0.75},
            "0.95": {"probability": 0.95},
            "tasks": {"probability": 0.8, "count": 4},
        },
    ),
    "score": (covered_score, {"": {}}),
    "profile": (covered_profile, {"0.1": {"quantile": 0.1}, "0.5": {}, "0.9": {"quantile": 0.9}}),
    "share": (covered_share, {"0.1": {"quantile": 0.1}, "0.5": {}}),
    "median": (covered_median, {"": {}}),
}


if __name__ == "__main__":
    name, simulations, *numbers = sys.argv[1:]
    covered, variants = TABLES[name]
    for variant, options in variants.items():
        for population in POPULATIONS:
            row = [covered(population, int(n), int(simulations), **options) for n in numbers]
            print(name, variant, population, *(f"{100 * x:.1f}" for x in row), flush=True)
