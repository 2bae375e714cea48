"""What do methods of groups follow, and where do they end? GRPO and its cousins on texts that can all be listed.

A model writes texts of a few letters, prefix by prefix a table, so that every group of K texts can be listed with its
probability. GRPO, Dr. GRPO, RLOO and REINFORCE++, each with a price on the divergence from the supervised model f_SL
that is part of the reward (k1) or a term of the loss (k1, k2, k3), then have an exact mean and an exact variance. Three
parts. *Bias*: both, against ∇(E[r] − β KL(f ‖ f_SL)). *Where it leads*: what ascent along the exact mean converges to,
against f_SL e^{r/β}/Z, which is the optimum. *Length*: sampled runs, seed by seed.

Writes exact.json, a directory of results for each method that is sampled, summary.json, group_bias.png and
group_length.png into the directory --out, and prints a table. The same command again goes on where it was stopped. With
the defaults it takes about 20 minutes on two cores.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from matplotlib.figure import Figure

import pgjax
from common import launch, tables
from common.remembering import remembered
from pgjax import estimators
from pgjax.analysis.plotting import COLOURS, add_legend, band, dress
from pgjax.devices import use_every_core
from pgjax.environments.base import Score, whole_score
from pgjax.estimators.objectives import Objective, Terms


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is listed and sampled."""

    letters: int = 2
    """Letters beside the end of a text."""
    length: int = 3
    """Letters of a text at most."""
    group_size: int = 4
    """Texts K of a group, which in the exact parts is all that is looked at together."""
    beta: float = 0.3
    """Price β of a nat of divergence."""
    problem: int = 0
    """Seed of the supervised model, of the model that is judged, and of which texts are worth 1 (the others 0)."""
    ascent: int = 2000
    """Steps of ascent along the exact mean, by Adam."""
    ascent_rate: float = 0.05
    """Its learning rate η."""
    seeds: int = 64
    """Sampled runs of each method."""
    iterations: int = 150
    """Updates of a sampled run, each of 16 groups."""
    learning_rate: float = 0.03
    """Learning rate η of a sampled run."""
    out: Path = Path("results/group_bias")


GROUPS = 16  # of an update of a sampled run
MOST_GROUPS = 20000  # that are listed
METHODS = ("RLOO", "Dr. GRPO", "GRPO", "REINFORCE++")
PRICES = ("reward k1", "loss k1", "loss k2", "loss k3")
SAMPLED = ("reward k1", "loss k3")
WORTH = 0.35  # share of the texts that are worth 1


class Problem(NamedTuple):
    """Texts that can all be listed, as an environment whose states are the texts so far."""

    mdp: pgjax.FiniteMDP
    horizon: int
    supervised: np.ndarray  # θ_SL, [S, A]
    judged: np.ndarray  # θ where bias and variance are taken, [S, A]
    texts: pgjax.Trajectory  # every text, [T + 1, N]


def problem_of(options: Options) -> Problem:
    """The texts of so many letters and of at most such a length; action 0 ends one."""
    letters, T = options.letters, options.length
    prefixes = [text for n in range(T) for text in itertools.product(range(1, letters + 1), repeat=n)]
    number = {text: i for i, text in enumerate(prefixes)}
    S, A, over = len(prefixes) + 1, letters + 1, len(prefixes)
    rng = np.random.default_rng(options.problem)
    p, r = np.zeros((S, A, S)), np.zeros((S, A))
    written = []
    for text, a in itertools.product(prefixes, range(A)):
        following = number.get((*text, a), over) if a else over
        p[number[text], a, following] = 1
        if following == over:
            r[number[text], a] = rng.random() < WORTH
            written.append((*text, a))
    p[over, :, over] = 1
    supervised, further = rng.normal(size=(S, A)), rng.normal(size=(S, A))
    shape = (T + 1, len(written))
    state, action, reward, mask = (np.zeros(shape, kind) for kind in (np.int32, np.int32, np.float32, bool))
    for e, text in enumerate(written):
        for t, a in enumerate(text):
            state[t, e], action[t, e], mask[t, e] = number[text[:t]], a, True
            reward[t, e] = r[number[text[:t]], a] if t == len(text) - 1 else 0
    last = mask & ~np.roll(mask, -1, axis=0)
    time = np.broadcast_to(np.arange(T + 1, dtype=np.int32)[:, None], shape)
    mdp = pgjax.environments.tables(np.eye(S)[0], p, r, np.arange(S) == over)
    texts = pgjax.Trajectory(
        observation=jnp.asarray(state),
        action=jnp.asarray(action),
        reward=jnp.asarray(reward),
        terminated=jnp.asarray(last),
        truncated=jnp.asarray(last & False),
        mask=jnp.asarray(mask),
        time=jnp.asarray(time),
        rows=jnp.int32(T),
    )
    return Problem(mdp, T, supervised, supervised + further, texts)


