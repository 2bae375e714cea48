"""How fast is pgjax on this machine, and how near to what the machine can do? One process, warm, medians.

Every step that is counted is a real one: padding is computed, and costs time, but is not counted. Beside pgjax runs a
peer, rejax (benchmark_peer.py), in an environment of its own: once as its documentation has it, once with the blocks
and devices that pgjax gives itself.

The machine's limit is taken to be its rate of large matrix products; the share reached is the rate of real steps times
the floating-point operations of a step's matrix products (once forward to act, once forward and once backward to learn)
over that. tanh, random numbers, the environment and the optimizer are work beside these.

Writes summary.json, and the peer's own peer.json and peer_plain.json, into the directory --out, and prints tables. The
same command again measures anew.
"""

import itertools
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jax.sharding import PartitionSpec

import pgjax
from common import launch, tables
from pgjax.algorithms.base import Algorithm
from pgjax.devices import use_every_core
from pgjax.placement import RUN, sweep_mesh
from pgjax.policies.sampling import adjusted
from pgjax.sweeps.program import Program, compile_program, first_plan

ENVIRONMENT = "CartPole-v1"
HIDDEN = (64, 64)
SOLVED_AT, FRESH_EPISODES = 475.0, 100
MATRIX = 2048  # rows and columns of a large matrix
SLOTS = 4096  # of the environment alone, on each device
LENGTHS = (32, 64, 128, 256)  # of texts that a language model writes; it learns from the shortest
PEER_SEEDS = 256  # side by side, when the peer's steps are counted
MEMORY_SEEDS = 32  # of policies with memory
PEER = Path(__file__).with_name("benchmark_peer.py")


@dataclass(frozen=True)
class Options:
    """What is measured; the defaults are what the README's table is made of."""

    seeds: tuple[int, ...] = (1, 16, 256, 1024, 4096)
    """Runs side by side, for each row of the table."""
    repetitions: int = 5
    """Repetitions of every timed call, whose median counts."""
    solve_seeds: int | None = None
    """Runs that are trained until they are solved; by default 256, on an accelerator 2048."""
    solve_iterations: int = 100
    """Updates after which that is given up."""
    scale: tuple[int, ...] = (64, 1024, 16384)
    """Runs side by side, to see whether a run costs the same among many."""
    block: int | None = None
    """Runs vmapped together on a device; by default 16 on a CPU (32 for asynchronous runs), all elsewhere."""
    bfloat16: bool = False
    """Whether the operands of matrix products are rounded to bfloat16; all else is float32."""
    text: tuple[int, ...] = (1, 16)
    """Language models side by side; may be left empty."""
    text_alone: bool = False
    """Whether to measure the language models and nothing else."""
    peer: bool = True
    """Whether to measure rejax too; it needs uv."""
    out: Path = Path("results/benchmark")
    """Directory to write into: a new one, or one that the same study has written."""


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


def flop_per_step(environment: pgjax.Environment) -> int:
    """The floating-point operations of a real step's matrix products: to act, and to differentiate."""
    assert isinstance(environment.action_space, pgjax.Discrete)
    widths = (int(np.prod(environment.observation_space.shape)), *HIDDEN, environment.action_space.n)
    forward = sum(2 * a * b for a, b in itertools.pairwise(widths))
    return forward + (3 * forward - 2 * widths[0] * widths[1])  # nobody differentiates by the observation


def flop_with_memory(environment: pgjax.Environment) -> int:
    """The same of a recurrent policy: a layer, the gates of what it says and of what is remembered, and the actions."""
    assert isinstance(environment.action_space, pgjax.Discrete)
    seen, width = int(np.prod(environment.observation_space.shape)), HIDDEN[0]
    forward = 2 * (seen * width + 2 * width * 3 * width + width * environment.action_space.n)
    return forward + (3 * forward - 2 * seen * width)


