"""Run an algorithm for many seeds and hyper-parameters: in batches, over all devices, with results as they come.

A sweep is a list of runs, one for each point of the grid and each seed. Several processes, on one machine or many,
deal it out among themselves; each cuts its part into batches (`program.py` says how a batch uses the devices). The
iterations of a batch are computed in segments, jitted once and called from a Python loop; between two segments progress
is shown, the curves leave the device, and now and then the batch is saved. What is finished goes into the results.

A process that is killed and started again goes on from what it saved, and on the same machine comes to the very same
numbers: a batch is always the same runs, computed together. Which runs share a batch, a block or a device does
otherwise not change what they compute, but for the last bits that a different order of additions costs.

Limits. Every call compiles once. A `configuration` is trusted: who changes a function and keeps it gets old results for
new ones. How a store is divided among processes is fixed when it is created, so more of them, later, may find nothing
to do. Several processes on one machine each plan for all of its memory and cores: set JAX_NUM_CPU_DEVICES, and `batch`.
A damaged file of results is noticed when a sweep goes on; one that was removed is not, and its runs read as NaN. A
shared directory must have POSIX locks and renames, as NFS and Lustre do, and object stores mounted as directories do
not.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from jax.sharding import Mesh

from pgjax.algorithms.base import Algorithm, by_name
from pgjax.checks import whole_number
from pgjax.devices import memory_budget, within_memory
from pgjax.errors import InputError, say
from pgjax.hyperparameters import fingerprint, with_values
from pgjax.paths import full_path
from pgjax.placement import RUN, sweep_mesh
from pgjax.sweeps import checkpoints
from pgjax.sweeps.batches import Checkpoint, compute, leave, stopping
from pgjax.sweeps.grid import Runs, runs_of
from pgjax.sweeps.looks import Report
from pgjax.sweeps.program import Plan, Program, compile_program, compile_within, first_plan
from pgjax.sweeps.store import RESERVED, Share, Store, completed, create, locked, read, share
from pgjax.trees import PyTree

LONGEST_SEGMENT = 1000  # iterations, as their metrics are kept on the devices


def sweep(
    algorithm: Algorithm,
    *,
    iterations: int,
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[float]] | None = None,
    by_seed: Mapping[str, PyTree] | None = None,
    hyperparameters: PyTree = None,
    study: int = 0,
    out: str | Path | None = None,
    configuration: Mapping[str, Any] | None = None,
    batch: int | None = None,
    block: int | None = None,
    memory: int | None = None,
    segment: int | None = None,
    run_devices: int = 1,
    model_devices: int = 1,
    keep_params: bool = True,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
    report: Report | None = None,
) -> xr.Dataset:
    """Run an algorithm for every seed at every point of a grid, and return the curves.

    Called by each of several processes (`jax.distributed.initialize`), with an `out` that all of them see, it shares
    the runs between them, and returns to each when all of them are completed. Nothing else is exchanged, unless runs
    are spread over more devices than a process has: then they compute all of them together.

    Args:
        algorithm: What to run.
        iterations: Updates of each run.
        seeds: Numbers of the runs, for example `range(256)`. A run's key is fold_in(key(study), seed).
        grid: Values of hyper-parameters to combine, {"learning_rate": [1e-3, 3e-3], "environment.length": [0.5, 1.0]}.
        by_seed: Hyper-parameters of which each seed has its own, the same at every point of the grid: {name: a tree of
            arrays [len(seeds), ...]}, in the order of `seeds`. The tree takes the place of whatever the name stands
            for. For example, to start from what an earlier sweep of these seeds ended with:
            {"supervised": load_params(earlier, like)}.
        hyperparameters: The others; `algorithm.hyperparameters()` if not given.
        study: See `run_keys`.
        out: Directory for the results. Given the same configuration again, a sweep goes on from what it finished.
        configuration: What the results depend on beside the numbers given here (functions have no name that could be
            compared): the environment, the policy, options. Plain numbers, texts, lists and mappings; with `out` it
            must be given.
        batch: Runs computed together; by default as many as the memory allows, on a CPU an eighth of the sweep or a
            block for each device (`use_every_core`) if that is more.
        block: Runs vmapped together on a device; by default 16 on a CPU (32 if asynchronous), all of them elsewhere.
        memory: Budget in bytes for one device, see `memory_budget`. The compiler's own account decides.
        segment: Iterations between two looks, at most; by default a tenth of a run or 1000, and no more than 20 s take.
        run_devices: Devices over which each run's slots are split; many small runs are faster on one each.
        model_devices: Devices of these over which its parameters and the optimizer's state are split, too.
        keep_params: Whether to keep the final parameters of each run, for `load_params`; a store that is already there
            stays as it was laid out.
        checkpoint_seconds: With `out`, the running batch is saved after so many seconds; 0 for after every segment.
        progress: Whether to say how far it is: a bar on a terminal, elsewhere a line every 30 s.
        report: Function to call with every `Look`: the averages over seeds of each metric, at a point of the grid. Of
            several processes the first calls it. `pgjax.sweeps` has some for CSV, TensorBoard and Weights & Biases.

    Returns:
        A dataset with dimensions (names of the grid…, seed, iteration), a variable for each metric of the algorithm
        (and for each of its notes, by their own names), and for each run `seconds`, its share of the time that its
        batch was computed in, and `completed`.

    Raises:
        InputError: If a value cannot be used or `out` holds something else, before anything is compiled or written; if
            another process writes there, a single run does not fit into memory, or the disk is full. What was finished
            is kept.
        SystemExit: With status 143, after SIGTERM in the main thread and with `out`. The running batch is saved.

    Example:
        >>> import pgjax
        >>> algorithm = pgjax.reinforce(pgjax.maze("#SE#", horizon=8), pgjax.tabular(states=2, actions=4), slots=4)
        >>> grid = {"learning_rate": [0.1, 0.3]}
        >>> results = sweep(algorithm, iterations=2, seeds=range(3), grid=grid, progress=False)
        >>> results.episode_return.dims, results.episode_return.shape
        (('learning_rate', 'seed', 'iteration'), (2, 3, 2))
    """
    iterations, study = whole_number("iterations", iterations, 1), whole_number("the study", study, 0, 2**32 - 1)
    hyperparameters = algorithm.hyperparameters() if hyperparameters is None else hyperparameters
    runs = runs_of(study, seeds, grid, by_seed, hyperparameters)
    on = {"run_devices": run_devices, "model_devices": model_devices}
    counts = {"batch": batch, "block": block, "memory": memory, "segment": segment}
    check_options(counts | on, checkpoint_seconds, out, configuration)
    numbers = finite_fingerprint(with_values(hyperparameters, runs.by_seed))
    key, inputs = jax.tree.map(lambda leaf: leaf[0], runs.inputs([0]))
    curves, params = emitted(algorithm, key, with_values(hyperparameters, inputs), runs.labels, keep_params, on)
    processes = 1 if run_devices > jax.local_device_count() else jax.process_count()  # that share the runs
    out = None if out is None else full_path(out)
    whole = whole_of(runs, iterations, numbers, configuration or {})
    store = create(out, whole, runs.labels, runs.seeds, iterations, curves, params, processes)
    if not completed(store).all():
        segment = min(-(-iterations // 10), LONGEST_SEGMENT) if segment is None else min(segment, iterations)
        mine = own_share(store, processes)
        mesh = sweep_mesh(len(mine.runs), **on)
        make = maker(algorithm, hyperparameters, inputs, segment, mesh, memory)
        plan = first_plan(algorithm, len(mine.runs), mesh.shape[RUN], batch, block)
        work(runs, mine, store, make, plan, iterations, saving(out, checkpoint_seconds), progress, report)
    if out is not None:
        checkpoints.remove(out)
    return read(store)


def own_share(store: Store, processes: int) -> Share:
    """What this process computes and writes, of so many that share the runs.

    Where there are more processes, they compute all runs together, and the first one writes.
    """
    here = jax.process_index()
    mine = share(store, here % processes, processes)
    return mine if here < processes else mine._replace(chunks=range(0))


def saving(out: Path | None, seconds: float) -> Checkpoint | None:
    """Where this process saves its running batch, and how often."""
    return None if out is None else Checkpoint(checkpoints.place(out, jax.process_index()), seconds)


def work(
    runs: Runs,
    mine: Share,
    store: Store,
    make: Callable[[Plan], Program],
    plan: Plan,
    iterations: int,
    checkpoint: Checkpoint | None,
    shown: bool,
    report: Report | None,
) -> None:
    """Compute what is missing of this process's runs, see `compute`, and wait for those of others."""
    shown, report = (shown, report) if jax.process_index() == 0 else (False, None)
    with stopping(checkpoint is not None) as stop:
        if not completed(store)[mine.runs].all():
            with locked(store, mine.chunks):
                compute(runs, mine.runs, store, make, plan, iterations, checkpoint, stop, shown, report)
        wait(store, stop)


