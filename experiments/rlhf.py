"""Can a language model be made to write what annotators prefer? The whole of RLHF from nothing, for many seeds at once.

The lecture's five steps: supervised pretraining, then sample outputs, collect rankings of them, model the rankings,
optimise the model, and repeat. Their true reward, the gold reward, is one that can be computed, and that only simulated
annotators see; so at the end it can be said whether the model got better at it: REINFORCE against the learned reward,
and best-of-n sampling with it, both against the supervised model.

People may rank instead: at a page in each round, while this waits (--people 100), or before (--rankings FILE). Then
nobody is simulated, unless --comparisons asks for it, and the reward model is measured on what people said of a fifth
of the prompts, none of which it was fitted to.

With texts of your own: --corpus FILE --tokenizer bpe:2000 learns from a text in subwords, --corpus FILE.jsonl from
completions of prompts, and --rankings also reads preferences, {"prompt": …, "chosen": …, "rejected": …}. With a model
of your own: --model model.safetensors --tokenizer tokenizer.json begins with the weights of a model of GPT-2's family.

Writes a directory of results for each of the two sweeps, summary.json, samples.txt, rankings.jsonl (some of the
simulated annotators', in the format that --rankings reads), rlhf.png and a tokenizer of subwords into the directory
--out, and prints samples and a table. The same command again goes on where it was stopped. With the defaults it takes
about three minutes on two cores.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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
from common import asking, launch, names, pretraining, rounds, tables
from pgjax import rlhf
from pgjax.analysis.plotting import add_legend, band, dress
from pgjax.devices import use_every_core
from pgjax.environments.drawings import COLOURS
from pgjax.text.language_models import unjudged


@dataclass(frozen=True)
class Options(names.Texts, asking.Asking, launch.Runs):
    """What is written, liked, ranked and learned."""

    gold: str = "words"
    """The gold reward: words (those of the grammar have values, else frequent words), length,
    or letters:LETTERS; none if only people rank, and nobody knows what they want."""
    seeds: int = 8
    width: int = 32
    """Width of the transformers: of the language model and of the reward model."""
    layers: int = 2
    """Layers of both."""
    heads: int | None = None
    """Heads in each layer; by default 4, of a --model a 64th of its width."""
    model: Path | None = None
    """File of weights (.safetensors) of GPT-2's family to begin with, whose --tokenizer is a file too; its sizes take
    the place of --width and --layers. By default none."""
    bfloat16: bool = False
    """Whether products and the cache of both are in bfloat16; parameters are in float32."""
    remat: bool | None = None
    """Whether blocks of both are computed again for their gradient; None for where a text does not fit into memory."""
    length: int = 24
    """Tokens of an output at most, eos included."""
    pretraining: int | None = None
    """Gradient steps of supervised pretraining, rounded up to a multiple of 50; by default 1000, of a --model 0, which
    leaves it as it is."""
    pretraining_rate: float = 3e-3
    """Learning rate η of supervised pretraining."""
    rounds: int = 2
    """Rounds: how often simulated annotators are asked, and the reward model is fitted anew."""
    updates: int = 60
    """Updates of the method in each round."""
    comparisons: int | None = None
    """Rankings of a round by simulated annotators; by default 1024, with --rankings 0."""
    ranked: int = 2
    """Outputs that are ranked together."""
    drawn: int = 16
    """Outputs drawn for each of the simulated rankings, to find some that differ."""
    rankings: Path | None = None
    """File of rankings or preferences by people, of at most --ranked outputs each; those of a fifth of its prompts are
    held out, to measure the reward model, the others are fitted. By default none."""
    people: int = 0
    """Rankings that people make in each round at a page that this opens, while it waits; 0 for no page."""
    annotators: int = 1
    """Simulated annotators that share the rankings."""
    temperature: float = 0.7
    """Temperature τ of their choice: a difference of τ in the gold reward is one nat of preference."""
    position_bias: float = 0.0
    """Nats of preference for each place that an output is shown earlier."""
    length_bias: float = 0.0
    """Nats of preference for each token of an output."""
    disagreement: float = 0.0
    """Weight of each annotator's own taste, whose judgement of an output is of the order of a nat."""
    members: int = 1
    """Reward models of the ensemble."""
    slots: int = 64
    """Episodes of an update, each an output."""
    group_size: int = 4
    """Outputs of an update that have the same prompt; they are each other's baseline."""
    method: names.TextMethodName = "reinforce"
    """What optimises the model; all but reinforce choose their credit and baseline themselves."""
    baseline: names.TextBaselineName = "leave-one-out"
    """What is subtracted from a return; a learned value is a transformer of its own."""
    learning_rate: float = 1e-3
    """Learning rate η of the method."""
    beta: float = 0.05
    """Coefficient β of the KL penalty; with a target, its first value."""
    kl_target: float = 0.0
    """KL in nats a text that β is steered to; 0 to leave β as it is."""
    best_of: int = 16
    """Outputs n that best-of-n sampling chooses from, at most 32."""
    top_p: float = 1.0
    """Probability of the likeliest tokens that samples are shown from."""
    block: int = 2
    """Runs vmapped together on a device."""
    run_devices: int = 1
    """Devices over which the texts of each run are split; with fewer runs than devices that is faster."""
    out: Path = Path("results/rlhf")


