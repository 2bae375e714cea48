"""How many episodes an update is worth: exactly, along an ascent, and as an optimizer tells while learning."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax import exact
from pgjax.environments import FiniteMDP
from pgjax.policies import Policy
from pgjax.trees import PyTree


def along_ascent(
    mdp: FiniteMDP, horizon: int, policy: Policy, episodes: Sequence[int], learning_rate: float, looks: Sequence[int]
) -> dict[str, Any]:
    """Returns, noise scales and uses of an episode along exact gradient ascent, as plain numbers.

    Of an update of E episodes with a leave-one-out mean per step, the use of an episode is |∇ρ|² / (|∇ρ|² + V_E), what
    the update gains of the most that one could, over E. The noise scale is E V_E / |∇ρ|² of the largest E.

    Args:
        mdp: The problem.
        horizon: T, steps of an episode.
        policy: One of exact gradients.
        episodes: Numbers E of episodes; the use is relative to that of the first.
        learning_rate: η of the ascent.
        looks: Steps of the ascent after which one looks, in rising order.
    """

    @jax.jit
    def look(theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        gradient = exact.gradient(mdp, horizon, policy, theta)
        spread = [jnp.trace(exact.leave_one_out_by_time_covariance(mdp, horizon, policy, theta, E)) for E in episodes]
        rho = exact.expected_return(mdp, horizon, exact.probabilities(mdp, policy, theta))
        return rho, jnp.sum(gradient**2), jnp.stack(spread)

    ascend = jax.jit(lambda theta: theta + learning_rate * exact.gradient(mdp, horizon, policy, theta))
    theta, rows, E = policy.init(jax.random.key(0)), [], np.array(episodes)
    for steps in np.diff(looks, prepend=0):
        for _ in range(steps):
            theta = ascend(theta)
        rho, signal, spread = (np.asarray(x, float) for x in look(theta))
        rows.append((rho, E[-1] * spread[-1] / signal, *signal / (signal + spread) / E))
    returns, scales, *uses = np.array(rows).T
    return {
        "returns": returns.tolist(),
        "noise_scale": scales.tolist(),
        "use": [(use / uses[0]).tolist() for use in uses],
    }


class Gathered(NamedTuple):
    """What has been gathered for an update."""

    total: PyTree  # sum of gradients
    square: jax.Array  # sum of their squared lengths
    number: jax.Array  # of gradients


def until_seen(learning_rate: Any) -> optax.GradientTransformation:
    """Plain ascent along the mean of gradients that are gathered until it is longer than its standard error.

    Source: after the norm test of Byrd, Chin, Nocedal & Wu, *Sample size selection in optimization methods for machine
    learning*, 2012.
    """

    def init(params: PyTree) -> Gathered:
        return Gathered(jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()))

    def update(gradient: PyTree, state: Gathered, params: PyTree = None) -> tuple[PyTree, Gathered]:
        total = optax.tree.add(state.total, gradient)
        square, n = state.square + optax.tree.norm(gradient, squared=True), state.number + 1
        mean = optax.tree.scale(1 / n, total)
        length = optax.tree.norm(mean, squared=True)
        seen = (n > 1) & ((square / n - length) / jnp.maximum(n - 1, 1) <= length)
        going_on = jnp.where(seen, 0.0, 1.0)
        step = optax.tree.scale(jnp.where(seen, -learning_rate, 0.0), mean)
        return step, Gathered(optax.tree.scale(going_on, total), square * going_on, n * going_on)

    return optax.GradientTransformation(init, update)
