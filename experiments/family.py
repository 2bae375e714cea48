"""Which method of the family learns best? From REINFORCE to PPO and GRPO, at equal steps and at equal seconds.

Every method of `pgjax.algorithms` is as its own function makes it, but that on a task all have the same policy, critic,
slots and discount. The learning rate of each is chosen from the same grid, on seeds that are not reported. A run ends
with the update that brings it to the task's environment steps. Seconds are CPU time, so that other work on the machine
matters little; at equal seconds each method has the steps that it makes in the time of the cheapest one.

On request (--peer) PPO with rejax's configuration for CartPole runs beside rejax itself (benchmark_peer.py).

Writes the curves of each method on each task, summary.json, family.md (the table) and family.png into the directory
--out, and prints the table. The same command again goes on after the last method that was done; --finished reports what
there is by then. With the defaults it takes about an hour on two cores; Breakout-MinAtar, which is not among them,
takes days.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import pgjax
from benchmark import ask_peer
from common import launch, names, tables
from common.equal_steps import pausing, until
from common.remembering import remembered
from pgjax.algorithms.base import Algorithm, run_keys, train
from pgjax.analysis.plotting import AVERAGES, COLOURS, band, dress_curves
from pgjax.analysis.statistics import confidence_interval, failed, final_return, interquartile_mean
from pgjax.devices import use_every_core
from pgjax.paths import replacing
from pgjax.sweeps.program import over_runs


class Task(NamedTuple):
    """Where the methods are compared."""

    steps: int  # of the environment, of each run
    iterations: int  # at most; enough of them where episodes stay short
    learning_rates: Sequence[float]  # to choose from, the same for every method
    discount: float
    seeds: int = 128  # reported, of each method
    solved_at: float | None = None


NETWORKS, TABLES = (1e-3, 3e-3, 1e-2, 3e-2), (1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # learning rates
PIXELS = "Breakout-MinAtar"
TASKS = {
    "CartPole-v1": Task(100_000, 160, NETWORKS, 0.99, solved_at=names.SOLVED_AT["CartPole-v1"]),
    "Acrobot-v1": Task(100_000, 90, NETWORKS, 0.99, solved_at=names.SOLVED_AT["Acrobot-v1"]),
    "Pendulum-v1": Task(150_000, 47, NETWORKS, 0.95),
    "maze": Task(20_000, 100, TABLES, 1.0),
    PIXELS: Task(5_000_000, 20_000, NETWORKS, 0.99, seeds=32),
}
METHODS = (
    "reinforce", "actor-critic", "a2c", "ppo", "trpo", "rloo", "remax", "grpo", "dr-grpo", "reinforce-plus-plus",
)  # fmt: skip
REFERENCE = "reinforce"  # with the leave-one-out mean per step
COLOUR_OF = dict(zip(METHODS, (*COLOURS, "#7F3C8D", "#8B4513"), strict=True))
SLOTS = 16
CURVES = ("episode_return", "episodes", "steps")
BATCH = 32  # runs of a call
CHOSEN_ON = 2**20  # the first seed that learning rates are chosen on
LAST = 32  # episodes that a run is judged by, at least: two updates or more, of 16
POINTS = 60  # of a curve
REJAX = {"slots": 5, "min_steps_per_slot": 100, "epochs": 5, "minibatches": 5}  # its configuration, in our words
REJAX_NUMBERS = {"learning_rate": 7.5e-4, "entropy_coefficient": 0.01, "discount": 0.99, "trace_decay": 0.95}
REJAX_STEPS, REJAX_UPDATES = 100_000, 200


@dataclass(frozen=True)
class Options:
    """What is compared."""

    env: tuple[str, ...] = tuple(name for name in TASKS if name != PIXELS)
    """Environments, of those that the script has settings for."""
    method: tuple[str, ...] = METHODS
    """Methods; reinforce, which the others are compared with, is among them in any case."""
    seeds: int | None = None
    """Runs of each method, numbered from 0; by default 128, from pixels 32."""
    choosing_seeds: int = 8
    """Other runs, at each learning rate, that one is chosen on."""
    steps: int | None = None
    """Environment steps of a run; by default each task's own number."""
    peer: bool = False
    """Whether to run PPO as rejax does CartPole, and rejax; it needs uv."""
    study: int = 0
    """Number of the study; runs of two studies have no randomness in common."""
    finished: bool = False
    """Whether to report what is complete and run nothing more."""
    out: Path = Path("results/family")
    """Directory to write into: a new one, or one that the same study has written."""


