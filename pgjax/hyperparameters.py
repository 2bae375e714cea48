"""Hyper-parameters: made of defaults and values, one of a pytree replaced by name, and all of them as plain numbers."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError
from pgjax.trees import PyTree, is_key

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
    "kl_gain": POSITIVE,
    "episodes": (1.0, math.inf),
}


def check_number(name: str, value: Any) -> None:
    """Raise unless a value is one finite number and, if a range is known for its name, within that.

    Of a traced number only the shape is looked at.

    Raises:
        InputError: If it is not.
    """
    if not is_number(value) or jnp.result_type(value) == np.bool_:
        came = f"an array of shape {jnp.shape(value)}" if hasattr(value, "shape") else repr(value)
        raise InputError(f"expected {name} to be one number, got {came}")
    if isinstance(value, jax.core.Tracer):
        return
    least, most = RANGES.get(name, (-math.inf, math.inf))
    number = np.asarray(value).item()  # within a traced function, a comparison would be traced too
    if (not isinstance(number, int) and not math.isfinite(number)) or not least <= number <= most:
        where = {POSITIVE: "of 0 or more", FRACTION: "from 0 to 1"}.get((least, most), f"of {least:g} or more")
        raise InputError(f"expected a finite {name} {'' if name not in RANGES else where}".rstrip() + f", got {value}")


def numbers_of(defaults: Any) -> Callable[..., Any]:
    """A function (**values) of hyper-parameters: the NamedTuple of defaults, with these values in their place.

    Where the default is a float or an int, the field is one number: a scalar array of the default float type, or int32.
    Any other field is a tree, and is taken as it is given.

    Raises:
        InputError: From the function, if there is no field of a name, or a number is none that it can be, see
            `numbers_in`.

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
                dtype = jnp.result_type(float) if isinstance(default, float) else np.dtype(np.int32)
                traced = isinstance(chosen[name], jax.core.Tracer)
                chosen[name] = jnp.asarray(chosen[name] if traced else _arriving(name, chosen[name], dtype), dtype)
        return type(defaults)(**chosen)

    return hyperparameters


def with_values(tree: PyTree, values: Mapping[str, Any]) -> PyTree:
    """Hyper-parameters with some replaced: {"learning_rate": 0.1, "environment.length": 1.0}.

    What is replaced may be a whole subtree, and its value anything: where there was None, the parameters of a model. A
    number that takes the place of a number is given its type.

    Raises:
        InputError: If there is no hyper-parameter of that name, or there are two.
    """
    for path, value in values.items():
        tree = _replaced(tree, _chain(tree, path), value)
    return tree


def numbers_in(tree: PyTree, grid: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """Values of hyper-parameters as they arrive where they are used, each exactly: {name: [n]}, of the type there.

    Decimals are rounded to the nearest float, as everywhere; integers are not.

    Args:
        tree: Hyper-parameters.
        grid: {name: values}, each name that of one number.

    Raises:
        InputError: If a name is another, or a value of it is none that it can be: not finite, out of range, too large
            or too small for its type, or an integer that is not one there.
    """
    found = {}
    for path, values in grid.items():
        old = value_at(tree, path)
        if not is_number(old):
            raise InputError(f"expected a hyper-parameter that is one number, got {path!r}")
        found[path] = np.asarray([_arriving(path, value, jnp.result_type(old)) for value in values])
    return found


def value_at(tree: PyTree, path: str) -> Any:
    """The hyper-parameter, or the subtree of them, that has a name; errors are those of `with_values`."""
    return functools.reduce(lambda branch, key: _children(branch)[0][key], _chain(tree, path), tree)


def _arriving(path: str, value: Any, dtype: Any) -> Any:
    check_number(path, value)
    number = value.item() if hasattr(value, "item") else value
    if jnp.issubdtype(dtype, jnp.integer):
        least, most = jnp.iinfo(dtype).min, jnp.iinfo(dtype).max
        if number != math.floor(number) or not least <= number <= most:
            raise InputError(f"expected integers from {least} to {most} as values of {path}, got {value}")
        return np.asarray(int(number), dtype)[()]
    try:
        with np.errstate(over="ignore", under="ignore"):
            rounded = np.asarray(number).astype(dtype)[()]
        if isinstance(number, int) or not jnp.issubdtype(dtype, jnp.floating):
            exact = rounded.item() == number
        else:  # below the normal numbers of a type, devices compute with 0
            exact = np.isfinite(rounded) and (number == 0 or abs(rounded) >= jnp.finfo(dtype).tiny)
    except OverflowError:  # an integer that no float can be near
        exact = False
    if not exact:
        raise InputError(f"expected values of {path} that a {np.dtype(dtype)} can hold, got {value}")
    return rounded


def _replaced(tree: Any, chain: Sequence[Any], value: Any) -> Any:
    """A tree with something else at the end of a chain of keys."""
    if not chain:
        return jnp.asarray(value, jnp.result_type(tree)) if is_number(tree) and is_number(value) else value
    known, replace = _children(tree)
    return replace({chain[0]: _replaced(known[chain[0]], chain[1:], value)})


def _chain(tree: Any, path: str) -> tuple[Any, ...]:
    """The keys that lead to what has a name; a key may have dots in it.

    Raises:
        InputError: If nothing has it, or two things.
    """

    def chains(branch: Any, rest: str) -> list[tuple[Any, ...]]:
        found = []
        for key, child in _children(branch)[0].items():
            if rest == str(key):
                found.append((key,))
            elif rest.startswith(f"{key}."):
                found += [(key, *more) for more in chains(child, rest[len(str(key)) + 1 :])]
        return found

    found = chains(tree, path)
    if len(found) > 1:
        raise InputError(f"expected a name that one hyper-parameter has, got {path!r}, which {len(found)} have")
    if not found:
        branch = tree
        for name in path.split("."):
            known = _children(branch)[0]
            if name not in known:
                there = f"there are {', '.join(map(str, known))}" if known else "nothing has a name below a number"
                raise InputError(f"expected the name of a hyper-parameter, got {path!r}; {there}")
            branch = known[name]
    return found[0]


def _children(tree: Any) -> tuple[Mapping[Any, Any], Callable[[dict[Any, Any]], Any]]:
    """What a tree holds by its names, and a function that returns it with some of that replaced."""
    if isinstance(tree, dict):
        return tree, lambda changes: {**tree, **changes}
    if hasattr(tree, "_fields"):
        return tree._asdict(), lambda changes: tree._replace(**changes)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
        return fields, lambda changes: dataclasses.replace(tree, **changes)
    return {}, lambda changes: tree


def is_number(value: Any) -> bool:
    """Whether a value is one number: Python's, or an array without axes."""
    return isinstance(value, jax.Array | np.ndarray | np.generic | float | int) and jnp.ndim(value) == 0


def fingerprint(hyperparameters: PyTree) -> dict[str, Any]:
    """Hyper-parameters as plain numbers by name; of an array, such as a table, what tells it from another."""

    def plain(leaf: Any) -> Any:
        values = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        return (
            values.item() if values.ndim == 0 else f"{values.shape} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
        )

    leaves = jax.tree_util.tree_leaves_with_path(hyperparameters)
    return {jax.tree_util.keystr(path).lstrip("."): plain(leaf) for path, leaf in leaves}
