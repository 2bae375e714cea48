"""The policy that chooses by chance alone: what anything learned should beat."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Discrete, Environment
from pgjax.errors import InputError
from pgjax.policies.base import Policy, memoryless
from pgjax.policies.distributions import Categorical, Distribution


class Uniform(NamedTuple):
    """Independent uniform distributions, one for each of d numbers, between bounds."""

    low: jax.Array  # [..., d]
    high: jax.Array  # [..., d]

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw actions [..., d]."""
        return self.low + (self.high - self.low) * jax.random.uniform(key, self.low.shape, self.low.dtype)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """The log-density [...] of actions [..., d]; −inf outside."""
        inside = jnp.all((action >= self.low) & (action <= self.high), axis=-1)
        return jnp.where(inside, -self.entropy(), -jnp.inf)

    def entropy(self) -> jax.Array:
        """The differential entropy [...]."""
        return jnp.sum(jnp.log(self.high - self.low), axis=-1)


def random_policy(environment: Environment) -> Policy:
    """The policy that takes every action that may be taken with the same probability, or density.

    It has no parameters.

    Raises:
        InputError: If actions are arrays of another shape than [d], or not bounded.
    """
    actions, observations = environment.action_space, environment.observation_space
    if isinstance(actions, Discrete):
        low = high = np.where(actions.allowed, 0.0, -np.inf)
    else:
        low, high = (np.broadcast_to(np.asarray(bound, float), actions.shape) for bound in (actions.low, actions.high))
        if len(actions.shape) != 1 or not np.isfinite(high - low).all():
            raise InputError(f"expected bounded actions of shape [d] in {environment.name}, got {actions}")

    def apply(params: Any, observation: jax.Array) -> Distribution:
        batch = observation.shape[: observation.ndim - len(observations.shape)]
        first, last = (jnp.broadcast_to(jnp.asarray(bound, float), (*batch, len(bound))) for bound in (low, high))
        return Categorical(first) if isinstance(actions, Discrete) else Uniform(first, last)  # type: ignore[return-value]

    return memoryless(lambda key: (), apply)
