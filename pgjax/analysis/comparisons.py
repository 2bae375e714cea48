"""Is one method better than another, by how much, and how sure is that? Runs of methods, compared on one task."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy
import xarray as xr

from pgjax.analysis.intervals import Estimate, expanded, percentiles, resampled_means, score_interval
from pgjax.analysis.statistics import FEW, interquartile_mean, plain_interval, winsorized
from pgjax.errors import InputError


class Difference(NamedTuple):
    """By how much the interquartile mean of one method is above that of another."""

    value: Any  # IQM(A) − IQM(B)
    low: Any  # its confidence interval; infinite where there is a single run
    high: Any
    spread: Any  # of a run of either: the standard error of the difference is spread · √(2/n), see `seeds_needed`
    gain: Any  # of pairing: how many times as many unpaired runs would be needed; 1 if they are not paired


def difference(
    a: Any, b: Any, *, paired: bool = False, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Difference:
    """The difference of the interquartile means of runs of two methods, IQM(A) − IQM(B), with a bootstrap interval.

    Runs are resampled whole, those of A and of B each on their own, or in pairs. Percentiles are expanded as those of
    `pgjax.confidence_interval` are, with Welch's degrees of freedom. Below 6 runs the interval reaches as far as
    Yuen's of trimmed means does, if that is further.

    Pair only what shares randomness, such as the runs of the same seeds on the same levels. The gain is then the
    variance that independent runs would have had, divided by that of the pairs.

    How often the 95% interval covers the difference, in percent of 1000 simulations (300 of n = 1000 in
    pairs, give or take 3) by tests/analysis/simulations.py: of two methods with the same distribution, of one whose
    runs are half as far apart as the other's, and of pairs with a rank correlation of about 0.8:

        runs n of each                  2     3     5    10    30   100  1000
        alike      lognormal, σ = 1  98.7  97.8  99.6  98.3  96.5  94.6  95.0
                   t of 3            98.5  97.9  99.4  98.0  96.6  94.9  95.1
                   two modes         94.6  96.7  98.5  97.6  96.0  93.8  94.8
        half       lognormal, σ = 1  98.1  97.5  99.4  97.8  96.2  95.2  94.6
                   t of 3            98.6  97.3  99.5  97.4  96.6  94.9  94.7
                   two modes         93.4  93.3  98.5  97.1  96.3  94.7  95.2
        in pairs   lognormal, σ = 1  96.7  98.4  99.5  97.1  96.8  95.8  97.7
                   t of 3            95.9  95.8  99.2  97.2  97.1  95.5  98.0
                   two modes         96.2  97.0  99.6  94.7  94.5  95.0  98.3

    With 10 runs or fewer it is mostly wider than it need be.

    Args:
        a: Runs of A, [n, ...]; with a dimension `seed`, pairs must have the same seeds. NaN gives NaN.
        b: Runs of B, [m, ...].
        paired: Whether the i-th runs of the two belong together.
        confidence: Of the interval.
        resamples: How many.
        seed: The same seed gives the same interval.

    Raises:
        InputError: If there are no runs of one, or runs that are paired are not of the same seeds.

    Sources: Efron, and Hesterberg, see `pgjax.confidence_interval`; Yuen, *The two-sample trimmed t for unequal
    population variances*, Biometrika 61, 1974; of pairs, Wilcox, *Introduction to Robust Estimation and Hypothesis
    Testing*, 2012.

    Example:
        >>> found = difference([3.0, 5.0, 4.0, 6.0, 5.0, 7.0], [1.0, 3.0, 2.0, 4.0, 3.0, 5.0], paired=True)
        >>> float(found.value), bool(found.low > 0), float(found.gain)
        (2.0, True, inf)
    """
    a, b = both(a, b, paired)
    n, m, value = len(a), len(b), interquartile_mean(a) - interquartile_mean(b)
    if min(n, m) < 2:
        unknown = np.full(value.shape, np.inf)[()]
        return Difference(value=value, low=-unknown, high=unknown, spread=np.nan * unknown, gain=np.ones_like(value))
    low, high = difference_interval(a, b, paired, confidence, resamples, seed)
    of_a, of_b, variance = variances(a, b, paired)
    spread = np.sqrt(variance * n / 2) if paired else np.sqrt((of_a * n + of_b * m) / 2)
    gain = ratio(of_a + of_b, variance) if paired else np.ones_like(value)
    return Difference(value=value, low=low, high=high, spread=spread, gain=gain)


def difference_interval(
    a: np.ndarray, b: np.ndarray, paired: bool, confidence: float, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The confidence interval (low, high) of `difference`, of two or more runs of each method."""
    n, m, rng = len(a), len(b), np.random.default_rng(seed)
    index = rng.integers(0, n, (resamples, n))
    other = index if paired else rng.integers(0, m, (resamples, m))
    draws = resampled_means(a, index) - resampled_means(b, other)
    of_a, of_b, variance = variances(a, b, paired)
    freedom = n - 1 if paired else welch(of_a, of_b, n - 1, m - 1)
    stretch = n / (n - 1) if paired else ratio(of_a * n / (n - 1) + of_b * m / (m - 1), variance)
    low, high = percentiles(draws, expanded(confidence, stretch, freedom))
    if min(n, m) < FEW:
        kept = n - 2 * (n // 4) - 1, m - 2 * (m // 4) - 1
        freedom = kept[0] if paired else welch(of_a, of_b, *kept)
        value = interquartile_mean(a) - interquartile_mean(b)
        half = scipy.stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(variance)
        low, high = np.minimum(low, value - half), np.maximum(high, value + half)
    return low, high


def both(a: Any, b: Any, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Runs of two methods as arrays, if they can be compared; arguments and errors are those of `difference`."""
    pairs = paired and all(isinstance(runs, xr.DataArray) and "seed" in runs.coords for runs in (a, b))
    if pairs and not np.array_equal(a.seed, b.seed):
        raise InputError("expected runs of the same seeds to pair, got runs of others")
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not len(a) or not len(b):
        raise InputError("expected one or more runs of each method, got none of one")
    if a.shape[1:] != b.shape[1:]:
        raise InputError(f"expected as many numbers of a run of each method, got {a.shape[1:]} and {b.shape[1:]}")
    if paired and len(a) != len(b):
        raise InputError(f"expected as many runs of each method to pair them, got {len(a)} and {len(b)}")
    return a, b


def ratio(above: Any, below: Any) -> np.ndarray:
    """A ratio of two variances: 1 if both are 0, and infinite if only the lower one is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((above == 0) & (below == 0), 1.0, np.divide(above, below))


def variances(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared standard errors of the interquartile means of runs [n, ...] and [m, ...], and of their difference."""

    def of(clipped: np.ndarray) -> np.ndarray:
        n = len(clipped)
        kept = n - 2 * (n // 4)
        return n * clipped.var(0) / (kept * (kept - 1))

    a, b = winsorized(a), winsorized(b)
    return of(a), of(b), of(a - b) if paired else of(a) + of(b)


def welch(of_a: np.ndarray, of_b: np.ndarray, freedom_a: int, freedom_b: int) -> np.ndarray:
    """Welch's degrees of freedom of a sum of two variances that are estimated from data with these many."""
    return ratio((of_a + of_b) ** 2, of_a**2 / freedom_a + of_b**2 / freedom_b)


def probability_of_improvement(a: Any, b: Any, confidence: float = 0.95) -> Estimate:
    """The probability P(A > B) + ½ P(A = B) that a run of A is better than one of B, with its score interval.

    The estimate is U / (n m), with the U of Mann & Whitney. Its variance V is DeLong's; the interval is that of a
    proportion p (1 − p) / V runs large, but no less than the runs of either and no more than twice as many. Runs of
    the two that share randomness are treated as if they did not; the interval is then wider than it need be.

    How often the 95% interval covers the probability, in percent of 4000 simulations (1000 of
    n = 1000) by tests/analysis/simulations.py, where A is B and a constant:

        runs n of each                5    10    30   100  1000
        P = 0.5   lognormal, σ = 1  95.6  95.9  95.2  95.0  95.1
                  t of 3            95.6  95.9  95.2  95.0  95.1
                  two modes         95.6  95.9  95.2  95.0  95.1
        P = 0.75  lognormal, σ = 1  97.1  94.7  95.2  95.0  94.8
                  t of 3            97.5  95.0  95.5  94.8  94.1
                  two modes         96.5  96.2  95.6  95.3  94.9
        P = 0.95  lognormal, σ = 1  96.8  96.0  97.0  94.9  95.1
                  t of 3            96.6  95.9  96.7  95.0  93.8
                  two modes         96.4  97.0  97.7  97.5  97.8

    Args:
        a: Runs of A, [n, ...]. NaN gives NaN.
        b: Runs of B, [m, ...].
        confidence: Of the interval.

    Raises:
        InputError: If there are no runs of one.

    Sources: Mann & Whitney, *On a test of whether one of two random variables is stochastically larger than the
    other*, 1947; DeLong, DeLong & Clarke-Pearson, *Comparing the areas under two or more correlated receiver operating
    characteristic curves*, Biometrics 44, 1988; of runs, Agarwal et al., see `pgjax.interquartile_mean`.

    Example:
        >>> float(probability_of_improvement([2.0, 3.0], [1.0, 2.0]).value)  # 3 of 4 pairs, and half a tie
        0.875
    """
    a, b = both(a, b, paired=False)
    n, m = len(a), len(b)
    rank = scipy.stats.rankdata(np.concatenate([a, b]), axis=0)
    better = (rank[:n] - scipy.stats.rankdata(a, axis=0)) / m  # for each run of A, the share of runs of B below it
    worse = (rank[n:] - scipy.stats.rankdata(b, axis=0)) / n
    bad = np.isnan(a).any(0) | np.isnan(b).any(0)
    value = np.where(bad, np.nan, better.mean(0))[()]
    if min(n, m) < 2:
        return Estimate(value, np.zeros_like(value), np.ones_like(value))
    least = min(n, m)
    variance = better.var(0, ddof=1) / n + worse.var(0, ddof=1) / m
    number = np.clip(np.nan_to_num(ratio(value * (1 - value), variance)), least, 2 * least)
    number = np.where(variance > 0, number, least)
    low, high = score_interval(value, number, scipy.stats.norm.ppf(0.5 + confidence / 2))
    return Estimate(value, low, high)


def permutation_p(a: Any, b: Any, *, paired: bool = False, permutations: int = 2000, seed: int = 0) -> float:
    """The p-value of the difference of interquartile means of runs of two methods, by permutation; two-sided.

    If A and B have the same distribution, p ≤ α has probability α at most, whatever the distribution and however few
    the runs. The statistic is Yuen's t, so that with many runs the same holds if only the interquartile means are the
    same. Of pairs, A and B are exchanged within each.

    Args:
        a: Runs of A, [n]. NaN gives NaN.
        b: Runs of B, [m].
        paired: Whether the i-th runs of the two belong together.
        permutations: How many; p is at least 1 / (permutations + 1).
        seed: The same seed gives the same p.

    Raises:
        InputError: If there are no runs of one, or pairs are no pairs.

    Sources: Chung & Romano, *Exact and asymptotically robust permutation tests*, Annals of Statistics 41, 2013; Phipson
    & Smyth, *Permutation p-values should never be zero*, 2010; for t, see `difference`.

    Example:
        >>> permutation_p([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
        1.0
    """
    a, b = both(a, b, paired)
    if np.isnan(a).any() or np.isnan(b).any():
        return float("nan")
    if min(len(a), len(b)) < 2:
        return 1.0
    rng, n = np.random.default_rng(seed), len(a)
    if paired:
        swap = rng.random((n, permutations)) < 0.5
        moved = np.where(swap, b[:, None], a[:, None]), np.where(swap, a[:, None], b[:, None])
    else:
        mixed = rng.permuted(np.repeat(np.concatenate([a, b])[:, None], permutations, axis=1), axis=0)
        moved = mixed[:n], mixed[n:]
    seen, by_chance = student(a, b, paired), student(*moved, paired)
    return float((1 + np.sum(by_chance >= seen * (1 - 1e-9))) / (1 + permutations))


def student(a: np.ndarray, b: np.ndarray, paired: bool) -> np.ndarray:
    """Yuen's |t| of runs [n, ...] and [m, ...]; 0 where the interquartile means are the same."""
    apart = np.abs(interquartile_mean(a) - interquartile_mean(b))
    with np.errstate(divide="ignore"):
        return np.where(apart == 0, 0.0, apart / np.sqrt(np.where(apart == 0, 1.0, variances(a, b, paired)[2])))


def holm(p: Any) -> np.ndarray:
    """The p-values [m] of m tests, adjusted so that any false discovery among those ≤ α has probability α at most.

    It needs no assumption about how the tests depend on each other, and never finds less than Bonferroni.

    Source: Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 6, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def compare_methods(methods: Mapping[str, Any], *, paired: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Every pair of several methods compared on one task: a row for each, as plain numbers.

    Methods are compared by permutation, as that holds for few runs of any distribution, and corrected by Holm, as pairs
    with a method in common depend on each other. An interval is that of its pair alone.

    Args:
        methods: {name: its runs [n]}. Runs that are NaN are left out; of pairs, both.
        paired: Whether the i-th runs of all methods belong together.
        seed: The same seed gives the same numbers.

    Returns:
        Rows with a and b, the names; runs, how many of each are compared; difference of the interquartile means and
        interval, its 95% interval (None if unknown); gain of pairing; improvement, P(A > B) + ½ P(A = B), and
        improvement_interval; p and p_holm, corrected.

    Raises:
        InputError: If there are less than two methods, no runs of one, or pairs are no pairs.

    Example:
        >>> [row] = compare_methods({"new": [3.0, 4.0, 5.0], "old": [1.0, 2.0, 3.0]})
        >>> row["a"], row["b"], row["difference"]
        ('new', 'old', 2.0)
    """
    if len(methods) < 2:
        raise InputError(f"expected two or more methods, got {len(methods)}")
    rows: list[dict[str, Any]] = []
    for first, second in itertools.combinations(methods, 2):
        a, b = both(methods[first], methods[second], paired)
        good_a, good_b = ~np.isnan(a), ~np.isnan(b)
        if paired:
            good_a = good_b = good_a & good_b
        a, b = both(a[good_a], b[good_b], paired)
        found, better = difference(a, b, paired=paired, seed=seed), probability_of_improvement(a, b)
        row: dict[str, Any] = {"a": first, "b": second, "runs": [len(a), len(b)]}
        row |= {"difference": float(found.value), "interval": plain_interval((found.low, found.high))}
        row |= {"gain": float(found.gain), "improvement": float(better.value)}
        row |= {"improvement_interval": [float(better.low), float(better.high)]}
        rows.append(row | {"p": permutation_p(a, b, paired=paired, seed=seed)})
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(corrected)
    return rows
