"""What goes wrong when a learned reward is optimised? Gold and proxy reward against the distance from the start.

A reward model is fitted to comparisons, and a language model is optimised against it: by REINFORCE without a KL
penalty, and by best-of-n sampling. At first the gold reward rises with what the model says they want
(the proxy); then only the proxy does. This asks how that depends on the number of comparisons and on the size of the
reward model, which law describes it, what a KL penalty changes, what happens to diversity and length where annotators
like length, and what it helps to ask annotators again as the model changes.

Each run has a gold reward, language models and comparisons of its own, all drawn with its seed, so intervals are of all
of that; the grammar is one, which --grammar names. The settings were chosen with grammar 0 and the gold reward of seed
0, which are not those of the default.

Writes a directory of results for each run, summary.json, overoptimisation.png and side_effects.png into the directory
--out, and prints tables. The same command again goes on where it was stopped.
"""

from collections.abc import Mapping
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
from common import launch, tables
from common.overoptimised import METHODS, Curves, laws_of, row_of, trends_of
from pgjax import rlhf
from pgjax.analysis import mean_interval
from pgjax.analysis.plotting import add_legend, band, dress
from pgjax.devices import use_every_core
from pgjax.environments.drawings import COLOURS


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is optimised; a reward model begins as a language model of its size, which is pretrained for it."""

    seeds: int = 8
    first_seed: int = 1
    grammar: int = 1
    """Seed of the grammar, whose sentences all language models learn from."""
    comparisons: tuple[int, ...] = (256, 1024, 4096)
    """Numbers of comparisons that a reward model is fitted to."""
    reward_width: tuple[int, ...] = (16, 32)
    """Widths of reward models, transformers of two layers."""
    width: int = 32
    """Width of the language model that is optimised, one of the reward models'."""
    updates: int = 200
    """Updates of REINFORCE."""
    pretraining: int = 500
    """Gradient steps of supervised pretraining, rounded up to a multiple of 50."""
    learning_rate: float = 5e-4
    """Learning rate η of REINFORCE."""
    beta: tuple[float, ...] = (0.1,)
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

    @property
    def middle(self) -> int:
        """The number of comparisons with which everything else is varied."""
        return sorted(self.comparisons)[len(self.comparisons) // 2]


LENGTH = 24  # tokens of an output
PROMPTS = 8  # of the pool
SENTENCES = 4096
PRETRAINING_STEPS = 50  # of an update
POINT = 5  # updates that a point of a curve is the mean of
DISTANCE, GOLD = "d = √KL(f ‖ f_SL) (√nats)", "gold reward above f_SL's"  # axes of figures


class Numbers(NamedTuple):
    """The numbers of a run: what words are worth to people, and those of the loop."""

    worth: Any  # of each word of the language, [words]
    loop: rlhf.FeedbackHyperparameters


class State(NamedTuple):
    """What a run carries."""

    worth: jax.Array  # [words]
    loop: Any

    @property
    def params(self) -> rlhf.Tuned:
        """What the loop ends with."""
        return self.loop.params  # type: ignore[no-any-return]


class Study(NamedTuple):
    """What all runs share, and what each has of its own."""

    options: Options
    corpus: pgjax.text.Corpus
    worth: np.ndarray  # of each word, [runs, words] float32
    supervised: dict[int, Any]  # by width: θ_SL, [runs, ...]

    def language_model(self, width: int) -> tuple[pgjax.Policy, pgjax.text.TransformerConfig]:
        """The language model of a width, and its configuration."""
        return pgjax.text.language_model(self.corpus, LENGTH, width, layers=2, heads=4)

    def feedback(self, worth: Any, reward_width: int, rounds: int) -> rlhf.Feedback:
        """The loop with people to whom words are worth this: REINFORCE on what a reward model of a width says."""
        options, grammar = self.options, pgjax.text.grammar(self.options.grammar)
        return rlhf.feedback(
            self.language_model(options.width)[0],
            rlhf.reward_model(self.language_model(reward_width)[1]),
            rlhf.word_values(grammar.tokenizer, grammar.words, worth),
            self.corpus.prompts,
            rlhf.FeedbackSettings(
                vocabulary=grammar.tokenizer.vocabulary,
                length=LENGTH,
                rounds=rounds,
                updates=-(-options.updates // rounds),
                rankings=max(options.comparisons) if rounds == 1 else -(-options.middle // rounds),
                # The supervised model repeats itself in one pair of a hundred; what was optimised, in most of them.
                drawn=2 if rounds == 1 else 16,
                evaluated=PROMPTS * options.pool,
                candidates=options.pool,
            ),
        )

    def numbers(self, reward_width: int, rounds: int = 1, length_bias: float = 0.0, **numbers: Any) -> Numbers:
        """The numbers of a run; no penalty and no bias unless named."""
        loop = self.feedback(self.worth[0], reward_width, rounds).algorithm
        people = rlhf.Annotators(self.options.temperature, length_bias=length_bias)
        values = {"learning_rate": self.options.learning_rate, "beta": 0.0} | numbers
        return Numbers(self.worth[0], loop.hyperparameters(**values, annotators=people))

    def algorithm(self, reward_width: int, rounds: int = 1) -> pgjax.Algorithm:
        """The loop as an algorithm in which what words are worth is a number like any other."""

        def loop(worth: Any) -> pgjax.Algorithm:
            return self.feedback(worth, reward_width, rounds).algorithm

        def init(key: jax.Array, numbers: Numbers) -> State:
            return State(numbers.worth, loop(numbers.worth).init(key, numbers.loop))

        def update(state: State) -> tuple[State, Any]:
            after, metrics = loop(state.worth).update(state.loop)
            return State(state.worth, after), metrics

        return pgjax.Algorithm(init, update, lambda **values: self.numbers(reward_width, rounds, **values))

    def sweep(self, name: str, reward_width: int, grid: Mapping[str, Any], rounds: int = 1, **what: Any) -> xr.Dataset:
        """Run the loop for every seed at every point of a grid."""
        options, supervised = self.options, self.supervised
        print(name, flush=True)
        bodies = {"loop.supervised": supervised[options.width], "loop.reward_body": supervised[reward_width]}
        return pgjax.sweep(
            self.algorithm(reward_width, rounds),
            iterations=options.updates,
            seeds=launch.seeds_of(options),
            grid={f"loop.{name}": values for name, values in grid.items()},
            by_seed={"worth": self.worth, **bodies},
            hyperparameters=self.numbers(reward_width, rounds, **what),
            study=options.study,
            out=options.out / name,
            configuration={"what": name, "width": options.width, "reward_width": reward_width, "rounds": rounds,
                           "grammar": options.grammar, "pretraining": options.pretraining},
            block=options.block,
        )  # fmt: skip


def study_of(options: Options) -> Study:
    """The language of all runs, and what its words are worth in each."""
    grammar = pgjax.text.grammar(options.grammar)
    corpus = pgjax.text.grammar_corpus(grammar, jax.random.key(options.grammar), SENTENCES)
    worth = [np.random.default_rng([seed, 1]).normal(size=len(grammar.words)) for seed in launch.seeds_of(options)]
    values = np.asarray(worth, np.float32)
    return Study(options, corpus, values - values.mean(1, keepdims=True), supervised={})


def pretrained(study: Study) -> Study:
    """The study with θ_SL of each run and width."""
    options, found = study.options, {}
    for width in options.reward_width:
        policy, _ = study.language_model(width)
        algorithm = pgjax.text.pretraining(policy, study.corpus.texts, steps=PRETRAINING_STEPS)
        print(f"pretraining-{width}", flush=True)
        results = pgjax.sweep(
            algorithm,
            iterations=-(-options.pretraining // PRETRAINING_STEPS),
            seeds=launch.seeds_of(options),
            hyperparameters=algorithm.hyperparameters(learning_rate=3e-3),
            study=launch.study_of_pretraining(options),
            out=options.out / f"pretraining-{width}",
            configuration={"what": "pretraining", "width": width, "grammar": options.grammar, "sentences": SENTENCES},
            block=options.block,
        )
        found[width] = pgjax.load_params(results, jax.eval_shape(policy.init, jax.random.key(0)))
    return study._replace(supervised=found)


def sweeps_of(study: Study) -> dict[str, xr.Dataset]:
    """All that is done with REINFORCE, by name."""
    options, found = study.options, {}
    width, middle = options.width, {"comparisons": options.middle}
    for reward_width in options.reward_width:
        name = f"comparisons-{reward_width}"
        found[name] = study.sweep(name, reward_width, {"comparisons": options.comparisons})
    if options.beta:
        found["penalty"] = study.sweep("penalty", width, {"beta": options.beta}, **middle)
    if options.length_bias:
        found["length-bias"] = study.sweep("length-bias", width, {}, length_bias=options.length_bias, **middle)
    if options.rounds > 1:
        found["rounds"] = study.sweep("rounds", width, {}, options.rounds)
    return found


def sizes_of_n(options: Options) -> np.ndarray:
    """The n of best-of-n, up to the whole pool."""
    return np.unique(np.round(np.geomspace(1, options.pool, 20)).astype(int))


def best_of_n(study: Study, results: xr.Dataset, reward_width: int) -> np.ndarray:
    """What the best of n of the supervised model's outputs are worth, [comparisons, runs, n]; the first n is 1."""
    options, numbers = study.options, study.numbers(reward_width)
    init = study.algorithm(reward_width).init
    like = jax.eval_shape(lambda key: init(key, numbers).params, jax.random.key(0))

    def one(key: jax.Array, worth: jax.Array, tuned: rlhf.Tuned, supervised: Any) -> jax.Array:
        evaluate = study.feedback(worth, reward_width, 1).evaluate
        found = evaluate(key, supervised, tuned.reward, supervised)
        gold, proxy = (jnp.asarray(values).reshape(PROMPTS, options.pool) for values in (found.gold, found.proxy))
        over_prompts = jax.vmap(rlhf.best_of_n, (0, 0, None))
        return jax.lax.map(lambda n: over_prompts(proxy, gold, n).mean(), jnp.asarray(sizes_of_n(options)))

    own = launch.keys_after_training(options), study.worth
    over_runs, supervised = pgjax.over_runs(one, block=1), study.supervised[options.width]
    fitted = [pgjax.load_params(results, like, point={"loop.comparisons": count}) for count in options.comparisons]
    return np.stack([over_runs(*own, tuned, supervised) for tuned in fitted])


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


def curves_of(results: xr.Dataset, start: np.ndarray) -> Curves:
    """How REINFORCE went, each point over some updates.

    Args:
        results: A sweep's, at one point of its grid.
        start: The gold reward of each run's supervised model, [runs].
    """
    kept = results.sizes["iteration"] // POINT * POINT

    def by_point(name: str) -> np.ndarray:
        values = results[name].transpose("seed", "iteration").values[:, :kept]
        return values.reshape(len(values), -1, POINT).mean(-1)

    return Curves(kl=by_point("kl"), gold=by_point("gold") - start[:, None])


def variant_of(label: str, results: xr.Dataset, once: xr.Dataset, start: np.ndarray) -> dict[str, Any]:
    """How a variant ends, over its last 10 updates, and how that differs from asking once without a penalty."""

    def last(of: xr.Dataset, name: str) -> np.ndarray:
        return of[name].transpose("seed", "iteration").values[:, -10:].mean(1)

    what = ("kl", "length", "entropy", "distinct_2", "self_overlap")
    ours, theirs = curves_of(results, start), curves_of(once, start)
    as_far = theirs.kl >= ours.kl[:, -1:]  # where the run without a penalty is as far away as this one is at its end
    there = ours.gold[:, -1] - theirs.gold[np.arange(len(as_far)), np.argmax(as_far, axis=1)]
    there = there[as_far.any(axis=1)]
    return {
        "what": label,
        "gold": mean_interval(last(results, "gold") - start),
        **{name: mean_interval(last(results, name)) for name in what},
        "more": {name: mean_interval(last(results, name) - last(once, name)) for name in ("gold", *what)},
        "more_gold_at_its_distance": mean_interval(there) if len(there) else None,
        "runs_that_came_as_far": len(there),
    }


def shade(axes: Axes, x: np.ndarray, runs: np.ndarray, colour: str, label: str) -> None:
    """Draw the mean of runs [runs, points] with its interval."""
    mean, low, high = pd.DataFrame([mean_interval(values) for values in runs.T]).to_numpy(float).T
    band(axes, x, mean, (low, high), colour, label)


def draw_curves(cells: Mapping[tuple[str, int, int], Curves], options: Options, path: Path) -> None:
    """Draw gold rewards against √KL with their peaks, a row a method, a panel a reward model."""
    figure = Figure(figsize=(4.6 * len(options.reward_width), 7.2), layout="constrained")
    panels = figure.subplots(2, len(options.reward_width), sharex="row", sharey="row", squeeze=False)
    for row, method in zip(panels, METHODS, strict=True):
        for axes, width in zip(row, options.reward_width, strict=True):
            for i, count in enumerate(options.comparisons):
                curves, colour = cells[method, width, count], COLOURS[i % len(COLOURS)]
                d, gold = curves.mean()
                shade(axes, d, curves.gold, colour, f"{count} comparisons")
                axes.plot(curves.peak(), gold.max(), "osD^v"[i % 5], color=colour, markersize=7, zorder=5)
            axes.axhline(0, color="0.6", linewidth=0.8)
            dress(axes, f"{method}, reward model of width {width}", DISTANCE, GOLD if axes is row[0] else "")
            add_legend(axes)
    figure.savefig(path, dpi=150)


def draw_variants(variants: Mapping[str, xr.Dataset], start: np.ndarray, path: Path) -> None:
    """Draw the gold reward, the length and the entropy of what was varied."""
    figure = Figure(figsize=(12.5, 4.0), layout="constrained")
    titles = {"gold": ("gold reward", GOLD), "length": ("length", "tokens of an output")}
    titles |= {"entropy": ("entropy", "nats a token")}
    panels = figure.subplots(1, len(titles))
    for axes, (name, (title, ylabel)) in zip(panels, titles.items(), strict=True):
        for colour, (label, results) in zip(COLOURS, variants.items(), strict=False):
            runs = results[name].transpose("seed", "iteration").values - (start[:, None] if name == "gold" else 0)
            shade(axes, np.arange(1, runs.shape[1] + 1), runs, colour, label)
        dress(axes, title, "update of REINFORCE", ylabel)
    add_legend(panels[0])
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
    ours = ["summary.json", "overoptimisation.png", "side_effects.png", "penalty", "length-bias", "rounds"]
    for width in options.reward_width:
        ours += [f"comparisons-{width}", f"pretraining-{width}"]
    launch.check_directory_of_study(options.out, ours)


def variants_of(options: Options, sweeps: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """What was done with one reward model's width and number of comparisons; the first is what others differ from."""
    found = {"once, no penalty": sweeps[f"comparisons-{options.width}"].sel({"loop.comparisons": options.middle})}
    found |= {f"β = {beta:g}": sweeps["penalty"].sel({"loop.beta": beta}) for beta in options.beta}
    if options.length_bias:
        found[f"{options.length_bias:g} nats a token"] = sweeps["length-bias"]
    if options.rounds > 1:
        found[f"asked {options.rounds} times"] = sweeps["rounds"]
    return found


def rounds_of(options: Options, sweeps: Mapping[str, xr.Dataset]) -> list[dict[str, float]]:
    """What was measured in each round, means over runs."""
    begins = range(0, options.updates, -(-options.updates // options.rounds))
    measured = ("identical_texts", "accuracy", "bayes_accuracy")
    return [{name: float(sweeps["rounds"][name].isel(iteration=i).mean()) for name in measured} for i in begins]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the summary as a printed table has it."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and "low" in value:
            interval = None if value["low"] is None else [value["low"], value["high"]]
            found[name] = f"{tables.written(value['mean'], '.3g')} {tables.written_interval(interval)}"
        elif isinstance(value, Mapping):
            found |= {f"{name} {inner}": shown for inner, shown in flat(value).items()} if name != "curve" else {}
        elif isinstance(value, list):
            found[name] = tables.written_interval(value)
        else:
            found[name] = tables.written(value, ".3g") if isinstance(value, float) else value
    return found


def main(options: Options) -> None:
    """Run the sweeps, then compare, write, draw and print what they found."""
    check(options)
    study = study_of(options)
    for width in options.reward_width:  # what cannot be used is refused before anything is computed
        study.numbers(width)
    study = pretrained(study)
    whole = sweeps_of(study)
    launch.leave_to_the_first_process()
    good, failed = failures(options, whole)
    sweeps = {name: results.isel(seed=good) for name, results in whole.items()}
    best = {width: best_of_n(study, whole[f"comparisons-{width}"], width)[:, good] for width in options.reward_width}
    start = next(iter(best.values()))[0, :, 0]
    kl = np.broadcast_to(rlhf.best_of_n_kl(sizes_of_n(options)), (len(start), len(sizes_of_n(options))))
    cells, rows = {}, []
    for width in options.reward_width:
        for golds, count in zip(best[width], options.comparisons, strict=True):
            here = sweeps[f"comparisons-{width}"].sel({"loop.comparisons": count})
            cells["REINFORCE", width, count] = curves_of(here, start)
            cells["best of n", width, count] = Curves(kl, golds - start[:, None])
            what = {"reward_width": width, "comparisons": count, "accuracy": float(here.accuracy[:, -1].mean())}
            rows += [row_of(cells[method, width, count], method, **what) for method in METHODS]
    variants = variants_of(options, sweeps)
    once = next(iter(variants.values()))
    summary = {
        "rows": rows,
        "trends": trends_of(cells),
        "laws": [
            laws_of(method, [curves for cell, curves in cells.items() if cell[0] == method]) for method in METHODS
        ],
        "variants": [variant_of(label, results, once, start) for label, results in variants.items()],
        "rounds": rounds_of(options, sweeps) if options.rounds > 1 else [],
        "bayes_accuracy": float(once.bayes_accuracy[:, -1].mean()),
        "start": mean_interval(start),
        "seeds": list(launch.seeds_of(options)),
        "failed_seeds": failed,
        "updates": options.updates,
        "device": once.attrs["device"],
        "seconds": sum(float(results.seconds.sum()) for results in whole.values()),
    }
    tables.write_json(options.out / "summary.json", summary)
    draw_curves(cells, options, options.out / "overoptimisation.png")
    draw_variants(variants, start, options.out / "side_effects.png")
    for name in ("rows", "trends", "laws", "variants", "rounds"):
        print(pd.DataFrame([flat(row) for row in summary[name]]).to_string(index=False), end="\n\n")
    for name, numbers in failed.items():
        print(f"numbers that are not finite in {name}, in seeds that are left out: {tables.some(numbers)}")
    print(f"{options.seeds} seeds; {summary['seconds']:.0f} s of computing; written to {options.out}")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
