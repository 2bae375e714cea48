"""Hyper-parameters by name: one number of a pytree replaced, and all of them as plain numbers."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.environment import PyTree
from pgjax.errors import InputError


def with_values(tree: PyTree, values: Mapping[str, Any]) -> PyTree:
    """Return hyper-parameters with some replaced: {"learning_rate": 0.1, "environment.length": 1.0}.

    A number takes the place of a number; anything else, such as the parameters of a model, of whatever was there.

    Raises:
        InputError: If there is no hyper-parameter of that name, or something that is no number would become one.
    """
    for path, value in values.items():
        tree = _with_value(tree, path, path.split("."), value)
    return tree


def _with_value(tree: Any, path: str, names: list[str], value: Any) -> Any:
    name, *rest = names
    known: list[str]
    replace: Callable[..., Any]
    if isinstance(tree, dict):
        known, replace = list(tree), functools.partial(dict, tree)
    elif hasattr(tree, "_fields"):
        known, replace = list(tree._fields), tree._replace
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        known, replace = (
            [field.name for field in dataclasses.fields(tree)],
            functools.partial(dataclasses.replace, tree),
        )
    else:
        raise InputError(f"expected the name of a hyper-parameter, got {path!r}: nothing has a name below a number")
    if name not in known:
        raise InputError(f"expected the name of a hyper-parameter, got {path!r}; there are {', '.join(known)}")
    old = tree[name] if isinstance(tree, dict) else getattr(tree, name)
    if rest:
        return replace(**{name: _with_value(old, path, rest, value)})
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int) or jnp.ndim(value) != 0:
        return replace(**{name: value})
    if not isinstance(old, jax.Array | float | int) or jnp.ndim(old) != 0:
        raise InputError(f"expected a hyper-parameter that is one number, got {path!r}")
    return replace(**{name: jnp.asarray(value, jnp.result_type(old))})


def fingerprint(hyperparameters: PyTree) -> dict[str, Any]:
    """Return hyper-parameters as plain numbers by name; of an array, such as a table, what tells it from another."""

    def plain(leaf: Any) -> Any:
        values = np.asarray(leaf)
        return (
            values.item() if values.ndim == 0 else f"{values.shape} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
        )

    leaves = jax.tree_util.tree_leaves_with_path(hyperparameters)
    return {jax.tree_util.keystr(path).lstrip("."): plain(leaf) for path, leaf in leaves}
