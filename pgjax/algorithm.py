"""What every learning algorithm of pgjax is: an `init` and an `update`, and how to run one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.environment import PyTree
from pgjax.errors import InputError


class Algorithm(NamedTuple):
    """A learning algorithm, as pure functions of one run.

    `init(key, hyperparameters) -> State` and `update(State) -> (State, Metrics)`: the state is what is carried from one
    iteration to the next, the metrics (a NamedTuple of scalars) are what is emitted. `hyperparameters(**values)`
    returns the numbers that are traced, with defaults for those not named; shapes, counts and functions were fixed when
    the algorithm was built.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    update: Callable[[PyTree], tuple[PyTree, PyTree]]
    hyperparameters: Callable[..., PyTree]


def train(algorithm: Algorithm, iterations: int) -> Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]:
    """Return run(key, hyperparameters) -> (state, curves): a whole run of the algorithm, ready for `vmap` and `jit`.

    The curves are the metrics of every iteration, each [iterations].

    Raises:
        InputError: If there is no iteration to do.
    """
    if iterations < 1:
        raise InputError(f"expected 1 or more iterations, got {iterations}")

    def run(key: jax.Array, hyperparameters: PyTree) -> tuple[PyTree, PyTree]:
        state = algorithm.init(key, hyperparameters)
        return jax.lax.scan(lambda state, _: algorithm.update(state), state, length=iterations)

    return run


def run_keys(study: int, seeds: Sequence[int]) -> jax.Array:
    """Return a key [len(seeds)] for each run: `fold_in(key(study), seed)`, whatever runs beside it.

    Args:
        study: What tells two studies apart whose runs should have nothing in common.
        seeds: Integers from 0 to 2³² − 1.
    """
    numbers = jnp.asarray(list(seeds), jnp.uint32)
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(study), seed))(numbers)
