"""Run an algorithm for many seeds and hyper-parameters: in batches, over all devices, with results as they come.

A sweep is a list of runs, one for each point of the grid and each seed. Several processes, on one machine or many,
deal it out among themselves; each cuts its part into batches (`program.py` says how a batch uses the devices). The
iterations of a batch are computed in segments, jitted once and called from a Python loop; between two segments progress
is shown, the curves leave the device, and now and then the batch is saved. What is finished goes into the results.

A process that is killed and started again goes on from what it saved, and on the same machine comes to the very same
numbers: a batch is always the same runs, computed together. Which runs share a batch, a block or a device does
otherwise not change what they compute, but for the last bits that a different order of additions costs.
"""

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jaxlib
import numpy as np
import xarray as xr

from pgjax import trees
from pgjax.algorithms.base import Algorithm, by_name, check_seeds
from pgjax.checks import whole_number
from pgjax.devices import memory_budget
from pgjax.errors import InputError, say
from pgjax.hyperparameters import fingerprint, with_values
from pgjax.paths import full_path
from pgjax.progress import progress_of
from pgjax.sweeps import checkpoints
from pgjax.sweeps.checkpoints import Running
from pgjax.sweeps.grid import Runs, check_by_seed, check_grid
from pgjax.sweeps.program import Plan, Program, compile_program, compile_within, first_plan, halved
from pgjax.sweeps.store import RESERVED, Piece, Store, completed, create, keeps_params, locked, read, share, write
from pgjax.trees import PyTree

