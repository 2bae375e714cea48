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
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

import pgjax
from common import launch, measuring, tables
from common.measuring import Case, begin, compiled, goal, throughput, timed
from common.measuring_texts import language_models, report_language_models
from pgjax.devices import use_every_core

ENVIRONMENT, PIXELS = "CartPole-v1", "Breakout-MinAtar"
HIDDEN = (64, 64)
SOLVED_AT, FRESH_EPISODES = 475.0, 100
MATRIX = 2048  # rows and columns of a large matrix
SLOTS = 4096  # of the environment alone, on each device
PEER_SEEDS = {"CartPole": 256, "Breakout": 32}  # side by side, when the peer's steps are counted
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
    pixels: tuple[int, ...] = (1, 32, 256)
    """Convolutional policies side by side."""
    text: tuple[int, ...] = (1, 16)
    """Language models side by side."""
    parts: tuple[Literal["cart-pole", "pixels", "text"], ...] = ("cart-pole", "pixels", "text")
    """What is measured."""
    peer: bool = True
    """Whether to measure rejax too; it needs uv."""
    out: Path = Path("results/benchmark")
    """Directory to write into: a new one, or one that the same study has written."""


def products(widths: Sequence[int], seen: int = 0) -> int:
    """The operations of a real step's matrix products: once forward to act, once forward and backward to differentiate.

    Args:
        widths: Of fully connected layers, from what they get to what they say.
        seen: Operations forward of a first layer before them, if there is one. Nobody differentiates by an observation.
    """
    layers = [2 * a * b for a, b in itertools.pairwise(widths)]
    forward, first = seen + sum(layers), seen or layers[0]
    return 4 * forward - first


def cart_pole(dtype: Any) -> list[Case]:
    """The lecture's own algorithm, the default one with a budget of steps and without, and actor-critic.

    With the budget a slot plays several episodes while they are short, and one near the end. Actor-critic, with a
    critic of the same size and one gradient step for it an update, does what one epoch of PPO does.
    """
    environment = pgjax.from_gymnax(ENVIRONMENT)
    policy = pgjax.mlp(environment.observation_space, environment.action_space, HIDDEN, product_dtype=dtype)
    learn = partial(pgjax.reinforce, environment, policy)
    critic = pgjax.learned_value(pgjax.value_for(environment, HIDDEN), steps=1)
    lecture = learn(slots=1, credit=pgjax.whole_episode(), baseline=pgjax.running_average(), optimizer=optax.sgd)
    budget = learn(slots=16, min_steps_per_slot=128)
    with_critic = learn(slots=16, min_steps_per_slot=128, credit=pgjax.lambda_return(), baseline=critic)
    case = partial(Case, environment=environment, policy=policy, flop=products((4, *HIDDEN, 2)), learning_rate=1e-2)
    few = {"start": 2, "end": 1}
    return [
        case("1 episode", algorithm=lecture, learning_rate=1e-4, iterations={"start": 60, "end": 4}),
        case("16, budget", algorithm=budget, iterations=few),
        case("16", algorithm=learn(slots=16), iterations=few),
        case("16, critic", algorithm=with_critic, iterations=few),
    ]


def with_memory() -> Case:
    """The default algorithm with a budget of steps, of a policy that remembers as many numbers as a layer has."""
    environment, width = pgjax.from_gymnax(ENVIRONMENT), HIDDEN[0]
    policy = pgjax.recurrent(environment.observation_space, environment.action_space, width, (width,))
    # A layer, the three gates of what it says and of what is remembered, and the actions.
    flop = products((2 * width, 3 * width), 2 * 4 * width) + 4 * 2 * width * 2
    algorithm = pgjax.reinforce(environment, policy, slots=16, min_steps_per_slot=128)
    return Case("16, memory", environment, policy, algorithm, flop, 1e-3, {"start": 2, "end": 1})


def from_pixels() -> list[Case]:
    """Breakout of MinAtar, by a convolution: the default algorithm with a budget of steps, and actor-critic."""
    environment = pgjax.from_gymnax(PIXELS)
    spaces = environment.observation_space, environment.action_space
    policy, value = pgjax.cnn(*spaces), pgjax.policies.cnn_value(spaces[0])
    # 8 × 8 places of a window of 3 × 3 pixels in 4 colours, seen by 8 filters; 3 actions.
    flop = products((8 * 8 * 8, *HIDDEN, 3), 2 * 8 * 8 * 3 * 3 * 4 * 8)
    learn = partial(pgjax.reinforce, environment, policy, slots=16, min_steps_per_slot=32)
    critic = learn(credit=pgjax.lambda_return(), baseline=pgjax.learned_value(value, steps=1))
    return [
        Case(name, environment, policy, algorithm, flop, 1e-3, {"start": 2})
        for name, algorithm in (("pixels", learn()), ("pixels, critic", critic))
    ]


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


