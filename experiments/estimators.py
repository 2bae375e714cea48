"""Estimators of the policy gradient: which are right, how noisy each is, and what less noise buys.

Three parts. *Trust*: every estimator is sampled many times on a random decision problem and its mean held to the exact
gradient; so are some that are broken on purpose. *Variance*: on the maze, the exact bias and variance of each estimator
on one episode, without sampling. *Learning*: curves over seeds, on CartPole and the maze, each method at the step size
that served it best on other seeds.

Writes a directory of results for each task and method, summary.json, variance.png and learning.png into the directory
--out, and prints tables. The same command again goes on where it was stopped. With the defaults it takes about an hour
on two cores.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import pgjax
from common import launch, tables
from common.choosing import with_best_rate
from pgjax import exact
from pgjax.analysis.plotting import ESTIMATOR_COLOURS, add_legend, compare_learning_curves, dress, on_paper
from pgjax.devices import use_every_core
from pgjax.environments.drawings import COLOURS
from pgjax.estimators.baselines import Baseline
from pgjax.estimators.returns import Credit
from pgjax.exact.verification import Verdict, broken, largest_z_by_chance, unbiased, verify


@dataclass(frozen=True)
class Options(launch.Runs):
    """How much is sampled and run."""

    samples: int = 262144
    """Updates of two episode slots that each estimator is sampled for in each setting; a multiple of 8192."""
    seeds: int = 256
    """Runs of each method in the learning curves."""
    first_seed: int = 1000
    choosing_seeds: int = 32
    """Other runs, numbered from 0, that a learning rate is chosen on."""
    learning_rate: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """Learning rates η to choose from."""
    env: tuple[Literal["CartPole-v1", "maze"], ...] = ("CartPole-v1", "maze")
    """Environments where learning is compared."""
    cartpole_iterations: int = 50
    """Updates of a run on CartPole-v1."""
    maze_iterations: int = 100
    """Updates of a run on the maze."""
    slots: int = 16
    """Episode slots of an update."""
    batch: int | None = None
    """Runs computed together; by default as many as memory and cache allow."""
    out: Path = Path("results/estimators")


# --- Trust ------------------------------------------------------------------------------------------------------------

HORIZON = 8
DISCOUNT, TRACE_DECAY = 0.8, 0.7


def random_problem(seed: int = 0, S: int = 5, A: int = 3) -> tuple[pgjax.FiniteMDP, jax.Array]:
    """A problem in which everything happens by chance (start, moves, rewards, ends), and logits [S, A]."""
    rng = np.random.default_rng(seed)
    d0 = np.append(rng.dirichlet(np.ones(S - 1)), 0)
    mdp = pgjax.environments.tables(
        d0, rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A, S)), np.arange(S) == S - 1
    )
    return mdp, jnp.asarray(rng.normal(size=(S, A)), float)


class Trust(NamedTuple):
    """What sampling said, by setting and estimator."""

    unbiased: dict[str, Verdict]
    broken: dict[str, Verdict]


def settings() -> Iterator[tuple[str, float, int]]:
    """Yield (name, discount, steps): with and without discount, one episode a slot and packed slots."""
    for discount in (1.0, DISCOUNT):
        for steps in (0, 12):
            yield f"γ = {discount:g}, {'packed' if steps else 'one episode a slot'}", discount, steps


def hold_to_the_exact_gradient(samples: int, seed: int = 0) -> Trust:
    """Sample all estimators in all settings; the names in the result are "estimator (setting)"."""
    mdp, theta = random_problem()
    policy = pgjax.tabular(*theta.shape)
    right: dict[str, Verdict] = {}
    wrong: dict[str, Verdict] = {}
    for number, (setting, discount, steps) in enumerate(settings()):
        solution = exact.solve(mdp, HORIZON, exact.probabilities(mdp, policy, theta), discount)
        good, bad = unbiased(solution, discount), broken(solution, discount, steps)
        verdicts = verify(
            mdp, HORIZON, policy, theta, good | bad, steps=steps, samples=samples, seed=seed + number,
            discount=discount, trace_decay=TRACE_DECAY, baseline_decay=0.5,
        )  # fmt: skip
        right |= {f"{name} ({setting})": verdicts[name] for name in good}
        wrong |= {f"{name} ({setting})": verdicts[name] for name in bad}
    return Trust(right, wrong)


# --- Variance ---------------------------------------------------------------------------------------------------------

MAZE_HORIZON = 100  # the maze's horizon
UPDATE = 16  # episodes that share a leave-one-out baseline, and over which the mean squared error is that of the mean
ON_THE_WAY = {"at the start": -np.inf, "half-way": -50.0, "nearly there": -16.0}  # name: a return just passed


def policies_on_the_way(mdp: pgjax.FiniteMDP) -> dict[str, jax.Array]:
    """Logits [S, A] met by climbing the exact gradient from the uniform policy, in steps of length 0.2."""
    policy = pgjax.tabular(*mdp.p.shape[:2])

    @jax.jit
    def look(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        rho = exact.expected_return(mdp, MAZE_HORIZON, exact.probabilities(mdp, policy, theta))
        ascent = exact.gradient(mdp, MAZE_HORIZON, policy, theta)
        return rho, theta + 0.2 * ascent / jnp.linalg.norm(ascent)

    theta, found = jnp.zeros(mdp.p.shape[:2]), {}
    for name, wanted in ON_THE_WAY.items():
        rho, following = look(theta)
        while rho < wanted:
            theta = following
            rho, following = look(theta)
        found[name] = theta
    return found


# v_t and Q_t are exact; v̄ and Q̄ are their means over the times at which a state is visited: the best that a critic can
# learn that does not know t. "Put back" is what a baseline that depends on the action takes away.
ESTIMATORS: dict[str, Callable[[Any, jax.Array, exact.Solution], exact.Estimator]] = {
    "G_1": lambda mdp, f, of: exact.whole_episode_estimator(mdp, MAZE_HORIZON),
    "G_1 − ρ": lambda mdp, f, of: exact.whole_episode_estimator(mdp, MAZE_HORIZON, 1.0, of.rho),
    "G_1 − v̄(X_t)": lambda mdp, f, of: exact.whole_episode_estimator(mdp, MAZE_HORIZON, 1.0, of.mean_values),
    "G_1 − v_t(X_t)": lambda mdp, f, of: exact.whole_episode_estimator(mdp, MAZE_HORIZON, 1.0, of.values),
    "G_t": lambda mdp, f, of: exact.reward_to_go_estimator(mdp, MAZE_HORIZON),
    "G_t − ρ": lambda mdp, f, of: exact.reward_to_go_estimator(mdp, MAZE_HORIZON, 1.0, of.rho),
    "G_t − v̄(X_t)": lambda mdp, f, of: exact.reward_to_go_estimator(mdp, MAZE_HORIZON, 1.0, of.mean_values),
    "G_t − v_t(X_t)": lambda mdp, f, of: exact.reward_to_go_estimator(mdp, MAZE_HORIZON, 1.0, of.values),
    "G_t − Q̄ control variate": lambda mdp, f, of: exact.action_value_estimator(
        mdp, MAZE_HORIZON, f, 1.0, of.mean_action_values
    ),
    "G_t − Q_t control variate": lambda mdp, f, of: exact.action_value_estimator(
        mdp, MAZE_HORIZON, f, 1.0, of.action_values
    ),
    "G_t^0.95 − v̄(X_t)": lambda mdp, f, of: exact.lambda_return_estimator(mdp, MAZE_HORIZON, 1.0, 0.95, of.mean_values),
    "G_t^0.95 − v_t(X_t)": lambda mdp, f, of: exact.lambda_return_estimator(mdp, MAZE_HORIZON, 1.0, 0.95, of.values),
    "G_t^0 − v̄(X_t)": lambda mdp, f, of: exact.lambda_return_estimator(mdp, MAZE_HORIZON, 1.0, 0.0, of.mean_values),
    "G_t^0 − v_t(X_t)": lambda mdp, f, of: exact.lambda_return_estimator(mdp, MAZE_HORIZON, 1.0, 0.0, of.values),
    "expected policy gradient, Q̄": lambda mdp, f, of: exact.expected_policy_gradient_estimator(
        mdp, MAZE_HORIZON, f, 1.0, of.mean_action_values
    ),
    "expected policy gradient, Q_t": lambda mdp, f, of: exact.expected_policy_gradient_estimator(
        mdp, MAZE_HORIZON, f, 1.0, of.action_values
    ),
}
LEAVE_ONE_OUT = {  # in an update of 16 episodes, and counted per episode; name: the estimator it stands after
    "G_1 − leave-one-out mean": ("G_1 − ρ", exact.leave_one_out_covariance),
    "G_t − leave-one-out mean per step": ("G_t − ρ", exact.leave_one_out_by_time_covariance),
}


class Noise(NamedTuple):
    """Exact properties of an estimator on one episode."""

    variance: jax.Array  # [], trace of the covariance
    bias: jax.Array  # [], length of expectation − ∇ρ(θ)


def noise_of_each(mdp: pgjax.FiniteMDP, theta: jax.Array) -> tuple[jax.Array, jax.Array, dict[str, Noise]]:
    """ρ(θ), the length of ∇ρ(θ), and the exact noise of every estimator on one episode."""
    policy = pgjax.tabular(*theta.shape)
    f = exact.probabilities(mdp, policy, theta)
    solution = exact.solve(mdp, MAZE_HORIZON, f)
    gradient = exact.gradient(mdp, MAZE_HORIZON, policy, theta).reshape(-1)
    noise = {name: noise_of(mdp, theta, gradient, make(mdp, f, solution)) for name, make in ESTIMATORS.items()}
    for name, (_, covariance) in LEAVE_ONE_OUT.items():
        noise[name] = Noise(UPDATE * jnp.trace(covariance(mdp, MAZE_HORIZON, policy, theta, UPDATE)), jnp.zeros(()))
    return solution.rho, jnp.linalg.norm(gradient), noise


def names_in_order() -> list[str]:
    """The names of all estimators, from the lecture's first to those with a critic."""
    names = list(ESTIMATORS)
    for name, (before, _) in LEAVE_ONE_OUT.items():
        names.insert(names.index(before) + 1, name)
    return names


