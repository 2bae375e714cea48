"""Actions that do not always do what was chosen."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Environment, Step
from pgjax.environments.spaces import Box, Masked, MultiDiscrete
from pgjax.errors import InputError
from pgjax.trees import PyTree

# Folded into a step's key. It is larger than any count of keys that an environment splits its own into, because
# `fold_in(key, i)` may be the same key as `split(key, n)[i]`.
NOISE = 2**31 + 1


class Noisy(NamedTuple):
    """The params of an environment with noisy actions."""

    noise: Any  # []
    environment: PyTree  # the params of the environment itself


def noisy_actions(environment: Environment, noise: Any = 0.0) -> Environment:
    """An environment in which something else may be played than what was chosen.

    Of n discrete actions, one drawn uniformly from those allowed is played with probability `noise`; of several at
    once, all are drawn, or none. To an action of a `Box` is added independent normal noise with a standard deviation of
    `noise` times the box's half-width (times 1 where a side is infinite), and the sum is clipped to the box.

    A trajectory holds the actions that were chosen, and so does what a `score` gets. Without noise all is, number for
    number, as in the environment itself.

    Args:
        environment: Whose actions are disturbed; only once, as noise of noise would not be independent of it.
        noise: The strength, 0 or more, at most 1 for discrete actions; it can be swept as "environment.noise", and
            params of the environment itself as, for example, "environment.environment.length".

    Raises:
        InputError: If the noise is out of range, the environment's actions are noisy already, or its observations say
            which of them are allowed, which a drawn one might not be.
    """
    actions, score = environment.action_space, environment.score
    most = math.inf if isinstance(actions, Box) else 1
    if isinstance(environment.observation_space, Masked):
        raise InputError(f"expected an environment without a mask of actions for noisy ones, got {environment.name}")
    if isinstance(noise, int | float) and not 0 <= noise <= most:
        raise InputError(f"expected noise between 0 and {most} for {environment.name}, got {noise}")
    if isinstance(environment.params, Noisy):
        raise InputError(f"expected an environment whose actions are not noisy yet, got {environment.name}")

    def disturbed(key: jax.Array, action: jax.Array, noise: jax.Array) -> jax.Array:
        if not isinstance(actions, Box):
            whether, which = jax.random.split(key)
            if isinstance(actions, MultiDiscrete):
                drawn = jax.random.randint(which, action.shape, 0, jnp.asarray(actions.sizes), action.dtype)
            else:
                choices = np.flatnonzero(actions.allowed)
                drawn = jax.random.randint(which, (), 0, len(choices), action.dtype)
                if actions.forbidden:
                    drawn = jnp.asarray(choices, action.dtype)[drawn]
            return jnp.where(jax.random.uniform(whether) < noise, drawn, action)
        _, unit = actions.middle()
        added = noise * unit * jax.random.normal(key, action.shape, action.dtype)
        return actions.clip(action + added.astype(action.dtype))

    def reset(key: jax.Array, params: Noisy) -> tuple[PyTree, Any]:
        return environment.reset(key, params.environment)

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: Noisy) -> tuple[PyTree, Step]:
        played = disturbed(jax.random.fold_in(key, NOISE), action, params.noise)
        return environment.step(key, state, played, params.environment)

    return environment._replace(
        reset=reset,
        step=step,
        params=Noisy(jnp.asarray(noise, float), environment.params),
        score=None if score is None else lambda trajectory, params: score(trajectory, params.environment),
        name=f"{environment.name} with noisy actions",
    )
