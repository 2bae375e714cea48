"""Does REINFORCE solve the task, and how surely? Thousands of runs over seeds and hyper-parameters.

With --method it is another of its family: actor-critic, PPO, GRPO and so on.

Writes results.zarr (the curves and the final parameters of every run), summary.json and learning_curves.png into the
directory --out, and prints a table. The same command again goes on where it was stopped. With the defaults it takes
about a minute on two cores.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

import pgjax
from common import launch, names, tables
from pgjax.devices import use_every_core


@dataclass(frozen=True)
class Options(names.Parts, launch.Runs):
    """What is run; several values of a hyper-parameter make a grid."""

    method: names.MethodName = "reinforce"
    """Method; all but reinforce choose the credit, the baseline and the objective themselves."""
    seeds: int = 256
    """Runs at each point of the grid."""
    iterations: int = 60
    """Updates of a run."""
    learning_rate: tuple[float, ...] = (1e-2,)
    """Learning rates η."""
    discount: tuple[float, ...] | None = None
    """Discounts γ; by default the method's, 1 for reinforce."""
    entropy_coefficient: tuple[float, ...] | None = None
    """Weights of the entropy in the objective; by default the method's, 0 for reinforce."""
    baseline_decay: tuple[float, ...] = (0.9,)
    """Decays β of the running average, and of the scale of a learned baseline."""
    trace_decay: tuple[float, ...] | None = None
    """Trace decays λ of the λ-return; by default the method's, 0.95 for reinforce."""
    value_learning_rate: tuple[float, ...] = (1e-2,)
    """Learning rates η of a learned baseline."""
    solved_at: float | None = None
    """Mean return over the last 100 episodes from which a run is solved; by default gymnasium's, if it has one."""
    batch: int | None = None
    """Runs computed together; by default as many as memory and cache allow."""
    block: int | None = None
    """Runs vmapped together on a device; by default 16 on a CPU (32 for asynchronous runs), all elsewhere."""
    run_devices: int = 1
    """Devices over which the slots of each run are split, for runs that are too large for one."""
    model_devices: int = 1
    """Devices of these over which its parameters are split, too."""
    checkpoint_seconds: float = 60.0
    """Seconds between two saves of the running batch; 0 to save after every tenth of it."""
    out: Path = Path("results/reinforce")
    """Directory to write into: a new one, or one with results of the same options."""


HYPERPARAMETERS = (
    "learning_rate",
    "discount",
    "entropy_coefficient",
    "baseline_decay",
    "trace_decay",
    "value_learning_rate",
)
# Options that results had no name for before there were they.
NEW = ("frames", "normalize_observations", "normalize_returns", "value_minibatches")
NUMBERS = {"discount": (1.0,), "entropy_coefficient": (0.0,), "trace_decay": (0.95,)}  # of reinforce


def main(options: Options) -> None:
    """Run the sweep, then write and print what it found."""
    launch.check_counts({"seeds": options.seeds})
    environment = names.environment_named(options.env, options.frames)
    names.check_parts(options, [options.method])
    algorithm = names.method_named(options.method, environment, options)
    if options.method == "reinforce":
        numbers: dict[str, Any] = {name: default for name, default in NUMBERS.items() if getattr(options, name) is None}
        options = replace(options, **numbers)
    given = {name: getattr(options, name) for name in HYPERPARAMETERS}
    grid = {name: values for name, values in given.items() if values is not None}
    varied = {name: values for name, values in grid.items() if len(values) != 1}
    fixed = {name: values[0] for name, values in grid.items() if name not in varied}
    not_computed = {"block", "run_devices", "model_devices", "checkpoint_seconds", "solved_at"}
    not_computed |= {name for name in NEW if getattr(options, name) == getattr(Options, name)}
    if options.method == "reinforce":  # whose results have the name that they had before there were others
        not_computed |= {"method", *names.OF_METHODS}
    results = pgjax.sweep(
        algorithm,
        iterations=options.iterations,
        seeds=launch.seeds_of(options),
        grid=varied,
        hyperparameters=algorithm.hyperparameters(**fixed),
        study=options.study,
        out=options.out,
        configuration=launch.configuration_of_options(options, not_computed),
        batch=options.batch,
        block=options.block,
        run_devices=options.run_devices,
        model_devices=options.model_devices,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    launch.leave_to_the_first_process()
    solved_at = names.SOLVED_AT.get(options.env) if options.solved_at is None else options.solved_at
    rows = pgjax.summarize(results, solved_at)
    best = max(rows, key=lambda row: (row["solved_fraction"] or 0, -len(row["failed_seeds"]), row["iqm"] or 0))
    summary = {
        "environment": options.env,
        "iterations": options.iterations,
        **best,
        "steps_per_second": best["environment_steps"] / best["seconds"],
        "solved_at": solved_at,
        "chosen_from": len(rows),
        "device": results.attrs["device"],
        "rows": rows,
    }
    tables.write_json(options.out / "summary.json", summary)
    title = f"{options.method.upper()} on {options.env}: {options.seeds} seeds"
    pgjax.learning_curves(results, options.out / "learning_curves.png", title)
    tables.print_table(rows)
    total = {name: sum(row[name] for row in rows) for name in ("environment_steps", "seconds")}
    together, each = (" of all processes together", " each") if jax.process_count() > 1 else ("", "")
    print(
        f"{total['environment_steps']:.3g} real environment steps in {total['seconds']:.1f} s{together}: "
        f"{total['environment_steps'] / total['seconds'] / 1e6:.2f} M steps/s{each}; written to {options.out}"
    )


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
