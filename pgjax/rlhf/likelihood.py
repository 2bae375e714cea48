"""Bradley–Terry and Plackett–Luce: how likely a ranking is, and how often scores agree with it."""

import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from pgjax.errors import InputError

MOST_TIED = 5  # outputs of a ranking with ties: all K! orders of them are gone through


def pairs_of(K: int) -> tuple[np.ndarray, np.ndarray]:
    """All i < j below K, as two arrays."""
    first, second = np.triu_indices(K, 1)
    return first, second


def preferred(utilities: jax.Array) -> jax.Array:
    """The probability that the first of two outputs is preferred, σ(u_1 − u_2), [N] from utilities [N, 2].

    Raises:
        AssertionError: If there are not two outputs each.

    Source: Bradley & Terry, *Rank analysis of incomplete block designs*, 1952.
    """
    chex.assert_shape(utilities, (None, 2))
    return jax.nn.sigmoid(utilities[:, 0] - utilities[:, 1])


def bayes_accuracy(utilities: jax.Array, mask: jax.Array) -> jax.Array:
    """Accuracy on pairs of rankings that nobody beats who knows all that the utilities are made of, [].

    That is the outputs and, where these count, the places in which they are shown and whose taste it is.

    It is the mean of max(p, 1 − p) over all pairs of [N, K], with p = σ(u_i − u_j) that i is put before j.

    Args:
        utilities: [N, K], in nats.
        mask: [N] bool, the rankings that count; it is 0 if none does.

    Raises:
        AssertionError: If the shapes are others.
    """
    chex.assert_rank([utilities, mask], [2, 1])
    chex.assert_equal_shape_prefix([utilities, mask], 1)
    first, second = pairs_of(utilities.shape[1])
    p = jax.nn.sigmoid(utilities[:, first] - utilities[:, second])
    best = jnp.where(mask[:, None], jnp.maximum(p, 1 - p), 0)
    return jnp.sum(best) / jnp.maximum(jnp.sum(mask) * len(first), 1)


def plackett_luce_loss(
    scores: jax.Array, order: jax.Array, mask: jax.Array, tied: jax.Array | None = None
) -> jax.Array:
    """The mean negative log-likelihood of rankings, [], in nats: −Σ_i (s_(i) − ln Σ_{j ≥ i} e^{s_(j)}).

    For a pair it is −ln σ(r(X') − r(X)) with X' the preferred one: the lecture's l(θ_r), which is printed there without
    the minus sign, as something to maximise. What is added to all scores of a ranking changes nothing.

    A tie is half a win either way: ½ (−ln σ(d) − ln σ(−d)), which is least where the scores are equal, and asks for no
    parameter of ties beside them. Of more outputs it is the mean over all orders that the ties leave open.

    Args:
        scores: r of each output, [N, K].
        order: [N, K], best first, −1 in places after the last.
        mask: [N] bool, the rankings that count; the loss is 0 if none does, and NaN if a score that is ranked in one
            that counts is.
        tied: [N, K] bool, see `Rankings`.

    Raises:
        AssertionError: If the shapes are others.
        InputError: If there are ties among more than five outputs.

    Source: the lecture; Bradley & Terry, *Rank analysis of incomplete block designs*, 1952; Plackett, *The analysis of
    permutations*, 1975; for ties as half wins, and a model that gives them a parameter, Davidson, *On extending the
    Bradley–Terry model to accommodate ties in paired comparison experiments*, 1970.

    Example:
        >>> loss = plackett_luce_loss(jnp.zeros((1, 2)), jnp.array([[1, 0]]), jnp.array([True]))
        >>> round(float(loss), 4)  # ln 2, where both outputs score the same
        0.6931
    """
    check_ranked(scores, order, mask, tied)
    ranked = order >= 0
    # What is not finite where nothing is ranked would make the gradient so.
    scores = jnp.where(mask[:, None], scores, 0)
    ordered = jnp.take_along_axis(scores, jnp.maximum(order, 0), axis=1)
    # Differences alone count, and beside a large number small ones would be lost.
    largest = jax.lax.stop_gradient(jnp.max(ordered, axis=1, keepdims=True, initial=-jnp.inf, where=ranked))
    ordered = jnp.where(ranked, ordered - largest, 0)
    if tied is None:
        each = _negative_log_likelihoods(ordered, ranked)
    else:
        K = scores.shape[1]
        if K > MOST_TIED:
            raise InputError(f"expected ties among at most {MOST_TIED} outputs, got rankings of {K}")
        orders = np.asarray(list(itertools.permutations(range(K))))  # [K!, K]
        level = jnp.cumsum(~tied, axis=1)
        free = jnp.all(level[:, orders] == level[:, None], axis=-1)  # [N, K!], what the ties leave open
        all_orders = _negative_log_likelihoods(
            ordered[:, orders], jnp.broadcast_to(ranked[:, orders], (*free.shape, K))
        )
        each = jnp.sum(jnp.where(free, all_orders, 0), axis=1) / jnp.sum(free, axis=1)
    return jnp.sum(jnp.where(mask, each, 0)) / jnp.maximum(jnp.sum(mask), 1)