CANDIDATES = 32  # outputs to each prompt, of which the best of n is chosen
PROMPTS = 64  # that models are compared on
SHOWN = 8  # samples
STORED = 64  # rankings
JUDGED = 64  # texts that say how good a model is that is not pretrained here
TOKENIZER = "tokenizer"  # directory of it
FILES = ["pretraining", "feedback", "people", "model.json", TOKENIZER, "summary.json", "samples.txt", "rankings.jsonl",
         "rlhf.png"]  # fmt: skip
REWARDS = {"gold": "gold reward", "learned": "learned reward"}


def check(options: Options) -> None:
    """Raise unless the options can be used.

    Raises:
        InputError: If a count or a number is out of range.
    """
    if options.method == "dpo" and options.beta == 0:
        raise pgjax.InputError("expected a --beta above 0 beside --method dpo, which else learns nothing, got 0.0")
    launch.check_counts({"seeds": options.seeds})
    least = 0 if options.model else 1
    if options.pretraining is not None and options.pretraining < least:
        raise pgjax.InputError(f"expected {least} or more gradient steps of pretraining, got {options.pretraining}")
    if not 0 < options.top_p <= 1:
        raise pgjax.InputError(f"expected a probability above 0 and at most 1 for samples, got {options.top_p}")
    if options.method != "reinforce" and options.baseline != Options.baseline:
        raise pgjax.InputError(f"expected no --baseline beside --method {options.method}, got {options.baseline}")
    asking.desk_of(options)
    if options.people < 0:
        raise pgjax.InputError(f"expected 0 or more rankings by people, got {options.people}")
    if options.people and (options.seeds != 1 or options.rankings is not None or options.comparisons):
        raise pgjax.InputError("expected --seeds 1 and no other rankings beside --people, got more")
    if options.people and options.ask == "disagreement" and options.members < 2:
        raise pgjax.InputError(f"expected --members 2 or more for --ask disagreement, got {options.members}")
    if not 1 <= options.best_of <= CANDIDATES:
        raise pgjax.InputError(f"expected n from 1 to {CANDIDATES} for best-of-n, got {options.best_of}")


def language_model(
    options: Options, corpus: pgjax.text.Corpus
) -> tuple[Options, pgjax.Policy, pgjax.text.TransformerConfig]:
    """The model that is pretrained or begun with, its configuration, and the options with all its sizes.

    Raises:
        InputError: If there is no such model, or it does not fit the tokens or the texts.
    """
    if options.model is None:
        steps = 1000 if options.pretraining is None else options.pretraining
        options = replace(options, heads=options.heads or 4, pretraining=steps)
        _, config = pgjax.text.language_model(corpus, options.length, options.width, options.layers, options.heads or 4)
        weights = None
    else:
        if not isinstance(corpus.tokenizer, pgjax.text.Subwords) or options.tokenizer.startswith("bpe:"):
            raise pgjax.InputError(
                f"expected the file of its tokens as --tokenizer beside --model, got {options.tokenizer}"
            )
        config, weights = pgjax.text.load_gpt2(options.model, heads=options.heads, ids=corpus.tokenizer.ids)
        options = replace(options, width=config.width, layers=config.layers, heads=config.heads)
        options = replace(options, pretraining=options.pretraining or 0)
    config = config._replace(remat=options.remat, compute=jnp.bfloat16 if options.bfloat16 else None)
    policy = pgjax.text.transformer(
        pgjax.text.text_environment(corpus.prompts, config.vocabulary, options.length, unjudged), config
    )
    return options, policy if weights is None else policy._replace(init=lambda key: weights), config