def priced(problem: Problem, price: str, beta: float) -> pgjax.Environment:
    """The environment of texts, with the divergence in the reward or only noted, and the steps of each text."""
    S, A = problem.supervised.shape
    charged = beta if price == "reward k1" else 0.0
    texts = pgjax.finite(problem.mdp, problem.horizon)
    environment = pgjax.kl_penalty(texts, pgjax.tabular(S, A), jnp.asarray(problem.supervised), charged)

    def score(trajectory: pgjax.Trajectory, params: Any) -> Score:
        found = whole_score(environment, trajectory, params)
        steps = jnp.where(trajectory.mask, jnp.sum(trajectory.mask, axis=0, keepdims=True), 0.0)
        return found._replace(notes={**found.notes, "n": steps})

    return environment._replace(score=score)


ESTIMATES: dict[str, Callable[[jax.Array], jax.Array]] = {  # of x = ln f/f_SL
    "loss k1": lambda x: x,
    "loss k2": lambda x: x**2 / 2,
    "loss k3": lambda x: jnp.expm1(-x) + x,
}


def in_loss(price: str, beta: float, mean_of_steps: bool) -> Objective:
    """The score function, less β times an estimate of the divergence at each step, which is differentiated itself.

    As with GRPO's advantages, it may be the mean over the steps of a text in place of their sum.
    """

    def terms(f: Any, rows: pgjax.Trajectory, advantage: jax.Array) -> Terms:
        log_prob = jnp.where(rows.mask, f.log_prob(rows.action), 0)
        x = log_prob - jnp.where(rows.mask, rows.log_prob - rows.notes["kl"], 0)  # ln f_SL was noted with the text
        share = jnp.where(rows.mask, 1 / jnp.maximum(rows.notes["n"], 1), 0) if mean_of_steps else rows.mask
        return Terms(advantage * log_prob - beta * share * ESTIMATES[price](x))

    return terms


def parts_of(method: str, price: str, options: Options) -> dict[str, Any]:
    """Credit, baseline, objective and scale of a method with a price."""
    K = options.group_size
    scale = (
        estimators.combined(estimators.group_deviation(K), estimators.episode_length()) if method == "GRPO" else None
    )
    parts = {
        "credit": pgjax.reward_to_go() if method == "REINFORCE++" else pgjax.whole_episode(),
        "baseline": pgjax.leave_one_out(K) if method == "RLOO" else estimators.group_mean(K),
        "objective": in_loss(price, options.beta, method == "GRPO") if price in ESTIMATES else None,
        "scale": scale,
    }
    if method == "REINFORCE++":
        parts |= {"baseline": pgjax.no_baseline(), "scale": estimators.batch_standardized()}
    return parts


class Listed(NamedTuple):
    """The exact mean and variance of an estimator, and the truth, all as functions of θ [S, A]."""

    moments: Callable[..., tuple[jax.Array, jax.Array]]  # the mean [S, A], and the variance summed over it, []
    of: Any  # what else `moments` is given: arguments, for as constants they would be folded, slowly
    truth: Callable[[jax.Array], dict[str, jax.Array]]  # J = E[r] − β KL and what it is made of, each []
    gradient: Callable[[jax.Array], jax.Array]  # ∇J


