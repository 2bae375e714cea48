"""Why do some runs stay at the worst return, and what would have saved them? A thousand siblings with one setting.

In the partial maze and on Acrobot some runs of the table of scores end where they began, with every episode cut off.
The runs here have the settings of that table, and differ in their seeds alone. Those that are stuck at the end stand
beside the others: when they part, how large the gradient is, and what entropy is left. Then the same seeds run with
more entropy, with other step sizes and with more slots.

Writes directories of results, summary.json and stuck.png into the directory --out, and prints the tables. The same
command again goes on where it was stopped. With the defaults it takes about an hour on two cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import pgjax
from common import launch, names, tables
from common.tasks import MEAN, TASKS, settings_of
from pgjax.analysis.plotting import COLOURS, dress
from pgjax.analysis.statistics import proportion_interval
from pgjax.devices import use_every_core

LEARNING_RATES = {"partial-maze": 1e-2, "Acrobot-v1": 5e-3}  # of the table of scores
NUMBERS = ("learning_rate", "discount", "entropy_coefficient")
SILENT = 10  # updates in a row in which no episode tells another from the rest
QUANTITIES = {"episode_return": "return", "entropy": "entropy (nats)", "gradient_norm": "norm of the gradient"}
GROUPS = {"stuck": COLOURS[1], "not stuck": COLOURS[0]}


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is run."""

    env: tuple[str, ...] = tuple(LEARNING_RATES)
    """Tasks of the table of scores in which episodes are cut off at the worst return."""
    iterations: int = 80
    """Updates of a run."""
    seeds: int = 1024
    """Runs of each task with the settings of the table."""
    rescued: int = 128
    """Runs of each other setting, which are the first of the same seeds."""
    out: Path = Path("results/stuck")


def settings_for(env: str) -> dict[str, dict[str, Any]]:
    """The settings of a task's runs by name: those of the table, and each with one thing changed."""
    rate = LEARNING_RATES[env]
    own = settings_of(TASKS[env], MEAN) | {"learning_rate": rate}
    changes = [("entropy_coefficient", weight) for weight in (0.01, 0.1)]
    changes += [("learning_rate", rate * factor) for factor in (0.3, 3.0)]
    changes += [("slots", own["slots"] * factor) for factor in (2, 4)]
    changed = {f"{name.replace('_', ' ')} {value:g}": own | {name: value} for name, value in changes}
    return {"as in the table": own} | changed


def ran(options: Options, env: str, number: int, settings: Mapping[str, Any]) -> xr.Dataset:
    """The curves of a task with such settings, the number-th."""
    static = {name: value for name, value in settings.items() if name in names.Parts.__dataclass_fields__}
    algorithm = names.method_named("reinforce", names.environment_named(env), names.Parts(env=env, **static))
    seeds = launch.seeds_of(options)
    return pgjax.sweep(
        algorithm,
        iterations=options.iterations,
        seeds=seeds if number == 0 else seeds[: options.rescued],
        hyperparameters=algorithm.hyperparameters(**{name: settings[name] for name in NUMBERS}),
        study=options.study,
        out=options.out / f"{env}-{number}",
        configuration={"env": env, **{key: list(x) if isinstance(x, tuple) else x for key, x in static.items()}},
        keep_params=False,
    ).load()


def stuck_in(results: xr.Dataset, horizon: int) -> np.ndarray:
    """Which runs [seeds] ended at the worst return: over their last hundred episodes 1% above it at most."""
    return np.asarray(pgjax.analysis.final_return(results).values <= -0.99 * horizon)


