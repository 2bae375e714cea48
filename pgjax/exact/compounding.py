"""How the errors of an imitator compound over an episode, in a problem small enough to compute.

On a *road*, one action of many keeps to it, and any other leads off it, where each step costs 1. There again one action
leads back. The expert, who never leaves the road, would return at once; who has never seen what is beside the road has
no more than chance to. On a *cliff* nothing leads back.

`cloned` and `corrected` are what behaviour cloning and DAgger come to with all the data they could ask for and an
imitator that is wrong with probability ε wherever it has been taught: the error rate under the distribution it was
trained on is ε for both. Over T steps, as long as εT and T/A are small, the cost of the first grows as εT², that of the
second as εT, and on the cliff as εT² for both.

Sources: Ross & Bagnell, *Efficient reductions for imitation learning*, 2010; Ross, Gordon & Bagnell, *A reduction of
imitation learning and structured prediction to no-regret online learning*, 2011.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.finite_mdp import FiniteMDP, tables
from pgjax.errors import InputError
from pgjax.exact.solution import expected_return, state_distribution

ON, OFF = 0, 1  # the states


def road(actions: int = 1024, cliff: bool = False) -> FiniteMDP:
    """The tables of the road, or of the cliff: states `ON` and `OFF`, of which episodes start in the first.

    Action 0 keeps to the road, and leads back to it unless it is a cliff. R_{t+1} = −1 for each step from a state off
    the road.

    Args:
        actions: A, at least 2; who tries them by chance needs A steps to find back.
        cliff: Whether nothing leads back.

    Raises:
        InputError: If there are too few actions.
    """
    if actions < 2:
        raise InputError(f"expected 2 or more actions, got {actions}")
    p = np.zeros((2, actions, 2))
    p[:, 0, ON] = p[:, 1:, OFF] = 1
    if cliff:
        p[OFF] = [0, 1]
    return tables([1, 0], p, np.broadcast_to([[0], [-1]], (2, actions)))


def taught(expert: jax.Array, seen: jax.Array, error: Any) -> jax.Array:
    """The policy of an imitator, [S, A], that was taught what the expert does in the states it has seen.

    There it does so with probability 1 − ε, and something else with equal chances; elsewhere anything with equal
    chances, as a softmax policy that was never trained.

    Args:
        expert: [S, A], a deterministic policy, a table of zeros and ones.
        seen: [S] bool.
        error: ε, [].
    """
    A = expert.shape[1]
    return jnp.where(seen[:, None], expert * (1 - error) + (1 - expert) * error / (A - 1), 1 / A)


def cloned(mdp: FiniteMDP, horizon: int, expert: jax.Array, error: Any) -> jax.Array:
    """What behaviour cloning comes to, [S, A]: taught where the expert goes.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        expert: [S, A], its policy, deterministic.
        error: ε, the probability of another action than the expert's where it is taught, [].

    Raises:
        InputError: If the horizon is below 1, or a policy is not of shape [S, A].
    """
    return taught(expert, jnp.any(state_distribution(mdp, horizon, expert) > 0, axis=0), error)


def corrected(mdp: FiniteMDP, horizon: int, expert: jax.Array, error: Any) -> jax.Array:
    """What DAgger comes to, [S, A]: taught where it goes itself. Arguments and errors are those of `cloned`."""
    seen = jnp.any(state_distribution(mdp, horizon, expert) > 0, axis=0)
    for _ in seen:  # as many rounds as there are states are enough
        f = taught(expert, seen, error)
        seen = seen | jnp.any(state_distribution(mdp, horizon, f) > 0, axis=0)
    return taught(expert, seen, error)


def error_rate(mdp: FiniteMDP, horizon: int, f: jax.Array, expert: jax.Array, roll_in: jax.Array) -> jax.Array:
    """How often f differs from the expert in the states that a roll_in meets, [].

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        f: [S, A], a policy.
        expert: [S, A], the deterministic one it is compared with.
        roll_in: [S, A], who acts.

    Raises:
        InputError: See `cloned`.
    """
    visits = jnp.sum(state_distribution(mdp, horizon, roll_in), axis=0)
    return visits @ jnp.sum(f * (1 - expert), axis=1) / jnp.sum(visits)


def cost(mdp: FiniteMDP, horizon: int, f: jax.Array, expert: jax.Array) -> jax.Array:
    """How much less than the expert a policy earns in an episode, ρ* − ρ, [], without discount.

    Arguments and errors are those of `error_rate`.
    """
    return expected_return(mdp, horizon, expert) - expected_return(mdp, horizon, f)


def exponent(horizons: Any, costs: Any) -> float:
    """The k of cost ∝ T^k that fits best: the slope of the least-squares line through the logarithms.

    Args:
        horizons: T, [n], above 0, two or more different ones.
        costs: Of each, [n], above 0.

    Example:
        >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
        2.0
    """
    return float(np.polyfit(np.log(np.asarray(horizons, float)), np.log(np.asarray(costs, float)), 1)[0])
