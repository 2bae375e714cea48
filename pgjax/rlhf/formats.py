"""Rankings as JSON lines: what people, pages and programs write, a ranking a line.

    {"prompt": "se ", "outputs": ["nos nan.", "ma."], "ranking": [1, 0], "annotator": "ada", "ended": [true, true]}

`ranking` lists outputs by their index, best first, each at most once and at least two of them, no two of which are the
same text. Outputs that are equally good stand in a list of their own: `[[0, 1]]` is a tie, and `[]` is a skip.
`annotator` may be left out, and so may `ended`: whether an output came to its end or was cut off. So may what a page
adds: `shown` (indices in the order in which the outputs stood there, the first at the left), `seconds`, `time` (UTC),
`task` (see `task_id`), `round`, `model` (the digest of θ), `asked` (how the task was chosen: uniform or disagreement),
`again` (whether this annotator had ranked it before), `question` and `id`. All other fields are kept as they are.

A line `{"withdraws": ID}` takes back the line above it with this `id`.

Lines as TRL has them, `{"prompt": …, "chosen": …, "rejected": …}`, are read as comparisons of two outputs. A prompt may
be the messages of a chat, `[{"role": …, "content": …}, …]`, and so may an output, which then is a single one.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pgjax.errors import InputError
from pgjax.paths import full_path, replacing
from pgjax.text import json_lines
from pgjax.text.json_lines import CHAT, Template, answer_of, objects, prompt_of

Kept = TypeVar("Kept")
FIELDS = "prompt, outputs and ranking"
OURS = ("prompt", "outputs", "ranking", "annotator", "ended")


class RankingLine(NamedTuple):
    """A ranking, as a line has it."""

    prompt: str
    outputs: tuple[str, ...]
    ranking: tuple[tuple[int, ...], ...]  # best first, the equally good ones together; () where it was skipped
    annotator: str
    ended: tuple[bool, ...]
    more: Mapping[str, Any] = {}  # all other fields

    def pairs(self) -> list[tuple[int, int]]:
        """Every two outputs of which the first was put before the second."""
        return [
            (better, worse)
            for one, other in itertools.combinations(self.ranking, 2)
            for better, worse in itertools.product(one, other)
        ]

    def ties(self) -> list[tuple[int, int]]:
        """Every two outputs that were put level."""
        return [pair for group in self.ranking for pair in itertools.combinations(sorted(group), 2)]


def task_id(prompt: str, outputs: Sequence[str], ended: Sequence[bool]) -> str:
    """What tells a task from another: 16 digits of a SHA-256 of its prompt and outputs."""
    text = json.dumps([prompt, list(outputs), list(map(bool, ended))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ranking_lines(paths: str | Path | Sequence[str | Path], template: Template = CHAT) -> list[RankingLine]:
    """The rankings of one or more files, skips included, without those that were withdrawn.

    Args:
        paths: The files.
        template: Of a chat's messages, see `pgjax.text.prompt_of`.

    Raises:
        InputError: If a file cannot be read or is empty, or a line is not as the module says: it names the line.
    """
    return kept_of(paths, lambda where, line: line, template)


def kept_of(
    paths: str | Path | Sequence[str | Path], keep: Callable[[str, RankingLine], Kept], template: Template = CHAT
) -> list[Kept]:
    """What is kept of each of `ranking_lines`, so that no more than this is in memory.

    Args:
        paths: The files.
        keep: From the words that say where a line stands, and the ranking, to what is kept of it.
        template: Of a chat's messages.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    if not several:
        raise InputError("expected one or more files of rankings, got none")
    found: dict[object, Kept] = {}
    for path in several:
        for where, fields in objects(path, "rankings", FIELDS):
            if "withdraws" in fields:
                taken = str(fields["withdraws"])
                if (path, taken) not in found:
                    raise InputError(f"{where}: expected a line above to withdraw, got {taken[:40]!r}")
                del found[path, taken]
            else:
                line = checked_line(where, fields, template)
                found[(path, str(line.more["id"])) if "id" in line.more else where] = keep(where, line)
    return list(found.values())


def parsed(where: str, written: str) -> dict[str, Any]:
    """A line's fields; errors are those of `pgjax.text.json_lines.parsed`."""
    return json_lines.parsed(where, written, FIELDS)


