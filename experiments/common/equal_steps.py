"""Runs that end after so many environment steps, for methods that are compared."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import pgjax
from pgjax.algorithms.base import Algorithm
from pgjax.batching import choose, together


class Paused(NamedTuple):
    """An environment's parameters, and whether its episodes end with their first step."""

    params: Any
    paused: jax.Array | bool = False


def pausing(environment: pgjax.Environment) -> pgjax.Environment:
    """The environment, which can be paused: a run that has nothing more to do then costs those beside it little."""

    def step(key: jax.Array, state: Any, action: jax.Array, params: Paused) -> tuple[Any, pgjax.Step]:
        following, step = environment.step(key, state, action, params.params)
        return following, step._replace(truncated=step.truncated | params.paused)

    def reset(key: jax.Array, params: Paused) -> tuple[Any, Any]:
        return environment.reset(key, params.params)

    return environment._replace(reset=reset, step=step, params=Paused(environment.params))


class Counted(NamedTuple):
    """The state of a run, and how many environment steps it has made."""

    state: Any
    steps: jax.Array  # []


def until(algorithm: Algorithm, steps: Any) -> Algorithm:
    """The algorithm, of a `pausing` environment, whose updates do and report nothing after so many steps of that."""
    update = jax.jit(algorithm.update, inline=True)  # so that it is traced once

    def init(key: jax.Array, hyperparameters: Any) -> Counted:
        return Counted(algorithm.init(key, hyperparameters), jnp.float32(0))

    def counted(before: Counted) -> tuple[Counted, Any]:
        over, numbers = before.steps >= steps, before.state.hyperparameters
        paused = numbers._replace(environment=numbers.environment._replace(paused=over))
        state = before.state._replace(hyperparameters=paused)
        nothing = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(update, state)[1])

        def go_on() -> tuple[Counted, Any]:
            after, metrics = update(state)
            return choose(over, (before, nothing), (Counted(after, before.steps + metrics.steps), metrics))

        after: tuple[Counted, Any] = jax.lax.cond(together(~over), go_on, lambda: (before, nothing))
        return after

    return Algorithm(init, counted, algorithm.hyperparameters)
