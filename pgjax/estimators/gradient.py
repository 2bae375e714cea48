"""The policy gradient of some episodes: credits, less a baseline, times scores.

It is made in two steps: episodes are *judged*, once, with the parameters that collected them; then their objective is
*differentiated*, at whatever the parameters are by now, over all steps or some.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.checks import check_shape
from pgjax.environments.base import Environment
from pgjax.environments.spaces import Discrete
from pgjax.errors import InputError
from pgjax.estimators.baselines import Baseline
from pgjax.estimators.objectives import Objective, OfEpisodes, log_ratios, score_function
from pgjax.estimators.returns import Credit
from pgjax.estimators.scales import Scale
from pgjax.policies.base import Policy
from pgjax.segments import gradient_over_steps, map_over_steps
from pgjax.steps import Steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Estimate(NamedTuple):
    """What one trajectory says of ∇ρ(θ)."""

    gradient: PyTree  # like params
    returns: jax.Array  # [T, E], the credit of each step, which a baseline learns from
    entropy: jax.Array  # [], mean over real steps, in nats
    notes: Mapping[str, jax.Array] = {}  # each [], the mean over real steps of what the objective notes


class Judged(NamedTuple):
    """What is made of a trajectory once, with the parameters that collected it: constants to whatever follows."""

    advantage: jax.Array  # weight_t (credit_t − baseline_t), scaled, [T, E], 0 in padding
    returns: jax.Array  # credit_t, [T, E]
    weighted: tuple[Any, ...]  # of a baseline with action values: weight_t [T, E] and Q [T, E, A]; else nothing


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


def judging(
    environment: Environment, policy: Policy, credit: Credit, baseline: Baseline, scale: Scale | None = None
) -> Callable[[PyTree, PyTree, Trajectory, Any], Judged]:
    """A function (params, baseline state, trajectory, hyperparameters) -> Judged: the advantage of each step.

    Args:
        environment: Where the trajectory comes from.
        policy: Who acted.
        credit: What each step is judged by.
        baseline: What is subtracted from it.
        scale: What is made of the differences of all steps together, if anything.

    Raises:
        InputError: See `check_baseline`, or if advantages are to be scaled beside a baseline with action values, whose
            own term stays as it is; when it is called, if what the credit or the baseline returns has another shape
            than [T, E] (of action values, [T, E, A]).
    """
    check_baseline(environment, credit, baseline)
    if scale is not None and baseline.action_values is not None:
        raise InputError("expected advantages without a scale beside a baseline with action values, got a scale")
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

    def judge(params: PyTree, baseline_state: PyTree, trajectory: Trajectory, hyperparameters: Any) -> Judged:
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
        if baseline.of_policy is not None:
            predictions = baseline.of_policy(params, trajectory, returns)
        subtracted = baseline.values(baseline_state, trajectory, returns, predictions)
        check_shape("the values of the baseline", subtracted, shape)
        weight = credit.weight(trajectory, hyperparameters)
        check_shape("the weights of the credit", weight, shape)
        weight = jnp.where(trajectory.mask, weight, 0)
        if baseline.spread is not None:
            weight = weight / baseline.spread(baseline_state)
        advantage = weight * jnp.where(trajectory.mask, returns - subtracted, 0)
        if scale is not None:
            advantage = jnp.where(trajectory.mask, scale(advantage, trajectory), 0)
            check_shape("the scaled advantages", advantage, shape)
        return Judged(advantage, returns, () if baseline.action_values is None else (weight, predictions))

    return judge


def differentiating(policy: Policy, objective: Objective) -> Callable[..., Estimate]:
    """A function (params, trajectory, judged, hyperparameters, steps=None) -> Estimate of ∇ρ(θ), at these parameters.

    With some `Steps` of the trajectory, the sum over them stands for that over all: it is multiplied with how many
    times as many all are.

    Args:
        policy: Whose parameters.
        objective: What is ascended.
    """

    def estimate(
        params: PyTree, trajectory: Trajectory, judged: Judged, hyperparameters: Any, steps: Steps | None = None
    ) -> Estimate:
        def total(f: Any, rows: Trajectory, advantage: jax.Array, *weighted: jax.Array) -> tuple[jax.Array, Any]:
            """The sum whose gradient is the estimate, and the entropy and notes summed over real steps."""
            entropy = jnp.sum(jnp.where(rows.mask, f.entropy(), 0))
            terms = objective(f, rows, advantage)
            ascended = jnp.sum(terms.ascended) + hyperparameters.entropy_coefficient * entropy
            if weighted:
                weight, Q = weighted
                ascended = ascended + jnp.sum(weight * f.expectation(Q))
            notes = {name: jnp.sum(jnp.where(rows.mask, note, 0)) for name, note in terms.notes.items()}
            return ascended, (entropy, notes)

        advantage = judged.advantage
        if isinstance(objective, OfEpisodes):
            advantage = objective.weigh(map_over_steps(policy, log_ratios, params, trajectory), trajectory, advantage)
        given = (advantage, *judged.weighted)
        gradient, (entropy, notes) = gradient_over_steps(policy, total, params, trajectory, *given, steps=steps)
        E, count = trajectory.reward.shape[1], jnp.sum(trajectory.mask)
        divisor: Any = E
        if steps is not None:  # of which there may be none, where real steps are fewer than minibatches
            number = jnp.maximum(steps.number, 1)
            divisor, count = E * number / count, number
        gradient = jax.tree.map(lambda leaf: leaf / divisor, gradient)
        notes = {name: note / count for name, note in notes.items()}
        return Estimate(gradient, judged.returns, entropy / count, notes)

    return estimate


def policy_gradient(
    environment: Environment,
    policy: Policy,
    credit: Credit,
    baseline: Baseline,
    *,
    objective: Objective | None = None,
    scale: Scale | None = None,
) -> Callable[[PyTree, PyTree, Trajectory, Any], Estimate]:
    """A function (params, baseline state, trajectory, hyperparameters) -> Estimate of ∇ρ(θ).

    The estimate, to ascend, is

        1/E Σ_episodes Σ_t weight_t (credit_t − baseline_t) ∇ ln f(X_t, θ)_{A_t} + c ∇ H(f(X_t, θ))

    and, for a baseline with action values Q, + weight_t Σ_a ∇f(X_t, θ)_a Q(X_t, a). An objective takes the place of
    ln f, and a scale that of the advantages, see `estimators/objectives.py` and `estimators/scales.py`.

    Raises:
        InputError: See `judging`.

    Source: the lecture; Sutton, McAllester, Singh & Mansour, *Policy gradient methods for reinforcement learning with
    function approximation*, 2000.
    """
    judge = judging(environment, policy, credit, baseline, scale)
    differentiate = differentiating(policy, score_function() if objective is None else objective)

    def estimate(params: PyTree, baseline_state: PyTree, trajectory: Trajectory, hyperparameters: Any) -> Estimate:
        judged = judge(params, baseline_state, trajectory, hyperparameters)
        return differentiate(params, trajectory, judged, hyperparameters)

    return estimate