def checked_line(where: str, fields: Mapping[str, Any], template: Template = CHAT) -> RankingLine:
    """The ranking that a line's fields are.

    Raises:
        InputError: If they are none, in a sentence that begins with `where`.
    """

    def expect(condition: bool, expected: str, came: Any) -> None:
        if not condition:
            raise InputError(f"{where}: expected {expected}, got {came}")

    compared = "chosen" in fields and "outputs" not in fields
    names = ("prompt", "chosen", "rejected") if compared else ("prompt", "outputs", "ranking")
    missing = set(names) - set(fields)
    expect(not missing, f"{names[0]}, {names[1]} and {names[2]}", f"no {min(missing, default='')}")
    if compared:
        two = {"outputs": [fields["chosen"], fields["rejected"]], "ranking": [0, 1]}
        # An id is a name of a ranking here, and of who knows what there.
        fields = {name: value for name, value in fields.items() if name not in (*names[1:], "id")} | two
    outputs, who = fields["outputs"], fields.get("annotator", "")
    expect(isinstance(who, str), "an annotator that is a text", type(who).__name__)
    texts = isinstance(outputs, list) and all(isinstance(output, str | list) for output in outputs)
    expect(texts and len(outputs) >= 2, "two or more outputs that are texts", str(outputs)[:60])
    try:
        prompt, outputs = prompt_of(fields["prompt"], template), [answer_of(output, "an output") for output in outputs]
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    ended = fields.get("ended", [True] * len(outputs))
    flags = isinstance(ended, list) and len(ended) == len(outputs) and all(isinstance(flag, bool) for flag in ended)
    expect(flags, "true or false for each output in ended", str(ended)[:60])
    groups = _groups(where, fields["ranking"], len(outputs))
    same = [(outputs[i], ended[i]) for group in groups for i in group]
    twice = next((one[0] for one, other in itertools.combinations(same, 2) if one == other), None)
    expect(twice is None, "outputs that differ in the ranking", f"{str(twice)[:40]!r} twice or more")
    shown, seconds = fields.get("shown"), fields.get("seconds")
    if shown is not None:
        every = isinstance(shown, list) and all(map(_is_index, shown)) and sorted(shown) == list(range(len(outputs)))
        expect(every, f"each of 0 to {len(outputs) - 1} once in shown", str(shown)[:60])
    if seconds is not None:
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        expect(number and math.isfinite(seconds) and seconds >= 0, "seconds of 0 or more", str(seconds)[:60])
    more = {name: value for name, value in fields.items() if name not in OURS}
    return RankingLine(prompt, tuple(outputs), groups, who, tuple(ended), more)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _groups(where: str, ranking: Any, outputs: int) -> tuple[tuple[int, ...], ...]:
    """A ranking's indices in groups of equally good ones, checked."""
    groups = [entry if isinstance(entry, list) else [entry] for entry in ranking] if isinstance(ranking, list) else [[]]
    indices = [index for group in groups for index in group]
    if not all(map(_is_index, indices)) or not all(groups):
        raise InputError(f"{where}: expected a ranking of indices, got {str(ranking)[:60]}")
    for index in indices:
        if not 0 <= index < outputs:
            raise InputError(f"{where}: expected indices from 0 to {outputs - 1} in the ranking, got {index}")
        if indices.count(index) > 1:
            raise InputError(f"{where}: expected every output at most once in the ranking, got {index} twice or more")
    if len(indices) == 1:
        raise InputError(f"{where}: expected two or more outputs in the ranking, got 1")
    return tuple(map(tuple, groups))


def written_line(line: RankingLine) -> str:
    """The line, in JSON, with its end."""
    fields = {
        "prompt": line.prompt,
        "outputs": list(line.outputs),
        "ranking": [group[0] if len(group) == 1 else list(group) for group in line.ranking],
        "annotator": line.annotator,
        "ended": list(line.ended),
        **line.more,
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def save_preferences(path: str | Path, lines: Sequence[RankingLine]) -> int:
    """Write every two outputs of which one was preferred, as TRL reads them; how many there are.

    A line is `{"prompt": …, "chosen": …, "rejected": …}`. Ties and skips have no place in that format.

    Raises:
        InputError: If nothing was preferred, or the file cannot be written.

    Source: TRL's documentation, *Dataset formats and types*: preference with an explicit prompt.
    """
    pairs = [
        {"prompt": line.prompt, "chosen": line.outputs[better], "rejected": line.outputs[worse]}
        for line in lines
        for better, worse in line.pairs()
    ]
    if not pairs:
        raise InputError("expected one or more outputs that were preferred to another, got none")
    write_whole(path, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    return len(pairs)


def write_whole(path: str | Path, text: str) -> None:
    """Write a file that is there as a whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    path = full_path(path)
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(f"expected a file that can be written, got {path}: {error.strerror or error}") from error
