"""What does a step that is too large, or too small, do to a policy gradient? A map over learning rates.

The lecture warns that with a large η the agent can overstep, or overcommit to actions that are not the best, and that
policy gradients get stuck where the gradient is flat. Every run is put into one of five classes by how its curves end,
for ten learning rates, with and without entropy in the objective, for plain gradient ascent and Adam, on the lecture's
maze and on CartPole.

Writes one directory of results for each environment and optimizer, summary.json and step_size.png into the directory
--out, and prints a table. The same command again goes on where it was stopped. With the defaults it takes about four
minutes on two cores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import pgjax
from common import launch, names, tables
from pgjax.analysis.plotting import dress
from pgjax.devices import use_every_core


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is mapped."""

    env: tuple[Literal["maze", "CartPole-v1"], ...] = ("maze", "CartPole-v1")
    """Environments."""
    optimizer: tuple[Literal["sgd", "adam"], ...] = ("sgd", "adam")
    """How a step is made of the gradient; sgd is plain gradient ascent."""
    learning_rate: tuple[float, ...] = ()
    """Learning rates η; by default ten for each environment and optimizer, from too small to too large."""
    entropy_coefficient: tuple[float, ...] = (0.0, 0.3)
    """Weights of the entropy in the objective."""
    seeds: int = 100
    """Runs at each point of the map."""
    iterations: int = 150
    """Updates of a run."""
    slots: int = 8
    """Episodes of an update."""
    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers on CartPole; on the maze the policy is a table."""
    batch: int | None = None
    """Runs computed together; by default as many as memory and cache allow."""
    out: Path = Path("results/step_size")


class Problem(NamedTuple):
    """An environment of the study."""

    policy: names.PolicyName
    actions: int
    best: float  # the highest return an episode can have
    learning_rates: Mapping[str, Sequence[float]]  # by optimizer, from too small to too large


def half_decades(lowest: float) -> list[float]:
    """Ten learning rates 1, 3, 10, 30, …, from the lowest on."""
    rates = [float(f"{digit}e{power}") for power in range(-6, 3) for digit in (1, 3)]
    return [rate for rate in rates if rate >= lowest][:10]


PROBLEMS = {
    "maze": Problem(
        policy="tabular", actions=4, best=-14.0, learning_rates={"sgd": half_decades(1e-4), "adam": half_decades(3e-4)}
    ),
    "CartPole-v1": Problem(
        policy="mlp", actions=2, best=500.0, learning_rates={"sgd": half_decades(1e-5), "adam": half_decades(1e-4)}
    ),
}

# A run's *progress* is 0 at the mean return of the first update and 1 at the best return. Its *last updates* are those
# with its last 100 episodes; progress is averaged over as many updates wherever it is compared.
LAST_EPISODES = 100
SOLVED = 0.95  # progress from which a run has arrived
ROSE = 0.1  # progress that a run must have made before it can have lost it
KEPT = 0.5  # a run that keeps less than this part of its highest progress has lost it
COMMITTED = 0.05  # of ln |actions|: entropy below which a policy hardly tries anything new
FLAT = 0.05  # of the mean gradient norm of all runs' first update: what counts as hardly any gradient

CLASSES = {
    "solved": f"progress of at least {SOLVED} over the last updates",
    "unfinished": "none of the others: below the best, still random, and with a gradient (the entropy's is part of it)",
    "flat": f"neither solved nor overcommitted; in at least half of the last updates a progress below {SOLVED} and a "
    f"gradient norm of at most {FLAT} times the mean of all runs' first update",
    "overcommitted": f"not solved; median entropy of the last updates below {COMMITTED} ln |actions|",
    "overstepped": f"a number that is not finite; or once at a progress of {ROSE} or more, and over the last updates "
    f"below {KEPT} of the highest (whatever the entropy and gradient are by then)",
}
COLOURS = {  # of Okabe and Ito, as plotting.COLOURS, and light grey for what says least
    "solved": "#009E73",
    "unfinished": "#D9D9D9",
    "flat": "#F0E442",
    "overcommitted": "#0072B2",
    "overstepped": "#D55E00",
}


def progress(results: xr.Dataset, best: float) -> xr.DataArray:
    """Every update's return on a scale from 0, the mean of the first update's over all runs, to 1, the best."""
    start = results.episode_return.isel(iteration=0).mean()
    return (results.episode_return - start) / (best - start)


def last_updates(results: xr.Dataset) -> int:
    """How many updates at the end of a run together have `LAST_EPISODES` episodes, or all if none have."""
    per_update = int(results.episodes.isel(iteration=0).max())
    return min(results.sizes["iteration"], -(-LAST_EPISODES // per_update))


def classify(results: xr.Dataset, best: float, actions: int) -> xr.DataArray:
    """Each run's class, one of the names in `CLASSES`, by how its curves end.

    The classes exclude each other, because they are asked for in this order: overstepped, solved, overcommitted, flat;
    what is left is unfinished.

    Args:
        results: A sweep's curves [..., iteration] of episode_return, episodes, entropy (nats) and gradient_norm. Every
            update has the same number of episodes.
        best: The highest return an episode can have.
        actions: How many actions the policy chooses from.

    Returns:
        Names, with the dimensions of the runs.
    """
    last = last_updates(results)
    smooth = progress(results, best).rolling(iteration=last).mean().isel(iteration=slice(last - 1, None))
    final, highest = smooth.isel(iteration=-1, drop=True), smooth.max("iteration")
    tiny = results.gradient_norm <= FLAT * results.gradient_norm.isel(iteration=0).mean()
    stuck = (tiny & (progress(results, best) < SOLVED)).isel(iteration=slice(-last, None)).mean("iteration")
    entropy = results.entropy.isel(iteration=slice(-last, None)).median("iteration")
    broken = pgjax.analysis.failed(results)
    tests = {
        "overstepped": broken | ((highest >= ROSE) & (final < KEPT * highest)),
        "solved": final >= SOLVED,
        "overcommitted": entropy < COMMITTED * np.log(actions),
        "flat": stuck >= 0.5,
    }
    found = np.select([test.transpose(*broken.dims).values for test in tests.values()], list(tests), "unfinished")
    return broken.copy(data=found)


def describe(results: xr.Dataset, classes: xr.DataArray, where: Mapping[str, str], best: float) -> list[dict[str, Any]]:
    """A row for each point of a sweep's grid, as plain numbers.

    Beside the classes' counts and fractions, these with 95% intervals: the interquartile mean of the final return (over
    the last 100 episodes) with its 95% interval, over runs whose numbers are finite; the median over runs of entropy
    (nats) and gradient norm, each a median of the last updates; and the fraction of all updates below the best whose
    gradient was exactly zero.
    """
    ending = results.isel(iteration=slice(-last_updates(results), None)).median("iteration")
    stuck = (progress(results, best) < SOLVED) & (results.gradient_norm == 0)
    rows = []
    for row in pgjax.summarize(results):
        point = {name: row[name] for name in ("entropy_coefficient", "learning_rate")}
        counts = {name: int((classes.sel(point) == name).sum()) for name in CLASSES}
        rows.append(
            {
                **where,
                **point,
                "runs": row["seeds"],
                "counts": counts,
                "fractions": {name: count / row["seeds"] for name, count in counts.items()},
                "intervals": {
                    name: pgjax.analysis.proportion_interval(count, row["seeds"]) for name, count in counts.items()
                },
                **{name: row[name] for name in ("iqm", "interval", "failed_seeds")},
                "final_entropy": finite(ending.entropy.sel(point).median()),
                "final_gradient_norm": finite(ending.gradient_norm.sel(point).median()),
                "zero_gradient_below_best": float(stuck.sel(point).mean()),
                **{name: row[name] for name in ("environment_steps", "seconds")},
            }
        )
    return rows


def finite(value: xr.DataArray) -> float | None:
    """A number, or None if it is not finite (JSON has no word for that)."""
    return float(value) if np.isfinite(value) else None


class Example(NamedTuple):
    """A run to show: from the point of the map that has most of its class, the first of them."""

    alike: int  # runs of its class at its point
    title: str
    progress: np.ndarray  # [iterations]
    entropy: np.ndarray  # [iterations], as a fraction of ln |actions|


def find_examples(
    results: xr.Dataset, classes: xr.DataArray, rows: Sequence[Mapping[str, Any]], best: float, actions: int
) -> dict[str, Example]:
    """An example of every class that occurs in a sweep."""
    examples = {}
    for name in CLASSES:
        row = max(rows, key=lambda row: row["counts"][name])
        if row["counts"][name]:
            point = {axis: row[axis] for axis in ("entropy_coefficient", "learning_rate")}
            run = {**point, "seed": classes.seed[classes.sel(point).values == name][0]}
            entropy = results.entropy.sel(run).values / np.log(actions)
            task = row["environment"].removesuffix("-v1")
            title = f"{task}, η = {row['learning_rate']:g}\n{heading(row)}"
            curve = progress(results, best).sel(run).values
            examples[name] = Example(alike=row["counts"][name], title=title, progress=curve, entropy=entropy)
    return examples


def heading(row: Mapping[str, Any]) -> str:
    """The name of a point's column in the map."""
    ascent = {"sgd": "plain ascent", "adam": "Adam"}[row["optimizer"]]
    return ascent + (f" + {row['entropy_coefficient']:g} entropy" if row["entropy_coefficient"] else "")


