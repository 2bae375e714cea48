"""How different outputs are from each other."""

import chex
import jax
import jax.numpy as jnp

from pgjax.errors import InputError


def _grams(tokens: jax.Array, output: jax.Array, n: int, vocabulary: int) -> tuple[jax.Array, jax.Array]:
    """The n-grams of outputs as numbers, [E, L − n + 1] int32, and where they lie within an output."""
    chex.assert_rank([tokens, output], 2)
    chex.assert_equal_shape([tokens, output])
    if vocabulary**n > 2**31:
        raise InputError(f"expected V^n of at most 2^31, got {vocabulary}^{n}")
    E, L = tokens.shape
    width = max(L - n + 1, 0)
    number, inside = jnp.zeros((E, width), jnp.int32), jnp.ones((E, width), bool)
    for i in range(n):
        number = number * vocabulary + tokens[:, i : i + width]
        inside &= output[:, i : i + width]
    return number, inside


def distinct_n(tokens: jax.Array, output: jax.Array, n: int, vocabulary: int) -> jax.Array:
    """The fraction of all n-grams of outputs that are left if each is counted once, []; 0 if there are none.

    Args:
        tokens: [E, L].
        output: Where the outputs are, [E, L] bool.
        n: 1, 2, 3, …
        vocabulary: V.

    Raises:
        InputError: If V^n is above 2³¹, as an n-gram is a number.
        AssertionError: If the arrays are not of one shape [E, L].

    Source: Li et al., *A diversity-promoting objective function for neural conversation models*, 2016.

    Example:
        >>> tokens = jnp.array([[3, 4, 3, 4]])  # the bigrams 34, 43 and 34
        >>> round(float(distinct_n(tokens, tokens > 0, n=2, vocabulary=5)), 3)
        0.667
    """
    number, inside = _grams(tokens, output, n, vocabulary)
    ordered = jnp.sort(jnp.where(inside, number, -1).reshape(-1))
    different = jnp.sum(jnp.diff(ordered, prepend=-1) != 0)
    return different / jnp.maximum(jnp.sum(inside), 1)


def self_overlap(tokens: jax.Array, output: jax.Array, vocabulary: int) -> jax.Array:
    """Of each output the fraction of its bigrams that another output has too, [E]; 0 for one without any.

    It is near 1 where all outputs are alike, as self-BLEU is (Zhu et al., *Texygen*, 2018), of which it is the
    precision of bigrams against all others. Arguments and errors are those of `distinct_n`; it takes memory for E V²
    booleans.
    """
    number, inside = _grams(tokens, output, 2, vocabulary)
    E = tokens.shape[0]
    row = jnp.broadcast_to(jnp.arange(E)[:, None], number.shape)
    has = jnp.zeros((E, vocabulary**2), bool).at[row, number].max(inside)
    by_others = jnp.sum(has, axis=0, dtype=jnp.int32)[number] > 1  # its own is one of them
    return jnp.sum(inside & by_others, axis=1) / jnp.maximum(jnp.sum(inside, axis=1), 1)
