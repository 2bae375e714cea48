"""At a fixed number of environment steps: few updates of many episodes, or many of few? Predicted exactly, then tried.

The lecture samples several episodes for an update. McCandlish et al. (2018) say how many are worth it: an update of E
episodes at its best step size gains in proportion to E / (E + B), where B, the noise scale, is the variance of one
episode's gradient over the gradient's squared length. So E well below B costs nothing, E = B half of all episodes; and
B grows as learning goes on. On the lecture's maze variance and gradient are known without sampling. Runs of REINFORCE
with a table and plain ascent, each number of episodes with its own best learning rate (chosen on other seeds), say
whether that is what happens; so do runs on CartPole, of 100 steps at most, with a network. Beside them a method gathers
episodes until their mean gradient is longer than its standard error, and updates only then.

Writes a directory of results for each number of episodes, summary.json and episodes_or_updates.png into the directory
--out, and prints tables. The same command again goes on where it was stopped. With the defaults it takes about
seven minutes on two cores.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import pgjax
from common import launch, tables
from pgjax import exact
from pgjax.analysis import area_under_curve, interquartile_mean, median_steps, steps_to_return
from pgjax.analysis.plotting import COLOURS, STYLES, band, curve_points, dress, dress_curves
from pgjax.analysis.statistics import confidence_interval, plain_interval
from pgjax.devices import use_every_core
from pgjax.trees import PyTree


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is compared."""

    env: tuple[Literal["maze", "CartPole-v1"], ...] = ("maze", "CartPole-v1")
    """Environments."""
    episodes: tuple[int, ...] = (2, 8, 32, 128, 512)
    """Episodes E of an update, at most six numbers."""
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
COLOURS_OF_RUNS = (*COLOURS[:5], "k")
GATHERED = 2  # episodes after which the method that gathers looks again


class Task(NamedTuple):
    """An environment, a policy, and what runs are asked for."""

    environment: pgjax.Environment
    policy: pgjax.Policy
    steps: int
    shortest: int  # steps of an episode, by which runs are made long enough
    levels: tuple[float, ...]  # returns to reach: early, in the middle, late
    learning_rates: tuple[float, ...]


def task_named(name: str) -> Task:
    """The environment of this name with a small policy."""
    if name == "maze":
        policy = pgjax.tabular(*pgjax.environments.maze_tables().p.shape[:2])
        rates = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
        return Task(pgjax.maze(horizon=HORIZON), policy, 30_000, 14, (-60.0, -30.0, -18.0), rates)
    environment = pgjax.from_gymnax(name, max_steps_in_episode=HORIZON)
    policy = pgjax.mlp(environment.observation_space, environment.action_space, hidden=(16,))
    return Task(environment, policy, 20_000, 15, (40.0, 60.0, 80.0), (0.001, 0.003, 0.01, 0.03, 0.1))


class Gathered(NamedTuple):
    """What has been gathered for an update."""

    total: PyTree  # sum of gradients
    square: jax.Array  # sum of their squared lengths
    number: jax.Array  # of gradients


def until_seen(learning_rate: Any) -> optax.GradientTransformation:
    """Plain ascent along the mean of gradients that are gathered until it is longer than its standard error.

    Source: after the norm test of Byrd, Chin, Nocedal & Wu, *Sample size selection in optimization methods for machine
    learning*, 2012.
    """

    def init(params: PyTree) -> Gathered:
        return Gathered(jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), jnp.zeros(()))

    def update(gradient: PyTree, state: Gathered, params: PyTree = None) -> tuple[PyTree, Gathered]:
        total = optax.tree.add(state.total, gradient)
        square, n = state.square + optax.tree.norm(gradient, squared=True), state.number + 1
        mean = optax.tree.scale(1 / n, total)
        length = optax.tree.norm(mean, squared=True)
        seen = (n > 1) & ((square / n - length) / jnp.maximum(n - 1, 1) <= length)
        going_on = jnp.where(seen, 0.0, 1.0)
        step = optax.tree.scale(jnp.where(seen, -learning_rate, 0.0), mean)
        return step, Gathered(optax.tree.scale(going_on, total), square * going_on, n * going_on)

    return optax.GradientTransformation(init, update)


