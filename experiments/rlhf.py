"""Can a language model be made to write what people like? The whole of RLHF from nothing, for many seeds at once.

The lecture's five steps: supervised pretraining, then sample outputs, collect rankings of them, model the rankings,
optimise the model, and repeat. What people want is a gold reward that can be computed, and that only simulated
annotators see; so at the end it can be said whether the model got better at it: REINFORCE against the learned reward,
and best-of-n sampling with it, both against the supervised model.

Writes a directory of results for each of the two sweeps, summary.json, samples.txt, rankings.jsonl (some of the
annotators', in the format that --rankings reads) and rlhf.png into the directory --out, and prints samples and a table.
The same command again goes on where it was stopped. With the defaults it takes about three minutes on two cores.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import pgjax
from pgjax import commandline, rlhf
from pgjax.plotting import COLOURS, add_legend, band, dress


@dataclass(frozen=True)
class Options:
    """What is written, liked, ranked and learned."""

    corpus: str = "grammar"
    """Texts: grammar (seeded, its entropy is known), python-docs (the prose of Python's help), or a file of text."""
    gold: str = "words"
    """What people want: words (those of the grammar have values, else frequent words), length, or letters:LETTERS."""
    seeds: int = 8
    """Runs of everything."""
    first_seed: int = 0
    """Number of the first run; the others follow it."""
    width: int = 32
    """Width of the transformers: of the language model and of the reward model."""
    layers: int = 2
    """Layers of both."""
    heads: int = 4
    """Heads in each layer."""
    length: int = 24
    """Tokens of an output at most, eos included."""
    context: int = 64
    """Tokens of a text of the corpus, where it is no grammar."""
    prompt_words: int = 1
    """Words of a prompt, which an output goes on from; 0 for none."""
    sentences: int = 4096
    """Sentences of the grammar to pretrain on."""
    pretraining: int = 1000
    """Gradient steps of supervised pretraining, rounded up to a multiple of 50."""
    pretraining_rate: float = 3e-3
    """Learning rate η of supervised pretraining."""
    rounds: int = 2
    """Rounds: how often people are asked."""
    updates: int = 60
    """Updates of REINFORCE in each round."""
    comparisons: int = 1024
    """Rankings of a round."""
    ranked: int = 2
    """Outputs that are ranked together."""
    rankings: Path | None = None
    """File of rankings by people, of at most --ranked outputs each, that are fitted too; by default none."""
    annotators: int = 1
    """Annotators that share the rankings."""
    temperature: float = 0.7
    """Temperature τ of the annotators' choice: a difference of τ in the gold reward is one nat of preference."""
    position_bias: float = 0.0
    """Nats of preference for each place that an output is shown earlier."""
    length_bias: float = 0.0
    """Nats of preference for each token of an output."""
    disagreement: float = 0.0
    """Weight of each annotator's own taste, whose judgement of an output is of the order of a nat."""
    members: int = 1
    """Reward models of the ensemble."""
    episodes: int = 64
    """Episodes of an update of REINFORCE, each an output."""
    same_prompt: int = 4
    """Outputs of an update that have the same prompt; they are each other's baseline."""
    baseline: commandline.TextBaselineName = "leave-one-out"
    """What is subtracted from a return; a learned value is a transformer of its own."""
    learning_rate: float = 1e-3
    """Learning rate η of REINFORCE."""
    beta: float = 0.05
    """Coefficient β of the KL penalty; with a target, its first value."""
    kl_target: float = 0.0
    """KL in nats a text that β is steered to; 0 to leave β as it is."""
    best_of: int = 16
    """Outputs n that best-of-n sampling chooses from, at most 32."""
    top_p: float = 1.0
    """Probability of the likeliest tokens that samples are shown from."""
    study: int = 0
    """Number of the study; runs of two studies have no randomness in common."""
    block: int = 2
    """Runs vmapped together on a device."""
    out: Path = Path("results/rlhf")
    """Directory to write into: a new one, or one that the same study has written."""


CANDIDATES = 32  # outputs to each prompt, of which the best of n is chosen
PROMPTS = 64  # that models are compared on
SHOWN = 8  # samples
STORED = 64  # rankings
PRETRAINING_STEPS = 50  # of an update


def check(options: Options) -> None:
    """Raise unless the options can be used.

    Raises:
        InputError: If a count or a number is out of range.
    """
    commandline.check_counts({"seeds": options.seeds, "gradient steps of pretraining": options.pretraining})
    if not 0 < options.top_p <= 1:
        raise pgjax.InputError(f"expected a probability above 0 and at most 1 for samples, got {options.top_p}")
    if not 1 <= options.best_of <= CANDIDATES:
        raise pgjax.InputError(f"expected n from 1 to {CANDIDATES} for best-of-n, got {options.best_of}")


def pretrain(options: Options, corpus: rlhf.Corpus, policy: pgjax.Policy) -> xr.Dataset:
    """Return the sweep of supervised pretraining."""
    algorithm = rlhf.pretraining(policy, corpus.texts, steps=PRETRAINING_STEPS)
    print(f"1. supervised pretraining on {len(corpus.texts)} texts of {corpus.name}", flush=True)
    return pgjax.sweep(
        algorithm,
        iterations=-(-options.pretraining // PRETRAINING_STEPS),
        seeds=commandline.seeds_of(options),
        hyperparameters=algorithm.hyperparameters(learning_rate=options.pretraining_rate),
        study=commandline.study_of_pretraining(options),
        out=options.out / "pretraining",
        configuration={
            "corpus": corpus.name,
            "texts": rlhf.digest(corpus.texts.tobytes().hex()),
            "model": [options.width, options.layers, options.heads, options.length],
        },
        block=options.block,
    )


def people_of(options: Options) -> rlhf.Annotators:
    """Return how people choose."""
    return rlhf.Annotators(options.temperature, options.position_bias, options.length_bias, options.disagreement)


def tune(options: Options, loop: rlhf.Feedback, supervised: Any, corpus: rlhf.Corpus, given: Any) -> xr.Dataset:
    """Return the sweep of the rounds of feedback."""
    print(
        f"2. {options.rounds} rounds: sample, rank {options.comparisons} times, model the rankings, "
        f"{options.updates} updates of REINFORCE",
        flush=True,
    )
    numbers = loop.algorithm.hyperparameters(
        learning_rate=options.learning_rate,
        beta=options.beta,
        kl_target=options.kl_target,
        annotators=people_of(options),
    )
    names = ("gold", "width", "layers", "heads", "length", "rounds", "updates", "comparisons", "ranked", "annotators",
             "members", "episodes", "same_prompt", "baseline")  # fmt: skip
    configuration = {name: getattr(options, name) for name in names}
    if given is not None:
        configuration["rankings"] = rlhf.digest(np.asarray(given.tokens).tobytes().hex() + str(given.order.tolist()))
    return pgjax.sweep(
        loop.algorithm,
        iterations=options.rounds * options.updates,
        seeds=commandline.seeds_of(options),
        by_seed={"supervised": supervised, "reward_body": supervised},
        hyperparameters=numbers,
        study=options.study,
        out=options.out / "feedback",
        configuration={"corpus": corpus.name, "prompts": rlhf.digest(corpus.prompts.tobytes().hex()), **configuration},
        block=options.block,
    )


def side_by_side(
    corpus: rlhf.Corpus, before: Any, after: Any, best: np.ndarray, width: int, gold: rlhf.Gold
) -> list[dict[str, Any]]:
    """Return samples to the same prompts as texts, with the gold reward of each."""
    rows = []
    columns = {"f_SL": before, "REINFORCE": after, "best of n": best}
    worth = {
        name: np.asarray(gold(jnp.asarray(tokens), rlhf.output_of(jnp.asarray(tokens), width)))
        for name, tokens in columns.items()
    }
    for i in range(len(before)):
        row: dict[str, Any] = {"prompt": corpus.tokenizer.decode(before[i, :width])}
        for name, tokens in columns.items():
            row[name] = f"{corpus.tokenizer.decode(tokens[i, width:])} ({worth[name][i]:.2f})"
        rows.append(row)
    return rows


def draw(
    pretrained: xr.Dataset,
    tuned: xr.Dataset,
    corpus: rlhf.Corpus,
    gold: dict[str, Any],
    best_of: int,
    trust: Any,
    path: Path,
) -> None:
    """Draw the four stages, each with its 95% interval over seeds, and save them as PNG."""
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    panels = figure.subplots(2, 2)

    def curve(axes: Axes, results: xr.Dataset, name: str, colour: str, label: str, each: int = 1) -> None:
        runs = results[name].transpose("seed", "iteration").values
        x = each * np.arange(1, runs.shape[1] + 1)
        band(axes, x, pgjax.interquartile_mean(runs), pgjax.confidence_interval(runs), colour, label)

    curve(panels[0, 0], pretrained, "held_out_loss", COLOURS[1], "held-out texts", PRETRAINING_STEPS)
    if corpus.grammar is not None:
        panels[0, 0].axhline(corpus.grammar.floor, color="0.35", linestyle="--", label="entropy of the grammar")
    curve(panels[0, 1], tuned, "gold", COLOURS[0], "REINFORCE")
    levels = {"sft": "f_SL", "best_of_n": f"best of {best_of}"}
    for (name, label), style in zip(levels.items(), ("--", ":"), strict=True):
        panels[0, 1].axhline(gold[name]["mean"], color="0.35", linestyle=style, label=label)
    curve(panels[1, 0], tuned, "kl", COLOURS[2], "KL(f ‖ f_SL)")
    curve(panels[1, 0], tuned, "proxy", COLOURS[3], "learned reward, above f_SL's")
    panels[1, 1].plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    panels[1, 1].plot(
        trust.predicted, trust.preferred, "o-", color=COLOURS[4], linewidth=1.8, label="pairs of f_SL's outputs"
    )
    titles = {
        "supervised pretraining": ("gradient steps", "cross-entropy (nats a token)"),
        "what people want": ("update of REINFORCE", "gold reward (mean over outputs)"),
        "what is optimised": ("update of REINFORCE", "KL (nats a text), learned reward (deviations)"),
        f"reward model: calibration error {trust.error:.3f}": (
            "σ(r₁ − r₂), the model's probability that the first is preferred",
            "fraction of pairs whose first is preferred",
        ),
    }
    for axes, (title, (xlabel, ylabel)) in zip(panels.flat, titles.items(), strict=True):
        dress(axes, title, xlabel, ylabel)
        add_legend(axes)
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Pretrain, tune, then compare, write, draw and print."""
    begun = time.perf_counter()
    check(options)
    files = ["pretraining", "feedback", "summary.json", "samples.txt", "rankings.jsonl", "rlhf.png"]
    commandline.check_directory_of_study(options.out, files)
    corpus = commandline.corpus_named(
        options.corpus, seed=0, sentences=options.sentences, length=options.context, prompt_words=options.prompt_words
    )
    gold = commandline.gold_named(options.gold, corpus, seed=0)
    W, V = corpus.prompts.shape[1], corpus.tokenizer.vocabulary
    policy, sizes = rlhf.language_model(corpus, options.length, options.width, options.layers, options.heads)
    given = None
    if options.rankings is not None:
        given, _ = rlhf.load_rankings(options.rankings, corpus.tokenizer, W, options.length, options.ranked)
    loop = rlhf.feedback(
        policy,
        rlhf.reward_model(sizes),
        gold,
        corpus.prompts,
        vocabulary=V,
        length=options.length,
        rounds=options.rounds,
        updates=options.updates,
        rankings=options.comparisons,
        outputs=options.ranked,
        given=given,
        annotators=options.annotators,
        members=options.members,
        episodes=options.episodes,
        same_start=options.same_prompt,
        evaluated=PROMPTS * CANDIDATES,
        candidates=CANDIDATES,
        baseline=commandline.text_baseline_named(options.baseline, options.same_prompt, sizes),
    )
    loop.algorithm.hyperparameters(  # what cannot be used is refused before anything is computed
        learning_rate=options.learning_rate,
        beta=options.beta,
        kl_target=options.kl_target,
        annotators=people_of(options),
    )
    pretrained = pretrain(options, corpus, policy)
    like = jax.eval_shape(policy.init, jax.random.key(0))
    supervised = pgjax.load_params(pretrained, like)
    results = tune(options, loop, supervised, corpus, given)
    commandline.leave_to_the_first_process()

    print("3. fresh outputs of the supervised and of the tuned model", flush=True)
    numbers = loop.algorithm.hyperparameters()
    kept = jax.eval_shape(lambda key: loop.algorithm.init(key, numbers).params, jax.random.key(0))
    tuned = pgjax.load_params(results, kept)
    people = people_of(options)

    def compare(key: jax.Array, tuned: rlhf.Tuned, supervised: Any) -> dict[str, Any]:
        before = loop.evaluate(key, supervised, tuned.reward, supervised)
        after = loop.evaluate(key, tuned.policy, tuned.reward, supervised)
        proxy, worth, length = (
            values.reshape(PROMPTS, CANDIDATES) for values in (before.proxy, before.gold, before.length)
        )
        best = jax.vmap(rlhf.best_of_n, (0, 0, None))(proxy, worth, options.best_of)
        # Pairs of outputs to one prompt, as others with the same biases, and tastes of their own, would judge them.
        pairs = [values.reshape(-1, 2) for values in (proxy * tuned.reward.spread, worth, length)]
        outputs = before.tokens.reshape(len(pairs[1]), 2, -1)
        inside = rlhf.output_of(before.tokens, W).reshape(outputs.shape)
        who = jax.random.randint(jax.random.fold_in(key, 2), (len(outputs),), 0, options.annotators)
        taste = rlhf.tastes(jax.random.fold_in(key, 3), outputs, inside, who, options.annotators, V)
        likes = rlhf.utilities(people, pairs[1], pairs[2], taste)
        order = rlhf.rank(jax.random.fold_in(key, 1), likes)
        differ = jnp.any(outputs[:, 0] != outputs[:, 1], axis=-1)  # nobody can say which of two equal texts is better
        first_of = jnp.argmax(proxy[:, : options.best_of], axis=1) + jnp.arange(PROMPTS) * CANDIDATES
        return {
            "sft": before.gold.mean(),
            "rl": after.gold.mean(),
            "best_of_n": best.mean(),
            "kl": after.kl.mean(),
            "lengths": jnp.stack([before.length.mean(), after.length.mean()]),
            "pairs": (pairs[0], order),
            "differ": differ,
            "accuracy": rlhf.pair_accuracy(pairs[0], order, differ),
            "ceiling": rlhf.accuracy_ceiling(likes, differ),
            "tokens": tuple(tokens[::CANDIDATES] for tokens in (before.tokens, after.tokens)),
            "best": before.tokens[first_of],
            "compared": outputs,
        }

    keys = commandline.keys_after_training(options)
    found = jax.tree.map(np.asarray, pgjax.over_runs(compare, block=1)(keys, tuned, supervised))
    rewards = {name: pgjax.mean_interval(found[name]) for name in ("sft", "rl", "best_of_n")}
    scores, order = (values.reshape(-1, 2) for values in found["pairs"])
    trust = rlhf.calibration(scores, order, found["differ"].reshape(-1))
    before, after = (tokens[0, :SHOWN] for tokens in found["tokens"])
    if options.top_p < 1:
        likely = jax.jit(rlhf.outputs(loop.environment, pgjax.top_p(policy, options.top_p), SHOWN))
        before, after = (
            np.asarray(likely(keys[0], jax.tree.map(lambda leaf: leaf[0], params), loop.environment.params))
            for params in (supervised, tuned.policy)
        )
    shown = side_by_side(corpus, before, after, found["best"][0, :SHOWN], W, gold)
    generated = float(results.steps.sum())
    seconds = float(results.seconds.sum())
    summary = {
        "corpus": corpus.name,
        "gold": rewards,
        "kl": pgjax.mean_interval(found["kl"]),
        "best_of_n": options.best_of,
        "best_of_n_kl": float(rlhf.best_of_n_kl(options.best_of)),
        "reward_model_accuracy": float(found["accuracy"].mean()),
        "accuracy_ceiling": float(found["ceiling"].mean()),
        "calibration_error": trust.error,
        "length": {"sft": float(found["lengths"][:, 0].mean()), "rl": float(found["lengths"][:, 1].mean())},
        "negative_log_likelihood": float(pretrained.held_out_loss.values[:, -1].mean()),
        "floor": None if corpus.grammar is None else corpus.grammar.floor,
        "seeds": options.seeds,
        "seconds": {"pretraining": float(pretrained.seconds.sum()), "feedback": seconds,
                    "all": time.perf_counter() - begun},
        "tokens_per_second": generated / seconds,
        "device": results.attrs["device"],
    }  # fmt: skip
    commandline.write_json(options.out / "summary.json", summary)
    table = pd.DataFrame(shown).to_string(index=False, justify="left")
    commandline.write_text(options.out / "samples.txt", table + "\n")
    first = np.flatnonzero(found["differ"][0])[:STORED]
    everyone = np.ones(len(first), bool), np.zeros(len(first), int)
    some = rlhf.Rankings(found["compared"][0, first], found["pairs"][1][0, first], *everyone)
    rlhf.save_rankings(options.out / "rankings.jsonl", some, corpus.tokenizer, W, ["simulated"])
    draw(pretrained, results, corpus, rewards, options.best_of, trust, options.out / "rlhf.png")
    print(table)
    names = {"sft": "f_SL", "rl": "REINFORCE", "best_of_n": f"best of {options.best_of}"}
    lines = [{"model": name, **{k: f"{v:.3f}" for k, v in rewards[key].items()}} for key, name in names.items()]
    print(pd.DataFrame(lines).to_string(index=False))
    print(
        f"KL(f ‖ f_SL) {summary['kl']['mean']:.2f} nats a text; the reward model orders "
        f"{summary['reward_model_accuracy']:.1%} of pairs as people do, {summary['accuracy_ceiling']:.1%} at best"
    )
    print(
        f"{summary['tokens_per_second'] / 1e3:.1f} k tokens/s in the rounds; {summary['seconds']['all']:.0f} s in all; "
        f"written to {options.out}"
    )


if __name__ == "__main__":
    commandline.use_every_core()
    commandline.run(main, Options, __doc__)
