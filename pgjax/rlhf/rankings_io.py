"""Rankings of tokens, from files of JSON lines and to them; `pgjax.rlhf.formats` says what a line holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pgjax.errors import InputError, say
from pgjax.rlhf.formats import RankingLine, kept_of, write_whole, written_line
from pgjax.rlhf.preferences import Rankings
from pgjax.text.json_lines import CHAT, Template
from pgjax.text.tokens import BOS, EOS, PAD, Tokenizer


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
    lines = []
    for n in np.flatnonzero(rankings.mask):
        tokens, order, who = (np.asarray(leaf)[n] for leaf in (rankings.tokens, rankings.order, rankings.annotator))
        if names is not None and not 0 <= who < len(names):
            raise InputError(f"expected a name for each annotator, got {len(names)} and annotator {who}")
        tied = np.zeros(len(order), bool) if rankings.tied is None else np.asarray(rankings.tied)[n]
        groups: list[list[int]] = []
        for index, level in zip(order[order >= 0].tolist(), tied, strict=False):
            if level:
                groups[-1].append(index)
            else:
                groups.append([index])
        line = RankingLine(
            prompt=tokenizer.decode(tokens[0, :width]),
            outputs=tuple(tokenizer.decode(row[width:]) for row in tokens),
            ranking=tuple(map(tuple, groups)),
            annotator=str(who) if names is None else names[who],
            ended=tuple(bool((row[width:] == EOS).any()) for row in tokens),
        )
        texts = [(line.outputs[i], line.ended[i]) for group in groups for i in group]
        if len(set(texts)) == len(texts):
            lines.append(written_line(line))
    if not lines:
        raise InputError("expected one or more rankings whose mask is true and whose outputs differ, got none")
    write_whole(path, "".join(lines))


class Encoded(NamedTuple):
    """A ranking in tokens."""

    tokens: np.ndarray  # [n] int32, of the prompt, then of its outputs
    ends: tuple[int, ...]  # where each of these ends there
    ranked: tuple[tuple[int, bool], ...]  # indices of outputs, best first, and whether each is tied with that before
    annotator: str


def load_rankings(
    path: str | Path | Sequence[str | Path],
    tokenizer: Tokenizer,
    width: int,
    length: int,
    outputs: int | None = None,
    *,
    skip_long: bool = False,
    template: Template = CHAT,
) -> tuple[Rankings, tuple[str, ...]]:
    """Read rankings from JSON lines, and the names of the annotators that they number.

    Names have their numbers in order: whole numbers first, by their size, so that annotators 0 to N − 1 whom
    `save_rankings` wrote without names are who they were. Texts are encoded as the tokenizer does; a byte order mark
    and blank lines at the end are passed over, and so are tasks that were skipped. What is read is held in tokens, a
    line at a time.

    Args:
        path: Where; of several files, the rankings follow each other.
        tokenizer: Of the model that is to learn from them.
        width: W, columns for prompts, bos included.
        length: T, columns for outputs, eos included.
        outputs: K; if not given, that of the line which has most.
        skip_long: Whether lines with a text that is too long are left out, and how many is said, or refused.
        template: Of the messages of a chat, see `pgjax.text.prompt_of`.

    Returns:
        Rankings of K outputs; lines with fewer have empty ones, which are not ranked. Their `tied` is None where no
        outputs are equally good.

    Raises:
        InputError: If a file cannot be read or is empty, a line is not as `ranking_lines` reads it, too long, or of
            more than K outputs (it names the line), all were skipped, or all are too long.
    """
    long = 0

    def keep(where: str, line: RankingLine) -> Encoded | None:
        nonlocal long
        if not line.ranking:
            return None
        try:
            return encoded(where, line, tokenizer, width, length, outputs)
        except TooLongError:
            if not skip_long:
                raise
            long += 1
            return None

    read = [line for line in kept_of(path, keep, template) if line is not None]
    if long:
        say(f"{long} of {long + len(read)} rankings have a text that is too long, and are left out")
    if not read:
        came = "too long ones" if long else "skips"
        raise InputError(f"expected one or more rankings in {path}, got nothing but {came}")
    people = {line.annotator for line in read}
    names = sorted(people, key=lambda who: (0, int(who), who) if who.isdecimal() else (1, 0, who))
    K = max(len(line.ends) - 1 for line in read) if outputs is None else outputs
    tokens = np.full((len(read), K, width + length), PAD, np.int32)
    order = np.full((len(read), K), -1, np.int32)
    tied = np.zeros((len(read), K), bool)
    for i, line in enumerate(read):
        prompt, *texts = np.split(line.tokens, line.ends[:-1])
        tokens[i, :, width - len(prompt) : width] = prompt
        for k, text in enumerate(texts):
            tokens[i, k, width : width + len(text)] = text
        order[i, : len(line.ranked)], tied[i, : len(line.ranked)] = zip(*line.ranked, strict=True)
    number = {name: i for i, name in enumerate(names)}
    rankings = Rankings(
        tokens=tokens,
        order=order,
        mask=np.ones(len(read), bool),
        annotator=np.asarray([number[line.annotator] for line in read], np.int32),
        tied=tied if tied.any() else None,
    )
    return rankings, tuple(names)


class TooLongError(InputError):
    """A text has more tokens than there are columns for it."""


def encoded(
    where: str, line: RankingLine, tokenizer: Tokenizer, width: int, length: int, outputs: int | None
) -> Encoded:
    """A ranking in tokens; arguments are those of `load_rankings`.

    Raises:
        TooLongError: If the prompt or an output is.
        InputError: If there are more outputs, or no token for a part of a text; both in a sentence that begins with
            `where`.
    """
    if outputs is not None and len(line.outputs) > outputs:
        raise InputError(f"{where}: expected at most {outputs} outputs, got {len(line.outputs)}")
    try:
        prompt, *texts = (tokenizer.encode(text) for text in (line.prompt, *line.outputs))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if len(prompt) > width - 1:
        raise TooLongError(f"{where}: expected a prompt of at most {width - 1} tokens, got {len(prompt)}")
    rows = [np.append(text, [EOS] * ended) for text, ended in zip(texts, line.ended, strict=True)]
    for row in rows:
        if len(row) > length:
            raise TooLongError(f"{where}: expected outputs of at most {length} tokens, eos included, got {len(row)}")
    parts = [np.append(BOS, prompt), *rows]
    return Encoded(
        tokens=np.concatenate(parts).astype(np.int32),
        ends=tuple(np.cumsum([len(part) for part in parts]).tolist()),
        ranked=tuple((index, place > 0) for group in line.ranking for place, index in enumerate(group)),
        annotator=line.annotator,
    )
