"""Which settings suit a method, and which method is better at its best? Chosen on some seeds, and judged on others.

Points of a space, of Sobol's sequence or random, are tried on a few seeds; on each further rung the better half is left
and has twice the seeds; the winner runs on fresh ones. Give a hyper-parameter one value, or two to choose between.
Several methods are tuned alike, each with the same budget, and then compared by the fresh runs of their winners, in
pairs of the same seed and after equally many environment steps.

Writes a directory of results for each rung and for the fresh runs, tuning.json (space, budget, every score, winner,
sensitivity) and learning_curves.png (the winner's) into the directory --out, for several methods into a directory of
each, and prints tables. The same command again goes on where it was stopped. With the defaults it takes about four
minutes on two cores.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

import pgjax
from common import launch, names, tables
from pgjax.analysis.statistics import common_steps, final_return, shown
from pgjax.devices import use_every_core
from pgjax.sweeps.designs import random_points, sobol_points
from pgjax.sweeps.tuning import RECORD, Tuning, record_of, schedule


@dataclass(frozen=True)
class Options(names.Parts):
    """What is tuned; a hyper-parameter with two values is chosen between them."""

    method: tuple[names.MethodName, ...] = ("reinforce",)
    """Methods; all but reinforce choose the credit, the baseline and the objective themselves."""
    budget: int | tuple[float, Literal["minutes"]] = 16
    """Points that are tried with each method, or the minutes that its runs may take, such as --budget 10 minutes."""
    rungs: int = 3
    """Rungs of successive halving; 1 to choose without."""
    choosing_seeds: int = 8
    """Runs of each point on the first rung."""
    seeds: int = 64
    """Fresh runs of the winner; they are numbered after all that it is chosen on."""
    first_seed: int = 0
    """Number of the first run to choose on."""
    design: Literal["sobol", "random"] = "sobol"
    """How the points lie in the space."""
    score: Literal["final-return", "area-under-curve"] = "final-return"
    """What a run is judged by: where it ends, over its last 100 episodes, or how soon it gets there too."""
    iterations: int = 60
    """Updates of a run."""
    learning_rate: tuple[float, ...] = (1e-4, 1e-1)
    """Learning rates η, on a logarithmic scale."""
    value_learning_rate: tuple[float, ...] = (1e-2,)
    """Learning rates η of a learned baseline, on a logarithmic scale."""
    entropy_coefficient: tuple[float, ...] | None = None
    """Weights of the entropy in the objective, on a logarithmic scale if they are above 0; by default the method's."""
    discount: tuple[float, ...] | None = None
    """Discounts γ, on a linear scale; by default the method's."""
    baseline_decay: tuple[float, ...] = (0.9,)
    """Decays β of the running average, and of the scale of a learned baseline, on a linear scale."""
    trace_decay: tuple[float, ...] | None = None
    """Trace decays λ of the λ-return, on a linear scale; by default the method's."""
    study: int = 0
    """Number of the study; runs of two studies have no randomness in common, and their points differ."""
    batch: int | None = None
    """Runs computed together; by default as many as memory and cache allow."""
    out: Path = Path("results/tune")
    """Directory to write into: a new one, or one that the same study has written."""


DESIGNS = {"sobol": sobol_points, "random": random_points}
SCORES: dict[str, Callable[[xr.Dataset], xr.DataArray]] = {
    "final-return": pgjax.analysis.final_return,
    "area-under-curve": pgjax.analysis.area_under_curve,
}
LOGARITHMIC = ("learning_rate", "value_learning_rate", "entropy_coefficient")
NOT_OF_RUNS = ("method", "budget", "rungs", "choosing_seeds", "design", "score")
FIGURE, PILOT = "learning_curves.png", "pilot"
HYPERPARAMETERS = (*LOGARITHMIC, "discount", "baseline_decay", "trace_decay")


def space_of(options: Options) -> tuple[dict[str, pgjax.sweeps.Range], dict[str, float]]:
    """The ranges of the hyper-parameters with two values, and the values of the others.

    Raises:
        InputError: If one has more values, or none has two.
    """
    space, fixed = {}, {}
    for name in HYPERPARAMETERS:
        values, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if values is None:
            continue
        if len(values) == 1:
            fixed[name] = values[0]
        elif len(values) == 2:
            low, high = values
            space[name] = pgjax.sweeps.Range(low, high, log=name in LOGARITHMIC and min(values) > 0)
        else:
            raise pgjax.InputError(f"expected one value of {option}, or a lowest and a highest, got {len(values)}")
    if not space:
        raise pgjax.InputError("expected a lowest and a highest value of one or more hyper-parameters, got none")
    return space, fixed


def table_of(record: Mapping[str, Any], space: Collection[str], score: str) -> pd.DataFrame:
    """A line for each point, with as many runs as it had, the best first."""
    trials = sorted(record["trials"], key=lambda trial: (-len(trial["scores"]), -(trial["iqm"] or 0)))
    lines = []
    for trial in trials:
        line = {name: shown(trial[name]) for name in space}
        line["runs"] = str(len(trial["scores"]))
        line["failed"] = str(sum(score is None for score in trial["scores"]))
        lines.append(line | {f"{score} (IQM)": tables.written(trial["iqm"])})
    return pd.DataFrame(lines)


