"""Spaces: which values observations and actions can have.

An action is of one space. An observation is of one, or of a pytree of them, such as a dictionary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError
from pgjax.trees import PyTree


class Discrete(NamedTuple):
    """The integers 0 … n − 1: actions to choose from, or states to be in.

    Of actions some may be `forbidden`, such as the pad of a text: policies for the space never choose them. What may be
    done here and not there is said by observations, see `Masked`.
    """

    n: int
    forbidden: tuple[int, ...] = ()

    @property
    def allowed(self) -> np.ndarray:
        """[n] bool, which integers may be chosen."""
        return ~np.isin(np.arange(self.n), self.forbidden)

    @property
    def shape(self) -> tuple[int, ...]:
        """One value is a scalar."""
        return ()

    @property
    def dtype(self) -> Any:
        """One value is an int32."""
        return jnp.int32

    def clip(self, value: jax.Array) -> jax.Array:
        """The value as it is: every integer a policy can choose is inside."""
        return value


class MultiDiscrete(NamedTuple):
    """Several integers at once, [d], the i-th from 0 to sizes[i] − 1."""

    sizes: tuple[int, ...]

    @property
    def allowed(self) -> np.ndarray:
        """[d, n] bool with n the largest size: which integers there are in each place."""
        return np.arange(max(self.sizes)) < np.asarray(self.sizes)[:, None]

    @property
    def shape(self) -> tuple[int, ...]:
        """One value is an array [d]."""
        return (len(self.sizes),)

    @property
    def dtype(self) -> Any:
        """One value is an array of int32."""
        return jnp.int32

    def clip(self, value: jax.Array) -> jax.Array:
        """The value as it is, see `Discrete.clip`."""
        return value


class Box(NamedTuple):
    """Arrays of one shape, each number between `low` and `high` (scalars or arrays of that shape; may be infinite)."""

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = jnp.float32

    def clip(self, value: jax.Array) -> jax.Array:
        """The nearest values inside the box, for values [..., *shape]."""
        low, high = (jnp.broadcast_to(jnp.asarray(bound, self.dtype), value.shape) for bound in (self.low, self.high))
        return jnp.clip(value, low, high)

    def middle(self) -> tuple[jax.Array, jax.Array]:
        """Its centre and its half-width, each [*shape]; where a side is infinite, 0 and 1."""
        low, high = np.broadcast_to(self.low, self.shape), np.broadcast_to(self.high, self.shape)
        finite = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(finite, low, -1.0), np.where(finite, high, 1.0)
        dtype = jnp.result_type(float)
        return jnp.asarray((low + high) / 2, dtype), jnp.asarray((high - low) / 2, dtype)


class Masked(NamedTuple):
    """An observation, or the space of one, that says which actions may be chosen.

    Policies for such a space never choose another. Where none may, as after the end of an episode, the mask counts for
    nothing, so that all that is computed there is finite.
    """

    observation: Any  # what else is observed, or its space
    allowed: Any  # bool, [n] for n discrete actions, [d, n] for d of at most n at once; or its space


Space = Discrete | MultiDiscrete | Box
Spaces = Any  # a Space, or a pytree of them


def is_space(spaces: Spaces) -> bool:
    """Whether this is one space, and not a pytree of them."""
    return isinstance(spaces, Discrete | MultiDiscrete | Box)


def spaces_in(spaces: Spaces) -> list[Any]:
    """Each single space of a pytree of them, in the order of the leaves of an observation."""
    return jax.tree.leaves(spaces, is_leaf=is_space)


def map_spaces(function: Callable[..., Any], spaces: Spaces, *values: PyTree) -> PyTree:
    """Function(space, array, …) of each space, and of the arrays of its place in some pytrees."""
    return jax.tree.map(function, spaces, *values, is_leaf=is_space)


def values_like(spaces: Spaces, *batch: int) -> PyTree:
    """What stands for values [*batch, ...] of some spaces where only shapes and types are followed."""
    return map_spaces(lambda space: jax.ShapeDtypeStruct((*batch, *space.shape), jnp.dtype(space.dtype)), spaces)


def zeros_of(spaces: Spaces, *batch: int) -> PyTree:
    """Values [*batch, ...] that are 0."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), values_like(spaces, *batch))


