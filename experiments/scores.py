"""What does REINFORCE score? Its variants on the lecture's examples, gymnax's and brax's tasks, over many seeds.

The variants are the lecture's own way: G₁ minus a running average, then G_t minus the mean of the other episodes, then
minus a learned v(X_t), then actor-critic with the generalised advantage estimate; on some tasks PPO, and policies that
remember. On the first tasks one of two learning rates is chosen, on the others each variant is tuned with the same
budget (`SPACE`, `POINTS`), always on seeds that are not reported. The reported runs are those that
experiments/reinforce.py makes with the command that stands in the summary beside them.

Writes directories of results for each task and variant, summary.json, scores.md (the table) and scores.png into the
directory --out, and prints the table. The same command again goes on where it was stopped. With the defaults it takes
many hours on two cores; --finished reports what there is by then. What other runs scored stays: --keep names their
summary, whose tasks that are not scored now are in the new one, too.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

import pgjax
from common import launch, names, tables
from common.tasks import METHODS, NUMBERS, TASKS, settings_of
from pgjax.analysis.plotting import ESTIMATOR_COLOURS
from pgjax.devices import use_every_core
from pgjax.sweeps.designs import Points, Range, Space, sobol_points
from pgjax.sweeps.tuning import Tuning, record_of

CHOSEN_ON = 2**20  # the first seed that numbers are chosen on
# What every variant is tuned over, wherever it is: so many points, each with so many runs as long as the reported ones.
SPACE: Space = {"learning_rate": Range(5e-4, 2e-2), "entropy_coefficient": Range(1e-4, 3e-2)}
POINTS, SEEDS_OF_A_POINT = 8, 2


@dataclass(frozen=True)
class Options:
    """What is scored."""

    env: tuple[str, ...] = tuple(TASKS)
    """Environments, of those that the script has settings for."""
    seeds: int | None = None
    """Runs of each variant; by default 1024 on short tasks, 128 on long ones, fewer where each takes long."""
    choosing_seeds: int | None = None
    """Other runs, that numbers are chosen on; by default 16 on short tasks, 8 on long ones, 4 from pixels, and of each
    point 2 where variants are tuned."""
    iterations: int | None = None
    """Updates of a run; by default each task's own number."""
    episodes: int = 2000
    """Episodes that the random and the scripted policy are averaged over."""
    study: int = 0
    """Number of the study; runs of two studies have no randomness in common."""
    finished: bool = False
    """Whether to report what is complete and run nothing more."""
    keep: Path | None = None
    """Summary of other runs, whose tasks that are not scored now are kept; by default none."""
    report: Path | None = None
    """File in which the table between two marks is replaced by the new one; by default none."""
    out: Path = Path("results/scores")
    """Directory to write into: a new one, or one that the same study has written."""


def place(options: Options, name: str, method: str, what: str) -> Path:
    """The directory of a sweep of a variant on a task; what is a choice or a report."""
    return options.out / directory(name, method, what)


def directory(name: str, method: str, what: str) -> str:
    """The name of the directory of a sweep, or of a tuning."""
    return f"{name.replace(':', '-').replace(', ', '-')}-{list(METHODS).index(method)}-{what}"


def is_complete(path: Path) -> bool:
    """Whether there is a sweep of which every run is completed."""
    return path.is_dir() and bool(pgjax.read(path).completed.all())


def algorithm_of(name: str, method: str) -> tuple[pgjax.Algorithm, dict[str, float], dict[str, Any]]:
    """A variant for a task, its numbers but for those that are chosen, and the configuration of its results."""
    env, settings = TASKS[name].env or name, settings_of(TASKS[name], method)
    static = {key: value for key, value in settings.items() if key not in NUMBERS}
    parts = names.Parts(env=env, **{key: value for key, value in static.items() if key != "method"})
    algorithm = names.method_named(settings.get("method", "reinforce"), names.environment_named(env), parts)
    configuration = {key: list(value) if key == "hidden" else value for key, value in static.items()}
    return algorithm, {key: settings[key] for key in NUMBERS}, {"env": env, **configuration}


def run(
    name: str, method: str, seeds: range, rates: Sequence[float], iterations: int, options: Options, what: str
) -> xr.Dataset:
    """The curves of a variant on a task, at one learning rate or several."""
    algorithm, numbers, configuration = algorithm_of(name, method)
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
        configuration=configuration,
    )


def few_digits(space: Space, points: int, seed: int) -> Points:
    """Points of a Sobol sequence, with so few digits that a command has them whole."""
    return {
        name: np.array([float(f"{x:.2g}") for x in numbers])
        for name, numbers in sobol_points(space, points, seed).items()
    }


