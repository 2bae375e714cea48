"""What people prefer: rankings of outputs, simulated people who make them, and the likelihood of a ranking.

A ranking says in which order a person likes K outputs to one prompt; for K = 2 it is a comparison. Under the model of
Plackett and Luce the best of K is chosen with probabilities softmax(utilities), then the best of the rest, and so on;
for K = 2 that is Bradley and Terry's: the first is preferred with probability σ(u_1 − u_2).

Rankings are stored as JSON lines, so that those of people from elsewhere go in the same way:

    {"prompt": "se ", "outputs": ["nos nan.", "ma."], "ranking": [1, 0], "annotator": "ada", "ended": [true, true]}

`ranking` lists outputs by their index, best first, each at most once and at least two of them, no two of which are the
same text. `annotator` may be left out, and so may `ended`: whether an output came to its end or was cut off.
"""

import itertools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from pgjax.errors import InputError
from pgjax.paths import full_path
from pgjax.rlhf.tokens import BOS, EOS, PAD, Tokenizer, left_padded, right_padded


class Rankings(NamedTuple):
    """N rankings of K outputs each, of which fewer may be ranked."""

    tokens: Any  # [N, K, W + T] int32, prompts and outputs
    order: Any  # [N, K] int32, indices of outputs, best first; −1 in the places after those that were ranked
    mask: Any  # [N] bool, a real ranking; the others are room for more
    annotator: Any  # [N] int32, who made it


class Annotators(NamedTuple):
    """How people choose; all are traced scalars, so any can be swept. Biases and tastes are in nats of utility."""

    temperature: Any = 1.0  # τ: what a difference in the gold reward counts is Δ/τ
    position_bias: Any = 0.0  # for each place that an output is shown earlier
    length_bias: Any = 0.0  # for each token of an output
    disagreement: Any = 0.0  # times what a person's own taste says of an output, see `tastes`


def check_annotators(annotators: Annotators) -> None:
    """Raise unless numbers that are known make people who can choose.

    Raises:
        InputError: If the temperature is not above 0, the disagreement is below it, or a number is not finite.
    """
    for name, number in annotators._asdict().items():
        if isinstance(number, int | float) and not np.isfinite(number):
            raise InputError(f"expected annotators with a finite {name.replace('_', ' ')}, got {number}")
    temperature, disagreement = annotators.temperature, annotators.disagreement
    if isinstance(temperature, int | float) and not temperature > 0:
        raise InputError(f"expected annotators with a temperature τ above 0, got {temperature}")
    if isinstance(disagreement, int | float) and not disagreement >= 0:
        raise InputError(f"expected annotators with a disagreement of 0 or more, got {disagreement}")


