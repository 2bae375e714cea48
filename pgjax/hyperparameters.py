"""Hyper-parameters: made of defaults and values, one of a pytree replaced by name, and all of them as plain numbers."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.environment import PyTree
from pgjax.errors import InputError
from pgjax.leaves import is_key

POSITIVE, FRACTION = (0.0, math.inf), (0.0, 1.0)
# What numbers of these names may be, in whichever algorithm.
RANGES = {
    "learning_rate": POSITIVE,
    "value_learning_rate": POSITIVE,
    "reward_learning_rate": POSITIVE,
    "weight_decay": POSITIVE,
    "reward_weight_decay": POSITIVE,
    "baseline_decay": FRACTION,
    "discount": FRACTION,
    "trace_decay": FRACTION,
    "mixture_decay": POSITIVE,
    "beta": POSITIVE,
    "kl_target": POSITIVE,
    "steering": POSITIVE,
    "episodes": (1.0, math.inf),
}


def check_number(name: str, value: Any) -> None:
    """Raise unless a value is one finite number and, if a range is known for its name, within that.

    Of a traced number only the shape is looked at.

    Raises:
        InputError: If it is not.
    """
    if not _is_number(value):
        came = f"an array of shape {jnp.shape(value)}" if hasattr(value, "shape") else repr(value)
        raise InputError(f"expected {name} to be one number, got {came}")
    if isinstance(value, jax.core.Tracer):
        return
    least, most = RANGES.get(name, (-math.inf, math.inf))
    if not math.isfinite(value) or not least <= value <= most:
        where = {POSITIVE: "of 0 or more", FRACTION: "from 0 to 1"}.get((least, most), f"of {least:g} or more")
        raise InputError(f"expected a finite {name} {'' if name not in RANGES else where}".rstrip() + f", got {value}")


def numbers_of(defaults: Any) -> Callable[..., Any]:
    """A function (**values) of hyper-parameters: the NamedTuple of defaults, with these values in their place.

    Where the default is a float or an int, the field is one number: a scalar array of the default float type, or int32.
    Any other field is a tree, and is taken as it is given.

    Raises:
        InputError: From the function, if there is no field of a name, or a number is none, see `check_number`.

    Example:
        >>> from typing import NamedTuple
        >>> class Numbers(NamedTuple):
        ...     learning_rate: float = 0.1
        >>> numbers_of(Numbers())(learning_rate=1).learning_rate
        Array(1., dtype=float32)
    """
    known = defaults._fields

    def hyperparameters(**values: Any) -> Any:
        for name in values:
            if name not in known:
                raise InputError(f"expected the name of a hyper-parameter, got {name!r}; there are {', '.join(known)}")
        chosen = defaults._replace(**values)._asdict()
        for name, default in zip(known, defaults, strict=True):
            if isinstance(default, int | float):
                check_number(name, chosen[name])
                chosen[name] = jnp.asarray(chosen[name], float if isinstance(default, float) else jnp.int32)
        return type(defaults)(**chosen)

    return hyperparameters


def with_values(tree: PyTree, values: Mapping[str, Any]) -> PyTree:
    """Return hyper-parameters with some replaced: {"learning_rate": 0.1, "environment.length": 1.0}.

    What is replaced may be a whole subtree, and its value anything: where there was None, the parameters of a model. A
    number that takes the place of a number is given its type.

    Raises:
        InputError: If there is no hyper-parameter of that name.
    """
    for path, value in values.items():
        tree = _with_value(tree, path, path.split("."), value)
    return tree


def check_numbers(tree: PyTree, names: Iterable[str]) -> None:
    """Raise unless each name is that of a hyper-parameter that is one number.

    Raises:
        InputError: If not.
    """
    for path in names:
        found = tree
        for name in path.split("."):
            found, _ = _named(found, path, name)
        if not _is_number(found):
            raise InputError(f"expected a hyper-parameter that is one number, got {path!r}")


def _with_value(tree: Any, path: str, names: list[str], value: Any) -> Any:
    name, *rest = names
    old, replace = _named(tree, path, name)
    if rest:
        value = _with_value(old, path, rest, value)
    elif _is_number(old) and _is_number(value):
        value = jnp.asarray(value, jnp.result_type(old))
    return replace(**{name: value})


def _named(tree: Any, path: str, name: str) -> tuple[Any, Callable[..., Any]]:
    """Return what has a name in a tree, and a function that returns the tree with something else there."""
    known: Mapping[str, Any]
    replace: Callable[..., Any]
    if isinstance(tree, dict):
        known, replace = tree, functools.partial(dict, tree)
    elif hasattr(tree, "_fields"):
        known, replace = tree._asdict(), tree._replace
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        known = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
        replace = functools.partial(dataclasses.replace, tree)
    else:
        raise InputError(f"expected the name of a hyper-parameter, got {path!r}: nothing has a name below a number")
    if name not in known:
        raise InputError(f"expected the name of a hyper-parameter, got {path!r}; there are {', '.join(known)}")
    return known[name], replace


def _is_number(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | float | int) and jnp.ndim(value) == 0


def fingerprint(hyperparameters: PyTree) -> dict[str, Any]:
    """Return hyper-parameters as plain numbers by name; of an array, such as a table, what tells it from another."""

    def plain(leaf: Any) -> Any:
        values = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        return (
            values.item() if values.ndim == 0 else f"{values.shape} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
        )

    leaves = jax.tree_util.tree_leaves_with_path(hyperparameters)
    return {jax.tree_util.keystr(path).lstrip("."): plain(leaf) for path, leaf in leaves}
