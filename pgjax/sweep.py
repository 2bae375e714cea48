"""Run an algorithm for many seeds and hyper-parameters: in batches, over all local devices, with results as they come.

A sweep is a list of runs, one for each point of the grid and each seed, cut into batches. The runs of a batch are
shared out over the devices (`shard_map`), and on a device they go block by block (`lax.map`), `vmap`-ed within a block:
on a CPU the parameters of a block then stay in its cache, on an accelerator the block is as large as its memory allows.
The iterations of a batch are computed in segments, jitted once and called from a Python loop; between two segments
progress is shown and the curves leave the device.

Which runs share a batch, a block or a device does not change what they compute, but for the last bits that a
different order of additions costs.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import PartitionSpec
from tqdm import tqdm

from pgjax import results
from pgjax.algorithm import Algorithm, run_keys
from pgjax.environments.environment import PyTree
from pgjax.errors import InputError

CPU_BLOCK = 16  # runs whose parameters stay in a core's cache


class Runs(NamedTuple):
    """All runs of a sweep, in order: every seed at the first point of the grid, then at the second, and so on."""

    study: int
    seeds: Sequence[int]
    grid: Mapping[str, Sequence[float]]

    @property
    def points(self) -> list[tuple[float, ...]]:
        """The points of the grid, the last hyper-parameter fastest."""
        return list(itertools.product(*self.grid.values()))

    def inputs(self, chosen: Sequence[int]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the keys [B] and the hyper-parameters {name: [B]} of some runs."""
        points, n = self.points, len(self.seeds)
        values = np.asarray([points[run // n] for run in chosen]).reshape(len(chosen), len(self.grid))
        keys = run_keys(self.study, [self.seeds[run % n] for run in chosen])
        return keys, {name: jnp.asarray(values[:, i], jnp.result_type(float)) for i, name in enumerate(self.grid)}

    def regions(self, chosen: Sequence[int]) -> Iterator[tuple[dict[str, slice], slice]]:
        """Cut some runs, in order, where they leave a gap or a point of the grid; say where in results and batch."""
        shape, n = tuple(len(values) for values in self.grid.values()), len(self.seeds)
        cuts = [i for i in range(1, len(chosen)) if chosen[i] != chosen[i - 1] + 1 or chosen[i] % n == 0]
        for first, last in itertools.pairwise([0, *cuts, len(chosen)]):
            point, seed = divmod(int(chosen[first]), n)
            index = np.unravel_index(point, shape) if shape else ()
            region = {name: slice(int(i), int(i) + 1) for name, i in zip(self.grid, index, strict=True)}
            region["seed"] = slice(seed, seed + last - first)
            yield region, slice(first, last)


class Plan(NamedTuple):
    """How the runs of a sweep are cut up."""

    share: int  # runs of a batch on one device
    block: int  # runs vmapped together; divides the share


def with_values(tree: PyTree, values: Mapping[str, Any]) -> PyTree:
    """Return hyper-parameters with some replaced: {"learning_rate": 0.1, "environment.length": 1.0}.

    Raises:
        InputError: If there is no hyper-parameter of that name.
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
    if not isinstance(old, jax.Array | float | int) or jnp.ndim(old) != 0:
        raise InputError(f"expected a hyper-parameter that is one number, got {path!r}")
    return replace(**{name: jnp.asarray(value, jnp.result_type(old))})


def check_runs(iterations: int, seeds: Sequence[int], grid: Mapping[str, Sequence[float]], study: int) -> None:
    """Raise unless there are runs to do, each of its own seed and at finite values.

    Raises:
        InputError: If not.
    """
    if iterations < 1:
        raise InputError(f"expected 1 or more iterations, got {iterations}")
    if not len(seeds):
        raise InputError("expected 1 or more seeds, got none")
    if min(seeds) < 0 or max(seeds) >= 2**32:
        raise InputError(f"expected seeds from 0 to 2**32 - 1, got {min(seeds)} to {max(seeds)}")
    if len(set(seeds)) != len(seeds):
        raise InputError("expected every seed once, got some twice")
    if not 0 <= study < 2**32:
        raise InputError(f"expected a study from 0 to 2**32 - 1, got {study}")
    for name, values in grid.items():
        if not len(values):
            raise InputError(f"expected one or more values of {name}, got none")
        for value in values:
            if not abs(value) <= float(np.finfo(np.float32).max):
                raise InputError(f"expected finite values of {name}, got {value}")
        if len({np.float32(value) for value in values}) != len(values):
            raise InputError(f"expected every value of {name} once, got some twice")


def fingerprint(hyperparameters: PyTree) -> dict[str, Any]:
    """Return hyper-parameters as plain numbers by name; of an array, such as a table, what tells it from another."""

    def plain(leaf: Any) -> Any:
        values = np.asarray(leaf)
        return (
            values.item() if values.ndim == 0 else f"{values.shape} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
        )

    leaves = jax.tree_util.tree_leaves_with_path(hyperparameters)
    return {jax.tree_util.keystr(path).lstrip("."): plain(leaf) for path, leaf in leaves}


def memory_budget() -> int:
    """Return the bytes a sweep may use on a device: 80% of an accelerator's, half of a host's shared by its devices."""
    device = jax.local_devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return int(0.8 * statistics["bytes_limit"])
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return host // 2 // jax.local_device_count()


def first_plan(runs: int, devices: Sequence[jax.Device], batch: int | None, block: int | None) -> Plan:
    """Return how to cut up a sweep if memory were no matter."""
    share = -(-runs // len(devices))
    if devices[0].platform == "cpu":
        block = CPU_BLOCK if block is None else block
        # Batches beyond one block a device are no faster here, and what is lost with a killed sweep is a batch.
        share = max(min(block, share), -(-share // 8)) if batch is None else share
    if batch is not None:
        share = min(share, -(-batch // len(devices)))
    block = share if block is None else min(block, share)
    return Plan(-(-share // block) * block, block)


class Running(NamedTuple):
    """A batch between two segments; each of its runs may have come as far as it has."""

    states: PyTree  # [B, ...], on the devices
    curves: dict[str, np.ndarray]  # [B, iterations], NaN where a run has not come yet
    done: np.ndarray  # [B], iterations
    seconds: float

    @property
    def iterations(self) -> int:
        """How many iterations a run has."""
        return next(iter(self.curves.values())).shape[1]

    @property
    def finished(self) -> bool:
        """Whether every run has done all of them."""
        return bool((self.done == self.iterations).all())


class Program(NamedTuple):
    """A sweep's compiled functions, for batches of devices · share runs."""

    plan: Plan
    start: jax.stages.Compiled  # keys [B], values {name: [B]} -> states [B]
    advance: jax.stages.Compiled  # states, count -> states, metrics [B, segment], iterations done by each run [B]
    bytes: int  # at most in use on a device


def compile_program(
    algorithm: Algorithm,
    hyperparameters: PyTree,
    names: Sequence[str],
    segment: int,
    plan: Plan,
    devices: Sequence[jax.Device],
) -> Program:
    """Compile the functions that a plan needs; nothing is run."""
    mesh = jax.sharding.Mesh(np.asarray(devices), ("run",))
    runs = PartitionSpec("run")

    def by_block(function: Callable[[PyTree], PyTree], batch: PyTree) -> PyTree:
        blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, plan.block, *leaf.shape[1:]), batch)
        done = jax.lax.map(jax.vmap(function), blocks)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), done)

    def start(keys: jax.Array, values: dict[str, jax.Array]) -> PyTree:
        return by_block(lambda run: algorithm.init(run[0], with_values(hyperparameters, run[1])), (keys, values))

    def advance(states: PyTree, count: jax.Array) -> tuple[PyTree, PyTree, jax.Array]:
        def run(state: PyTree) -> tuple[PyTree, PyTree, jax.Array]:
            def iterate(i: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
                state, metrics = algorithm.update(carry[0])
                return state, jax.tree.map(lambda curve, metric: curve.at[i].set(metric), carry[1], metrics)

            _, metrics = jax.eval_shape(algorithm.update, state)
            curves = jax.tree.map(lambda metric: jnp.zeros((segment, *metric.shape), metric.dtype), metrics)
            return *jax.lax.fori_loop(0, count, iterate, (state, curves)), count

        return by_block(run, states)

    def over_devices(function: Callable[..., PyTree], *specs: PartitionSpec) -> Callable[..., PyTree]:
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=runs, check_vma=False)

    B = len(devices) * plan.share
    sharding = jax.sharding.NamedSharding(mesh, runs)
    keys = jax.ShapeDtypeStruct((B,), jax.random.key(0).dtype, sharding=sharding)
    values = {name: jax.ShapeDtypeStruct((B,), jnp.result_type(float), sharding=sharding) for name in names}
    started = jax.jit(over_devices(start, runs, runs)).lower(keys, values)
    states = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), started.out_info
    )
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=jax.sharding.NamedSharding(mesh, PartitionSpec()))
    advanced = jax.jit(over_devices(advance, runs, PartitionSpec()), donate_argnums=0).lower(states, count).compile()
    memory = advanced.memory_analysis()
    peak = 0
    if memory is not None:
        peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        peak -= memory.alias_size_in_bytes
    return Program(plan, started.compile(), advanced, peak)


