"""How far people's rankings can be relied on: agreement, self-consistency, and what the place of an output is worth."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from pgjax.analysis.statistics import proportion_interval
from pgjax.rlhf.formats import RankingLine, task_id

FIRST, SECOND, LEVEL, NOTHING = 0, 1, 2, -1  # verdicts on a pair of outputs
DRAWS = 1000  # of a bootstrap
FARTHEST = 50.0  # nats that a position bias is sought within


class Estimate(NamedTuple):
    """A number, its 95% interval, and how many observations it is of; None where they do not say."""

    value: float | None
    low: float | None
    high: float | None
    n: int


UNKNOWN = Estimate(None, None, None, 0)


class Verdicts(NamedTuple):
    """What each annotator said of each pair of outputs, when they saw it first."""

    annotators: tuple[str, ...]
    table: np.ndarray  # [annotators, pairs] int: FIRST, SECOND, LEVEL, or NOTHING where they said none
    task: np.ndarray  # [pairs] int, the task of each pair


def task_of(line: RankingLine) -> str:
    """The task that a line is of: its field, else the digest of its texts."""
    return str(line.more.get("task") or task_id(line.prompt, line.outputs, line.ended))


def verdicts(lines: Sequence[RankingLine]) -> Verdicts:
    """Rankings as verdicts on pairs; skips are none, and neither is what somebody says of a task again."""
    first: dict[tuple[str, str], RankingLine] = {}
    for line in lines:
        if line.ranking:
            first.setdefault((line.annotator, task_of(line)), line)
    said = {(who, task, pair): verdict for (who, task), line in first.items() for pair, verdict in _said(line).items()}
    people = sorted({who for who, _, _ in said})
    pairs = sorted({(task, pair) for _, task, pair in said})
    columns = {pair: column for column, pair in enumerate(pairs)}
    tasks = {task: number for number, task in enumerate(sorted({task for task, _ in pairs}))}
    table = np.full((len(people), len(pairs)), NOTHING)
    for (who, task, pair), verdict in said.items():
        table[people.index(who), columns[task, pair]] = verdict
    return Verdicts(tuple(people), table, np.asarray([tasks[task] for task, _ in pairs], int))


def _said(line: RankingLine) -> dict[tuple[int, int], int]:
    """The verdict on each pair i < j of a ranking's outputs."""
    strict = {(min(pair), max(pair)): FIRST if pair[0] < pair[1] else SECOND for pair in line.pairs()}
    return strict | dict.fromkeys(line.ties(), LEVEL)


def krippendorff_alpha(table: Any) -> float:
    """α of nominal values: 1 where all agree, 0 where they do as by chance; NaN where there is no telling.

    Args:
        table: The value that each observer gives each unit, [observers, units] int, negative where there is none.

    Source: Krippendorff, *Computing Krippendorff's alpha-reliability*, 2011.
    """
    return _alpha(*_coincidences(np.asarray(table)))


