"""What the studies of bandits have in common: a softmax policy f over K arms, and the directions of its gradients."""

import jax
import jax.numpy as jnp


def chosen(f: jax.Array, u: jax.Array) -> jax.Array:
    """Which arm uniform numbers u [...] from [0, 1) choose by the probabilities f [K, ...], [K, ...] bool."""
    arms = jnp.arange(len(f)).reshape(-1, *[1] * u.ndim)
    return arms == jnp.sum(u[None] >= jnp.cumsum(f, 0)[:-1], 0)[None]


def directions(f: jax.Array, natural: bool = False) -> jax.Array:
    """What each arm's advantage multiplies, [K, K]: ∇ ln f_a in row a, or F⁺ ∇ ln f_a with the Fisher information F."""
    one = jnp.eye(f.size)
    return (one - 1 / f.size) / jnp.maximum(f, 1e-100)[:, None] if natural else one - f[None]
