"""Environments of which less is seen."""

from collections.abc import Sequence

import jax
import numpy as np

from pgjax.environments.base import Environment, Step
from pgjax.environments.spaces import Box
from pgjax.errors import InputError
from pgjax.trees import PyTree


def partly_observed(environment: Environment, seen: Sequence[int]) -> Environment:
    """An environment of whose observations [n] some numbers are seen and the others hidden.

    It is how tasks for a policy with memory are made: CartPole without its velocities, `partly_observed(cartpole,
    (0, 2))`, is to be balanced by where cart and pole have been.

    Args:
        environment: With observations of a `Box` [n].
        seen: Which numbers of an observation are seen, in this order.

    Raises:
        InputError: If observations are not arrays [n], or a number is none of theirs.

    Source: Wierstra et al., *Solving deep memory POMDPs with recurrent policy gradients*, 2007.

    Example:
        >>> from pgjax.environments.robot import navigation
        >>> partly_observed(navigation(), (1, 2)).observation_space.shape
        (2,)
    """
    space, places = environment.observation_space, np.asarray(seen, int)
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise InputError(f"expected observations of one axis to be seen in part, got {space} in {environment.name}")
    if not len(places) or not np.all((places >= 0) & (places < space.shape[0])):
        raise InputError(f"expected one or more numbers from 0 to {space.shape[0] - 1} that are seen, got {[*seen]}")

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, jax.Array]:
        state, observation = environment.reset(key, params)
        return state, observation[places]

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        state, step = environment.step(key, state, action, params)
        return state, step._replace(observation=step.observation[places])

    low, high = (np.broadcast_to(bound, space.shape)[places] for bound in (space.low, space.high))
    return environment._replace(
        reset=reset,
        step=step,
        observation_space=Box(low, high, (len(places),), space.dtype),
        name=f"{environment.name}, partly observed",
    )
