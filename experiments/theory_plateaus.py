"""How long does a policy gradient stay near a corner of the simplex? Escape times, exact and sampled, on bandits.

Mei et al. (2020) bound the time of exact softmax gradient ascent by the least probability that the best arm has on the
way, and show that entropy makes the last part faster. Near a corner both are slow: the gradient is as small as that
probability p. Here a policy begins at an arm that is not the best, and the best has p. With two arms the time is about
1 / (2 δ p), δ the difference of what they pay; with a third, worse arm the gradient first makes the best arm less
probable, and the time grows like 1 / p². Entropy, a gate (Mei & Osband, 2026) and the natural gradient stand beside it.

Exact times are of gradient flow, dθ/dt = ∇ρ, which ascent with a small η follows: t is η times the updates. Writes
rows.json, summary.json and plateaus.png into the directory --out, and prints a table. The same command again goes on
where it was stopped. With the defaults it takes about two minutes on two cores.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp

import pgjax
from common import launch, tables
from common.bandits import chosen, directions
from common.remembering import remembered
from pgjax.analysis import Reached, median_steps
from pgjax.analysis.plotting import COLOURS, STYLES, dress
from pgjax.analysis.statistics import plain_interval


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is escaped from."""

    probability: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    """First probabilities p of the best arm, from which exact times are computed."""
    sampled: tuple[float, ...] = (1e-1, 3e-2, 1e-2)
    """The same, from which runs are sampled."""
    entropy: float = 0.1
    """Weight of the entropy."""
    learning_rate: float = 0.1
    """Learning rate η of sampled runs, of one play an update."""
    steps: int = 200_000
    """Plays of a sampled run at most, a multiple of 500."""
    seeds: int = 1000
    """Sampled runs of everything."""
    out: Path = Path("results/plateaus")


BLOCK = 500  # plays whose randomness is drawn at once
LATEST = 1e18  # flow is not followed beyond
WORSE = 0.1  # first probability of the third arm
PROBLEMS = {"2 arms": (1.0, 0.7), "3 arms": (1.0, 0.7, 0.0)}  # what arms pay; a policy begins near the second
METHODS = ("softmax", "entropy", "gate", "sharp gate", "natural")


def weights(method: str, f: jax.Array, means: jax.Array, tau: Any) -> jax.Array:
    """What each arm's direction is weighted with, [K]: its advantage A, or A by a gate.

    With entropy an arm pays τ ln 1/f more. The gate is the sigmoid of A ln 1/f; the sharp one is 1 where A > 0, else 0.
    """
    surprise = -jnp.log(f)
    pays = means + tau * surprise if method == "entropy" else means
    advantage = pays - f @ pays
    if method == "gate":
        return advantage * jax.nn.sigmoid(advantage * surprise)
    return jnp.maximum(advantage, 0) if method == "sharp gate" else advantage


def started(p: float, K: int) -> np.ndarray:
    """A policy [K] near its second arm, where the best has p and a third one `WORSE`."""
    return np.array([p, 1 - p] if K == 2 else [p, 1 - p - WORSE, WORSE])


def flowed(method: str, means: Any, p: float, tau: float) -> float | None:
    """The time at which gradient flow gives the best arm half of the probability; None if not by `LATEST`."""

    @jax.jit
    def velocity(theta: jax.Array) -> jax.Array:
        f = jax.nn.softmax(theta)
        return f * weights(method, f, jnp.array(means), tau) @ directions(f, method == "natural")

    def behind(t: float, theta: np.ndarray) -> float:
        return theta[0] - np.logaddexp.reduce(theta[1:])  # 0 where the probability is a half

    behind.terminal = True  # type: ignore[attr-defined]
    with jax.enable_x64(True):
        begin = np.log(started(p, len(means)))
        tight = {"method": "LSODA", "rtol": 1e-8, "atol": 1e-9}
        flow = solve_ivp(lambda t, theta: np.asarray(velocity(theta)), (0, LATEST), begin, events=behind, **tight)
    return float(flow.t_events[0][0]) if len(flow.t_events[0]) else None


