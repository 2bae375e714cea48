"""What does REINFORCE score? Four variants on the lecture's examples and on gymnax's tasks, over many seeds.

The variants are the lecture's own way: G₁ minus a running average, then G_t minus the mean of the other episodes, then
minus a learned v(X_t), then actor-critic with the generalised advantage estimate. The learning rate of each on each
task is chosen on seeds that are not reported; the reported runs are those that experiments/reinforce.py makes with the
command that stands in the summary beside them.

Writes directories of results for each task and variant, summary.json, scores.md (the table) and scores.png into the
directory --out, and prints the table. The same command again goes on where it was stopped. With the defaults it takes
several hours on two cores, the most of them for the pixels of Breakout; --finished reports what there is by then.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import xarray as xr

import pgjax
from common import launch, names, tables
from pgjax.analysis.plotting import ESTIMATOR_COLOURS
from pgjax.devices import use_every_core


class Task(NamedTuple):
    """Where REINFORCE is scored, and how it is set up there."""

    seeds: int  # reported, of each variant
    iterations: int
    learning_rates: Sequence[float]  # to choose from
    settings: Mapping[str, Any] = {}  # options of experiments/reinforce.py, other than `SETTINGS`
    published: str = "-"  # final return that others report
    solved_at: float | None = None


SETTINGS: dict[str, Any] = {
    "policy": "auto",
    "hidden": (64, 64),
    "slots": 16,
    "min_steps_per_slot": 0,
    "value_steps": 5,
    "optimizer": "adam",
    "discount": 0.99,
    "entropy_coefficient": 0.0,
    "value_learning_rate": 1e-2,
    "trace_decay": 0.95,
}
METHODS: dict[str, dict[str, str]] = {
    "G_1 − ρ̂": {"credit": "whole-episode", "baseline": "running-average"},
    "G_t − leave-one-out mean per step": {"credit": "reward-to-go", "baseline": "leave-one-out-by-time"},
    "G_t − v(X_t)": {"credit": "reward-to-go", "baseline": "learned-value"},
    "actor-critic: G_t^λ − v(X_t)": {"credit": "lambda-return", "baseline": "learned-value"},
}
NUMBERS = ("discount", "entropy_coefficient", "value_learning_rate", "trace_decay")  # the other settings are static
SHORT, LONG, PIXELS = 1024, 128, 32  # seeds
WITH_MEMORY = {"policy": "recurrent", "hidden": (32, 32)}
TASKS: dict[str, Task] = {
    "CartPole-v1": Task(
        seeds=SHORT,
        iterations=30,
        learning_rates=(5e-3, 1e-2),
        settings={"value_steps": 2},
        published="500",
        solved_at=475.0,
    ),
    "Catch-bsuite": Task(
        seeds=SHORT,
        iterations=150,
        learning_rates=(3e-3, 6e-3),
        settings={"slots": 8, "discount": 1.0, "value_steps": 1},
        published="1",
        solved_at=0.95,
    ),
    "FourRooms-misc": Task(
        seeds=SHORT,
        iterations=40,
        learning_rates=(5e-3, 1e-2),
        settings={"value_steps": 2},
        published="1",
        solved_at=0.95,
    ),
    "FrozenLake-misc": Task(seeds=SHORT, iterations=200, learning_rates=(1e-1, 3e-1), settings={"value_steps": 2}),
    "maze": Task(
        seeds=SHORT, iterations=100, learning_rates=(1e-1, 3e-1), settings={"discount": 1.0, "value_steps": 2}
    ),
    "recommendation": Task(
        seeds=SHORT,
        iterations=200,
        learning_rates=(5e-3, 1e-2),
        settings={"discount": 0.5, "entropy_coefficient": 0.03, "value_steps": 2},
    ),
    "t-maze": Task(
        seeds=LONG,
        iterations=300,
        learning_rates=(3e-3, 1e-2),
        settings={**WITH_MEMORY, "entropy_coefficient": 0.03},
        solved_at=3.6,
    ),
    "partial-maze": Task(
        seeds=LONG, iterations=150, learning_rates=(3e-3, 1e-2), settings={**WITH_MEMORY, "discount": 0.98}
    ),
    "navigation": Task(LONG, 200, (1e-3, 3e-3)),
    "cooling": Task(
        seeds=LONG,
        iterations=500,
        learning_rates=(2e-3, 4e-3),
        settings={"slots": 8, "discount": 0.97, "trace_decay": 0.9},
    ),
    "Acrobot-v1": Task(seeds=LONG, iterations=250, learning_rates=(3e-3, 5e-3), published="−80", solved_at=-100.0),
    "Pendulum-v1": Task(
        seeds=LONG,
        iterations=400,
        learning_rates=(3e-3, 6e-3),
        settings={"slots": 8, "discount": 0.95},
        published="−130",
    ),
    "Swimmer-misc": Task(seeds=LONG, iterations=50, learning_rates=(3e-3, 6e-3), settings={"slots": 8}),
    "Reacher-misc": Task(
        seeds=LONG, iterations=250, learning_rates=(3e-3, 6e-3), settings={"slots": 8, "discount": 0.95}
    ),
    "Breakout-MinAtar": Task(
        seeds=PIXELS,
        iterations=1700,
        learning_rates=(1e-3, 3e-3),
        settings={
            "slots": 8,
            "min_steps_per_slot": 16,
            "entropy_coefficient": 0.05,
            "value_steps": 2,
            "value_learning_rate": 1e-3,
        },
        published="28 to 43",
    ),
}
CHOSEN_ON = 2**20  # the first seed that learning rates are chosen on


@dataclass(frozen=True)
class Options:
    """What is scored."""

    env: tuple[str, ...] = tuple(TASKS)
    """Environments, of those that the script has settings for."""
    seeds: int | None = None
    """Runs of each variant, numbered from 0; by default 1024 on short tasks, 128 on long ones, 32 from pixels."""
    choosing_seeds: int | None = None
    """Other runs, that a learning rate is chosen on; by default 16 on short tasks, 8 on long ones, 4 from pixels."""
    iterations: int | None = None
    """Updates of a run; by default each task's own number."""
    episodes: int = 2000
    """Episodes that the random and the scripted policy are averaged over."""
    study: int = 0
    """Number of the study; runs of two studies have no randomness in common."""
    finished: bool = False
    """Whether to report what is complete and run nothing more."""
    report: Path | None = None
    """File in which the table between two marks is replaced by the new one; by default none."""
    out: Path = Path("results/scores")
    """Directory to write into: a new one, or one that the same study has written."""