def method_on(name: str, method: str, **counts: int) -> tuple[Algorithm, pgjax.Policy]:
    """A method as its own function makes it, for a task and with the policy and the critic that fit there."""
    environment = pausing(names.environment_named(name))
    policy = pgjax.policy_for(environment)
    parts: list[Any] = [pgjax.value_for(environment)] if method in names.CRITIC_METHODS else []
    make = getattr(pgjax.algorithms, method.replace("-", "_"))
    return make(environment, policy, *parts, **{"slots": SLOTS, **counts}), policy


class Runs(NamedTuple):
    """What was computed of a method on a task."""

    learning_rate: float  # the one that was chosen
    curves: xr.Dataset  # of the reported runs, [seed, iteration]
    cpu_ms: float  # CPU milliseconds for a thousand steps, in the fastest call of these


def compute(name: str, method: str, task: Task, options: Options) -> dict[str, Any]:
    """Choose a learning rate, and run what is reported, with one compiled program, which is not timed."""
    algorithm, _ = method_on(name, method)
    ending, numbers = until(algorithm, task.steps), algorithm.hyperparameters(discount=task.discount)

    def run(key: jax.Array, learning_rate: jax.Array) -> tuple[jax.Array, ...]:
        curves = train(ending, task.iterations)(key, numbers._replace(learning_rate=learning_rate))[1]
        return tuple(getattr(curves, curve) for curve in CURVES)

    runs = over_runs(run)

    def played(seeds: np.ndarray, rates: np.ndarray) -> tuple[list[np.ndarray], float]:
        calls = range(0, len(seeds), BATCH)  # the last one is filled up, so that all have one program
        seeds_of, rates_of = (np.resize(of, BATCH * len(calls)) for of in (seeds, rates.astype(np.float32)))
        found, cpu_ms = [], np.inf
        for at in calls:
            busy = time.process_time()
            found.append(runs(run_keys(options.study, seeds_of[at : at + BATCH]), rates_of[at : at + BATCH]))
            steps = np.asarray(found[-1][CURVES.index("steps")]).sum(dtype=float)  # waits for it
            cpu_ms = min(cpu_ms, 1e6 * (time.process_time() - busy) / steps)
        return [np.concatenate(curve)[: len(seeds)] for curve in zip(*found, strict=True)], cpu_ms

    each = options.choosing_seeds
    rates, seeds = np.repeat(task.learning_rates, each), CHOSEN_ON + np.tile(np.arange(each), len(task.learning_rates))
    tried = ends(as_dataset(played(seeds, rates)[0]), task.steps).reshape(-1, each)
    coordinates = {"learning_rate": list(task.learning_rates)}
    choice = xr.DataArray(tried, dims=("learning_rate", "seed"), coords=coordinates)
    rate = pgjax.sweeps.best_point(choice)["learning_rate"]
    curves, cpu_ms = played(np.arange(task.seeds), np.full(task.seeds, rate))
    return {"choice": tried, "learning_rate": rate, "cpu_ms": cpu_ms, **dict(zip(CURVES, curves, strict=True))}


def as_dataset(curves: Sequence[np.ndarray]) -> xr.Dataset:
    """Curves [runs, iterations], in the order of `CURVES`, as the functions for results want them."""
    return xr.Dataset({name: (("seed", "iteration"), curve) for name, curve in zip(CURVES, curves, strict=True)})