def apart(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """The probability that a run of the better is above one of the worse, a tie counting half, at each update [i]."""
    above = better[:, None] > worse[None]
    return np.asarray((above + 0.5 * (better[:, None] == worse[None])).mean((0, 1)))


def median_of(numbers: np.ndarray) -> float | None:
    """The median, None of nothing."""
    return float(np.median(numbers)) if numbers.size else None


def found_in(results: xr.Dataset, horizon: int) -> dict[str, Any]:
    """What separates the runs that are stuck from the others, and what becomes of a silent one.

    A run is silent from an update on if in that and the next ones, `SILENT` in all, every episode is the worst: none
    then tells what to do.
    """
    stuck, returns = stuck_in(results, horizon), results.episode_return.values
    both = 0 < stuck.sum() < len(stuck)
    together = apart(returns[~stuck], returns[stuck]) < 0.95 if both else np.zeros(1, bool)
    late = np.flatnonzero(together)  # updates before they are apart for good
    worst = returns <= -horizon
    silent = np.asarray(np.lib.stride_tricks.sliding_window_view(worst, SILENT, axis=1).all(-1))
    begin = silent.argmax(1)
    after = np.arange(worst.shape[1]) >= begin[:, None] + SILENT
    found: dict[str, Any] = {
        "stuck": int(stuck.sum()),
        "parted by update": int(late[-1]) + 2 if len(late) else 1,
        "silent": int(silent.any(1).sum()),
        "left silence": int(((~worst & after).any(1) & silent.any(1)).sum()),
        "silent from update": median_of(begin[silent.any(1)] + 1),
    }
    for group, which in (("stuck", stuck), ("not stuck", ~stuck)):
        for name in ("entropy", "gradient_norm"):
            found[f"{name} at the end, {group}"] = median_of(results[name].values[which, -10:])
    return found


def rescue(results: xr.Dataset, horizon: int, doomed: np.ndarray) -> dict[str, Any]:
    """How many runs of a setting are stuck, and how many of those seeds that are stuck with the table's are not."""
    stuck, doomed = stuck_in(results, horizon), doomed[: results.sizes["seed"]]
    low, high = proportion_interval(int(stuck.sum()), len(stuck))
    return {
        "runs": len(stuck),
        "stuck": f"{stuck.mean():.1%}",
        "95% interval": f"[{low:.1%}, {high:.1%}]",
        "saved": f"{(doomed & ~stuck).sum()} of {doomed.sum()}",
        "final return (IQM)": tables.written(tables.average_of(pgjax.analysis.final_return(results).values)["iqm"]),
        "steps a run": f"{float(results.steps.sum('iteration').mean()):.2g}",
    }


def draw(runs: Mapping[str, xr.Dataset], horizons: Mapping[str, int], path: Path) -> None:
    """Draw return, entropy and gradient of those that are stuck and of the others: medians, and the middle 90%."""
    figure = Figure(figsize=(11, 3 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), len(QUANTITIES), squeeze=False)
    for row, (env, results) in zip(axes, runs.items(), strict=True):
        stuck = stuck_in(results, horizons[env])
        for axis, (name, label) in zip(row, QUANTITIES.items(), strict=True):
            dress(axis, env, "update", label)
            for (group, colour), which in zip(GROUPS.items(), (stuck, ~stuck), strict=True):
                if not which.any():
                    continue
                low, middle, high = np.quantile(results[name].values[which], (0.05, 0.5, 0.95), axis=0)
                axis.fill_between(results.iteration, low, high, color=colour, alpha=0.2, linewidth=0)
                axis.plot(results.iteration, middle, color=colour, label=f"{group} ({which.sum()})")
            if name == "gradient_norm":
                axis.set_yscale("symlog", linthresh=1e-4)
        row[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Run, then write, draw and print what was found."""
    launch.check_counts({"seeds": options.seeds, "other runs": options.rescued, "iterations": options.iterations})
    if unknown := sorted(set(options.env) - set(LEARNING_RATES)):
        raise pgjax.InputError(f"expected tasks among {', '.join(LEARNING_RATES)}, got {', '.join(unknown)}")
    ours = {f"{env}-{i}" for env in options.env for i in range(7)} | {"summary.json", "stuck.png"}
    launch.check_directory_of_study(options.out, ours)
    runs: dict[str, xr.Dataset] = {}
    horizons, summary = {}, {}
    for env in options.env:
        horizons[env] = names.environment_named(env).horizon
        found = {}
        for number, (name, settings) in enumerate(settings_for(env).items()):
            print(f"{env}, {name}", flush=True)
            results = ran(options, env, number, settings)
            runs.setdefault(env, results)
            found[name] = rescue(results, horizons[env], stuck_in(runs[env], horizons[env]))
        summary[env] = {"siblings": found_in(runs[env], horizons[env]), "settings": found}
    launch.leave_to_the_first_process()
    made = {key: results.attrs[key] for key in ("device", "created", "git_revision")}
    tables.write_json(options.out / "summary.json", made | {"tasks": summary})
    draw(runs, horizons, options.out / "stuck.png")
    for env, each in summary.items():
        print(f"\n{env}: " + ", ".join(f"{key} {tables.written(x, '.3g')}" for key, x in each["siblings"].items()))
        print(pd.DataFrame(each["settings"]).T.to_string())


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