def settings_of(task: Task, method: str) -> dict[str, Any]:
    """All options of experiments/reinforce.py that say what is run, but for the learning rate."""
    return {**SETTINGS, **task.settings, **METHODS[method]}


def place(options: Options, name: str, method: str, what: str) -> Path:
    """The directory of a sweep of a variant on a task; what is a choice or a report."""
    return options.out / f"{name}-{list(METHODS).index(method)}-{what}"


def is_complete(path: Path) -> bool:
    """Whether there is a sweep of which every run is completed."""
    return path.is_dir() and bool(pgjax.read(path).completed.all())


def run(
    name: str, method: str, seeds: range, rates: Sequence[float], iterations: int, options: Options, what: str
) -> xr.Dataset:
    """The curves of a variant on a task, at one learning rate or several."""
    environment, settings = names.environment_named(name), settings_of(TASKS[name], method)
    static = {key: value for key, value in settings.items() if key not in NUMBERS}
    algorithm = names.reinforce_named(environment, **static)
    numbers = {key: settings[key] for key in NUMBERS}
    grid = {"learning_rate": rates} if len(rates) > 1 else {}
    numbers |= {"learning_rate": rates[0]} if len(rates) == 1 else {}
    print(f"{name}, {method}: {what}", flush=True)
    return pgjax.sweep(
        algorithm,
        iterations=iterations,
        seeds=seeds,
        grid=grid,
        hyperparameters=algorithm.hyperparameters(**numbers),
        study=options.study,
        out=place(options, name, method, what),
        configuration={
            "env": name,
            **{key: list(value) if key == "hidden" else value for key, value in static.items()},
        },
    )


