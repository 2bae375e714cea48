"""Does the variance of its estimates say how a policy gradient fares? Baselines of equal variance on a bandit.

Chung et al. (2021) find baselines of equal variance that lead elsewhere, and prove that with some, natural gradients
end at a wrong arm for any step size. Mei et al. (2022) prove that with the state's value they do not, though their
variance is unbounded. Here a bandit of three arms is learned by softmax and by natural gradients, with the baseline b*
of least variance, with b* − d and b* + d, of equal variance wherever the policy is, with the policy's value, and with
none. Beside the share of thousands of runs that end wrong stand two numbers that are not sampled: the variance at the
start, and the probability that all plays are of one wrong arm.

Writes rows.json, summary.json and baselines_beyond_variance.png into the directory --out, and prints a table. The same
command again goes on where it was stopped. With the defaults it takes a few minutes.
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

import pgjax
from common import launch, tables
from common.bandits import chosen, directions
from common.remembering import remembered
from pgjax.analysis import proportion_interval
from pgjax.analysis.plotting import COLOURS


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is played."""

    distance: float = 0.5
    """Distance d from the baseline of least variance."""
    softmax_rate: tuple[float, ...] = (0.5,)
    """Learning rates η of softmax gradients; the last is drawn."""
    natural_rate: tuple[float, ...] = (0.02, 0.5, 0.1)
    """Learning rates η of natural gradients; the last is drawn."""
    steps: int = 10_000
    """Plays of a run, a multiple of 20."""
    seeds: int = 10_000
    """Runs of everything."""
    out: Path = Path("results/baselines_beyond_variance")


BLOCK = 20  # plays between two looks at a run
PATHS = 40  # runs that are drawn
MEANS = (1.0, 0.7, 0.0)  # of the arms, the best first
GRADIENTS = ("softmax", "natural")
BASELINES = ("b* − d", "b*", "b* + d", "value", "none")


def baseline(name: str, f: jax.Array, means: jax.Array, natural: bool, d: Any) -> jax.Array:
    """The baseline of this name under the policy f, []; that of least variance is Σ f w r / Σ f w, w = |direction|²."""
    if name in ("value", "none"):
        return jnp.sum(f * means) * (name == "value")
    weight = 1 / jnp.maximum(f, 1e-100) if natural else f * jnp.sum(directions(f, natural) ** 2, 1)
    return jnp.sum(weight * means) / jnp.sum(weight) + d * ((name == "b* + d") - 1.0 * (name == "b* − d"))


def variance(f: jax.Array, means: jax.Array, b: jax.Array, natural: bool) -> jax.Array:
    """Variance of the estimate of one play, summed over the parameters, []; exact."""
    terms = (means - b)[:, None] * directions(f, natural)
    return jnp.sum(f * jnp.sum(terms**2, 1)) - jnp.sum((f @ terms) ** 2)


def moved(theta: jax.Array, played: jax.Array, name: str, means: jax.Array, natural: bool, eta: Any, d: Any) -> Any:
    """θ [K] after a play of the arm for which `played` [K] is true."""
    f = jax.nn.softmax(theta)
    advantage = means - baseline(name, f, means, natural, d)
    return theta + eta * jnp.sum(jnp.where(played, advantage, 0)) * jnp.where(played, 1.0, 0.0) @ directions(f, natural)


