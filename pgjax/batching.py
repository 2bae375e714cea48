"""Loops and choices that stay what they are under `vmap`."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax.trees import PyTree


@jax.custom_batching.custom_vmap
def together(condition: jax.Array) -> jax.Array:
    """A condition; under `vmap`, whether it holds anywhere in the batch.

    A `while_loop` whose condition differs over a batch turns into a select over all it carries; with this one it stays
    a loop, and what counts its rounds stays one number.
    """
    return condition


@together.def_vmap
def _together_rule(axis_size: int, in_batched: Any, condition: jax.Array) -> tuple[jax.Array, bool]:
    return together(jnp.any(condition, axis=0) if in_batched[0] else condition), False


def choose(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where condition [E] holds and `no` elsewhere, for pytrees of arrays [E, ...]; or all [T, E, ...]."""

    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b)

    return jax.tree.map(one, yes, no)
