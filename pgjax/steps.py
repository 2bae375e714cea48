"""Which steps of a trajectory are real, and some of them: all, in random order, or dealt out in parts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.trajectory import Trajectory

ROWS = 16  # looked at together


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