def supervised_of(options: Options, policy: pgjax.Policy, results: Path) -> Any:
    """θ_SL of all runs: what pretraining ended with, or else what the model began with."""
    if options.pretraining:
        return pgjax.load_params(results / "pretraining", jax.eval_shape(policy.init, jax.random.key(0)))
    return jax.vmap(policy.init)(launch.keys_after_training(options))


def pretrain(options: Options, corpus: pgjax.text.Corpus, policy: pgjax.Policy) -> xr.Dataset | None:
    """The sweep of supervised pretraining, if there is any."""
    algorithm = pgjax.text.pretraining(policy, corpus.texts, learned=corpus.learned, steps=pretraining.STEPS)
    if not options.pretraining:
        return None
    print(f"1. supervised pretraining on {len(corpus.texts)} texts of {corpus.name}", flush=True)
    configuration = {
        "corpus": corpus.name,
        "texts": pgjax.text.digest(corpus.texts),
        "model": [options.width, options.layers, options.heads, options.length],
        **told_apart(options),
    }
    return pretraining.pretrain(options, algorithm, configuration, options.run_devices)


def told_apart(options: Options) -> dict[str, Any]:
    """What tells a model from others of its sizes: the weights that it began with, if any, and bfloat16."""
    weights = {} if options.model is None else {"weights": hashlib.sha256(options.model.read_bytes()).hexdigest()}
    return weights | rounds.precision_of(options)


def people_of(options: Options) -> rlhf.Annotators:
    """How simulated annotators choose."""
    return rlhf.Annotators(**{name: getattr(options, name) for name in rlhf.Annotators._fields})


def comparisons_of(options: Options) -> int:
    """How many rankings of a round are simulated."""
    if options.comparisons is None:
        return 1024 if options.rankings is None and not options.people else 0
    return options.comparisons


class Ranked(NamedTuple):
    """What people ranked elsewhere."""

    external: rlhf.Rankings  # that are fitted
    held_out: rlhf.Rankings  # of other prompts
    prompts: int  # how many are held out


def ranked_by_people(options: Options, corpus: pgjax.text.Corpus) -> Ranked | None:
    """What is in the file of rankings, if there is one, cut by prompts.

    Raises:
        InputError: If nobody ranks, or the file cannot be used.
    """
    if options.rankings is None:
        if options.gold == "none" and not options.people:
            raise pgjax.InputError("expected --rankings, a file of rankings by people, beside --gold none, got no file")
        return None
    W = corpus.prompts.shape[1]
    rankings, _ = rlhf.load_rankings(
        options.rankings,
        corpus.tokenizer,
        W,
        options.length,
        options.ranked,
        skip_long=options.skip_long,
        template=options.chat,
    )
    external, held_out = rlhf.split_by_prompt(rankings, W, rounds.HELD_OUT)
    return Ranked(external, held_out, len(np.unique(held_out.tokens[:, 0, :W], axis=0)))


def tune(
    options: Options,
    loop: rlhf.Feedback,
    numbers: rlhf.FeedbackHyperparameters,
    supervised: Any,
    corpus: pgjax.text.Corpus,
    people: Ranked | None,
) -> xr.Dataset:
    """The sweep of the rounds of feedback."""
    sources = []
    if comparisons_of(options):
        sources.append(f"{comparisons_of(options)} by simulated annotators in each")
    if people is not None:
        sources.append(f"{len(people.external.mask)} by people ({len(people.held_out.mask)} more are held out)")
    steps = f"{options.rounds} rounds, each with {options.updates} updates of {options.method.upper()}"
    print(f"2. {steps}; rankings: {', '.join(sources)}", flush=True)
    chosen = ("gold", "width", "layers", "heads", "length", "rounds", "updates", "ranked", "drawn", "annotators",
             "members", "slots", "group_size", "baseline")  # fmt: skip
    method = () if options.method == "reinforce" else ("method",)  # so that results of before there were others go on
    configuration = {name: getattr(options, name) for name in (*chosen, *method)}
    configuration |= {"comparisons": comparisons_of(options), "corpus": corpus.name, **told_apart(options)}
    configuration["prompts"] = pgjax.text.digest(corpus.prompts)
    for name, part in {} if people is None else {"external": people.external, "held_out": people.held_out}.items():
        ties = "" if part.tied is None else str(part.tied.tolist())
        configuration[name] = pgjax.text.digest(part.tokens, str(part.order.tolist()), ties)
    return pgjax.sweep(
        loop.algorithm,
        iterations=options.rounds * options.updates,
        seeds=launch.seeds_of(options),
        by_seed={"supervised": supervised, "reward_body": supervised},
        hyperparameters=numbers,
        study=options.study,
        out=options.out / "feedback",
        configuration=configuration,
        block=options.block,
        run_devices=options.run_devices,
    )


