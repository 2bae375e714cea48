"""Checks of what a user's functions return: their shapes and types are followed, and nothing is computed."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError, first_line


def traced(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The shapes and types of what a function returns, as `jax.eval_shape` finds them.

    Args:
        what: What the function is, as the sentence of an error begins: "expected {what} that …".
        function: Of a user.
        arguments: Arrays, or what stands for them.

    Raises:
        InputError: If it fails, as it does where a Python `if` looks at a traced value.
    """
    try:
        return jax.eval_shape(function, *arguments)
    except InputError:
        raise
    except Exception as error:  # whatever a user's function, or a network library, raises
        hint = ""
        if isinstance(error, jax.errors.ConcretizationTypeError):
            hint = " (the values are traced: write jnp.where or jax.lax.cond for if, and arrays for Python numbers)"
        raise InputError(f"expected {what} that JAX can trace, it fails with: {first_line(error)}{hint}") from error


def check_shape(what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise unless a value is one array of numbers or truths of this very shape, so that nothing is broadcast.

    Raises:
        InputError: If it is not.
    """
    if not jax.tree_util.all_leaves([value]) or value is None:
        raise InputError(f"expected {what} to be an array of shape {shape}, got a {type(value).__name__}")
    if jnp.shape(value) != shape:
        raise InputError(f"expected {what} to be of shape {shape}, got {jnp.shape(value)}")
    if not is_real(value):
        raise InputError(f"expected {what} to be of real numbers, got {jnp.result_type(value)}")


def check_truth(what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise unless a value is an array of this shape that is true or false: booleans, or integers 0 and 1.

    Raises:
        InputError: If it is not.
    """
    check_shape(what, value, shape)
    if jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise InputError(f"expected {what} to be true or false, or an integer 0 or 1, got {jnp.result_type(value)}")


def whole_number(what: str, value: Any, least: int, most: int | None = None) -> int:
    """A value as a Python integer: one of Python's, NumPy's or JAX's, within bounds.

    Raises:
        InputError: If it is none, such as 3.0, True or "3", or outside of them.
    """
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError as error:
        raise InputError(f"expected {what} to be an integer {bounds}, got {value!r}") from error
    if isinstance(value, bool | np.bool_) or number < least or (most is not None and number > most):
        raise InputError(f"expected {what} to be an integer {bounds}, got {value!r}")
    return number


def is_real(value: Any) -> bool:
    """Whether an array is of real numbers, integers or truths."""
    dtype = jnp.result_type(value)
    return dtype == np.bool_ or jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def check_horizon(horizon: int) -> None:
    """Raise unless an episode can have so many steps.

    Raises:
        InputError: If it is below 1.
    """
    if horizon < 1:
        raise InputError(f"expected a horizon of 1 or more steps, got {horizon}")
