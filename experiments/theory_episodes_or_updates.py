"""At a fixed number of environment steps: few updates of many episodes, or many of few? Predicted exactly, then tried.

The lecture samples several episodes for an update. McCandlish et al. (2018) say how many are worth it: an update of E
episodes at its best step size gains in proportion to E / (E + B), where B, the noise scale, is the variance of one
episode's gradient over the gradient's squared length; and B grows as learning goes on. On the lecture's maze both are
known without sampling. Runs of REINFORCE with plain ascent, each number of episodes with its own best learning rate
(chosen on other seeds), say whether that is what happens; so do runs on CartPole, of 100 steps at most, with a network.
Beside them a method gathers episodes until their mean gradient is longer than its standard error, and then updates.

Writes a directory of results for each number of episodes, summary.json and episodes_or_updates.png into the directory
--out, and prints tables; the same command goes on where it was stopped. With the defaults: seven minutes on two cores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure

import pgjax
from common import launch, tables
from common.choosing import with_best_rate
from common.noise_scale import along_ascent, until_seen
from pgjax.analysis import area_under_curve, confidence_interval, interquartile_mean, steps_to_return
from pgjax.analysis.plotting import COLOURS, STYLES, band, curve_points, dress, dress_curves
from pgjax.devices import use_every_core


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is compared."""

    env: tuple[Literal["maze", "CartPole-v1"], ...] = ("maze", "CartPole-v1")
    """Environments."""
    episodes: tuple[int, ...] = (2, 8, 32, 128, 512)
    """Episodes E of an update, at most five numbers."""
    learning_rate: tuple[float, ...] = ()
    """Learning rates η to choose from; by default some for each environment."""
    steps: int | None = None
    """Environment steps over which runs are compared; by default 30,000 on the maze and 20,000 on CartPole."""
    seeds: int = 512
    """Runs of everything."""
    choosing: int = 32
    """Other runs, from which the learning rate is chosen."""
    out: Path = Path("results/episodes_or_updates")


HORIZON = 100  # of an episode
ASCENT, LOOKS = 2000, 30  # steps of exact ascent, and how often one looks
LINES = tuple(zip((*COLOURS[:5], "k"), ("-", *STYLES, "-", "--"), strict=True))  # colours and styles


class Task(NamedTuple):
    """An environment, a policy, and what runs are asked for."""

    environment: pgjax.Environment
    policy: pgjax.Policy
    steps: int
    shortest: int  # steps of an episode, by which runs are made long enough
    levels: tuple[float, ...]  # returns to reach: early, in the middle, late
    learning_rates: Sequence[float]


