"""What people are asked: a prompt and outputs that differ, from a file or from a model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pgjax.errors import InputError
from pgjax.paths import full_path
from pgjax.rlhf.formats import parsed, task_id, write_whole
from pgjax.text.tokens import BOS, EOS, Tokenizer, left_padded, right_padded

MOST_OUTPUTS = 9  # that have a key of their own


class Task(NamedTuple):
    """A prompt, and the outputs to be ranked."""

    prompt: str
    outputs: tuple[str, ...]
    ended: tuple[bool, ...]  # whether each came to its end, or was cut off
    more: Mapping[str, Any] = {}  # fields that the rankings of it are to have: round, model, asked, …

    @property
    def id(self) -> str:
        """The digest of its texts."""
        return task_id(self.prompt, self.outputs, self.ended)


def task_of(where: str, fields: Mapping[str, Any]) -> Task:
    """A task of the fields prompt, outputs and, if there is one, ended; all others are kept.

    Raises:
        InputError: If they make none, in a sentence that begins with `where`.
    """
    prompt, outputs = fields.get("prompt"), fields.get("outputs")
    ended = fields.get("ended", [True] * len(outputs) if isinstance(outputs, list) else None)
    if not isinstance(prompt, str):
        raise InputError(f"{where}: expected a prompt that is a text, got {type(prompt).__name__}")
    if not isinstance(outputs, list) or not all(isinstance(output, str) for output in outputs):
        raise InputError(f"{where}: expected outputs that are texts, got {str(outputs)[:60]}")
    if not 2 <= len(outputs) <= MOST_OUTPUTS:
        raise InputError(f"{where}: expected 2 to {MOST_OUTPUTS} outputs, got {len(outputs)}")
    if not isinstance(ended, list) or len(ended) != len(outputs) or not all(isinstance(flag, bool) for flag in ended):
        raise InputError(f"{where}: expected true or false for each output in ended, got {str(ended)[:60]}")
    if len(set(zip(outputs, ended, strict=True))) < len(outputs):
        raise InputError(f"{where}: expected outputs that differ, got one twice")
    for text in (prompt, *outputs):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: expected texts of Unicode, got half a character: {error.reason}") from error
    more = {name: value for name, value in fields.items() if name not in ("prompt", "outputs", "ended")}
    return Task(prompt, tuple(outputs), tuple(ended), more)


def load_tasks(path: str | Path) -> list[Task]:
    """Tasks from JSON lines `{"prompt": …, "outputs": […, …]}`; one that is there twice is asked once.

    Raises:
        InputError: If the file cannot be read or holds none, or a line is no task: it names the line.
    """
    path = full_path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"expected a file of tasks in UTF-8, got {path}: {error}") from error
    if not text.strip():
        raise InputError(f"expected one or more tasks in {path}, got an empty file")
    lines = text.rstrip(" \t\n").split("\n")
    places = ((f"{path}, line {number}", line) for number, line in enumerate(lines, 1))
    tasks = [task_of(where, parsed(where, line)) for where, line in places]
    return list({task.id: task for task in reversed(tasks)}.values())[::-1]


def save_tasks(path: str | Path, tasks: Sequence[Task]) -> None:
    """Write tasks as JSON lines; the file is there as a whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    fields = [{"prompt": task.prompt, "outputs": task.outputs, "ended": task.ended, **task.more} for task in tasks]
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in fields))


def tokens_of_tasks(tasks: Sequence[Task], tokenizer: Tokenizer, width: int, length: int) -> np.ndarray:
    """Tasks of K outputs each as tokens, [N, K, W + T] int32.

    Args:
        tasks: N of them.
        tokenizer: Of their texts.
        width: W, columns of the prompts.
        length: T, columns of the outputs.

    Raises:
        InputError: If a text is too long, or a character is outside the vocabulary.
    """
    rows = []
    for task in tasks:
        prompt = left_padded([np.concatenate([[BOS], tokenizer.encode(task.prompt)])] * len(task.outputs), width)
        texts = [
            np.concatenate([tokenizer.encode(output), [EOS] if ended else []])
            for output, ended in zip(task.outputs, task.ended, strict=True)
        ]
        rows.append(np.concatenate([prompt, right_padded(texts, length)], axis=1))
    return np.stack(rows)


def tasks_of_tokens(
    tokens: Any, enough: Any, tokenizer: Tokenizer, width: int, more: Mapping[str, Any] | None = None
) -> list[Task]:
    """Tasks of outputs that a model wrote, each once, without those for which there are no K that differ.

    Of subwords, other tokens may be the same text, and halves of a character one that has more tokens than there is
    room for: such outputs are in no task either.

    Args:
        tokens: [N, K, W + T].
        enough: Whether K differ, [N] bool.
        tokenizer: Of the texts.
        width: W, columns of the prompts.
        more: Fields that the rankings of them are to have.
    """
    found: dict[tuple[str, frozenset[tuple[str, bool]]], Task] = {}
    for rows in np.asarray(tokens)[np.asarray(enough, bool)]:
        task = Task(
            prompt=tokenizer.decode(rows[0, :width]),
            outputs=tuple(tokenizer.decode(row[width:]) for row in rows),
            ended=tuple(bool((row[width:] == EOS).any()) for row in rows),
            more=dict(more or {}),
        )
        same = frozenset(zip(task.outputs, task.ended, strict=True))
        room = rows.shape[1] - width
        fits = all(len(tokenizer.encode(output)) + ended <= room for output, ended in same)
        if fits and len(same) == len(rows):
            found.setdefault((task.prompt, same), task)
    return list(found.values())
