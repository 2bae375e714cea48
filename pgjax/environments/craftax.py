"""The worlds of craftax as an `Environment`, where craftax is installed: `pip install "pgjax[craftax]"`.

They have no parameters to sweep.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Step, strong
from pgjax.environments.gymnax import like
from pgjax.environments.spaces import Box, Discrete
from pgjax.errors import InputError, needed
from pgjax.trees import PyTree


def from_craftax(name: str, horizon: int = 10_000, **env_params: Any) -> Environment:
    """A world of craftax, without its automatic reset.

    It only says when an episode is over; its own time limit is put beyond the horizon, where the episode is truncated.

    Args:
        name: Its craftax name, such as "Craftax-Symbolic-v1" or "Craftax-Classic-Symbolic-v1".
        horizon: T, at least 1.
        **env_params: Fields of its parameters to set, for example `day_length=100`.

    Raises:
        InputError: If craftax is not installed, there is no such world or parameter, or the horizon is below 1.

    Source: Matthews et al., *Craftax: a lightning-fast benchmark for open-ended reinforcement learning*, 2024.
    """
    make_craftax_env_from_name = needed("craftax.craftax_env", "craftax").craftax_env.make_craftax_env_from_name
    check_horizon(horizon)
    try:
        world = make_craftax_env_from_name(name, auto_reset=False)
        params = world.default_params.replace(**env_params).replace(max_timesteps=horizon + 1)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"expected a world of craftax with its parameters, got {name!r} {env_params}: {error}"
        ) from error

    def reset(key: jax.Array, _: PyTree) -> tuple[PyTree, jax.Array]:
        observation, state = world.reset_env(key, params)
        return strong(state), strong(observation)

    def step(key: jax.Array, state: PyTree, action: jax.Array, _: PyTree) -> tuple[PyTree, Step]:
        observation, following, reward, over, _ = world.step_env(key, state, action, params)
        return like(state, following), Step(strong(observation), reward, jnp.asarray(over, bool))

    shown = jax.eval_shape(reset, jax.random.key(0), ())[1]
    observations = Box(0.0, 1.0, tuple(shown.shape), shown.dtype)
    return Environment(reset, step, observations, Discrete(int(world.num_actions)), horizon, name=name)