def play(key: jax.Array, begin: jax.Array, weigh: Callable[[jax.Array], jax.Array], eta: Any, steps: int) -> jax.Array:
    """Plays of a run until the best arm has half of the probability, −1 if it never has."""

    def one(carry: Any, u: jax.Array) -> tuple[Any, None]:
        theta, arrived, t = carry
        f = jax.nn.softmax(theta)
        arrived = jnp.where((f[0] >= 0.5) & (arrived < 0), t, arrived)
        return (theta + eta * jnp.where(chosen(f, u), weigh(f), 0) @ directions(f), arrived, t + 1), None

    def block(carry: Any, key: jax.Array) -> tuple[Any, None]:
        return jax.lax.scan(one, carry, jax.random.uniform(key, (BLOCK,), begin.dtype))

    state = (jnp.log(begin), jnp.int32(-1), jnp.int32(0))
    return jax.lax.scan(block, state, jax.random.split(key, steps // BLOCK))[0][1]


def escaped(options: Options, problem: str, method: str) -> dict[str, Any]:
    """A row: exact times by p, their slope, and medians of sampled runs (none of the natural gradient)."""
    means = PROBLEMS[problem]
    times = [flowed(method, means, p, options.entropy) for p in options.probability]
    medians = []
    with jax.enable_x64(True):
        weigh = functools.partial(weights, method, means=jnp.array(means), tau=options.entropy)
        run = jax.jit(jax.vmap(lambda key, f: play(key, f, weigh, options.learning_rate, options.steps), (0, None)))
        for p in options.sampled if method != "natural" else ():
            arrived = np.asarray(run(pgjax.run_keys(options.study, launch.seeds_of(options)), started(p, len(means))))
            half = median_steps(Reached(np.where(arrived < 0, options.steps, arrived), arrived >= 0))
            found = [options.learning_rate * float(x) if np.isfinite(x) else None for x in half]
            medians.append({"p": p, "median": found[0], "interval": plain_interval(found[1:]) if all(found) else None})
    known = [(p, t) for p, t in zip(options.probability, times, strict=True) if t is not None]
    slope = np.diff(np.log([t for _, t in known[-2:]]))[0] / -np.diff(np.log([p for p, _ in known[-2:]]))[0]
    return {"times": times, "slope": float(slope), "sampled": medians}


def draw(rows: Mapping[str, Mapping[str, Any]], options: Options, path: Path) -> None:
    """Draw escape times over 1/p: lines are exact, points medians of sampled runs with 95% intervals."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for axes, problem in zip(figure.subplots(1, len(PROBLEMS), sharey=True), PROBLEMS, strict=True):
        dress(axes, f"{problem}, which pay {', '.join(map('{:g}'.format, PROBLEMS[problem]))}", "1 / p", "η · updates")
        axes.set(xscale="log", yscale="log")
        for method, colour, style in zip(METHODS, COLOURS, ("-", *STYLES, (0, (6, 1))), strict=False):
            row = rows[f"{problem}, {method}"]
            times = np.array([np.nan if t is None else t for t in row["times"]])
            axes.plot(1 / np.array(options.probability), times, color=colour, linestyle=style, label=method)
            for point in row["sampled"]:
                if point["interval"] is not None:
                    ends = np.abs(np.array(point["interval"]) - point["median"])[:, None]
                    axes.errorbar(1 / point["p"], point["median"], ends, fmt="o", color=colour, markersize=4, capsize=3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle("Time until the best arm has half of the probability")
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Compute and sample, then write, draw and print."""
    launch.check_counts({"seeds": options.seeds, "steps": options.steps})
    firsts = (*options.probability, *options.sampled)
    if len(set(options.probability)) < 2 or not all(0 < p < 0.5 for p in firsts):
        raise pgjax.InputError(f"expected two or more probabilities between 0 and 0.5, got {firsts}")
    if options.entropy <= 0 or options.learning_rate <= 0:
        raise pgjax.InputError("expected an entropy weight and a learning rate above 0, "
                               f"got {options.entropy} and {options.learning_rate}")  # fmt: skip
    if options.steps % BLOCK:
        raise pgjax.InputError(f"expected steps to be a multiple of {BLOCK}, got {options.steps}")
    launch.check_directory_of_study(options.out, {"rows.json", "summary.json", "plateaus.png"})
    asked = launch.configuration_of_options(options) | {"seeds": options.seeds, "first_seed": options.first_seed}
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    points = [(problem, method) for problem in PROBLEMS for method in METHODS]
    wanted = {
        f"{problem}, {method}": functools.partial(escaped, options, problem, method) for problem, method in points
    }
    rows = remembered(options.out / "rows.json", asked | {"study": options.study}, wanted)
    tables.write_json(options.out / "summary.json", {"options": asked, "rows": rows})
    draw(rows, options, options.out / "plateaus.png")
    lines = []
    for name, row in rows.items():
        line = {"": name}
        line |= {f"p = {p:g}": tables.written(t, ".3g") for p, t in zip(options.probability, row["times"], strict=True)}
        line["slope"] = tables.written(row["slope"], ".3g")
        for point in row["sampled"]:
            number = f"{tables.written(point['median'], '.3g')} {tables.written_interval(point['interval'])}"
            line[f"sampled, p = {point['p']:g}"] = number
        lines.append(line)
    print(pd.DataFrame(lines).fillna("-").to_string(index=False))


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
