"""Rewards in other units."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.base import Environment, Score, Step
from pgjax.errors import InputError
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Scaled(NamedTuple):
    """The params of an environment with scaled rewards."""

    scale: Any  # []
    environment: PyTree  # the params of the environment itself


def scaled_rewards(environment: Environment, scale: Any = 1.0) -> Environment:
    """An environment whose rewards, and a score's, are multiplied by a number; what a score notes stays as it is.

    Returns are reported in the new units.

    Args:
        environment: Whose.
        scale: The factor, above 0; it can be swept as "environment.scale".

    Raises:
        InputError: If the factor is not above 0.
    """
    if isinstance(scale, int | float) and not 0 < scale < float("inf"):
        raise InputError(f"expected a finite factor above 0 for the rewards of {environment.name}, got {scale}")

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: Scaled) -> tuple[PyTree, Step]:
        state, step = environment.step(key, state, action, params.environment)
        return state, step._replace(reward=params.scale * jnp.asarray(step.reward, float))

    def score(trajectory: Trajectory, params: Scaled) -> Score:
        assert environment.score is not None
        rewards = jnp.where(trajectory.mask, trajectory.reward / params.scale, 0)  # as the environment itself paid them
        found = environment.score(trajectory._replace(reward=rewards), params.environment)
        return found._replace(reward=params.scale * found.reward)

    return environment._replace(
        reset=lambda key, params: environment.reset(key, params.environment),
        step=step,
        params=Scaled(jnp.asarray(scale, float), environment.params),
        score=None if environment.score is None else score,
        name=f"{environment.name} with scaled rewards",
    )