SEGMENT_SECONDS = 20.0  # that a segment takes at most, once it is known how long an iteration takes
LONGEST_SEGMENT = 1000  # iterations, as their metrics are kept on the devices
STOPPED = 128 + signal.SIGTERM  # the exit status that a shell expects of a process that was told to stop


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
    keep_params: bool = True,
    checkpoint_seconds: float = 60.0,
    progress: bool = True,
) -> xr.Dataset:
    """Run an algorithm for every seed at every point of a grid, and return the curves.

    Called by each of several processes (`jax.distributed.initialize`), with an `out` that all of them see, it shares
    the runs between them, and returns to each when all of them are completed. Nothing else is exchanged.

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
        block: Runs vmapped together on a device; by default 16 on a CPU (32 where each has its own clock), all of them
            elsewhere.
        memory: Budget in bytes for one device, see `memory_budget`. The compiler's own account decides.
        segment: Iterations between two looks at the progress, at most; a tenth of a run if not given, or 1000. Fewer
            are done where they would take more than 20 seconds.
        keep_params: Whether to keep the final parameters of each run, for `load_params`; a store that is already there
            stays as it was laid out.
        checkpoint_seconds: With `out`, the running batch is saved when so many seconds have passed since it last was;
            0 for after every segment.
        progress: Whether to say how far it is: a bar on a terminal, elsewhere a line every 30 s.

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
        >>> algorithm = pgjax.reinforce(pgjax.maze("#SE#", horizon=8), pgjax.tabular(states=2, actions=4), episodes=4)
        >>> grid = {"learning_rate": [0.1, 0.3]}
        >>> results = sweep(algorithm, iterations=2, seeds=range(3), grid=grid, progress=False)
        >>> results.episode_return.dims, results.episode_return.shape
        (('learning_rate', 'seed', 'iteration'), (2, 3, 2))
    """
    iterations, study = whole_number("iterations", iterations, 1), whole_number("the study", study, 0, 2**32 - 1)
    seeds = check_seeds(seeds)
    if not seeds:
        raise InputError("expected 1 or more seeds, got none")
    if len(set(seeds)) != len(seeds):
        raise InputError("expected every seed once, got some twice")
    hyperparameters = algorithm.hyperparameters() if hyperparameters is None else hyperparameters
    for what, given in (("grid", grid), ("by_seed", by_seed)):
        if given is not None and not (isinstance(given, Mapping) and all(isinstance(name, str) for name in given)):
            raise InputError(f"expected {what} to be a mapping from names to values, got {given!r}")
    grid = dict(grid or {})
    values = check_grid(grid, hyperparameters)
    labels = {
        name: array.tolist() if array.dtype.kind in "iu" else list(map(float, grid[name]))
        for name, array in values.items()
    }
    by_seed = check_by_seed(by_seed or {}, len(seeds), grid, hyperparameters)
    for name, number in (("batch", batch), ("block", block), ("memory", memory), ("segment", segment)):
        if number is not None:
            whole_number(name, number, 1)
    if not checkpoint_seconds >= 0:
        raise InputError(f"expected 0 or more seconds between checkpoints, got {checkpoint_seconds}")
    numbers = fingerprint(with_values(hyperparameters, by_seed))
    for name, number in numbers.items():
        if "." not in name and isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"expected finite values of {name}, got {number}")
    runs = Runs(study, seeds, values, by_seed)
    key, inputs = jax.tree.map(lambda leaf: leaf[0], runs.inputs([0]))
    state, metrics = jax.eval_shape(train_once(algorithm), key, with_values(hyperparameters, inputs))
    metrics = by_name(metrics)
    for name in metrics:
        if name in {*RESERVED, *grid}:
            raise InputError(f"expected metrics with names that results do not use otherwise, got {name}")
    if keep_params and not hasattr(state, "params"):
        raise InputError("expected an algorithm whose state has params, or keep_params=False, got one without")
    process, processes = jax.process_index(), jax.process_count()
    check_out(out, configuration, processes)
    out = None if out is None else full_path(out)

    whole = {"study": study, "seeds": seeds, "grid": labels, "iterations": iterations, "hyperparameters": numbers}
    whole |= {"configuration": configuration or {}}
    if by_seed:  # whose arrays are among the hyper-parameters
        whole |= {"by_seed": sorted(by_seed)}
    params = state.params if keep_params else None
    store = create(out, whole, labels, seeds, iterations, list(metrics), params, processes)
    mine = share(store, process, processes)
    if not completed(store).all():
        segment = min(-(-iterations // 10), LONGEST_SEGMENT) if segment is None else min(segment, iterations)
        devices = jax.local_devices()[: max(1, len(mine.runs))]
        budget = memory_budget() if memory is None else memory
        checkpoint = None if out is None else Checkpoint(checkpoints.place(out, process), checkpoint_seconds)

        def compile_plan(plan: Plan) -> Program:
            return compile_program(algorithm, hyperparameters, inputs, segment, plan, devices)

        def make(plan: Plan) -> Program:
            return compile_within(budget, compile_plan, plan)

        with stopping(out is not None) as stop:
            if not completed(store)[mine.runs].all():
                plan = first_plan(algorithm, len(mine.runs), devices, batch, block)
                with locked(store, mine.chunks):
                    compute(runs, mine.runs, store, make, plan, iterations, checkpoint, stop, progress and process == 0)
            wait(store, stop)
    if out is not None:
        checkpoints.remove(out)
    return read(store)


def train_once(algorithm: Algorithm) -> Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]:
    """The run of a single iteration, to see what it emits."""
    return lambda key, hyperparameters: algorithm.update(algorithm.init(key, hyperparameters))


class Checkpoint(NamedTuple):
    """Where the running batch is saved."""

    path: Path
    seconds: float  # at least, from one time to the next


def compute(
    runs: Runs,
    mine: range,
    store: Store,
    make: Callable[[Plan], Program],
    plan: Plan,
    iterations: int,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
    shown: bool,
) -> None:
    """Compute those runs of this process that are not completed, batch by batch, and write them.

    A batch of which any run is missing is computed whole: what its runs come to must not depend on when the process was
    killed. If the memory is short, it is begun anew in smaller ones.

    Raises:
        InputError: If a single run does not fit into memory, or the results cannot be written.
        SystemExit: See `leave`.
    """
    done = completed(store)
    keep_params = keeps_params(store)
    program: Program | None = None
    first = mine.start
    with progress_of(len(mine) * iterations, shown) as show:
        while first < mine.stop:
            program = make(plan) if program is None else program
            chosen = range(first, min(first + program.size, mine.stop))
            missing = chosen.start + np.flatnonzero(~done[chosen.start : chosen.stop])
            if not len(missing):
                first = chosen.stop
                continue
            if stop.is_set():
                leave(saved=True)
            others = int(done[mine.start : mine.stop].sum()) - (len(chosen) - len(missing))
            try:
                batch = segments(program, runs, chosen, iterations, store, checkpoint, stop)
                running = follow(batch, show, len(chosen), others)
                pieces = pieces_of(running, runs, chosen, missing, keep_params)
                seconds = running.seconds / len(chosen)
                del running  # and with it the states, which are on the devices
            except jax.errors.JaxRuntimeError as error:
                plan, program = halved(program.plan, error), None
                continue
            write(store, pieces, seconds)
            done[missing] = True
            if checkpoint is not None:
                checkpoint.path.unlink(missing_ok=True)
            first = chosen.stop


def segments(
    program: Program,
    runs: Runs,
    chosen: range,
    iterations: int,
    store: Store,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
) -> Iterator[Running]:
    """Compute a batch, from its checkpoint on if there is one; yield it after each segment, the last time finished.

    Raises:
        SystemExit: See `leave`; the batch is saved before.
    """
    label = identity(store, program, chosen)
    running = None if checkpoint is None else checkpoints.restore(checkpoint.path, label, program.states)
    if running is None:
        running = begin(program, *runs.inputs(pad(chosen, program.size)), iterations)
    saved = time.monotonic()
    while not running.finished:
        running = go_on(program, running)
        yield running
        if checkpoint is None or running.finished:
            continue
        if stop.is_set():
            leave(checkpoints.save(checkpoint.path, label, running))
        if time.monotonic() - saved >= checkpoint.seconds:
            checkpoints.save(checkpoint.path, label, running)
            saved = time.monotonic()


def identity(store: Store, program: Program, chosen: range) -> str:
    """What tells a batch, as a program computes it on these devices, from any other."""
    states = jax.tree.leaves(program.states)
    return json.dumps(
        {
            "configuration": read(store).attrs["configuration"],
            "runs": [chosen.start, chosen.stop],
            "plan": program.plan,
            "program": program.digest,
            "devices": [device.device_kind for device in states[0].sharding.mesh.devices.flat],
            "versions": [jax.__version__, jaxlib.__version__],
            "states": [
                f"{name} {leaf.dtype}{leaf.shape}"
                for name, leaf in zip(trees.names(program.states), states, strict=True)
            ],
        }
    )


def pad(chosen: Sequence[int], B: int) -> list[int]:
    """B runs: the chosen ones, and as many of them again as the last batch is short of."""
    return [chosen[i % len(chosen)] for i in range(B)]


def begin(program: Program, keys: jax.Array, values: dict[str, PyTree], iterations: int) -> Running:
    """A batch with nothing done."""
    begun = time.perf_counter()
    states = program.start(*jax.device_put((keys, values), program.start.input_shardings[0]))
    curves = {name: np.full((len(keys), iterations), np.nan, np.float32) for name in by_name(program.metrics)}
    return Running(states, curves, np.zeros(len(keys), np.int32), time.perf_counter() - begun)


def go_on(program: Program, running: Running) -> Running:
    """A batch with a segment more of it done; what is given is used up."""
    begun = time.perf_counter()
    goal = program.goal(running.done, running.iterations, in_time(program, running))
    states, metrics, counts = program.advance(running.states, *goal)
    counts = np.asarray(counts)
    rows, columns = np.nonzero(np.arange(program.width) < counts[:, None])
    found = by_name(metrics)
    for name, curve in running.curves.items():
        curve[rows, running.done[rows] + columns] = np.asarray(found[name])[rows, columns]
    return Running(states, running.curves, running.done + counts, running.seconds + time.perf_counter() - begun)


def in_time(program: Program, running: Running) -> int:
    """How many iterations to do at most, so that SIGTERM is noticed, and the batch saved, soon enough.

    Runs with a clock of their own do whole segments: how long one is idle is among their metrics.
    """
    if program.own_clocks:
        return program.segment
    done = int(running.done.min())
    return max(1, program.segment // 10 if done == 0 else int(SEGMENT_SECONDS * done / max(running.seconds, 1e-9)))


def pieces_of(running: Running, runs: Runs, chosen: range, missing: np.ndarray, keep_params: bool) -> list[Piece]:
    """Those runs of a finished batch that are to be written, cut where results are."""
    params: dict[str, np.ndarray] = {}
    if keep_params:
        final = running.states.params
        params = dict(zip(trees.names(final), map(trees.plain, jax.tree.leaves(final)), strict=True))
    pieces = []
    for region, cut in runs.regions(missing.tolist()):
        rows = missing[cut] - chosen.start
        curves = {name: curve[rows] for name, curve in running.curves.items()}
        pieces.append(Piece(region, curves, {name: leaf[rows] for name, leaf in params.items()}))
    return pieces


def follow(batch: Iterator[Running], show: Callable[[int, str], None], n: int, others: int) -> Running:
    """A batch when it is finished; until then show how far it is, beside others that are completed."""
    for running in batch:
        done = others + n if running.finished else others
        show(others * running.iterations + int(running.done[:n].sum()), f"{describe(running, n)}, {done} runs done")
    return running


def describe(running: Running, n: int) -> str:
    """What to show beside how far a batch is: the first metric's mean now, and real steps per second."""
    name, curve = next(iter(running.curves.items()))
    now = curve[np.arange(n), running.done[:n] - 1]
    text = f"{name} {now[np.isfinite(now)].mean():.4g}" if np.isfinite(now).any() else f"{name} not finite"
    if "steps" in running.curves:
        steps = np.nansum(running.curves["steps"][:n], dtype=float)
        text += f", {steps / running.seconds / 1e6:.2f} M real steps/s"
    return text


@contextlib.contextmanager
def stopping(resumable: bool) -> Iterator[threading.Event]:
    """Note SIGTERM, instead of dying of it, as long as the context lasts; in the main thread and if one can go on."""
    stop = threading.Event()
    if not resumable or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def leave(saved: bool) -> NoReturn:
    """End the process, as SIGTERM wants it, by a SystemExit with status 143."""
    say(f"stopped by SIGTERM; the same command goes on from {'here' if saved else 'what was saved before'}")
    raise SystemExit(STOPPED)


def wait(store: Store, stop: threading.Event) -> None:
    """When every process has completed its runs; if that takes a minute, say what is missing."""
    begun, said = time.monotonic(), False
    while not (done := completed(store)).all():
        if stop.is_set():
            leave(saved=True)
        if not said and time.monotonic() - begun > 60:
            say(f"waiting for {int((~done).sum())} runs of other processes, which must write to the same {store}")
            said = True
        time.sleep(0.5)


def check_out(out: str | Path | None, configuration: Mapping[str, Any] | None, processes: int) -> None:
    """Raise unless results go where they can be told from others and every process finds them.

    Raises:
        InputError: If not.
    """
    if out is not None and configuration is None:
        raise InputError(
            "expected a configuration beside out, to tell these results from those of another algorithm, got none"
        )
    if out is None and processes > 1:
        raise InputError(f"expected out, a directory that all {processes} processes share, got none")
