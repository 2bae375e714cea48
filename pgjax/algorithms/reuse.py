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

from pgjax.errors import InputError
from pgjax.estimators.gradient import Estimate, Judged
from pgjax.policies.base import Policy, has_memory
from pgjax.segments import Steps, shuffled_steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Told(NamedTuple):
    """What is reported of an update's optimizer steps: the mean over them, each []."""

    entropy: jax.Array  # in nats
    gradient_norm: jax.Array
    notes: Mapping[str, jax.Array]  # of the objective


def check_reuse(policy: Policy, slots: int, epochs: int, minibatches: int) -> None:
    """Raise unless a batch can be used so often.

    Raises:
        InputError: If a count is below 1, or minibatches of whole episodes do not divide the slots.
    """
    for name, count in {"epochs": epochs, "minibatches": minibatches}.items():
        if count < 1:
            raise InputError(f"expected 1 or more {name}, got {count}")
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
    differentiate: Callable[..., Estimate],
    ascend: Callable[[PyTree, PyTree, jax.Array], PyTree],
    epochs: int,
    minibatches: int,
) -> Callable[..., tuple[PyTree, Told]]:
    """A function (key, state, trajectory, judged, mean return) -> (state, Told): all optimizer steps of an update.

    Args:
        policy: Whose parameters are `state.params`.
        differentiate: See `differentiating`; it is given `state.hyperparameters`.
        ascend: From a state, a gradient and a mean return to the state after an optimizer step.
        epochs: How often all that was collected is gone through.
        minibatches: In how many parts.
    """
    shuffled, minibatch = minibatches_of(policy, minibatches)

    def one(
        state: Any, mean_return: jax.Array, trajectory: Trajectory, judged: Judged, steps: Steps | None = None
    ) -> tuple[Any, Told]:
        found = differentiate(state.params, trajectory, judged, state.hyperparameters, steps)
        told = Told(found.entropy, optax.tree.norm(found.gradient), found.notes)
        return ascend(state, found.gradient, mean_return), told

    def improve(
        key: jax.Array, state: Any, trajectory: Trajectory, judged: Judged, mean_return: jax.Array
    ) -> tuple[Any, Told]:
        if epochs == minibatches == 1:
            return one(state, mean_return, trajectory, judged)

        def epoch(i: jax.Array, carry: tuple[Any, Told]) -> tuple[Any, Told]:
            order = shuffled(jax.random.fold_in(key, i), trajectory)

            def part(number: jax.Array, carry: tuple[Any, Told]) -> tuple[Any, Told]:
                state, told = carry
                state, more = one(state, mean_return, *minibatch(order, number, trajectory, judged))
                return state, jax.tree.map(jnp.add, told, more)

            return jax.lax.fori_loop(0, minibatches, part, carry)

        _, told = jax.eval_shape(one, state, mean_return, trajectory, judged)
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), told)
        state, total = jax.lax.fori_loop(0, epochs, epoch, (state, zero))
        return state, jax.tree.map(lambda leaf: leaf / (epochs * minibatches), total)

    return improve
