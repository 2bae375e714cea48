"""Baselines that episodes are to each other: of the other slots of a group, of all, or of one that is greedy.

With as many of the same start (`reinforce(group_size=...)`) as make a group, whatever a start adds to every return
changes nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pgjax.errors import InputError
from pgjax.estimators.baselines import Baseline, no_baseline
from pgjax.policies.base import Policy
from pgjax.segments import gradient_over_steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def _check_group(group_size: int | None, name: str) -> None:
    """Raise an InputError unless a group, where one is asked for, has two slots or more."""
    if group_size is not None and group_size < 2:
        raise InputError(f"expected groups of 2 or more for {name}, got {group_size}")


def _of_other_slots(per_slot: jax.Array, group_size: int | None, name: str = "a leave-one-out baseline") -> jax.Array:
    """The sum over all slots of its group but one's own, for [..., E]."""
    E = per_slot.shape[-1]
    group = E if group_size is None else group_size
    if group < 2 or E % group:
        expected = "2 or more slots" if group_size is None else f"groups of 2 or more that divide {E} slots"
        raise InputError(f"expected {expected} for {name}, got {group}")
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
    _check_group(group_size, "a leave-one-out baseline")

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
    _check_group(group_size, "a leave-one-out baseline")

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
    _check_group(group_size, "a group's mean")

    def values(state: PyTree, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        first = jnp.where(trajectory.first, returns, 0)
        own = jnp.sum(first, axis=0, keepdims=True)
        others = _of_other_slots(first.sum(0), group_size, "a group's mean")
        episodes = _of_other_slots(jnp.sum(trajectory.first, axis=0, dtype=returns.dtype), group_size)
        left_out = jnp.broadcast_to(others / episodes, returns.shape)
        return left_out + (own - left_out) / group_size

    return no_baseline()._replace(values=values, online=False)


def greedy_of_group(group_size: int) -> Baseline:
    """The baseline that is the G_1 of the last episode of a group, which `greedy_in_groups` plays without chance.

    That one is not judged itself: its advantage is 0. The others' are K/(K − 1) (credit − G_1 of the greedy episode),
    for groups of K, so that the sum over all K stands for as many of them. The greedy episode knows nothing of the
    actions of the others, so there is no bias. It takes one episode a slot.

    Args:
        group_size: K; 2 for one greedy episode beside each sampled one, as the source has it.

    Raises:
        InputError: If K is below 2; when it is called, if K does not divide the slots.

    Source: Li et al., *ReMax: a simple, effective, and efficient reinforcement learning method for aligning large
    language models*, 2024.
    """
    _check_group(group_size, "the greedy episode's return")

    def values(state: PyTree, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        E = returns.shape[1]
        if E % group_size:
            raise InputError(f"expected groups that divide {E} slots for the greedy episode's return, got {group_size}")
        own = jnp.sum(jnp.where(trajectory.first, returns, 0), axis=0)
        greedy = jnp.repeat(own[group_size - 1 :: group_size], group_size)[None]
        judged = (jnp.arange(E) % group_size != group_size - 1)[None]
        return returns - jnp.where(judged, group_size / (group_size - 1) * (returns - greedy), 0)

    return no_baseline()._replace(values=values, online=False)


def variance_optimal(policy: Policy, group_size: int | None = None) -> Baseline:
    """The constant with which the estimate varies least, computed of the *other* slots.

    With W = Σ_t credit_t ∇ ln f_t and Z = Σ_t ∇ ln f_t of a slot, W − b Z has the least variance, summed over the
    parameters, at b = E[W·Z]/E[Z·Z]; for the credit G_1 that is E[G_1 ‖Z‖²]/E[‖Z‖²]. Both expectations are taken over
    the other slots, of all or of a group, which know nothing of the actions that are judged: there is no bias, and b is
    the optimal one as slots become many. It costs two more gradients.

    Args:
        policy: f, whose scores these are.
        group_size: See `leave_one_out`.

    Raises:
        InputError: See `leave_one_out`.

    Source: Greensmith, Bartlett & Baxter, *Variance reduction techniques for gradient estimates in reinforcement
    learning*, 2004, §4.
    """
    name = "a variance-optimal baseline"
    _check_group(group_size, name)

    def weighted(f: Any, rows: Trajectory, weight: jax.Array) -> tuple[jax.Array, tuple[()]]:
        return jnp.sum(weight * jnp.where(rows.mask, f.log_prob(rows.action), 0)), ()

    def of_policy(params: PyTree, trajectory: Trajectory, returns: jax.Array) -> jax.Array:
        def products(e: jax.Array) -> tuple[jax.Array, jax.Array]:
            slot, credit = jax.tree.map(lambda leaf: leaf[:, e, None] if leaf.ndim else leaf, (trajectory, returns))
            weights = jnp.where(slot.mask, credit, 0), slot.mask.astype(credit.dtype)
            W, Z = (gradient_over_steps(policy, weighted, params, slot, weight)[0] for weight in weights)
            return optax.tree.vdot(W, Z), optax.tree.vdot(Z, Z)

        WZ, ZZ = (_of_other_slots(of, group_size, name) for of in jax.vmap(products)(jnp.arange(returns.shape[1])))
        return jnp.broadcast_to(jnp.where(ZZ > 0, WZ / jnp.where(ZZ > 0, ZZ, 1), 0), returns.shape)

    return no_baseline()._replace(
        values=lambda state, trajectory, returns, predictions: predictions, of_policy=of_policy, online=False
    )
