"""Sums, maps and gradients over the real steps of a trajectory, some at a time: padding costs nothing.

A policy with memory is differentiated through time over the rows in use alone, if it can go on from a memory
(`Policy.resume`): once forward, keeping the memory before each chunk of rows, and then chunk by chunk backward, where
each is computed again. One that cannot, such as a transformer, sees whole episodes: all rows, of some slots at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.batching import choose, together
from pgjax.placement import by_model, by_slot, parts, sum_over_parts
from pgjax.policies.base import Policy, has_memory
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def part(rows: PyTree, start: jax.Array, size: int) -> PyTree:
    """`size` rows from row `start` on, [size, E, ...], of a trajectory and of arrays like it."""

    def cut(leaf: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, size) if leaf.ndim else leaf

    return jax.tree.map(cut, rows)


ROWS = 16  # looked at together
STEPS = 128  # differentiated together: what measured fastest on a CPU for networks of 64 wide layers
SLOTS = 16  # of whole episodes, likewise, for a transformer of that width and texts of 36 tokens


def real_steps(trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
    """Where the real steps are: their places in the flattened [T·E], from the front on, and how many they are.

    The rest of the places, [T·E] int32 in all, mean nothing.
    """
    T, E = trajectory.mask.shape
    size = min(ROWS, T)

    def one(i: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        places, count = found
        start = jnp.minimum(i * size, T - size).astype(jnp.int32)
        new = start + jnp.arange(size) >= i * size  # the last rows may overlap those before, and count once
        real = (jax.lax.dynamic_slice_in_dim(trajectory.mask, start, size) & new[:, None]).reshape(-1)
        rank = jnp.where(real, count + jnp.cumsum(real, dtype=jnp.int32) - 1, T * E)
        places = places.at[rank].set(start * E + jnp.arange(size * E, dtype=jnp.int32), mode="drop")
        return places, count + jnp.sum(real, dtype=jnp.int32)

    chunks = -(-trajectory.rows // size)
    return jax.lax.fori_loop(0, chunks, one, (jnp.zeros(T * E, jnp.int32), jnp.int32(0)))


class Steps(NamedTuple):
    """Some of the real steps of a trajectory: a range of a list of places."""

    places: jax.Array  # [T·E] int32, in the flattened trajectory
    begin: jax.Array | int  # the first in the list, []
    end: jax.Array  # the first that is not among them, []

    @property
    def number(self) -> jax.Array:
        """How many they are, [], and at least 1, to divide by."""
        return jnp.maximum(self.end - self.begin, 1)


def all_steps(trajectory: Trajectory) -> Steps:
    """All real steps of a trajectory, row by row."""
    places, count = real_steps(trajectory)
    return Steps(places, 0, count)


def shuffled_steps(key: jax.Array, trajectory: Trajectory) -> Steps:
    """All real steps of a trajectory, in random order, which does not depend on how many rows are padding.

    Numbers are sorted that are random in their 12 upper bits and count the steps in the lower ones (fewer than 12 where
    there is room for more than a million steps): that takes a quarter of the time of sorting pairs. Of steps that agree
    in the upper bits, which seldom matters to what a range of them holds, the earlier comes first.
    """
    places, count = real_steps(trajectory)
    number, most = jnp.arange(len(places), dtype=jnp.uint32), np.uint32(2**32 - 1)
    bits = max(20, (len(places) - 1).bit_length())
    drawn = (jax.random.bits(key, number.shape, jnp.uint32) >> bits << bits) | number
    order = jnp.sort(jnp.where(number < count.astype(jnp.uint32), drawn, most)) & np.uint32(2**bits - 1)
    return Steps(places.at[order].get(mode="fill", fill_value=0), 0, count)


def dealt_steps(trajectory: Trajectory, parts: int) -> Callable[[jax.Array], Steps]:
    """The real steps of a trajectory dealt out in parts, as a function of the part's number.

    A round gives one step to each part, and begins one part earlier than the round before it: whatever the number of
    slots, a part has steps of all slots and all times. Sizes differ by one at most; a part is empty where real steps
    are fewer than parts.
    """
    places, count = real_steps(trajectory)
    rounds = -(-len(places) // parts)
    begins = np.arange(parts) + np.arange(rounds)[:, None]  # in each round, of the step that each part gets
    dealt = jnp.pad(places, (0, rounds * parts - len(places)))[begins % parts + parts * np.arange(rounds)[:, None]]
    full, left = count // parts, count % parts

    def part(number: jax.Array) -> Steps:
        begin = number * rounds
        return Steps(dealt.T.reshape(-1), begin, begin + full + ((number + full) % parts < left))

    return part


def sum_over_steps(
    function: Callable[..., PyTree], trajectory: Trajectory, *arrays: jax.Array, steps: Steps | None = None
) -> PyTree:
    """Function(trajectory, *arrays), a pytree of sums over steps, computed of the real steps alone.

    They are gathered from wherever they are in the trajectory, and passed on some at a time, as if they were the rows
    of a single slot; what is missing to a whole number of such parts has `mask` false and arrays of zero.

    Args:
        function: Its result for some steps is the sum of its results for each. Steps with `mask` false and arrays of
            zero add nothing.
        trajectory: Its steps are passed on, [n, 1, ...].
        arrays: [T, E, ...], likewise.
        steps: Some of the real steps, all if not given.
    """
    if steps is None:
        return sum_over_parts(lambda *own: _sum_over_steps(function, all_steps(own[0]), *own), trajectory, *arrays)
    return _sum_over_steps(lambda *some: function(*by_slot(some)), steps, trajectory, *arrays)


def _sum_over_steps(
    function: Callable[..., PyTree], steps: Steps, trajectory: Trajectory, *arrays: jax.Array
) -> PyTree:
    T, E = trajectory.mask.shape
    n = min(STEPS, ROWS * E, T * E)
    places, begin, end = steps
    places = jnp.concatenate([places, jnp.zeros(n, jnp.int32)])
    flat = jax.tree.map(lambda leaf: leaf.reshape(T * E, *leaf.shape[2:]) if leaf.ndim else leaf, (trajectory, *arrays))

    def one(done: jax.Array) -> PyTree:
        chosen = jax.lax.dynamic_slice_in_dim(places, begin + done, n)
        real = begin + done + jnp.arange(n) < end
        steps, *others = jax.tree.map(lambda leaf: leaf[chosen, None] if leaf.ndim else leaf, flat)
        steps = steps._replace(mask=real[:, None])
        return function(steps, *(choose(real, array, jnp.zeros_like(array)) for array in others))

    def add(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
        done, total = carry
        return done + n, jax.tree.map(jnp.add, total, one(done))

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, jnp.int32(0)))
    _, total = jax.lax.while_loop(lambda carry: together(begin + carry[0] < end), add, (jnp.int32(0), zero))
    return total


def map_over_rows(function: Callable[..., jax.Array], trajectory: Trajectory, *arrays: jax.Array) -> jax.Array:
    """Function(trajectory, *arrays), [T, E, ...], computed by chunks of the rows in use.

    That includes the row after them, which may hold final observations; later rows are left at zero or not, and mean
    nothing. The function has a value for each row that depends on no other. Arguments are those of `sum_over_steps`.
    """
    T = trajectory.reward.shape[0]
    size = min(ROWS, T)
    shape = jax.eval_shape(function, trajectory, *arrays)

    def one(i: jax.Array, values: jax.Array) -> jax.Array:
        start = jnp.minimum(i * size, T - size)
        rows = function(*part((trajectory, *arrays), start, size))
        return jax.lax.dynamic_update_slice_in_dim(values, rows, start, axis=0)

    chunks = -(-trajectory.rows // size)
    values = jax.lax.fori_loop(0, chunks, one, jnp.zeros(shape.shape, shape.dtype))
    final = function(*part((trajectory, *arrays), trajectory.rows, 1))
    return jax.lax.dynamic_update_slice_in_dim(values, final, trajectory.rows, axis=0)


def slots_together(E: int) -> int:
    """The most of E slots, and at most `SLOTS` a device, that divide them."""
    own = E // parts()
    return parts() * next(size for size in range(min(SLOTS, own), 0, -1) if own % size == 0)


def some_slots(rows: PyTree, i: jax.Array, size: int) -> PyTree:
    """The i-th `size` slots, [T, size, ...], of a trajectory and of arrays like it: of each device equally many."""
    n = parts()

    def cut(leaf: jax.Array) -> jax.Array:
        if not leaf.ndim:
            return leaf
        own = leaf.reshape(len(leaf), n, -1, *leaf.shape[2:])
        some = jax.lax.dynamic_slice_in_dim(own, i * (size // n), size // n, axis=2)
        return by_slot(some.reshape(len(leaf), size, *leaf.shape[2:]), axis=1)

    return jax.tree.map(cut, rows)


def sum_over_slots(function: Callable[..., PyTree], trajectory: Trajectory, *arrays: jax.Array) -> PyTree:
    """Function(trajectory, *arrays), a pytree of sums over slots, of some slots at a time.

    Their activations stay in a processor's cache, and take the memory of some.
    """
    E = trajectory.mask.shape[1]
    size = slots_together(E)
    if size == E:
        return function(trajectory, *arrays)

    def one(i: jax.Array, total: PyTree) -> PyTree:
        return by_model(jax.tree.map(jnp.add, total, function(*some_slots((trajectory, *arrays), i, size))))

    shape = jax.eval_shape(function, *some_slots((trajectory, *arrays), jnp.int32(0), size))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    return jax.lax.fori_loop(0, E // size, one, zero)


def map_over_slots(function: Callable[..., jax.Array], trajectory: Trajectory, *arrays: jax.Array) -> jax.Array:
    """Function(trajectory, *arrays), [T, E, ...], of some slots at a time, see `sum_over_slots`."""
    E = trajectory.mask.shape[1]
    size = slots_together(E)

    def one(i: jax.Array) -> jax.Array:
        return function(*some_slots((trajectory, *arrays), i, size))

    if size == E:
        return one(jnp.int32(0))
    found = jax.lax.map(one, jnp.arange(E // size, dtype=jnp.int32))  # [E // size, T, size, ...]
    by_part = found.reshape(*found.shape[:2], parts(), -1, *found.shape[3:])
    return by_slot(jnp.moveaxis(by_part, 0, 2).reshape(found.shape[1], E, *found.shape[3:]), axis=1)


def chunk_rows(trajectory: Trajectory) -> int:
    """The rows of a chunk: they divide T − 1, so that chunks of the rows in use neither overlap nor end too late."""
    T = len(trajectory.mask)
    return next(size for size in range(min(ROWS, max(1, T - 1)), 0, -1) if (T - 1) % size == 0)


def map_over_steps(
    policy: Policy, function: Callable[..., jax.Array], params: PyTree, trajectory: Trajectory, *arrays: jax.Array
) -> jax.Array:
    """Function(f, trajectory, *arrays), [T, E, ...], of a policy's distributions f at each row.

    It means something of the rows in use and of the one after them. Arguments are those of `gradient_over_steps`.
    """

    def whole(rows: Trajectory, *arrays: jax.Array) -> jax.Array:
        return function(policy.unroll(params, rows), rows, *arrays)

    if not has_memory(policy):
        return map_over_rows(whole, trajectory, *arrays)
    if policy.resume is None:
        return map_over_slots(whole, trajectory, *arrays)
    resume, (T, E), size = policy.resume, trajectory.mask.shape, chunk_rows(trajectory)

    def rows(memory: PyTree, start: jax.Array, size: int) -> tuple[PyTree, jax.Array]:
        some, *others = part((trajectory, *arrays), start, size)
        memory, f = resume(params, memory, some)
        return memory, function(f, some, *others)

    def one(i: jax.Array, carry: tuple[PyTree, jax.Array]) -> tuple[PyTree, jax.Array]:
        memory, new = rows(carry[0], i * size, size)
        return memory, jax.lax.dynamic_update_slice_in_dim(carry[1], new, i * size, axis=0)

    memory = policy.memory(E)
    shape = jax.eval_shape(lambda: rows(memory, jnp.int32(0), T)[1])
    chunks = jnp.minimum(trajectory.rows // size + 1, (T - 1) // size)  # the row after those in use, too
    memory, values = jax.lax.fori_loop(0, chunks, one, (memory, jnp.zeros(shape.shape, shape.dtype)))
    return values.at[-1].set(rows(memory, jnp.int32(T - 1), 1)[1][0])


def gradient_over_steps(
    policy: Policy,
    objective: Callable[..., tuple[jax.Array, PyTree]],
    params: PyTree,
    trajectory: Trajectory,
    *arrays: jax.Array,
    steps: Steps | None = None,
) -> tuple[PyTree, PyTree]:
    """The gradient of a sum over real steps by a policy's parameters, and a pytree of other sums.

    Args:
        policy: Its distributions f are what the sum is of.
        objective: objective(f, trajectory, *arrays) -> (the sum, other sums). Steps with `mask` false and arrays of
            zero add nothing.
        params: θ.
        trajectory: Some steps of it are looked at together.
        arrays: [T, E, ...], likewise.
        steps: Some of the real steps, for a policy without memory; all if not given.
    """

    def whole(rows: Trajectory, *arrays: jax.Array) -> tuple[PyTree, PyTree]:
        def of(params: PyTree) -> tuple[jax.Array, PyTree]:
            return objective(policy.unroll(params, rows), rows, *arrays)

        return jax.grad(of, has_aux=True)(params)

    if not has_memory(policy):
        return sum_over_steps(whole, trajectory, *arrays, steps=steps)
    assert steps is None
    if policy.resume is None:
        return sum_over_slots(whole, trajectory, *arrays)

    resume = policy.resume

    def through_time(*own: Any) -> tuple[PyTree, PyTree]:
        return _gradient_through_time(policy, resume, objective, params, *own)

    return sum_over_parts(through_time, trajectory, *arrays)


def _gradient_through_time(
    policy: Policy,
    resume: Callable[..., Any],
    objective: Callable[..., tuple[jax.Array, PyTree]],
    params: PyTree,
    trajectory: Trajectory,
    *arrays: jax.Array,
) -> tuple[PyTree, PyTree]:
    """What `gradient_over_steps` is of a policy that can go on from a memory."""
    (T, E), size = trajectory.mask.shape, chunk_rows(trajectory)
    chunks = -(-trajectory.rows // size)

    def rows(params: PyTree, memory: PyTree, i: jax.Array) -> tuple[tuple[PyTree, jax.Array], PyTree]:
        some, *others = part((trajectory, *arrays), i * size, size)
        memory, f = resume(params, memory, some)
        total, sums = objective(f, some, *others)
        return (memory, total), sums

    def forward(i: jax.Array, before: PyTree) -> PyTree:
        memory = jax.tree.map(lambda leaf: leaf[i], before)
        (memory, _), _ = rows(params, memory, i)
        return jax.tree.map(lambda leaf, new: leaf.at[i + 1].set(new), before, memory)

    def backward(done: jax.Array, carry: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree, PyTree]:
        pulled, gradient, sums = carry
        i = chunks - 1 - done
        memory = jax.tree.map(lambda leaf: leaf[i], before)
        (_, total), pull, new = jax.vjp(lambda params, memory: rows(params, memory, i), params, memory, has_aux=True)
        more, pulled = pull((pulled, jnp.ones_like(total)))
        return pulled, *jax.tree.map(jnp.add, (gradient, sums), (more, new))

    begun = policy.memory(E)
    before = jax.tree.map(lambda leaf: jnp.zeros(((T - 1) // size + 1, *leaf.shape), leaf.dtype).at[0].set(leaf), begun)
    before = jax.lax.fori_loop(0, chunks, forward, before)  # the memory before each chunk
    _, sums = jax.eval_shape(rows, params, begun, jnp.int32(0))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (begun, params, sums))
    _, gradient, sums = jax.lax.fori_loop(0, chunks, backward, zero)
    return gradient, sums