def compile_within(budget: int, compile_plan: Callable[[Plan], Program], plan: Plan) -> Program:
    """Compile the largest plan, from the one given downwards, whose memory stays within the budget.

    Raises:
        InputError: If a single run does not fit.
    """
    while True:
        program = compile_plan(plan)
        if program.bytes <= budget:
            return program
        if plan.share == 1:
            raise InputError(f"expected a run to fit into {budget} bytes of memory, it needs {program.bytes}")
        share = max(1, min(plan.share // 2, int(plan.share * budget / program.bytes)))
        block = min(plan.block, share)
        plan = Plan(share // block * block, block)


def sweep(
    algorithm: Algorithm,
    *,
    iterations: int,
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[float]] | None = None,
    hyperparameters: PyTree = None,
    study: int = 0,
    out: str | Path | None = None,
    configuration: Mapping[str, Any] | None = None,
    batch: int | None = None,
    block: int | None = None,
    memory: int | None = None,
    segment: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run an algorithm for every seed at every point of a grid, and return the curves.

    Args:
        algorithm: What to run.
        iterations: Updates of each run.
        seeds: Numbers of the runs, for example `range(256)`. A run's key is fold_in(key(study), seed).
        grid: Values of hyper-parameters to combine, {"learning_rate": [1e-3, 3e-3], "environment.length": [0.5, 1.0]}.
        hyperparameters: The others; `algorithm.hyperparameters()` if not given.
        study: See `run_keys`.
        out: Directory for the results. Given the same configuration again, a sweep goes on from what it finished.
        configuration: What the results depend on beside the numbers given here (functions have no name that could be
            compared): the environment, the policy, options. Plain numbers, texts, lists and mappings; with `out` it
            must be given.
        batch: Runs computed together, and lost together when the process is killed; by default as many as the memory
            allows, on a CPU an eighth of the sweep or 16 a core if that is more.
        block: Runs vmapped together on a device; by default 16 on a CPU, all of them elsewhere.
        memory: Budget in bytes for one device, see `memory_budget`. The compiler's own account decides.
        segment: Iterations between two looks at the progress; a tenth of a run if not given.
        progress: Whether to show a bar.

    Returns:
        A dataset with dimensions (names of the grid…, seed, iteration), a variable for each metric of the algorithm,
        and `seconds` and `completed` for each run.

    Raises:
        InputError: If a value cannot be used or `out` holds something else, before anything is compiled or written; or
            if a single run does not fit into memory, which compiling it shows.
    """
    seeds = [int(seed) for seed in seeds]
    grid = {name: [float(value) for value in values] for name, values in (grid or {}).items()}
    check_runs(iterations, seeds, grid, study)
    for name, number in (("batch", batch), ("block", block), ("memory", memory), ("segment", segment)):
        if number is not None and number < 1:
            raise InputError(f"expected {name} to be 1 or more, got {number}")
    hyperparameters = algorithm.hyperparameters() if hyperparameters is None else hyperparameters
    with_values(hyperparameters, {name: values[0] for name, values in grid.items()})
    _, metrics = jax.eval_shape(train_once(algorithm), jax.random.key(0), hyperparameters)
    variables = list(metrics._fields)

    for name, number in (numbers := fingerprint(hyperparameters)).items():
        if "." not in name and isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"expected finite values of {name}, got {number}")
    out = None if out is None else Path(out)
    runs = Runs(study, seeds, grid)
    whole = {**runs._asdict(), "iterations": iterations, "hyperparameters": numbers}
    whole |= {"configuration": configuration or {}}
    if out is not None and configuration is None:
        raise InputError(
            "expected a configuration beside out, to tell these results from those of another algorithm, got none"
        )
    store = results.create(out, whole, grid, seeds, iterations, variables)
    completed = results.read(store).completed.values.reshape(-1)
    if completed.all():
        return results.read(store)

    devices = jax.local_devices()[: completed.size]
    segment = -(-iterations // 10) if segment is None else min(segment, iterations)
    program = compile_within(
        memory_budget() if memory is None else memory,
        lambda plan: compile_program(algorithm, hyperparameters, list(grid), segment, plan, devices),
        first_plan(completed.size, devices, batch, block),
    )
    B = len(devices) * program.plan.share
    missing = np.flatnonzero(~completed).tolist()
    finished = completed.size - len(missing)
    with (
        results.alone(store),
        tqdm(
            total=completed.size * iterations,
            initial=finished * iterations,
            unit="it",
            mininterval=0.5,
            disable=not progress,
        ) as bar,
    ):
        for chosen in (missing[first : first + B] for first in range(0, len(missing), B)):
            running = begin(program, *runs.inputs(pad(chosen, B)), variables, iterations)
            while not running.finished:
                before = running.done[: len(chosen)].sum()
                running = go_on(program, running, segment)
                now = describe(running)
                bar.set_postfix_str(f"{now}, {finished} of {completed.size} runs done", refresh=False)
                bar.update(running.done[: len(chosen)].sum() - before)
            regions = [
                (region, {name: curve[rows] for name, curve in running.curves.items()})
                for region, rows in runs.regions(chosen)
            ]
            results.write(store, regions, running.seconds / len(chosen))
            finished += len(chosen)
            bar.set_postfix_str(f"{now}, {finished} of {completed.size} runs done")
    return results.read(store)


def train_once(algorithm: Algorithm) -> Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]:
    """Return the run of a single iteration, to see what it emits."""
    return lambda key, hyperparameters: algorithm.update(algorithm.init(key, hyperparameters))


def pad(chosen: Sequence[int], B: int) -> list[int]:
    """Return B runs: the chosen ones, and as many of them again as the last batch is short of."""
    return [chosen[i % len(chosen)] for i in range(B)]


def begin(
    program: Program, keys: jax.Array, values: dict[str, jax.Array], variables: Sequence[str], iterations: int
) -> Running:
    """Return a batch with nothing done."""
    begun = time.perf_counter()
    states = program.start(*jax.device_put((keys, values), program.start.input_shardings[0]))
    curves = {name: np.full((len(keys), iterations), np.nan, np.float32) for name in variables}
    return Running(states, curves, np.zeros(len(keys), np.int32), time.perf_counter() - begun)


def go_on(program: Program, running: Running, segment: int) -> Running:
    """Return a batch with a segment more of it done; the states of the one given are used up."""
    begun = time.perf_counter()
    _, sharding = program.advance.input_shardings[0]
    count = np.int32(min(segment, running.iterations - running.done.min()))
    states, metrics, counts = program.advance(running.states, jax.device_put(count, sharding))
    counts = np.asarray(counts)
    rows, columns = np.nonzero(np.arange(segment) < counts[:, None])
    for name, curve in running.curves.items():
        curve[rows, running.done[rows] + columns] = np.asarray(getattr(metrics, name))[rows, columns]
    return Running(states, running.curves, running.done + counts, running.seconds + time.perf_counter() - begun)


def describe(running: Running) -> str:
    """Return what to show beside the progress bar: the first metric's mean now, and real steps per second."""
    name, curve = next(iter(running.curves.items()))
    now = curve[np.arange(len(curve)), running.done - 1]
    text = f"{name} {now[np.isfinite(now)].mean():.4g}" if np.isfinite(now).any() else f"{name} not finite"
    if "steps" in running.curves:
        text += f", {np.nansum(running.curves['steps'], dtype=float) / running.seconds / 1e6:.2f} M real steps/s"
    return text