def print_findings(tuning: Tuning, score: str) -> None:
    """Print every point, how much each hyper-parameter matters, and the winner."""
    record, space = record_of(tuning), tuning.space
    print(table_of(record, space, score).to_string(index=False))
    print(f"\nbest {score} (IQM) on the first rung, by third of each range:")
    thirds = ("lowest", "middle", "highest")
    lines = [
        {"": name} | {third: tables.written(best) for third, best in zip(thirds, found, strict=True)}
        for name, found in tuning.sensitivity.items()
    ]
    print(pd.DataFrame(lines).to_string(index=False))
    winner = record["winner"]
    settings = ", ".join(f"{name} {shown(winner[name])}" for name in space)
    print(f"\nwinner: {settings}; {score} (IQM) {tables.written(winner['chosen_by'])} where it was chosen")
    print(
        f"on fresh seeds {winner['seeds'][0]} to {winner['seeds'][1]}: {tables.written(winner['iqm'])}, 95% interval "
        f"{tables.written_interval(winner['interval'])}, {len(winner['failed_seeds'])} failed"
    )


def total_runs(options: Options, points: int) -> int:
    """How many runs so many points come to, with the fresh ones."""
    plan = schedule(points, options.choosing_seeds, options.rungs)
    return sum(count * len(seeds) for count, seeds in plan) + options.seeds


def affordable(options: Options, seconds_each: float) -> int:
    """The most points whose runs, at so many seconds each, take no more than the minutes of the budget.

    Raises:
        InputError: If these are less than two.
    """
    assert isinstance(options.budget, tuple)
    minutes, points = options.budget[0], 1
    while total_runs(options, points + 1) * seconds_each <= 60 * minutes:
        points += 1
    if points < 2:
        least = total_runs(options, 2) * seconds_each / 60
        raise pgjax.InputError(f"expected {least:.2g} minutes or more for two points and the fresh runs, got {minutes}")
    return points


def tuned(options: Options, method: names.MethodName, out: Path) -> Tuning:
    """A method tuned into a directory, from the middle of the space on if runs have to be timed first."""
    space, fixed = space_of(options)
    algorithm = names.method_named(method, names.environment_named(options.env, options.frames), options)
    left_out = {
        *NOT_OF_RUNS,
        *HYPERPARAMETERS,
        *(set(names.OF_REINFORCE + names.OF_METHODS) - set(names.parts_used(method))),
    }
    shared: dict[str, Any] = {
        "iterations": options.iterations,
        "study": options.study,
        "configuration": {"method": method, **launch.configuration_of_options(options, left_out)},
        "batch": options.batch,
    }
    points = options.budget
    if isinstance(points, tuple):
        middle = {name: float(numbers.at(np.asarray(0.5))) for name, numbers in space.items()}
        seeds = range(options.first_seed, options.first_seed + options.choosing_seeds)
        numbers = algorithm.hyperparameters(**fixed, **middle)
        pilot = pgjax.sweep(algorithm, seeds=seeds, hyperparameters=numbers, out=out / PILOT, **shared)
        points = affordable(options, float(pilot.seconds.mean()))
    runs = " + ".join(f"{n} x {len(new)}" for n, new in schedule(points, options.choosing_seeds, options.rungs))
    total = total_runs(options, points) - options.seeds
    print(f"{method}: {runs} = {total} runs to choose on, and {options.seeds} fresh ones", flush=True)
    return pgjax.tune(
        algorithm,
        space,
        points=points,
        seeds=options.choosing_seeds,
        rungs=options.rungs,
        fresh_seeds=options.seeds,
        first_seed=options.first_seed,
        score=SCORES[options.score],
        design=DESIGNS[options.design],
        hyperparameters=algorithm.hyperparameters(**fixed),
        out=out,
        **shared,
    )


def print_comparison(found: Mapping[names.MethodName, Tuning]) -> None:
    """Print how the fresh runs of several methods' winners differ, after equally many environment steps."""
    fresh = [tuning.fresh for tuning in found.values()]
    steps, paired = common_steps(fresh), len({tuple(runs.seed.values) for runs in fresh}) == 1
    finals = {str(method): final_return(tuning.fresh, steps=steps) for method, tuning in found.items()}
    print(tables.comparison_table(finals, paired).to_string(index=False))
    print(f"Final returns are those within the first {steps:.3g} steps of each run", end="")
    print(", compared in pairs of the same seed." if paired else ".")


def main(options: Options) -> None:
    """Tune, then draw and print what was found."""
    if isinstance(options.budget, tuple) and not options.budget[0] > 0:
        raise pgjax.InputError(f"expected more than 0 minutes as --budget, got {options.budget[0]}")
    points = options.budget if isinstance(options.budget, int) else 2
    counts = {"points as --budget": points, "rungs": options.rungs, "seeds": options.seeds}
    launch.check_counts(counts | {"runs to choose on": options.choosing_seeds})
    if not options.method or len(set(options.method)) < len(options.method):
        raise pgjax.InputError(f"expected one or more different methods, got {' '.join(options.method) or 'none'}")
    names.check_parts(options, options.method)
    space_of(options)  # so that what is wrong with it is said before anything is computed
    several = len(options.method) > 1
    parts = [*(f"rung-{i}" for i in range(options.rungs)), "fresh", RECORD, FIGURE, PILOT]
    places = {method: options.out / method if several else options.out for method in options.method}
    if several:
        launch.check_directory_of_study(options.out, options.method)
    for place in places.values():
        launch.check_directory_of_study(place, parts)
    found = {method: tuned(options, method, place) for method, place in places.items()}
    launch.leave_to_the_first_process()
    for method, tuning in found.items():
        title = f"{method} on {options.env}, tuned: {options.seeds} fresh seeds"
        pgjax.learning_curves(tuning.fresh, places[method] / FIGURE, title)
        print(f"\n{method}\n" if several else "", end="")
        print_findings(tuning, options.score.replace("-", " "))
        print(f"{tuning.seconds:.1f} s of runs; written to {places[method]}")
    if several:
        print()
        print_comparison(found)


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
