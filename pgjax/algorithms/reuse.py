"""Reuse of a batch: several optimizer steps on episodes that were judged once.

An epoch goes once through all that was collected, in minibatches, each with an optimizer step of its own: for a policy
without memory a minibatch is some of the real steps, wherever they are; for one with memory some of the slots, since
an episode is differentiated from its beginning. Each epoch is shuffled anew. Advantages stay those of the parameters
that collected; only the objective is looked at where the parameters are by then.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax.algorithms.divergence import kl_gradient, mean_kl, nearby
from pgjax.batching import choose, together
from pgjax.errors import InputError
from pgjax.estimators.gradient import Estimate, Judged
from pgjax.estimators.objectives import Objective
from pgjax.policies.base import Policy, has_memory
from pgjax.steps import Steps, shuffled_steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Told(NamedTuple):
    """What is reported of an update's optimizer steps: the mean over them, each []."""

    entropy: jax.Array  # in nats
    gradient_norm: jax.Array
    notes: Mapping[str, jax.Array]  # of the objective


class Reuse(NamedTuple):
    """How often a batch is used, and how far the policy may move from the one that collected it."""

    epochs: int = 1
    minibatches: int = 1
    max_kl: float | None = None  # nats a step, beyond which no further epoch begins
    kl_coefficient: float = 0.0  # of an episode's KL(f_old ‖ f) in the objective


def check_reuse(policy: Policy, slots: int, reuse: Reuse) -> None:
    """Raise unless a batch can be used so.

    Raises:
        InputError: If a count or a number is out of range, nothing can be stopped, or minibatches of whole episodes do
            not divide the slots.
    """
    epochs, minibatches, max_kl, kl_coefficient = reuse
    for name, count in {"epochs": epochs, "minibatches": minibatches}.items():
        if count < 1:
            raise InputError(f"expected 1 or more {name}, got {count}")
    if max_kl is not None and not max_kl > 0:
        raise InputError(f"expected a divergence to stop at above 0, got {max_kl}")
    if max_kl is not None and epochs == 1:
        raise InputError("expected 2 or more epochs beside max_kl, which stops between them, got 1")
    if not 0 <= kl_coefficient < float("inf"):
        raise InputError(f"expected a finite coefficient of 0 or more for a divergence, got {kl_coefficient}")
    if has_memory(policy) and slots % minibatches:
        raise InputError(
            f"expected minibatches of whole episodes that divide {slots} slots, for a policy with memory, got "
            f"{minibatches}"
        )


def minibatches_of(policy: Policy, minibatches: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions: the order of an epoch, of a key and a trajectory; and a minibatch of it, by number.

    A minibatch is (trajectory, judged, steps), as `differentiating` takes them: some steps of them all, or all steps of
    some slots.
    """

    def shuffled(key: jax.Array, trajectory: Trajectory) -> Any:
        if minibatches == 1:
            return None
        if has_memory(policy):
            return jax.random.permutation(key, trajectory.mask.shape[1])
        return shuffled_steps(key, trajectory)

    def minibatch(
        order: Any, number: jax.Array, trajectory: Trajectory, judged: Judged
    ) -> tuple[Trajectory, Judged, Steps | None]:
        if order is None:
            return trajectory, judged, None
        if isinstance(order, Steps):
            bounds = [order.end * n // minibatches for n in (number, number + 1)]
            return trajectory, judged, Steps(order.places, *bounds)
        size = trajectory.mask.shape[1] // minibatches
        slots = jax.lax.dynamic_slice_in_dim(order, number * size, size)
        some, theirs = jax.tree.map(lambda leaf: leaf[:, slots] if leaf.ndim else leaf, (trajectory, judged))
        return some, theirs, None

    return shuffled, minibatch


def reusing(
    policy: Policy,
    objective: Objective,
    differentiate: Callable[..., Estimate],
    ascend: Callable[..., PyTree],
    reuse: Reuse,
) -> Callable[..., tuple[PyTree, Told]]:
    """A function (key, state, trajectory, judged, mean return) -> (state, Told): all optimizer steps of an update.

    Args:
        policy: Whose parameters are `state.params`.
        objective: What is ascended.
        differentiate: See `differentiating`; it is given `state.hyperparameters`.
        ascend: From a state, a gradient, a mean return and what is near to the state after an optimizer step.
        reuse: How often all that was collected is gone through, and in how many parts.
    """
    epochs, minibatches, max_kl, kl_coefficient = reuse
    limit = float("inf") if max_kl is None else max_kl
    shuffled, minibatch = minibatches_of(policy, minibatches)

    def one(
        state: Any, old: PyTree, mean_return: jax.Array, trajectory: Trajectory, judged: Judged, steps: Any = None
    ) -> tuple[Any, Told]:
        found = differentiate(state.params, trajectory, judged, state.hyperparameters, steps)
        gradient = found.gradient
        if kl_coefficient:
            away = kl_gradient(policy, old, state.params, trajectory, steps)
            gradient = optax.tree.add_scale(gradient, -kl_coefficient, away)
        told = Told(found.entropy, optax.tree.norm(gradient), found.notes)
        return ascend(state, gradient, mean_return, nearby(policy, objective, state.params, trajectory, judged)), told

    def improve(
        key: jax.Array, state: Any, trajectory: Trajectory, judged: Judged, mean_return: jax.Array
    ) -> tuple[Any, Told]:
        old = state.params
        if epochs == minibatches == 1:
            return one(state, old, mean_return, trajectory, judged)

        def epoch(i: jax.Array, carry: tuple[Any, Told]) -> tuple[Any, Told]:
            order = shuffled(jax.random.fold_in(key, i), trajectory)

            def part(number: jax.Array, carry: tuple[Any, Told]) -> tuple[Any, Told]:
                state, told = carry
                state, more = one(state, old, mean_return, *minibatch(order, number, trajectory, judged))
                return state, jax.tree.map(jnp.add, told, more)

            return jax.lax.fori_loop(0, minibatches, part, carry)

        def epoch_within(i: jax.Array, carry: tuple[Any, Told, jax.Array, jax.Array]) -> Any:
            """An epoch, unless the policy is too far by now."""
            *before, done, kl = carry

            def further() -> Any:
                state, told = epoch(i, tuple(before))
                after = (state, told, done + 1, mean_kl(policy, old, state.params, trajectory))
                return jax.tree.map(lambda new, kept: choose(kl <= limit, new, kept), after, carry)

            return jax.lax.cond(together(kl <= limit), further, lambda: carry)

        _, told = jax.eval_shape(one, state, old, mean_return, trajectory, judged)
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), told)
        if max_kl is None:
            state, total = jax.lax.fori_loop(0, epochs, epoch, (state, zero))
            return state, jax.tree.map(lambda leaf: leaf / (epochs * minibatches), total)
        begun = (state, zero, jnp.int32(0), jnp.zeros(()))
        state, total, done, kl = jax.lax.fori_loop(0, epochs, epoch_within, begun)
        mean = jax.tree.map(lambda leaf: leaf / (done * minibatches), total)
        return state, mean._replace(notes={**mean.notes, "policy_kl": kl, "epochs": done.astype(kl.dtype)})

    return improve