def noise_of(mdp: pgjax.FiniteMDP, theta: jax.Array, gradient: jax.Array, estimator: exact.Estimator) -> Noise:
    """The exact noise of one estimator on one episode of the maze."""
    mean, covariance = exact.mean_and_covariance(mdp, MAZE_HORIZON, pgjax.tabular(*theta.shape), theta, estimator)
    return Noise(jnp.trace(covariance), jnp.linalg.norm(mean - gradient))


def noise_by_trace_decay(mdp: pgjax.FiniteMDP, theta: jax.Array, decays: jax.Array) -> Noise:
    """The exact noise of G_t^λ − v̄(X_t) for each λ, [λ]: a critic that errs, because it does not know t."""
    policy = pgjax.tabular(*theta.shape)
    v_bar = exact.solve(mdp, MAZE_HORIZON, exact.probabilities(mdp, policy, theta)).mean_values
    gradient = exact.gradient(mdp, MAZE_HORIZON, policy, theta).reshape(-1)

    def one(decay: jax.Array) -> Noise:
        estimator = exact.lambda_return_estimator(mdp, MAZE_HORIZON, 1.0, decay, v_bar)
        return noise_of(mdp, theta, gradient, estimator)

    return jax.lax.map(one, decays)


def study_variance() -> dict[str, Any]:
    """The exact noise of every estimator at each policy on the way, as plain numbers."""
    mdp = pgjax.environments.maze_tables()
    decays = np.linspace(0, 1, 21)
    found: dict[str, Any] = {}
    for name, theta in policies_on_the_way(mdp).items():
        rho, length, noise = jax.jit(noise_of_each)(mdp, theta)
        by_decay = jax.jit(noise_by_trace_decay)(mdp, theta, jnp.asarray(decays, float))
        found[name] = {
            "rho": float(rho),
            "gradient_norm": float(length),
            "variance": {name: float(noise[name].variance) for name in names_in_order()},
            "bias": {name: float(noise[name].bias) for name in names_in_order()},
            "trace_decay": decays.tolist(),
            "variance_by_trace_decay": np.asarray(by_decay.variance).tolist(),
            "bias_by_trace_decay": np.asarray(by_decay.bias).tolist(),
        }
    return found