def whole_of(runs: Runs, iterations: int, numbers: dict[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """All that tells the results of a sweep from others; numbers are the hyper-parameters as `fingerprint` has them."""
    whole = {"study": runs.study, "seeds": runs.seeds, "grid": runs.labels, "iterations": iterations}
    whole |= {"hyperparameters": numbers, "configuration": configuration}
    return whole | ({"by_seed": sorted(runs.by_seed)} if runs.by_seed else {})  # whose arrays are among the numbers


def finite_fingerprint(hyperparameters: PyTree) -> dict[str, Any]:
    """Hyper-parameters as plain numbers, see `fingerprint`.

    Raises:
        InputError: If one of the algorithm's own, not one of the environment's, is not finite.
    """
    numbers = fingerprint(hyperparameters)
    for name, number in numbers.items():
        if "." not in name and isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"expected finite values of {name}, got {number}")
    return numbers


def maker(
    algorithm: Algorithm,
    hyperparameters: PyTree,
    inputs: Mapping[str, PyTree],
    segment: int,
    mesh: Mesh,
    memory: int | None,
) -> Callable[[Plan], Program]:
    """What compiles the largest program within the memory, from a plan downwards; arguments are those of `sweep`."""
    with within_memory(memory):
        budget = memory_budget()

    def compile_plan(plan: Plan) -> Program:
        with within_memory(memory):
            return compile_program(algorithm, hyperparameters, inputs, segment, plan, mesh)

    return lambda plan: compile_within(budget, compile_plan, plan)


def emitted(
    algorithm: Algorithm,
    key: jax.Array,
    hyperparameters: PyTree,
    axes: Collection[str],
    keep_params: bool,
    devices: Mapping[str, int],
) -> tuple[list[str], PyTree]:
    """The names of the curves that a run emits, and the shapes of its final parameters; None if they are not kept.

    Raises:
        InputError: If a curve has a name that results use otherwise, parameters are to be kept and there are none, or a
            run cannot be spread over so many devices.
    """

    def once(key: jax.Array, hyperparameters: PyTree) -> tuple[PyTree, PyTree]:
        return algorithm.update(algorithm.init(key, hyperparameters))

    with jax.sharding.use_abstract_mesh(sweep_mesh(1, **devices).abstract_mesh):
        state, metrics = jax.eval_shape(once, key, hyperparameters)
    names = list(by_name(metrics))
    for name in names:
        if name in {*RESERVED, *axes}:
            raise InputError(f"expected metrics with names that results do not use otherwise, got {name}")
    if not keep_params:
        return names, None
    if not hasattr(state, "params"):
        raise InputError("expected an algorithm whose state has params, or keep_params=False, got one without")
    return names, state.params


def wait(store: Store, stop: threading.Event) -> None:
    """Wait until every process has completed its runs; if that takes a minute, say what is missing."""
    begun, said = time.monotonic(), False
    while not (done := completed(store)).all():
        if stop.is_set():
            leave(saved=True)
        if not said and time.monotonic() - begun > 60:
            say(f"waiting for {int((~done).sum())} runs of other processes, which must write to the same {store}")
            said = True
        time.sleep(0.5)


def check_options(
    counts: Mapping[str, int | None],
    checkpoint_seconds: float,
    out: str | Path | None,
    configuration: Mapping[str, Any] | None,
) -> None:
    """Raise unless counts are counts, and results go where they can be told from others and every process finds them.

    Raises:
        InputError: If not.
    """
    for name, number in counts.items():
        if number is not None:
            whole_number(name, number, 1)
    if not checkpoint_seconds >= 0:
        raise InputError(f"expected 0 or more seconds between checkpoints, got {checkpoint_seconds}")
    if out is not None and configuration is None:
        raise InputError(
            "expected a configuration beside out, to tell these results from those of another algorithm, got none"
        )
    processes = jax.process_count()
    if out is None and processes > 1:
        raise InputError(f"expected out, a directory that all {processes} processes share, got none")