def tuned(name: str, method: str, seeds: int, iterations: int, options: Options) -> Tuning:
    """A variant tuned on a task; its fresh runs, so many seeds, are those that are reported."""
    algorithm, numbers, configuration = algorithm_of(name, method)
    print(f"{name}, {method}: tuning", flush=True)
    return pgjax.tune(
        algorithm,
        SPACE,
        iterations=iterations,
        points=POINTS,
        seeds=options.choosing_seeds or SEEDS_OF_A_POINT,
        rungs=1,
        fresh_seeds=seeds,
        first_seed=CHOSEN_ON,
        design=few_digits,
        hyperparameters=algorithm.hyperparameters(**{key: numbers[key] for key in numbers if key not in SPACE}),
        study=options.study,
        out=place(options, name, method, "tuning"),
        configuration=configuration,
    )


def command_of(name: str, method: str, chosen: Mapping[str, float], seeds: range, iterations: int, study: int) -> str:
    """The command that makes the reported runs of a row alone."""
    words = ["uv", "run", "experiments/reinforce.py", "--env", TASKS[name].env or name]
    for key, value in (settings_of(TASKS[name], method) | dict(chosen)).items():
        values = value if isinstance(value, tuple) else () if value is True else (value,)
        words += [f"--{key.replace('_', '-')}", *(f"{x:g}" if isinstance(x, float) else str(x) for x in values)]
    words += ["--seeds", str(len(seeds)), "--iterations", str(iterations)]
    words += [] if seeds.start == 0 else ["--first-seed", str(seeds.start)]
    words += [] if study == 0 else ["--study", str(study)]
    return shlex.join([*words, "--out", f"results/{directory(name, method, 'again').removesuffix('-again')}"])


def references(name: str, options: Options) -> dict[str, Any]:
    """The mean returns of policies that learned nothing, with 95% intervals."""
    name = TASKS[name].env or name
    environment = names.environment_named(name)
    random = pgjax.random_policy(environment)
    known = {"random": pgjax.Expert(random, ()), "scripted": names.expert_named(name, environment)}
    found: dict[str, Any] = {}
    for i, (label, expert) in enumerate(known.items()):
        if expert is not None:
            run = jax.jit(pgjax.evaluate(environment, expert.policy, options.episodes))
            key = jax.random.fold_in(jax.random.key(options.study), i)
            found[label] = pgjax.analysis.mean_interval(run(key, expert.params, environment.params))
    if name == "FrozenLake-misc":
        best_of_all = pgjax.exact.optimal(pgjax.environments.frozen_lake_tables(), environment.horizon)
        found["exact optimum"] = {"mean": float(best_of_all.rho), "low": None, "high": None}
    if name.endswith("recommendation"):
        keys = jax.random.split(jax.random.key(options.study), options.episodes)
        slate = environment.reset(keys[0], environment.params)[0].slate.size

        def best(key: jax.Array) -> jax.Array:
            interests = pgjax.environments.interests(key, environment.params, environment.horizon)
            return pgjax.environments.clairvoyant_bound(environment.params, interests, slate)

        found["clairvoyant bound"] = pgjax.analysis.mean_interval(jax.jit(jax.vmap(best))(keys))
    return found


def row_of(
    name: str, method: str, chosen: Mapping[str, float], results: xr.Dataset, options: Options, iterations: int
) -> dict[str, Any]:
    """What is reported of a variant on a task, with these numbers chosen."""
    task = TASKS[name]
    (found,) = pgjax.summarize(results, task.solved_at)
    seeds = found["seeds"]
    first = int(results.seed[0])
    return {
        "environment": name,
        "method": method,
        **chosen,
        **found,
        "steps": found["environment_steps"] / seeds,
        "iterations": iterations,
        "published": task.published,
        "solved_at": task.solved_at,
        "command": command_of(name, method, chosen, range(first, first + seeds), iterations, options.study),
        "made": {key: results.attrs[key] for key in ("created", "git_revision", "device")},
    }


