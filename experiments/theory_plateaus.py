"""How long does a policy gradient stay near a corner of the simplex? Escape times, exact and sampled, on bandits.

Mei et al. (2020) bound the time of exact softmax gradient ascent by the least probability of the best arm on the way,
and show that entropy makes the last part faster. Here a policy begins near a wrong arm, and the best has probability p.
With two arms the time, η times the updates, is about 1 / (2 δ p), δ the difference of what they pay; with a third,
worse arm it grows like 1 / p². Entropy, a gate (Mei & Osband, 2026) and the natural gradient stand beside it.

Writes rows.json, summary.json and plateaus.png into the directory --out, and prints a table. The same command again
goes on where it was stopped. With the defaults it takes about two minutes on two cores.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import pgjax
from common import launch
from common.bandits import chosen, directions, of_uniforms, time_of_flow
from common.remembering import Row, Rows, report
from common.tables import median_of, written, written_median
from pgjax.analysis import Reached
from pgjax.analysis.plotting import COLOURS, STYLES, dress


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
    """A policy [K] near its second arm, where the best has p and a third one a tenth."""
    return np.array([p, 1 - p] if K == 2 else [p, 1 - p - 0.1, 0.1])


def flowed(method: str, means: Any, p: float, tau: float) -> float | None:
    """The time at which gradient flow, dθ/dt = ∇ρ, gives the best arm half of the probability; None if not."""

    def velocity(theta: jax.Array) -> jax.Array:
        f = jax.nn.softmax(theta)
        return f * weights(method, f, jnp.array(means), tau) @ directions(f, method == "natural")

    return time_of_flow(jax.jit(velocity), np.log(started(p, len(means))))


def play(key: jax.Array, begin: jax.Array, weigh: Any, eta: Any, steps: int) -> Reached:
    """When a run's best arm has half of the probability, in plays."""

    def one(carry: Any, u: jax.Array) -> Any:
        theta, arrived, t = carry
        f = jax.nn.softmax(theta)
        arrived = jnp.where((f[0] >= 0.5) & (arrived < 0), t, arrived)
        return theta + eta * jnp.where(chosen(f, u), weigh(f), 0) @ directions(f), arrived, t + 1

    arrived = of_uniforms(one, (jnp.log(begin), jnp.int32(-1), jnp.int32(0)), key, steps, BLOCK)[0][1]
    return Reached(jnp.where(arrived < 0, steps, arrived), arrived >= 0)


def escaped(options: Options, problem: str, method: str) -> dict[str, Any]:
    """A row: exact times by p, their slope, and medians of sampled runs (none of the natural gradient)."""
    means, keys = PROBLEMS[problem], pgjax.run_keys(options.study, launch.seeds_of(options))
    times = [flowed(method, means, p, options.entropy) for p in options.probability]
    with jax.enable_x64(True):
        weigh = partial(weights, method, means=jnp.array(means), tau=options.entropy)
        run = jax.jit(jax.vmap(lambda key, f: play(key, f, weigh, options.learning_rate, options.steps), (0, None)))
        halves = {p: run(keys, started(p, len(means))) for p in options.sampled if method != "natural"}
    known = np.log([(p, t) for p, t in zip(options.probability, times, strict=True) if t is not None])
    ((by_p, by_t),) = np.diff(known[-2:], axis=0)
    medians = [{"p": p, **median_of(half, options.learning_rate)} for p, half in halves.items()]
    return {"times": times, "slope": float(-by_t / by_p), "sampled": medians}


def line_of(options: Options, row: Row) -> Row:
    """What the table says of a row."""
    exact = {f"p = {p:g}": written(t, ".3g") for p, t in zip(options.probability, row["times"], strict=True)}
    sampled = {f"sampled, p = {point['p']:g}": written_median(point, ".3g") for point in row["sampled"]}
    return {**exact, "slope": written(row["slope"], ".3g"), **sampled}


def draw(options: Options, rows: Rows) -> Figure:
    """Escape times over 1/p: lines are exact, points medians of sampled runs with 95% intervals."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for axes, problem in zip(figure.subplots(1, len(PROBLEMS), sharey=True), PROBLEMS, strict=True):
        dress(axes, f"{problem}, which pay {', '.join(map('{:g}'.format, PROBLEMS[problem]))}", "1 / p", "η · updates")
        axes.set(xscale="log", yscale="log")
        for method, colour, style in zip(METHODS, COLOURS, ("-", *STYLES, (0, (6, 1))), strict=False):
            times = np.array(rows[f"{problem}, {method}"]["times"], float)  # None is NaN
            axes.plot(1 / np.array(options.probability), times, color=colour, linestyle=style, label=method)
            for point in rows[f"{problem}, {method}"]["sampled"]:
                if point["interval"] is not None:
                    ends = np.abs(np.array(point["interval"]) - point["median"])[:, None]
                    axes.errorbar(1 / point["p"], point["median"], ends, fmt="o", color=colour, markersize=4, capsize=3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle("Time until the best arm has half of the probability")
    return figure


def main(options: Options) -> None:
    """Compute and sample, then write, draw and print."""
    launch.check_counts({"seeds": options.seeds})
    launch.check_multiple("steps", options.steps, BLOCK)
    launch.check_positive({"an entropy weight": options.entropy, "a learning rate": options.learning_rate})
    firsts = options.probability + options.sampled
    if len(set(options.probability)) < 2 or not all(0 < p < 0.5 for p in firsts):
        raise pgjax.InputError(f"expected two or more probabilities between 0 and 0.5, got {firsts}")
    points = [(problem, method) for problem in PROBLEMS for method in METHODS]
    rows = {f"{problem}, {method}": partial(escaped, options, problem, method) for problem, method in points}
    asked = ("probability", "sampled", "entropy", "learning_rate", "steps")
    report(options, asked, rows, draw, line_of, "plateaus.png")


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
