"""Hold estimators of ∇ρ(θ) to the exact gradient: sample them often, and ask whether their mean could be it.

`verify` does it for any credit and baseline. `unbiased` lists those of pgjax that must pass, and `broken` some with a
mistake each, of the kind that learns anyway and is not noticed: a check that does not catch them is none.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.flatten_util import ravel_pytree

from pgjax.algorithms.on_policy import reinforce
from pgjax.environments.finite_mdp import FiniteMDP, finite
from pgjax.errors import InputError
from pgjax.estimators import baselines, groups
from pgjax.estimators.baselines import Baseline
from pgjax.estimators.gradient import policy_gradient
from pgjax.estimators.objectives import Objective, clipped_ratio, importance_ratio, sequence_ratio
from pgjax.estimators.returns import (
    Credit,
    discounted_lambda_return,
    discounted_reward_to_go,
    lambda_return,
    reward_to_go,
    rewards_to_go,
    whole_episode,
)
from pgjax.estimators.scales import Scale
from pgjax.exact.solution import Solution, gradient
from pgjax.policies.base import Policy
from pgjax.policies.tables import tabular_value, tabular_value_by_time
from pgjax.rollout import collect
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree

RATIOS = {
    "importance ratio": importance_ratio(),
    "clipped ratio": clipped_ratio(),
    "clipped ratio of the episode": sequence_ratio(),
}
WARMING = 3  # updates after which a baseline is no longer what it was at first


class Candidate(NamedTuple):
    """An estimator to be held to the exact gradient."""

    credit: Credit
    baseline: Baseline
    seen: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory  # what it makes of the trajectory first
    objective: Objective | None = None  # the score function, if not given
    scale: Scale | None = None  # none, if not given


class Verdict(NamedTuple):
    """What sampling says of an estimator."""

    z: np.ndarray  # [d], mean deviation from the exact gradient in standard errors, a number for each parameter
    episodes: int  # that it rests on

    @property
    def components(self) -> int:
        """How many parameters the estimator moves at all."""
        return int(np.sum(self.z != 0))

    @property
    def max_abs_z(self) -> float:
        """The largest |z|."""
        return float(np.abs(self.z).max())


def largest_z_by_chance(components: int, error_rate: float = 0.01) -> float:
    """What the largest |z| of so many unbiased components exceeds with at most this probability (Bonferroni).

    Example:
        >>> round(largest_z_by_chance(984), 2)
        4.41
    """
    return float(scipy.stats.norm.isf(error_rate / 2 / components))


def verify(
    mdp: FiniteMDP,
    horizon: int,
    policy: Policy,
    params: PyTree,
    candidates: Mapping[str, Candidate],
    *,
    episodes: int = 2,
    steps: int = 0,
    samples: int = 65536,
    batch: int = 8192,
    seed: int = 0,
    **hyperparameters: Any,
) -> dict[str, Verdict]:
    """Sample estimators of ∇ρ(θ) and return, by name, how their means compare with the exact gradient.

    A sample is what one update estimates from `episodes` slots. By Wald's identity its expectation is E[episodes of a
    slot] ∇ρ(θ) if it is unbiased, so N/E ∇ρ(θ) is taken off each, with N the episodes it has seen. All estimators see
    the same episodes. A baseline has learned from a few other trajectories before, and then stays as it is.

    Args:
        mdp: The problem's tables.
        horizon: T.
        policy: f, without memory.
        params: θ, where the gradient is taken.
        candidates: The estimators, by name.
        episodes: E, slots of an update.
        steps: A slot starts another episode while it has used fewer rows than this; 0 for one episode a slot.
        samples: How many, a multiple of `batch`.
        batch: Sampled at a time.
        seed: Of the episodes.
        hyperparameters: Those of `reinforce` that are not its defaults: discount, trace_decay, …

    Raises:
        InputError: If there is nothing to sample, a credit and a baseline make no estimator together, or the policy
            does not fit the tables or has a memory.

    Source: Wald, *On cumulative sums of random variables*, 1944, for the identity.
    """
    if samples < 1 or batch < 1 or samples % batch:
        raise InputError(f"expected a positive multiple of the batch of {batch} as samples, got {samples}")
    environment = finite(mdp, horizon)
    rollout = collect(environment, policy, episodes, steps)
    numbers = reinforce(environment, policy).hyperparameters(**hyperparameters)
    exact, _ = ravel_pytree(gradient(mdp, horizon, policy, params, numbers.discount))
    estimators = {
        name: policy_gradient(
            environment,
            policy,
            candidate.credit,
            candidate.baseline,
            objective=candidate.objective,
            scale=candidate.scale,
        )
        for name, candidate in candidates.items()
    }

    def warm(key: jax.Array) -> dict[str, PyTree]:
        states = {name: candidate.baseline.init(key, numbers) for name, candidate in candidates.items()}
        for i in range(WARMING):
            trajectory = rollout(jax.random.fold_in(key, i), params, mdp)
            for name, candidate in candidates.items():
                seen = candidate.seen(trajectory)
                returns = estimators[name](params, states[name], seen, numbers).returns
                states[name] = candidate.baseline.update(states[name], seen, returns)
        return states

    def deviations(key: jax.Array, states: dict[str, PyTree]) -> tuple[dict[str, jax.Array], jax.Array]:
        trajectory = rollout(key, params, mdp)
        found = {}
        for name, candidate in candidates.items():
            seen = candidate.seen(trajectory)
            estimate, _ = ravel_pytree(estimators[name](params, states[name], seen, numbers).gradient)
            found[name] = estimate - seen.episodes / episodes * exact
        return found, trajectory.episodes

    sample = jax.jit(jax.vmap(deviations, (0, None)))
    warming, sampling = jax.random.split(jax.random.key(seed))
    states = jax.jit(warm)(warming)
    first = {name: np.zeros(exact.size) for name in candidates}
    second = {name: np.zeros(exact.size) for name in candidates}
    seen = 0
    for i in range(samples // batch):
        found, counts = sample(jax.random.split(jax.random.fold_in(sampling, i), batch), states)
        seen += int(counts.sum())
        for name in candidates:
            values = np.asarray(found[name], np.float64)
            first[name] += values.sum(0)
            second[name] += (values**2).sum(0)
    rounding = 16 * float(jnp.finfo(exact.dtype).eps * jnp.abs(exact).max())  # matters where nothing is left to chance
    return {name: Verdict(_z(first[name], second[name], samples, rounding), seen) for name in candidates}


def _z(first: np.ndarray, second: np.ndarray, samples: int, rounding: float) -> np.ndarray:
    """The mean in units of its standard error; 0 where every sample was 0, inf where one was not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean = first / samples
        error = np.sqrt(np.maximum(second / samples - mean**2, 0) / samples + rounding**2)
        z = np.where(second == 0, 0, mean / np.where(error > 0, error, 1))
    return np.where(np.isfinite(first) & np.isfinite(second), z, np.inf)


