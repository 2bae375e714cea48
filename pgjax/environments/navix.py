"""Every grid world of navix as an `Environment`, where navix is installed: `pip install navix`.

They have no parameters to sweep.
"""

from typing import Any

import jax
import numpy as np

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Step, strong
from pgjax.environments.gymnax import like
from pgjax.environments.spaces import Box, Discrete
from pgjax.errors import InputError, needed
from pgjax.trees import PyTree


def from_navix(name: str, horizon: int = 100, **options: Any) -> Environment:
    """A grid world of navix, which is MiniGrid in JAX, without its automatic reset.

    Observations are arrays of integers, by default [H, W, 3] of the whole grid.

    Args:
        name: Its navix name, for example "Navix-Empty-5x5-v0".
        horizon: T, at least 1.
        **options: What navix takes, for example `observation_fn=navix.observations.symbolic_first_person`.

    Raises:
        InputError: If navix is not installed, there is no such world or option, or the horizon is below 1.

    Source: Pignatelli et al., *NAVIX: scaling MiniGrid environments with JAX*, 2024.
    """
    navix = needed("navix")  # no extra of pgjax has it, as it wants a nightly build of another library
    check_horizon(horizon)
    try:
        world: Any = navix.make(name, max_steps=horizon, **options)
    except (NotImplementedError, TypeError) as error:
        raise InputError(f"expected a world of navix with its options, got {name!r} {options}: {error}") from error

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, jax.Array]:
        state = strong(world.reset(key))
        return state, state.observation

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        before = state.replace(state=state.state.replace(key=key))
        following = like(state, world._step(before, action))  # its `step` would reset by itself
        ends = following.is_termination(), following.is_truncation()
        return following, Step(following.observation, following.reward, *ends)

    space, shown = world.observation_space, jax.eval_shape(reset, jax.random.key(0), ())[1]
    low, high = np.asarray(space.minimum), np.asarray(space.maximum)
    observations = Box(low, high, tuple(shown.shape), shown.dtype)
    return Environment(reset, step, observations, Discrete(int(world.action_space.n)), horizon, name=name)
