"""Value functions: what is expected of an observation, v(X_t), or of each action there, Q(X_t, ·)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.environment import Discrete, Environment, PyTree, Space
from pgjax.errors import InputError
from pgjax.policies.mlp import Network, features_of


class ValueFunction(NamedTuple):
    """A function with parameters of its own, from observations to expected returns, as pure functions.

    `init(key) -> params`; `unroll(params, trajectory) -> [T, E]` for v(X_t), `[T, E, A]` for Q(X_t, ·); like a
    policy's, it sees the trajectory's observations. If it is `memoryless`, a row's value depends on that row alone; if
    not, it starts afresh at each `trajectory.first`.
    """

    init: Callable[[jax.Array], PyTree]
    unroll: Callable[[PyTree, Any], jax.Array]
    memoryless: bool = True


def tabular_value(states: int, actions: int | None = None) -> ValueFunction:
    """Return a table of values, [S] or, if `actions` are given, [S, A]; zero at first, NaN for a state not in it."""
    shape = (states,) if actions is None else (states, actions)

    def unroll(params: jax.Array, trajectory: Any) -> jax.Array:
        return jnp.asarray(params).at[trajectory.observation].get(mode="fill", fill_value=jnp.nan)

    return ValueFunction(lambda key: jnp.zeros(shape), unroll)


def mlp_value(
    observation_space: Space,
    actions: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
) -> ValueFunction:
    """Return a network like that of `pgjax.mlp`, near zero at first: v [T, E], or Q [T, E, A] for A = `actions`."""
    network = Network(tuple(hidden), 1 if actions is None else actions, activation)

    def init(key: jax.Array) -> PyTree:
        observation = jnp.zeros(observation_space.shape, observation_space.dtype)
        return network.init(key, features_of(observation_space, observation))

    def unroll(params: PyTree, trajectory: Any) -> jax.Array:
        values = network.apply(params, features_of(observation_space, trajectory.observation))
        return values[..., 0] if actions is None else values

    return ValueFunction(init, unroll)


def value_for(environment: Environment, hidden: Sequence[int] = (64, 64)) -> ValueFunction:
    """Return a fitting v [T, E]: a table over few discrete states, else a network with these hidden layers.

    For images it is that of `pgjax.cnn_value`, else that of `pgjax.mlp_value`.
    """
    return _fitting(environment.observation_space, None, hidden)


def action_value_for(environment: Environment, hidden: Sequence[int] = (64, 64)) -> ValueFunction:
    """Return a fitting Q [T, E, A], as `value_for`.

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


def _fitting(states: Space, actions: int | None, hidden: Sequence[int]) -> ValueFunction:
    from pgjax.policies.cnn import cnn_value, is_image

    if isinstance(states, Discrete) and states.n <= 1024:
        return tabular_value(states.n, actions)
    return (cnn_value if is_image(states) else mlp_value)(states, actions, hidden=hidden)
