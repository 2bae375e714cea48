"""Rankings of tokens, from files of JSON lines and to them; `pgjax.rlhf.formats` says what a line holds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pgjax.errors import InputError
from pgjax.rlhf.formats import RankingLine, where_of, write_whole, written_line
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


def load_rankings(
    path: str | Path | Sequence[str | Path], tokenizer: Tokenizer, width: int, length: int, outputs: int | None = None
) -> tuple[Rankings, tuple[str, ...]]:
    """Read rankings from JSON lines, and the names of the annotators that they number.

    Names have their numbers in order: whole numbers first, by their size, so that annotators 0 to N − 1 whom
    `save_rankings` wrote without names are who they were. Accents are read as `Tokenizer.encode` does; a byte order
    mark and blank lines at the end are passed over, and so are tasks that were skipped.

    Args:
        path: Where; of several files, the rankings follow each other.
        tokenizer: Of the model that is to learn from them.
        width: W, columns for prompts, bos included.
        length: T, columns for outputs, eos included.
        outputs: K; if not given, that of the line which has most.

    Returns:
        Rankings of K outputs; lines with fewer have empty ones, which are not ranked. Their `tied` is None where no
        outputs are equally good.

    Raises:
        InputError: If a file cannot be read or is empty, a line is not as `ranking_lines` reads it, too long, or of
            more than K outputs (it names the line), or all were skipped.
    """
    located = [(where, line) for where, line in where_of(path) if line.ranking]
    if not located:
        raise InputError(f"expected one or more rankings in {path}, got nothing but skips")
    read = [_encoded(where, line, tokenizer, width, length) for where, line in located]
    people = {line.annotator for _, line in located}
    names = sorted(people, key=lambda who: (0, int(who), who) if who.isdecimal() else (1, 0, who))
    K = max(len(line.outputs) for _, line in located) if outputs is None else outputs
    for where, line in located:
        if len(line.outputs) > K:
            raise InputError(f"{where}: expected at most {K} outputs, got {len(line.outputs)}")
    tokens = np.full((len(read), K, width + length), PAD, np.int32)
    order = np.full((len(read), K), -1, np.int32)
    tied = np.zeros((len(read), K), bool)
    for i, ((prompt, texts), (_, line)) in enumerate(zip(read, located, strict=True)):
        tokens[i, :, :width] = left_padded([prompt], width)
        tokens[i, : len(texts), width:] = right_padded(texts, length)
        ranked = [(index, place > 0) for group in line.ranking for place, index in enumerate(group)]
        order[i, : len(ranked)], tied[i, : len(ranked)] = zip(*ranked, strict=True)
    annotator = np.asarray([names.index(line.annotator) for _, line in located], np.int32)
    rankings = Rankings(
        tokens=tokens,
        order=order,
        mask=np.ones(len(read), bool),
        annotator=annotator,
        tied=tied if tied.any() else None,
    )
    return rankings, tuple(names)


def _encoded(
    where: str, line: RankingLine, tokenizer: Tokenizer, width: int, length: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A line's prompt and outputs as tokens.

    Raises:
        InputError: In a sentence that begins with `where`.
    """

    def encode(text: str) -> np.ndarray:
        try:
            return tokenizer.encode(text)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    prompt = np.concatenate([[BOS], encode(line.prompt)])
    if len(prompt) > width:
        raise InputError(f"{where}: expected a prompt of at most {width - 1} characters, got {len(prompt) - 1}")
    rows = []
    for output, ended in zip(line.outputs, line.ended, strict=True):
        row = np.concatenate([encode(output), [EOS]] if ended else [encode(output)]).astype(np.int32)
        if len(row) > length:
            raise InputError(f"{where}: expected outputs of at most {length} tokens, eos included, got {len(row)}")
        rows.append(row)
    return prompt, rows