# --- Learning ---------------------------------------------------------------------------------------------------------


METHODS = 8


class Task(NamedTuple):
    """Where methods are compared."""

    environment: pgjax.Environment
    iterations: int
    discount: float
    value_learning_rate: float
    goal: float  # mean return of an update from which a run is said to be there


def methods(environment: pgjax.Environment) -> dict[str, tuple[Credit, Baseline]]:
    """The methods whose learning is compared."""
    whole, to_go, lambda_return = pgjax.whole_episode(), pgjax.reward_to_go(), pgjax.lambda_return()
    v, Q = pgjax.value_for(environment), pgjax.policies.action_value_for(environment)
    return {
        "G_1": (whole, pgjax.no_baseline()),
        "G_1 − ρ̂": (whole, pgjax.running_average()),
        "G_t": (to_go, pgjax.no_baseline()),
        "G_t − leave-one-out mean per step": (to_go, pgjax.estimators.leave_one_out_by_time()),
        "G_t − v(X_t), learned": (to_go, pgjax.learned_value(v)),
        "actor-critic: G_t^0.95 − v(X_t)": (lambda_return, pgjax.learned_value(v)),
        "expected policy gradient, learned Q": (lambda_return, pgjax.estimators.expected_policy_gradient(Q)),
        "G_t − Q control variate, learned": (to_go, pgjax.learned_action_value(Q)),
    }