def comparison(
    options: Options, loop: rlhf.Feedback, model: rlhf.RewardModel, corpus: pgjax.text.Corpus, people: Ranked | None
) -> Callable[[jax.Array, rlhf.Tuned, Any], dict[str, Any]]:
    """A function of a run: what fresh outputs of its models are worth, and whether its reward model is right."""
    V, W = corpus.tokenizer.vocabulary, corpus.prompts.shape[1]

    def rewards(chosen_by: jax.Array, before: jax.Array, after: jax.Array) -> dict[str, jax.Array]:
        pool = (PROMPTS, CANDIDATES)
        best = jax.vmap(rlhf.best_of_n, (0, 0, None))(chosen_by.reshape(pool), before.reshape(pool), options.best_of)
        return {"sft": before.mean(), "rl": after.mean(), "best_of_n": best.mean()}

    def simulated(key: jax.Array, before: rlhf.Evaluation, spread: jax.Array) -> dict[str, jax.Array]:
        """Pairs of outputs to one prompt, judged by others with the same biases and tastes of their own."""
        rank_key, who_key, taste_key = jax.random.split(key, 3)
        outputs = before.tokens.reshape(-1, 2, before.tokens.shape[1])
        differ = jnp.any(outputs[:, 0] != outputs[:, 1], axis=-1)  # nobody can say which of two equal texts is better
        inside = rlhf.output_of(before.tokens, W).reshape(outputs.shape)
        who = jax.random.randint(who_key, (len(outputs),), 0, options.annotators)
        weights = jax.random.normal(taste_key, (options.annotators, V))
        taste = rlhf.tastes(weights, outputs, inside, who)
        gold, length, scores = (
            jnp.asarray(values).reshape(-1, 2) for values in (before.gold, before.length, before.proxy * spread)
        )
        likes = rlhf.utilities(people_of(options), gold, length, taste)
        order = rlhf.rank(rank_key, likes)
        measured = {"accuracy": rlhf.pair_accuracy(scores, order, differ)}
        measured["bayes_accuracy"] = rlhf.bayes_accuracy(likes, differ)
        return measured | {"scores": scores, "order": order, "differ": differ, "outputs": outputs}

    def compare(key: jax.Array, tuned: rlhf.Tuned, supervised: Any) -> dict[str, Any]:
        play_key, people_key = jax.random.split(key)
        before = loop.evaluate(play_key, supervised, tuned.reward, supervised)
        after = loop.evaluate(play_key, tuned.policy, tuned.reward, supervised)
        chosen = jnp.argmax(before.proxy.reshape(PROMPTS, CANDIDATES)[:, : options.best_of], axis=1)
        found: dict[str, Any] = {
            "learned": rewards(before.proxy, before.proxy, after.proxy),
            "kl": after.kl.mean(),
            "length": {"sft": before.length.mean(), "rl": after.length.mean()},
            "tokens": [tokens[::CANDIDATES] for tokens in (before.tokens, after.tokens)],
            "best": before.tokens[chosen + jnp.arange(PROMPTS) * CANDIDATES],
        }
        if before.gold is not None and after.gold is not None:
            found["gold"] = rewards(before.proxy, before.gold, after.gold)
        if comparisons_of(options):
            found["simulated"] = simulated(people_key, before, tuned.reward.spread)
        if people is not None:
            N, K, L = people.held_out.tokens.shape
            tokens = jnp.asarray(people.held_out.tokens).reshape(N * K, L)
            reward = tuned.reward
            scores = rlhf.ensemble_score(model, reward.params, tokens, reward.uncertainty_penalty)
            found["people"] = scores.reshape(N, K)
        return found

    return compare