def command_of(name: str, method: str, rate: float, seeds: int, iterations: int, study: int) -> str:
    """The command that makes the reported runs of a row alone."""
    words = ["uv", "run", "experiments/reinforce.py", "--env", name]
    for key, value in settings_of(TASKS[name], method).items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{key.replace('_', '-')}", *(f"{x:g}" if isinstance(x, float) else str(x) for x in values)]
    words += ["--learning-rate", f"{rate:g}", "--seeds", str(seeds), "--iterations", str(iterations)]
    words += [] if study == 0 else ["--study", str(study)]
    return shlex.join([*words, "--out", f"results/{name}-{list(METHODS).index(method)}"])


def references(name: str, options: Options) -> dict[str, Any]:
    """The mean returns of policies that learned nothing, with 95% intervals."""
    environment = names.environment_named(name)
    random = pgjax.random_policy(environment)
    known = {"random": pgjax.Expert(random, ()), "scripted": names.expert_named(name, environment)}
    found: dict[str, Any] = {}
    for i, (label, expert) in enumerate(known.items()):
        if expert is not None:
            run = jax.jit(pgjax.evaluate(environment, expert.policy, options.episodes))
            key = jax.random.fold_in(jax.random.key(options.study), i)
            found[label] = pgjax.analysis.mean_interval(run(key, expert.params, environment.params))
    if name == "recommendation":
        keys = jax.random.split(jax.random.key(options.study), options.episodes)

        def best(key: jax.Array) -> jax.Array:
            interests = pgjax.environments.interests(key, environment.params, environment.horizon)
            return pgjax.environments.clairvoyant_bound(environment.params, interests)

        found["clairvoyant bound"] = pgjax.analysis.mean_interval(jax.jit(jax.vmap(best))(keys))
    return found


def row_of(
    name: str, method: str, rate: float, results: xr.Dataset, options: Options, iterations: int
) -> dict[str, Any]:
    """What is reported of a variant on a task."""
    task = TASKS[name]
    (found,) = pgjax.summarize(results, task.solved_at)
    seeds = found["seeds"]
    return {
        "environment": name,
        "method": method,
        "learning_rate": rate,
        **found,
        "steps": found["environment_steps"] / seeds,
        "iterations": iterations,
        "published": task.published,
        "solved_at": task.solved_at,
        "command": command_of(name, method, rate, seeds, iterations, options.study),
    }