def speed(results: xr.Dataset, goal: float) -> dict[str, Any]:
    """How fast runs got to the goal and where they ended.

    Returns:
        reached: fraction of runs whose update's mean return came to the goal, and its 95% interval; steps_to_goal: the
        median over runs of the real environment steps until then, None if less than half came; final: interquartile
        mean of the final return, and its 95% interval; failed: runs with numbers that are not finite (they never
        reach).
    """
    curves = results.load()
    there = ((curves.episode_return >= goal) & ~pgjax.analysis.failed(curves)).transpose("seed", "iteration").values
    steps = np.cumsum(curves.steps.transpose("seed", "iteration").values, axis=1, dtype=float)
    needed = np.where(there.any(1), steps[np.arange(len(steps)), there.argmax(1)], np.inf)
    average = tables.average_of_finite(pgjax.analysis.final_return(curves).values)
    median = float(np.median(needed))
    return {
        "reached": float(there.any(1).mean()),
        "reached_interval": list(pgjax.analysis.proportion_interval(int(there.any(1).sum()), len(there))),
        "steps_to_goal": median if np.isfinite(median) else None,
        "final": average["iqm"],
        "final_interval": average["interval"],
        "failed": int(pgjax.analysis.failed(curves).sum()),
    }


def place(task: str, position: int) -> str:
    """The name of the directory for the runs of a method."""
    return f"{task.removesuffix('-v1').lower()}-{position + 1}"


def whole_run(results: xr.Dataset) -> xr.DataArray:
    """The mean return of each run."""
    return results.episode_return.mean("iteration", skipna=False)


def study_learning(options: Options) -> tuple[dict[str, Any], dict[str, dict[str, xr.Dataset]]]:
    """Return, by task and method, the numbers and the curves."""
    # As in the exact part, the maze's horizon is the end.
    maze = pgjax.finite(pgjax.environments.maze_tables(), MAZE_HORIZON, "maze")
    cartpole = pgjax.from_gymnax("CartPole-v1")
    tasks = {
        "CartPole-v1": Task(cartpole, options.cartpole_iterations, discount=0.99, value_learning_rate=1e-2, goal=475.0),
        "maze": Task(maze, options.maze_iterations, discount=1.0, value_learning_rate=1e-1, goal=-20.0),
    }
    numbers: dict[str, Any] = {}
    curves: dict[str, dict[str, xr.Dataset]] = {}
    for task_name in options.env:
        task = tasks[task_name]
        numbers[task_name], curves[task_name] = {}, {}
        for position, (name, (credit, baseline)) in enumerate(methods(task.environment).items()):
            policy = pgjax.policy_for(task.environment)
            algorithm = pgjax.reinforce(task.environment, policy, slots=options.slots, credit=credit, baseline=baseline)
            directory = options.out / place(task_name, position)
            runs = partial(
                pgjax.sweep,
                algorithm,
                iterations=task.iterations,
                study=options.study,
                configuration={"task": task_name, "method": name, "slots": options.slots},
                batch=options.batch,
            )
            fixed = {"discount": task.discount, "value_learning_rate": task.value_learning_rate}
            seeds = range(options.choosing_seeds), launch.seeds_of(options)
            # By the mean return of a whole run: how fast it gets there. (experiments/scores.py asks where runs end.)
            chosen, results = with_best_rate(runs, algorithm, options.learning_rate, whole_run, seeds, directory, fixed)
            numbers[task_name][name] = {
                "learning_rate": chosen,
                **speed(results, task.goal),
                "environment_steps": int(results.steps.sum()),
                "seconds": float(results.seconds.sum()),
            }
            curves[task_name][name] = results
    return numbers, curves


