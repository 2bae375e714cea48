"""Runs on several tasks at once: normalized scores, their averages, and how many runs reach a score.

Scores are [n, tasks]: n runs of each task, drawn independently. The tasks are these and no others, so only runs are
resampled.

Source: Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, 2021.
"""

from typing import Any

import numpy as np
import scipy

from pgjax.analysis.comparisons import probability_of_improvement
from pgjax.analysis.intervals import Estimate, expanded, percentiles, score_interval
from pgjax.analysis.statistics import interquartile_mean
from pgjax.errors import InputError


def normalized_scores(returns: Any, low: Any, high: Any) -> np.ndarray:
    """Returns of runs [n, tasks] as scores: 0 at a task's return `low` [tasks], 1 at its return `high` [tasks].

    The lower is often that of the random policy, and the higher that at which the task counts as solved.

    Raises:
        InputError: If the two are the same for a task.

    Example:
        >>> normalized_scores([[20.0, -1.0], [260.0, 0.0]], [20.0, -1.0], [500.0, 1.0]).tolist()
        [[0.0, 0.0], [0.5, 0.5]]
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    if np.any(low == high):
        raise InputError("expected two different returns of each task to normalize by, got the same of one")
    return (np.asarray(returns, float) - low) / (high - low)


def scores_of(scores: Any) -> np.ndarray:
    """Scores as an array [n, tasks].

    Raises:
        InputError: If they are none.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or not scores.size:
        raise InputError(f"expected scores of shape [runs, tasks], got {list(scores.shape)}")
    return scores


def aggregate_score(scores: Any, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The interquartile mean of normalized scores of all runs of all tasks, with its stratified bootstrap interval.

    Runs are resampled within each task. Percentiles are expanded as those of `pgjax.confidence_interval` are, with
    n − 1 degrees of freedom for each task.

    How often the 95% interval covers the interquartile mean, in percent of 600 simulations (1000 of
    n = 1000) by tests/analysis/simulations.py, on four tasks with different levels:

        runs n of each task     3     5    10    30   100  1000
        lognormal, σ = 1     91.2  96.3  94.0  94.5  93.5  95.1
        t of 3               92.5  96.2  94.5  95.2  93.7  94.9
        two modes            93.2  95.3  94.0  96.5  94.0  94.6

    Args:
        scores: [n, tasks]. NaN gives NaN.
        confidence: Of the interval.
        resamples: How many.
        seed: The same seed gives the same interval.

    Raises:
        InputError: If the scores have another shape.

    Example:
        >>> float(aggregate_score([[0.0, 0.5], [0.5, 9.0]]).value)
        0.5
    """
    scores = scores_of(scores)
    n, tasks = scores.shape
    value = interquartile_mean(scores.ravel())
    if n < 2:
        return Estimate(value, -np.inf, np.inf)
    rng = np.random.default_rng(seed)
    batch = max(1, 10**7 // scores.size)
    sizes = [min(batch, resamples - begun) for begun in range(0, resamples, batch)]
    draws = np.concatenate(
        [
            interquartile_mean(
                np.take_along_axis(scores[None], rng.integers(0, n, (size, n, tasks)), 1).reshape(size, -1), axis=1
            )
            for size in sizes
        ]
    )
    low, high = percentiles(draws, expanded(confidence, n / (n - 1), tasks * (n - 1)))
    return Estimate(value, low, high)


def mean_over_tasks(each: Estimate) -> Estimate:
    """The mean of estimates [tasks, ...] that are independent of each other, with the interval that theirs make.

    Source: Zou & Donner, *Construction of confidence limits about effect measures: a general approach*, Statistics in
    Medicine 27, 2008.

    Example:
        >>> mean = mean_over_tasks(Estimate(np.array([0.5, 0.7]), np.array([0.2, 0.3]), np.array([0.8, 1.1])))
        >>> round(float(mean.value), 2), round(float(mean.low), 2), round(float(mean.high), 2)
        (0.6, 0.35, 0.85)
    """
    value, tasks = each.value.mean(0), len(each.value)
    below, above = (np.sqrt(np.square(bound - each.value).sum(0)) / tasks for bound in (each.low, each.high))
    return Estimate(value, value - below, value + above)


def average_improvement(a: Any, b: Any, confidence: float = 0.95) -> Estimate:
    """The probability of improvement of A over B, see `probability_of_improvement`, averaged over tasks.

    The intervals of the tasks, in which runs are drawn independently, make that of the mean.

    How often the 95% interval covers the probability, in percent of 4000 simulations (1000 of n = 1000) by
    tests/analysis/simulations.py, on four tasks, of which on two A is B and on two P = 0.8:

        runs n of each task     5    10    30   100  1000
        lognormal, σ = 1     94.2  95.5  95.5  95.4  94.8
        t of 3               94.7  95.3  95.2  95.3  95.4
        two modes            94.3  95.9  95.4  95.1  95.5

    Args:
        a: Runs of A, [n, tasks]; they need not be normalized.
        b: Runs of B, [m, tasks].
        confidence: Of the interval.

    Raises:
        InputError: If the runs have another shape, or not of the same tasks.

    Example:
        >>> float(average_improvement([[1.0, 2.0], [3.0, 4.0]], [[0.0, 2.0], [0.0, 4.0]]).value)  # 1 and ½
        0.75
    """
    return mean_over_tasks(probability_of_improvement(scores_of(a), scores_of(b), confidence))


def performance_profile(scores: Any, levels: Any, confidence: float = 0.95) -> Estimate:
    """The share of runs with a score above each level [levels], averaged over tasks, with a band around it.

    The band is pointwise: it holds at each level, and not at all of them together. It is the score interval of a
    proportion as well known as the share is: from the variance within tasks, but no better than from twice as many runs
    as there are.

    How often the 95% band covers the share, in percent of 2000 simulations by
    tests/analysis/simulations.py, on four tasks with different levels, at three quantiles of the first:

        runs n of each task            5    10    30   100  1000
        τ at 0.1  lognormal, σ = 1  93.3  92.6  97.1  95.0  94.2
                  t of 3            97.5  96.9  95.5  94.8  96.5
                  two modes         96.5  97.0  96.9  96.1  95.9
        τ at 0.5  lognormal, σ = 1  95.9  94.3  95.9  95.9  94.4
                  t of 3            94.4  95.1  95.3  94.2  95.2
                  two modes         95.3  93.8  95.7  94.8  95.0
        τ at 0.9  lognormal, σ = 1  96.8  95.1  94.4  94.8  94.0
                  t of 3            94.2  95.0  95.4  95.2  93.7
                  two modes         97.2  94.4  94.4  94.7  94.2

    Args:
        scores: [n, tasks]. A score that is NaN is above no level.
        levels: τ, [levels].
        confidence: Of the band.

    Raises:
        InputError: If the scores have another shape.

    Example:
        >>> performance_profile([[0.1, 0.9], [0.6, 0.9]], [0.0, 0.5, 1.0]).value.tolist()
        [1.0, 0.75, 0.0]
    """
    scores = scores_of(scores)
    n, tasks = scores.shape
    each = (scores[:, :, None] > np.asarray(levels, float)).mean(0)  # [tasks, levels]
    share, variance = each.mean(0), (each * (1 - each)).mean(0) / (max(n - 1, 1) * tasks)
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.where(variance > 0, np.clip(share * (1 - share) / variance, n * tasks, 2 * n * tasks), n * tasks)
    return Estimate(share, *score_interval(share, number, scipy.stats.norm.ppf(0.5 + confidence / 2)))
