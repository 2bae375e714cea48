"""What intervals are made of: resamples, their percentiles, and the score interval of a proportion."""

from typing import Any, NamedTuple

import numpy as np
import scipy

from pgjax.analysis.statistics import interquartile_mean


class Estimate(NamedTuple):
    """A number, or an array of numbers, with its confidence interval."""

    value: Any
    low: Any
    high: Any


def resampled_means(runs: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The interquartile means of resamples, [..., R].

    Args:
        runs: n runs, [n, ...].
        index: Which of them each of R resamples holds, [R, n].
    """
    last = np.moveaxis(runs, 0, -1)
    batch = max(1, 10**7 // max(last.size, 1))  # bounds the memory
    cuts = range(0, len(index), batch)
    return np.concatenate([interquartile_mean(last[..., index[i : i + batch]], axis=-1) for i in cuts], axis=-1)


def percentiles(draws: np.ndarray, level: Any) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles (low, high) of draws [..., R] between which a level [...] of them lies, as much left out either side.

    Example:
        >>> low, high = percentiles(np.arange(101.0), 0.9)
        >>> round(float(low), 6), round(float(high), 6)
        (5.0, 95.0)
    """
    ordered = np.sort(draws, axis=-1)
    last = draws.shape[-1] - 1
    place = np.asarray((1 - level) / 2 * last)[..., None]
    below = np.floor(np.nan_to_num(place)).astype(int)

    def at(index: np.ndarray) -> np.ndarray:
        return np.take_along_axis(ordered, np.broadcast_to(index, (*draws.shape[:-1], 1)), -1)

    low = at(below) + (place - below) * (at(below + 1) - at(below))
    high = at(last - below) - (place - below) * (at(last - below) - at(last - below - 1))
    return low[..., 0], high[..., 0]


def expanded(confidence: float, stretch: Any, freedom: Any) -> Any:
    """The level at which percentiles of resamples reach as far as Student's t does, not only as the normal's.

    Args:
        confidence: Of the interval.
        stretch: How much larger the variance is than that of resamples: n / (n − 1) for n runs.
        freedom: Degrees of freedom, n − 1 for n runs.

    Source: Hesterberg, see `pgjax.confidence_interval`.

    Example:
        >>> round(float(expanded(0.95, 10 / 9, 9)), 4)
        0.9829
    """
    return 1 - 2 * scipy.stats.norm.sf(np.sqrt(stretch) * scipy.stats.t.ppf(0.5 + confidence / 2, freedom))


def score_interval(proportion: Any, number: Any, quantile: Any) -> tuple[Any, Any]:
    """The score interval (low, high) of a proportion that is known as well as from this number of coin flips.

    Of flips it is Wilson's. Of another estimate p of variance V, the effective number is p (1 − p) / V.

    Args:
        proportion: The estimate p.
        number: Of flips, or the effective one.
        quantile: How many standard errors it reaches: 1.96, or Student's for the degrees of freedom of V.

    Sources: Wilson, see `proportion_interval`; Rothman, *Estimation of confidence limits for the cumulative probability
    of survival in life table analysis*, Journal of Chronic Diseases 31, 1978.

    Example:
        >>> low, high = score_interval(1.0, 256, 1.96)
        >>> round(float(low), 4), float(high)
        (0.9852, 1.0)
    """
    weight = np.square(quantile) / number
    centre = (proportion + weight / 2) / (1 + weight)
    half = np.sqrt(weight * proportion * (1 - proportion) + weight**2 / 4) / (1 + weight)
    return centre - half, centre + half