def split_by_prompt(rankings: Rankings, width: int, fraction: float = 0.2, seed: int = 0) -> tuple[Rankings, Rankings]:
    """Rankings to be fitted, and those to be held out: all of some prompts, which are drawn by chance.

    What a reward model says of a prompt that it has seen ranked, it may remember; so both parts have prompts of their
    own. Rankings whose mask is false are in neither.

    Args:
        rankings: [N, K].
        width: W, columns of the prompts.
        fraction: Of the prompts, those to hold out; at least one is, and one is not.
        seed: Of the choice.

    Raises:
        InputError: If there are less than two prompts, or the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"expected a fraction of held-out prompts between 0 and 1, got {fraction}")
    real = jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(rankings.mask, bool)], rankings)
    prompts, which = np.unique(real.tokens[:, 0, :width], axis=0, return_inverse=True)
    if len(prompts) < 2:
        raise InputError(
            f"expected rankings for two or more prompts, one of them to measure by, got {len(prompts)} prompt"
        )
    count = min(max(1, round(fraction * len(prompts))), len(prompts) - 1)
    aside = np.isin(which.reshape(-1), np.random.default_rng(seed).permutation(len(prompts))[:count])
    return jax.tree.map(lambda leaf: leaf[~aside], real), jax.tree.map(lambda leaf: leaf[aside], real)


def tastes(
    key: jax.Array, tokens: jax.Array, output: jax.Array, annotator: jax.Array, people: int, vocabulary: int
) -> jax.Array:
    """Return what each person's own taste says of outputs, [N, K]: Σ_token weight / √(tokens).

    A person has a weight for every token, drawn once from N(0, 1), and so says the same of the same output again.

    Args:
        key: Who these people are.
        tokens: [N, K, L].
        output: Where the outputs are in them, [N, K, L] bool.
        annotator: Who looks, [N], from 0 to `people` − 1.
        people: How many there are.
        vocabulary: V.
    """
    weights = jax.random.normal(key, (people, vocabulary))[annotator]  # [N, V]
    N, K, L = tokens.shape
    of_token = jnp.take_along_axis(weights, tokens.reshape(N, K * L), axis=1).reshape(N, K, L)
    count = jnp.sum(output, axis=-1, dtype=weights.dtype)
    return jnp.sum(jnp.where(output, of_token, 0), axis=-1) / jnp.sqrt(jnp.maximum(count, 1))


def utilities(annotators: Annotators, gold: jax.Array, length: jax.Array, taste: jax.Array) -> jax.Array:
    """Return gold/τ + length_bias · length + disagreement · taste − position_bias · k, [N, K], in nats.

    Args:
        annotators: How they choose.
        gold: The gold reward of each output, [N, K], in the order in which they are shown: k = 0 … K − 1.
        length: Tokens of each, [N, K].
        taste: See `tastes`, [N, K].

    Raises:
        AssertionError: If the shapes differ.
    """
    chex.assert_rank(gold, 2)
    chex.assert_equal_shape([gold, length, taste])
    place = jnp.arange(gold.shape[1], dtype=gold.dtype)[None]
    said = gold / annotators.temperature + annotators.length_bias * length + annotators.disagreement * taste
    return said - annotators.position_bias * place


def rank(key: jax.Array, utilities: jax.Array) -> jax.Array:
    """Draw rankings from Plackett–Luce, [N, K] int32 from utilities [N, K]: indices, best first.

    The order of utilities plus independent Gumbel noise has that law.

    Source: Yellott, *The relationship between Luce's choice axiom, Thurstone's theory of comparative judgment, and the
    double exponential distribution*, 1977.
    """
    noise = jax.random.gumbel(key, utilities.shape, utilities.dtype)
    return jnp.argsort(-(utilities + noise), axis=1).astype(jnp.int32)


def first_different(tokens: jax.Array, K: int) -> tuple[jax.Array, jax.Array]:
    """Which K of C candidates are the first that differ, [N, K] int32, and where there are as many, [N] bool.

    Two outputs that are the same text teach nothing, whoever ranks them. Where fewer than K differ, the places that are
    left go to the first of the repeats.

    Args:
        tokens: C texts to each of N prompts, [N, C, L].
        K: How many to choose, at most C.

    Example:
        >>> chosen, enough = first_different(jnp.array([[[3], [3], [4], [3]], [[5], [5], [5], [5]]]), K=2)
        >>> chosen.tolist(), enough.tolist()
        ([[0, 2], [0, 1]], [True, False])
    """
    chex.assert_rank(tokens, 3)
    same = jnp.all(tokens[:, :, None] == tokens[:, None], axis=-1)  # [N, C, C]
    repeat = jnp.any(jnp.tril(same, -1), axis=2)  # the same as an earlier one
    chosen = jnp.argsort(repeat, axis=1, stable=True)[:, :K].astype(jnp.int32)
    return chosen, jnp.sum(~repeat, axis=1) >= K


def pairs_of(K: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all i < j below K, as two arrays."""
    first, second = np.triu_indices(K, 1)
    return first, second


def preferred(utilities: jax.Array) -> jax.Array:
    """Return the probability that the first of two outputs is preferred, σ(u_1 − u_2), [N] from utilities [N, 2].

    Raises:
        AssertionError: If there are not two outputs each.

    Source: Bradley & Terry, *Rank analysis of incomplete block designs*, 1952.
    """
    chex.assert_shape(utilities, (None, 2))
    return jax.nn.sigmoid(utilities[:, 0] - utilities[:, 1])


def accuracy_ceiling(utilities: jax.Array, mask: jax.Array) -> jax.Array:
    """Accuracy on pairs of rankings that nobody beats who knows all that the utilities are made of, [].

    That is the outputs and, where these count, the places in which they are shown and whose taste it is.

    It is the mean of max(p, 1 − p) over all pairs of [N, K], with p = σ(u_i − u_j) that i is put before j.

    Args:
        utilities: [N, K], in nats.
        mask: [N] bool, the rankings that count; the ceiling is 0 if none does.

    Raises:
        AssertionError: If the shapes are others.
    """
    chex.assert_rank([utilities, mask], [2, 1])
    chex.assert_equal_shape_prefix([utilities, mask], 1)
    first, second = pairs_of(utilities.shape[1])
    p = jax.nn.sigmoid(utilities[:, first] - utilities[:, second])
    best = jnp.where(mask[:, None], jnp.maximum(p, 1 - p), 0)
    return jnp.sum(best) / jnp.maximum(jnp.sum(mask) * len(first), 1)