def batch_of(spaces: Spaces, values: PyTree) -> tuple[int, ...]:
    """The leading axes of values of some spaces."""
    (first, *_), (value, *_) = spaces_in(spaces), jax.tree.leaves(values)
    return value.shape[: value.ndim - len(first.shape)]


def masks_of(actions: Space) -> Box:
    """The space of a mask of actions, `Masked.allowed`."""
    return Box(False, True, actions.allowed.shape, jnp.bool_)  # type: ignore[union-attr]


def without_mask(observation: PyTree) -> PyTree:
    """What is observed, or its space, beside which actions may be chosen."""
    return observation.observation if isinstance(observation, Masked) else observation


def mask_of(observation: PyTree) -> Any:
    """Which actions may be chosen, None if an observation does not say so."""
    return observation.allowed if isinstance(observation, Masked) else None


def check_observations(what: str, spaces: Spaces, actions: Space) -> None:
    """Raise unless the space of observations `what` makes sense, for an agent that acts in a space.

    Raises:
        InputError: If there is no array to observe, one is of no space or of one that makes no sense (`check_space`),
            or a mask of actions is not what `masks_of` says, or stands within something else.
    """
    seen, mask = without_mask(spaces), mask_of(spaces)
    found = jax.tree.leaves(seen, is_leaf=lambda part: is_space(part) or isinstance(part, Masked))
    if not found:
        raise InputError(f"expected 1 or more arrays as {what}, got {seen}")
    for space in found:
        if isinstance(space, Masked):
            raise InputError(f"expected a Masked to be the whole of {what}, got one within something else")
        check_space(what, space)
    if mask is None:
        return
    if isinstance(actions, Box):
        raise InputError(f"expected discrete actions for a mask of them in {what}, got a Box")
    shape, dtype = masks_of(actions).shape, getattr(mask, "dtype", None)
    if not isinstance(mask, Box) or tuple(mask.shape) != shape or jnp.dtype(dtype) != jnp.bool_:
        raise InputError(f"expected a mask of booleans of shape {shape} in {what}, got {mask}")


def check_space(what: str, space: Space) -> None:
    """Raise unless a space is one that can be used for `what` of an environment.

    Raises:
        InputError: If it is neither a `Discrete` or a `MultiDiscrete` with something to choose from nor a `Box` with
            bounds of its shape, the low below the high and not too far from it for float32; or if it is a `Box` of
            integers to act with.
    """
    acts = what.startswith("actions")
    if isinstance(space, Discrete | MultiDiscrete):
        sizes = (space.n,) if isinstance(space, Discrete) else tuple(space.sizes)
        if not sizes or not all(isinstance(n, int | np.integer) and n >= 1 for n in sizes) or not space.allowed.any():
            raise InputError(f"expected 1 or more {what} to choose from, got {space}")
        return
    if not isinstance(space, Box):
        raise InputError(f"expected {what} to be a Discrete, a MultiDiscrete or a Box, got a {type(space).__name__}")
    if acts and not jnp.issubdtype(space.dtype, jnp.floating):
        raise InputError(
            f"expected {what} in a Box to be real numbers, got {jnp.dtype(space.dtype)}; for integers, a Discrete"
        )
    try:
        low, high = (np.broadcast_to(np.asarray(bound, float), space.shape) for bound in (space.low, space.high))
    except ValueError as error:
        raise InputError(f"expected bounds of shape {tuple(space.shape)} for {what}, got another: {error}") from error
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.isfinite(low) & np.isfinite(high) & ~np.isfinite(np.float32(high) - np.float32(low))
    wrong, order = (~(low < high) | wide, "below") if acts else (~(low <= high), "not above")
    for place in np.argwhere(wrong)[:1]:
        bounds = f"{low[tuple(place)]} and {high[tuple(place)]}"
        width = ", and a width within float32," if acts else ""
        raise InputError(f"expected a low {order} the high{width} for {what}, got {bounds}")
