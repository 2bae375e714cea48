"""What the studies of bandits have in common: a softmax policy f over K arms, and the directions of its gradients."""

import jax
import jax.numpy as jnp


def chosen(f: jax.Array, u: jax.Array) -> jax.Array:
    """Which arm a uniform number u from [0, 1) chooses by the probabilities f, [K] bool."""
    return jnp.arange(f.size) == jnp.sum(u >= jnp.cumsum(f)[:-1])


def directions(f: jax.Array, natural: bool = False) -> jax.Array:
    """What each arm's advantage multiplies, [K, K]: ∇ ln f_a in row a, or F⁺ ∇ ln f_a with the Fisher information F."""
    one = jnp.eye(f.size)
    return (one - 1 / f.size) / jnp.maximum(f, 1e-100)[:, None] if natural else one - f[None]
