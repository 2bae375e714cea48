"""Rounds of feedback in which people rank at a page: sample, wait, fit, optimise; and again with the new model."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pgjax
from common import asking, launch, tables
from pgjax import rlhf
from pgjax.rlhf import people

HELD_OUT = 0.2  # of the prompts that people ranked outputs to
MORE = 1.25  # tasks for each ranking that is wanted, so that skips do not end a round early
SHOWN = 8  # samples
FIRST_STUDY = 2**29  # of the rounds: each is a study of its own, so that none has the randomness of another


class Ranked(NamedTuple):
    """What people ranked so far."""

    external: rlhf.Rankings  # that are fitted
    held_out: rlhf.Rankings | None  # of other prompts; None where they ranked outputs to a single one
    names: tuple[str, ...]  # of the annotators


def saved(options: Any) -> dict[str, Any]:
    """Options as a file has them, from which the models of a directory can be made again."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}


def precision_of(options: Any) -> dict[str, bool]:
    """What tells results in bfloat16 from others, in which it is not named."""
    return {"bfloat16": True} if options.bfloat16 else {}


def nobody(outputs: int, columns: int) -> rlhf.Rankings:
    """A ranking of K outputs of so many columns that nobody made: what a loop is checked with before anybody did."""
    tokens = np.zeros((1, outputs, columns), np.int32)
    none = np.full((1, outputs), -1, np.int32)
    return rlhf.Rankings(tokens, order=none, mask=np.zeros(1, bool), annotator=np.zeros(1, np.int32))


def ranked(paths: list[Path], corpus: pgjax.text.Corpus, length: int, outputs: int) -> Ranked:
    """What is in the files of the rounds, cut by prompts."""
    width = corpus.prompts.shape[1]
    rankings, names = rlhf.load_rankings(paths, corpus.tokenizer, width, length, outputs)
    if len(np.unique(rankings.tokens[:, 0, :width], axis=0)) < 2:
        return Ranked(rankings, None, names)
    numbered = rankings._replace(annotator=np.arange(len(rankings.mask)))
    which, aside = (part.annotator for part in rlhf.split_by_prompt(numbered, width, HELD_OUT))
    # What was asked because reward models disagree is harder than most, and says nothing of how good one is.
    as_they_come = [line.more.get("asked") == "uniform" for line in rlhf.ranking_lines(paths) if line.ranking]
    aside = aside[np.asarray(as_they_come)[aside]]
    fitted, held_out = (jax.tree.map(lambda leaf, rows=rows: leaf[rows], rankings) for rows in (which, aside))
    return Ranked(fitted, held_out if len(aside) else None, names)


def ask(
    options: Any,
    page: people.Page,
    turn: int,
    tasks: Callable[[], list[people.Task]],
) -> Path:
    """The file of a round's rankings, once they are all there.

    What was asked is kept, so a round that was stopped goes on with the same tasks; what was ranked is kept as it is at
    the end of the round, so that later answers change no model that was fitted.
    """
    asked, frozen = (options.out / "people" / f"{what}-{turn + 1}.jsonl" for what in ("tasks", "round"))
    if frozen.exists():
        return frozen
    if not asked.exists():
        people.save_tasks(asked, tasks())
    print(f"round {turn + 1} of {options.rounds}: waiting for {options.people} rankings at the page", flush=True)
    last = turn == options.rounds - 1
    lines = page.collect(people.load_tasks(asked), options.people, asking.desk_of(options), last=last)
    asking.freeze(frozen, lines)
    return frozen


