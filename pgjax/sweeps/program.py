"""What a sweep runs on the devices: how runs are cut into batches and blocks, and the functions compiled for that.

The runs of a batch are shared out over the devices of this process (`shard_map`), and on a device they go block by
block (`lax.map`), `vmap`-ed within a block: on a CPU the parameters of a block then stay in its cache, on an
accelerator the block is as large as its memory allows. Where a run is spread over several devices (`placement.py`),
these take the place of one.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pgjax.algorithms.base import Algorithm, run_keys
from pgjax.algorithms.base import advance as advance_run
from pgjax.checks import whole_number
from pgjax.errors import InputError, raised_on_host, say
from pgjax.hyperparameters import with_values
from pgjax.placement import RUN, by_model, put
from pgjax.sweeps.closures import Compiled, lowered
from pgjax.trees import PyTree

CPU_BLOCK = 16  # runs whose parameters stay in a core's cache, and that do not wait long for the longest episode
CPU_BLOCK_ASYNCHRONOUS = 32  # and where none waits for another's


class Plan(NamedTuple):
    """How the runs of a sweep are cut up."""

    share: int  # runs of a batch on one device, or on those that a run is spread over
    block: int  # runs vmapped together; divides the share


def first_plan(algorithm: Algorithm, runs: int, devices: int, batch: int | None, block: int | None) -> Plan:
    """How to cut up a sweep if memory were no matter, over so many devices or groups of them."""
    share = -(-runs // devices)
    if jax.local_devices()[0].platform == "cpu":
        best = CPU_BLOCK if algorithm.step is None else CPU_BLOCK_ASYNCHRONOUS
        block = min(best, share) if block is None else block
        # Batches beyond one block a device are no faster here, and what is lost with a killed sweep is a batch.
        share = max(min(block, share), -(-share // 8)) if batch is None else share
    if batch is not None:
        share = min(share, -(-batch // devices))
    block = share if block is None else min(block, share)
    return Plan(-(-share // block) * block, block)


def by_block(function: Callable[[PyTree], PyTree], batch: PyTree, block: int) -> PyTree:
    """Function(run) for each run of a batch [B, ...], `block` of them vmapped together, which divides B."""
    blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, block, *leaf.shape[1:]), batch)
    done = jax.lax.map(jax.vmap(function), blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), done)


def over_runs(function: Callable[..., PyTree], block: int | None = None) -> Callable[..., PyTree]:
    """The function for many runs at once: compiled, by blocks, over every device of this process.

    It takes the function's arguments stacked, trees of arrays [B, ...], and returns its results stacked; all must fit
    into memory at once. For example, what the policies that a sweep ended with earn in 64 new episodes each:

        play = over_runs(lambda key, params: evaluate(environment, policy, 64)(key, params, environment.params))
        returns = play(run_keys(1, range(256)), load_params(results, like))  # [256, 64]

    Args:
        function: Pure, of one run.
        block: Runs vmapped together on a device; by default 16 on a CPU, all of them elsewhere.

    Raises:
        InputError: If a block is no integer of 1 or more; when it is called, if there are no runs, or not equally many
            in each array.

    Example:
        >>> squares = over_runs(lambda x: x**2)
        >>> squares(jnp.arange(3)).tolist()
        [0, 1, 4]
    """
    block = None if block is None else whole_number("block", block, 1)

    @functools.cache
    def spread(devices: int, size: int) -> Callable[[PyTree], PyTree]:
        mesh, spec = Mesh(np.asarray(jax.local_devices()[:devices]), (RUN,)), PartitionSpec(RUN)

        def one_device(batch: PyTree) -> PyTree:
            return by_block(lambda run: function(*run), batch, size)

        return jax.jit(jax.shard_map(one_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))

    def mapped(*batches: PyTree) -> PyTree:
        shapes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
        if len(shapes) != 1 or shapes & {(), (0,)}:
            raise InputError(f"expected arrays of equally many runs, 1 or more, got axes {sorted(shapes)}")
        ((runs,),) = shapes
        devices = min(runs, jax.local_device_count())
        share = -(-runs // devices)
        size = min(share, block or (CPU_BLOCK if jax.local_devices()[0].platform == "cpu" else share))
        whole = -(-share // size) * size * devices
        chosen = jnp.minimum(jnp.arange(whole), runs - 1)  # the last run is repeated to fill the blocks
        done = spread(devices, size)(jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], batches))
        return jax.tree.map(lambda leaf: leaf[:runs], done)

    return mapped


class Program(NamedTuple):
    """A sweep's compiled functions, for batches of devices · share runs."""

    plan: Plan
    start: Compiled  # keys [B], values {name: [B, ...]} -> states [B]
    advance: Compiled  # states, *goal -> states, metrics [B, width], iterations done by each run [B]
    segment: int  # iterations that `advance` does at most where all runs are equally far
    states: PyTree  # what stands for the states [B]: shapes, types, shardings
    metrics: PyTree  # and for the metrics [B, width]
    bytes: int  # at most in use on a device
    digest: str = ""  # SHA-256 of `advance` as it was given to the compiler, and of what it closes over

    @property
    def size(self) -> int:
        """B, the number of runs of a batch."""
        return jax.tree.leaves(self.metrics)[0].shape[0]

    @property
    def width(self) -> int:
        """How many iterations of a run `advance` does at most."""
        return jax.tree.leaves(self.metrics)[0].shape[1]

    @property
    def joint(self) -> bool:
        """Whether several processes compute it together, as runs are spread over more devices than one has."""
        return not all(leaf.sharding.is_fully_addressable for leaf in jax.tree.leaves(self.states))

    @property
    def asynchronous(self) -> bool:
        """Whether a run may be ahead of another."""
        return self.width > self.segment

    def goal(self, done: np.ndarray, iterations: int, most: int) -> tuple[jax.Array, ...]:
        """What tells `advance` how far to go, on the devices.

        Args:
            done: Iterations that each run has done, [B].
            iterations: What it is to have done in the end.
            most: Iterations to do now, if the segment allows as many.
        """
        least = done.min()
        count = min(self.segment, most, iterations - least)
        numbers = (np.int32(done - least), np.int32(count), np.int32(iterations - least))
        return put(numbers, self.advance.input_shardings[0][1:])