def without_failed(
    options: Options, pretrained: xr.Dataset | None, results: xr.Dataset, compare: Callable[..., Any], runs: Any
) -> tuple[np.ndarray, Any]:
    """Compare the models of those runs whose numbers are all finite.

    Args:
        options: The study's.
        pretrained: The sweep of supervised pretraining, if there was any.
        results: The sweep of the rounds of feedback.
        compare: See `comparison`.
        runs: What it takes, stacked.

    Returns:
        Which runs these are, [seeds] bool, and what was found of them, stacked.

    Raises:
        InputError: If there is none; the summary names them then, and holds nothing else.
    """
    good = ~pgjax.analysis.failed(results).values
    if pretrained is not None:
        good &= ~pgjax.analysis.failed(pretrained).values
    found = None
    if good.any():
        chosen = jax.tree.map(lambda leaf: leaf[good], runs)
        found = jax.tree.map(np.asarray, pgjax.over_runs(compare, block=1)(*chosen))
        finite = np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(1) for leaf in jax.tree.leaves(found)], axis=0)
        found = jax.tree.map(lambda leaf: leaf[finite], found)
        good[good] = finite
    if not good.any():
        seeds = list(launch.seeds_of(options))
        tables.write_json(options.out / "summary.json", {"seeds": options.seeds, "failed_seeds": seeds})
        raise pgjax.InputError(
            f"expected a run whose numbers are finite, got others in all seeds: {tables.some(seeds)}"
        )
    return good, found


