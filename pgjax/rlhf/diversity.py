"""How different outputs are from each other. What it takes grows with the outputs, and not with the vocabulary."""

import chex
import jax
import jax.numpy as jnp


def _grams(tokens: jax.Array, output: jax.Array, n: int) -> tuple[list[jax.Array], jax.Array]:
    """The n-grams of outputs, n arrays [E, L − n + 1], one for each of their places, and where they are within one."""
    chex.assert_rank([tokens, output], 2)
    chex.assert_equal_shape([tokens, output])
    width = max(tokens.shape[1] - n + 1, 0)
    inside = jnp.ones((len(tokens), width), bool)
    for i in range(n):
        inside &= output[:, i : i + width]
    return [jnp.where(inside, tokens[:, i : i + width], -1) for i in range(n)], inside


def _begins(columns: list[jax.Array]) -> jax.Array:
    """Where a row of sorted columns [M] differs from the one before it, [M] bool; the first does."""
    differs = jnp.zeros(columns[0].shape, bool).at[:1].set(True)
    for column in columns:
        differs |= jnp.diff(column, prepend=column[:1]) != 0
    return differs


def distinct_n(tokens: jax.Array, output: jax.Array, n: int) -> jax.Array:
    """The fraction of all n-grams of outputs that are left if each is counted once, []; 0 if there are none.

    Args:
        tokens: [E, L].
        output: Where the outputs are, [E, L] bool.
        n: 1, 2, 3, …

    Raises:
        AssertionError: If the arrays are not of one shape [E, L].

    Source: Li et al., *A diversity-promoting objective function for neural conversation models*, 2016.

    Example:
        >>> tokens = jnp.array([[3, 4, 3, 4]])  # the bigrams 34, 43 and 34
        >>> round(float(distinct_n(tokens, tokens > 0, n=2)), 3)
        0.667
    """
    grams, inside = _grams(tokens, output, n)
    ordered = jax.lax.sort([column.reshape(-1) for column in grams], num_keys=n)
    different = jnp.sum(_begins(list(ordered)) & (ordered[0] >= 0))
    return different / jnp.maximum(jnp.sum(inside), 1)


def self_overlap(tokens: jax.Array, output: jax.Array) -> jax.Array:
    """Of each output the fraction of its bigrams that another output has too, [E]; 0 for one without any.

    It is near 1 where all outputs are alike, as self-BLEU is (Zhu et al., *Texygen*, 2018), of which it is the
    precision of bigrams against all others. Arguments and errors are those of `distinct_n`.
    """
    (first, second), inside = _grams(tokens, output, 2)
    E, width = inside.shape
    row = jnp.broadcast_to(jnp.arange(E)[:, None], inside.shape)
    flat = [array.reshape(-1) for array in (first, second, row)]
    *gram, row = jax.lax.sort(flat, num_keys=3)  # alike bigrams beside each other, by outputs
    M = E * width
    begins = _begins(gram)
    group = jnp.cumsum(begins) - 1
    least = jax.ops.segment_min(row, group, M, indices_are_sorted=True)
    most = jax.ops.segment_max(row, group, M, indices_are_sorted=True)
    shared = (least < most)[group] & (gram[0] >= 0)
    count = jnp.zeros(E, jnp.int32).at[row].add(shared)
    return count / jnp.maximum(jnp.sum(inside, axis=1), 1)
