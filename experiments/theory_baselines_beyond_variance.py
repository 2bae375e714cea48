"""Does the variance of its estimates say how a policy gradient fares? Baselines of equal variance on a bandit.

Chung et al. (2021) find baselines of equal variance that lead elsewhere, and prove that with some, natural gradients
end at a wrong arm for any step size. Mei et al. (2022) prove that with the state's value they do not, though their
variance is unbounded. Here softmax and natural gradients learn a bandit of three arms, with the baseline b* of least
variance, b* − d and b* + d, whose variances are equal, the policy's value, and none. Exact numbers stand beside runs.

Writes rows.json, summary.json and baselines_beyond_variance.png into the directory --out, and prints a table. The same
command again goes on where it was stopped. With the defaults it takes two minutes.
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
from common.bandits import alone, chosen, directions, of_uniforms
from common.remembering import Row, Rows, report
from common.tables import share_of, written, written_interval
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
NAME = "{}, η {:g}, {}"  # of a row
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


def explored(options: Options, gradient: str, eta: float, name: str) -> dict[str, Any]:
    """A row: how a gradient fares with a baseline, in numbers of 64 bits."""
    natural, K = gradient == "natural", len(MEANS)
    with jax.enable_x64(True):
        means, d, start = jnp.array(MEANS), options.distance, jnp.full(K, 1 / K)
        keys = pgjax.run_keys(options.study, launch.seeds_of(options))
        move = partial(moved, name=name, means=means, natural=natural, eta=eta, d=d)

        def played(theta: jax.Array, u: jax.Array) -> jax.Array:
            return move(theta, chosen(jax.nn.softmax(theta), u))

        run = jax.vmap(lambda key: of_uniforms(played, jnp.zeros(K), key, options.steps, BLOCK, jax.nn.softmax)[1])
        f = np.asarray(jax.jit(run)(keys))  # [seeds, blocks, K]
        never = np.asarray(jax.jit(lambda: jnp.exp(alone(move, K, options.steps)[-1]))())[1:]
        spread = variance(start, means, baseline(name, start, means, natural, d), natural)
    return {
        "variance": float(spread),
        **share_of("wrong", f[:, -1, 0] < 0.5),
        **share_of("wrong_early", f[:, len(f[0]) // 100 - 1, 0] < 0.5),
        "settled_wrong": float((f[:, -1, 1:].max(-1) > 0.999).mean()),
        "alone": float(never.sum()),
        "value": float((f[:, -1] @ np.array(MEANS)).mean()),
        "paths": np.concatenate([np.full((PATHS, 1, K), 1 / K), f[:PATHS]], 1).round(4).tolist(),
    }


def line_of(options: Options, row: Row) -> Row:
    """What the table says of a row."""
    return {
        "variance": written(row["variance"], ".3g"),
        f"wrong after {options.steps // 100}": written(row["wrong_early"]),
        "95%": written_interval(row["wrong_early_interval"]),
        "wrong at the end": written(row["wrong"]),
        "95% interval": written_interval(row["wrong_interval"]),
        "settled there": written(row["settled_wrong"]),
        "one wrong arm alone": written(row["alone"], ".2g"),
    }


def draw(options: Options, rows: Rows) -> Figure:
    """The first runs on the simplex, whose corners are arms, in a panel for each gradient and baseline."""
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    corners = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
    for line, gradient in zip(figure.subplots(len(GRADIENTS), 4, squeeze=False), GRADIENTS, strict=True):
        eta = getattr(options, f"{gradient}_rate")[-1]
        for axes, name in zip(line, BASELINES, strict=False):
            row = rows[NAME.format(gradient, eta, name)]
            axes.plot(*corners[[0, 1, 2, 0]].T, color="0.6", linewidth=0.8)
            for run in sorted(np.array(row["paths"]), key=lambda run: -run[-1, 0]):  # wrong ones on top
                colour, width, end = (COLOURS[0], 0.8, "o") if run[-1, 0] >= 0.5 else (COLOURS[3], 1.6, "X")
                axes.plot(*(run @ corners).T, color=colour, linewidth=width)
                axes.plot(*(run[-1] @ corners), end, color=colour)
            axes.set_title(f"{gradient}, {name}\n{100 * row['wrong']:.1f}% end wrong", fontsize="medium")
            for corner, pays, below in zip(corners, MEANS, (6, -12, -12), strict=True):
                shift = {"xytext": (0, below), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"pays {pays:g}", corner, **shift, fontsize="small", color="0.3")
            axes.set(aspect="equal", xlim=(-0.15, 1.15), ylim=(-0.17, 1.0))
            axes.set_axis_off()
    return figure


def main(options: Options) -> None:
    """Play, then write, draw and print."""
    launch.check_multiple("steps", options.steps, 100 * BLOCK)
    launch.check_positive({name: getattr(options, name) for name in ("distance", "softmax_rate", "natural_rate")})
    if options.seeds < PATHS:
        raise pgjax.InputError(f"expected {PATHS} or more seeds, which are drawn, got {options.seeds}")
    pairs = [(gradient, eta) for gradient in GRADIENTS for eta in sorted(getattr(options, f"{gradient}_rate"))]
    points = [(*pair, name) for pair in pairs for name in BASELINES]
    rows = {NAME.format(*point): partial(explored, options, *point) for point in points}
    report(options, ("distance", "steps"), rows, draw, line_of, "baselines_beyond_variance.png", {"paths"})


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
