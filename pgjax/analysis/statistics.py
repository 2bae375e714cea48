"""What thousands of runs say: averages with confidence intervals, and intervals over the runs themselves.

A *confidence interval* of the interquartile mean says how well it is known; it shrinks with more runs. A *tolerance
interval* says where runs lie; it does not. Both are needed (Patterson et al., *Empirical Design in Reinforcement
Learning*, JMLR 25, 2024).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy
import xarray as xr

from pgjax.checks import whole_number
from pgjax.errors import InputError


def interquartile_mean(runs: Any, axis: int = 0) -> np.ndarray:
    """The mean of the middle half of n runs along an axis: ⌊n/4⌋ are left out at either end; NaN if any of them is.

    Source: Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, 2021.

    Example:
        >>> float(interquartile_mean([0, 10, 12, 500]))
        11.0
    """
    runs = np.asarray(runs, float)
    return np.where(np.isnan(runs).any(axis), np.nan, scipy.stats.trim_mean(runs, 0.25, axis=axis))


MANY = 50  # runs, from which on the percentile bootstrap holds what it says
FEW = 6  # runs, below which their resamples do not go far enough to either side


def confidence_interval(
    runs: Any, axis: int = 0, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The confidence interval (low, high) of the interquartile mean of n runs along an axis.

    From 50 runs on it is the percentile bootstrap: runs are resampled whole, and the same seed gives the same interval.
    Of fewer runs that is too narrow, so percentiles further out are taken: Hesterberg's expanded ones, which are as far
    out as Student's t is beyond the normal distribution. Below 6 runs it reaches as far as Student's t of the trimmed
    mean with its Winsorized standard error does, if that is further. Of a single run nothing is known: (−inf, inf).

    How often the 95% interval covers the interquartile mean of a distribution, in percent of 10,000 simulations each,
    and below that how often the percentile bootstrap alone would:

        runs n                    2     3     5    10    20    49    50   100   256
        normal                 94.8  94.9  98.0  96.8  95.9  95.2  94.4  94.5  94.7
        lognormal, σ = 1       94.0  93.1  98.0  96.7  96.1  95.0  94.0  94.6  94.7
        two modes, 6σ apart    87.4  81.1  94.5  96.4  95.9  95.5  94.2  94.4  94.6
        the bootstrap alone
        normal                 50.5  74.9  89.9  93.4  94.3  94.6  94.4  94.5  94.7
        lognormal, σ = 1       49.8  74.7  89.8  93.0  94.1  94.2  94.0  94.6  94.7
        two modes, 6σ apart    50.7  74.3  92.4  92.5  93.9  94.5  94.2  94.4  94.6

    Two or three runs of a distribution with two modes often show only one of them, and no interval can know the other.

    Sources: Efron, *Bootstrap methods: another look at the jackknife*, 1979; for the interquartile mean of runs,
    Agarwal et al., see `interquartile_mean`; Hesterberg, *What teachers should know about the bootstrap*, The American
    Statistician 69, 2015; Tukey & McLaughlin, *Less vulnerable confidence and significance procedures for location
    based on a single sample*, Sankhyā A 25, 1963.

    Example:
        >>> low, high = confidence_interval([3.0])
        >>> float(low), float(high)
        (-inf, inf)
    """
    runs = np.asarray(runs, float)
    n = runs.shape[axis]
    if n < 2:
        return _unknown(runs, axis)
    level = confidence
    if n < MANY:
        level = 1 - 2 * scipy.stats.norm.sf(np.sqrt(n / (n - 1)) * scipy.stats.t.ppf(0.5 + confidence / 2, n - 1))
    found = scipy.stats.bootstrap(
        (runs,),
        interquartile_mean,
        axis=axis,
        n_resamples=resamples,
        batch=max(1, 10**7 // runs.size),  # bounds the memory
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    if n >= FEW:
        return found.low, found.high
    low, high = _student_interval(runs, axis, confidence)
    return np.minimum(low, found.low), np.maximum(high, found.high)


def winsorized(runs: np.ndarray, axis: int = 0) -> np.ndarray:
    """Runs along an axis of which ⌊n/4⌋ at either end have become the nearest that is kept, each in its place.

    Source: Tukey & McLaughlin, see `confidence_interval`.

    Example:
        >>> winsorized(np.array([0.0, 10.0, 12.0, 500.0])).tolist()
        [10.0, 10.0, 12.0, 12.0]
    """
    n = runs.shape[axis]
    ordered = np.sort(runs, axis)
    return np.clip(runs, ordered.take([n // 4], axis), ordered.take([n - n // 4 - 1], axis))


def standard_error(runs: Any, axis: int = 0) -> np.ndarray:
    """The standard error of the interquartile mean of n ≥ 2 runs along an axis, from their Winsorized variance.

    With h = n − 2⌊n/4⌋ runs that are kept, it is √(Σ (w_i − w̄)² / (h (h − 1))), w the Winsorized runs.

    Source: Tukey & McLaughlin, see `confidence_interval`.

    Example:
        >>> round(float(standard_error([0.0, 1.0, 2.0, 3.0, 4.0])) ** 2, 4)  # √(4 / (3 · 2))
        0.6667
    """
    runs = np.asarray(runs, float)
    n = runs.shape[axis]
    kept = n - 2 * (n // 4)
    return np.sqrt(n * winsorized(runs, axis).var(axis) / (kept * (kept - 1)))


def _student_interval(runs: np.ndarray, axis: int, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of the interquartile mean; as many degrees of freedom as runs are kept, less one."""
    kept = runs.shape[axis] - 2 * (runs.shape[axis] // 4)
    half = scipy.stats.t.ppf(0.5 + confidence / 2, kept - 1) * standard_error(runs, axis)
    middle = interquartile_mean(runs, axis)
    return middle - half, middle + half


def _unknown(runs: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval (−inf, inf) of runs along an axis, of which too few are there to say anything."""
    infinite = np.full(np.delete(runs.shape, axis), np.inf)[()]
    return -infinite, infinite


def mean_interval(runs: Any, confidence: float = 0.95) -> dict[str, float | None]:
    """The mean of runs [n] and its confidence interval by Student's t: mean, low, high; of one run the last are None.

    Example:
        >>> mean_interval([1.0, 3.0])["mean"], mean_interval([1.0])
        (2.0, {'mean': 1.0, 'low': None, 'high': None})
    """
    runs = np.asarray(runs, float)
    mean = float(runs.mean())
    if len(runs) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, len(runs) - 1) * runs.std(ddof=1) / np.sqrt(len(runs)))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def tolerance_interval(
    runs: Any, axis: int = 0, coverage: float = 0.9, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """An interval (low, high) along an axis in which, with this confidence, this fraction of all runs lies.

    It assumes nothing of the distribution: it is the narrowest pair of order statistics, as equally far from both ends
    as can be, that holds enough. Where there are too few runs for it, it is (−inf, inf): from 46 runs on there is one
    for 90% with 95% confidence, from 93 on for 95%.

    Source: Wilks, *Determination of sample sizes for setting tolerance limits*, 1941.

    Example:
        >>> low, high = tolerance_interval(range(46))
        >>> int(low), int(high)
        (0, 45)
    """
    ordered = np.sort(np.asarray(runs, float), axis=axis)
    n = ordered.shape[axis]
    # What lies between the l-th and the u-th smallest is Beta(u − l, n − (u − l) + 1); the least u − l will do.
    apart = np.arange(1, n)
    enough = apart[scipy.stats.binom.cdf(apart - 1, n, coverage) >= confidence]
    if not len(enough):
        return _unknown(ordered, axis)
    low = (n - 1 - enough[0]) // 2
    return ordered.take(low, axis), ordered.take(low + enough[0], axis)


def final_return(results: xr.Dataset, episodes: int = 100, steps: float = np.inf) -> xr.DataArray:
    """Each run's mean return over its last episodes: over the last iterations that together have enough of them.

    Args:
        results: A sweep's, with `episode_return` and `episodes`.
        episodes: How many at least; a run that had fewer is averaged whole.
        steps: A run ends where it would go beyond so many environment steps, which are then needed too. For methods
            that are compared, what all runs had, see `common_steps`.

    Returns:
        An array with the dimensions of the runs; NaN for a run with a return that is not a number.
    """
    counts = results.episodes.transpose(..., "iteration").values
    if np.isfinite(steps):
        counts = np.where(np.cumsum(results.steps.transpose(..., "iteration").values, -1) <= steps, counts, 0)
    returns = results.episode_return.transpose(..., "iteration").values
    later = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1] - counts  # episodes in the iterations after this one
    recent = np.where(later < episodes, counts, 0)
    with np.errstate(invalid="ignore"):
        means = np.where(recent > 0, recent * returns, 0).sum(-1) / recent.sum(-1)
    return results.episodes.isel(iteration=-1, drop=True).copy(data=np.where(failed(results), np.nan, means))


def common_steps(sweeps: Iterable[xr.Dataset]) -> float:
    """The environment steps that every run of some sweeps had, but for those that failed."""
    totals = [results.steps.sum("iteration").where(~failed(results)).min().item() for results in sweeps]
    return float(np.nanmin(totals))


def failed(results: xr.Dataset) -> xr.DataArray:
    """Which runs have, in any of their curves, a number that is not finite: bool, the dimensions of the runs."""
    curves = results[[name for name, array in results.data_vars.items() if "iteration" in array.dims]]
    finite = xr.apply_ufunc(np.isfinite, curves.to_dataarray())
    return ~finite.all(["variable", "iteration"])


def proportion_interval(successes: int, runs: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson interval (low, high) of a proportion, such as that of the runs that solved a task.

    Raises:
        ValueError: If there are no runs, or more successes than runs.

    Source: Wilson, *Probable inference, the law of succession, and statistical inference*, 1927.

    Example:
        >>> low, high = proportion_interval(256, 256)
        >>> round(low, 4), high
        (0.9852, 1.0)
    """
    interval = scipy.stats.binomtest(successes, runs).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def pass_at_k(right: Any, n: int, k: int) -> np.ndarray:
    """The probability that at least one of k answers is right, estimated without bias from n answers, [...].

    It is 1 − C(n − c, k) / C(n, k), where c of the n are right: the mean over all choices of k among them. What
    1 − (1 − c/n)^k says instead is too low.

    Args:
        right: c, answers that are right to each question, [...], from 0 to n.
        n: Answers to each question.
        k: From 1 to n.

    Raises:
        InputError: If k is out of range, or a count is.

    Source: Chen et al., *Evaluating large language models trained on code*, 2021, §2.1.

    Example:
        >>> pass_at_k([0, 1, 3], n=4, k=2).tolist()  # C(4, 2) = 6 pairs: none, 3, or all of them have a right one
        [0.0, 0.5, 1.0]
    """
    c = np.asarray(right)
    whole_number("k", k, 1, whole_number("answers to each question", n, 1))
    if ((c < 0) | (c > n)).any():
        raise InputError(f"expected from 0 to {n} right answers to a question, got {c[(c < 0) | (c > n)][0]}")
    drawn = np.arange(k)  # C(n − c, k) / C(n, k) = Π_i (n − c − i) / (n − i), and a factor is 0 where n − c < k
    return 1 - np.prod(np.maximum(n - c[..., None] - drawn, 0) / (n - drawn), axis=-1)


def summarize(results: xr.Dataset, solved_at: float | None = None, episodes: int = 100) -> list[dict[str, Any]]:
    """What a sweep of REINFORCE found: one row for each point of its grid, as plain numbers.

    Args:
        results: The dataset of a sweep in which every run is completed.
        solved_at: Final return from which a run counts as solved; None if there is no such thing.
        episodes: The final return is the mean over this many.

    Returns:
        Rows with the hyper-parameters and: seeds, how many; failed_seeds, which ones (with numbers that are not finite:
        they are left out of the averages, and never solved); iqm, of the final returns, and interval, its 95%
        confidence interval; tolerance_interval (90% of runs, 95% confidence); solved_fraction and solved_interval, its
        95% interval; environment_steps and seconds, of all runs together. What there is not is None.

    Raises:
        InputError: If runs are missing, or the results have no returns of episodes.
    """
    absent = {"episode_return", "episodes", "steps"} - set(results.data_vars)
    if absent:
        raise InputError(f"expected results with the returns of episodes, got some without {min(absent)}")
    if not bool(results.completed.all()):
        missing = int((~results.completed).sum())
        raise InputError(f"expected a completed sweep, got one with {missing} runs missing")
    axes = [name for name in results.completed.dims if name != "seed"]
    loaded = results.load()
    final, broken = final_return(loaded, episodes), failed(loaded)
    rows = []
    for index in np.ndindex(*(loaded.sizes[name] for name in axes)):
        point = dict(zip(axes, index, strict=True))
        here, runs = loaded.isel(point), final.isel(point).values
        good = runs[np.isfinite(runs)]
        row: dict[str, Any] = {str(name): here[name].item() for name in axes}
        row |= {"seeds": len(runs), "failed_seeds": here.seed.values[broken.isel(point).values].tolist()}
        row |= {"iqm": None, "interval": None, "tolerance_interval": None}
        if len(good):
            row["iqm"] = float(interquartile_mean(good))
            row["interval"] = plain_interval(confidence_interval(good))
            row["tolerance_interval"] = plain_interval(tolerance_interval(good))
        solved = None if solved_at is None else int((good >= solved_at).sum())
        row["solved_fraction"] = None if solved is None else solved / len(runs)
        row["solved_interval"] = None if solved is None else plain_interval(proportion_interval(solved, len(runs)))
        row["environment_steps"] = int(np.nansum(here.steps.values, dtype=float))
        row["seconds"] = float(here.seconds.sum())
        rows.append(row)
    return rows


def shown(number: float) -> str:
    """A number of a grid as tables and figures have it: short, but never that of another.

    Example:
        >>> shown(3e-4), shown(16777217)
        ('0.0003', '16777217')
    """
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def plain_interval(interval: Sequence[Any]) -> list[float] | None:
    """An interval as two plain numbers, or None if it is infinite (JSON has no word for that)."""
    low, high = (float(bound) for bound in interval)
    return [low, high] if np.isfinite(low) and np.isfinite(high) else None