class Case(NamedTuple):
    """An algorithm that is measured."""

    slots: int  # of an update
    algorithm: Algorithm
    learning_rate: float
    iterations: dict[str, int]  # by phase: enough for a second or so, few enough to stay in the phase

    @property
    def numbers(self) -> Any:
        """Its hyper-parameters."""
        return self.algorithm.hyperparameters(learning_rate=self.learning_rate)


def cases(environment: pgjax.Environment, policy: pgjax.Policy) -> list[Case]:
    """The lecture's own algorithm, the default one with a budget of steps and without, and actor-critic.

    With the budget a slot plays several episodes while they are short, and one near the end. Actor-critic, with a
    critic of the same size and one gradient step for it an update, does what one epoch of PPO does.
    """
    lecture = pgjax.reinforce(
        environment,
        policy,
        slots=1,
        credit=pgjax.whole_episode(),
        baseline=pgjax.running_average(),
        optimizer=optax.sgd,
    )
    packed = pgjax.reinforce(environment, policy, slots=16, min_steps_per_slot=128)
    single = pgjax.reinforce(environment, policy, slots=16)
    critic = pgjax.reinforce(
        environment,
        policy,
        slots=16,
        min_steps_per_slot=128,
        credit=pgjax.lambda_return(),
        baseline=pgjax.learned_value(pgjax.value_for(environment, HIDDEN), steps=1),
    )
    return [
        Case(slots=1, algorithm=lecture, learning_rate=1e-4, iterations={"start": 60, "end": 4}),
        Case(slots=16, algorithm=packed, learning_rate=1e-2, iterations={"start": 2, "end": 1}),
        Case(slots=16, algorithm=single, learning_rate=1e-2, iterations={"start": 2, "end": 1}),
        Case(slots=16, algorithm=critic, learning_rate=1e-2, iterations={"start": 2, "end": 1}),
    ]


def with_memory(environment: pgjax.Environment) -> tuple[Case, pgjax.Policy]:
    """The default algorithm with a budget of steps, of a policy that remembers as many numbers as a layer has."""
    policy = pgjax.recurrent(environment.observation_space, environment.action_space, HIDDEN[0], HIDDEN[:1])
    algorithm = pgjax.reinforce(environment, policy, slots=16, min_steps_per_slot=128)
    return Case(slots=16, algorithm=algorithm, learning_rate=1e-3, iterations={"start": 2, "end": 1}), policy


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


class Solving(NamedTuple):
    """How a number of runs was trained until most were solved; lists have an entry for every look at them."""

    compile_seconds: float
    iterations: list[int]
    seconds: list[float]  # of training, compilation and looking not included
    fraction: list[float]  # of the runs, whose policy then averages 475 over 100 fresh episodes
    params: Any  # [runs, ...], at the end

    def seconds_to(self, fraction: float) -> float | None:
        """When so many were solved, None if never."""
        return next((s for s, f in zip(self.seconds, self.fraction, strict=True) if f >= fraction), None)


def solve(case: Case, policy: pgjax.Policy, runs: int, options: Options) -> Solving:
    """Train runs, and look every 5 iterations how many policies, actions sampled, solve the task."""
    look_every = 5
    begun = time.perf_counter()
    program = compiled(case, runs, look_every, options.block)
    compile_seconds = time.perf_counter() - begun
    environment = pgjax.from_gymnax(ENVIRONMENT)
    play = pgjax.evaluate(environment, policy, FRESH_EPISODES)

    @jax.jit
    def average_return(key: jax.Array, params: Any) -> jax.Array:
        def one(run: tuple[jax.Array, Any]) -> jax.Array:
            return play(run[0], run[1], environment.params).mean()

        keys = jax.random.split(key, program.size)
        return jax.lax.map(one, (keys, params), batch_size=program.plan.block)

    found = Solving(compile_seconds=compile_seconds, iterations=[], seconds=[], fraction=[], params=None)
    states = begin(program)
    seconds = 0.0
    for iterations in range(look_every, options.solve_iterations + 1, look_every):
        timing, (states, _, _) = timed(program.advance, states, *goal(program, look_every))
        seconds += timing.seconds
        params = jax.tree.map(lambda leaf: leaf[:runs], jax.device_get(states.params))
        returns = average_return(jax.random.fold_in(jax.random.key(2), iterations), jax.device_get(states.params))
        found.iterations.append(iterations)
        found.seconds.append(seconds)
        found.fraction.append(float(np.mean(np.asarray(returns)[:runs] >= SOLVED_AT)))
        if found.fraction[-1] >= 0.99:
            break
    return found._replace(params=params)