def kept(path: Path, asked: Mapping[str, Any], make: Callable[[], dict[str, Any]] | None) -> Runs | None:
    """What a file has, which is made if it is not there; None if it is not to be made.

    Raises:
        InputError: If the file is of other options.
    """
    if not path.exists():
        if make is None:
            return None
        print(f"{path.stem} ...", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        found = make()
        with replacing(path) as file:
            np.savez_compressed(file, asked=json.dumps(asked), **found)
    with np.load(path) as file:
        if (before := str(file["asked"])) != json.dumps(asked):
            raise pgjax.InputError(f"expected a new directory, or the options of {path}, got {asked} and not {before}")
        curves = as_dataset([file[curve] for curve in CURVES])
        return Runs(learning_rate=float(file["learning_rate"]), curves=curves, cpu_ms=float(file["cpu_ms"]))


def ends(curves: xr.Dataset, steps: float) -> np.ndarray:
    """The mean return of each run's last updates within so many steps, [seed]; at least that of its first one."""
    first = curves.isel(iteration=0)
    final = final_return(curves, episodes=LAST, steps=steps).values
    return np.where(first.steps.values > steps, first.episode_return.values, final)


def better(a: xr.Dataset, b: xr.Dataset, steps: tuple[float, float]) -> dict[str, Any]:
    """How probable it is that a run of A after so many steps is better than one of B; a failed run is the worst."""
    finals = [np.nan_to_num(ends(of, n), nan=-np.inf) for of, n in zip((a, b), steps, strict=True)]
    found = pgjax.analysis.probability_of_improvement(*finals)
    return {"probability": float(found.value), "interval": [float(found.low), float(found.high)]}


def rows_of(name: str, task: Task, methods: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """What is reported of a task: each method after equal steps, and after those that it makes in equal time."""
    least, reference = min(found.cpu_ms for found in methods.values()), methods.get(REFERENCE)
    afforded = {method: task.steps * least / found.cpu_ms for method, found in methods.items()}
    whens = {"equal_steps": dict.fromkeys(methods, float(task.steps)), "equal_seconds": afforded}
    rows = []
    for method, (rate, curves, cpu_ms) in methods.items():
        row: dict[str, Any] = {"environment": name, "method": method, "learning_rate": rate, "cpu_ms": cpu_ms}
        row["at_the_edge"] = rate in (task.learning_rates[0], task.learning_rates[-1])
        row |= {"seeds": curves.sizes["seed"], "failed": int(failed(curves).sum())}
        row["ended_early"] = int((curves.steps.sum("iteration") < task.steps).sum())
        for when, steps in whens.items():
            final = ends(curves, steps[method])
            solved = None if task.solved_at is None else float(np.mean(final >= task.solved_at))
            row[when] = {"steps": steps[method], **tables.average_of_finite(final), "solved_fraction": solved}
            if reference is not None and method != REFERENCE:
                row[when]["better"] = better(curves, reference.curves, (steps[method], steps[REFERENCE]))
        rows.append(row)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table in Markdown, the best method of each task in bold."""
    columns = ["task", "method", "η", "CPU ms for 1000 steps"]
    columns += ["after equal steps (IQM)", "95% interval", "solved", "better than reinforce"]
    columns += ["after equal seconds (IQM)", "95% interval", "solved", "better than reinforce"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        lost = f" ({row['failed']} failed)" if row["failed"] else ""
        cells = [row["environment"], row["method"] + lost, f"{row['learning_rate']:g}{'*' * row['at_the_edge']}"]
        cells.append(f"{row['cpu_ms']:.3g}")
        for when in ("equal_steps", "equal_seconds"):
            found, rivals = row[when], [other[when] for other in rows if other["environment"] == row["environment"]]
            best = max((rival["iqm"] for rival in rivals if rival["iqm"] is not None), default=None)
            mark, share = "**" if found["iqm"] == best else "", found.get("better")
            cells += [f"{mark}{tables.written(found['iqm'])}{mark}", tables.written_interval(found["interval"])]
            cells.append(tables.written(found["solved_fraction"], ".0%"))
            shown = "-"
            if share is not None:
                shown = f"{share['probability']:.0%} [{', '.join(f'{bound:.0%}' for bound in share['interval'])}]"
            cells.append(shown)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curve_of(results: xr.Dataset, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of steps [k], and the mean return of the update that each run makes there [runs, k]."""
    grid = np.linspace(0, steps, POINTS + 1)[1:]
    good = results.isel(seed=~failed(results).values)
    returns, counts, made = (good[curve].values for curve in CURVES)
    at = np.cumsum(made, axis=1, dtype=float)
    found = [np.interp(grid, at[i][counts[i] > 0], returns[i][counts[i] > 0]) for i in range(len(made))]
    return grid, np.asarray(found)


def draw(panels: Mapping[str, Mapping[str, Runs]], tasks: Mapping[str, Task], path: Path) -> None:
    """Draw the return against steps above, and against CPU seconds below; a panel for each task."""
    figure = Figure(figsize=(3.6 * len(panels), 7), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False)
    for column, (name, methods) in enumerate(panels.items()):
        for method, (_, curves, cpu_ms) in methods.items():
            steps, runs = curve_of(curves, tasks[name].steps)
            style = "-" if method in (REFERENCE, *names.CRITIC_METHODS) else "--"
            middle, interval = interquartile_mean(runs), confidence_interval(runs, resamples=200)
            for row, x in enumerate((steps, steps * cpu_ms / 1e6)):
                band(axes[row, column], x, middle, interval, COLOUR_OF[method], method, style)
        label = "episode return" if column == 0 else ""
        dress_curves(axes[0, column], name, "environment steps of a run", label)
        dress_curves(axes[1, column], "", "CPU seconds of a run", label)
        axes[1, column].set_xlim(right=max(tasks[name].steps * found.cpu_ms / 1e6 for found in methods.values()) / 2)
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        lines, labels, loc="outside lower center", ncols=min(5, 2 * len(panels)), title=AVERAGES, frameon=False
    )
    figure.savefig(path, dpi=110)


def beside_rejax(options: Options) -> dict[str, dict[str, float]]:
    """PPO as rejax is set up for CartPole, and rejax: solved fraction and seconds of as many runs, 10⁵ steps each."""
    peer = ask_peer(options.out, plain=False)["to_solved"]
    environment, count = names.environment_named("CartPole-v1"), peer["seeds"]
    algorithm, policy = method_on("CartPole-v1", "ppo", **REJAX)
    numbers = algorithm.hyperparameters(**REJAX_NUMBERS)

    def run(key: jax.Array, steps: jax.Array) -> tuple[Any, jax.Array]:
        end = train(until(algorithm, steps), REJAX_UPDATES)(key, numbers)[0]
        return end.state.params, end.steps

    runs, keys, whole = over_runs(run), run_keys(options.study, range(count)), jnp.full(count, float(REJAX_STEPS))
    jax.block_until_ready(runs(keys, whole * 0))  # compiles
    begun, busy = time.perf_counter(), time.process_time()
    params, steps = jax.block_until_ready(runs(keys, whole))
    ours = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy}
    play = pgjax.evaluate(environment, policy, peer["episodes"])
    mean_return = over_runs(lambda key, params: play(key, params, environment.params).mean())
    returns = mean_return(run_keys(options.study + 2**30, range(count)), params)
    ours |= {"solved_fraction": float((returns >= peer["solved_at"]).mean()), "steps": float(steps.mean())}
    theirs = {"seconds": peer["seconds"], "cpu_seconds": peer["seconds"] * peer["cores_busy"]}
    theirs |= {"solved_fraction": peer["solved_fraction"], "steps": float(peer["steps_per_seed"])}
    return {
        name: {"runs": count, **of, "steps_per_cpu_second": count * of["steps"] / of["cpu_seconds"]}
        for name, of in {"pgjax": ours, "rejax": theirs}.items()
    }