def solve(case: Case, runs: int, options: Options) -> Solving:
    """Train runs, and look every 5 iterations how many policies, actions sampled, solve the task."""
    look_every = 5
    begun = time.perf_counter()
    program = compiled(case, runs, look_every, options.block)
    compile_seconds = time.perf_counter() - begun
    play = pgjax.evaluate(case.environment, case.policy, FRESH_EPISODES)

    @jax.jit
    def average_return(key: jax.Array, params: Any) -> jax.Array:
        def one(run: tuple[jax.Array, Any]) -> jax.Array:
            return play(run[0], run[1], case.environment.params).mean()

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
             "peak_bytes": measuring.peak_bytes()}
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


def rows_of(case: Case, seeds: int, options: Options, gflops: float, trained: Any = None) -> list[dict[str, Any]]:
    """The rates of a case, in each of its phases, printed as soon as they are known."""
    program = compiled(case, seeds, max(case.iterations.values()), options.block)
    found = []
    for phase, iterations in case.iterations.items():
        params = trained if phase == "end" else None
        row = throughput(program, params, iterations, options.repetitions, case.flop, gflops)
        found.append({"case": case.name, "seeds": seeds, "phase": phase, **row})
    print(printable(found).to_string(index=False), flush=True)
    return found


def cart_pole_rows(options: Options, gflops: float) -> dict[str, Any]:
    """What is measured of CartPole: rates, how soon it is solved, and what a run costs among many."""
    dtype = jnp.bfloat16 if options.bfloat16 else jnp.float32
    lecture, budget, single, critic = cart_pole(dtype)
    runs = options.solve_seeds or (256 if jax.default_backend() == "cpu" else 2048)
    solved = solve(single, runs, options)
    print(f"{runs} seeds: {solved.fraction[-1]:.1%} solved after {solved.seconds[-1]:.1f} s", flush=True)
    compared = PEER_SEEDS["CartPole"] if PEER_SEEDS["CartPole"] in options.seeds else max(options.seeds)
    table = [(case, seeds) for case in (lecture, budget) for seeds in options.seeds]
    table += [(single, compared), (critic, compared)]
    rows = [row for case, seeds in table for row in rows_of(case, seeds, options, gflops, solved.params)]
    remembering, seeds = with_memory(), min(MEMORY_SEEDS, *options.seeds[-1:])
    remembered = solve(remembering, seeds, options).params
    return {
        "rows": rows + rows_of(remembering, seeds, options, gflops, remembered),
        "solve_seeds": runs,
        "solve_seconds": solved.seconds_to(0.95),
        "solved_fraction": solved.fraction[-1],
        "solving": {name: getattr(solved, name) for name in ("iterations", "seconds", "fraction")},
        "compile_seconds": solved.compile_seconds,
        "scaling": scaling(budget, options.scale),
        "peak_bytes": measuring.peak_bytes(),
    }


def beside_peer(rows: Sequence[dict[str, Any]], options: Options) -> dict[str, Any]:
    """What the peer does, and what it is compared with, by the name of the task.

    `in_blocks` is the peer laid out as pgjax is, `documented` as its documentation has it. Its steps feed a critic as
    well, so there are two ratios: of our slower phase without a critic, and with one. The seconds of the peer are those
    of its whole training, ours those after which as many runs are solved for the first time.
    """

    def ours(case: str, task: str) -> float | None:
        wanted = [row for row in rows if (row["case"], row["seeds"]) == (case, PEER_SEEDS[task])]
        return min((row["real_steps_per_second"] for row in wanted), default=None)

    found: dict[str, Any] = {}
    for how, plain in (("documented", True), ("in_blocks", False)):
        peer = ask_peer(options.out, plain)
        for task, case in (("CartPole", "16, budget"), ("Breakout", "pixels")):
            theirs = peer["steps_per_second"][task]["median"]
            without, with_critic = ours(case, task), ours(f"{case.split(',')[0]}, critic", task)
            found[f"{task}, {how}"] = {
                "steps_per_second": theirs,
                "ratio": without and without / theirs,
                "ratio_with_critic": with_critic and with_critic / theirs,
            }
        solving = peer["to_solved"]
        found[f"CartPole, {how}"] |= {name: solving[name] for name in ("seconds", "solved_fraction")}
    if "cart-pole" in options.parts:
        solved = solve(cart_pole(jnp.float32)[2], solving["seeds"], options)
        found["seconds_to_its_fraction"] = solved.seconds_to(solving["solved_fraction"])
    return found


