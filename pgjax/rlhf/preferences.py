"""Human preferences: rankings of outputs, and simulated annotators who make them.

A ranking is an order of K outputs to one prompt, the best first; for K = 2 it is a comparison. Under the model of
Plackett and Luce the best of K is chosen with probabilities softmax(utilities), then the best of the rest, and so on;
for K = 2 that is Bradley and Terry's: the first is preferred with probability σ(u_1 − u_2).
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError


class Rankings(NamedTuple):
    """N rankings of K outputs each, of which fewer may be ranked."""

    tokens: Any  # [N, K, W + T] int32, prompts and outputs
    order: Any  # [N, K] int32, indices of outputs, best first; −1 in the places after those that were ranked
    mask: Any  # [N] bool, a real ranking; the others are room for more
    annotator: Any  # [N] int32, who made it
    tied: Any = None  # [N, K] bool, as good as what `order` has in the place before; None where nothing is


def no_rankings(n: int, K: int, columns: int) -> Rankings:
    """Room for n rankings of K outputs in rows of so many tokens."""
    return Rankings(
        tokens=jnp.zeros((n, K, columns), jnp.int32),
        order=jnp.zeros((n, K), jnp.int32),
        mask=jnp.zeros(n, bool),
        annotator=jnp.zeros(n, jnp.int32),
    )


def joined(rankings: Rankings | None, others: Rankings | None) -> Rankings:
    """Rankings [N, K], and after them others [G, K], as [N + G, K]; where one of both has ties, all can have them.

    Where there are none, it is the others, and the other way round.

    Raises:
        AssertionError: If there are neither.
    """

    def with_ties(these: Rankings) -> Rankings:
        return these if these.tied is not None else these._replace(tied=np.zeros(np.shape(these.order), bool))

    if rankings is None or others is None:
        there = others if rankings is None else rankings
        assert there is not None
        return jax.tree.map(jnp.asarray, there)
    if rankings.tied is not None or others.tied is not None:
        rankings, others = with_ties(rankings), with_ties(others)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.asarray(b, a.dtype)]), rankings, others)


class Annotators(NamedTuple):
    """How simulated annotators choose: traced scalars, so any can be swept. Biases and tastes are in nats."""

    temperature: Any = 1.0  # τ: what a difference in the gold reward counts is Δ/τ
    position_bias: Any = 0.0  # for each place that an output is shown earlier
    length_bias: Any = 0.0  # for each token of an output
    disagreement: Any = 0.0  # times what a person's own taste says of an output, see `tastes`


def check_annotators(annotators: Annotators) -> None:
    """Raise unless numbers that are known make annotators who can choose.

    Raises:
        InputError: If the temperature is not above 0, the disagreement is below it, or a number is not finite.
    """
    for name, number in annotators._asdict().items():
        if isinstance(number, int | float) and not np.isfinite(number):
            raise InputError(f"expected annotators with a finite {name.replace('_', ' ')}, got {number}")
    temperature, disagreement = annotators.temperature, annotators.disagreement
    if isinstance(temperature, int | float) and not temperature > 0:
        raise InputError(f"expected annotators with a temperature τ above 0, got {temperature}")
    if isinstance(disagreement, int | float) and not disagreement >= 0:
        raise InputError(f"expected annotators with a disagreement of 0 or more, got {disagreement}")


def split_by_prompt(rankings: Rankings, width: int, fraction: float = 0.2, seed: int = 0) -> tuple[Rankings, Rankings]:
    """Rankings to be fitted, and those to be held out: all of some prompts, which are drawn by chance.

    What a reward model says of a prompt that it has seen ranked, it may remember; so both parts have prompts of their
    own. Rankings whose mask is false are in neither.

    Args:
        rankings: [N, K].
        width: W, columns of the prompts.
        fraction: Of the prompts, those to hold out; at least one is, and one is not.
        seed: Of the choice.

    Raises:
        InputError: If there are less than two prompts, or the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"expected a fraction of held-out prompts between 0 and 1, got {fraction}")
    real = jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(rankings.mask, bool)], rankings)
    prompts, which = np.unique(real.tokens[:, 0, :width], axis=0, return_inverse=True)
    if len(prompts) < 2:
        raise InputError(
            f"expected rankings for two or more prompts, one of them to measure by, got {len(prompts)} prompt"
        )
    count = min(max(1, round(fraction * len(prompts))), len(prompts) - 1)
    aside = np.isin(which.reshape(-1), np.random.default_rng(seed).permutation(len(prompts))[:count])
    return jax.tree.map(lambda leaf: leaf[~aside], real), jax.tree.map(lambda leaf: leaf[aside], real)