def pairs_of_people(people: Ranked, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every two outputs of which people said which is better, each way round.

    Args:
        people: Who ranked N times K outputs that are held out.
        scores: Of these by the models of all runs, [seeds, N, K].

    Returns:
        Scores [pairs, 2] and orders [pairs, 2], as `pgjax.rlhf.calibration` has them.
    """
    orders, tied = people.held_out.order, people.held_out.tied
    level = np.cumsum(np.ones_like(orders) if tied is None else ~tied, axis=1)  # what is tied has no better one
    both = [
        (n, order[list(places)])
        for n, order in enumerate(orders)
        for places in itertools.combinations(range((order >= 0).sum()), 2)
        if level[n, places[0]] != level[n, places[1]]
    ]
    of_pairs = np.stack([scores[:, n, list(pair)] for n, pair in both], axis=1).reshape(-1, 2)  # the better one first
    orders = np.repeat([[0, 1], [1, 0]], len(of_pairs), axis=0)
    return np.concatenate([of_pairs, of_pairs[:, ::-1]]), orders


def by_simulated(options: Options, found: Any, results: xr.Dataset) -> tuple[dict[str, Any], rlhf.Calibration]:
    """How the reward models of all runs judge pairs that simulated annotators judge too."""
    pairs = found["simulated"]
    differ = pairs["differ"].reshape(-1)
    trust = rlhf.calibration(pairs["scores"].reshape(-1, 2), pairs["order"].reshape(-1, 2), differ)
    begins = range(0, options.rounds * options.updates, options.updates)
    judged = {
        "comparisons": comparisons_of(options),
        "accuracy": float(pairs["accuracy"].mean()),
        "bayes_accuracy": float(pairs["bayes_accuracy"].mean()),
        "calibration_error": trust.error,
        "identical_texts": [float(results.identical_texts.isel(iteration=i).mean()) for i in begins],
    }
    return judged, trust


def by_people(people: Ranked, found: Any, results: xr.Dataset) -> tuple[dict[str, Any], rlhf.Calibration]:
    """How the reward models of all runs judge the rankings by people that are held out."""
    scores, order = pairs_of_people(people, found["people"])
    trust = rlhf.calibration(scores, order, np.ones(len(order), bool))
    judged = {
        "fitted": len(people.external.mask),
        "held_out": len(people.held_out.mask),
        "prompts": people.prompts,
        "pairs": len(order) // (2 * results.sizes["seed"]),
        "accuracy": float(results.held_out_accuracy.isel(iteration=-1).mean()),
        "calibration_error": trust.error,
    }
    return judged, trust


def save_some(options: Options, pairs: Mapping[str, Any], corpus: pgjax.text.Corpus) -> None:
    """Write some of the first run's simulated rankings, of as many prompts as can be, if its outputs differ."""
    differ = np.flatnonzero(pairs["differ"][0])
    if len(differ):
        chosen = differ[:: max(1, len(differ) // STORED)][:STORED]
        everyone = np.ones(len(chosen), bool), np.zeros(len(chosen), int)
        some = rlhf.Rankings(pairs["outputs"][0, chosen], pairs["order"][0, chosen], *everyone)
        width = corpus.prompts.shape[1]
        rlhf.save_rankings(options.out / "rankings.jsonl", some, corpus.tokenizer, width, ["simulated"])


def side_by_side(corpus: pgjax.text.Corpus, columns: Mapping[str, np.ndarray], gold: rlhf.Gold | None) -> str:
    """A table of samples of several models to the same prompts, with the gold reward of each, if there is one."""
    width, rows = corpus.prompts.shape[1], []
    before = next(iter(columns.values()))
    for i in range(len(before)):
        row = {"prompt": corpus.tokenizer.decode(before[i, :width])}
        for name, tokens in columns.items():
            row[name] = corpus.tokenizer.decode(tokens[i, width:])
            if gold is not None:
                text = jnp.asarray(tokens[i : i + 1])
                row[name] += f" ({float(gold(text, rlhf.output_of(text, width))[0]):.2f})"
        rows.append(row)
    return pd.DataFrame(rows).to_string(index=False, justify="left")


def draw(
    pretrained: xr.Dataset | float,
    tuned: xr.Dataset,
    corpus: pgjax.text.Corpus,
    rewards: Mapping[str, Any],
    best_of: int,
    method: str,
    trusts: Mapping[str, rlhf.Calibration],
    path: Path,
) -> None:
    """Draw the four stages, each with its 95% interval over seeds, and save them as PNG."""
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    panels = figure.subplots(2, 2)

    def curve(axes: Axes, results: xr.Dataset, name: str, colour: str, label: str, each: int = 1) -> None:
        runs = results[name].transpose("seed", "iteration").values
        x = each * np.arange(1, runs.shape[1] + 1)
        band(axes, x, pgjax.interquartile_mean(runs), pgjax.confidence_interval(runs), colour, label)

    if isinstance(pretrained, float):
        panels[0, 0].axhline(pretrained, color=COLOURS[1], label="texts, as the model began")
    else:
        curve(panels[0, 0], pretrained, "held_out_loss", COLOURS[1], "held-out texts", pretraining.STEPS)
    if corpus.grammar is not None:
        panels[0, 0].axhline(corpus.grammar.floor, color="0.35", linestyle="--", label="entropy of the grammar")
    reward = "gold" if "gold" in rewards else "learned"
    curve(panels[0, 1], tuned, {"gold": "gold", "learned": "proxy"}[reward], COLOURS[0], method)
    levels = {"sft": "f_SL", "best_of_n": f"best of {best_of}"}
    for (name, label), style in zip(levels.items(), ("--", ":"), strict=True):
        panels[0, 1].axhline(rewards[reward][name]["mean"], color="0.35", linestyle=style, label=label)
    curve(panels[1, 0], tuned, "kl", COLOURS[2], "KL(f ‖ f_SL)")
    curve(panels[1, 0], tuned, "proxy", COLOURS[3], "learned reward, above f_SL's")
    panels[1, 1].plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    for colour, (label, trust) in zip(COLOURS[4:], trusts.items(), strict=False):
        panels[1, 1].plot(trust.predicted, trust.preferred, "o-", color=colour, linewidth=1.8, label=label)
    errors = ", ".join(f"{trust.error:.3f}" for trust in trusts.values())
    titles = {
        "supervised pretraining": ("gradient steps", "cross-entropy (nats a token)"),
        REWARDS[reward]: (f"update of {method}", f"{REWARDS[reward]} (mean)"),
        "what is optimised": (f"update of {method}", "KL (nats a text), learned reward (deviations)"),
        f"reward model: calibration error {errors}": (
            "σ(r₁ − r₂), the model's probability that the first is preferred",
            "fraction of pairs whose first is preferred",
        ),
    }
    for axes, (title, (xlabel, ylabel)) in zip(panels.flat, titles.items(), strict=True):
        dress(axes, title, xlabel, ylabel)
        add_legend(axes)
    figure.savefig(path, dpi=150)


def print_found(summary: Mapping[str, Any], out: Path) -> None:
    """Print the rewards and what they are worth, and say which numbers are of simulated annotators."""
    labels = {"sft": "f_SL", "rl": summary["method"], "best_of_n": f"best of {summary['best_of_n']}"}
    reward = "gold" if "gold" in summary["rewards"] else "learned"
    lines = []
    for key, name in labels.items():
        mean, low, high = (tables.written(number, ".3f") for number in summary["rewards"][reward][key].values())
        lines.append({"model": name, REWARDS[reward]: mean, "low": low, "high": high})
    tables.print_lines(lines)
    print(f"KL(f ‖ f_SL) {summary['kl']['mean']:.2f} nats a text")
    simulated, people = summary["simulated"], summary["people"]
    if simulated is not None:
        identical = ", ".join(f"{fraction:.1%}" for fraction in simulated["identical_texts"])
        print(
            f"simulated annotators: {simulated['comparisons']} rankings a round, less identical texts ({identical}); "
            f"the reward model orders {simulated['accuracy']:.1%} of new pairs as they do, "
            f"{simulated['bayes_accuracy']:.1%} at best"
        )
    if people is not None:
        print(
            f"people: {people['fitted']} rankings; the reward model orders {people['accuracy']:.1%} of "
            f"{people['pairs']} pairs to held-out prompts ({people['prompts']}) as they did, 50% by guessing"
        )
    if summary["failed_seeds"]:
        print(f"numbers that are not finite, and are left out, in seeds: {tables.some(summary['failed_seeds'])}")
    print(
        f"{summary['tokens_per_second'] / 1e3:.1f} k tokens/s in the rounds; {summary['seconds']['all']:.0f} s in all; "
        f"written to {out}"
    )


def loop_of(
    options: Options,
    corpus: pgjax.text.Corpus,
    policy: pgjax.Policy,
    model: rlhf.RewardModel,
    gold: rlhf.Gold | None,
    people: Ranked | rounds.Ranked | None,
) -> rlhf.Feedback:
    """The loop of these options; of rankings by people at a page, a round of it."""
    baseline = None
    if options.method == "reinforce" and model.config is not None:
        baseline = names.text_baseline_named(options.baseline, options.group_size, model.config)
    external = None if people is None else people.external
    if options.people and external is None:
        external = rounds.nobody(options.ranked, corpus.prompts.shape[1] + options.length)
    return rlhf.feedback(
        policy,
        model,
        gold,
        corpus.prompts,
        rlhf.FeedbackSettings(
            vocabulary=corpus.tokenizer.vocabulary,
            length=options.length,
            rounds=1 if options.people else options.rounds,
            updates=options.updates,
            rankings=comparisons_of(options),
            outputs=options.ranked,
            drawn=options.drawn,
            annotators=options.annotators,
            members=options.members,
            slots=options.slots,
            group_size=options.group_size,
            evaluated=PROMPTS * CANDIDATES,
            candidates=CANDIDATES,
        ),
        external=external,
        held_out=None if people is None else people.held_out,
        baseline=baseline,
        method=names.text_method_named(options.method, options.slots, options.group_size),
    )


def keep_model(options: Options, corpus: pgjax.text.Corpus) -> None:
    """Write what the models of this directory can be made again from: the options, and the tokenizer."""
    tables.write_json(options.out / "model.json", rounds.saved(options))
    if isinstance(corpus.tokenizer, pgjax.text.Subwords):
        corpus.tokenizer.save(options.out / TOKENIZER)


def main(options: Options) -> None:
    """Pretrain, tune, then compare, write, draw and print."""
    begun = time.perf_counter()
    check(options)
    launch.check_directory_of_study(options.out, FILES)
    corpus = names.corpus_named(options, seed=0)
    gold = None if options.gold == "none" or options.people else names.gold_named(options.gold, corpus, seed=0)
    options, policy, config = language_model(options, corpus)
    model, people = rlhf.reward_model(config), ranked_by_people(options, corpus)
    make = partial(loop_of, options, corpus, policy, model, gold)
    loop = make(people)
    tuning = loop.algorithm.hyperparameters(  # what cannot be used is refused before anything is computed
        learning_rate=options.learning_rate,
        beta=options.beta,
        kl_target=options.kl_target,
        annotators=people_of(options),
    )
    pretrained = pretrain(options, corpus, policy)
    supervised = supervised_of(options, policy, options.out)
    if options.people:
        keep_model(options, corpus)
        rounds.play(options, corpus, model, make, tuning, supervised)
        return
    results = tune(options, loop, tuning, supervised, corpus, people)
    launch.leave_to_the_first_process()
    keep_model(options, corpus)

    print("3. fresh outputs of the supervised and of the tuned model", flush=True)
    numbers = loop.algorithm.hyperparameters()
    kept = jax.eval_shape(lambda key: loop.algorithm.init(key, numbers).params, jax.random.key(0))
    runs = (launch.keys_after_training(options), pgjax.load_params(results, kept), supervised)
    compare = comparison(options, loop, model, corpus, people)
    good, found = without_failed(options, pretrained, results, compare, runs)
    key, tuned, start = jax.tree.map(lambda leaf: leaf[np.flatnonzero(good)[0]], runs)  # of the first run
    before, after = (tokens[0, :SHOWN] for tokens in found["tokens"])
    if options.top_p < 1:
        likely = jax.jit(pgjax.text.outputs(loop.environment, pgjax.policies.top_p(policy, options.top_p), SHOWN))
        sample_key = jax.random.split(key, 3)[2]
        both = (likely(sample_key, params, loop.environment.params) for params in (start, tuned.policy))
        before, after = map(np.asarray, both)
    method = options.method.upper()
    columns = {"f_SL": before, method: after, "best of n": found["best"][0, :SHOWN]}
    table = side_by_side(corpus, columns, gold)
    tables.write_text(options.out / "samples.txt", table + "\n")

    seconds = {"pretraining": 0.0, "feedback": float(results.seconds.sum())}
    rate = float(results.steps.sum()) / seconds["feedback"]
    results = results.isel(seed=good)
    if pretrained is None:
        some = None if corpus.learned is None else corpus.learned[:JUDGED]
        loss = -float(jax.jit(pgjax.text.mean_log_prob(policy, corpus.texts[:JUDGED], some))(start))
    else:
        seconds["pretraining"], pretrained = float(pretrained.seconds.sum()), pretrained.isel(seed=good)
        loss = float(pretrained.held_out_loss.isel(iteration=-1).mean())
    rewards = {
        reward: {name: pgjax.analysis.mean_interval(values) for name, values in found[reward].items()}
        for reward in REWARDS
        if reward in found
    }
    judged: dict[str, Any] = {"simulated": None, "people": None}
    trusts = {}
    if "simulated" in found:
        judged["simulated"], trusts["simulated annotators, f_SL's outputs"] = by_simulated(options, found, results)
        save_some(options, found["simulated"], corpus)
    if people is not None:
        judged["people"], trusts["people, held-out rankings"] = by_people(people, found, results)
    summary = {
        "corpus": corpus.name,
        "method": method,
        "rewards": rewards,
        "kl": pgjax.analysis.mean_interval(found["kl"]),
        "best_of_n": options.best_of,
        "best_of_n_kl": float(rlhf.best_of_n_kl(options.best_of)),
        **judged,
        "length": {name: float(lengths.mean()) for name, lengths in found["length"].items()},
        "negative_log_likelihood": loss,
        "floor": None if corpus.grammar is None else corpus.grammar.floor,
        "seeds": options.seeds,
        "failed_seeds": np.asarray(launch.seeds_of(options))[~good].tolist(),
        "seconds": {**seconds, "all": time.perf_counter() - begun},
        "tokens_per_second": rate,
        "device": results.attrs["device"],
    }
    tables.write_json(options.out / "summary.json", summary)
    draw(
        loss if pretrained is None else pretrained,
        results,
        corpus,
        rewards,
        options.best_of,
        method,
        trusts,
        options.out / "rlhf.png",
    )
    print("to the same prompts" + (":" if gold is None else f", in brackets the {REWARDS['gold']}:"))
    print(table)
    print_found(summary, options.out)


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
