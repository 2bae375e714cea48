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

import functools
from collections.abc import Mapping
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
from common.remembering import remembered
from pgjax import exact
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


def listed(mdp: pgjax.FiniteMDP, T: int) -> exact.Episodes:
    """The episodes that can happen."""
    every = exact.every_episode(mdp, T)
    possible = np.flatnonzero(np.asarray(every.dynamics) > 0)
    return exact.Episodes(*(array[..., possible] for array in every))


def softened(mdp: pgjax.FiniteMDP, theta: jax.Array, weight: Any) -> tuple[pgjax.FiniteMDP, jax.Array]:
    """The problem in which an action also pays λ ln 1/f, and the policy f [S, A] with the logits θ."""
    log_f = jax.nn.log_softmax(theta)
    return mdp._replace(r=mdp.r - weight * log_f), jnp.exp(log_f)


def objective(mdp: pgjax.FiniteMDP, T: int, theta: jax.Array, weight: Any) -> jax.Array:
    """ρ(θ) + λ E[Σ_t ln 1/f(X_t)_{A_t}], []."""
    soft, f = softened(mdp, theta, weight)
    return exact.expected_return(soft, T, f)


def estimates(
    mdp: pgjax.FiniteMDP, episodes: exact.Episodes, theta: jax.Array, weight: Any
) -> tuple[jax.Array, jax.Array]:
    """For each of N episodes its probability [N], and the gradient that is estimated from it, [N, S, A].

    It is Σ_t (G_t − v(X_t)) ∇ ln f(X_t)_{A_t}, of which G_t and v count what entropy pays.
    """
    soft, f = softened(mdp, theta, weight)
    values = exact.solve(soft, len(episodes.states), f).values
    x, a, on = episodes.states, episodes.actions, episodes.running
    to_go = jnp.cumsum(jnp.where(on, soft.r[x, a], 0)[::-1], 0)[::-1]
    advantage = jnp.where(on, to_go - jnp.take_along_axis(values, x, 1), 0)
    taken = jax.nn.one_hot(x, f.shape[0])[..., None] * (jax.nn.one_hot(a, f.shape[1]) - f[x])[:, :, None]
    return episodes.probability(f), jnp.einsum("tn,tnsa->nsa", advantage, taken)


def improving(mdp: pgjax.FiniteMDP, episodes: exact.Episodes, theta: jax.Array, weight: Any, eta: Any) -> jax.Array:
    """The probabilities that a step from one episode improves the objective, and that it improves ρ, [2]."""
    T = len(episodes.states)
    probability, step = estimates(mdp, episodes, theta, weight)

    def improved(weight: Any) -> jax.Array:
        after = jax.vmap(lambda step: objective(mdp, T, theta + eta * step, weight))(step)
        return probability @ (after > objective(mdp, T, theta, weight) + 1e-14)

    return jnp.stack([improved(weight), improved(0.0)])


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


def draw(rows: Mapping[str, Mapping[str, Any]], options: Options, path: Path) -> None:
    """Draw objectives along the line, probabilities that a step improves ρ, and shares that found."""
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
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Look and run, then write, draw and print."""
    launch.check_counts({"rooms": options.rooms, "seeds": options.seeds})
    if options.rooms > 4 or options.seeds < 2:
        raise pgjax.InputError("expected at most 4 rooms, so that episodes can be listed, and 2 or more seeds, "
                               f"got {options.rooms} and {options.seeds}")  # fmt: skip
    if not 1 <= len(options.entropy) <= 5 or min(options.entropy) < 0 or options.learning_rate <= 0:
        raise pgjax.InputError("expected one to five weights of 0 or more and a learning rate above 0, "
                               f"got {options.entropy} and {options.learning_rate}")  # fmt: skip
    if options.updates < LOOKS or options.updates % LOOKS:
        raise pgjax.InputError(f"expected updates to be a multiple of {LOOKS}, got {options.updates}")
    launch.check_directory_of_study(options.out, {"rows.json", "summary.json", "entropy_landscape.png"})
    only = ("rooms", "learning_rate", "start", "updates", "seeds", "first_seed", "study")
    asked = {name: getattr(options, name) for name in only}
    wanted = {f"λ = {weight:g}": functools.partial(explored, options, weight) for weight in options.entropy}
    rows = remembered(options.out / "rows.json", asked, wanted)
    tables.write_json(options.out / "summary.json", {"options": asked, "rows": rows})
    draw(rows, options, options.out / "entropy_landscape.png")
    lines = []
    for name, row in rows.items():
        line = {"": name, "tops": row["tops"], "ρ at the highest": tables.written(row["rho_at_best"], ".3g")}
        for what, number in zip(("objective", "ρ"), row["improves_at_start"], strict=True):
            line[f"a first step improves {what}"] = tables.written(number, ".3g")
        line["runs worth more than leaving"] = tables.written(row["found"][-1])
        line["95%"] = tables.written_interval(row["found_interval"])
        line["ρ of runs"] = tables.written(row["rho"]["mean"])
        line["95% interval"] = tables.written_interval([row["rho"]["low"], row["rho"]["high"]])
        lines.append(line)
    print(pd.DataFrame(lines).to_string(index=False))


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
