"""Tables of logits, policies that can be anything and that exact results are computed for; and tables of values."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax.environments.spaces import Discrete, mask_of, without_mask
from pgjax.policies.base import Policy, ValueFunction, allowed, memoryless
from pgjax.policies.distributions import Categorical


def tabular(states: int, actions: int | Discrete) -> Policy:
    """The softmax policy with a logit for each of S states and A actions: θ = [S, A], zero at first.

    Every f(X_t) then starts uniform. The gradient of ln f(s)_a is 1{a' = a} − f(s)_{a'} in row s, and zero elsewhere.
    For a state that is not in the table logits are NaN; actions that a given space forbids, or the mask of an
    observation, are never chosen.
    """
    space = actions if isinstance(actions, Discrete) else Discrete(actions)

    def init(key: jax.Array) -> jax.Array:
        return jnp.zeros((states, space.n))

    def apply(params: jax.Array, observation: Any) -> Categorical:
        logits = jnp.asarray(params).at[without_mask(observation)].get(mode="fill", fill_value=jnp.nan)
        return Categorical(allowed(space, logits, mask_of(observation)))

    return memoryless(init, apply)


def tabular_by_time(horizon: int, states: int, actions: int) -> Policy:
    """The softmax policy with a table of its own for each of T steps: θ = [T, S, A], zero at first.

    Its memory is the number of steps made, [E]. Steps beyond the horizon have the last one's table.
    """

    def init(key: jax.Array) -> jax.Array:
        return jnp.zeros((horizon, states, actions))

    def apply(params: jax.Array, t: jax.Array, observation: jax.Array) -> Categorical:
        t = jnp.minimum(t, horizon - 1)
        return Categorical(jnp.asarray(params).at[t, observation].get(mode="fill", fill_value=jnp.nan))

    def step(params: jax.Array, t: jax.Array, observation: jax.Array) -> tuple[jax.Array, Categorical]:
        return t + 1, apply(params, t, observation)

    def unroll(params: jax.Array, trajectory: Any) -> Categorical:
        t = jnp.arange(len(trajectory.observation), dtype=jnp.int32)
        return apply(params, t[:, None], trajectory.observation)

    return Policy(init=init, memory=lambda episodes: jnp.zeros(episodes, jnp.int32), step=step, unroll=unroll)


def tabular_value(states: int, actions: int | None = None) -> ValueFunction:
    """A table of values, [S] or, if `actions` are given, [S, A]; zero at first, NaN for a state not in it."""
    shape = (states,) if actions is None else (states, actions)

    def unroll(params: jax.Array, trajectory: Any) -> jax.Array:
        states = without_mask(trajectory.observation)
        return jnp.asarray(params).at[states].get(mode="fill", fill_value=jnp.nan)

    return ValueFunction(lambda key: jnp.zeros(shape), unroll)


def tabular_value_by_time(horizon: int, states: int) -> ValueFunction:
    """A table of values for each of T steps, [T, S]; zero at first. Steps beyond the horizon have the last one's."""

    def unroll(params: jax.Array, trajectory: Any) -> jax.Array:
        t = jnp.minimum(trajectory.time, horizon - 1)
        return jnp.asarray(params).at[t, trajectory.observation].get(mode="fill", fill_value=jnp.nan)

    return ValueFunction(lambda key: jnp.zeros((horizon, states)), unroll)
