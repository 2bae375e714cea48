"""What goes wrong when a learned reward is optimised? Gold and proxy reward against the distance from the start.

A reward model is fitted to comparisons, and a language model is optimised against it: by REINFORCE without a KL
penalty, and by best-of-n sampling. At first the gold reward rises with what the model says they want
(the proxy); then only the proxy does. This asks how that depends on the number of comparisons and on the size of the
reward model, whether Gao et al.'s laws describe it, what a KL penalty changes, what happens to diversity and length
where annotators like length, and what it helps to ask annotators again as the model changes.

Writes a directory of results for each sweep, summary.json, overoptimisation.png and side_effects.png into the directory
--out, and prints tables. The same command again goes on where it was stopped. With the defaults it takes about 40
minutes on two cores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import pgjax
from common import launch, names, tables
from pgjax import rlhf
from pgjax.analysis.plotting import add_legend, band, dress
from pgjax.devices import use_every_core
from pgjax.environments.drawings import COLOURS


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is optimised; a reward model begins as a language model of its size, which is pretrained for it."""

    seeds: int = 16
    comparisons: tuple[int, ...] = (256, 1024, 4096)
    """Numbers of comparisons that a reward model is fitted to."""
    reward_width: tuple[int, ...] = (16, 32, 64)
    """Widths of reward models, transformers of two layers."""
    width: int = 32
    """Width of the language model that is optimised, one of the reward models'."""
    updates: int = 200
    """Updates of REINFORCE."""
    pretraining: int = 500
    """Gradient steps of supervised pretraining, rounded up to a multiple of 50."""
    learning_rate: float = 5e-4
    """Learning rate η of REINFORCE."""
    beta: tuple[float, ...] = (0.02, 0.1)
    """Coefficients β of the KL penalty that are compared with none; may be left empty."""
    length_bias: float = 0.2
    """Nats of preference for each token of an output, of annotators who like length; 0 to leave them out."""
    rounds: int = 4
    """Rounds in which annotators are asked, each for a part of the comparisons, not once; 1 to leave that out."""
    temperature: float = 0.7
    """Temperature τ of the annotators' choice: a difference of τ in the gold reward is one nat of preference."""
    pool: int = 1024
    """Outputs to each of 8 prompts, for best-of-n."""
    block: int = 2
    """Runs vmapped together on a device."""
    out: Path = Path("results/overoptimisation")


LENGTH = 24  # tokens of an output
PROMPTS = 8  # of the pool
SENTENCES = 4096
PRETRAINING_STEPS = 50  # of an update
POINT = 5  # updates that a point of a curve is the mean of
DISTANCE, GOLD = "d = √KL(f ‖ f_SL) (√nats)", "gold reward above f_SL's"  # axes of figures


class Curve(NamedTuple):
    """Rewards against the distance, means over seeds."""

    d: np.ndarray  # √KL
    gold: np.ndarray  # relative to each seed's supervised model
    low: np.ndarray  # of a 95% interval of the mean over seeds, by Student's t
    high: np.ndarray
    proxy: np.ndarray


