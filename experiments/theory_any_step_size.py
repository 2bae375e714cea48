"""Does a softmax policy gradient find the best arm at any learning rate, and when? Thousands of runs on bandits.

Mei et al. (2024) prove that the stochastic softmax policy gradient on a bandit finds the best arm with probability 1 at
any constant η. The lecture warns that with a large η it overcommits to an arm that is not the best. Both can be true,
if a commitment ends after a time that has no mean. Here every run counts the plays until the best arm has more than
half of the probability; and the probability that all plays so far were of one wrong arm is computed without sampling.
It falls like t^−α with α = (K − 1) / (K η r), where r is what that arm pays and K the number of arms.

Writes rows.json, summary.json and any_step_size.png into the directory --out, and prints a table. The same command
again goes on where it was stopped. With the defaults it takes about seven minutes of one core.
"""

import functools
import itertools
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
from common.bandits import chosen
from common.remembering import remembered
from pgjax.analysis import Reached, proportion_interval, share_reached
from pgjax.analysis.plotting import COLOURS, STYLES, band, dress


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is played."""

    arms: tuple[int, ...] = (2, 10)
    """Numbers K of arms; the k-th pays 1 − k/K, from k = 0 on."""
    learning_rate: tuple[float, ...] = (0.1, 1.0, 3.0, 10.0, 100.0)
    """Learning rates η, at most five."""
    steps: int = 100_000
    """Plays of a run, a multiple of 500."""
    seeds: int = 10_000
    """Runs of everything."""
    out: Path = Path("results/any_step_size")


BLOCK = 500  # plays whose randomness is drawn at once
TOGETHER = 1000  # runs that fit into a cache
PAYS = ("fixed", "coin")  # an arm's mean every time; or 1 with that probability, and else 0


def step(theta: jax.Array, f: jax.Array, u: jax.Array, means: jax.Array, eta: Any, coin: bool) -> jax.Array:
    """θ [K, ...] after one play by f = f(θ): θ + η R ∇ ln f_A, with the arm A that u_0 [...] chooses.

    What it pays, R, is by a coin what u_1 says. Runs are the last axis, which with few arms is four times as fast.
    """
    played = chosen(f, u[0])
    mean = jnp.sum(jnp.where(played, means.reshape(-1, *[1] * (f.ndim - 1)), 0), 0)
    return theta + eta * (u[1] < mean if coin else mean)[None] * (played - f)


def play(keys: jax.Array, means: jax.Array, eta: Any, steps: int, coin: bool) -> tuple[jax.Array, jax.Array]:
    """Plays of each run until the best arm, the first, has more than half (−1 if never), and the last without."""

    def one(carry: Any, u: jax.Array) -> tuple[Any, None]:
        theta, arrived, wrong, t = carry
        f = jax.nn.softmax(theta, 0)
        leads = f[0] > 0.5
        now = jnp.where(leads & (arrived < 0), t, arrived), jnp.where(leads, wrong, t)
        return (step(theta, f, u, means, eta, coin), *now, t + 1), None

    def block(carry: Any, i: jax.Array) -> tuple[Any, None]:
        draw = jax.vmap(
            lambda key: jax.random.uniform(jax.random.fold_in(key, i), (BLOCK, 1 + coin), means.dtype), 0, -1
        )
        return jax.lax.scan(one, carry, draw(keys))

    begin = (jnp.zeros((means.size, len(keys))), jnp.full(len(keys), -1), jnp.zeros(len(keys), int), 0)
    return jax.lax.scan(block, begin, jnp.arange(steps // BLOCK))[0][1:3]


@functools.partial(jax.jit, static_argnums=2)
def alone(means: jax.Array, eta: Any, steps: int) -> jax.Array:
    """Ln Pr(the first t plays are all of one arm) for each arm, [steps, K], with fixed rewards: exact."""

    def one(carry: Any, _: None) -> tuple[Any, jax.Array]:
        theta, log_probability = carry  # [K, K], a row for each arm that is played; [K]
        log_f = jax.nn.log_softmax(theta)
        log_probability = log_probability + jnp.diag(log_f)
        return (theta + eta * means[:, None] * (jnp.eye(means.size) - jnp.exp(log_f)), log_probability), log_probability

    K = means.size
    return jax.lax.scan(one, (jnp.zeros((K, K)), jnp.zeros(K)), length=steps)[1]


def explored(options: Options, K: int, eta: float, coin: bool) -> dict[str, Any]:
    """A row: when runs arrive, which are wrong at the end, and what is known of that without sampling.

    Numbers are of 64 bits: probabilities of other arms fall to 1e-9 and below, and still count.
    """
    steps, dtype = options.steps, jnp.float64
    times = np.unique(np.geomspace(1, steps, 120).round())
    with jax.enable_x64(True):
        means = 1 - jnp.arange(K, dtype=dtype) / K
        keys = pgjax.run_keys(options.study, launch.seeds_of(options))
        run = jax.jit(lambda keys, eta: play(keys, means, eta, steps, coin))
        parts = [run(keys[i : i + TOGETHER], dtype(eta)) for i in range(0, len(keys), TOGETHER)]
        arrived, wrong = (np.concatenate(x) for x in zip(*parts, strict=True))
        log_alone = np.asarray(alone(means, dtype(eta), steps))[:, 1:]
    found = share_reached(Reached(np.where(arrived < 0, steps, arrived), arrived >= 0))
    at = np.searchsorted(found.steps, times, side="right") - 1
    stuck = int((wrong == steps - 1).sum())
    slope = (log_alone[steps // 2 - 1] - log_alone[-1])[0] / np.log(steps / (steps // 2))
    return {
        "times": times.tolist(),
        "not_yet": (1 - found.share[at]).tolist(),
        "band": [(1 - found.high[at]).tolist(), (1 - found.low[at]).tolist()],
        "wrong": stuck / len(wrong),
        "wrong_interval": proportion_interval(stuck, len(wrong)),
        "lost_again": float(((arrived >= 0) & (wrong > arrived)).mean()),
        "alone": None if coin else np.exp(log_alone).sum(1)[times.astype(int) - 1].tolist(),
        "alpha": None if coin else float(slope),
        "alpha_predicted": (K - 1) / (K * eta * (1 - 1 / K)),
    }


def draw(rows: Mapping[str, Mapping[str, Any]], options: Options, path: Path) -> None:
    """Draw the share of runs that have not arrived over plays, and the exact probability of no play but of one arm."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, len(options.arms), sharey=True, squeeze=False)[0]
    for axes, K in zip(panels, options.arms, strict=True):
        dress(axes, f"{K} arms, fixed rewards", "plays", "share of runs")
        axes.set(xscale="log", yscale="log", ylim=(0.5 / options.seeds, 1.3))
        for eta, colour, style in zip(options.learning_rate, COLOURS, ("-", *STYLES, "-"), strict=False):
            row = rows[name_of(K, eta, "fixed")]
            shown, low = np.array(row["not_yet"]) > 0, np.maximum(row["band"][0], 0.1 / options.seeds)
            x, y = np.array(row["times"]), np.where(shown, row["not_yet"], np.nan)
            band(axes, x, y, (np.where(shown, low, np.nan), row["band"][1]), colour, f"η = {eta:g}", style)
            axes.plot(x, row["alone"], color="0.3", linewidth=0.9)
    lines, labels = panels[0].get_legend_handles_labels()
    lines.append(axes.lines[-1])
    labels.append("played one wrong arm alone (exact)")
    figure.legend(lines, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle("Runs in which the best arm has not yet had more than half of the probability")
    figure.savefig(path, dpi=150)


def name_of(K: int, eta: float, pays: str) -> str:
    """What a row is called."""
    return f"{K} arms, η {eta:g}, {pays}"


def main(options: Options) -> None:
    """Play, then write, draw and print."""
    launch.check_counts({"seeds": options.seeds, "steps": options.steps})
    if min(options.arms) < 2 or min(options.learning_rate) <= 0 or len(options.learning_rate) > 5:
        raise pgjax.InputError("expected 2 or more arms and at most five learning rates, each above 0, "
                               f"got {options.arms} and {options.learning_rate}")  # fmt: skip
    if options.steps % BLOCK:
        raise pgjax.InputError(f"expected steps to be a multiple of {BLOCK}, got {options.steps}")
    launch.check_directory_of_study(options.out, {"rows.json", "summary.json", "any_step_size.png"})
    points = list(itertools.product(options.arms, options.learning_rate, PAYS))
    asked = {name: getattr(options, name) for name in ("steps", "seeds", "first_seed", "study")}
    wanted = {name_of(*point): functools.partial(explored, options, *point[:2], point[2] == "coin") for point in points}
    rows = remembered(options.out / "rows.json", asked, wanted)
    tables.write_json(options.out / "summary.json", {"options": asked, "rows": rows})
    draw(rows, options, options.out / "any_step_size.png")
    lines = []
    for name, row in rows.items():
        line = {"": name, "wrong at the end": tables.written(row["wrong"])}
        line["95% interval"] = tables.written_interval(row["wrong_interval"])
        line["one wrong arm alone"] = tables.written(row["alone"][-1] if row["alone"] else None, ".3g")
        line |= {"α": tables.written(row["alpha"], ".3g"), "α predicted": tables.written(row["alpha_predicted"], ".3g")}
        line["lost again"] = tables.written(row["lost_again"], ".3g")
        lines.append(line)
    print(pd.DataFrame(lines).to_string(index=False))


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
