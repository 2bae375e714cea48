"""Rankings as files of JSON lines, those of external annotators too.

A line is a ranking:

    {"prompt": "se ", "outputs": ["nos nan.", "ma."], "ranking": [1, 0], "annotator": "ada", "ended": [true, true]}

`ranking` lists outputs by their index, best first, each at most once and at least two of them, no two of which are the
same text. `annotator` may be left out, and so may `ended`: whether an output came to its end or was cut off.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pgjax.errors import InputError
from pgjax.paths import full_path, replacing
from pgjax.rlhf.preferences import Rankings
from pgjax.text.tokens import BOS, EOS, PAD, Tokenizer, left_padded, right_padded


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
        with replacing(path) as file:
            file.write("".join(lines).encode())
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
    return Rankings(tokens=tokens, order=order, mask=np.ones(len(read), bool), annotator=annotator), tuple(names)


def _twice(outputs: Sequence[str], ended: Sequence[bool], ranking: Sequence[int]) -> str | None:
    """The first output that a ranking has twice, or None."""
    same = [(outputs[i], ended[i]) for i in ranking]
    return next((one[0] for one, other in itertools.combinations(same, 2) if one == other), None)


def _read_line(
    where: str, line: str, tokenizer: Tokenizer, width: int, length: int
) -> tuple[np.ndarray, list[np.ndarray], list[int], str]:
    """A line's prompt, outputs, ranking and annotator, the first two as tokens.

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
