"""How a policy is fitted to examples, by behaviour cloning and by DAgger.

For a policy without memory an example is a step, for one with memory a whole episode; either is a column of
`Demonstrations` [T, M], with T = 1 for steps. Minibatches are columns drawn with replacement.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax.batching import choose, together
from pgjax.descent import Optimizer, check_optimizer, descend_minibatches
from pgjax.errors import InputError
from pgjax.imitation.demonstrations import Demonstrations
from pgjax.imitation.distances import Distance, negative_log_likelihood
from pgjax.placement import by_slot
from pgjax.policies.base import Policy, has_memory
from pgjax.trees import PyTree


def examples_of(
    demonstrations: Demonstrations, policy: Policy, distance: Distance, labels: int, key: jax.Array
) -> tuple[Demonstrations, jax.Array]:
    """The examples [T, M] for a policy, and which of the episodes each is from, [M].

    Args:
        demonstrations: [T, N], whole episodes.
        policy: Whether it has a memory decides what an example is.
        distance: For the likelihood the expert's distribution is left out; it may be large.
        labels: Of each episode only so many labelled steps are kept, chosen at random; 0 for all.
        key: What to choose them with.
    """
    if distance is negative_log_likelihood:
        demonstrations = demonstrations._replace(expert=None)
    T, N = demonstrations.mask.shape
    kept = min(labels, T) if labels else T
    if kept < T:
        chance = jnp.where(demonstrations.mask, jax.random.uniform(key, (T, N)), -1)
        order = jnp.argsort(-chance, axis=0)  # [T, N]: of each episode, first the labelled steps, shuffled
    if has_memory(policy):
        demonstrations = with_finite_padding(demonstrations)
        if kept < T:
            rank = jnp.argsort(order, axis=0)
            demonstrations = demonstrations._replace(mask=demonstrations.mask & (rank < kept))
        return demonstrations, jnp.arange(N)

    def as_steps(leaf: jax.Array) -> jax.Array:
        if kept < T:
            leaf = leaf[order[:kept], jnp.arange(N)[None]]
        return leaf.reshape(1, kept * N, *leaf.shape[2:])

    return jax.tree.map(as_steps, demonstrations), jnp.tile(jnp.arange(N), kept)


def with_finite_padding(demonstrations: Demonstrations) -> Demonstrations:
    """Demonstrations [T, N] in which nothing that is not finite can reach a gradient.

    After an episode's last label its first observation is repeated; where the expert was not asked, what it would have
    done is 0. A mask alone does not do: in a backward pass 0 · NaN is NaN.
    """
    mask = demonstrations.mask
    before_the_end = jnp.cumsum(mask[::-1], axis=0)[::-1] > 0
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), demonstrations.observation)
    known = demonstrations.action, demonstrations.expert
    action, expert = choose(mask, known, jax.tree.map(jnp.zeros_like, known))
    observation = choose(before_the_end, demonstrations.observation, start)
    return Demonstrations(observation=observation, action=action, mask=mask, expert=expert)


class Fitting(NamedTuple):
    """How a policy is fitted to examples.

    `fit(key, params, optimizer state, learning rate, examples, indices, count) -> (params, optimizer state, loss)`
    takes gradient steps on minibatches from columns indices[:count], and returns their mean loss. `distance(params,
    examples, indices, first, count) -> []` is the mean distance over the labelled steps of columns
    indices[first : first + count].
    """

    fit: Callable[..., tuple[PyTree, PyTree, jax.Array]]
    distance: Callable[..., jax.Array]


def fitting(
    policy: Policy,
    distance: Distance,
    optimizer: Optimizer,
    batch: int,
    steps: int,
) -> Fitting:
    """How a policy is fitted; arguments are those of `behaviour_cloning`.

    Raises:
        InputError: If a count is below 1, or the optimizer cannot be used (`check_optimizer`).
    """
    for name, count in (("examples in a batch", batch), ("gradient steps an update", steps)):
        if count < 1:
            raise InputError(f"expected 1 or more {name}, got {count}")
    check_optimizer(optimizer, policy.init)

    def examples_drawn(examples: Demonstrations) -> int:
        T, M = examples.mask.shape
        return batch if T == 1 else min(batch, M)

    def columns(examples: Demonstrations, indices: jax.Array) -> Demonstrations:
        return by_slot(jax.tree.map(lambda leaf: leaf[:, indices], examples), axis=1)

    def sums(params: PyTree, examples: Demonstrations) -> tuple[jax.Array, jax.Array]:
        d = distance(policy.unroll(params, examples), examples.action, examples.expert)
        return jnp.sum(jnp.where(examples.mask, d, 0)), jnp.sum(examples.mask, dtype=d.dtype)

    def fit(
        key: jax.Array,
        params: PyTree,
        optimizer_state: PyTree,
        learning_rate: jax.Array,
        examples: Demonstrations,
        indices: jax.Array,
        count: jax.Array,
    ) -> tuple[PyTree, PyTree, jax.Array]:
        size = examples_drawn(examples)
        # By the labels that a minibatch has on average: divided by those that it has, short episodes would count more.
        expected = jnp.asarray(size, jnp.result_type(float))
        if len(examples.mask) > 1:
            labels = jnp.sum(examples.mask, axis=0)[indices]
            expected *= jnp.sum(jnp.where(jnp.arange(len(indices)) < count, labels, 0)) / jnp.maximum(count, 1)
            expected = jnp.maximum(expected, 1)

        def loss(params: PyTree, key: jax.Array) -> jax.Array:
            drawn = indices[jax.random.randint(key, (size,), 0, count)]
            return sums(params, columns(examples, drawn))[0] / expected

        return descend_minibatches(loss, optimizer(learning_rate), key, params, optimizer_state, steps)

    def mean_distance(
        params: PyTree, examples: Demonstrations, indices: jax.Array, first: jax.Array, count: jax.Array
    ) -> jax.Array:
        size = examples_drawn(examples)

        def add(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            done, total, labels = carry
            number = done + jnp.arange(size)
            chosen = columns(examples, indices[jnp.minimum(first + number, len(indices) - 1)])
            chosen = chosen._replace(mask=chosen.mask & (number < count)[None])
            more, of_labels = sums(params, chosen)
            return done + size, total + more, labels + of_labels

        zero = jnp.zeros((), jnp.result_type(float))
        start = (jnp.int32(0), zero, zero)
        _, total, labels = jax.lax.while_loop(lambda carry: together(carry[0] < count), add, start)
        return total / jnp.maximum(labels, 1)

    return Fitting(fit, mean_distance)
