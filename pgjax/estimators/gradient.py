"""The policy gradient of some episodes: credits, less a baseline, times scores."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.checks import check_shape
from pgjax.environments.base import Discrete, Environment
from pgjax.errors import InputError
from pgjax.estimators.baselines import Baseline
from pgjax.estimators.returns import Credit
from pgjax.policies.base import Policy
from pgjax.segments import gradient_over_steps, map_over_steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Estimate(NamedTuple):
    """What one trajectory says of ∇ρ(θ)."""

    gradient: PyTree  # like params
    returns: jax.Array  # [T, E], the credit of each step, which a baseline learns from
    entropy: jax.Array  # [], mean over real steps, in nats


def check_baseline(environment: Environment, credit: Credit, baseline: Baseline) -> None:
    """Raise if a credit and a baseline make no estimator together.

    Raises:
        InputError: If the credit bootstraps and the baseline predicts nothing to bootstrap from, if the baseline has a
            value for each action where actions are continuous, or if it predicts in both ways.
    """
    if credit.bootstraps and baseline.state_values is None and baseline.action_values is None:
        raise InputError(
            "expected a baseline that predicts v(X_t) or Q(X_t, ·) (such as learned_value) for a credit that "
            "bootstraps, got one that predicts nothing"
        )
    if baseline.state_values is not None and baseline.action_values is not None:
        raise InputError("expected a baseline that predicts v(X_t) or Q(X_t, ·), got one that predicts both")
    if baseline.action_values is not None and not isinstance(environment.action_space, Discrete):
        raise InputError(
            f"expected discrete actions for a baseline with a value for each, got {environment.name} with actions of "
            f"{type(environment.action_space).__name__}"
        )


def policy_gradient(
    environment: Environment, policy: Policy, credit: Credit, baseline: Baseline
) -> Callable[[PyTree, PyTree, Trajectory, Any], Estimate]:
    """A function (params, baseline state, trajectory, hyperparameters) -> Estimate of ∇ρ(θ).

    The estimate, to ascend, is

        1/E Σ_episodes Σ_t weight_t (credit_t − baseline_t) ∇ ln f(X_t, θ)_{A_t} + c ∇ H(f(X_t, θ))

    and, for a baseline with action values Q, + weight_t Σ_a ∇f(X_t, θ)_a Q(X_t, a).

    Raises:
        InputError: See `check_baseline`; when it is called, if what the credit or the baseline returns has another
            shape than [T, E] (of action values, [T, E, A]).

    Source: the lecture; Sutton, McAllester, Singh & Mansour, *Policy gradient methods for reinforcement learning with
    function approximation*, 2000.
    """
    check_baseline(environment, credit, baseline)
    per_action: tuple[int, ...] = ()
    if baseline.action_values is not None and isinstance(environment.action_space, Discrete):
        per_action = (environment.action_space.n,)

    def state_values(params: PyTree, trajectory: Trajectory, predictions: Any) -> jax.Array:
        """V(X_t) [T, E], for every row: what is predicted of it, or of its actions under the policy."""
        if baseline.state_values is not None:
            return predictions

        def expected(f: Any, rows: Trajectory, Q: jax.Array) -> jax.Array:
            return f.expectation(Q)

        return map_over_steps(policy, expected, params, trajectory, predictions)

    def estimate(params: PyTree, baseline_state: PyTree, trajectory: Trajectory, hyperparameters: Any) -> Estimate:
        shape, predict = trajectory.reward.shape, baseline.state_values or baseline.action_values
        predictions = None if predict is None else predict(baseline_state, trajectory)
        if predictions is not None:
            kind = "action" if per_action else "state"
            check_shape(f"the {kind} values that the baseline predicts", predictions, shape + per_action)
        next_values = None
        if credit.bootstraps:
            values = state_values(params, trajectory, predictions)
            next_values = jnp.where(trajectory.terminated, 0, jnp.roll(values, -1, axis=0))
        returns = credit.returns(trajectory, hyperparameters, next_values)
        check_shape("the returns of the credit", returns, shape)
        subtracted = baseline.values(baseline_state, trajectory, returns, predictions)
        check_shape("the values of the baseline", subtracted, shape)
        weight = credit.weight(trajectory, hyperparameters)
        check_shape("the weights of the credit", weight, shape)
        advantage = jnp.where(trajectory.mask, returns - subtracted, 0)
        weight = jnp.where(trajectory.mask, weight, 0)
        Q = () if baseline.action_values is None else (predictions,)

        def objective(
            f: Any, rows: Trajectory, advantage: jax.Array, weight: jax.Array, *Q: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            """The sum whose gradient is the estimate, and the entropy summed over real steps."""
            entropy = jnp.sum(jnp.where(rows.mask, f.entropy(), 0))
            log_prob = jnp.where(rows.mask, f.log_prob(rows.action), 0)  # −∞ in padding, perhaps
            total = jnp.sum(weight * advantage * log_prob) + hyperparameters.entropy_coefficient * entropy
            return total + sum(jnp.sum(weight * f.expectation(values)) for values in Q), entropy

        total, entropy = gradient_over_steps(policy, objective, params, trajectory, advantage, weight, *Q)
        E = trajectory.reward.shape[1]
        return Estimate(jax.tree.map(lambda leaf: leaf / E, total), returns, entropy / jnp.sum(trajectory.mask))

    return estimate