def unbiased(solution: Solution, discount: float, policy: Policy | None = None) -> dict[str, Candidate]:
    """Every credit × baseline whose expectation is ∇ρ(θ), for a problem whose solution is known.

    With γ < 1 those without the weight γ^{t−1} are not among them. Some want two episodes an update or more. Those
    which look at the policy, a v of every step and, at θ_old, the objectives of importance ratios are there if the
    policy is given. What is not there: `greedy_of_group`, which is unbiased where a `greedy_in_groups` policy plays.
    """
    T, S, A = solution.action_values.shape
    subtracted = {
        "0": baselines.no_baseline(),
        "ρ̂": baselines.running_average(),
        "others' mean": groups.leave_one_out(),
        "leave-one-out mean per step": groups.leave_one_out_by_time(),
        "learned v": baselines.learned_value(tabular_value(S)),
        "learned Q control variate": baselines.learned_action_value(tabular_value(S, A)),
        "exact v": baselines.given_values(solution.values),
    }
    if policy is not None:
        subtracted["variance-optimal constant"] = groups.variance_optimal(policy)
        subtracted["learned v that sees the time"] = baselines.learned_value(tabular_value_by_time(T, S))
    judged = {"G_1": whole_episode(), "γ^t G_t": discounted_reward_to_go()}
    bootstrapped = {"γ^t G_t^λ": discounted_lambda_return()}
    if discount == 1:
        judged["G_t"] = reward_to_go()
        bootstrapped["G_t^λ"] = lambda_return()
    found = {
        f"{name} − {what}": Candidate(credit, baseline)
        for name, credit in judged.items()
        for what, baseline in subtracted.items()
    }
    for name, credit in bootstrapped.items():
        found[f"{name} − exact v"] = Candidate(credit, subtracted["exact v"])
        exact_Q = baselines.given_action_values(solution.action_values)
        found[f"{name}, expected policy gradient of the exact Q"] = Candidate(credit, exact_Q)
    if policy is not None:
        for what, objective in RATIOS.items():
            found[f"γ^t G_t, {what}"] = Candidate(discounted_reward_to_go(), subtracted["0"], objective=objective)
    return found


