"""Algorithms made with large weights, which their programs take as an argument.

What a function closes over is written into its compiled program. That is no place for the weights of a language model:
they would be compiled with it, stored with it, and be in memory once for each program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from pgjax.algorithms.base import Algorithm
from pgjax.trees import PyTree


class Given(NamedTuple):
    """The hyper-parameters or the state of an algorithm, and what the algorithm is made with."""

    weights: PyTree  # never changed
    of: PyTree

    @property
    def params(self) -> PyTree:
        """The policy's parameters, of a state."""
        return self.of.params


def made_with(make: Callable[[PyTree], Algorithm], weights: PyTree) -> Algorithm:
    """The algorithm `make(weights)` with the weights among its hyper-parameters and in its state, not in its program.

    It is made again wherever it is traced, with the weights of the moment; so each run can have its own. Names of
    hyper-parameters begin with "of." in a sweep, not where they are given by `hyperparameters(name=value)`.

    Args:
        make: From weights to an algorithm; what it is made of may close over them.
        weights: Arrays.

    Raises:
        InputError: What `make` raises.

    Example:
        >>> import jax.numpy as jnp, pgjax
        >>> environment, policy = pgjax.maze("#SE#", horizon=8), pgjax.tabular(states=2, actions=4)
        >>> def make(theta):
        ...     start = policy._replace(init=lambda key: theta)
        ...     return pgjax.reinforce(environment, start, slots=4)
        >>> algorithm = made_with(make, jnp.zeros((2, 4)))
        >>> state = algorithm.init(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.1))
        >>> state.params.tolist() == state.weights.tolist()
        True
    """
    hyperparameters = make(weights).hyperparameters

    def init(key: jax.Array, numbers: Given) -> Given:
        return Given(numbers.weights, make(numbers.weights).init(key, numbers.of))

    def update(state: Given) -> tuple[Given, PyTree]:
        following, metrics = make(state.weights).update(state.of)
        return state._replace(of=following), metrics

    def numbers(**values: Any) -> Given:
        return Given(weights, hyperparameters(**values))

    return Algorithm(init, update, numbers)