def listed(problem: Problem, method: str, price: str, options: Options) -> Listed:
    """What is to be known of a method with a price, by going through every group of texts, in no particular order.

    Raises:
        InputError: If there are too many.
    """
    K, texts, beta = options.group_size, problem.texts, options.beta
    (_, N), (S, A) = texts.mask.shape, problem.supervised.shape
    if math.comb(N + K - 1, K) > MOST_GROUPS:
        raise pgjax.InputError(
            f"expected at most {MOST_GROUPS} groups to list, got {math.comb(N + K - 1, K)} of {K} among {N} texts"
        )
    groups = np.array(list(itertools.combinations_with_replacement(range(N), K)))
    orders = [math.factorial(K) / math.prod(map(math.factorial, np.bincount(group))) for group in groups]
    policy, environment = pgjax.tabular(S, A), priced(problem, price, beta)
    numbers = pgjax.reinforce(environment, policy, slots=K).hyperparameters()
    estimate = pgjax.policy_gradient(environment, policy, **parts_of(method, price, options))

    def log_probs(theta: Any) -> jax.Array:
        chosen = policy.unroll(jnp.asarray(theta), texts).log_prob(texts.action)
        return jnp.where(texts.mask, chosen, 0)

    def moments(theta: jax.Array, texts: pgjax.Trajectory, groups: jax.Array, orders: jax.Array) -> Any:
        played = texts._replace(log_prob=jnp.where(texts.mask, policy.unroll(theta, texts).log_prob(texts.action), 0))
        scored = environment.score(played, environment.params)  # type: ignore[misc]
        played = played._replace(reward=scored.reward, notes=scored.notes)

        def of_group(group: jax.Array) -> jax.Array:
            some = jax.tree.map(lambda leaf: leaf[:, group] if leaf.ndim else leaf, played)
            return estimate(theta, (), some, numbers).gradient

        found = jax.vmap(of_group)(groups)
        weight = orders * jnp.exp(jnp.sum(jnp.sum(played.log_prob, 0)[groups], axis=1))
        mean = jnp.tensordot(weight, found, 1)
        return mean, jnp.sum(jnp.tensordot(weight, (found - mean[None]) ** 2, 1))

    def truth(theta: jax.Array) -> dict[str, jax.Array]:
        log_f, log_sl = (jnp.sum(log_probs(of), axis=0) for of in (theta, problem.supervised))
        r, f = jnp.sum(texts.reward, axis=0), jnp.exp(log_f)
        tilted = jax.nn.log_softmax(log_sl + r / beta)
        found = {"reward": f @ r, "kl": f @ (log_f - log_sl), "length": f @ jnp.sum(texts.mask, axis=0)}
        return {"J": found["reward"] - beta * found["kl"], **found, "from_optimum": f @ (log_f - tilted)}

    of = (texts, jnp.asarray(groups), jnp.asarray(orders))
    return Listed(moments, of, truth, jax.grad(lambda theta: truth(theta)["J"]))