def tastes(weights: jax.Array, tokens: jax.Array, output: jax.Array, annotator: jax.Array) -> jax.Array:
    """What each annotator's own taste says of outputs, [N, K]: Σ_token weight / √(tokens).

    Args:
        weights: What each annotator thinks of every token, [annotators, V], such as draws from N(0, 1).
        tokens: [N, K, L].
        output: Where the outputs are in them, [N, K, L] bool.
        annotator: Who looks, [N].
    """
    N, K, L = tokens.shape
    of_token = jnp.take_along_axis(weights[annotator], tokens.reshape(N, K * L), axis=1).reshape(N, K, L)
    count = jnp.sum(output, axis=-1, dtype=weights.dtype)
    return jnp.sum(jnp.where(output, of_token, 0), axis=-1) / jnp.sqrt(jnp.maximum(count, 1))


def utilities(annotators: Annotators, gold: jax.Array, length: jax.Array, taste: jax.Array) -> jax.Array:
    """Gold/τ + length_bias · length + disagreement · taste − position_bias · k, [N, K], in nats.

    Args:
        annotators: How they choose.
        gold: The gold reward of each output, [N, K], in the order in which they are shown: k = 0 … K − 1.
        length: Tokens of each, [N, K].
        taste: See `tastes`, [N, K].

    Raises:
        AssertionError: If the shapes differ.
    """
    chex.assert_rank(gold, 2)
    chex.assert_equal_shape([gold, length, taste])
    place = jnp.arange(gold.shape[1], dtype=gold.dtype)[None]
    said = gold / annotators.temperature + annotators.length_bias * length + annotators.disagreement * taste
    return said - annotators.position_bias * place


def rank(key: jax.Array, utilities: jax.Array) -> jax.Array:
    """Draw rankings from Plackett–Luce, [N, K] int32 from utilities [N, K]: indices, best first.

    The order of utilities plus independent Gumbel noise has that law.

    Source: Yellott, *The relationship between Luce's choice axiom, Thurstone's theory of comparative judgment, and the
    double exponential distribution*, 1977.
    """
    noise = jax.random.gumbel(key, utilities.shape, utilities.dtype)
    return jnp.argsort(-(utilities + noise), axis=1).astype(jnp.int32)


def first_different(tokens: jax.Array, K: int) -> tuple[jax.Array, jax.Array]:
    """Which K of C candidates are the first that differ, [N, K] int32, and where there are as many, [N] bool.

    Two outputs that are the same text teach nothing, whoever ranks them. Where fewer than K differ, the places that are
    left go to the first of the repeats.

    Args:
        tokens: C texts to each of N prompts, [N, C, L].
        K: How many to choose, at most C.

    Example:
        >>> chosen, enough = first_different(jnp.array([[[3], [3], [4], [3]], [[5], [5], [5], [5]]]), K=2)
        >>> chosen.tolist(), enough.tolist()
        ([[0, 2], [0, 1]], [True, False])
    """
    chex.assert_rank(tokens, 3)
    same = jnp.all(tokens[:, :, None] == tokens[:, None], axis=-1)  # [N, C, C]
    repeat = jnp.any(jnp.tril(same, -1), axis=2)  # the same as an earlier one
    chosen = jnp.argsort(repeat, axis=1, stable=True)[:, :K].astype(jnp.int32)
    return chosen, jnp.sum(~repeat, axis=1) >= K
