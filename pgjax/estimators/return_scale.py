"""Advantages in units of the returns so far."""

from typing import Any

import jax

from pgjax.estimators.baselines import Baseline
from pgjax.moments import deviation, merged, moments_of, no_moments
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def normalized_returns(baseline: Baseline) -> Baseline:
    """The baseline, with advantages divided by the standard deviation of all returns of earlier updates.

    The learning rate then does not depend on the scale of rewards, and neither does the weight of an entropy. What is
    divided by has not seen the episodes that are judged, so that the gradient keeps its direction: for a given
    deviation its expectation is ∇ρ(θ) divided by it. In the first update it is 1.

    Args:
        baseline: What is subtracted before.

    Source: Engstrom et al., *Implementation matters in deep policy gradients*, 2020, who divide rewards.
    """

    def init(key: jax.Array, hyperparameters: Any) -> PyTree:
        return baseline.init(key, hyperparameters), no_moments()

    def update(state: PyTree, trajectory: Trajectory, returns: jax.Array) -> PyTree:
        moments = merged(state[1], moments_of(returns, trajectory.mask))
        return baseline.update(state[0], trajectory, returns), moments

    def within(function: Any) -> Any:
        return None if function is None else lambda state, *arguments: function(state[0], *arguments)

    return Baseline(
        init=init,
        values=within(baseline.values),
        update=update,
        state_values=within(baseline.state_values),
        action_values=within(baseline.action_values),
        spread=lambda state: deviation(state[1]),
    )
