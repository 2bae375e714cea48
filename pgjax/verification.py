"""Hold estimators of ∇ρ(θ) to the exact gradient: sample them often, and ask whether their mean could be it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import stats

from pgjax.baselines import Baseline
from pgjax.environments.environment import PyTree
from pgjax.environments.finite import FiniteMDP, finite
from pgjax.errors import InputError
from pgjax.exact import gradient
from pgjax.policies.policy import Policy
from pgjax.reinforce import policy_gradient, reinforce
from pgjax.returns import Credit
from pgjax.rollout import Trajectory, collect

WARMING = 3  # updates after which a baseline is no longer what it was at first


class Candidate(NamedTuple):
    """An estimator to be held to the exact gradient."""

    credit: Credit
    baseline: Baseline
    seen: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory  # what it makes of the trajectory first


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
    """Return what the largest |z| of so many unbiased components exceeds with at most this probability (Bonferroni)."""
    return float(stats.norm.isf(error_rate / 2 / components))


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
    """Sample estimators of ∇ρ(θ) and compare their means with the exact gradient; all see the same episodes.

    A sample is what one update estimates from `episodes` slots. By Wald's identity its expectation is E[episodes of a
    slot] ∇ρ(θ) if it is unbiased, so N/E ∇ρ(θ) is taken off each, with N the episodes it has seen. A baseline
    has learned from a few other trajectories before, and then stays as it is.

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
        InputError: If there is nothing to sample, or a credit and a baseline make no estimator together.
    """
    if samples < 1 or batch < 1 or samples % batch:
        raise InputError(f"expected a positive multiple of the batch of {batch} as samples, got {samples}")
    environment = finite(mdp, horizon)
    rollout = collect(environment, policy, episodes, steps)
    numbers = reinforce(environment, policy).hyperparameters(**hyperparameters)
    exact, _ = ravel_pytree(gradient(mdp, horizon, policy, params, numbers.discount))
    estimators = {
        name: policy_gradient(environment, policy, candidate.credit, candidate.baseline)
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
    return {name: Verdict(_z(first[name], second[name], samples), seen) for name in candidates}


def _z(first: np.ndarray, second: np.ndarray, samples: int) -> np.ndarray:
    """Return the mean in units of its standard error; 0 where every sample was 0."""
    mean = first / samples
    error = np.sqrt(np.maximum(second / samples - mean**2, 0) / samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(second == 0, 0, mean / error)