def peak_bytes() -> int:
    """The most memory that was in use so far: of an accelerator, or else of this process."""
    memory = jax.local_devices()[0].memory_stats()
    if memory and "peak_bytes_in_use" in memory:
        return sum(device.memory_stats()["peak_bytes_in_use"] for device in jax.local_devices())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def scaling(case: Case, scale: Sequence[int]) -> list[dict[str, Any]]:
    """Sweep over more and more seeds, and return what a run costs to compute, and the memory used until then."""
    rows: list[dict[str, Any]] = []
    for seeds in (*scale[:1], *scale):  # once to warm up
        with tempfile.TemporaryDirectory() as out:
            results = pgjax.sweep(
                case.algorithm,
                iterations=5,
                segment=5,
                seeds=range(seeds),
                hyperparameters=case.numbers,
                out=Path(out) / "results",
                configuration={},
                progress=False,
            )
            seconds, steps = float(results.seconds.sum()), float(results.steps.sum())
        rows.append(
            {"seeds": seeds, "seconds_per_seed": seconds / seeds, "real_steps_per_second": steps / seconds,
             "peak_bytes": peak_bytes()}
        )  # fmt: skip
    return rows[1:]


def ask_peer(out: Path, plain: bool) -> dict[str, Any]:
    """Run the peer's script in an environment of its own, and return what it found.

    Raises:
        InputError: If that fails.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise pgjax.InputError("expected uv, to run the peer in an environment of its own, got none; or --no-peer")
    path = out / ("peer_plain.json" if plain else "peer.json")
    accelerated = ["--with", "jax[cuda12]==0.9.2"] if jax.default_backend() == "gpu" else []
    command = [uv, "run", *accelerated, "--script", str(PEER), "--out", str(path), *(["--plain"] if plain else [])]
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "XLA_FLAGS")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip() or "nothing").splitlines()[-1]
        raise pgjax.InputError(f"expected the peer to run, got status {ended.returncode}: {last}; or --no-peer")
    peer = json.loads(path.read_text())
    if peer["device"] != (device := jax.local_devices()[0].device_kind):
        raise pgjax.InputError(f"expected the peer on {device}, got it on {peer['device']}; or --no-peer")
    return peer


def beside_peer(
    rows: Sequence[dict[str, Any]],
    with_critic: Sequence[dict[str, Any]],
    case: Case,
    policy: pgjax.Policy,
    options: Options,
) -> dict[str, Any]:
    """Measure the peer, and what it is compared with: the slower phase of 256 runs of 16 episodes, and 128 runs solved.

    The names without an ending are the peer as its documentation has it; `_in_blocks` is the peer laid out as pgjax is.
    Its steps feed a critic as well, ours do not, so there is a ratio of ours with a critic too. Its seconds are those
    of its whole training, ours those after which as many runs are solved for the first time.
    """
    ours = [row["real_steps_per_second"] for row in rows if (row["seeds"], row["slots"]) == (PEER_SEEDS, 16)]
    theirs = [row["real_steps_per_second"] for row in with_critic if row["seeds"] == PEER_SEEDS]
    found: dict[str, Any] = {}
    for ending, plain in (("", True), ("_in_blocks", False)):
        peer = ask_peer(options.out, plain)
        rate, solving = peer["steps_per_second"]["median"], peer["to_solved"]
        found[f"peer_steps_per_second{ending}"] = rate
        found[f"ratio_to_peer{ending}"] = min(ours) / rate if ours else None
        found[f"ratio_to_peer_with_critic{ending}"] = min(theirs) / rate if theirs else None
        found[f"peer_seconds{ending}"] = solving["seconds"]
        found[f"peer_solved_fraction{ending}"] = solving["solved_fraction"]
    solved = solve(case, policy, solving["seeds"], options)
    found["seconds_to_peer_fraction"] = solved.seconds_to(found["peer_solved_fraction"])
    return found


def language_models(seeds: Sequence[int], repetitions: int, gflops: float, block: int | None) -> dict[str, Any]:
    """The rate at which texts are written, scored and learned from, and at which they are written alone.

    An update writes 64 texts of 32 tokens, to prompts of 4, with a transformer of about 106 thousand parameters, scores
    them by a function, with and without the KL penalty, for which the supervised model reads them too, and makes a step
    of Adam. Beside the rate at which texts are written alone stands its ratio to that at which the same model reads
    them in one pass, in the same process, in which a version of jax that writes slowly is seen on any machine. A single
    run is also spread over all devices.
    """
    slots, width, V = 64, 4, 50

    def model(length: int) -> tuple[pgjax.Environment, pgjax.Policy]:
        def judge(texts: pgjax.text.Texts, params: Any) -> pgjax.text.Judgement:
            return pgjax.text.Judgement(jnp.sum((texts.tokens == V - 1) & texts.output, axis=1).astype(jnp.float32))

        texts = pgjax.text.text_environment(np.full((1, width), pgjax.text.BOS), V, length, judge)
        policy = pgjax.text.transformer(
            texts, pgjax.text.TransformerConfig(V, width + length, width=64, layers=2, heads=4)
        )
        # Nobody ends a text, so that all have the same length.
        return texts, adjusted(policy, lambda logits: logits.at[..., pgjax.text.EOS].set(-jnp.inf))

    texts, policy = model(LENGTHS[0])
    params = policy.init(jax.random.key(0))
    penalized = pgjax.kl_penalty(texts, policy, params, 0.05)
    # To write and to differentiate 2 and 6 operations a parameter and token; to read as the supervised model 2 more.
    products = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    rows = []
    for penalty, environment, flop in ((True, penalized, 10 * products), (False, texts, 8 * products)):
        algorithm = pgjax.reinforce(
            environment, policy, slots=slots, group_size=4, baseline=pgjax.leave_one_out(group_size=4)
        )
        case, cores = (
            Case(slots=slots, algorithm=algorithm, learning_rate=1e-4, iterations={}),
            jax.local_device_count(),
        )
        for n, spread in [*((n, 1) for n in seeds), *([(1, cores)] if 1 in seeds and cores > 1 else [])]:
            program = compiled(case, n, 4, block, spread)
            row = throughput(program, None, 4, repetitions, flop, gflops)
            rate = row.pop("real_steps_per_second")
            told = {"seeds": n, "devices_a_run": spread, "kl_penalty": penalty, "tokens_per_second": rate}
            rows.append({**told, **row})
    sampling = []
    for length in LENGTHS:
        texts, policy = model(length)
        write = jax.jit(pgjax.collect(texts._replace(score=None), policy, slots))
        read = jax.jit(lambda params, whole, policy=policy: policy.unroll(params, whole).log_prob(whole.action))
        first = policy.init(jax.random.key(0))
        writing, reading = [], []
        for _ in range(1 + repetitions):
            timing, whole = timed(write, jax.random.key(0), first, texts.params)
            writing.append(timing)
            reading.append(timed(read, first, whole)[0])
        written, again = (slots * length / median(timings[1:]).seconds for timings in (writing, reading))
        sampling.append({"length": length, "tokens_per_second": written, "written_per_read": written / again})
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"parameters": parameters, "rows": rows, "sampling": sampling}


def report_language_models(found: dict[str, Any]) -> None:
    """Print what `language_models` found, as tables."""
    rows = pd.DataFrame(found["rows"])[
        ["seeds", "devices_a_run", "kl_penalty", "tokens_per_second", "roofline_share", "cores_busy"]
    ]
    rows["tokens_per_second"] = (rows["tokens_per_second"] / 1e3).map("{:.1f} k".format)
    rows["roofline_share"] = rows["roofline_share"].map("{:.0%}".format)
    rows["cores_busy"] = rows["cores_busy"].map("{:.1f}".format)
    sampling = pd.DataFrame(found["sampling"])
    sampling["tokens_per_second"] = (sampling["tokens_per_second"] / 1e3).map("{:.1f} k".format)
    sampling["written_per_read"] = sampling["written_per_read"].map("{:.3f}".format)
    print(f"language model of {found['parameters']} parameters, 64 texts of 32 tokens an update")
    print(rows.to_string(index=False))
    print("writing alone, by the length of texts")
    print(sampling.to_string(index=False))


def report(summary: dict[str, Any]) -> None:
    """Print what the summary holds, as tables."""

    def number(key: str, scale: float = 1.0, digits: int = 2) -> str:
        return "-" if summary[key] is None else f"{summary[key] / scale:.{digits}f}"

    without = [{**row, "slots": "16, no budget"} for row in summary["rows_without_budget"]]
    without += [{**row, "slots": "16, critic"} for row in summary["rows_with_critic"]]
    without += [{**row, "slots": "16, memory"} for row in summary["rows_with_memory"]]
    table = pd.DataFrame(summary["rows"] + without)
    table["mean_return"] = table["mean_return"].map("{:.0f}".format)
    table["real_steps_per_second"] = (table["real_steps_per_second"] / 1e6).map("{:.2f} M".format)
    for name in ("real_fraction", "roofline_share"):
        table[name] = table[name].map("{:.0%}".format)
    table["cores_busy"] = table["cores_busy"].map("{:.1f}".format)
    print(table.to_string(index=False))
    scaled = pd.DataFrame(summary["scaling"])
    scaled["seconds_per_seed"] = scaled["seconds_per_seed"].map("{:.5f}".format)
    scaled["real_steps_per_second"] = (scaled["real_steps_per_second"] / 1e6).map("{:.2f} M".format)
    scaled["peak_bytes"] = (scaled["peak_bytes"] / 2**30).map("{:.2f} GiB".format)
    print(scaled.to_string(index=False))
    print(
        f"{summary['solve_seeds']} seeds: 95% solved after {number('solve_seconds', digits=1)} s, "
        f"{summary['solved_fraction']:.1%} in the end; compiled in {number('compile_seconds', digits=1)} s"
    )
    if summary["peer_seconds"] is None:
        return
    ours = number("seconds_to_peer_fraction", digits=1)
    for ending, how in (("", "as its documentation has it"), ("_in_blocks", "in blocks, over devices, as pgjax")):
        rate, ratio = number(f"peer_steps_per_second{ending}", 1e6), number(f"ratio_to_peer{ending}")
        critic = number(f"ratio_to_peer_with_critic{ending}")
        fraction, seconds = summary[f"peer_solved_fraction{ending}"], number(f"peer_seconds{ending}", digits=1)
        print(f"rejax, {how}: {rate} M steps/s, pgjax {ratio} times that, {critic} with a critic")
        print(f"  {fraction:.1%} of its runs solved after {seconds} s, of pgjax's after {ours} s")


def main(options: Options) -> None:
    """Measure, then write and print what was found."""
    for name in ("repetitions", "solve_seeds", "solve_iterations", "block"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise pgjax.InputError(f"expected {name} to be 1 or more, got {number}")
    if not options.seeds or min(*options.seeds, *options.scale, *options.text, 1) < 1:
        raise pgjax.InputError(
            f"expected counts of seeds of 1 or more, got {options.seeds}, {options.scale} and {options.text}"
        )
    if options.text_alone and not options.text:
        raise pgjax.InputError("expected one or more counts of language models with --text-alone, got none")
    if jax.process_count() > 1:
        raise pgjax.InputError(f"expected one process, got {jax.process_count()}: a benchmark is of one machine")
    launch.check_directory_of_study(options.out, {"summary.json", "peer.json", "peer_plain.json"})
    options.out.mkdir(parents=True, exist_ok=True)
    accelerator = jax.default_backend() != "cpu"
    device = f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}, {os.cpu_count()} cores"
    solve_seeds = options.solve_seeds or (2048 if accelerator else 256)
    dtype = jnp.bfloat16 if options.bfloat16 else jnp.float32
    gflops = matmul_gflops(options.repetitions, dtype, MATRIX)
    print(f"matrix products {gflops:.0f} GFLOP/s", flush=True)
    machine = {"device": device, "versions": {"jax": jax.__version__}, "matmul_gflops": gflops}
    spoken = None
    if options.text:
        spoken = language_models(options.text, options.repetitions, gflops, options.block)
        report_language_models(spoken)
    if options.text_alone:
        tables.write_json(options.out / "summary.json", {**machine, "text": spoken})
        print(f"written to {options.out}")
        return
    environment = pgjax.from_gymnax(ENVIRONMENT)
    policy = pgjax.mlp(
        environment.observation_space,
        environment.action_space,
        HIDDEN,
        product_dtype=dtype,
    )
    lecture, packed, single, critic = cases(environment, policy)

    flop = flop_per_step(environment)
    alone = environment_steps_per_second(environment, options.repetitions, SLOTS)
    print(f"environment alone {alone / 1e6:.1f} M steps/s", flush=True)
    solved = solve(single, policy, solve_seeds, options)
    print(f"{solve_seeds} seeds: {solved.fraction[-1]:.1%} solved after {solved.seconds[-1]:.1f} s", flush=True)

    def rows_of(case: Case, seeds: int, trained: Any = solved.params, flop: int = flop) -> list[dict[str, Any]]:
        program = compiled(case, seeds, max(case.iterations.values()), options.block)
        found = []
        for phase, params in (("start", None), ("end", trained)):
            row = throughput(program, params, case.iterations[phase], options.repetitions, flop, gflops)
            found.append({"seeds": seeds, "slots": case.slots, "phase": phase, **row})
        print(pd.DataFrame(found).to_string(index=False), flush=True)
        return found

    rows = [row for case in (lecture, packed) for seeds in options.seeds for row in rows_of(case, seeds)]
    compared_seeds = PEER_SEEDS if PEER_SEEDS in options.seeds else max(options.seeds)
    unpacked, with_critic = rows_of(single, compared_seeds), rows_of(critic, compared_seeds)
    remembering, recurrent = with_memory(environment)
    seeds = min(MEMORY_SEEDS, max(options.seeds))
    remembered = solve(remembering, recurrent, seeds, options)
    memory = rows_of(remembering, seeds, remembered.params, flop_with_memory(environment))
    scaled = scaling(packed, options.scale)

    compared = ("peer_steps_per_second", "ratio_to_peer", "peer_seconds", "peer_solved_fraction")
    summary: dict[str, Any] = {
        **machine,
        "flop_per_step": flop,
        "text": spoken,
        "environment_steps_per_second": alone,
        "rows": rows,
        "rows_without_budget": unpacked,
        "rows_with_critic": with_critic,
        "rows_with_memory": memory,
        "solve_seeds": solve_seeds,
        "solve_seconds": solved.seconds_to(0.95),
        "solved_fraction": solved.fraction[-1],
        "solving": {name: getattr(solved, name) for name in ("iterations", "seconds", "fraction")},
        "compile_seconds": solved.compile_seconds,
        "scaling": scaled,
        "peak_bytes": peak_bytes(),
        **dict.fromkeys((*compared, "seconds_to_peer_fraction")),
    }
    tables.write_json(options.out / "summary.json", summary)
    if options.peer:
        summary |= beside_peer(rows, with_critic, single, policy, options)
        tables.write_json(options.out / "summary.json", summary)
    report(summary)
    print(f"written to {options.out}")


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs memory of the same accelerator
    use_every_core()
    launch.run(main, Options, __doc__)
