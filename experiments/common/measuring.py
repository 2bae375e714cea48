"""What the benchmark measures with: timed calls, the machine's own rates, and the rate of an algorithm's real steps."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

import pgjax
from pgjax.algorithms.base import Algorithm
from pgjax.placement import RUN, sweep_mesh
from pgjax.sweeps.program import Program, compile_program, first_plan


class Timing(NamedTuple):
    """What a timed piece of work came to."""

    seconds: float
    cores_busy: float  # CPU seconds per second


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Timing, Any]:
    """Call a function and wait for its result."""
    begun, busy = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*arguments))
    seconds = time.perf_counter() - begun
    return Timing(seconds, (time.process_time() - busy) / seconds), result


def median(timings: Sequence[Timing]) -> Timing:
    """The one in the middle."""
    return sorted(timings)[len(timings) // 2]


def over_devices(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Return, jitted, a function applied to each device's part of an array."""
    mesh, part = jax.sharding.Mesh(np.asarray(jax.local_devices()), ("device",)), PartitionSpec("device")
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=part, out_specs=part, check_vma=False))


def matmul_gflops(repetitions: int, dtype: Any, n: int) -> float:
    """The rate of matrix products of n × n, of operands of a type, on all devices at once."""
    rounds = 8

    def products(share: jax.Array) -> jax.Array:
        matrix = share[0].astype(dtype)

        def one(_: int, x: jax.Array) -> jax.Array:
            return jnp.matmul(x, matrix, preferred_element_type=jnp.float32).astype(dtype) / n

        return jax.lax.fori_loop(0, rounds, one, matrix)[None].astype(jnp.float32)

    run = over_devices(products)
    matrices = jax.random.uniform(jax.random.key(0), (jax.local_device_count(), n, n))
    timed(run, matrices)
    timing = median([timed(run, matrices)[0] for _ in range(repetitions)])
    return jax.local_device_count() * rounds * 2 * n**3 / timing.seconds / 1e9


def environment_steps_per_second(environment: pgjax.Environment, repetitions: int, slots: int) -> float:
    """The rate of environment steps alone, with random actions and no policy, on all devices at once."""
    rows = 200
    assert isinstance(environment.action_space, pgjax.Discrete)
    actions = environment.action_space.n

    def play(keys: jax.Array) -> jax.Array:
        states, _ = jax.vmap(environment.reset, (0, None))(jax.random.split(keys[0], slots), environment.params)

        def row(states: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            chosen = jax.random.randint(key, (slots,), 0, actions)
            step_keys = jax.random.split(key, slots)
            states, step = jax.vmap(environment.step, (0, 0, 0, None))(step_keys, states, chosen, environment.params)
            return states, jnp.sum(step.observation)

        return jax.lax.scan(row, states, jax.random.split(keys[0], rows))[1].sum()[None]

    run = over_devices(play)
    keys = jax.random.split(jax.random.key(0), jax.local_device_count())
    timed(run, keys)
    timing = median([timed(run, keys)[0] for _ in range(repetitions)])
    return jax.local_device_count() * slots * rows / timing.seconds


class Case(NamedTuple):
    """An algorithm that is measured."""

    name: str
    environment: pgjax.Environment
    policy: pgjax.Policy
    algorithm: Algorithm
    flop: int  # of a real step's products: to act, and to differentiate
    learning_rate: float
    iterations: Mapping[str, int]  # by phase: enough for a second or so, few enough to stay in the phase

    @property
    def numbers(self) -> Any:
        """Its hyper-parameters."""
        return self.algorithm.hyperparameters(learning_rate=self.learning_rate)


def compiled(case: Case, runs: int, iterations: int, block: int | None, run_devices: int = 1) -> Program:
    """Compile a program for a batch of so many runs, and segments of so many iterations."""
    mesh = sweep_mesh(runs, run_devices)
    plan = first_plan(case.algorithm, runs, mesh.shape[RUN], batch=runs, block=block)
    return compile_program(case.algorithm, case.numbers, {}, iterations, plan, mesh)


def begin(program: Program, params: Any = None, standing_still: bool = False) -> Any:
    """The states of a batch that begins.

    Args:
        program: Of which.
        params: [n, ...], those of some runs before; fresh ones if not given.
        standing_still: Whether the learning rate is 0, so that the phase of learning stays what it is.
    """
    keys = jax.device_put(pgjax.run_keys(1, range(program.size)), program.start.input_shardings[0][0])
    states = program.start(keys, {})
    if params is not None:
        chosen = np.arange(program.size) % jax.tree.leaves(params)[0].shape[0]
        trained = jax.tree.map(lambda leaf, like: jax.device_put(leaf[chosen], like.sharding), params, states.params)
        states = states._replace(params=trained)
    if standing_still:
        numbers = states.hyperparameters
        numbers = numbers._replace(learning_rate=numbers.learning_rate * 0)
        states = states._replace(hyperparameters=numbers)
    return jax.block_until_ready(states)


def goal(program: Program, iterations: int) -> tuple[jax.Array, ...]:
    """What tells a program to do so many iterations, at least, in a run that is to go on for long."""
    return program.goal(np.zeros(program.size, int), 10**6, iterations)


def throughput(program: Program, params: Any, iterations: int, repetitions: int, flop: int, gflops: float) -> Any:
    """The rate of real steps with given parameters, which stand still, and more about it."""
    timings = []
    for _ in range(1 + repetitions):
        states = begin(program, params, standing_still=True)
        timing, (states, metrics, counts) = timed(program.advance, states, *goal(program, iterations))
        timings.append(timing)
    done = np.arange(program.width) < np.asarray(counts)[:, None]
    real, computed, paid = (
        float(np.sum(np.asarray(curve)[done]))
        for curve in (metrics.steps, metrics.computed, metrics.episode_return * metrics.episodes)
    )
    mean_return = paid / float(np.sum(np.asarray(metrics.episodes)[done]))
    if jax.tree.leaves(states.episode):  # what is begun is computed too, and real as far as it has come
        real += float(np.sum(states.episode.steps))
        computed += float(np.sum(states.episode.computed))
    timing = median(timings[1:])
    rate = real / timing.seconds
    return {
        "mean_return": mean_return,
        "real_steps_per_second": rate,
        "real_fraction": real / computed,
        "roofline_share": rate * flop / 1e9 / gflops,
        "cores_busy": timing.cores_busy,
    }


def peak_bytes() -> int:
    """The most memory that was in use so far: of an accelerator, or else of this process."""
    memory = jax.local_devices()[0].memory_stats()
    if memory and "peak_bytes_in_use" in memory:
        return sum(device.memory_stats()["peak_bytes_in_use"] for device in jax.local_devices())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
