"""Sums, maps and gradients over the real steps of a trajectory, some at a time: padding costs nothing.

A policy with memory is differentiated through time over the rows in use alone, if it can go on from a memory
(`Policy.resume`): once forward, keeping the memory before each chunk of rows, and then chunk by chunk backward, where
each is computed again. One that cannot, such as a transformer, sees whole episodes: all rows, of some slots at a time,
fewer where what their gradient keeps would not fit into memory.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.batching import choose, together
from pgjax.devices import ACTIVATIONS, memory_budget
from pgjax.placement import by_model, by_slot, parts, sum_over_parts
from pgjax.policies.base import Policy, has_memory
from pgjax.steps import ROWS, Steps, all_steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def part(rows: PyTree, start: jax.Array, size: int) -> PyTree:
    """`size` rows from row `start` on, [size, E, ...], of a trajectory and of arrays like it."""

    def cut(leaf: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, size) if leaf.ndim else leaf

    return jax.tree.map(cut, rows)


STEPS = 128  # differentiated together: what measured fastest on a CPU for networks of 64 wide layers
SLOTS = 16  # of whole episodes, likewise, for a transformer of that width and texts of 36 tokens


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


def slots_together(E: int, most: int | None = None) -> int:
    """The most of E slots that divide them, at most so many a device, `SLOTS` if not given."""
    own = E // parts()
    return parts() * next(size for size in range(min(most or SLOTS, own), 0, -1) if own % size == 0)


def bytes_kept(function: Callable[[PyTree], tuple[jax.Array, PyTree]], params: PyTree) -> int:
    """About how much of a function is kept for its gradient by params, beside these; nothing is computed."""
    kept = jax.eval_shape(lambda params: jax.vjp(function, params, has_aux=True)[1], params)
    all_of_it, own = (sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) for tree in (kept, params))
    return max(1, all_of_it - own)


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


def sum_over_slots(
    function: Callable[..., PyTree], trajectory: Trajectory, *arrays: jax.Array, most: int | None = None
) -> PyTree:
    """Function(trajectory, *arrays), a pytree of sums over slots, of some slots at a time, at most so many a device.

    Their activations stay in a processor's cache, and take the memory of some.
    """
    E = trajectory.mask.shape[1]
    size = slots_together(E, most)
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

    def of(params: PyTree, rows: Trajectory, *arrays: jax.Array) -> tuple[jax.Array, PyTree]:
        return objective(policy.unroll(params, rows), rows, *arrays)

    def whole(rows: Trajectory, *arrays: jax.Array) -> tuple[PyTree, PyTree]:
        return jax.grad(of, has_aux=True)(params, rows, *arrays)

    if not has_memory(policy):
        return sum_over_steps(whole, trajectory, *arrays, steps=steps)
    assert steps is None
    if policy.resume is None:
        some = slots_together(trajectory.mask.shape[1])
        few = some_slots((trajectory, *arrays), jnp.int32(0), some)
        kept = bytes_kept(lambda params: of(params, *few), params) / parts()
        fitting = int(some / parts() * ACTIVATIONS * memory_budget() / kept)
        return sum_over_slots(whole, trajectory, *arrays, most=min(SLOTS, max(1, fitting)))

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