def exactly(problem: Problem, method: str, price: str, options: Options) -> dict[str, float]:
    """Bias and variance at θ, and where ascent along the mean from θ_SL leads."""
    found = listed(problem, method, price, options)
    optimizer, size = optax.adam(optax.cosine_decay_schedule(options.ascent_rate, options.ascent)), jnp.linalg.norm

    @jax.jit
    def ascended(judged: jax.Array, start: jax.Array, of: Any) -> Any:
        def step(_: jax.Array, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            theta, state = carry
            change, state = optimizer.update(-found.moments(theta, *of)[0], state)
            return jnp.asarray(optax.apply_updates(theta, change)), state

        end, _ = jax.lax.fori_loop(0, options.ascent, step, (start, optimizer.init(start)))
        return found.moments(judged, *of), end

    theta = jnp.asarray(problem.judged)
    (mean, variance), end = ascended(theta, jnp.asarray(problem.supervised), found.of)
    mean, true = mean.ravel(), found.gradient(theta).ravel()
    row: dict[str, Any] = {
        "cosine": mean @ true / size(mean) / size(true),
        "scale": mean @ true / (true @ true),
        "bias": size(mean - true) / size(true),
        "noise": jnp.sqrt(variance) / size(mean),
    }
    row |= {f"end_{name}": value for name, value in found.truth(end).items()}
    return {name: float(value) for name, value in row.items()}


def all_exactly(options: Options, problem: Problem) -> dict[str, dict[str, Any]]:
    """`exactly`, for every method and price."""
    exact_ones = ("letters", "length", "group_size", "beta", "problem", "ascent", "ascent_rate")
    asked = {name: getattr(options, name) for name in exact_ones}
    pairs = itertools.product(METHODS, PRICES)
    rows = {f"{m}, {price}": functools.partial(exactly, problem, m, price, options) for m, price in pairs}
    return remembered(options.out / "exact.json", asked, rows)


def sampled(options: Options, problem: Problem, method: str, price: str) -> Any:
    """The sweep of a method's sampled runs from θ_SL."""
    S, A = problem.supervised.shape
    policy = pgjax.tabular(S, A)._replace(init=lambda key: jnp.asarray(problem.supervised))
    slots = GROUPS * options.group_size
    algorithm = pgjax.reinforce(
        priced(problem, price, options.beta),
        policy,
        slots=slots,
        group_size=options.group_size,
        **parts_of(method, price, options),
    )
    not_computed = {"ascent", "ascent_rate", "learning_rate"}
    return pgjax.sweep(
        algorithm,
        iterations=options.iterations,
        seeds=launch.seeds_of(options),
        hyperparameters=algorithm.hyperparameters(learning_rate=options.learning_rate),
        study=options.study,
        out=options.out / directory_of(method, price),
        configuration={**launch.configuration_of_options(options, not_computed), "method": method, "price": price},
    ).load()


def directory_of(method: str, price: str) -> str:
    """Where the runs of a method are."""
    return f"{method} {price}".lower().replace(". ", "-").replace(" ", "-").replace("+", "p")


def draw_exact(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw how far the mean of each is from the gradient, how noisy it is, and how far from the optimum it ends."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    titles = {
        "cosine": ("cosine of mean and gradient", None),
        "noise": ("standard deviation / length of the mean", None),
        "end_from_optimum": ("KL from the optimum at the end, nats", "symlog"),
    }
    for axes, (name, (title, scale)) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        dress(axes, title)
        for i, price in enumerate(PRICES):
            heights = [max(rows[f"{method}, {price}"][name], 0) for method in METHODS]
            axes.bar(np.arange(len(METHODS)) + 0.2 * (i - 1.5), heights, 0.2, color=COLOURS[i], label=price)
        axes.set_xticks(range(len(METHODS)), METHODS, fontsize="small")
        if scale:
            axes.set_yscale(scale, linthresh=1e-3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(PRICES), frameon=False)
    figure.savefig(path, dpi=150)


def draw_lengths(curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw the mean length of texts over updates, with the interval of the mean over seeds; a panel for each price."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, price in zip(figure.subplots(1, len(SAMPLED), sharey=True, squeeze=False)[0], SAMPLED, strict=True):
        dress(axes, f"divergence in the {price}", "update", "letters of a text, its end included")
        for i, method in enumerate(METHODS):
            runs = curves[f"{method}, {price}"]
            middle, half = runs.mean(0), 1.96 * runs.std(0, ddof=1) / np.sqrt(len(runs))
            band(axes, np.arange(runs.shape[1]), middle, (middle - half, middle + half), COLOURS[i], method)
    add_legend(axes)
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """List, ascend and sample; then write, draw and print what was found."""
    launch.check_counts({name: getattr(options, name) for name in ("letters", "length", "ascent", "iterations")})
    if options.seeds < 2:
        raise pgjax.InputError(f"expected 2 or more seeds for an interval, got {options.seeds}")
    if not options.beta > 0:
        raise pgjax.InputError(f"expected a price β above 0, got {options.beta}")
    ours = {directory_of(method, price) for method in METHODS for price in SAMPLED}
    figures = {"group_bias.png", "group_length.png"}
    launch.check_directory_of_study(options.out, ours | figures | {"exact.json", "summary.json"})
    problem = problem_of(options)
    rows = all_exactly(options, problem)
    curves: dict[str, np.ndarray] = {}
    ends: dict[str, dict[str, Any]] = {}
    for method, price in itertools.product(METHODS, SAMPLED):
        name, results = f"{method}, {price}", sampled(options, problem, method, price)
        curves[name] = (results.steps / results.episodes).transpose("seed", "iteration").values
        last = curves[name][:, -max(1, options.iterations // 10) :].mean(1)
        ends[name] = {"length": tables.average_of(last), "failed": int(pgjax.analysis.failed(results).sum())}
    launch.leave_to_the_first_process()
    truth = listed(problem, "RLOO", "reward k1", options).truth(jnp.asarray(problem.supervised))
    start = {name: float(value) for name, value in truth.items()}
    tables.write_json(options.out / "summary.json", {"texts": problem.texts.mask.shape[1], "start": start, "rows": rows,
                      "sampled": ends})  # fmt: skip
    draw_exact(rows, options.out / "group_bias.png")
    draw_lengths(curves, options.out / "group_length.png")
    lines = []
    for name, row in rows.items():
        line = {
            "method, divergence": name,
            **{of: tables.written(row[of], ".3g") for of in ("cosine", "scale", "noise")},
        }
        ended = ("J", "reward", "kl", "length", "from_optimum")
        line |= {f"end {of}".replace("_", " "): tables.written(row[f"end_{of}"], ".3g") for of in ended}
        if name in ends:
            line["sampled length"] = tables.written(ends[name]["length"]["iqm"], ".3g")
            line["95%"] = tables.written_interval(ends[name]["length"]["interval"])
        lines.append(line)
    print(pd.DataFrame(lines).fillna("-").to_string(index=False))
    print(f"{problem.texts.mask.shape[1]} texts; the supervised model has J {start['J']:.3g}; written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
