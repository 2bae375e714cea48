"""Ways to sample from a policy: at another temperature, from its likeliest actions alone, or in some slots greedily.

Each is a policy again. Log-probabilities are always those of the distribution that is sampled from, in `step` and in
`unroll`, but for greedy slots, which stay out of what is learned from.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.errors import InputError
from pgjax.policies.base import Policy
from pgjax.policies.distributions import Distribution
from pgjax.trees import PyTree


def adjusted(policy: Policy, adjust: Callable[[jax.Array], jax.Array]) -> Policy:
    """A policy, Categorical or of several such choices, whose logits [..., n] are replaced by a function of them."""

    def adjusted(f: Any) -> Distribution:
        return f._replace(logits=adjust(f.logits))

    def step(params: PyTree, memory: PyTree, observation: Any) -> tuple[PyTree, Distribution]:
        memory, f = policy.step(params, memory, observation)
        return memory, adjusted(f)

    def unroll(params: PyTree, trajectory: Any) -> Distribution:
        return adjusted(policy.unroll(params, trajectory))

    def resume(params: PyTree, memory: PyTree, trajectory: Any) -> tuple[PyTree, Distribution]:
        memory, f = policy.resume(params, memory, trajectory)  # type: ignore[misc]
        return memory, adjusted(f)

    return policy._replace(step=step, unroll=unroll, resume=resume if policy.resume else None)


def at_temperature(policy: Policy, temperature: float) -> Policy:
    """The Categorical policy with probabilities ∝ f^{1/temperature}: sharper below 1, flatter above.

    Raises:
        InputError: If the temperature is not above 0 or not finite.
    """
    if not 0 < temperature < float("inf"):
        raise InputError(f"expected a finite temperature above 0, got {temperature}")
    return adjusted(policy, lambda logits: logits / temperature)


def top_k(policy: Policy, k: int) -> Policy:
    """The policy that chooses among the k likeliest actions alone, and those as likely as the last of them.

    Raises:
        InputError: If k is below 1.

    Source: Fan, Lewis & Dauphin, *Hierarchical neural story generation*, 2018.

    Example:
        >>> from pgjax.policies.base import memoryless
        >>> from pgjax.policies.distributions import Categorical
        >>> policy = memoryless(lambda key: jnp.zeros(3), lambda theta, x: Categorical(theta))
        >>> theta, x = jnp.array([2.0, 1.0, 0.0]), jnp.int32(0)
        >>> top_k(policy, 2).step(theta, (), x)[1].logits.tolist()
        [2.0, 1.0, -inf]
    """
    if k < 1:
        raise InputError(f"expected 1 or more actions to choose from, got {k}")

    def adjust(logits: jax.Array) -> jax.Array:
        least = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
        return jnp.where(logits >= least, logits, -jnp.inf)

    return adjusted(policy, adjust)


def top_p(policy: Policy, p: float) -> Policy:
    """The policy that chooses among the fewest likeliest actions that together have a probability of p or more.

    Raises:
        InputError: If p is not above 0 and at most 1.

    Source: Holtzman et al., *The curious case of neural text degeneration*, 2020.
    """
    if not 0 < p <= 1:
        raise InputError(f"expected a probability above 0 and at most 1, got {p}")

    def adjust(logits: jax.Array) -> jax.Array:
        likeliest = -jnp.sort(-logits, axis=-1)
        probability = jax.nn.softmax(likeliest)
        needed = jnp.cumsum(probability, axis=-1) - probability < p  # what stands before it is not yet enough
        least = jnp.min(jnp.where(needed, likeliest, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(logits >= least, logits, -jnp.inf)

    return adjusted(policy, adjust)


class _PartlyGreedy(NamedTuple):
    """A distribution [E] that takes its likeliest action in the last slot of each group."""

    of: Any
    group_size: int

    def sample(self, key: jax.Array) -> jax.Array:
        drawn, likeliest = self.of.sample(key), self.of.mode()
        greedy = jnp.arange(len(drawn)) % self.group_size == self.group_size - 1
        return jnp.where(greedy.reshape(-1, *(1,) * (drawn.ndim - 1)), likeliest, drawn)

    def log_prob(self, action: jax.Array) -> jax.Array:
        return self.of.log_prob(action)

    def entropy(self) -> jax.Array:
        return self.of.entropy()


def greedy_in_groups(policy: Policy, group_size: int) -> Policy:
    """The policy that takes the likeliest action in the last slot of each group, and draws one in the others.

    Log-probabilities are the policy's own everywhere. What is learned from must leave the greedy slots out, as the
    baseline `greedy_of_group` does.

    Args:
        policy: f, whose distributions have a `mode()`, as Categorical and Gaussian do.
        group_size: K, so many slots beside each other.

    Raises:
        InputError: If K is below 2; when it acts, if the policy's distributions have no mode.
    """
    if group_size < 2:
        raise InputError(f"expected groups of 2 or more with a greedy slot each, got {group_size}")

    def step(params: PyTree, memory: PyTree, observation: Any) -> tuple[PyTree, Distribution]:
        memory, f = policy.step(params, memory, observation)
        if not hasattr(f, "mode"):
            raise InputError(f"expected a policy whose distributions have a mode, got {type(f).__name__}")
        return memory, _PartlyGreedy(f, group_size)

    return policy._replace(step=step)
