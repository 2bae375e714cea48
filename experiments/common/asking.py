"""People at a page: the options of it, and what they are asked about a model."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import pgjax
from common import tables
from pgjax import rlhf
from pgjax.rlhf import people
from pgjax.rlhf.formats import written_line
from pgjax.rlhf.people.desk import check_settings

WIDER = 4  # tasks among which those that an ensemble disagrees about are chosen
TRIES = 8  # draws of outputs, to find as many tasks as are wanted


@dataclass(frozen=True)
class Asking:
    """Options of a study that asks people."""

    annotator: tuple[str, ...] = ("annotator",)
    """Names of the people who rank; each gets a link."""
    question: str = "Which text is better?"
    """What is to be judged, in a sentence."""
    overlap: int = 1
    """People who rank each task."""
    again: float = 0.1
    """Fraction of the rankings that people are asked for again, with the sides swapped."""
    ask: Literal["uniform", "disagreement"] = "uniform"
    """Which tasks: drawn from the model as they come (what measures a reward model has to be), or those about which an
    ensemble of reward models (--members) disagrees most."""
    host: str = "127.0.0.1"
    """Address at which the page is reached; other machines reach it at 0.0.0.0, and --i-know."""
    port: int = 0
    """Port of the page; 0 for one that is free."""
    i_know: bool = False
    """Others on the network can try links, and read what passes: it is not encrypted."""


def desk_of(options: Asking) -> people.DeskSettings:
    """How tasks are dealt out.

    Raises:
        InputError: If a number is out of range.
    """
    settings = people.DeskSettings(overlap=options.overlap, again=options.again, question=options.question)
    check_settings(settings)
    return settings


@contextmanager
def page_of(options: Asking, path: Path) -> Iterator[people.Page]:
    """The page, its links printed."""
    serving = people.serve(path, options.annotator, host=options.host, port=options.port, i_know=options.i_know)
    with serving as page:
        people.print_links(page)
        yield page


def digest_of(theta: Any) -> str:
    """What tells parameters from others: 16 digits of a SHA-256."""
    leaves = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(theta))
    return hashlib.sha256(b"".join(leaves)).hexdigest()[:16]


def tasks_of(
    loop: rlhf.Feedback,
    corpus: pgjax.text.Corpus,
    length: int,
    theta: Any,
    key: jax.Array,
    n: int,
    more: Mapping[str, Any],
    judge: tuple[rlhf.RewardModel, Any] | None,
) -> list[people.Task]:
    """So many tasks of outputs of a model.

    Args:
        loop: What samples.
        corpus: Of the prompts.
        length: T, tokens of an output.
        theta: The model's.
        key: Of the draws.
        n: How many.
        more: Fields that rankings of them are to have.
        judge: An ensemble of reward models and its parameters, where it chooses the tasks that it disagrees about.

    Raises:
        InputError: If the model does not write as many outputs that differ.
    """
    draw, wanted = jax.jit(loop.sample, static_argnums=2), n if judge is None else WIDER * n
    found: dict[Any, people.Task] = {}
    more = {"asked": "uniform" if judge is None else "disagreement", "model": digest_of(theta), **more}
    width = corpus.prompts.shape[1]
    for turn in range(TRIES):
        tokens, enough = draw(jax.random.fold_in(key, turn), theta, wanted)
        for task in people.tasks_of_tokens(tokens, enough, corpus.tokenizer, width, more):
            found.setdefault((task.prompt, frozenset(zip(task.outputs, task.ended, strict=True))), task)
        if len(found) >= wanted:
            break
    tasks = list(found.values())[:wanted]
    if len(tasks) < n:
        raise pgjax.InputError(f"expected a model that writes {n} sets of outputs that differ, got {len(tasks)}")
    if judge is None:
        return tasks
    tokens = people.tokens_of_tasks(tasks, corpus.tokenizer, width, length)
    doubt = np.asarray(rlhf.preference_disagreement(*judge, jnp.asarray(tokens)))
    return [tasks[i] for i in np.argsort(-doubt, kind="stable")[:n]]


def accuracies(
    model: rlhf.RewardModel, reward: rlhf.LearnedReward, held_out: rlhf.Rankings, names: tuple[str, ...]
) -> dict[str, tuple[float, int]]:
    """How often a reward model agrees with each annotator about outputs that it was not fitted to, and on how many."""
    tokens, order, mask, who, tied = jax.tree.map(jnp.asarray, held_out)
    flat = tokens.reshape(-1, tokens.shape[-1])
    scores = rlhf.ensemble_score(model, reward.params, flat, reward.uncertainty_penalty).reshape(order.shape)
    found = {}
    for number, name in enumerate(names):
        theirs = mask & (who == number)
        if theirs.any():
            found[name] = float(rlhf.pair_accuracy(scores, order, theirs, tied)), int(theirs.sum())
    return found


def said_of(found: Mapping[str, tuple[float, int]], bound: float | None) -> str:
    """Accuracies as a sentence has them."""
    each = ", ".join(f"{name} {accuracy:.0%} of {n}" for name, (accuracy, n) in found.items())
    return (each or "-") + ("" if bound is None else f"; at best {bound:.0%}, as often as they agree with each other")


def bound_of(lines: list[rlhf.RankingLine]) -> float | None:
    """The largest accuracy that people's agreement allows; None where no two ranked the same."""
    agreement = rlhf.agreement_of(rlhf.verdicts(lines)).value
    return None if agreement is None else rlhf.accuracy_bound(agreement)


def freeze(path: Path, lines: list[rlhf.RankingLine]) -> None:
    """Write what is fitted, so that it stays the same whatever is ranked later."""
    tables.write_text(path, "".join(map(written_line, lines)))
