"""Every environment of brax as an `Environment`, where brax is installed: `pip install "pgjax[brax]"`.

They have no parameters to sweep.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Step, strong
from pgjax.environments.spaces import Box
from pgjax.errors import InputError, needed
from pgjax.trees import PyTree


def from_brax(name: str, horizon: int = 1000, **options: Any) -> Environment:
    """A brax environment, without its wrappers: nothing resets by itself, and nothing is repeated.

    Observations are arrays [n] without bounds, actions are arrays [d] in −1 … 1. Brax has no parameters that could be
    swept.

    Args:
        name: Its brax name, for example "ant".
        horizon: T, at least 1; brax leaves the time limit to a wrapper.
        **options: What brax's environment takes, for example `backend="spring"`.

    Raises:
        InputError: If brax is not installed, there is no such environment or option, or the horizon is below 1.

    Source: Freeman et al., *Brax: a differentiable physics engine for large scale rigid body simulation*, 2021.
    """
    envs = needed("brax.envs", "brax").envs
    check_horizon(horizon)
    try:
        environment = envs.get_environment(name, **options)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected an environment of brax with its options, got {name!r} {options}: {error}"
        ) from error

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, jax.Array]:
        state = strong(environment.reset(key))
        return state, state.obs

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        own = jax.tree.map(lambda leaf: leaf, state)  # some write into the state's dictionaries
        following = environment.step(own, action)
        following = jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), following, state)
        return following, Step(following.obs, following.reward, following.done > 0)

    n, d = int(environment.observation_size), int(environment.action_size)
    observations = Box(low=-jnp.inf, high=jnp.inf, shape=(n,), dtype=jnp.result_type(float))
    return Environment(
        reset=reset,
        step=step,
        observation_space=observations,
        action_space=Box(-1.0, 1.0, (d,)),
        horizon=horizon,
        name=name,
    )
