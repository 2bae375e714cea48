"""What does entropy in the objective do: to its shape, and to how probably a step improves it? Exact, and 2000 seeds.

Bolland et al. (2024) say that exploration terms have two effects on policy gradients: they smooth the objective and
remove local optima, and they change how probably a stochastic step improves it. Here the problem is a way of a few
rooms: going on costs 0.1 each time, the end of the way pays 1, and one can leave any time for 0.4. To leave at once
is a local optimum. All episodes can be listed, so the objective ρ + λ E[Σ_t ln 1/f(X_t)_{A_t}] along a line of
policies, and the probability that a step from one episode improves it, or ρ, are exact. Beside them are runs of the
same steps.

Writes rows.json, summary.json and entropy_landscape.png into the directory --out, and prints a table. The same command
again goes on where it was stopped. With the defaults it takes half a minute.
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
from common.remembering import Row, Rows, report
from common.single_steps import estimates, improving, listed, objective
from common.tables import written, written_interval
from pgjax.analysis import mean_interval, proportion_interval
from pgjax.analysis.plotting import COLOURS, STYLES, dress


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is looked at."""

    rooms: int = 3
    """Rooms of the way, at most 4."""
    entropy: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.4)
    """Weights λ of the entropy, at most five."""
    learning_rate: float = 0.5
    """Learning rate η of a step."""
    start: float = -1.5
    """Logit of going on, in every room, with which runs begin."""
    updates: int = 2000
    """Updates of a run, each from one episode."""
    seeds: int = 2000
    """Runs of everything."""
    out: Path = Path("results/entropy_landscape")


LINE = np.linspace(-6, 6, 121)  # logits of going on
LOOKS = 40  # at a run


def way(rooms: int) -> pgjax.FiniteMDP:
    """A way of rooms; the first action leaves for 0.4, the second goes on for −0.1, and pays 1 at the end."""
    p, r = np.zeros((rooms + 1, 2, rooms + 1)), np.tile([0.4, -0.1], (rooms + 1, 1))
    p[:, 0, rooms] = p[rooms, 1, rooms] = p[np.arange(rooms), 1, np.arange(rooms) + 1] = 1
    r[rooms - 1, 1] += 1
    return pgjax.environments.tables(np.eye(rooms + 1)[0], p, r, np.arange(rooms + 1) == rooms)


def explored(options: Options, weight: float) -> dict[str, Any]:
    """A row: the objective along the line, the probabilities of improving steps, and what runs came to."""
    with jax.enable_x64(True):
        mdp, T = way(options.rooms), options.rooms
        episodes, eta = listed(mdp, T), options.learning_rate
        line = jnp.stack([jnp.zeros_like(LINE), jnp.array(LINE)], -1)[:, None] * jnp.ones((1, T + 1, 1))
        curve, plain = jax.jit(jax.vmap(lambda theta: [objective(mdp, T, theta, by) for by in (weight, 0.0)]))(line)
        better = jax.jit(jax.vmap(lambda theta: improving(mdp, episodes, theta, weight, eta)))(line)

        def update(theta: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            probability, step = estimates(mdp, episodes, theta, weight)
            return theta + eta * step[jax.random.categorical(key, jnp.log(probability))], None

        def look(theta: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            theta, _ = jax.lax.scan(update, theta, jax.random.split(key, options.updates // LOOKS))
            return theta, objective(mdp, T, theta, 0.0)

        begin = jnp.tile(jnp.array([0, options.start]), (T + 1, 1))
        run = jax.jit(jax.vmap(lambda key: jax.lax.scan(look, begin, jax.random.split(key, LOOKS))[1]))
        rho = np.asarray(run(pgjax.run_keys(options.study, launch.seeds_of(options))))
    curve, plain, better = np.asarray(curve), np.asarray(plain), np.asarray(better)
    inside = (curve[1:-1] > curve[:-2]) & (curve[1:-1] > curve[2:])
    tops = int(inside.sum() + (curve[0] > curve[1]) + (curve[-1] > curve[-2]))
    found = rho > 0.4  # more than leaving at once pays
    at_start = np.argmin(np.abs(LINE - options.start))
    return {
        "objective": curve.tolist(),
        "improves": better.T.tolist(),
        "tops": tops,
        "rho_at_best": float(plain[curve.argmax()]),
        "improves_at_start": better[at_start].tolist(),
        "found": found.mean(0).tolist(),
        "found_interval": proportion_interval(int(found[:, -1].sum()), len(found)),
        "rho": mean_interval(rho[:, -1]),
    }


def line_of(options: Options, row: Row) -> Row:
    """What the table says of a row."""
    return {
        "tops": row["tops"],
        "ρ at the highest": written(row["rho_at_best"], ".3g"),
        "a first step improves objective": written(row["improves_at_start"][0], ".3g"),
        "a first step improves ρ": written(row["improves_at_start"][1], ".3g"),
        "runs worth more than leaving": written(row["found"][-1]),
        "95%": written_interval(row["found_interval"]),
        "ρ of runs": written(row["rho"]["mean"]),
        "95% interval": written_interval([row["rho"]["low"], row["rho"]["high"]]),
    }


def draw(options: Options, rows: Rows) -> Figure:
    """Objectives along the line, probabilities that a step improves ρ, and shares that found."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    dress(first, "Objective along a line", "logit of going on", "ρ + λ entropy, less its mean")
    dress(second, "A step improves ρ", "logit of going on", "probability")
    dress(third, f"{options.seeds} runs", "updates", "share worth more than leaving")
    updates = np.arange(1, LOOKS + 1) * (options.updates // LOOKS)
    for (name, row), colour, style in zip(rows.items(), COLOURS, ("-", *STYLES, (0, (6, 1))), strict=False):
        curve = np.array(row["objective"])
        first.plot(LINE, curve - curve.mean(), color=colour, linestyle=style, label=name)
        second.plot(LINE, row["improves"][1], color=colour, linestyle=style, linewidth=1.8)
        third.plot(updates, row["found"], color=colour, linestyle=style)
    second.axvline(options.start, color="0.6", linewidth=0.8)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def main(options: Options) -> None:
    """Look and run, then write, draw and print."""
    launch.check_counts({"rooms": options.rooms, "seeds": options.seeds})
    launch.check_multiple("updates", options.updates, LOOKS)
    if options.rooms > 4 or options.seeds < 2:
        raise pgjax.InputError("expected at most 4 rooms, so that episodes can be listed, and 2 or more seeds, "
                               f"got {options.rooms} and {options.seeds}")  # fmt: skip
    if not 1 <= len(options.entropy) <= 5 or min(options.entropy) < 0 or options.learning_rate <= 0:
        raise pgjax.InputError("expected one to five weights of 0 or more and a learning rate above 0, "
                               f"got {options.entropy} and {options.learning_rate}")  # fmt: skip
    rows = {f"λ = {weight:g}": partial(explored, options, weight) for weight in options.entropy}
    report(options, ("rooms", "learning_rate", "start", "updates"), rows, draw, line_of, "entropy_landscape.png")


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