def tuning_of(tuning: Tuning) -> dict[str, Any]:
    """What is reported of how a variant was tuned: its space and budget, and what each of its points was worth."""
    record = record_of(tuning)
    points = [{name: trial[name] for name in (*tuning.space, "iqm")} for trial in record["trials"]]
    return {"space": record["space"], "budget": record["budget"], "points": points}


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
               "tuned: worst, best", "steps a run", "s")  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in dict.fromkeys(row["environment"] for row in rows):
        known = summary["references"][name]
        published = next(row["published"] for row in rows if row["environment"] == name)
        for label, found in known.items():
            bounds = None if found["low"] is None else (found["low"], found["high"])
            shown = f"{number(found['mean'])} | {pair(bounds)}"
            lines.append(f"| {name} | *{label}* | - | - | {shown} | - | - | - | - | - |")
        if published != "-":
            lines.append(f"| {name} | *published* | - | - | {published} | - | - | - | - | - | - |")
        for row in rows:
            if row["environment"] != name:
                continue
            iqm = "-" if row["iqm"] is None else number(row["iqm"])
            iqm = f"**{iqm}**" if row["iqm"] == best.get(name) else iqm
            solved = "-" if row["solved_fraction"] is None else f"{row['solved_fraction']:.1%}"
            lost = len(row["failed_seeds"])
            tried = [point["iqm"] for point in row.get("tuning", {}).get("points", []) if point["iqm"] is not None]
            spread = pair((min(tried), max(tried)) if tried else None)
            lines.append(
                f"| {name} | {row['method']} | {row['learning_rate']:g} | {row['seeds']}"
                f"{f' ({lost} failed)' if lost else ''} | {iqm} | {pair(row['interval'])} | "
                f"{pair(row['tolerance_interval'])} | {solved} | {spread} | {row['steps']:.2g} | {row['seconds']:.0f} |"
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


def summary_at(path: Path) -> dict[str, Any]:
    """A summary that this study wrote.

    Raises:
        InputError: If there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: found[key] for key in ("device", "references", "rows")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise pgjax.InputError(f"expected a summary of this study to keep, got {path}: {error}") from error


def put_into(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a file.

    Raises:
        InputError: See `around_marks`.
    """
    before, after = around_marks(path)
    tables.write_text(path, f"{before}\n{text}\n{after}")


def scored(name: str, method: str, options: Options) -> tuple[xr.Dataset, dict[str, Any]] | None:
    """The reported runs of a variant on a task, and its row; None if they are not complete, and are not to be run."""
    task = TASKS[name]
    iterations, seeds = options.iterations or task.iterations, options.seeds or task.seeds
    whats = ("choice", "report") if task.learning_rates else ("tuning/rung-0", "tuning/fresh")
    if options.finished and not all(is_complete(place(options, name, method, what)) for what in whats):
        return None
    if not task.learning_rates:
        tuning = tuned(name, method, seeds, iterations, options)
        row = row_of(name, method, tuning.winner, tuning.fresh, options, iterations)
        return tuning.fresh, row | {"tuning": tuning_of(tuning)}
    others = range(CHOSEN_ON, CHOSEN_ON + (options.choosing_seeds or min(16, max(4, task.seeds // 16))))
    choice = run(name, method, others, task.learning_rates, iterations, options, "choice")
    # By where runs end. (experiments/estimators.py asks how fast they get there.)
    rate = task.learning_rates[0]
    if len(task.learning_rates) > 1:
        rate = pgjax.sweeps.best_point(pgjax.analysis.final_return(choice.load()))["learning_rate"]
    results = run(name, method, range(seeds), [rate], iterations, options, "report")
    return results, row_of(name, method, {"learning_rate": rate}, results, options, iterations)


def with_kept(summary: dict[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A summary, and what another one has of tasks that it lacks, in the order of `TASKS`."""
    new, order = summary["references"], list(TASKS)
    references = {name: found for name, found in kept["references"].items() if name not in new} | new
    rows = [row for row in kept["rows"] if row["environment"] not in new] + summary["rows"]

    def number(name: str) -> int:
        return order.index(name) if name in order else len(order)

    return summary | {
        "references": dict(sorted(references.items(), key=lambda item: number(item[0]))),
        "rows": sorted(rows, key=lambda row: number(row["environment"])),
    }


def main(options: Options) -> None:
    """Choose what is to be chosen, run what is reported, and write and print the table."""
    for name in options.env:
        if name not in TASKS:
            raise pgjax.InputError(f"expected tasks among {', '.join(TASKS)}, got {name}")
    counts = {"seeds": options.seeds, "iterations": options.iterations, "episodes": options.episodes}
    launch.check_counts(counts | {"runs to choose on": options.choosing_seeds})
    if options.report is not None:
        around_marks(options.report)
    kept = None if options.keep is None else summary_at(options.keep)
    whats = ("choice", "report", "tuning")
    directories = {directory(name, method, what) for name in TASKS for method in METHODS for what in whats}
    launch.check_directory_of_study(options.out, [*directories, "summary.json", "scores.md", "scores.png"])
    rows: list[dict[str, Any]] = []
    curves: dict[str, dict[str, xr.Dataset]] = {}
    known: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(options.env):
        for method in TASKS[name].methods:
            found = scored(name, method, options)
            if found is not None:
                results, row = found
                rows.append(row)
                curves.setdefault(name, {})[method] = results
        if name in curves:
            known[name] = references(name, options)
    if not rows:
        raise pgjax.InputError(f"expected a variant that is complete in {options.out}, got none")
    launch.leave_to_the_first_process()
    summary = {"device": results.attrs["device"], "references": known, "rows": rows}
    if kept is not None:
        summary = with_kept(summary, kept)
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