def draw(rows: Sequence[Mapping[str, Any]], examples: Mapping[str, Example], path: Path) -> None:
    """Draw the map, below it a run of each class, and save both as PNG."""
    table = pd.DataFrame(rows).assign(column=[heading(row) for row in rows])
    environments, columns = table.environment.unique(), table.column.unique()
    figure = Figure(figsize=(9, 2.4 + 1.9 * len(environments)), layout="constrained")
    (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.9 * len(environments), 1.9])
    grid = upper.subplots(len(environments), len(columns), squeeze=False)
    for environment, row_of_axes in zip(environments, grid, strict=True):
        for column, axes in zip(columns, row_of_axes, strict=True):
            here = table[(table.environment == environment) & (table.column == column)]
            bottom = np.zeros(len(here))
            for name, colour in COLOURS.items():
                height = 100 * np.array([fractions[name] for fractions in here.fractions])
                axes.bar(range(len(here)), height, 0.94, bottom, color=colour, label=name)
                bottom += height
            shown = range(0, len(here), 3)
            axes.set_xticks(shown, [f"{here.learning_rate.iloc[i]:g}" for i in shown])
            axes.set(ylim=(0, 100), xlim=(-0.5, len(here) - 0.5))
            axes.tick_params(labelsize="small")
            axes.spines[["top", "right"]].set_visible(False)  # and no grid, which bars would hide
            if environment == environments[0]:
                axes.set_title(column, fontsize="medium")
            if environment == environments[-1]:
                axes.set_xlabel("learning rate η", fontsize="small")
            if column == columns[0]:
                axes.set_ylabel(f"{environment}\n% of runs")
    handles, labels = axes.get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize="small", frameon=False)
    for axes, (name, colour) in zip(lower.subplots(1, len(COLOURS), sharey=True), COLOURS.items(), strict=True):
        dress(axes, "")
        axes.set_title(name, fontsize="medium", color="0" if name in ("unfinished", "flat") else colour)
        axes.tick_params(labelsize="small")
        axes.set_ylim(-0.1, 1.05)
        if name in examples:
            example = examples[name]
            axes.plot(example.entropy, color="0.55", linewidth=1, label="entropy / ln |actions|")
            axes.plot(example.progress, color="k", linewidth=1.4, label="progress to the best return")
            axes.set_xlabel(f"update\n{example.title}", fontsize="small")
        else:
            axes.set_xlabel("no such run", fontsize="small")
    lower.axes[0].set_ylabel("fraction", fontsize="small")
    lines = next(axes for axes in lower.axes if axes.lines).get_legend_handles_labels()
    lower.legend(*lines, loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def print_map(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each point of the map, classes in percent of its runs."""
    lines = []
    for row in rows:
        line = {"environment": row["environment"], "optimizer": heading(row), "η": f"{row['learning_rate']:g}"}
        line["final return (IQM)"] = tables.written(row["iqm"])
        line |= {f"{name} %": f"{100 * fraction:.3g}" for name, fraction in row["fractions"].items()}
        for name in ("final_entropy", "final_gradient_norm"):
            line[name.removeprefix("final_").replace("_", " ")] = tables.written(row[name], ".2g")
        lines.append(line)
    print(pd.DataFrame(lines).to_string(index=False))


def main(options: Options) -> None:
    """Run the sweeps, then write, draw and print the map."""
    launch.check_counts({"seeds": options.seeds})
    sweeps = {f"{env}-{optimizer}" for env in PROBLEMS for optimizer in names.OPTIMIZERS}
    launch.check_directory_of_study(options.out, sweeps | {"summary.json", "step_size.png"})
    rows: list[dict[str, Any]] = []
    examples: dict[str, Example] = {}
    for name in dict.fromkeys(options.env):
        problem, environment = PROBLEMS[name], names.environment_named(name)
        for optimizer in dict.fromkeys(options.optimizer):
            results = pgjax.sweep(
                pgjax.reinforce(
                    environment,
                    names.policy_named(problem.policy, environment, options.hidden),
                    slots=options.slots,
                    optimizer=names.OPTIMIZERS[optimizer],
                ),
                iterations=options.iterations,
                seeds=launch.seeds_of(options),
                grid={
                    "entropy_coefficient": options.entropy_coefficient,
                    "learning_rate": sorted(options.learning_rate) or problem.learning_rates[optimizer],
                },
                study=options.study,
                out=options.out / f"{name}-{optimizer}",
                configuration={
                    **launch.configuration_of_options(options, {"learning_rate", "entropy_coefficient"}),
                    "env": name,
                    "optimizer": optimizer,
                },
                batch=options.batch,
            ).load()
            classes = classify(results, problem.best, problem.actions)
            here = describe(results, classes, {"environment": name, "optimizer": optimizer}, problem.best)
            for kind, example in find_examples(results, classes, here, problem.best, problem.actions).items():
                examples[kind] = max(examples.get(kind, example), example, key=lambda example: example.alike)
            rows += here
    launch.leave_to_the_first_process()
    summary = {
        "definitions": CLASSES,
        "thresholds": {
            "last_episodes": LAST_EPISODES,
            "solved": SOLVED,
            "rose": ROSE,
            "kept": KEPT,
            "committed": COMMITTED,
            "flat": FLAT,
        },
        "iterations": options.iterations,
        "slots": options.slots,
        "best_returns": {name: PROBLEMS[name].best for name in options.env},
        "device": results.attrs["device"],
        "rows": rows,
    }
    tables.write_json(options.out / "summary.json", summary)
    draw(rows, examples, options.out / "step_size.png")
    print_map(rows)
    seconds = sum(row["seconds"] for row in rows)
    print(f"{len(rows)} points of {options.seeds} runs in {seconds:.0f} s; written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
