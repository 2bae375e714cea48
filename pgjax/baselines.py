"""Baselines: what is subtracted from a return, so that only better than expected counts as good.

A baseline that does not depend on the action it judges leaves the expected gradient as it is, and can lower its
variance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.environment import PyTree
from pgjax.errors import InputError
from pgjax.rollout import Trajectory


class Baseline(NamedTuple):
    """A baseline, as pure functions.

    `init(key, hyperparameters) -> state`; `values(state, trajectory, returns[T, E]) -> [T, E]`, what to subtract from
    the returns; `update(state, trajectory, returns) -> state`, called once an update, after `values`.
    """

    init: Callable[[jax.Array, Any], PyTree]
    values: Callable[[PyTree, Trajectory, jax.Array], jax.Array]
    update: Callable[[PyTree, Trajectory, jax.Array], PyTree]


def _nothing(*_: Any) -> tuple[()]:
    return ()


def no_baseline() -> Baseline:
    """Return the baseline that is 0."""
    return Baseline(_nothing, lambda state, trajectory, returns: jnp.zeros_like(returns), _nothing)


class RunningAverage(NamedTuple):
    """The lecture's ρ̂, and how slowly it moves."""

    rho_hat: jax.Array  # []
    beta: jax.Array  # []


def running_average() -> Baseline:
    """Return the lecture's ρ̂: 0 at first, and ρ̂ ← β ρ̂ + (1 − β) G_1 after each update.

    β is the hyper-parameter `baseline_decay`. With several episodes an update, G_1 is their mean. An update uses the ρ̂
    of before it, which has not seen the actions it judges.
    """

    def init(key: jax.Array, hyperparameters: Any) -> RunningAverage:
        return RunningAverage(jnp.zeros(()), hyperparameters.baseline_decay)

    def values(state: RunningAverage, trajectory: Trajectory, returns: jax.Array) -> jax.Array:
        return jnp.broadcast_to(state.rho_hat, returns.shape)

    def update(state: RunningAverage, trajectory: Trajectory, returns: jax.Array) -> RunningAverage:
        rho = jnp.sum(jnp.where(trajectory.first, returns, 0)) / trajectory.episodes
        return state._replace(rho_hat=state.beta * state.rho_hat + (1 - state.beta) * rho)

    return Baseline(init, values, update)


def _of_other_slots(per_slot: jax.Array) -> jax.Array:
    """Return the sum over all slots but one's own, for [..., E]."""
    E = per_slot.shape[-1]
    if E < 2:
        raise InputError(f"expected 2 or more episodes an update for a leave-one-out baseline, got {E}")
    return jnp.sum(per_slot, axis=-1, keepdims=True) - per_slot


def leave_one_out() -> Baseline:
    """Return the mean return G_1 of the *other* slots' episodes, the same for every step of a slot.

    It is left out by slot, not by episode: where a slot holds several episodes, how many of them there are depends on
    their own actions. With one episode a slot, G_1 − baseline = E/(E − 1) · (G_1 − mean).
    Source: Kool, van Hoof & Welling, *Buy 4 REINFORCE samples, get a baseline for free!*, 2019.
    """

    def values(state: PyTree, trajectory: Trajectory, returns: jax.Array) -> jax.Array:
        others = _of_other_slots(jnp.sum(jnp.where(trajectory.first, returns, 0), axis=0))
        episodes = _of_other_slots(jnp.sum(trajectory.first, axis=0, dtype=returns.dtype))
        return jnp.broadcast_to(others / episodes, returns.shape)

    return Baseline(_nothing, values, _nothing)


def leave_one_out_by_time() -> Baseline:
    """Return, for step t of an episode, the mean return at step t of the *other* slots' episodes.

    An episode that was over by then counts as 0, the return to go when nothing is to come; so this belongs to the
    reward-to-go credits. See `leave_one_out` for why slots are left out whole.
    """

    def values(state: PyTree, trajectory: Trajectory, returns: jax.Array) -> jax.Array:
        T, E = returns.shape
        slot = jnp.broadcast_to(jnp.arange(E), (T, E))
        per_time = (
            jnp.zeros((T, E), returns.dtype).at[trajectory.time, slot].add(jnp.where(trajectory.mask, returns, 0))
        )
        episodes = _of_other_slots(jnp.sum(trajectory.first, axis=0, dtype=returns.dtype))
        return (_of_other_slots(per_time) / episodes[None])[trajectory.time, slot]

    return Baseline(_nothing, values, _nothing)