def plackett_luce_loss(scores: jax.Array, order: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean negative log-likelihood of rankings, [], in nats: −Σ_i (s_(i) − ln Σ_{j ≥ i} e^{s_(j)}).

    For a pair it is −ln σ(r(X') − r(X)) with X' the preferred one: the lecture's l(θ_r), which is printed there without
    the minus sign, as something to maximise. What is added to all scores of a ranking changes nothing.

    Args:
        scores: r of each output, [N, K].
        order: [N, K], best first, −1 in places after the last.
        mask: [N] bool, the rankings that count; the loss is 0 if none does, and NaN if a score that is ranked in one
            that counts is.

    Raises:
        AssertionError: If the shapes are others.

    Source: the lecture; Bradley & Terry, *Rank analysis of incomplete block designs*, 1952; Plackett, *The analysis of
    permutations*, 1975.

    Example:
        >>> loss = plackett_luce_loss(jnp.zeros((1, 2)), jnp.array([[1, 0]]), jnp.array([True]))
        >>> round(float(loss), 4)  # ln 2, where both outputs score the same
        0.6931
    """
    chex.assert_rank([scores, order, mask], [2, 2, 1])
    chex.assert_equal_shape([scores, order])
    chex.assert_equal_shape_prefix([scores, mask], 1)
    ranked = order >= 0
    # What is not finite where nothing is ranked would make the gradient so.
    scores = jnp.where(mask[:, None], scores, 0)
    ordered = jnp.take_along_axis(scores, jnp.maximum(order, 0), axis=1)
    # Differences alone count, and beside a large number small ones would be lost.
    largest = jax.lax.stop_gradient(jnp.max(ordered, axis=1, keepdims=True, initial=-jnp.inf, where=ranked))
    ordered = jnp.where(ranked, ordered - largest, 0)
    each, rest = (
        jnp.zeros(len(scores), scores.dtype),
        ordered[:, -1],
    )  # rest: ln Σ_{j ≥ i} e^{s_(j)}, i from the last on
    for i in reversed(range(scores.shape[1] - 1)):
        rest = jnp.where(ranked[:, i + 1], jnp.logaddexp(ordered[:, i], rest), ordered[:, i])
        each += rest - ordered[:, i]
    return jnp.sum(jnp.where(mask, each, 0)) / jnp.maximum(jnp.sum(mask), 1)


def pair_accuracy(scores: jax.Array, order: jax.Array, mask: jax.Array) -> jax.Array:
    """The fraction of ranked pairs that scores put in the same order, []; a tie counts half.

    Arguments and errors are those of `plackett_luce_loss`; it is 0 if there is no pair, and NaN if a score of one is.
    """
    chex.assert_rank([scores, order, mask], [2, 2, 1])
    chex.assert_equal_shape([scores, order])
    chex.assert_equal_shape_prefix([scores, mask], 1)
    better, worse = pairs_of(scores.shape[1])
    ordered = jnp.take_along_axis(scores, jnp.maximum(order, 0), axis=1)
    counts = (order[:, worse] >= 0) & mask[:, None]
    right = 0.5 * (1 + jnp.sign(ordered[:, better] - ordered[:, worse]))  # NaN of what is no number
    return jnp.sum(jnp.where(counts, right, 0)) / jnp.maximum(jnp.sum(counts), 1)


class Calibration(NamedTuple):
    """What a reward model says of pairs against what people do, by what it says; bins without a pair are left out."""

    predicted: np.ndarray  # [B], mean σ(r_1 − r_2) of a bin
    preferred: np.ndarray  # [B], fraction of its pairs in which the first was preferred
    pairs: np.ndarray  # [B] int, how many there are
    error: float  # the mean distance of the two, over pairs: the expected calibration error


def calibration(scores: Any, order: Any, mask: Any, bins: int = 10) -> Calibration:
    """Return how far probabilities σ(r_1 − r_2) can be trusted, for pairs.

    Args:
        scores: r of each output, [N, 2].
        order: [N, 2], best first.
        mask: [N] bool, the rankings that count.
        bins: Of equal width, from 0 to 1.

    Raises:
        InputError: If a score that counts is not finite.
        AssertionError: If scores are not [N, 2].

    Source: Guo et al., *On calibration of modern neural networks*, 2017.
    """
    scores, order, mask = np.asarray(scores, float), np.asarray(order), np.asarray(mask, bool)
    chex.assert_shape(scores, (None, 2))
    strange = scores[mask][~np.isfinite(scores[mask])]
    if strange.size:
        raise InputError(f"expected finite scores of the rankings that count, got {strange[0]}")
    p = special.expit(scores[mask, 0] - scores[mask, 1])
    first = order[mask, 0] == 0
    which = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    some = count > 0
    predicted = np.bincount(which, p, bins)[some] / count[some]
    preferred = np.bincount(which, first, bins)[some] / count[some]
    error = float(np.sum(count[some] * np.abs(predicted - preferred)) / max(1, count.sum()))
    return Calibration(predicted, preferred, count[some], error)


def save_rankings(
    path: str | Path, rankings: Rankings, tokenizer: Tokenizer, width: int, names: Sequence[str] | None = None
) -> None:
    """Write rankings as JSON lines; the file is there as a whole or not at all.

    Rankings in which the same output is ranked twice say nothing, and are left out.

    Args:
        path: Where.
        rankings: Those whose `mask` is true are written.
        tokenizer: Of their texts.
        width: W, columns of the prompts.
        names: Of the annotators; their numbers, if not given.

    Raises:
        InputError: If there is no ranking of outputs that differ, an annotator has no name, a token is outside the
            vocabulary, or the file cannot be written.
    """
    path, lines = full_path(path), []
    for tokens, order, real, who in zip(*(np.asarray(leaf) for leaf in rankings), strict=True):
        if real:
            if names is not None and not 0 <= who < len(names):
                raise InputError(f"expected a name for each annotator, got {len(names)} and annotator {who}")
            line: dict[str, Any] = {
                "prompt": tokenizer.decode(tokens[0, :width]),
                "outputs": [tokenizer.decode(row[width:]) for row in tokens],
                "ranking": [int(i) for i in order if i >= 0],
                "annotator": str(who) if names is None else names[who],
                "ended": [bool((row[width:] == EOS).any()) for row in tokens],
            }
            if _twice(line["outputs"], line["ended"], line["ranking"]) is None:
                lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    if not lines:
        raise InputError("expected one or more rankings whose mask is true and whose outputs differ, got none")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as directory:
            unfinished = Path(directory) / "rankings.jsonl"
            with unfinished.open("w", encoding="utf-8") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
    except OSError as error:
        raise InputError(f"expected a file that can be written, got {path}: {error.strerror or error}") from error


def load_rankings(
    path: str | Path, tokenizer: Tokenizer, width: int, length: int, outputs: int | None = None
) -> tuple[Rankings, tuple[str, ...]]:
    """Read rankings from JSON lines, and the names of the annotators that they number.

    Names have their numbers in order: whole numbers first, by their size, so that annotators 0 to N − 1 whom
    `save_rankings` wrote without names are who they were. Accents are read as `Tokenizer.encode` does; a byte order
    mark and blank lines at the end are passed over.

    Args:
        path: Where.
        tokenizer: Of the model that is to learn from them.
        width: W, columns for prompts, bos included.
        length: T, columns for outputs, eos included.
        outputs: K; if not given, that of the line which has most.

    Returns:
        Rankings of K outputs; lines with fewer have empty ones, which are not ranked.

    Raises:
        InputError: If the file cannot be read or is empty, or a line is not as the module says, too long, or of more
            than K outputs: it names the line.
    """
    path = full_path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"expected rankings in UTF-8 in {path}, got a byte that is none at {error.start}") from error
    except OSError as error:
        raise InputError(f"expected a file of rankings, got {path}: {error.strerror}") from error
    if not text.strip():
        raise InputError(f"expected one or more rankings in {path}, got an empty file")
    lines = text.rstrip(" \t\n").split("\n")  # splitlines() would also split at what may stand in a text: U+2028
    read = [
        _read_line(f"{path}, line {number}", line, tokenizer, width, length) for number, line in enumerate(lines, 1)
    ]
    names = sorted({who for *_, who in read}, key=lambda who: (0, int(who), who) if who.isdecimal() else (1, 0, who))
    K = max(len(texts) for _, texts, *_ in read) if outputs is None else outputs
    for number, (_, texts, *_) in enumerate(read, 1):
        if len(texts) > K:
            raise InputError(f"{path}, line {number}: expected at most {K} outputs, got {len(texts)}")
    tokens = np.full((len(read), K, width + length), PAD, np.int32)
    order = np.full((len(read), K), -1, np.int32)
    for i, (prompt, texts, ranking, _) in enumerate(read):
        tokens[i, :, :width] = left_padded([prompt], width)
        tokens[i, : len(texts), width:] = right_padded(texts, length)
        order[i, : len(ranking)] = ranking
    annotator = np.asarray([names.index(who) for *_, who in read], np.int32)
    return Rankings(tokens, order, np.ones(len(read), bool), annotator), tuple(names)


def _twice(outputs: Sequence[str], ended: Sequence[bool], ranking: Sequence[int]) -> str | None:
    """The first output that a ranking has twice, or None."""
    same = [(outputs[i], ended[i]) for i in ranking]
    return next((one[0] for one, other in itertools.combinations(same, 2) if one == other), None)


def _read_line(
    where: str, line: str, tokenizer: Tokenizer, width: int, length: int
) -> tuple[np.ndarray, list[np.ndarray], list[int], str]:
    """Return a line's prompt, outputs, ranking and annotator, the first two as tokens.

    Raises:
        InputError: In a sentence that begins with `where`.
    """

    def expect(condition: bool, expected: str, came: Any) -> None:
        if not condition:
            raise InputError(f"{where}: expected {expected}, got {came}")

    def is_index(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets as deep
        why = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InputError(f"{where}: expected JSON, got {line[:40]!r}: {why}") from error
    expect(isinstance(fields, dict), "an object with prompt, outputs and ranking", type(fields).__name__)
    missing = {"prompt", "outputs", "ranking"} - set(fields)
    unknown = set(fields) - {"prompt", "outputs", "ranking", "annotator", "ended"}
    expect(not missing, "prompt, outputs and ranking", f"no {min(missing, default='')}")
    expect(not unknown, "no other fields than prompt, outputs, ranking, annotator and ended", min(unknown, default=""))
    prompt, outputs, ranking = fields["prompt"], fields["outputs"], fields["ranking"]
    who = fields.get("annotator", "")
    expect(isinstance(prompt, str), "a prompt that is a text", type(prompt).__name__)
    expect(isinstance(who, str), "an annotator that is a text", type(who).__name__)
    texts = isinstance(outputs, list) and all(isinstance(output, str) for output in outputs)
    expect(texts and len(outputs) >= 2, "two or more outputs that are texts", str(outputs)[:60])
    expect(isinstance(ranking, list) and all(map(is_index, ranking)), "a ranking of indices", str(ranking)[:60])
    for index in ranking:
        expect(0 <= index < len(outputs), f"indices from 0 to {len(outputs) - 1} in the ranking", index)
        expect(ranking.count(index) == 1, "every output at most once in the ranking", f"{index} twice or more")
    expect(len(ranking) >= 2, "two or more outputs in the ranking", len(ranking))
    ended = fields.get("ended", [True] * len(outputs))
    flags = isinstance(ended, list) and len(ended) == len(outputs) and all(isinstance(flag, bool) for flag in ended)
    expect(flags, "true or false for each output in ended", str(ended)[:60])

    twice = _twice(outputs, ended, ranking)
    expect(twice is None, "outputs that differ in the ranking", f"{str(twice)[:40]!r} twice or more")

    def encode(text: str) -> np.ndarray:
        try:
            return tokenizer.encode(text)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    begin = np.concatenate([[BOS], encode(prompt)])
    expect(len(begin) <= width, f"a prompt of at most {width - 1} characters", len(begin) - 1)
    rows = []
    for output, flag in zip(outputs, ended, strict=True):
        row = np.concatenate([encode(output), [EOS]] if flag else [encode(output)]).astype(np.int32)
        expect(len(row) <= length, f"outputs of at most {length} tokens, eos included", len(row))
        rows.append(row)
    return begin, rows, ranking, who
