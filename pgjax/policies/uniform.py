"""The policy that chooses by chance alone: what anything learned should beat."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Environment
from pgjax.environments.spaces import Box, batch_of, mask_of
from pgjax.errors import InputError
from pgjax.policies.base import Policy, allowed, memoryless
from pgjax.policies.distributions import Categorical, Distribution, MultiCategorical


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
    if not isinstance(actions, Box):
        kind = MultiCategorical if actions.shape else Categorical

        def choose(params: Any, observation: Any) -> Distribution:
            logits = jnp.zeros((*batch_of(observations, observation), *actions.allowed.shape))
            return kind(allowed(actions, logits, mask_of(observation)))

        return memoryless(lambda key: (), choose)
    low, high = (np.broadcast_to(np.asarray(bound, float), actions.shape) for bound in (actions.low, actions.high))
    if len(actions.shape) != 1 or not np.isfinite(high - low).all():
        raise InputError(f"expected bounded actions of shape [d] in {environment.name}, got {actions}")

    def draw(params: Any, observation: Any) -> Distribution:
        shape = (*batch_of(observations, observation), *actions.shape)
        return Uniform(*(jnp.broadcast_to(jnp.asarray(bound, float), shape) for bound in (low, high)))  # type: ignore[return-value]

    return memoryless(lambda key: (), draw)
