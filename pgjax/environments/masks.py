"""Actions that may be chosen here and not there."""

from collections.abc import Callable
from typing import Any

import jax

from pgjax.checks import traced
from pgjax.environments.base import Environment, form
from pgjax.environments.spaces import Box, Masked, masks_of, values_like
from pgjax.errors import InputError
from pgjax.trees import PyTree


def masked_actions(environment: Environment, allowed: Callable[[PyTree, PyTree], jax.Array]) -> Environment:
    """An environment whose observations also say which actions may be chosen: each is a `Masked`.

    What another action leads to stays the environment's business: policies of `pgjax.policies` never choose one.

    Args:
        environment: With discrete actions.
        allowed: (state, params) -> bool, [n] for n actions, [d, n] for d of at most n at once.

    Raises:
        InputError: If actions are not discrete, observations say already which are allowed, or the function returns
            something else.
    """
    name, actions = environment.name, environment.action_space
    if isinstance(actions, Box) or isinstance(environment.observation_space, Masked):
        raise InputError(f"expected discrete actions and no mask of them yet in {name}, got {actions}")
    space = masks_of(actions)
    state = jax.eval_shape(environment.reset, jax.random.key(0), environment.params)[0]
    mask = traced(f"a mask of actions of {name}", allowed, state, environment.params)
    if form(mask) != form(values_like(space)):
        raise InputError(f"expected a mask of actions of {name} to be {form(values_like(space))}, got {form(mask)}")

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, Any]:
        state, observation = environment.reset(key, params)
        return state, Masked(observation, allowed(state, params))

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Any]:
        state, step = environment.step(key, state, action, params)
        return state, step._replace(observation=Masked(step.observation, allowed(state, params)))

    return environment._replace(
        reset=reset, step=step, observation_space=Masked(environment.observation_space, space), name=f"masked {name}"
    )
