"""How fast runs learn: the area under the curve, and the steps until a return is reached, by those that reach it."""

from typing import Any, NamedTuple

import numpy as np
import scipy
import xarray as xr

from pgjax.analysis.intervals import Estimate, score_interval
from pgjax.analysis.statistics import failed
from pgjax.errors import InputError


def area_under_curve(results: xr.Dataset, steps: float = np.inf, variable: str = "episode_return") -> xr.DataArray:
    """Each run's curve averaged over its first environment steps: an array with the dimensions of the runs.

    An iteration counts as often as it has steps; where results have no steps, it counts as one. NaN for a failed run.

    Args:
        results: A sweep's.
        steps: How many of each run; of one that had fewer, all. For methods that are compared, what all runs had.
        variable: Which curve.
    """
    curve = results[variable].transpose(..., "iteration")
    weight = np.ones(curve.shape)
    if "steps" in results:
        weight = results.steps.transpose(..., "iteration").values.astype(float)
    weight = np.clip(steps - (np.cumsum(weight, -1) - weight), 0, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (curve.values * weight).sum(-1) / weight.sum(-1)
    return curve.isel(iteration=-1, drop=True).copy(data=np.where(failed(results), np.nan, mean))


class Reached(NamedTuple):
    """For each run, the environment steps until it reached a return, or until it ended without (censored)."""

    steps: Any  # [...] the dimensions of the runs
    reached: Any  # [...] bool


def steps_to_return(results: xr.Dataset, threshold: float, episodes: int = 100) -> Reached:
    """The steps after which each run's mean return over its last episodes first is a threshold or more.

    Of a run that ends without it is known only that it would need more than its steps. A failed run never reaches it:
    it is censored at the most steps of any run.

    Args:
        results: A sweep's, with `episode_return`, `episodes` and `steps`.
        threshold: The return.
        episodes: The mean is over the last iterations that together have so many; before that there is none.
    """
    names = ("episode_return", "episodes", "steps")
    returns, counts, steps = (results[name].transpose(..., "iteration").values.astype(float) for name in names)
    broken = failed(results).values
    with np.errstate(invalid="ignore"):
        sums, seen = np.cumsum(counts * returns, -1), np.cumsum(counts, -1)
    taken = np.cumsum(np.nan_to_num(steps), -1)
    when, reached = taken[..., -1].copy(), np.zeros(broken.shape, bool)
    when[broken] = taken[..., -1].max()
    for run in zip(*np.nonzero(~broken), strict=True):
        before = np.searchsorted(seen[run], seen[run] - episodes, side="right") - 1  # the last iteration left out
        start = np.append(sums[run], 0.0)[before], np.append(seen[run], 0.0)[before]  # at −1, nothing is
        with np.errstate(invalid="ignore"):
            mean = (sums[run] - start[0]) / (seen[run] - start[1])
        first = np.flatnonzero((seen[run] >= episodes) & (mean >= threshold))
        if len(first):
            when[run], reached[run] = taken[run][first[0]], True
    like = results.steps.isel(iteration=-1, drop=True)
    return Reached(like.copy(data=when), like.copy(data=reached))


class ReachedShare(NamedTuple):
    """The share of runs that have reached something, from each number of steps on at which one does."""

    steps: np.ndarray  # [k] from 0 on
    share: np.ndarray  # [k]
    low: np.ndarray  # [k] a pointwise confidence band
    high: np.ndarray  # [k]


def share_reached(runs: Reached, confidence: float = 0.95) -> ReachedShare:
    """The share of runs that reach a return within so many steps: one less the Kaplan-Meier estimate, with a band.

    The band is Rothman's score interval for the effective number of runs that Greenwood's variance says.

    How often the 95% band covers the share, in percent of 1000 simulations by
    tests/analysis/simulations.py, where a third of the runs is censored; times of any distribution give the same:

        runs n                5    10    30   100  1000
        at a share of 0.1  90.6  93.4  97.7  94.3  95.6
        at a share of 0.5  92.2  98.6  95.8  94.9  95.2

    Args:
        runs: Of one method, [n]; see `steps_to_return`.
        confidence: Of the band, at each number of steps.

    Raises:
        InputError: If there are no runs, or steps that are not finite.

    Sources: Kaplan & Meier, *Nonparametric estimation from incomplete observations*, 1958; Rothman, see
    `score_interval`.

    Example:
        >>> found = share_reached(Reached([10, 20, 20, 30], [True, True, False, True]))
        >>> found.steps.tolist(), found.share.tolist()
        ([0.0, 10.0, 20.0, 30.0], [0.0, 0.25, 0.5, 1.0])
    """
    steps, reached = checked(runs)
    times = np.unique(steps[reached])
    at_risk = (steps[:, None] >= times).sum(0)
    events = ((steps[:, None] == times) & reached[:, None]).sum(0)
    survival = np.cumprod(1 - events / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(events / (at_risk * (at_risk - events)))
        number = (1 - survival) / (survival * greenwood)
    if len(number) and survival[-1] == 0:  # where all have reached it, as many as before
        number[-1] = number[-2] if len(number) > 1 else len(steps)
    share, number = np.append(0.0, 1 - survival), np.append(float(len(steps)), number)
    low, high = score_interval(share, number, scipy.stats.norm.ppf(0.5 + confidence / 2))
    return ReachedShare(steps=np.append(0.0, times), share=share, low=low, high=high)


def median_steps(runs: Reached, confidence: float = 0.95) -> Estimate:
    """The steps within which half of the runs reach a return, and their interval; infinite where it is not seen.

    The interval holds the numbers of steps at which the band of `share_reached` holds one half; it covers the median as
    often as that does.

    Args:
        runs: Of one method, [n]; see `steps_to_return`.
        confidence: Of the interval.

    Raises:
        InputError: See `share_reached`.

    Source: Brookmeyer & Crowley, *A confidence interval for the median survival time*, Biometrics 38, 1982.

    Example:
        >>> float(median_steps(Reached([10, 20, 30, 30], [True, True, True, False])).value)
        20.0
    """
    found = share_reached(runs, confidence)

    def first(share: np.ndarray) -> float:
        half = np.flatnonzero(share >= 0.5)
        return float(found.steps[half[0]]) if len(half) else float("inf")

    return Estimate(first(found.share), first(found.high), first(found.low))


def log_rank(a: Reached, b: Reached) -> float:
    """The p-value of the log-rank test that runs of A [n] and of B [m] reach a return equally fast; two-sided.

    1 if no run of either reaches it.

    Raises:
        InputError: See `share_reached`.

    Source: Mantel, *Evaluation of survival data and two new rank order statistics arising in its consideration*, 1966.

    Example:
        >>> runs = Reached([1, 2, 3], [True, True, True])
        >>> log_rank(runs, runs)
        1.0
    """
    censored = []
    for steps, reached in (checked(a), checked(b)):
        censored.append(scipy.stats.CensoredData(uncensored=steps[reached], right=steps[~reached]))
    if not checked(a)[1].any() and not checked(b)[1].any():
        return 1.0
    return float(scipy.stats.logrank(*censored).pvalue)


def checked(runs: Reached) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and whether runs reached it [n], as arrays; errors are those of `share_reached`."""
    steps, reached = np.asarray(runs.steps, float), np.asarray(runs.reached, bool)
    if steps.ndim != 1 or steps.shape != reached.shape or not len(steps):
        raise InputError(f"expected steps and reached of one or more runs, [n], got {steps.shape} and {reached.shape}")
    if not np.isfinite(steps).all():
        raise InputError("expected finite steps, and runs that did not reach it as such, got steps that are not finite")
    return steps, reached