# --- What it looks like -----------------------------------------------------------------------------------------------


def draw_noise(axes: Axes, variance: dict[str, Any]) -> None:
    """Draw, for every estimator, how many episodes make the noise of their mean as short as the gradient is long."""
    names = list(next(iter(variance.values()))["variance"])
    rows = np.arange(len(names))[::-1]
    for colour, marker, (name, found) in zip(COLOURS, "os^", variance.items(), strict=False):
        needed = np.array([found["variance"][estimator] for estimator in names]) / found["gradient_norm"] ** 2
        biased = np.array([found["bias"][estimator] for estimator in names]) > 1e-3 * found["gradient_norm"]
        label = f"{name}: ρ = {found['rho']:.0f}"
        axes.scatter(needed[~biased], rows[~biased], color=colour, marker=marker, s=34, label=label, zorder=3)
        axes.scatter(needed[biased], rows[biased], edgecolor=colour, facecolor="none", marker=marker, s=34)
    axes.scatter([], [], edgecolor="0.3", facecolor="none", label="hollow: biased")
    axes.set_xscale("log")
    axes.set_yticks(rows, [on_paper(name) for name in names])
    xlabel = "episodes until the mean's noise is as long as ∇ρ(θ): variance / ‖∇ρ(θ)‖²"
    dress(axes, "Maze: exact noise of one episode's estimate, at three policies", xlabel)
    add_legend(axes, "lower right")


def draw_trust(axes: Axes, trust: Trust) -> None:
    """Draw |z| of every component of the unbiased estimators, and what gives the broken ones away."""
    every = [np.sort(verdict.z[verdict.z != 0]) for verdict in trust.unbiased.values()]
    z = np.abs(np.concatenate(every))
    axes.scatter(z, np.linspace(0.1, 0.9, len(z)), s=4, color=COLOURS[0], alpha=0.5)
    worst: dict[str, float] = {}
    for name, verdict in trust.broken.items():
        kind = name.split(" (")[0]
        worst[kind] = min(worst.get(kind, np.inf), verdict.max_abs_z)
    for row, (_, value) in enumerate(worst.items()):
        axes.scatter(value, -1 - row, color=COLOURS[3], marker="x", zorder=3)
    axes.axvline(largest_z_by_chance(len(z)), color="0.3", linewidth=1, linestyle="--")
    where = (largest_z_by_chance(len(z)) * 1.15, 0.5)
    axes.annotate("chance exceeds this\nin at most 1 of\n100 studies", where, fontsize="small", va="center")
    axes.set_yticks(
        [0.5, *(-1 - np.arange(len(worst)))], [f"{len(every)} unbiased\n(in 4 settings)", *map(on_paper, worst)]
    )
    axes.set(xscale="log", xlim=(1e-2, None))
    dress(axes, "Random problem: is the mean ∇ρ(θ)?", "|z|: distance of the mean from ∇ρ(θ), in standard errors")


def draw_trade(axes: Axes, found: dict[str, Any], name: str) -> None:
    """Draw bias and variance of a critic that errs, against λ."""
    decays, squared = np.array(found["trace_decay"]), found["gradient_norm"] ** 2
    bias = np.array(found["bias_by_trace_decay"]) ** 2 / squared
    variance = np.array(found["variance_by_trace_decay"]) / UPDATE / squared
    axes.plot(decays[:-1], bias[:-1], color=COLOURS[3], label="bias²")  # at λ = 1 there is none
    axes.plot(decays, variance, color=COLOURS[0], label=f"variance of the mean of {UPDATE}")
    axes.plot(decays, bias + variance, color="k", linewidth=2, label="their sum, the mean squared error")
    axes.set_yscale("log")
    dress(axes, f"Maze, {name}: {on_paper('G_t^λ − v̄(X_t)')}", "λ", "in units of ‖∇ρ(θ)‖²")
    add_legend(axes)