def check_ranked(scores: jax.Array, order: jax.Array, mask: jax.Array, tied: jax.Array | None) -> None:
    """Raise an AssertionError unless these are of the same rankings."""
    chex.assert_rank([scores, order, mask], [2, 2, 1])
    chex.assert_equal_shape([scores, order] if tied is None else [scores, order, tied])
    chex.assert_equal_shape_prefix([scores, mask], 1)


def _negative_log_likelihoods(ordered: jax.Array, ranked: jax.Array) -> jax.Array:
    """That of each ranking, [...], from scores in its order, [..., K], the best first."""
    each, rest = jnp.zeros(ordered.shape[:-1], ordered.dtype), ordered[..., -1]
    for i in reversed(range(ordered.shape[-1] - 1)):  # rest: ln Σ_{j ≥ i} e^{s_(j)}, i from the last on
        rest = jnp.where(ranked[..., i + 1], jnp.logaddexp(ordered[..., i], rest), ordered[..., i])
        each += rest - ordered[..., i]
    return each


def pair_accuracy(scores: jax.Array, order: jax.Array, mask: jax.Array, tied: jax.Array | None = None) -> jax.Array:
    """The fraction of ranked pairs that scores put in the same order, []; equal scores count half.

    Arguments and errors are those of `plackett_luce_loss`; pairs that annotators tied have no order. It is 0 if there
    is no pair, and NaN if a score of one is.
    """
    check_ranked(scores, order, mask, tied)
    better, worse = pairs_of(scores.shape[1])
    ordered = jnp.take_along_axis(scores, jnp.maximum(order, 0), axis=1)
    counts = (order[:, worse] >= 0) & mask[:, None]
    if tied is not None:
        level = jnp.cumsum(~tied, axis=1)
        counts &= level[:, better] != level[:, worse]
    right = 0.5 * (1 + jnp.sign(ordered[:, better] - ordered[:, worse]))  # NaN of what is no number
    return jnp.sum(jnp.where(counts, right, 0)) / jnp.maximum(jnp.sum(counts), 1)


class Calibration(NamedTuple):
    """What a reward model says of pairs against what annotators do, in bins of the former that have a pair."""

    predicted: np.ndarray  # [B], mean σ(r_1 − r_2) of a bin
    preferred: np.ndarray  # [B], fraction of its pairs in which the first was preferred
    pairs: np.ndarray  # [B] int, how many there are
    error: float  # the mean distance of the two, over pairs: the expected calibration error


def calibration(scores: Any, order: Any, mask: Any, bins: int = 10) -> Calibration:
    """How far probabilities σ(r_1 − r_2) can be trusted, for pairs.

    Args:
        scores: r of each output, [N, 2].
        order: [N, 2], best first.
        mask: [N] bool, the rankings that count.
        bins: Of equal width, from 0 to 1.

    Raises:
        InputError: If a score that counts is not finite.
        AssertionError: If scores are not [N, 2].

    Source: Guo et al., *On calibration of modern neural networks*, 2017.
    """
    scores, order, mask = np.asarray(scores, float), np.asarray(order), np.asarray(mask, bool)
    chex.assert_shape(scores, (None, 2))
    strange = scores[mask][~np.isfinite(scores[mask])]
    if strange.size:
        raise InputError(f"expected finite scores of the rankings that count, got {strange[0]}")
    p = special.expit(scores[mask, 0] - scores[mask, 1])
    first = order[mask, 0] == 0
    which = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    some = count > 0
    predicted = np.bincount(which, p, bins)[some] / count[some]
    preferred = np.bincount(which, first, bins)[some] / count[some]
    error = float(np.sum(count[some] * np.abs(predicted - preferred)) / max(1, count.sum()))
    return Calibration(predicted=predicted, preferred=preferred, pairs=count[some], error=error)
