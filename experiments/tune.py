"""Which settings suit an environment? Chosen on some seeds, and judged on others.

Points of a space, of Sobol's sequence or random, are tried on a few seeds; on each further rung the better half is left
and has twice the seeds; the winner runs on fresh ones. Give a hyper-parameter one value, or two to choose between.

Writes a directory of results for each rung and for the fresh runs, tuning.json (space, budget, every score, winner,
sensitivity) and learning_curves.png (the winner's) into the directory --out, and prints tables. The same command again
goes on where it was stopped. With the defaults it takes about four minutes on two cores.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import xarray as xr

import pgjax
from common import launch, names, tables
from pgjax.analysis.statistics import shown
from pgjax.devices import use_every_core
from pgjax.sweeps.designs import random_points, sobol_points
from pgjax.sweeps.tuning import RECORD, Tuning, record_of, schedule


@dataclass(frozen=True)
class Options:
    """What is tuned; a hyper-parameter with two values is chosen between them."""

    env: str = "CartPole-v1"
    """Environment: one of gymnax, brax:NAME, or maze, partial-maze, t-maze, navigation, recommendation, cooling, …"""
    budget: int = 16
    """Points that are tried. The runs that this comes to are printed before the first."""
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
    slots: int = 16
    """Episode slots of an update."""
    min_steps_per_slot: int = 0
    """Steps until which a slot begins another episode; 0 for one episode a slot."""
    learning_rate: tuple[float, ...] = (1e-4, 1e-1)
    """Learning rates η, on a logarithmic scale."""
    value_learning_rate: tuple[float, ...] = (1e-2,)
    """Learning rates η of a learned baseline, on a logarithmic scale."""
    entropy_coefficient: tuple[float, ...] = (0.0,)
    """Weights of the entropy in the objective; on a logarithmic scale if they are above 0."""
    discount: tuple[float, ...] = (1.0,)
    """Discounts γ, on a linear scale."""
    baseline_decay: tuple[float, ...] = (0.9,)
    """Decays β of the running average, and of the scale of a learned baseline, on a linear scale."""
    trace_decay: tuple[float, ...] = (0.95,)
    """Trace decays λ of the λ-return, on a linear scale."""
    value_steps: int = 5
    """Gradient steps of a learned baseline in an update."""
    credit: names.CreditName = "reward-to-go"
    """What an action is judged by."""
    baseline: names.BaselineName = "leave-one-out-by-time"
    """What is subtracted from that; one that is learned is a table where states are few, else a network."""
    optimizer: names.OptimizerName = "adam"
    """How a step is made of the gradient; sgd is plain gradient ascent."""
    policy: names.PolicyName = "auto"
    """Kind of policy; auto chooses what fits the environment."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of a cnn those after its convolution; a recurrent network's last is its state."""
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
NOT_OF_RUNS = ("budget", "rungs", "choosing_seeds", "design", "score")
HYPERPARAMETERS = (*LOGARITHMIC, "discount", "baseline_decay", "trace_decay")


def space_of(options: Options) -> tuple[dict[str, pgjax.sweeps.Range], dict[str, float]]:
    """The ranges of the hyper-parameters with two values, and the values of the others.

    Raises:
        InputError: If one has more values, or none has two.
    """
    space, fixed = {}, {}
    for name in HYPERPARAMETERS:
        values, option = getattr(options, name), f"--{name.replace('_', '-')}"
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


def main(options: Options) -> None:
    """Tune, then draw and print what was found."""
    counts = {"points as --budget": options.budget, "rungs": options.rungs, "seeds": options.seeds}
    launch.check_counts(counts | {"runs to choose on": options.choosing_seeds})
    space, fixed = space_of(options)
    plan = schedule(options.budget, options.choosing_seeds, options.rungs)
    directories = [*(f"rung-{i}" for i in range(len(plan))), "fresh"]
    launch.check_directory_of_study(options.out, [*directories, RECORD, "learning_curves.png"])
    algorithm = names.reinforce_named(
        names.environment_named(options.env),
        policy=options.policy,
        hidden=options.hidden,
        credit=options.credit,
        baseline=options.baseline,
        slots=options.slots,
        min_steps_per_slot=options.min_steps_per_slot,
        value_steps=options.value_steps,
        optimizer=options.optimizer,
    )
    runs = " + ".join(f"{points} x {len(seeds)}" for points, seeds in plan)
    total = sum(points * len(seeds) for points, seeds in plan)
    print(f"{runs} = {total} runs to choose on, and {options.seeds} fresh ones", flush=True)
    tuning = pgjax.tune(
        algorithm,
        space,
        iterations=options.iterations,
        points=options.budget,
        seeds=options.choosing_seeds,
        rungs=options.rungs,
        fresh_seeds=options.seeds,
        first_seed=options.first_seed,
        score=SCORES[options.score],
        design=DESIGNS[options.design],
        hyperparameters=algorithm.hyperparameters(**fixed),
        study=options.study,
        out=options.out,
        configuration=launch.configuration_of_options(options, {*NOT_OF_RUNS, *HYPERPARAMETERS}),
        batch=options.batch,
    )
    launch.leave_to_the_first_process()
    title = f"{options.env}, tuned: {options.seeds} fresh seeds"
    pgjax.learning_curves(tuning.fresh, options.out / "learning_curves.png", title)
    print_findings(tuning, options.score.replace("-", " "))
    print(f"{tuning.seconds:.1f} s of runs; written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