class Study(NamedTuple):
    """What all sweeps share."""

    options: Options
    corpus: pgjax.text.Corpus
    gold: rlhf.Gold
    supervised: dict[int, Any]  # by width: θ_SL of each seed

    def language_model(self, width: int) -> tuple[pgjax.Policy, pgjax.text.TransformerConfig]:
        """The language model of a width, and its configuration."""
        return pgjax.text.language_model(self.corpus, LENGTH, width, layers=2, heads=4)

    def feedback(self, reward_width: int, rankings: int, rounds: int) -> rlhf.Feedback:
        """The loop: REINFORCE on what a reward model of a width says."""
        policy, _ = self.language_model(self.options.width)
        return rlhf.feedback(
            policy,
            rlhf.reward_model(self.language_model(reward_width)[1]),
            self.gold,
            self.corpus.prompts,
            rlhf.FeedbackSettings(
                vocabulary=self.corpus.tokenizer.vocabulary,
                length=LENGTH,
                rounds=rounds,
                updates=-(-self.options.updates // rounds),
                rankings=rankings,
                # The supervised model repeats itself in one pair of a hundred; what was optimised, in most of them.
                drawn=2 if rounds == 1 else 16,
                evaluated=PROMPTS * self.options.pool,
                candidates=self.options.pool,
            ),
        )

    def sweep(
        self,
        name: str,
        reward_width: int,
        rankings: int,
        *,
        rounds: int = 1,
        grid: Mapping[str, Sequence[float]] | None = None,
        **numbers: float,
    ) -> xr.Dataset:
        """Run the loop for every seed at every point of a grid."""
        options, loop = self.options, self.feedback(reward_width, rankings, rounds)
        print(f"{name}: REINFORCE against a reward model of width {reward_width}", flush=True)
        bias = numbers.pop("length_bias", 0.0)
        people = rlhf.Annotators(temperature=options.temperature, length_bias=bias)
        return pgjax.sweep(
            loop.algorithm,
            iterations=options.updates,
            seeds=launch.seeds_of(options),
            grid=grid,
            by_seed={"supervised": self.supervised[options.width], "reward_body": self.supervised[reward_width]},
            hyperparameters=loop.algorithm.hyperparameters(
                **{"learning_rate": options.learning_rate, "beta": 0.0} | numbers, annotators=people
            ),
            study=options.study,
            out=options.out / name,
            configuration={"what": name, "width": options.width, "reward_width": reward_width, "rounds": rounds,
                           "rankings": rankings, "pretraining": options.pretraining},
            block=options.block,
        )  # fmt: skip


def pretrain(options: Options, corpus: pgjax.text.Corpus) -> dict[int, Any]:
    """θ_SL of every seed, for each width that is needed."""
    found = {}
    for width in dict.fromkeys((*options.reward_width, options.width)):
        policy, _ = pgjax.text.language_model(corpus, LENGTH, width, layers=2, heads=4)
        algorithm = pgjax.text.pretraining(policy, corpus.texts, steps=PRETRAINING_STEPS)
        print(f"pretraining of width {width}", flush=True)
        results = pgjax.sweep(
            algorithm,
            iterations=-(-options.pretraining // PRETRAINING_STEPS),
            seeds=launch.seeds_of(options),
            hyperparameters=algorithm.hyperparameters(learning_rate=3e-3),
            study=launch.study_of_pretraining(options),
            out=options.out / f"pretraining-{width}",
            configuration={"what": "pretraining", "width": width, "sentences": SENTENCES},
            block=options.block,
        )
        found[width] = pgjax.load_params(results, jax.eval_shape(policy.init, jax.random.key(0)))
    return found


def curve_of(results: xr.Dataset, start: np.ndarray) -> Curve:
    """How REINFORCE went, each point over some updates and all seeds.

    Args:
        results: A sweep's, at one point of its grid.
        start: The gold reward of each seed's supervised model, [seeds].
    """
    kept = results.sizes["iteration"] // POINT * POINT

    def by_point(name: str) -> np.ndarray:
        values = results[name].transpose("seed", "iteration").values[:, :kept]
        return values.reshape(len(values), -1, POINT).mean(-1)

    return curve_over_seeds(by_point("kl").mean(0), by_point("gold") - start[:, None], by_point("proxy"))


def curve_over_seeds(kl: np.ndarray, gold: np.ndarray, proxy: np.ndarray) -> Curve:
    """The means over seeds of rewards [seeds, points] at KLs [points], with the intervals of gold."""
    found = pd.DataFrame([pgjax.analysis.mean_interval(runs) for runs in gold.T]).to_numpy(float)
    mean, low, high = found.T
    return Curve(d=np.sqrt(np.maximum(kl, 0)), gold=mean, low=low, high=high, proxy=proxy.mean(0))


def failures(options: Options, sweeps: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, dict[str, list[int]]]:
    """Which seeds have finite numbers in all sweeps, [seeds] bool, and which have not in each where some fail.

    A seed that fails in one is left out of all, so that what is compared are the same runs.

    Raises:
        InputError: If no seed is left; the summary says where they failed then, and holds nothing else.
    """
    numbers, good = np.asarray(launch.seeds_of(options)), np.ones(options.seeds, bool)
    failed = {}
    for name, results in sweeps.items():
        broken = pgjax.analysis.failed(results).transpose(..., "seed").values.reshape(-1, options.seeds).any(axis=0)
        good &= ~broken
        if broken.any():
            failed[name] = numbers[broken].tolist()
    if not good.any():
        tables.write_json(options.out / "summary.json", {"seeds": options.seeds, "failed_seeds": failed})
        where = "; ".join(f"{name}: {tables.some(seeds)}" for name, seeds in failed.items())
        raise pgjax.InputError(f"expected a seed whose numbers are finite in all sweeps, got others in {where}")
    return good, failed


def best_of_n_curves(
    loop: rlhf.Feedback, results: xr.Dataset, study: Study, good: np.ndarray
) -> tuple[list[Curve], np.ndarray]:
    """What the best of n of the supervised model's outputs are worth, for n up to the whole pool.

    There is a curve for each number of comparisons, over those seeds that are good, [seeds] bool. The other array is
    what all of its outputs are worth, of each of those.
    """
    pool, options = study.options.pool, study.options
    ns = np.unique(np.round(np.geomspace(1, pool, 20)).astype(int))
    numbers = loop.algorithm.hyperparameters()
    like = jax.eval_shape(lambda key: loop.algorithm.init(key, numbers).params, jax.random.key(0))

    def one(key: jax.Array, tuned: rlhf.Tuned, supervised: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        found = loop.evaluate(key, supervised, tuned.reward, supervised)
        gold, proxy = (jnp.asarray(values).reshape(PROMPTS, pool) for values in (found.gold, found.proxy))

        def best(n: jax.Array) -> tuple[jax.Array, jax.Array]:
            over_prompts = jax.vmap(rlhf.best_of_n, (0, 0, None))
            return over_prompts(proxy, gold, n).mean(), over_prompts(proxy, proxy, n).mean()

        return *jax.lax.map(best, jnp.asarray(ns)), gold.mean()

    over_seeds = pgjax.over_runs(one, block=1)
    keys = launch.keys_after_training(options)
    curves = []
    for count in options.comparisons:
        tuned = pgjax.load_params(results, like, point={"comparisons": count})
        found = over_seeds(keys, tuned, study.supervised[options.width])
        golds, proxies, start = (np.asarray(values)[good] for values in found)
        curves.append(curve_over_seeds(rlhf.best_of_n_kl(ns), golds - start[:, None], proxies))
    return curves, start


def row_of(curve: Curve, method: str, **what: Any) -> dict[str, Any]:
    """A curve, the law fitted to it, and where its gold reward is largest, as plain numbers."""
    fits = [rlhf.fit_rl(curve.d, curve.gold), rlhf.fit_best_of_n(curve.d, curve.gold)]
    fit, other = fits if method == "RL" else reversed(fits)
    best = int(np.argmax(curve.gold))
    return {
        **what,
        "method": method,
        "alpha": fit.alpha,
        "beta_of_fit": fit.beta,
        "r_squared": fit.r_squared,
        "r_squared_of_the_other_law": other.r_squared,
        "fitted_peak": fit.peak if np.isfinite(fit.peak) else None,
        "peak": float(curve.d[best]),
        "peak_gold": float(curve.gold[best]),
        "peak_interval": [float(curve.low[best]), float(curve.high[best])],
        "final_gold": float(curve.gold[-1]),
        "final_interval": [float(curve.low[-1]), float(curve.high[-1])],
        "curve": {name: np.round(values, 5).tolist() for name, values in curve._asdict().items()},
    }


def shade(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    """Draw a gold reward with its interval."""
    band(axes, curve.d, curve.gold, (curve.low, curve.high), colour, label)


def draw_laws(rows: Sequence[Mapping[str, Any]], widths: Sequence[int], path: Path) -> None:
    """Draw gold rewards against √KL with the fitted laws, RL above and best-of-n below, a panel a reward model."""
    figure = Figure(figsize=(4.1 * len(widths), 7.4), layout="constrained")
    panels = figure.subplots(2, len(widths), sharex="row", sharey="row", squeeze=False)
    for i, method in enumerate(("RL", "best-of-n")):
        for axes, width in zip(panels[i], widths, strict=True):
            for row in (row for row in rows if row["method"] == method and row["reward_width"] == width):
                curve = Curve(*(np.asarray(values) for values in row["curve"].values()))
                colour = COLOURS[sorted({r["comparisons"] for r in rows}).index(row["comparisons"]) % len(COLOURS)]
                shade(axes, curve, colour, f"{row['comparisons']} comparisons, R² {row['r_squared']:.2f}")
                fit = rlhf.Fit(alpha=row["alpha"], beta=row["beta_of_fit"], r_squared=0, peak=0)
                fitted = (rlhf.predict_rl if method == "RL" else rlhf.predict_best_of_n)(fit, curve.d)
                axes.plot(curve.d, fitted, ":", color=colour, linewidth=1.2, zorder=5)
            axes.axhline(0, color="0.6", linewidth=0.8)
            how = "REINFORCE" if method == "RL" else "best of n"
            axes.plot([], [], ":", color="0.3", linewidth=1.2, label="the law fitted to it")
            dress(axes, f"{how}, reward model of width {width}", DISTANCE, GOLD if axes is panels[i, 0] else "")
            add_legend(axes)
    figure.savefig(path, dpi=150)


def draw_side_effects(
    penalties: Mapping[str, xr.Dataset],
    biased: Mapping[str, xr.Dataset],
    asked: Mapping[str, xr.Dataset],
    start: np.ndarray,
    path: Path,
) -> None:
    """Draw what a penalty changes, what a bias for length does, and what asking again is worth."""
    figure = Figure(figsize=(12.5, 7.4), layout="constrained")
    panels = figure.subplots(2, 3)
    for colour, (label, results) in zip(COLOURS, penalties.items(), strict=False):
        shade(panels[0, 0], curve_of(results, start), colour, label)
    dress(panels[0, 0], "with a KL penalty", DISTANCE, GOLD)
    for colour, (label, results) in zip(COLOURS, asked.items(), strict=False):
        curve = curve_of(results, start)
        updates = POINT * (np.arange(len(curve.d)) + 0.5)  # the distance may shrink again, time does not
        shade(panels[0, 1], curve._replace(d=updates), colour, label)
    dress(panels[0, 1], "asking again", "update of REINFORCE", GOLD)
    what = {
        "length": ("length", "tokens of an output"),
        "distinct_2": ("distinct bigrams", "fraction of all bigrams"),
        "self_overlap": ("bigrams that others have too", "fraction of all bigrams"),
        "entropy": ("entropy", "nats a token"),
    }
    for axes, (name, (title, ylabel)) in zip(panels.flat[2:], what.items(), strict=True):
        for colour, (label, results) in zip(COLOURS, biased.items(), strict=False):
            runs = results[name].transpose("seed", "iteration").values
            average, interval = pgjax.interquartile_mean(runs), pgjax.confidence_interval(runs)
            band(axes, np.arange(1, len(average) + 1), average, interval, colour, label)
        dress(axes, title, "update of REINFORCE", ylabel)
    for axes in panels.flat:
        add_legend(axes)
    figure.savefig(path, dpi=150)


def check(options: Options) -> None:
    """Raise unless the options can be used.

    Raises:
        InputError: If a count is below 1, or a number is out of range.
    """
    counts = {"seeds": options.seeds, "gradient steps of pretraining": options.pretraining, "rounds": options.rounds}
    launch.check_counts({**counts, "comparisons": options.comparisons})
    if not options.comparisons or not options.reward_width:
        raise pgjax.InputError("expected one or more numbers of comparisons and widths of reward models, got none")
    if options.width not in options.reward_width:
        raise pgjax.InputError(
            f"expected a width among those of reward models {options.reward_width}, got {options.width}"
        )
    if options.updates < 3 * POINT:
        raise pgjax.InputError(f"expected {3 * POINT} or more updates, for a curve, got {options.updates}")
    if options.pool < 4:
        raise pgjax.InputError(f"expected a pool of 4 or more outputs to a prompt, got {options.pool}")
    for beta in options.beta:
        if not 0 < beta < np.inf:
            raise pgjax.InputError(f"expected KL coefficients β above 0, to compare with none, got {beta}")
    for name in ("comparisons", "reward_width", "beta"):
        values = getattr(options, name)
        if len(set(values)) < len(values):
            raise pgjax.InputError(f"expected every value of {name} once, got {values}")


def main(options: Options) -> None:
    """Run the sweeps, then fit, write, draw and print what they found."""
    check(options)
    middle = sorted(options.comparisons)[len(options.comparisons) // 2]
    directories = [f"comparisons-{width}" for width in options.reward_width]
    directories += [f"pretraining-{width}" for width in options.reward_width]
    files = ["summary.json", "overoptimisation.png", "side_effects.png", "penalty", "length-bias", "rounds"]
    launch.check_directory_of_study(options.out, [*directories, *files])
    corpus = names.corpus_named(names.Texts(sentences=SENTENCES), seed=0)
    study = Study(options=options, corpus=corpus, gold=names.gold_named("words", corpus, 0), supervised={})
    room = max(options.comparisons)
    loops = {width: study.feedback(width, room, 1) for width in options.reward_width}
    for loop in loops.values():  # what cannot be used is refused before anything is computed
        people = rlhf.Annotators(options.temperature)
        loop.algorithm.hyperparameters(learning_rate=options.learning_rate, annotators=people)
    study = study._replace(supervised=pretrain(options, corpus))

    sweeps, more = {}, {}
    for width in options.reward_width:
        grid = {"comparisons": options.comparisons}
        sweeps[width] = study.sweep(f"comparisons-{width}", width, room, grid=grid)
    if options.beta:
        more["penalty"] = study.sweep("penalty", options.width, room, grid={"beta": options.beta}, comparisons=middle)
    if options.length_bias:
        more["length-bias"] = study.sweep(
            "length-bias", options.width, room, length_bias=options.length_bias, comparisons=middle
        )
    if options.rounds > 1:
        more["rounds"] = study.sweep("rounds", options.width, -(-middle // options.rounds), rounds=options.rounds)
    launch.leave_to_the_first_process()

    good, failed = failures(options, {f"comparisons-{width}": results for width, results in sweeps.items()} | more)
    seconds = sum(float(results.seconds.sum()) for results in (*sweeps.values(), *more.values()))
    whole, sweeps = sweeps, {width: results.isel(seed=good) for width, results in sweeps.items()}
    more = {name: results.isel(seed=good) for name, results in more.items()}
    once = sweeps[options.width].sel(comparisons=middle)
    rows = []
    for width in options.reward_width:
        chosen, start = best_of_n_curves(loops[width], whole[width], study, good)  # the start is the same for all
        for count, best in zip(options.comparisons, chosen, strict=True):
            here = sweeps[width].sel(comparisons=count)
            what: dict[str, Any] = {"reward_width": width, "comparisons": count}
            what |= {name: float(here[name][:, -1].mean()) for name in ("accuracy", "bayes_accuracy")}
            rows += [row_of(curve_of(here, start), "RL", **what), row_of(best, "best-of-n", **what)]
    penalties = {"β = 0": once} | {f"β = {beta:g}": more["penalty"].sel(beta=beta) for beta in options.beta}
    biased, asked = {"no bias": once}, {"asked once": once}
    if options.length_bias:
        biased[f"{options.length_bias:g} nats a token"] = more["length-bias"]
    if options.rounds > 1:
        asked[f"asked {options.rounds} times"] = more["rounds"]
    effects = []
    for label, results in (penalties | biased | asked).items():
        last = {name: results[name].transpose("seed", "iteration").values[:, -10:].mean(1)
                for name in ("gold", "proxy", "kl", "length", "distinct_2", "self_overlap", "entropy")}  # fmt: skip
        averages = {name: tables.average_of(runs) for name, runs in last.items()}
        found = {name: average["iqm"] for name, average in averages.items()}
        intervals = {name: average["interval"] for name, average in averages.items()}
        curve = curve_of(results, start)
        at = int(np.argmax(curve.gold))
        peak = {"peak": float(curve.d[at]), "peak_gold": float(curve.gold[at])}
        effects.append({"what": label, **found, **peak, "intervals": intervals})
    by_round: dict[str, list[float]] = {}
    if "rounds" in more:
        begins = range(0, options.updates, -(-options.updates // options.rounds))
        for name in ("identical_texts", "accuracy", "bayes_accuracy"):
            by_round[name] = [float(more["rounds"][name].isel(iteration=i).mean()) for i in begins]
    summary = {
        "rows": rows,
        "side_effects": effects,
        "rounds": by_round,
        "seeds": options.seeds,
        "failed_seeds": failed,
        "updates": options.updates,
        "least_r_squared": min(row["r_squared"] for row in rows),
        "device": once.attrs["device"],
        "seconds": seconds,
    }
    tables.write_json(options.out / "summary.json", summary)
    draw_laws(rows, options.reward_width, options.out / "overoptimisation.png")
    draw_side_effects(penalties, biased, asked, start, options.out / "side_effects.png")
    shown = ["reward_width", "comparisons", "method", "accuracy", "peak", "peak_gold", "final_gold"]
    shown += ["r_squared", "r_squared_of_the_other_law"]
    print(pd.DataFrame(rows)[shown].round(3).to_string(index=False))
    print(pd.DataFrame(effects).drop(columns="intervals").round(3).to_string(index=False))
    if by_round:
        print("asked again, by rounds:")
        print(pd.DataFrame(by_round, index=pd.RangeIndex(1, len(begins) + 1)).round(3).to_string())
    for name, seeds in failed.items():
        print(f"numbers that are not finite in {name}, in seeds that are left out: {tables.some(seeds)}")
    print(f"{options.seeds} seeds; {summary['seconds']:.0f} s of computing; written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
