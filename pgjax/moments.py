"""Running moments: the mean and the spread of all values seen so far, merged batch by batch.

Source: Chan, Golub & LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances*, 1979.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """What is known of values [...] so far. Among parameters it is no parameter: a gradient step leaves it as it is."""

    number: jax.Array  # [], how many there were
    mean: jax.Array  # [...]
    square: jax.Array  # [...], Σ (x − mean)²


def no_moments(shape: tuple[int, ...] = ()) -> Moments:
    """The moments before any value was seen."""
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))


def moments_of(values: jax.Array, mask: jax.Array) -> Moments:
    """The moments of values [T, E, ...] where a mask [T, E] holds; what stands elsewhere counts for nothing."""
    real = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    values = values.astype(jnp.result_type(float))
    count = jnp.sum(mask, dtype=values.dtype)
    mean = jnp.sum(jnp.where(real, values, 0), axis=(0, 1)) / jnp.maximum(count, 1)
    square = jnp.sum(jnp.where(real, values - jnp.broadcast_to(mean, values.shape), 0) ** 2, axis=(0, 1))
    return Moments(count, mean, square)


def merged(first: Moments, second: Moments) -> Moments:
    """The moments of both together.

    Example:
        >>> ones, x = jnp.ones((1, 2), bool), jnp.array([[1.0, 3.0], [5.0, 7.0]])
        >>> both = merged(moments_of(x[:1], ones), moments_of(x[1:], ones))
        >>> float(both.number), float(both.mean), float(both.square)
        (4.0, 4.0, 20.0)
    """
    count = first.number + second.number
    share, apart = second.number / jnp.maximum(count, 1), second.mean - first.mean
    square = first.square + second.square + apart**2 * first.number * share
    return Moments(count, first.mean + apart * share, square)


def deviation(moments: Moments) -> jax.Array:
    """The standard deviation [...], and 1 where all values were the same so far, or there were none."""
    variance = moments.square / jnp.maximum(moments.number, 1)
    varies = variance > 1e-12 * (1 + moments.mean**2)
    return jnp.sqrt(jnp.where(varies, variance, 1))
