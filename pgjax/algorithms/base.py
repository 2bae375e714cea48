"""What every learning algorithm of pgjax is: an `init` and an `update`, and how to run one."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pgjax.batching import together
from pgjax.checks import whole_number
from pgjax.errors import InputError
from pgjax.placement import by_model, spread
from pgjax.policies.base import Policy
from pgjax.trees import PyTree


class Init(Protocol):
    """The state of a run before its first update."""

    def __call__(self, key: jax.Array, hyperparameters: PyTree, /) -> PyTree: ...


class Update(Protocol):
    """The state after an iteration, and the metrics of it."""

    def __call__(self, state: PyTree, /) -> tuple[PyTree, PyTree]: ...


class Advance(Protocol):
    """The state after a part of an update, the metrics, and whether the update is done, [] bool."""

    def __call__(self, state: PyTree, going: jax.Array, /) -> tuple[PyTree, PyTree, jax.Array]: ...


class Algorithm(NamedTuple):
    """A learning algorithm, as pure functions of one run.

    `init(key, hyperparameters) -> State` and `update(State) -> (State, Metrics)`: the state is what is carried from one
    iteration to the next, the metrics (a NamedTuple of scalars, and of mappings from names to scalars) are what is
    emitted. `hyperparameters(**values)` returns the numbers that are traced, with defaults for those not named; shapes,
    counts and functions were fixed when the algorithm was built.

    An algorithm whose update takes a number of steps that differs from run to run may offer them one by one:
    `step(State, going) -> (State, Metrics, updated)`, which begins an update only if `going`, and says whether one is
    done, to which the metrics then belong. A batch of runs so goes on without waiting for each other's updates.
    """

    init: Init
    update: Update
    hyperparameters: Callable[..., PyTree]
    step: Advance | None = None


def train(
    algorithm: Algorithm, iterations: int, mesh: Mesh | None = None
) -> Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]:
    """Run(key, hyperparameters) -> (state, curves): a whole run of the algorithm, ready for `vmap` and `jit`.

    The state is the algorithm's after its last update, the curves are the metrics of every iteration, each
    [iterations].

    Args:
        algorithm: What to run.
        iterations: Updates of the run, at least 1.
        mesh: Devices to spread the run over, see `run_mesh`; one device if not given.

    Raises:
        InputError: If there is no iteration to do, or the mesh is none of a run; when it is called, if its devices do
            not divide the slots.

    Example:
        >>> import pgjax
        >>> algorithm = pgjax.reinforce(pgjax.maze("#SE#", horizon=8), pgjax.tabular(states=2, actions=4), slots=4)
        >>> run = jax.jit(train(algorithm, iterations=3))
        >>> state, curves = run(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.1))
        >>> state.params.shape, curves.episode_return.shape
        ((2, 4), (3,))
    """
    iterations = whole_number("iterations", iterations, 1)

    def run(key: jax.Array, hyperparameters: PyTree) -> tuple[PyTree, PyTree]:
        state = by_model(algorithm.init(key, hyperparameters))
        state, curves, _ = advance(algorithm, iterations, state, iterations, iterations)
        return state, curves

    return run if mesh is None else spread(run, mesh)


def advance(
    algorithm: Algorithm, width: int, state: PyTree, goal: int | jax.Array, most: int | jax.Array
) -> tuple[PyTree, PyTree, jax.Array]:
    """Do `goal` or more iterations of a run, at most `most`, and return its state, curves [width] and their number.

    More than the goal are done only beside other runs of a batch that have yet to reach it.

    Args:
        algorithm: Of which.
        width: Length of the curves, at least `most`; what is beyond the number of iterations done means nothing.
        state: The run's.
        goal: Iterations to do, [].
        most: Iterations to do at most, [], at least `goal`.
    """
    update = jax.jit(algorithm.update, inline=True)  # so that it is traced once, for its shapes and for the loop
    _, metrics = jax.eval_shape(update, state)
    empty = jax.tree.map(lambda metric: jnp.zeros((width, *metric.shape), metric.dtype), metrics)

    def written(curves: PyTree, i: jax.Array, metrics: PyTree) -> PyTree:
        return jax.tree.map(lambda curve, metric: curve.at[i].set(metric, mode="drop"), curves, metrics)

    def iterate(i: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        state, metrics = update(carry[0])
        return by_model(state), written(carry[1], i, metrics)

    if algorithm.step is None:
        return *jax.lax.fori_loop(0, goal, iterate, (state, empty)), jnp.int32(goal)
    step = algorithm.step

    def behind(carry: tuple[PyTree, PyTree, jax.Array]) -> jax.Array:
        return together(carry[2] < goal)

    def one_step(carry: tuple[PyTree, PyTree, jax.Array]) -> tuple[PyTree, PyTree, jax.Array]:
        state, curves, done = carry
        state, metrics, updated = step(state, done < most)
        return state, written(curves, jnp.where(updated, done, width), metrics), done + updated

    return jax.lax.while_loop(behind, one_step, (state, empty, jnp.int32(0)))


def pretrained(policy: Policy, algorithm: Algorithm, iterations: int, hyperparameters: PyTree = None) -> Policy:
    """The policy with, as its first parameters, those that a whole run of an algorithm ends with.

    The run is part of the policy's `init`, and so of whatever the policy is given to: each seed has its own. To start
    from parameters that are there already, use `policy._replace(init=lambda key: params)`.

    Args:
        policy: f, which the algorithm trains.
        algorithm: Its state has `params`, the policy's.
        iterations: Of the algorithm, at least 1.
        hyperparameters: `algorithm.hyperparameters()` if not given.

    Raises:
        InputError: If there is no iteration to do.
    """
    run = train(algorithm, iterations)
    hyperparameters = algorithm.hyperparameters() if hyperparameters is None else hyperparameters
    return policy._replace(init=lambda key: run(key, hyperparameters)[0].params)


def by_name(metrics: PyTree) -> dict[str, jax.Array]:
    """Metrics {name: array}, and beside them those that a field such as `notes` holds by names of their own.

    Raises:
        InputError: If one has the name of another.
    """
    found: dict[str, jax.Array] = {}
    fields = metrics._asdict() if hasattr(metrics, "_asdict") else {}
    for field, value in fields.items():
        for name, array in (value if isinstance(value, Mapping) else {field: value}).items():
            if name in found:
                raise InputError(f"expected notes with names of their own, got {name}, which is a metric already")
            found[name] = array
    return found


def run_keys(study: int, seeds: Iterable[int]) -> jax.Array:
    """A key [len(seeds)] for each run: `fold_in(key(study), seed)`, whatever runs beside it.

    The generator is threefry, whichever `jax_default_prng_impl` names: of the others, some draw other numbers for a run
    alone and among others.

    Args:
        study: What tells two studies apart whose runs should have nothing in common, from 0 to 2³² − 1.
        seeds: Integers from 0 to 2³² − 1.

    Raises:
        InputError: If one is outside of that, or no integer.

    Example:
        >>> alone, among_others = run_keys(0, [17])[0], run_keys(0, range(1000))[17]
        >>> bool(alone == among_others)
        True
    """
    study, numbers = whole_number("the study", study, 0, 2**32 - 1), check_seeds(seeds)
    first = jax.random.key(np.uint32(study), impl="threefry2x32")
    return jax.vmap(lambda seed: jax.random.fold_in(first, seed))(jnp.asarray(numbers, jnp.uint32))


def check_seeds(seeds: Iterable[int]) -> list[int]:
    """Seeds as Python integers, of each of which a key can be made.

    Raises:
        InputError: If they are not several, or one is no integer from 0 to 2³² − 1.
    """
    if isinstance(seeds, str | bytes) or not isinstance(seeds, Iterable) or getattr(seeds, "ndim", 1) != 1:
        raise InputError(f"expected seeds to be a sequence of integers, such as range(3), got {seeds!r}")
    return [whole_number("a seed", seed, 0, 2**32 - 1) for seed in seeds]
