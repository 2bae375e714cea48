"""Credit: from the rewards of a trajectory to the return that each of its steps is judged by.

A credit is a function `(trajectory, discount) -> returns[T, E]`, zero in padding. With γ the discount and t counted
from the beginning of the episode, the estimator Σ_t (credit_t − baseline_t) ∇ ln f(X_t)_{A_t} has as its expectation
the gradient of ρ_γ(θ) = E[Σ_t γ^{t−1} R_{t+1}] for `whole_episode` and `discounted_reward_to_go`. For `reward_to_go` it
does at γ = 1; below, it leaves out the factor γ^{t−1}, as is usual, and follows no gradient of an objective exactly.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax.rollout import Trajectory

Credit = Callable[[Trajectory, jax.Array], jax.Array]


def reward_to_go(trajectory: Trajectory, discount: jax.Array) -> jax.Array:
    """Return G_t = Σ_{k ≥ 0} γ^k R_{t+k+1} to the end of the episode, [T, E].

    What was received before A_t does not depend on it, and is left out.
    Source: the lecture's "more common gradient estimate"; Sutton & Barto, *Reinforcement Learning*, 2018, §13.3.
    """

    def backward(following: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, last = row
        following = reward + discount * jnp.where(last, 0, following)
        return following, following

    beyond = jnp.zeros_like(trajectory.reward[0])
    _, returns = jax.lax.scan(backward, beyond, (trajectory.reward, trajectory.last), reverse=True)
    return jnp.where(trajectory.mask, returns, 0)


def whole_episode(trajectory: Trajectory, discount: jax.Array) -> jax.Array:
    """Return G_1 = Σ_t γ^{t−1} R_{t+1} of the whole episode for every step of it, [T, E].

    Source: the lecture's REINFORCE; Williams, *Simple statistical gradient-following algorithms for connectionist
    reinforcement learning*, 1992.
    """

    def forward(current: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first, to_go = row
        current = jnp.where(first, to_go, current)
        return current, current

    before = jnp.zeros_like(trajectory.reward[0])
    to_go = reward_to_go(trajectory, discount)
    _, returns = jax.lax.scan(forward, before, (trajectory.first, to_go))
    return jnp.where(trajectory.mask, returns, 0)


def discounted_reward_to_go(trajectory: Trajectory, discount: jax.Array) -> jax.Array:
    """Return γ^{t−1} G_t, [T, E]: the reward-to-go as it counts from the beginning of the episode.

    With it the gradient of the discounted objective is exact.
    Source: Thomas, *Bias in natural actor-critic algorithms*, 2014.
    """
    return discount**trajectory.time * reward_to_go(trajectory, discount)