def printable(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table: rates in millions, shares in per cent."""
    table = pd.DataFrame(rows)
    formats = {
        "mean_return": "{:.1f}".format,
        "real_steps_per_second": lambda rate: f"{rate / 1e6:.3f} M",
        "real_fraction": "{:.0%}".format,
        "roofline_share": "{:.0%}".format,
        "cores_busy": "{:.1f}".format,
        "seconds_per_seed": "{:.5f}".format,
        "peak_bytes": lambda size: f"{size / 2**30:.2f} GiB",
    }
    return table.assign(**{name: table[name].map(shown) for name, shown in formats.items() if name in table})


def report(summary: dict[str, Any]) -> None:
    """Print what the summary holds, as tables."""

    def number(value: float | None, digits: int = 2) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    if summary["rows"]:
        print(printable(summary["rows"]).to_string(index=False))
    if "scaling" in summary:
        print(printable(summary["scaling"]).to_string(index=False))
        print(
            f"{summary['solve_seeds']} seeds: 95% solved after {number(summary['solve_seconds'], 1)} s, "
            f"{summary['solved_fraction']:.1%} in the end; compiled in {summary['compile_seconds']:.1f} s"
        )
    for name, peer in summary.get("peer", {}).items():
        if name == "seconds_to_its_fraction":
            continue
        rate = f"{peer['steps_per_second'] / 1e6:.3f} M steps/s"
        print(
            f"rejax, {name}: {rate}, pgjax {number(peer['ratio'])} times that, "
            f"{number(peer['ratio_with_critic'])} with a critic"
        )
        if "seconds" in peer and "seconds_to_its_fraction" in summary["peer"]:
            ours = number(summary["peer"]["seconds_to_its_fraction"], 1)
            print(f"  {peer['solved_fraction']:.1%} of its runs solved after {peer['seconds']:.1f} s, of ours {ours} s")


def check(options: Options) -> None:
    """Refuse what cannot be measured.

    Raises:
        InputError: If a count is below 1, no part is asked for, or there are several processes.
    """
    for name in ("repetitions", "solve_seeds", "solve_iterations", "block"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise pgjax.InputError(f"expected {name} to be 1 or more, got {number}")
    for name in ("seeds", "scale", "pixels", "text", "parts"):
        counts = getattr(options, name)
        if not counts or (name != "parts" and min(counts) < 1):
            raise pgjax.InputError(f"expected one or more of --{name}, and counts of 1 or more, got {counts}")
    if jax.process_count() > 1:
        raise pgjax.InputError(f"expected one process, got {jax.process_count()}: a benchmark is of one machine")


def main(options: Options) -> None:
    """Measure, then write and print what was found."""
    check(options)
    launch.check_directory_of_study(options.out, {"summary.json", "peer.json", "peer_plain.json"})
    options.out.mkdir(parents=True, exist_ok=True)
    device = f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}, {os.cpu_count()} cores"
    dtype = jnp.bfloat16 if options.bfloat16 else jnp.float32
    gflops = measuring.matmul_gflops(options.repetitions, dtype, MATRIX)
    print(f"matrix products {gflops:.0f} GFLOP/s", flush=True)
    summary: dict[str, Any] = {"device": device, "versions": {"jax": jax.__version__}, "matmul_gflops": gflops}
    summary |= {"rows": [], "environment_steps_per_second": {}}
    if "text" in options.parts:
        summary["text"] = language_models(options.text, options.repetitions, gflops, options.block)
        report_language_models(summary["text"])
    for part, name in (("cart-pole", ENVIRONMENT), ("pixels", PIXELS)):
        if part in options.parts:
            alone = measuring.environment_steps_per_second(pgjax.from_gymnax(name), options.repetitions, SLOTS)
            summary["environment_steps_per_second"][name] = alone
            print(f"{name} alone: {alone / 1e6:.1f} M steps/s", flush=True)
    if "cart-pole" in options.parts:
        summary |= cart_pole_rows(options, gflops)
    if "pixels" in options.parts:
        for case, seeds in itertools.product(from_pixels(), options.pixels):
            summary["rows"] += rows_of(case, seeds, options, gflops)
    tables.write_json(options.out / "summary.json", summary)
    if options.peer and set(options.parts) & {"cart-pole", "pixels"}:
        summary["peer"] = beside_peer(summary["rows"], options)
        tables.write_json(options.out / "summary.json", summary)
    report(summary)
    print(f"written to {options.out}")


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs memory of the same accelerator
    use_every_core()
    launch.run(main, Options, __doc__)