def draw_variance(trust: Trust, variance: dict[str, Any], path: Path) -> None:
    """Draw the first two parts of the study, and save them as PNG."""
    figure = Figure(figsize=(9.2, 9), layout="constrained")
    panels: dict[str, Axes] = figure.subplot_mosaic([["noise", "noise"], ["trust", "trade"]], height_ratios=[1.35, 1])
    draw_noise(panels["noise"], variance)
    draw_trust(panels["trust"], trust)
    draw_trade(panels["trade"], variance["at the start"], "at the start")
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Do the three parts, then write and print what they found."""
    check(options)
    numbers, curves = study_learning(options)
    trust = hold_to_the_exact_gradient(options.samples)
    variance = study_variance()
    launch.leave_to_the_first_process()
    components = sum(verdict.components for verdict in trust.unbiased.values())
    summary = {
        "unbiased_max_abs_z": max(verdict.max_abs_z for verdict in trust.unbiased.values()),
        "broken_min_abs_z": min(verdict.max_abs_z for verdict in trust.broken.values()),
        "components": components,
        "allowed_abs_z": largest_z_by_chance(components),
        "episodes": min(verdict.episodes for verdict in trust.unbiased.values()),
        "variance": variance["at the start"]["variance"],
        "unbiased": {name: verdict.max_abs_z for name, verdict in trust.unbiased.items()},
        "broken": {name: verdict.max_abs_z for name, verdict in trust.broken.items()},
        "noise": variance,
        "learning": numbers,
    }
    tables.write_json(options.out / "summary.json", summary)
    draw_variance(trust, variance, options.out / "variance.png")
    panels = {f"{task}: {options.seeds} seeds a curve": found for task, found in curves.items()}
    compare_learning_curves(panels, options.out / "learning.png", colours=ESTIMATOR_COLOURS)
    report(summary)


def check(options: Options) -> None:
    """Raise unless the options can be used, before anything is computed."""
    sweeps = {place(task, number) for task in ("CartPole-v1", "maze") for number in range(METHODS)}
    launch.check_directory_of_study(options.out, sweeps | {"summary.json", "variance.png", "learning.png"})
    counts = ("samples", "seeds", "choosing_seeds", "cartpole_iterations", "maze_iterations")
    launch.check_counts({name.replace("_", " "): getattr(options, name) for name in counts})
    if options.slots < 2:
        raise pgjax.InputError(f"expected 2 or more slots for a leave-one-out baseline, got {options.slots}")
    if not options.env or len(set(options.env)) != len(options.env):
        raise pgjax.InputError(f"expected every task once, got {options.env}")
    if options.samples % 8192:
        raise pgjax.InputError(f"expected a multiple of 8192 as samples, got {options.samples}")
    if options.first_seed < options.choosing_seeds:
        raise pgjax.InputError(
            f"expected the reported seeds to begin after the {options.choosing_seeds} that learning rates are chosen "
            f"on, got {options.first_seed} as the first"
        )


def report(summary: dict[str, Any]) -> None:
    """Print the tables."""
    print(
        f"unbiased estimators: largest |z| {summary['unbiased_max_abs_z']:.2f} over {summary['components']} "
        f"components, {summary['allowed_abs_z']:.2f} allowed; {summary['episodes']} episodes or more each\n"
        f"broken estimators: smallest of their largest |z| {summary['broken_min_abs_z']:.1f}\n"
    )
    rows = []
    for name in summary["variance"]:
        row: dict[str, Any] = {"estimator": name}
        for where, found in summary["noise"].items():
            needed = found["variance"][name] / found["gradient_norm"] ** 2
            row[f"{where} (ρ = {found['rho']:.0f})"] = f"{needed:.0f}" if needed >= 100 else f"{needed:.3g}"
        biases = [found["bias"][name] / found["gradient_norm"] for found in summary["noise"].values()]
        row["bias / ‖∇ρ‖"] = ", ".join(f"{bias:.0%}" for bias in biases) if max(biases) > 1e-3 else "-"
        rows.append(row)
    print("maze: episodes until the noise of their mean is as long as the gradient, variance / ‖∇ρ‖²")
    print(pd.DataFrame(rows).to_string(index=False))
    for task, found in summary["learning"].items():
        print(f"\n{task}")
        lines = [
            {
                "method": name,
                "learning rate": f"{row['learning_rate']:g}",
                "reached": f"{row['reached']:.1%}",
                "steps to goal (median)": tables.written(row["steps_to_goal"], ".3g"),
                "final return (IQM)": tables.written(row["final"]),
                "95% interval": tables.written_interval(row["final_interval"]),
                "failed": row["failed"],
            }
            for name, row in found.items()
        ]
        print(pd.DataFrame(lines).to_string(index=False))


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