def table(summary: Mapping[str, Any]) -> str:
    """The rows of a summary as a table in Markdown, the best variant of each task in bold."""

    def number(x: float) -> str:  # shorter where large than `tables.written`, as the table is wide
        return f"{x:.4g}" if abs(x) < 1e4 else f"{x:.3g}"

    def pair(bounds: Any) -> str:
        return "-" if bounds is None else f"[{number(bounds[0])}, {number(bounds[1])}]"

    rows = summary["rows"]
    best = {name: max(r["iqm"] for r in rows if r["environment"] == name and r["iqm"] is not None)
            for name in dict.fromkeys(r["environment"] for r in rows if r["iqm"] is not None)}  # fmt: skip
    columns = ("task", "variant", "η", "runs", "final return (IQM)", "IQM, 95% interval", "90% of runs", "solved",
               "steps a run", "s")  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in dict.fromkeys(row["environment"] for row in rows):
        known = summary["references"][name]
        published = next(row["published"] for row in rows if row["environment"] == name)
        for label, found in known.items():
            bounds = None if found["low"] is None else (found["low"], found["high"])
            shown = f"{number(found['mean'])} | {pair(bounds)}"
            lines.append(f"| {name} | *{label}* | - | - | {shown} | - | - | - | - |")
        if published != "-":
            lines.append(f"| {name} | *published* | - | - | {published} | - | - | - | - | - |")
        for row in rows:
            if row["environment"] != name:
                continue
            iqm = "-" if row["iqm"] is None else number(row["iqm"])
            iqm = f"**{iqm}**" if row["iqm"] == best.get(name) else iqm
            solved = "-" if row["solved_fraction"] is None else f"{row['solved_fraction']:.1%}"
            lost = len(row["failed_seeds"])
            lines.append(
                f"| {name} | {row['method']} | {row['learning_rate']:g} | {row['seeds']}"
                f"{f' ({lost} failed)' if lost else ''} | {iqm} | {pair(row['interval'])} | "
                f"{pair(row['tolerance_interval'])} | {solved} | {row['steps']:.2g} | {row['seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


MARKS = ("<!-- scores: made by experiments/scores.py -->\n", "<!-- end of scores -->\n")


def around_marks(path: Path) -> tuple[str, str]:
    """What a file has up to the first mark, and from the second on, marks included.

    Raises:
        InputError: If there are no such marks in it, or no such file.
    """
    try:
        whole = path.read_text(encoding="utf-8")
    except OSError as error:
        raise pgjax.InputError(f"expected a file with marks for the table, got {path}: {error.strerror}") from error
    first, last = whole.find(MARKS[0]), whole.find(MARKS[1])
    if not 0 <= first < last:
        raise pgjax.InputError(f"expected {path} to have the lines {MARKS[0].strip()} and {MARKS[1].strip()}, got none")
    return whole[: first + len(MARKS[0])], whole[last:]


def put_into(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a file.

    Raises:
        InputError: See `around_marks`.
    """
    before, after = around_marks(path)
    tables.write_text(path, f"{before}\n{text}\n{after}")


def main(options: Options) -> None:
    """Choose the learning rates, run what is reported, and write and print the table."""
    for name in options.env:
        if name not in TASKS:
            raise pgjax.InputError(f"expected tasks among {', '.join(TASKS)}, got {name}")
    counts = {"seeds": options.seeds, "iterations": options.iterations, "episodes": options.episodes}
    launch.check_counts(counts | {"runs to choose on": options.choosing_seeds})
    if options.report is not None:
        around_marks(options.report)
    directories = {f"{name}-{i}-{what}" for name in TASKS for i in range(len(METHODS)) for what in ("choice", "report")}
    launch.check_directory_of_study(options.out, [*directories, "summary.json", "scores.md", "scores.png"])
    rows: list[dict[str, Any]] = []
    curves: dict[str, dict[str, xr.Dataset]] = {}
    known: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(options.env):
        task = TASKS[name]
        iterations = options.iterations or task.iterations
        seeds = range(options.seeds or task.seeds)
        chosen_on = range(CHOSEN_ON, CHOSEN_ON + (options.choosing_seeds or min(16, max(4, task.seeds // 16))))
        for method in METHODS:
            both = [place(options, name, method, what) for what in ("choice", "report")]
            if options.finished and not all(is_complete(path) for path in both):
                continue
            choice = run(name, method, chosen_on, task.learning_rates, iterations, options, "choice")
            # By where runs end. (experiments/estimators.py asks how fast they get there.)
            rate = task.learning_rates[0]
            if len(task.learning_rates) > 1:
                rate = pgjax.sweeps.best_point(pgjax.analysis.final_return(choice.load()))["learning_rate"]
            results = run(name, method, seeds, [rate], iterations, options, "report")
            rows.append(row_of(name, method, rate, results, options, iterations))
            curves.setdefault(name, {})[method] = results
        if name in curves:
            known[name] = references(name, options)
    if not rows:
        raise pgjax.InputError(f"expected a variant that is complete in {options.out}, got none")
    launch.leave_to_the_first_process()
    summary = {"device": results.attrs["device"], "references": known, "rows": rows}
    tables.write_json(options.out / "summary.json", summary)
    text = table(json.loads((options.out / "summary.json").read_text()))
    tables.write_text(options.out / "scores.md", text)
    if options.report is not None:
        put_into(options.report, text)
    levels = {name: {label: found["mean"] for label, found in each.items()} for name, each in known.items()}
    pgjax.compare_learning_curves(curves, options.out / "scores.png", levels, columns=4, colours=ESTIMATOR_COLOURS)
    print(text)
    total = {key: sum(row[key] for row in rows) for key in ("environment_steps", "seconds")}
    print(f"{total['environment_steps']:.3g} real steps in {total['seconds']:.0f} s; written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