def play(key: jax.Array, move: Callable[[jax.Array, jax.Array], jax.Array], K: int, steps: int) -> jax.Array:
    """The policy after every 20 plays of a run that begins with all arms alike, [steps / 20, K]."""

    def one(theta: jax.Array, u: jax.Array) -> tuple[jax.Array, None]:
        return move(theta, chosen(jax.nn.softmax(theta), u)), None

    def block(theta: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        theta, _ = jax.lax.scan(one, theta, jax.random.uniform(key, (BLOCK,), theta.dtype))
        return theta, jax.nn.softmax(theta)

    return jax.lax.scan(block, jnp.zeros(K), jax.random.split(key, steps // BLOCK))[1]


def alone(move: Callable[[jax.Array, jax.Array], jax.Array], K: int, steps: int) -> jax.Array:
    """Pr(all plays are of one arm) for each arm, [K]; exact."""

    def one(carry: Any, _: None) -> tuple[Any, None]:
        theta, log_probability = carry  # [K, K], a row for each arm that is played; [K]
        log_probability = log_probability + jnp.diag(jax.nn.log_softmax(theta))
        return (jax.vmap(move)(theta, jnp.eye(K, dtype=bool)), log_probability), None

    return jnp.exp(jax.lax.scan(one, (jnp.zeros((K, K)), jnp.zeros(K)), length=steps)[0][1])


def explored(options: Options, gradient: str, eta: float, name: str) -> dict[str, Any]:
    """A row: how a gradient fares with a baseline, in numbers of 64 bits."""
    natural, K = gradient == "natural", len(MEANS)
    with jax.enable_x64(True):
        means, d, start = jnp.array(MEANS), options.distance, jnp.full(K, 1 / K)
        keys = pgjax.run_keys(options.study, launch.seeds_of(options))
        move = functools.partial(moved, name=name, means=means, natural=natural, eta=eta, d=d)
        f = np.asarray(jax.jit(jax.vmap(lambda key: play(key, move, K, options.steps)))(keys))
        never = np.asarray(jax.jit(lambda: alone(move, K, options.steps))())[1:]
        spread = variance(start, means, baseline(name, start, means, natural, d), natural)
    early, wrong = (int((f[:, i, 0] < 0.5).sum()) for i in (len(f[0]) // 100 - 1, -1))
    return {
        "variance": float(spread),
        "wrong": wrong / len(f),
        "wrong_interval": proportion_interval(wrong, len(f)),
        "wrong_early": early / len(f),
        "early_interval": proportion_interval(early, len(f)),
        "settled_wrong": float((f[:, -1, 1:].max(-1) > 0.999).mean()),
        "alone": float(never.sum()),
        "value": float((f[:, -1] @ np.array(MEANS)).mean()),
        "paths": np.concatenate([np.full((PATHS, 1, K), 1 / K), f[:PATHS]], 1).round(4).tolist(),
    }


def name_of(gradient: str, eta: float, name: str) -> str:
    """What a row is called."""
    return f"{gradient}, η {eta:g}, {name}"


def draw(rows: Mapping[str, Mapping[str, Any]], options: Options, path: Path) -> None:
    """Draw the first runs on the simplex, whose corners are arms, in a panel for each gradient and baseline."""
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    corners = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
    for line, gradient in zip(figure.subplots(len(GRADIENTS), 4, squeeze=False), GRADIENTS, strict=True):
        eta = (options.natural_rate if gradient == "natural" else options.softmax_rate)[-1]
        for axes, name in zip(line, BASELINES, strict=False):
            row = rows[name_of(gradient, eta, name)]
            axes.plot(*corners[[0, 1, 2, 0]].T, color="0.6", linewidth=0.8)
            for run in sorted(np.array(row["paths"]), key=lambda run: -run[-1, 0]):  # wrong ones on top
                right = run[-1, 0] >= 0.5
                axes.plot(
                    *(run @ corners).T, color=COLOURS[0] if right else COLOURS[3], linewidth=0.8 if right else 1.6
                )
                axes.plot(*(run[-1] @ corners), "o" if right else "X", color=COLOURS[0] if right else COLOURS[3])
            axes.set_title(f"{gradient}, {name}\n{100 * row['wrong']:.1f}% end wrong", fontsize="medium")
            for corner, pays, below in zip(corners, MEANS, (False, True, True), strict=True):
                shift = {"xytext": (0, -12 if below else 6), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"pays {pays:g}", corner, **shift, fontsize="small", color="0.3")
            axes.set(aspect="equal", xlim=(-0.15, 1.15), ylim=(-0.17, 1.0))
            axes.set_axis_off()
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Play, then write, draw and print."""
    launch.check_counts({"seeds": options.seeds, "steps": options.steps})
    rates = {"softmax": options.softmax_rate, "natural": options.natural_rate}
    if not options.distance > 0 or min(map(min, rates.values())) <= 0:
        raise pgjax.InputError(f"expected a distance and learning rates above 0, got {options.distance} and {rates}")
    if options.steps % (100 * BLOCK):
        raise pgjax.InputError(f"expected steps to be a multiple of {100 * BLOCK}, got {options.steps}")
    if options.seeds < PATHS:
        raise pgjax.InputError(f"expected {PATHS} or more seeds, which are drawn, got {options.seeds}")
    launch.check_directory_of_study(options.out, {"rows.json", "summary.json", "baselines_beyond_variance.png"})
    asked = {name: getattr(options, name) for name in ("distance", "steps", "seeds", "first_seed", "study")}
    points = [(gradient, eta, name) for gradient in GRADIENTS for eta in sorted(rates[gradient]) for name in BASELINES]
    wanted = {name_of(*point): functools.partial(explored, options, *point) for point in points}
    rows = remembered(options.out / "rows.json", asked, wanted)
    numbers = {name: {what: row[what] for what in row if what != "paths"} for name, row in rows.items()}
    tables.write_json(options.out / "summary.json", {"options": asked, "rows": numbers})
    draw(rows, options, options.out / "baselines_beyond_variance.png")
    lines = []
    for name, row in rows.items():
        line = {"": name, "variance": tables.written(row["variance"], ".3g")}
        line[f"wrong after {options.steps // 100}"] = tables.written(row["wrong_early"])
        line["95%"] = tables.written_interval(row["early_interval"])
        line["wrong at the end"] = tables.written(row["wrong"])
        line["95% interval"] = tables.written_interval(row["wrong_interval"])
        line["settled there"] = tables.written(row["settled_wrong"])
        line["one wrong arm alone"] = tables.written(row["alone"], ".2g")
        lines.append(line)
    print(pd.DataFrame(lines).to_string(index=False))


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