def task_of(name: str, options: Options) -> Task:
    """The environment of this name with a small policy."""
    if name == "maze":
        policy = pgjax.tabular(*pgjax.environments.maze_tables().p.shape[:2])
        levels, rates = (-60.0, -30.0, -18.0), options.learning_rate or (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
        return Task(pgjax.maze(horizon=HORIZON), policy, options.steps or 30_000, 14, levels, rates)
    environment = pgjax.from_gymnax(name, max_steps_in_episode=HORIZON)
    policy = pgjax.mlp(environment.observation_space, environment.action_space, hidden=(16,))
    levels, rates = (40.0, 60.0, 80.0), options.learning_rate or (0.001, 0.003, 0.01, 0.03, 0.1)
    return Task(environment, policy, options.steps or 20_000, 15, levels, rates)


def tried(options: Options, env: str, name: str, E: int, optimizer: Any) -> tuple[xr.Dataset, dict[str, Any]]:
    """The runs of a number of episodes with its best learning rate, and what they reached."""
    task, seeds = task_of(env, options), launch.seeds_of(options)
    algorithm = pgjax.reinforce(task.environment, task.policy, slots=E, optimizer=optimizer)
    n, asked = max(2, -(-task.steps // (task.shortest * E))), {"environment": env, "method": name}
    runs = partial(pgjax.sweep, algorithm, iterations=n, study=options.study, configuration=asked, keep_params=False)
    judge, others = partial(area_under_curve, steps=task.steps), range(seeds.stop, seeds.stop + options.choosing)
    out = options.out / f"{env}, {name}"
    eta, results = with_best_rate(runs, algorithm, task.learning_rates, judge, (others, seeds), out)
    reached = {f"steps to {level:g}": tables.median_of(steps_to_return(results, level, 20)) for level in task.levels}
    return results.load(), {"learning_rate": eta, "mean return": tables.average_of(judge(results)), **reached}


def line_of(row: dict[str, Any]) -> dict[str, str]:
    """What the table says of runs."""
    return {
        "η": f"{row['learning_rate']:g}",
        "mean return": tables.written(row["mean return"]["iqm"]),
        "95% interval": tables.written_interval(row["mean return"]["interval"]),
        **{what: tables.written_median(row[what]) for what in row if what.startswith("steps")},
    }


def draw(options: Options, predicted: dict[str, Any], outcomes: Mapping[Any, dict[str, Any]]) -> Figure:
    """The predicted use of an episode over the return on the way, and learning curves with 95% intervals."""
    figure = Figure(figsize=(4.6 * (1 + len(outcomes)), 4.4), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(outcomes))
    dress(left, "Predicted exactly: maze", "return on the way", f"use of an episode (E = {options.episodes[0]} is 1)")
    for use, (colour, style) in zip(predicted["use"], LINES, strict=False):
        left.plot(predicted["returns"], use, linestyle=style, color=colour, linewidth=1.8)
    for axes, (env, found) in zip(others, outcomes.items(), strict=True):
        dress_curves(axes, f"Tried: {env}", "environment steps of a run", "episode return")
        for (name, (results, _)), (colour, style) in zip(found.items(), LINES, strict=False):
            steps, returns = curve_points(results, "episode_return")
            band(axes, steps, interquartile_mean(returns), confidence_interval(returns), colour, name, style)
        axes.set_xlim(0, task_of(env, options).steps)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def main(options: Options) -> None:
    """Predict and try, then write, draw and print."""
    launch.check_counts({name: getattr(options, name) for name in ("seeds", "choosing", "steps")})
    launch.check_positive({"learning rates": options.learning_rate})
    if not 1 <= len(options.episodes) <= 5 or min(options.episodes) < 2:
        raise pgjax.InputError(f"expected one to five numbers of 2 or more episodes, got {options.episodes}")
    methods = {f"E = {E}": (E, optax.sgd) for E in options.episodes} | {"gathered until seen": (2, until_seen)}
    ours = {f"{env}, {name}" for env in options.env for name in methods}
    launch.check_directory_of_study(options.out, ours | {"summary.json", "episodes_or_updates.png"})
    mdp = pgjax.environments.maze_tables()
    looks = np.unique(np.geomspace(1, ASCENT + 1, LOOKS).round().astype(int)) - 1  # steps of the ascent
    predicted = along_ascent(mdp, HORIZON, pgjax.tabular(*mdp.p.shape[:2]), options.episodes, 0.01, looks.tolist())
    outcomes = {env: {name: tried(options, env, name, *how) for name, how in methods.items()} for env in options.env}
    rows = {env: {name: row for name, (_, row) in those.items()} for env, those in outcomes.items()}
    launch.leave_to_the_first_process()
    tables.write_json(options.out / "summary.json", {"predicted": predicted, "tried": rows})
    draw(options, predicted, outcomes).savefig(options.out / "episodes_or_updates.png", dpi=150)
    lines = zip(predicted["returns"], predicted["noise_scale"], *predicted["use"], strict=True)
    heads = ("return", "noise scale", *methods)
    print("predicted use of an episode")
    tables.print_lines([dict(zip(heads, map(tables.written, line), strict=False)) for line in lines][::3])
    for env, those in rows.items():
        tables.print_lines([{env: name, **line_of(row)} for name, row in those.items()])


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
