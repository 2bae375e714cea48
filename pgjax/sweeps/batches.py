"""The batches of a sweep: computed segment by segment, saved now and then, and written when they are finished."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import jax
import jaxlib
import numpy as np
from jax.experimental import multihost_utils

from pgjax import trees
from pgjax.algorithms.base import by_name
from pgjax.errors import say
from pgjax.placement import put
from pgjax.progress import progress_of
from pgjax.sweeps import checkpoints
from pgjax.sweeps.checkpoints import Running
from pgjax.sweeps.grid import Runs
from pgjax.sweeps.looks import Report, reported
from pgjax.sweeps.program import Plan, Program, halved
from pgjax.sweeps.store import Piece, Store, completed, keeps_params, read, write
from pgjax.trees import PyTree

SEGMENT_SECONDS = 20.0  # that a segment takes at most, once it is known how long an iteration takes
STOPPED = 128 + signal.SIGTERM  # the exit status that a shell expects of a process that was told to stop


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
    report: Report | None = None,
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
            if any(agreed(program, stop.is_set())):
                leave(saved=True)
            others = int(done[mine.start : mine.stop].sum()) - (len(chosen) - len(missing))
            try:
                batch = segments(program, runs, chosen, iterations, store, checkpoint, stop)
                batch = batch if report is None else reported(batch, report, runs, chosen, store)
                running = follow(batch, show, len(chosen), others)
                pieces = pieces_of(running, runs, chosen, missing, keep_params)
                seconds = running.seconds / len(chosen)
                del running  # and with it the states, which are on the devices
            except jax.errors.JaxRuntimeError as error:
                plan, program = halved(program.plan, error), None
                continue
            if not program.joint or jax.process_index() == 0:
                write(store, pieces, seconds)
            done[missing] = True
            if checkpoint is not None:
                checkpoint.path.unlink(missing_ok=True)
                checkpoints.before(checkpoint.path).unlink(missing_ok=True)
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
        stopped, late = agreed(program, stop.is_set(), time.monotonic() - saved >= checkpoint.seconds)
        if stopped:
            leave(checkpoints.save(checkpoint.path, label, running))
        if late:
            checkpoints.save(checkpoint.path, label, running)
            saved = time.monotonic()


def agreed(program: Program, *numbers: float) -> np.ndarray:
    """Numbers; where several processes compute together, the largest that any of them has."""
    own = np.asarray(numbers)
    return multihost_utils.process_allgather(own).max(axis=0) if program.joint else own


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
    states = program.start(*put((keys, values), program.start.input_shardings[0]))
    curves = {name: np.full((len(keys), iterations), np.nan, np.float32) for name in by_name(program.metrics)}
    return Running(
        states=states, curves=curves, done=np.zeros(len(keys), np.int32), seconds=time.perf_counter() - begun
    )


def go_on(program: Program, running: Running) -> Running:
    """A batch with a segment more of it done; what is given is used up."""
    begun = time.perf_counter()
    (most,) = agreed(program, in_time(program, running))
    goal = program.goal(running.done, running.iterations, int(most))
    states, metrics, counts = program.advance(running.states, *goal)
    counts = np.asarray(counts)
    rows, columns = np.nonzero(np.arange(program.width) < counts[:, None])
    found = by_name(metrics)
    for name, curve in running.curves.items():
        curve[rows, running.done[rows] + columns] = np.asarray(found[name])[rows, columns]
    seconds = running.seconds + time.perf_counter() - begun
    return running._replace(states=states, done=running.done + counts, seconds=seconds)


def in_time(program: Program, running: Running) -> int:
    """How many iterations to do at most, so that SIGTERM is noticed, and the batch saved, soon enough.

    Runs with a clock of their own do whole segments: how long one is idle is among their metrics.
    """
    if program.asynchronous:
        return program.segment
    done = int(running.done.min())
    return max(1, program.segment // 10 if done == 0 else int(SEGMENT_SECONDS * done / max(running.seconds, 1e-9)))


def pieces_of(running: Running, runs: Runs, chosen: range, missing: np.ndarray, keep_params: bool) -> list[Piece]:
    """Those runs of a finished batch that are to be written, cut where results are."""
    params: dict[str, np.ndarray] = {}
    if keep_params:
        final = running.states.params
        params = dict(zip(trees.names(final), map(whole, jax.tree.leaves(final)), strict=True))
    pieces = []
    for region, cut in runs.regions(missing.tolist()):
        rows = missing[cut] - chosen.start
        curves = {name: curve[rows] for name, curve in running.curves.items()}
        pieces.append(Piece(region, curves, {name: leaf[rows] for name, leaf in params.items()}))
    return pieces


def whole(leaf: jax.Array) -> np.ndarray:
    """A leaf on the host, as `trees.plain` has it, from the devices of all processes."""
    return trees.plain(leaf if leaf.is_fully_addressable else multihost_utils.process_allgather(leaf, tiled=True))


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