def one_step_late() -> Credit:
    """The credit G_{t+1} for step t: the reward of the action itself is missed."""

    def returns(trajectory: Trajectory, hyperparameters: Any, _: Any) -> jax.Array:
        to_go = rewards_to_go(trajectory, hyperparameters.discount)
        return jnp.where(trajectory.last, 0, jnp.roll(to_go, -1, axis=0)) * trajectory.mask

    return discounted_reward_to_go()._replace(returns=returns)


def updated_before_use() -> Baseline:
    """The running average that has taken in the very episodes it judges."""
    proper = baselines.running_average()

    def values(state: Any, trajectory: Trajectory, returns: jax.Array, predictions: Any) -> jax.Array:
        return proper.values(proper.update(state, trajectory, returns), trajectory, returns, predictions)

    return proper._replace(values=values)


def nobody_left_out() -> Baseline:
    """The mean over all episodes of the update, one's own among them."""

    def values(state: Any, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        return jnp.full_like(returns, jnp.sum(jnp.where(trajectory.first, returns, 0)) / trajectory.episodes)

    return baselines.no_baseline()._replace(values=values)


def sees_its_action(action_values: jax.Array) -> Baseline:
    """The baseline Q_t(X_t, A_t), without putting back what that takes away."""
    known = baselines.given_action_values(action_values)

    def values(state: Any, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        Q = known.action_values(state, trajectory)  # type: ignore[misc]
        return jnp.take_along_axis(Q, trajectory.action[..., None], axis=-1)[..., 0]

    return baselines.no_baseline()._replace(values=values)


def without_unfinished(steps: int) -> Callable[[Trajectory], Trajectory]:
    """What drops the episodes that are not over when the budget of steps is spent."""

    def finished(trajectory: Trajectory) -> Trajectory:
        def backward(inside: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            last, in_time = row
            inside = jnp.where(last, in_time, inside)
            return inside, inside

        rows = jnp.arange(trajectory.mask.shape[0])[:, None]
        in_time = jnp.broadcast_to(rows < steps, trajectory.mask.shape)
        kept = jax.lax.scan(backward, in_time[0], (trajectory.last, in_time), reverse=True)[1] & trajectory.mask
        return trajectory._replace(
            mask=kept,
            reward=jnp.where(kept, trajectory.reward, 0),
            terminated=trajectory.terminated & kept,
            truncated=trajectory.truncated & kept,
        )

    return finished


def broken(solution: Solution, discount: float, steps: int) -> dict[str, Candidate]:
    """Estimators with a mistake each, which their means must betray in this setting."""
    to_go, none = discounted_reward_to_go(), baselines.no_baseline()
    wrong = {
        "reward-to-go one step late": Candidate(one_step_late(), none),
        "ρ̂ updated before use": Candidate(to_go, updated_before_use()),
        "own episode not left out": Candidate(whole_episode(), nobody_left_out()),
        "baseline sees its action": Candidate(to_go, sees_its_action(solution.action_values)),
        "λ-return of a wrong critic": Candidate(discounted_lambda_return(), baselines.given_values(-solution.values)),
    }
    if discount < 1:
        wrong["γ^{t−1} left out"] = Candidate(reward_to_go(), none)
    if steps:
        wrong["unfinished episodes dropped"] = Candidate(to_go, none, without_unfinished(steps))
    return wrong
