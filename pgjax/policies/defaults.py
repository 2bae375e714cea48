"""The policy and the values that fit an environment when nothing else is asked for."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.environments.base import Environment
from pgjax.environments.spaces import Box, Discrete, Spaces, without_mask
from pgjax.errors import InputError
from pgjax.policies.base import Policy, ValueFunction, describe
from pgjax.policies.convolutional import cnn, cnn_value, is_image
from pgjax.policies.feedforward import mlp, mlp_value
from pgjax.policies.tables import tabular, tabular_value, tabular_value_by_time
from pgjax.trees import PyTree


def policy_for(environment: Environment) -> Policy:
    """A fitting default policy, see `pgjax.tabular`, `pgjax.cnn` and `pgjax.mlp`.

    A table over few discrete states; for images a convolution and two layers of 64; else a tanh network of two layers
    of 64. Of a dictionary, or another pytree, all parts are seen at once. Actions are Categorical where they are
    discrete, several such where there are several at once, and diagonal Gaussian where they are continuous. What a
    `Masked` observation does not allow is never chosen.

    Raises:
        InputError: If the actions are arrays of another shape than [d].

    Example:
        >>> from pgjax.environments.mazes import maze
        >>> import jax
        >>> policy_for(maze()).init(jax.random.key(0)).shape  # a table of logits
        (23, 4)
    """
    states, actions = environment.observation_space, environment.action_space
    seen = without_mask(states)
    if isinstance(seen, Discrete) and isinstance(actions, Discrete) and seen.n <= 1024:
        return tabular(seen.n, actions)
    return (cnn if is_image(states) else mlp)(states, actions)


def value_for(environment: Environment, hidden: Sequence[int] = (64, 64)) -> ValueFunction:
    """A fitting v [T, E]: a table over few discrete states, else a network with these hidden layers.

    For images it is that of `pgjax.policies.cnn_value`, else that of `pgjax.policies.mlp_value`.
    """
    return _fitting(environment.observation_space, None, hidden)


def value_by_time_for(environment: Environment, hidden: Sequence[int] = (64, 64)) -> ValueFunction:
    """A fitting v that sees the step of the episode beside the observation, [T, E].

    It is a table [T, S] over few discrete states; else a network as that of `value_for`, whose input has one number
    more, the fraction of the horizon that is over. In a task with a horizon no other v can be exact.

    Raises:
        InputError: If observations are neither few integers nor arrays of one axis.

    Source: Pardo et al., *Time limits in reinforcement learning*, 2018.
    """
    states, T = environment.observation_space, environment.horizon
    if isinstance(states, Discrete) and states.n <= 1024:
        return tabular_value_by_time(T, states.n)
    if not isinstance(states, Box) or len(states.shape) != 1:
        raise InputError(
            f"expected observations that are few integers or have one axis for a value that sees the time, got "
            f"{environment.name} with {describe(states)}"
        )
    network = mlp_value(Box(-jnp.inf, jnp.inf, (states.shape[0] + 1,)), hidden=hidden)

    def unroll(params: PyTree, trajectory: Any) -> jax.Array:
        over = (trajectory.time / T)[..., None].astype(trajectory.observation.dtype)
        seen = jnp.concatenate([trajectory.observation, over], axis=-1)
        return network.unroll(params, trajectory._replace(observation=seen))

    return network._replace(unroll=unroll)


def action_value_for(environment: Environment, hidden: Sequence[int] = (64, 64)) -> ValueFunction:
    """A fitting Q [T, E, A], as `value_for`.

    Raises:
        InputError: If the actions are not discrete.
    """
    actions = environment.action_space
    if not isinstance(actions, Discrete):
        raise InputError(
            f"expected discrete actions for values of each action, got {environment.name} with actions of "
            f"{type(actions).__name__}"
        )
    return _fitting(environment.observation_space, actions.n, hidden)


def _fitting(states: Spaces, actions: int | None, hidden: Sequence[int]) -> ValueFunction:
    seen = without_mask(states)
    if isinstance(seen, Discrete) and seen.n <= 1024:
        return tabular_value(seen.n, actions)
    return (cnn_value if is_image(states) else mlp_value)(states, actions, hidden=hidden)
