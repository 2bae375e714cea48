"""Credit: from the rewards of a trajectory to what each of its steps is judged by.

The estimator of ∇ρ(θ), with ρ(θ) = E[Σ_t γ^{t−1} R_{t+1}] and t counted from the beginning of the episode, is

    Σ_t weight_t (credit_t − baseline_t) ∇ ln f(X_t)_{A_t}.

| credit | credit_t | weight_t | its expectation, with any baseline that cannot know A_t |
|---|---|---|---|
| `whole_episode` | G_1 | 1 | ∇ρ(θ) |
| `reward_to_go` | G_t | 1 | ∇ρ(θ) if γ = 1; else γ^{t−1} is left out, as is usual, and it follows no gradient |
| `discounted_reward_to_go` | G_t | γ^{t−1} | ∇ρ(θ) |
| `lambda_return` | G_t^λ | 1 | as `reward_to_go` if the critic is exact, or λ = 1 and nothing truncates |
| `discounted_lambda_return` | G_t^λ | γ^{t−1} | ∇ρ(θ) under the same condition; else both are biased |

With γ = 1 a λ-return through truncations has no fixed point in a task that can go on for ever, such as CartPole: there,
use γ < 1. For the Monte-Carlo credits ρ counts an episode that is truncated as one that ends there. Baselines with
action values add a term of their own, see `pgjax.policy_gradient`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from pgjax.trajectory import Trajectory


class Online(NamedTuple):
    """What some rows of an episode, [C, E], say of its credit while it still runs.

    A credit that can say so lets Σ_t weight_t credit_t ∇ln f_t be added up as the episode goes on, with a trace
    z = Σ_t later_t ∇ln f_t of the steps so far in place of a trajectory. See `estimators/streaming.py`.
    """

    credit: jax.Array  # [C, E], weight_t · credit_t as far as the rewards up to the last of these rows make it
    earlier: jax.Array  # [E], times z, what these rewards add for the steps before these rows
    later: jax.Array  # [C, E], the weights with which these steps enter z
    fading: jax.Array  # [E], what z is multiplied with over these rows


class Returns(Protocol):
    """The credit of each step, [T, E], zero in padding."""

    def __call__(self, trajectory: Trajectory, hyperparameters: Any, next_values: jax.Array | None, /) -> jax.Array: ...


class Weight(Protocol):
    """What credit − baseline is multiplied with, [T, E]."""

    def __call__(self, trajectory: Trajectory, hyperparameters: Any, /) -> jax.Array: ...


class OnlineCredit(Protocol):
    """The credit of some rows while the episode still runs; so_far, [E], is Σ γ^{t−1} R_{t+1} of the steps before."""

    def __call__(self, rows: Trajectory, hyperparameters: Any, so_far: jax.Array, /) -> Online: ...


class Credit(NamedTuple):
    """What each step of a trajectory is judged by, as pure functions.

    `returns(trajectory, hyperparameters, next_values) -> [T, E]`, zero in padding. `next_values` [T, E] is v(X_{t+1})
    as the baseline predicts it, 0 where the step terminated the episode; it is None where the baseline predicts
    nothing, and a credit that reads it says so by `bootstraps`. `weight(trajectory, hyperparameters) -> [T, E]` is
    what credit − baseline is multiplied with. A credit that needs no trajectory has `online(rows, hyperparameters,
    so_far[E]) -> Online`, where so_far is Σ γ^{t−1} R_{t+1} of the steps before these rows.
    """

    returns: Returns
    weight: Weight
    bootstraps: bool = False
    online: OnlineCredit | None = None


def every_step_alike(trajectory: Trajectory, hyperparameters: Any) -> jax.Array:
    """The weight 1, [T, E]."""
    return jnp.ones_like(trajectory.reward)


def discounted_by_time(trajectory: Trajectory, hyperparameters: Any) -> jax.Array:
    """The weight γ^{t−1}, [T, E]: what step t counts in ρ(θ).

    Source: Thomas, *Bias in natural actor-critic algorithms*, 2014.
    """
    return hyperparameters.discount**trajectory.time


def lambda_returns(
    trajectory: Trajectory, discount: jax.Array | float, trace_decay: jax.Array | float, next_values: jax.Array
) -> jax.Array:
    """G_t^λ = R_{t+1} + γ ((1 − λ) v(X_{t+1}) + λ G_{t+1}^λ), [T, E], 0 in padding.

    After the last step of an episode, γ v(X_{t+1}) alone is to come: so it looks through a truncation, at the value of
    the final observation, and never through a termination, where v is 0. It is TD(λ)'s target; λ = 0 trusts the
    critic after one step, λ = 1 only where an episode was cut off. G_t^λ − v(X_t) is the generalised advantage
    estimate, Σ_k (γλ)^k δ_{t+k} with δ_t = R_{t+1} + γ v(X_{t+1}) − v(X_t).

    Args:
        trajectory: Whose rewards, [T, E].
        discount: γ, [].
        trace_decay: λ, [].
        next_values: v(X_{t+1}), [T, E], 0 where the step terminated the episode.

    Source: Sutton & Barto, *Reinforcement Learning*, 2018, §12.1; Schulman et al., *High-dimensional continuous
    control using generalized advantage estimation*, 2016.
    """

    def backward(following: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        reward, last, value = row
        beyond = jnp.where(last, value, (1 - trace_decay) * value + trace_decay * following)
        following = reward + discount * beyond
        return following, following

    nothing = jnp.zeros_like(trajectory.reward[0])
    _, returns = jax.lax.scan(backward, nothing, (trajectory.reward, trajectory.last, next_values), reverse=True)
    return jnp.where(trajectory.mask, returns, 0)


def rewards_to_go(trajectory: Trajectory, discount: jax.Array | float) -> jax.Array:
    """G_t = Σ_{k ≥ 0} γ^k R_{t+k+1} to the end of the episode, [T, E], 0 in padding.

    Example:
        >>> reward = jnp.array([[1.0], [2.0], [4.0], [0.0]])  # three steps and a row of padding; E = 1
        >>> time = jnp.arange(4)[:, None]
        >>> end, never, real = time == 2, time < 0, time < 3
        >>> episode = Trajectory(time, time, reward, end, never, mask=real, time=time, rows=jnp.int32(3))
        >>> rewards_to_go(episode, discount=0.5)[:, 0].tolist()
        [3.0, 4.0, 4.0, 0.0]
    """
    return lambda_returns(trajectory, discount, 1.0, jnp.zeros_like(trajectory.reward))


def whole_returns(trajectory: Trajectory, discount: jax.Array | float) -> jax.Array:
    """G_1 = Σ_t γ^{t−1} R_{t+1} of the whole episode at every step of it, [T, E], 0 in padding."""

    def forward(current: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first, to_go = row
        current = jnp.where(first, to_go, current)
        return current, current

    before = jnp.zeros_like(trajectory.reward[0])
    _, returns = jax.lax.scan(forward, before, (trajectory.first, rewards_to_go(trajectory, discount)))
    return jnp.where(trajectory.mask, returns, 0)


def whole_episode() -> Credit:
    """The credit that judges every step by G_1.

    Source: the lecture's REINFORCE; Williams, *Simple statistical gradient-following algorithms for connectionist
    reinforcement learning*, 1992.
    """

    def online(rows: Trajectory, hyperparameters: Any, so_far: jax.Array) -> Online:
        earned = jnp.sum(discounted_by_time(rows, hyperparameters) * rows.reward, axis=0)
        alike = jnp.where(rows.mask, 1.0, 0.0)
        return Online(credit=(so_far + earned)[None] * alike, earlier=earned, later=alike, fading=jnp.ones_like(earned))

    def returns(trajectory: Trajectory, hyperparameters: Any, _: Any) -> jax.Array:
        return whole_returns(trajectory, hyperparameters.discount)

    return Credit(returns, every_step_alike, online=online)


def reward_to_go() -> Credit:
    """The credit that judges a step by G_t: what was received before A_t does not depend on it.

    Source: the lecture's "more common gradient estimate"; Sutton & Barto, *Reinforcement Learning*, 2018, §13.3.
    """
    return _to_go(every_step_alike)


def _to_go(weight: Callable[[Trajectory, Any], jax.Array]) -> Credit:
    def returns(trajectory: Trajectory, hyperparameters: Any, _: Any) -> jax.Array:
        return rewards_to_go(trajectory, hyperparameters.discount)

    def online(rows: Trajectory, hyperparameters: Any, so_far: jax.Array) -> Online:
        C, E = rows.reward.shape
        weights = jnp.where(rows.mask, weight(rows, hyperparameters), 0)
        by_row = hyperparameters.discount ** jnp.arange(C + 1)
        earned = jnp.sum(by_row[:-1, None] * rows.reward, axis=0)
        fading = jnp.full(E, by_row[C])
        return Online(
            credit=weights * returns(rows, hyperparameters, None),
            earlier=earned,
            later=weights * by_row[:0:-1, None],
            fading=fading,
        )

    return Credit(returns, weight, online=online)


def discounted_reward_to_go() -> Credit:
    """The credit G_t with the weight γ^{t−1}, with which the gradient of the discounted objective is exact.

    Source: Sutton & Barto, *Reinforcement Learning*, 2018, §13.3; Thomas, *Bias in natural actor-critic algorithms*,
    2014.
    """
    return _to_go(discounted_by_time)


def lambda_return() -> Credit:
    """The credit that judges a step by G_t^λ, see `lambda_returns`; with a learned v(X_t) it is actor-critic.

    λ is the hyper-parameter `trace_decay`. It bootstraps, and so needs a baseline that predicts; `reinforce` refuses
    any other.
    """

    def returns(trajectory: Trajectory, hyperparameters: Any, next_values: jax.Array | None) -> jax.Array:
        assert next_values is not None  # reinforce has refused such a pair
        return lambda_returns(trajectory, hyperparameters.discount, hyperparameters.trace_decay, next_values)

    return Credit(returns, every_step_alike, bootstraps=True)


def discounted_lambda_return() -> Credit:
    """The credit G_t^λ with the weight γ^{t−1}; all else is as in `lambda_return`."""
    return lambda_return()._replace(weight=discounted_by_time)
