"""Pytrees, and their leaves as plain numpy arrays with names and back: what can be written to disk and compared."""

import urllib.parse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


def is_key(leaf: Any) -> bool:
    """Whether a leaf, or what stands for one, is made of random keys."""
    return jnp.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key)


def stored(name: str) -> str:
    """A name as a store has it, where it is part of a path: letters, digits and "_.-~", all else as %XX; see `shown`.

    Example:
        >>> stored("reward/kl"), shown("reward%2Fkl"), stored("environment.length")
        ('reward%2Fkl', 'reward/kl', 'environment.length')
    """
    return _unlike_zarrs(urllib.parse.quote(name, safe="") or "%")


def shown(name: str) -> str:
    """A name as it was before `stored`."""
    return "" if name == "%" else urllib.parse.unquote(name)


def names(tree: PyTree) -> list[str]:
    """The name of each leaf in a store: its path, joined by dots; a tree that is a single leaf calls it theta.

    Dots within a part of the path are %2E, so that no two leaves have one name.
    """

    def part(key: Any) -> str:
        return urllib.parse.quote(jax.tree_util.keystr((key,), simple=True), safe="").replace(".", "%2E") or "%"

    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [_unlike_zarrs(".".join(map(part, path)) or "theta") for path in paths]


def _unlike_zarrs(quoted: str) -> str:
    """A name that zarr does not keep for itself, with its first character as %XX if need be."""
    own = quoted.startswith((".", "__")) or quoted == "zarr.json"
    return f"%{ord(quoted[0]):02X}{quoted[1:]}" if own else quoted


def plain(leaf: Any) -> np.ndarray:
    """A leaf on the host in a type that numpy has: of random keys, and of floats like bfloat16, the bits."""
    values = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    return values.view(f"u{values.itemsize}") if values.dtype.kind == "V" else values


def plain_like(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type of `plain(leaf)`, for a leaf or what stands for one."""
    like = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    dtype = np.dtype(like.dtype)
    return tuple(like.shape), np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def unplain(values: np.ndarray, like: Any) -> Any:
    """The leaf that `plain` was given: one of the type of another leaf, or of what stands for it."""
    if is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(values), impl=jax.random.key_impl(jnp.zeros((), like.dtype)))
    return values.view(like.dtype)


def zeros_like(shapes: PyTree) -> PyTree:
    """Arrays of zeros of the shapes and types that stand for them."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