def compile_program(
    algorithm: Algorithm,
    hyperparameters: PyTree,
    inputs: Mapping[str, PyTree],
    segment: int,
    plan: Plan,
    mesh: Mesh,
) -> Program:
    """Compile the functions that a plan needs; nothing is run.

    Args:
        algorithm: What to run.
        hyperparameters: Those that all runs share.
        inputs: One run's of those that each run has its own of, or what stands for them: shapes and types.
        segment: Iterations that are done at once, at most.
        plan: How runs are cut up.
        mesh: Where, see `placement.sweep_mesh`.

    Raises:
        JaxRuntimeError: If the compiler finds the memory too small.
    """
    runs, everywhere = PartitionSpec(RUN), PartitionSpec()

    def start(keys: jax.Array, values: dict[str, PyTree]) -> PyTree:
        def init(run: tuple[jax.Array, dict[str, PyTree]]) -> PyTree:
            return by_model(algorithm.init(run[0], with_values(hyperparameters, run[1])))

        return by_block(init, (keys, values), plan.block)

    # Runs with a clock of their own need not stop where the slowest of them comes to the end of the segment.
    width = segment if algorithm.step is None else 2 * segment

    def advance(
        states: PyTree, ahead: jax.Array, count: jax.Array, remaining: jax.Array
    ) -> tuple[PyTree, PyTree, jax.Array]:
        def run(batch: tuple[PyTree, jax.Array]) -> tuple[PyTree, PyTree, jax.Array]:
            state, ahead = batch
            if algorithm.step is None:  # all runs are equally far, and stay so
                return advance_run(algorithm, width, state, count, count)
            return advance_run(algorithm, width, state, count - ahead, jnp.minimum(remaining - ahead, width))

        return by_block(run, (states, ahead), plan.block)

    def over_devices(function: Callable[..., PyTree], *specs: PartitionSpec) -> Callable[..., PyTree]:
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=runs, axis_names={RUN}, check_vma=False)

    B = mesh.shape[RUN] * plan.share
    sharding = NamedSharding(mesh, runs)
    keys = jax.ShapeDtypeStruct((B,), run_keys(0, [0]).dtype, sharding=sharding)
    values = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((B, *leaf.shape), leaf.dtype, sharding=sharding), dict(inputs)
    )
    on_all = NamedSharding(mesh, everywhere)
    starting = lowered(over_devices(start, runs, runs), (keys, values), on_all)
    started = starting.compile()
    states = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        starting.out_info,
        started.output_shardings,
    )
    ahead = jax.ShapeDtypeStruct((B,), jnp.int32, sharding=sharding)
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=on_all)
    # A segment begins where the one before ended, and every process sees the metrics whole.
    found = on_all if mesh.is_multi_process else None
    ended = (started.output_shardings, found, found)
    advancing = over_devices(advance, runs, runs, everywhere, everywhere)
    lowering = lowered(advancing, (states, ahead, count, count), on_all, donated=(0,), out_shardings=ended)
    _, metrics, _ = lowering.out_info
    compiled = started, lowering.compile()
    return Program(plan, *compiled, segment, states, metrics, max(map(bytes_used, compiled)), lowering.digest)


def bytes_used(compiled: Compiled) -> int:
    """How much of a device's memory a function has in use at most, 0 if the compiler does not say."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return whole - memory.alias_size_in_bytes


def compile_within(budget: int, compile_plan: Callable[[Plan], Program], plan: Plan) -> Program:
    """Compile the largest plan, from the one given downwards, whose memory stays within the budget.

    Raises:
        InputError: If a single run does not fit.
    """
    while True:
        try:
            program = compile_plan(plan)
        except jax.errors.JaxRuntimeError as error:
            plan = halved(plan, error)
            continue
        if program.bytes <= budget:
            return program
        if plan.share == 1:
            raise InputError(f"expected a run to fit into {budget} bytes of memory, it needs {program.bytes}")
        plan = with_share(plan, min(plan.share // 2, int(plan.share * budget / program.bytes)))


def with_share(plan: Plan, share: int) -> Plan:
    """A plan with at most so many runs of a batch on a device, or with one."""
    share = max(1, share)
    block = min(plan.block, share)
    return Plan(share // block * block, block)


def halved(plan: Plan, error: jax.errors.JaxRuntimeError) -> Plan:
    """A plan with at most half the runs, after an error that says that memory was short; say so.

    Raises:
        JaxRuntimeError: The error, if it says anything else.
        InputError: If there is no half of a single run, or a function on the host failed (`HostError`).
    """
    if told := raised_on_host(error):
        raise told from None
    if "RESOURCE_EXHAUSTED" not in str(error):
        raise error
    if plan.share == 1:
        raise InputError(
            f"expected a run to fit into the memory of a device, got {str(error).splitlines()[0]}"
        ) from error
    smaller = with_share(plan, plan.share // 2)
    say(f"{plan.share} runs do not fit into the memory of a device; going on with {smaller.share} at a time")
    return smaller
