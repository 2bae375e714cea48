"""Baselines that episodes are to each other: means over a group of slots, others' or all.

With as many of the same start (`reinforce(group_size=...)`) as make a group, whatever a start adds to every return
changes nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax.errors import InputError
from pgjax.estimators.baselines import Baseline, no_baseline
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def _of_other_slots(per_slot: jax.Array, group_size: int | None) -> jax.Array:
    """The sum over all slots of its group but one's own, for [..., E]."""
    E = per_slot.shape[-1]
    group = E if group_size is None else group_size
    if group < 2 or E % group:
        expected = "2 or more slots" if group_size is None else f"groups of 2 or more that divide {E} slots"
        raise InputError(f"expected {expected} for a leave-one-out baseline, got {group}")
    grouped = per_slot.reshape(*per_slot.shape[:-1], E // group, group)
    return (jnp.sum(grouped, axis=-1, keepdims=True) - grouped).reshape(per_slot.shape)


def leave_one_out(group_size: int | None = None) -> Baseline:
    """The baseline that is the mean G_1 of the *other* slots' episodes, the same for every step of a slot.

    The others are all, or those of groups of so many slots beside each other: with as many of the same start
    (`reinforce(group_size=...)`), whatever a start adds to every return changes nothing.

    It is left out by slot, not by episode: where a slot holds several episodes, how many of them there are depends on
    their own actions. With one episode a slot and groups of K (all E, if not given), G_1 − baseline =
    K/(K − 1) · (G_1 − the mean of its group).

    Args:
        group_size: K; all slots, if not given.

    Raises:
        InputError: If K is below 2; when it is called, if K does not divide the slots, or there is only one.

    Source: Kool, van Hoof & Welling, *Buy 4 REINFORCE samples, get a baseline for free!*, 2019.
    """
    if group_size is not None and group_size < 2:
        raise InputError(f"expected groups of 2 or more for a leave-one-out baseline, got {group_size}")

    def values(state: PyTree, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        others = _of_other_slots(jnp.sum(jnp.where(trajectory.first, returns, 0), axis=0), group_size)
        episodes = _of_other_slots(jnp.sum(trajectory.first, axis=0, dtype=returns.dtype), group_size)
        return jnp.broadcast_to(others / episodes, returns.shape)

    return no_baseline()._replace(values=values, online=False)


def leave_one_out_by_time(group_size: int | None = None) -> Baseline:
    """The baseline that is, for step t of an episode, the mean return at step t of the *other* slots' episodes.

    The others are those of `leave_one_out`, where it is also said why slots are left out whole. An episode that was
    over by then counts as 0, the return to go when nothing is to come; so this belongs to the reward-to-go credits.

    Raises:
        InputError: See `leave_one_out`.
    """
    if group_size is not None and group_size < 2:
        raise InputError(f"expected groups of 2 or more for a leave-one-out baseline, got {group_size}")

    def values(state: PyTree, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        T, E = returns.shape
        slot = jnp.broadcast_to(jnp.arange(E), (T, E))
        per_time = (
            jnp.zeros((T, E), returns.dtype).at[trajectory.time, slot].add(jnp.where(trajectory.mask, returns, 0))
        )
        episodes = _of_other_slots(jnp.sum(trajectory.first, axis=0, dtype=returns.dtype), group_size)
        return (_of_other_slots(per_time, group_size) / episodes[None])[trajectory.time, slot]

    return no_baseline()._replace(values=values, online=False)


def group_mean(group_size: int) -> Baseline:
    """The baseline that is the mean G_1 of a group, one's own among them, the same for every step of a slot.

    G_1 − baseline is that of `leave_one_out` times (K − 1)/K for groups of K, of one episode a slot: its own episode
    shortens the expected gradient by 1/K, and leaves its direction.

    Args:
        group_size: K.

    Raises:
        InputError: If K is below 2; when it is called, if K does not divide the slots.

    Source: Shao et al., *DeepSeekMath*, 2024 (GRPO), §4.1.
    """
    others = leave_one_out(group_size)

    def values(state: PyTree, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        own = jnp.sum(jnp.where(trajectory.first, returns, 0), axis=0, keepdims=True)
        left_out = others.values(state, trajectory, returns, None)
        return left_out + (own - left_out) / group_size

    return others._replace(values=values)
