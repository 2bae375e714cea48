"""A table of logits: the policy that can be anything, and that exact results are computed for."""

import jax
import jax.numpy as jnp

from pgjax.policies.distributions import Categorical
from pgjax.policies.policy import Policy, memoryless


def tabular(states: int, actions: int) -> Policy:
    """Return the softmax policy with a logit for each of S states and A actions: θ = [S, A], zero at first.

    Every f(X_t) then starts uniform. The gradient of ln f(s)_a is 1{a' = a} − f(s)_{a'} in row s, and zero elsewhere.
    """

    def init(key: jax.Array) -> jax.Array:
        return jnp.zeros((states, actions))

    def apply(params: jax.Array, observation: jax.Array) -> Categorical:
        return Categorical(params.at[observation].get(mode="fill", fill_value=jnp.nan))

    return memoryless(init, apply)
