"""What logged episodes say of another policy than the one that played them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.errors import InputError
from pgjax.policies.base import Policy
from pgjax.trajectory import Trajectory


class OffPolicyValue(NamedTuple):
    """What logged episodes say of the expected return of another policy than the one that played them."""

    unbiased: jax.Array  # [], by importance sampling
    self_normalized: jax.Array  # [], with weights divided by their mean: biased a little, of less variance
    effective_episodes: jax.Array  # [], (Σ w)² / Σ w², the episodes that such weights are worth; 1 to E


def importance_sampling(trajectory: Trajectory, policy: Policy, params: Any) -> OffPolicyValue:
    """Estimate ρ of a policy, without discount, from episodes that another one played.

    R_{t+1} is weighted by w_t = Π_{s ≤ t} f(X_s)_{A_s} / b(X_s)_{A_s}, where f is the policy and b the one that played,
    and averaged over episodes. Weights vary the more, the longer episodes are and the further f is from b, and b must
    be able to do all that f can.

    Args:
        trajectory: [T, E] with b's `log_prob`, one episode a slot.
        policy: f.
        params: Its parameters.

    Raises:
        InputError: If the trajectory has no log-probabilities.

    Source: Horvitz & Thompson, *A generalization of sampling without replacement from a finite universe*, 1952; for
    each step's reward, Precup, Sutton & Singh, *Eligibility traces for off-policy policy evaluation*, 2000; effective
    number: Kish, *Survey sampling*, 1965.
    """
    if trajectory.log_prob is None:
        raise InputError("expected a trajectory with the log-probabilities of its actions, got none")
    log_prob = policy.unroll(params, trajectory).log_prob(trajectory.action)
    log_ratio = jnp.where(trajectory.mask, log_prob - trajectory.log_prob, 0)
    weight = jnp.exp(jnp.cumsum(log_ratio, axis=0))  # [T, E]
    paid = jnp.mean(weight * trajectory.reward, axis=1)
    final = weight[-1]
    return OffPolicyValue(
        jnp.sum(paid),
        jnp.sum(paid / jnp.mean(weight, axis=1)),
        jnp.sum(final) ** 2 / jnp.sum(final**2),
    )
