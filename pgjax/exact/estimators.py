"""Single-episode estimators of ∇ρ(θ), written as what they multiply each score with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.checks import check_horizon
from pgjax.environments.finite_mdp import FiniteMDP
from pgjax.errors import InputError
from pgjax.exact.solution import _discounts, rewards_of


class Estimator(NamedTuple):
    """A single-episode estimator of ∇ρ(θ), by what it multiplies each score with.

    With C_t = reward_t(X_t, A_t, X_{t+1}) + decay · C_{t+1} the credit (0 when the episode is over), the estimator is

        Σ_t [ weight_t (C_t + past_t − baseline_t(X_t, A_t)) ∇ ln f(X_t)_{A_t} + Σ_a expected_t(X_t, a) ∇ ln f(X_t)_a ],

    where past_t is, if `whole`, the sum of the reward_k of the steps before t, else 0.
    """

    reward: jax.Array  # [T, S, A, S]
    decay: Any  # []
    weight: jax.Array  # [T]
    baseline: jax.Array  # [T, S, A]
    expected: jax.Array  # [T, S, A]
    whole: Any = 0.0  # [], 1 if every step is judged by the whole episode


def _estimator(
    mdp: FiniteMDP,
    horizon: int,
    reward: jax.Array,
    baseline: Any,
    *,
    decay: Any = 1.0,
    weight: jax.Array | None = None,
    expected: jax.Array | None = None,
    whole: float = 0.0,
) -> Estimator:
    """Check the horizon and the baseline, and fill in what most estimators have in common."""
    check_horizon(horizon)
    S, A, _ = mdp.p.shape
    dtype = mdp.d0.dtype
    b = jnp.asarray(baseline, dtype)
    if b.shape not in ((), (S,), (horizon, S)):
        raise InputError(f"expected a baseline of shape [], [S] = ({S},) or [T, S] = ({horizon}, {S}), got {b.shape}")
    b = b.reshape((1,) * (2 - b.ndim) + b.shape)[..., None]
    return Estimator(
        reward=jnp.broadcast_to(reward, (horizon, S, A, S)),
        decay=decay,
        weight=jnp.ones(horizon, dtype) if weight is None else weight,
        baseline=jnp.broadcast_to(b, (horizon, S, A)),
        expected=jnp.zeros((horizon, S, A), dtype) if expected is None else expected,
        whole=whole,
    )


def whole_episode_estimator(mdp: FiniteMDP, horizon: int, discount: Any = 1.0, baseline: Any = 0.0) -> Estimator:
    """Σ_t (G_1 − b_t(X_t)) ∇ ln f(X_t)_{A_t}, with a baseline b of shape [], [S] or [T, S].

    Raises:
        InputError: If the horizon is below 1, or the baseline of another shape.
    """
    scale = _discounts(mdp, horizon, discount).reshape(-1, 1, 1, 1)
    return _estimator(mdp, horizon, scale * rewards_of(mdp)[None], baseline, whole=1.0)


def reward_to_go_estimator(mdp: FiniteMDP, horizon: int, discount: Any = 1.0, baseline: Any = 0.0) -> Estimator:
    """Σ_t γ^{t−1} (G_t − b_t(X_t)) ∇ ln f(X_t)_{A_t}, with a baseline b of shape [], [S] or [T, S].

    Raises:
        InputError: If the horizon is below 1, or the baseline of another shape.
    """
    weight = _discounts(mdp, horizon, discount)
    return _estimator(mdp, horizon, rewards_of(mdp)[None], baseline, decay=discount, weight=weight)


def lambda_return_estimator(
    mdp: FiniteMDP, horizon: int, discount: Any, trace_decay: Any, values: jax.Array
) -> Estimator:
    """Σ_t γ^{t−1} (G_t^λ − v_t(X_t)) ∇ ln f(X_t)_{A_t}, with the critic's values v of shape [S] or [T, S].

    G_t^λ = R_{t+1} + γ ((1 − λ) v_{t+1}(X_{t+1}) + λ G_{t+1}^λ), and nothing is to come when the episode is over.

    Raises:
        InputError: If the horizon is below 1.

    Source: see `pgjax.estimators.lambda_returns`.
    """
    S = mdp.d0.size
    v = jnp.broadcast_to(values if values.ndim == 2 else values[None], (horizon, S))
    following = jnp.concatenate([v[1:], jnp.zeros((1, S), v.dtype)]) * ~mdp.terminal[None]
    reward = rewards_of(mdp)[None] + discount * (1 - trace_decay) * following[:, None, None, :]
    weight = _discounts(mdp, horizon, discount)
    return _estimator(mdp, horizon, reward, v, decay=discount * trace_decay, weight=weight)


def expected_policy_gradient_estimator(
    mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any, action_values: jax.Array
) -> Estimator:
    """Σ_t γ^{t−1} Σ_a ∇f(X_t)_a Q_t(X_t, a), with the critic's values Q of shape [S, A] or [T, S, A].

    It is for the policy whose table is f, [S, A].

    Raises:
        InputError: If the horizon is below 1.

    Source: see `pgjax.estimators.expected_policy_gradient`.
    """
    weight, Q = _discounts(mdp, horizon, discount), _by_time(mdp, horizon, action_values)
    expected = weight.reshape(-1, 1, 1) * f[None] * Q
    nothing = jnp.zeros((1, 1, 1, 1), mdp.d0.dtype)
    return _estimator(mdp, horizon, nothing, 0.0, weight=jnp.zeros_like(weight), expected=expected)


def action_value_estimator(
    mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any, action_values: jax.Array
) -> Estimator:
    """Σ_t γ^{t−1} [(G_t − Q_t(X_t, A_t)) ∇ ln f(X_t)_{A_t} + Σ_a ∇f(X_t)_a Q_t(X_t, a)].

    Arguments and errors are those of `expected_policy_gradient_estimator`.

    Source: see `pgjax.learned_action_value`.
    """
    expected = expected_policy_gradient_estimator(mdp, horizon, f, discount, action_values).expected
    return reward_to_go_estimator(mdp, horizon, discount)._replace(
        baseline=_by_time(mdp, horizon, action_values), expected=expected
    )


def _by_time(mdp: FiniteMDP, horizon: int, action_values: jax.Array) -> jax.Array:
    """Q [T, S, A] of Q [S, A] or [T, S, A]."""
    Q = action_values if action_values.ndim == 3 else action_values[None]
    return jnp.broadcast_to(Q, (horizon, *mdp.p.shape[:2]))