def main(options: Options) -> None:
    """Choose the learning rates, run what is reported, and write, draw and print what was found."""
    for chosen, known in ((options.env, TASKS), (options.method, METHODS)):
        if unknown := set(chosen) - set(known):
            raise pgjax.InputError(f"expected some of {', '.join(known)}, got {min(unknown)}")
    counts = {"seeds": options.seeds, "steps": options.steps, "runs to choose on": options.choosing_seeds}
    launch.check_counts(counts)
    curves = {f"{name}-{method}.npz" for name in TASKS for method in METHODS}
    others = {"rejax.json", "peer.json", "summary.json", "family.md", "family.png"}
    launch.check_directory_of_study(options.out, curves | others)
    tasks = {
        name: TASKS[name]._replace(steps=options.steps or TASKS[name].steps, seeds=options.seeds or TASKS[name].seeds)
        for name in dict.fromkeys(options.env)
    }
    panels: dict[str, dict[str, Runs]] = {}
    for name, task in tasks.items():
        for method in (method for method in METHODS if method in {REFERENCE, *options.method}):
            asked = {**task._asdict(), "choosing_seeds": options.choosing_seeds, "study": options.study, "slots": SLOTS}
            make = None if options.finished else partial(compute, name, method, task, options)
            found = kept(options.out / f"{name}-{method}.npz", asked, make)
            if found is not None:
                panels.setdefault(name, {})[method] = found
    if not panels:
        raise pgjax.InputError(f"expected a method that is complete in {options.out}, got none")
    rows = [row for name, methods in panels.items() for row in rows_of(name, tasks[name], methods)]
    tables.write_json(options.out / "summary.json", {"device": jax.devices()[0].device_kind, "rows": rows})
    tables.write_text(options.out / "family.md", table(rows))
    draw(panels, tasks, options.out / "family.png")
    print(table(rows))
    if options.peer:
        asked = {"study": options.study}
        beside = remembered(options.out / "rejax.json", asked, {"CartPole-v1": partial(beside_rejax, options)})
        print(pd.DataFrame(beside["CartPole-v1"]).T.to_string())
    print(f"written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
