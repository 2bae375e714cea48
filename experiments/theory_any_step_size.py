"""Does a softmax policy gradient find the best arm at any learning rate, and when? Thousands of runs on bandits.

Mei et al. (2024) prove that the stochastic softmax policy gradient on a bandit finds the best arm with probability 1 at
any constant η. The lecture warns that with a large η it overcommits to a wrong arm. Both can be true, if a commitment
ends after a time that has no mean. Here every run counts the plays until the best arm has more than half of the
probability. The probability that all plays are of one wrong arm is exact; it falls like t^−α, α = (K − 1) / (K η r).

Writes rows.json, summary.json and any_step_size.png into the directory --out, and prints a table. The same command
again goes on where it was stopped. With the defaults it takes about seven minutes of one core.
"""

import itertools
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
from common.bandits import alone, chosen, in_blocks
from common.remembering import Row, Rows, report
from common.tables import share_of, written, written_interval
from pgjax.analysis import Reached, share_reached
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
NAME = "{} arms, η {:g}, {}"  # of a row


def step(theta: jax.Array, f: jax.Array, u: jax.Array, means: jax.Array, eta: Any, coin: bool) -> jax.Array:
    """θ [K, ...] after one play by f = f(θ): θ + η R ∇ ln f_A, with the arm A that u_0 [...] chooses.

    What it pays, R, is by a coin what u_1 says. Runs are the last axis, which with few arms is four times as fast.
    """
    played = chosen(f, u[0])
    mean = jnp.sum(jnp.where(played, means.reshape(-1, *[1] * (f.ndim - 1)), 0), 0)
    return theta + eta * (u[1] < mean if coin else mean)[None] * (played - f)


def play(keys: jax.Array, means: jax.Array, eta: Any, steps: int, coin: bool) -> tuple[jax.Array, jax.Array]:
    """Plays of each run until the best arm, the first, has more than half (−1 if never), and the last without."""

    def one(carry: Any, u: jax.Array) -> Any:
        theta, arrived, wrong, t = carry
        f = jax.nn.softmax(theta, 0)
        leads = f[0] > 0.5
        now = jnp.where(leads & (arrived < 0), t, arrived), jnp.where(leads, wrong, t)
        return step(theta, f, u, means, eta, coin), *now, t + 1

    drawn = jax.vmap(lambda i, key: jax.random.uniform(jax.random.fold_in(key, i), (BLOCK, 1 + coin)), (None, 0), -1)
    begin = (jnp.zeros((means.size, len(keys))), jnp.full(len(keys), -1), jnp.zeros(len(keys), int), 0)
    return in_blocks(one, begin, lambda i: drawn(i, keys), jnp.arange(steps // BLOCK))[0][1:3]


def explored(options: Options, K: int, eta: float, pays: str) -> dict[str, Any]:
    """A row: when runs arrive, which are wrong at the end, and what is known of that without sampling."""
    steps, coin = options.steps, pays == "coin"
    times = np.unique(np.geomspace(1, steps, 120).round())
    with jax.enable_x64(True):  # probabilities of other arms fall to 1e-9 and below, and still count
        means = 1 - jnp.arange(K) / K
        keys = pgjax.run_keys(options.study, launch.seeds_of(options))
        run = jax.jit(lambda keys: play(keys, means, eta, steps, coin))
        parts = [run(keys[i : i + TOGETHER]) for i in range(0, len(keys), TOGETHER)]
        arrived, wrong = (np.concatenate(x) for x in zip(*parts, strict=True))
        law = alone(lambda theta, a: theta + eta * (a @ means) * (a - jax.nn.softmax(theta)), K, steps)
        log_alone = np.asarray(law)[:, 1:]
    found = share_reached(Reached(np.where(arrived < 0, steps, arrived), arrived >= 0))
    at = np.searchsorted(found.steps, times, side="right") - 1
    slope = (log_alone[steps // 2 - 1] - log_alone[-1])[0] / np.log(steps / (steps // 2))
    return {
        "times": times.tolist(),
        "not_yet": (1 - found.share[at]).tolist(),
        "band": [(1 - found.high[at]).tolist(), (1 - found.low[at]).tolist()],
        **share_of("wrong", wrong == steps - 1),
        "lost_again": float(((arrived >= 0) & (wrong > arrived)).mean()),
        "alone": None if coin else np.exp(log_alone).sum(1)[times.astype(int) - 1].tolist(),
        "alpha": None if coin else float(slope),
        "alpha_predicted": (K - 1) / (K * eta * (1 - 1 / K)),
    }


def line_of(options: Options, row: Row) -> Row:
    """What the table says of a row."""
    return {
        "wrong at the end": written(row["wrong"]),
        "95% interval": written_interval(row["wrong_interval"]),
        "one wrong arm alone": written(row["alone"][-1] if row["alone"] else None, ".3g"),
        "α": written(row["alpha"], ".3g"),
        "α predicted": written(row["alpha_predicted"], ".3g"),
        "lost again": written(row["lost_again"], ".3g"),
    }


def draw(options: Options, rows: Rows) -> Figure:
    """The share of runs that have not arrived over plays, and the exact probability of no play but of one arm."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(1, len(options.arms), sharey=True, squeeze=False)[0]
    for axes, K in zip(panels, options.arms, strict=True):
        dress(axes, f"{K} arms, fixed rewards", "plays", "share of runs")
        axes.set(xscale="log", yscale="log", ylim=(0.5 / options.seeds, 1.3))
        for eta, colour, style in zip(options.learning_rate, COLOURS, ("-", *STYLES, "-"), strict=False):
            row = rows[NAME.format(K, eta, "fixed")]
            shown, low = np.array(row["not_yet"]) > 0, np.maximum(row["band"][0], 0.1 / options.seeds)
            x, y = np.array(row["times"]), np.where(shown, row["not_yet"], np.nan)
            band(axes, x, y, (np.where(shown, low, np.nan), row["band"][1]), colour, f"η = {eta:g}", style)
            axes.plot(x, row["alone"], color="0.3", linewidth=0.9)
    axes.lines[-1].set_label("played one wrong arm alone (exact)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle("Runs in which the best arm has not yet had more than half of the probability")
    return figure


def main(options: Options) -> None:
    """Play, then write, draw and print."""
    launch.check_counts({"seeds": options.seeds})
    launch.check_multiple("steps", options.steps, BLOCK)
    launch.check_positive({"learning rates": options.learning_rate})
    if min(options.arms) < 2 or len(options.learning_rate) > 5:
        found = f"{options.arms} and {options.learning_rate}"
        raise pgjax.InputError(f"expected 2 or more arms and at most five learning rates, got {found}")
    points = itertools.product(options.arms, options.learning_rate, PAYS)
    rows = {NAME.format(*point): partial(explored, options, *point) for point in points}
    report(options, ("steps",), rows, draw, line_of, "any_step_size.png")


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
