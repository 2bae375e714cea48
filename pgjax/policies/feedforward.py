"""A multilayer perceptron over the flattened observation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.environments.spaces import Space, Spaces
from pgjax.policies.base import Policy, ValueFunction
from pgjax.policies.networks import Network, features_of, outputs_for, policy_of, value_of


def mlp(
    observation_space: Spaces,
    action_space: Space,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    product_dtype: Any = jnp.float32,
) -> Policy:
    """A network policy: Categorical for a `Discrete` action space, diagonal Gaussian for a `Box`.

    A discrete observation enters one-hot, any other flattened, and the parts of a pytree one after the other. For a Box
    the network's output is in units of the box's half-width around its centre (where a side is infinite: of 1 around
    0), and the standard deviations are parameters of their own, at first 0.6 of that unit, whatever the observation.

    Args:
        observation_space: What it sees.
        action_space: What it chooses from; a Box must have shape [d].
        hidden: Widths of the hidden layers.
        activation: Applied after each of them.
        product_dtype: What the operands of matrix products are rounded to: float32, or bfloat16, which an accelerator
            multiplies faster; parameters, sums and all else are float32.

    Raises:
        InputError: If the actions are arrays of another shape than [d].
    """
    network = Network(tuple(hidden), outputs_for(action_space), activation, product_dtype)

    return policy_of(network, partial(features_of, observation_space), observation_space, action_space)


def mlp_value(
    observation_space: Spaces,
    actions: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
) -> ValueFunction:
    """A network like that of `pgjax.mlp`, near zero at first: v [T, E], or Q [T, E, A] for A = `actions`."""
    network = Network(tuple(hidden), 1 if actions is None else actions, activation)
    return value_of(network, partial(features_of, observation_space), observation_space, actions)