def play(
    options: Any,
    corpus: pgjax.text.Corpus,
    model: rlhf.RewardModel,
    make: Callable[[Ranked | None], rlhf.Feedback],
    numbers: rlhf.FeedbackHyperparameters,
    supervised: Any,
) -> None:
    """All rounds, then fresh outputs of the supervised and of the tuned model beside each other.

    Args:
        options: The study's.
        corpus: Of the prompts.
        model: r.
        make: The loop of a round, of what people have ranked so far.
        numbers: Its hyper-parameters.
        supervised: θ_SL of the one run, each leaf [1, …].
    """
    if len(np.unique(corpus.prompts, axis=0)) < 2:
        raise pgjax.InputError("expected two or more prompts, some of them to measure by, got one")
    n = -(-int(MORE * options.people) // options.overlap) + 1
    theta, reward, measured, files = supervised, None, [], []
    key = launch.keys_after_training(options)[0]
    with asking.page_of(options, options.out / "people" / "rankings.jsonl") as page:
        for turn in range(options.rounds):

            def tasks(turn: int = turn, theta: Any = theta, reward: Any = reward) -> list[people.Task]:
                judge = None
                if options.ask == "disagreement" and reward is not None:
                    judge = model, reward.params
                one, more = jax.tree.map(lambda leaf: leaf[0], theta), {"round": turn + 1}
                draw_key = jax.random.fold_in(key, turn)
                return asking.tasks_of(make(None), corpus, options.length, one, draw_key, n, more, judge)

            files.append(ask(options, page, turn, tasks))
            made = ranked(files, corpus, options.length, options.ranked)
            loop = make(made)
            theta, reward = optimise(options, corpus, loop, numbers, made, turn, supervised, theta)
            if made.held_out is not None:
                found = asking.accuracies(model, reward, made.held_out, made.names)
                bound = asking.bound_of(rlhf.ranking_lines(files))
                measured.append({"accuracy": {name: list(pair) for name, pair in found.items()}, "bound": bound})
                sentence = asking.said_of(found, bound)
                page.note(f"accuracy of the reward model, round {turn + 1}", sentence)
                print(f"the reward model orders outputs to held-out prompts as people did: {sentence}", flush=True)
    compare(options, corpus, loop, supervised, theta, reward, measured, files, key)


def optimise(
    options: Any,
    corpus: pgjax.text.Corpus,
    loop: rlhf.Feedback,
    numbers: rlhf.FeedbackHyperparameters,
    made: Ranked,
    turn: int,
    supervised: Any,
    theta: Any,
) -> tuple[Any, rlhf.LearnedReward]:
    """θ after a round, each leaf [1, …], and the reward that it was optimised for."""
    print(f"fitting {len(made.external.mask)} rankings, then {options.updates} updates", flush=True)
    said = [np.asarray(leaf) for leaf in jax.tree.leaves(made.external)]
    results = pgjax.sweep(
        loop.algorithm,
        iterations=options.updates,
        seeds=launch.seeds_of(options),
        by_seed={"supervised": supervised, "reward_body": supervised, "start": theta},
        hyperparameters=numbers,
        study=options.study + FIRST_STUDY + turn,
        out=options.out / "people" / f"model-{turn + 1}",
        configuration={
            "corpus": corpus.name,
            "rankings": pgjax.text.digest(*said),
            "model": [options.width, options.layers, options.heads, options.length],
            "method": options.method,
            "baseline": options.baseline,
            "slots": [options.slots, options.group_size],
            "members": options.members,
            **precision_of(options),
        },
    )
    defaults = loop.algorithm.hyperparameters()
    like = jax.eval_shape(lambda key: loop.algorithm.init(key, defaults).params, jax.random.key(0))
    tuned = pgjax.load_params(results, like)
    return tuned.policy, jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), tuned.reward)


def compare(
    options: Any,
    corpus: pgjax.text.Corpus,
    loop: rlhf.Feedback,
    supervised: Any,
    theta: Any,
    reward: Any,
    measured: list[dict[str, Any]],
    files: list[Path],
    key: jax.Array,
) -> None:
    """Write and print what the tuned model writes where the supervised one wrote something else."""
    start, end = (jax.tree.map(lambda leaf: leaf[0], params) for params in (supervised, theta))
    play = jax.jit(loop.evaluate)
    before, after = (play(key, params, reward, start) for params in (start, end))
    width, rows = corpus.prompts.shape[1], []
    for one, other in zip(
        before.tokens[:: len(before.tokens) // 8], after.tokens[:: len(after.tokens) // 8], strict=True
    ):
        texts = [corpus.tokenizer.decode(part) for part in (one[:width], one[width:], other[width:])]
        rows.append(" | ".join(texts))
    tables.write_text(options.out / "samples.txt", "\n".join(["prompt | f_SL | tuned", *rows]) + "\n")
    lines = rlhf.ranking_lines(files)
    worth = {"sft": float(before.proxy.mean()), "rl": float(after.proxy.mean())}
    summary = {
        "corpus": corpus.name,
        "rankings": sum(bool(line.ranking) for line in lines),
        "rounds": measured,
        "learned_reward": worth,
        "kl": float(after.kl.mean()),
        "length": {"sft": float(before.length.mean()), "rl": float(after.length.mean())},
    }
    tables.write_json(options.out / "summary.json", summary)
    print("\n".join(["to the same prompts:", *rows]))
    print(
        f"learned reward {worth['sft']:.2f} before, {worth['rl']:.2f} after; "
        f"KL {summary['kl']:.2f} nats a text; written to {options.out}"
    )