def predicted(options: Options) -> dict[str, Any]:
    """Along exact gradient ascent: the return, and for each E how much of its episodes an update would make use of.

    That is |∇ρ|² / (|∇ρ|² + V_E), what an update gains of the most that one could, over E, relative to the least E.
    """
    mdp = pgjax.environments.maze_tables()
    policy = pgjax.tabular(*mdp.p.shape[:2])

    @jax.jit
    def look(theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        gradient = exact.gradient(mdp, HORIZON, policy, theta)
        spread = [
            jnp.trace(exact.leave_one_out_by_time_covariance(mdp, HORIZON, policy, theta, E)) for E in options.episodes
        ]
        rho = exact.expected_return(mdp, HORIZON, exact.probabilities(mdp, policy, theta))
        return rho, jnp.sum(gradient**2), jnp.stack(spread)

    ascend = jax.jit(lambda theta: theta + 0.01 * exact.gradient(mdp, HORIZON, policy, theta))
    theta, rows, count, E = policy.init(jax.random.key(0)), [], 0, np.array(options.episodes)
    for until in np.unique(np.geomspace(1, ASCENT + 1, LOOKS).round().astype(int)) - 1:
        for _ in range(until - count):
            theta = ascend(theta)
        count = until
        rho, signal, spread = (np.asarray(x, float) for x in look(theta))
        rows.append((rho, E[-1] * spread[-1] / signal, *signal / (signal + spread) / E))
    found = np.array(rows)
    return {"returns": found[:, 0].tolist(), "noise_scale": found[:, 1].tolist(),
            "use": (found[:, 2:] / found[:, 2:3]).T.tolist()}  # fmt: skip


def swept(E: int, gathering: bool, task: Task, steps: int, **options: Any) -> xr.Dataset:
    """The runs of a number of episodes; other options are those of `pgjax.sweep`."""
    optimizer = until_seen if gathering else optax.sgd
    algorithm = pgjax.reinforce(task.environment, task.policy, slots=E, optimizer=optimizer)
    return pgjax.sweep(
        algorithm,
        iterations=max(2, -(-steps // (task.shortest * E))),
        configuration={"environment": task.environment.name, "episodes": E, "gathering": gathering},
        keep_params=False,
        **options,
    ).load()


def tried(options: Options, env: str, E: int, gathering: bool) -> tuple[xr.Dataset, dict[str, Any]]:
    """The runs of a number of episodes with its best learning rate, and what they reached."""
    task, seeds, name = task_named(env), launch.seeds_of(options), f"{env}, {name_of(E, gathering)}"
    steps, rates = options.steps or task.steps, options.learning_rate or task.learning_rates
    others, eta = range(seeds.stop, seeds.stop + options.choosing), rates[0]
    run = functools.partial(swept, E, gathering, task, steps, study=options.study)
    if len(rates) > 1:
        choosing = run(seeds=others, grid={"learning_rate": rates}, out=options.out / f"{name}, choosing")
        scores = area_under_curve(choosing, steps).transpose("seed", "learning_rate").values
        eta = rates[int(np.nanargmax(interquartile_mean(scores)))]
    results = run(seeds=seeds, grid={"learning_rate": (eta,)}, out=options.out / name).isel(learning_rate=0)
    row = {"learning_rate": eta, "mean return": tables.average_of(area_under_curve(results, steps))}
    for level in task.levels:
        half = median_steps(steps_to_return(results, level, 20))
        median = float(half.value) if np.isfinite(half.value) else None
        row[f"steps to {level:g}"] = {"median": median, "interval": plain_interval((half.low, half.high))}
    return results, row


def name_of(E: int, gathering: bool) -> str:
    """What runs are called."""
    return "gathered until seen" if gathering else f"E = {E}"


def draw(found: Mapping[str, Any], runs: Mapping[str, Mapping[str, xr.Dataset]], options: Options, path: Path) -> None:
    """Draw the predicted use of an episode over the return on the way, and learning curves with 95% intervals."""
    figure = Figure(figsize=(4.6 * (1 + len(runs)), 4.4), layout="constrained")
    left, *others = figure.subplots(1, 1 + len(runs))
    dress(left, "Maze, predicted exactly", "return on the way", f"use of an episode (E = {options.episodes[0]} is 1)")
    styles = ("-", *STYLES, "-", "--")
    for E, use, colour, style in zip(options.episodes, found["use"], COLOURS, styles, strict=False):
        left.plot(found["returns"], use, linestyle=style, color=colour, linewidth=1.8, label=name_of(E, False))
    for axes, (env, curves) in zip(others, runs.items(), strict=True):
        dress_curves(
            axes, f"{env.capitalize() if env == 'maze' else env}, tried", "environment steps of a run", "episode return"
        )
        for (name, results), colour, style in zip(curves.items(), COLOURS_OF_RUNS, styles, strict=False):
            steps, returns = curve_points(results, "episode_return")
            band(axes, steps, interquartile_mean(returns), confidence_interval(returns), colour, name, style)
        axes.set_xlim(0, options.steps or task_named(env).steps)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Predict and try, then write, draw and print."""
    launch.check_counts({name: getattr(options, name) for name in ("seeds", "choosing", "steps")})
    if not 1 <= len(options.episodes) <= 5 or min(options.episodes) < 2 or min(options.learning_rate, default=1) <= 0:
        raise pgjax.InputError("expected one to five numbers of 2 or more episodes, and learning rates above 0, "
                               f"got {options.episodes} and {options.learning_rate}")  # fmt: skip
    pairs = [(E, False) for E in options.episodes] + [(GATHERED, True)]
    names = [f"{env}, {name_of(*pair)}" for env in options.env for pair in pairs]
    ours = {"summary.json", "episodes_or_updates.png", *names, *(f"{name}, choosing" for name in names)}
    launch.check_directory_of_study(options.out, ours)
    found = predicted(options)
    outcomes = {env: {name_of(*pair): tried(options, env, *pair) for pair in pairs} for env in options.env}
    launch.leave_to_the_first_process()
    rows = {env: {name: row for name, (_, row) in those.items()} for env, those in outcomes.items()}
    tables.write_json(options.out / "summary.json", {"predicted": found, "tried": rows})
    runs: dict[str, dict[str, xr.Dataset]] = {
        env: {name: results for name, (results, _) in those.items()} for env, those in outcomes.items()
    }
    draw(found, runs, options, options.out / "episodes_or_updates.png")
    heads = ("return", "noise scale", *(name_of(*pair) for pair in pairs))
    values = zip(found["returns"], found["noise_scale"], *found["use"], strict=True)
    lines = [dict(zip(heads, map(tables.written, line), strict=False)) for line in values]
    print("predicted use of an episode\n" + pd.DataFrame(lines[::3]).to_string(index=False))
    for env, those in rows.items():
        lines = []
        for name, row in those.items():
            line = {
                env: name,
                "η": f"{row['learning_rate']:g}",
                "mean return": tables.written(row["mean return"]["iqm"]),
            }
            line["95% interval"] = tables.written_interval(row["mean return"]["interval"])
            for level in (what for what in row if what.startswith("steps")):
                line[level] = (
                    tables.written(row[level]["median"]) + " " + tables.written_interval(row[level]["interval"])
                )
            lines.append(line)
        print(pd.DataFrame(lines).to_string(index=False))


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
