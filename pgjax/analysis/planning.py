"""How many seeds it takes to say that one method is better, before the first and after some."""

import math
from typing import NamedTuple

import numpy as np
import scipy

from pgjax.analysis.comparisons import Difference
from pgjax.errors import InputError


def seeds_needed(effect: float, spread: float, power: float = 0.8, confidence: float = 0.95) -> int:
    """The number of seeds of each of two methods with which a difference is found as often as the power says.

    It is found when its confidence interval leaves out 0. The power is that of Student's t with 2 (n − 1) degrees of
    freedom.

    Args:
        effect: The difference.
        spread: Of a run of either method, `Difference.spread`; for averages its standard deviation. For pairs, that of
            paired runs, which is smaller.
        power: How often, 0 to 1.
        confidence: Of the interval.

    Raises:
        InputError: If the effect is 0, the spread negative, or power and confidence not between 0 and 1.

    Source: Cohen, *Statistical Power Analysis for the Behavioral Sciences*, 1988, whose tables it agrees with.

    Example:
        >>> seeds_needed(effect=0.5, spread=1.0)
        64
    """
    if not (math.isfinite(effect) and effect != 0 and math.isfinite(spread) and spread >= 0):
        raise InputError(f"expected an effect other than 0 and a spread of 0 or more, got {effect} and {spread}")
    if not (0 < power < 1 and 0 < confidence < 1):
        raise InputError(f"expected a power and a confidence between 0 and 1, got {power} and {confidence}")
    relative = spread / abs(effect)
    normal = scipy.stats.norm.ppf(0.5 + confidence / 2) + scipy.stats.norm.ppf(power)
    n = max(2, math.ceil(2 * (relative * max(normal, 0)) ** 2))
    while found_by(n, relative, confidence) < power:
        n += 1
    return n


def found_by(n: int, relative: float, confidence: float) -> float:
    """How often n seeds of each of two methods find a difference, of which the spread is so many times."""
    if relative == 0:
        return 1.0
    distance, freedom = np.sqrt(n / 2) / relative, 2 * (n - 1)
    if distance > 30:
        return 1.0
    return float(scipy.stats.nct.sf(scipy.stats.t.ppf(0.5 + confidence / 2, freedom), freedom, distance))


class Advice(NamedTuple):
    """Whether more seeds are worth it."""

    more: int  # of each method; 0 if what there is will do
    reason: str  # in a sentence


def more_seeds(found: Difference, seeds: int, smallest: float, power: float = 0.8, confidence: float = 0.95) -> Advice:
    """How many more seeds of each method are worth it, once some have run.

    None, if the interval leaves out 0, if it holds nothing but differences that are too small to matter, or if the
    smallest that matters would have been found as often as the power says. Otherwise those that this takes.

    Who looks after 10, 20, 40, 80 and 160 seeds, and stops as soon as a 95% interval leaves out 0, finds a difference
    where there is none in about 16 of 100 studies instead of 5. Look once, or report seeds that were not looked at.

    Args:
        found: Of so many seeds.
        seeds: How many.
        smallest: The smallest difference that matters.
        power: See `seeds_needed`.
        confidence: Of the interval that was found.

    Raises:
        InputError: If the smallest difference is not above 0, or the numbers are none that `seeds_needed` takes.

    Example:
        >>> more_seeds(Difference(value=3.0, low=-2.0, high=8.0, spread=8.0, gain=1.0), seeds=20, smallest=4.0).more
        44
    """
    if not smallest > 0:
        raise InputError(f"expected a smallest difference above 0, got {smallest}")
    low, high = float(found.low), float(found.high)
    if low > 0 or high < 0:
        return Advice(0, f"{'A' if low > 0 else 'B'} is better: the interval of the difference leaves out 0")
    if -smallest < low and high < smallest:
        return Advice(0, f"the difference is smaller than {smallest:g}")
    if not math.isfinite(float(found.spread)):
        return Advice(2, "a single run says nothing about the others")
    needed = seeds_needed(smallest, float(found.spread), power, confidence)
    if needed <= seeds:
        return Advice(0, f"{seeds} seeds would have shown a difference of {smallest:g} in {power:.0%} of studies")
    return Advice(needed - seeds, f"a difference of {smallest:g} shows with {needed} seeds in {power:.0%} of studies")