def _coincidences(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each unit: the disagreement among its values, [U], and how many it has of each, [U, values].

    Units with less than two values have neither.
    """
    counts = np.stack([(table == value).sum(0) for value in range(table.max(initial=0) + 1)], axis=1).astype(float)
    m = counts.sum(1)
    counts[m < 2] = 0
    apart = (m**2 - (counts**2).sum(1)) / np.maximum(m - 1, 1)
    return np.where(m < 2, 0, apart), counts


def _alpha(apart: np.ndarray, counts: np.ndarray) -> float:
    of_value = counts.sum(0)
    n = of_value.sum()
    expected = n**2 - (of_value**2).sum()
    return float(1 - (n - 1) * apart.sum() / expected) if expected > 0 else math.nan


def cohen_kappa(one: Any, other: Any) -> float:
    """κ of two observers, over units [U] that both gave a value (none is negative); NaN where there is no telling.

    Source: Cohen, *A coefficient of agreement for nominal scales*, 1960.

    Example:
        >>> one, other = [0] * 25 + [1] * 25, [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15
        >>> round(cohen_kappa(one, other), 10)  # 0.7 observed, 0.5 by chance
        0.4
    """
    one, other = np.asarray(one), np.asarray(other)
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    if not len(one):
        return math.nan
    chance = sum(np.mean(one == value) * np.mean(other == value) for value in np.union1d(one, other))
    return float((np.mean(one == other) - chance) / (1 - chance)) if chance < 1 else math.nan


def bootstrapped(statistic: Callable[[np.ndarray], float], groups: np.ndarray, n: int, seed: int = 0) -> Estimate:
    """A statistic of columns, and the interval of it as whole groups of them are drawn anew, with replacement.

    Args:
        statistic: Of the numbers of the columns that are there, each as often as it was drawn.
        groups: The group of each column, [columns] int, from 0 on; pairs of one task are drawn together.
        n: Observations, as the estimate names them.
        seed: Of the draws.

    Source: Efron & Tibshirani, *An introduction to the bootstrap*, 1993: percentiles.
    """
    members = [np.flatnonzero(groups == group) for group in range(groups.max(initial=-1) + 1)]
    value = statistic(np.arange(len(groups))) if members else math.nan
    if not math.isfinite(value):
        return Estimate(None, None, None, n)
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([members[group] for group in rng.integers(0, len(members), len(members))]))
        for _ in range(DRAWS)
    ]
    finite = [draw for draw in draws if math.isfinite(draw)]
    if len(members) < 2 or not finite:
        return Estimate(value, None, None, n)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)


def alpha_of(said: Verdicts) -> Estimate:
    """Krippendorff's α of all annotators, over the pairs that two or more of them judged."""
    shared = (said.table >= 0).sum(0) >= 2
    if not shared.any():
        return UNKNOWN
    apart, counts = _coincidences(said.table[:, shared])
    groups = np.unique(said.task[shared], return_inverse=True)[1]
    return bootstrapped(lambda columns: _alpha(apart[columns], counts[columns]), groups, int(shared.sum()))


def kappas_of(said: Verdicts) -> dict[tuple[str, str], Estimate]:
    """Cohen's κ of every two annotators who judged a pair in common."""
    found = {}
    for (i, one), (j, other) in itertools.combinations(enumerate(said.annotators), 2):
        both = (said.table[i] >= 0) & (said.table[j] >= 0)
        if both.any():
            values = said.table[i, both], said.table[j, both]
            groups = np.unique(said.task[both], return_inverse=True)[1]
            found[one, other] = bootstrapped(
                lambda columns, values=values: cohen_kappa(values[0][columns], values[1][columns]),  # type: ignore[misc]
                groups,
                int(both.sum()),
            )
    return found


def agreement_of(said: Verdicts) -> Estimate:
    """How often two annotators who both prefer one of two outputs prefer the same: the mean over tasks and people."""
    strict = np.where(said.table == LEVEL, NOTHING, said.table)
    apart, counts = _coincidences(strict)
    m = counts.sum(1)
    shared = m >= 2
    if not shared.any():
        return UNKNOWN
    same, weight = (m - apart)[shared], m[shared]
    groups = np.unique(said.task[shared], return_inverse=True)[1]
    return bootstrapped(lambda columns: same[columns].sum() / weight[columns].sum(), groups, int(shared.sum()))


def accuracy_bound(agreement: float) -> float:
    """The largest accuracy on people's preferences that their agreement a allows: (1 + √(2a − 1)) / 2.

    Where each prefers the first of a pair with probability p, two agree with E[p² + (1 − p)²] = a, and nobody guesses
    one of them better than E[max(p, 1 − p)] = ½ + E|2p − 1|/2 ≤ ½ + √E[(2p − 1)²]/2, which is that. It is ½ where they
    agree no more often than by chance.

    Example:
        >>> accuracy_bound(0.68)
        0.8
    """
    return round(0.5 + 0.5 * math.sqrt(max(0.0, 2 * agreement - 1)), 12)


def shares(successes: int, n: int) -> Estimate:
    """A proportion with its Wilson interval."""
    if not n:
        return UNKNOWN
    low, high = proportion_interval(successes, n)
    return Estimate(successes / n, low, high, n)


def first_shown_chosen(lines: Sequence[RankingLine]) -> Estimate:
    """How often the output that was shown earlier was preferred, of all pairs whose order is known; ½ without bias."""
    earlier = [
        line.more["shown"].index(better) < line.more["shown"].index(worse)
        for line in lines
        if "shown" in line.more
        for better, worse in line.pairs()
    ]
    return shares(sum(earlier), len(earlier))


def _seen_twice(lines: Sequence[RankingLine]) -> list[tuple[RankingLine, RankingLine]]:
    """The first two rankings of each task that one annotator made."""
    views = defaultdict(list)
    for line in lines:
        if line.ranking:
            views[line.annotator, task_of(line)].append(line)
    return [(seen[0], seen[1]) for seen in views.values() if len(seen) >= 2]


def self_consistency(lines: Sequence[RankingLine]) -> Estimate:
    """How often annotators said of a pair the same again, ties included, with its Wilson interval."""
    same = [
        _said(first)[pair] == verdict
        for first, second in _seen_twice(lines)
        for pair, verdict in _said(second).items()
        if pair in _said(first)
    ]
    return shares(sum(same), len(same))


def position_bias(lines: Sequence[RankingLine]) -> Estimate:
    """Nats of preference for each place that an output is shown earlier, as `Annotators` has them.

    Of pairs that one annotator saw twice and judged differently. With utilities u and a bias b, the first output wins
    with probability σ(u + b·d), d the places by which it stands earlier; so where it won once and lost once, it won
    where it stood d and not where it stood d′ with probability σ(b (d − d′)), whatever u is. The estimate makes that
    most likely; its interval is that of the likelihood ratio. n counts these pairs. Where all of them were decided by
    the place, there is no largest bias, and `value` and one of the bounds are None.

    Source: Cox, *The analysis of binary data*, 1970: conditional likelihood of matched pairs.
    """
    found = []
    for first, second in _seen_twice(lines):
        if "shown" not in first.more or "shown" not in second.more:
            continue
        again = set(second.pairs())
        for better, worse in first.pairs():
            if (worse, better) in again:
                at, later = (line.more["shown"].index for line in (first, second))
                found.append((at(worse) - at(better)) - (later(worse) - later(better)))
    places = Counter(x for x in found if x)
    x, times = np.asarray(list(places), float), np.asarray(list(places.values()), float)
    if not len(x):
        return UNKNOWN

    def log_likelihood(b: float) -> float:
        return float(-np.sum(times * np.logaddexp(0, -b * x)))

    def slope(b: float) -> float:
        return float(np.sum(times * x / (1 + np.exp(np.clip(b * x, -500, 500)))))

    n, drop = int(times.sum()), scipy.stats.chi2.ppf(0.95, 1) / 2
    mixed = x.min() < 0 < x.max()
    best = float(scipy.optimize.brentq(slope, -FARTHEST, FARTHEST)) if mixed else math.copysign(FARTHEST, x[0])

    def bound(end: float) -> float | None:
        if not mixed and end == best:
            return None
        return float(scipy.optimize.brentq(lambda b: log_likelihood(b) - log_likelihood(best) + drop, end, best))

    return Estimate(best if mixed else None, bound(-FARTHEST), bound(FARTHEST), n)
