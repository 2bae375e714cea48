"""Texts to learn from: of a grammar, the documentation of Python, or of any file."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pgjax.errors import InputError, say
from pgjax.paths import full_path
from pgjax.text.grammars import Grammar
from pgjax.text.json_lines import CHAT, Template, answer_of, objects, prompt_of
from pgjax.text.tokens import BOS, EOS, PAD, Tokenizer, left_padded, right_padded, tokenizer_for

SENTENCES = 2**32 - 2  # folded into a corpus's key: it has none in common with the runs of a study of that number


class Corpus(NamedTuple):
    """Texts, and beginnings of them to go on from."""

    name: str
    tokenizer: Tokenizer
    texts: np.ndarray  # [N, L] int32: bos, a text, perhaps eos, pads to the right
    prompts: np.ndarray  # [M, W] int32: pads to the left, bos, a text
    grammar: Grammar | None = None  # that they are of
    learned: np.ndarray | None = None  # [N, L] bool, tokens that are learned from; all of them, where it is None


def grammar_corpus(grammar: Grammar, key: jax.Array, n: int, prompt_words: int = 1) -> Corpus:
    """N sentences of a grammar, and as prompts their first words, each with the space after it.

    Args:
        grammar: Whose sentences.
        key: What they are drawn with.
        n: How many, at least 1.
        prompt_words: Words of a prompt; 0 for bos alone.

    Raises:
        InputError: If no sentence has so many words and goes on, see `beginnings`.
    """
    own = jax.random.fold_in(key, np.uint32(SENTENCES))
    texts = np.asarray(jax.jit(grammar.sample, static_argnums=1)(own, n))
    space = texts[:, :-1] == grammar.tokenizer.encode(" ")[0]
    prompts = beginnings(texts, np.pad(space, ((0, 0), (1, 0))), prompt_words)
    return Corpus(name="grammar", tokenizer=grammar.tokenizer, texts=texts, prompts=prompts, grammar=grammar)


def beginnings(texts: np.ndarray, starts: np.ndarray, words: int) -> np.ndarray:
    """The first words of texts [N, L], each with the blank after it, [M, W]; of no words, bos alone.

    A text of fewer words has none, and one whose words take more than half of the columns is passed over.

    Args:
        texts: Which.
        starts: Where a word of them begins that is not the first, [N, L] bool.
        words: How many.

    Raises:
        InputError: If there is none, or the number of words is below 0.
    """
    if words < 0:
        raise InputError(f"expected prompts of 0 or more words, got {words}")
    if words == 0:
        return np.full((1, 1), BOS, np.int32)
    counts = np.cumsum(starts, axis=1)
    ends = np.where(counts[:, -1] >= words, np.argmax(counts == words, axis=1), texts.shape[1])
    rows = [row[:end] for row, end in zip(texts, ends, strict=True) if end <= texts.shape[1] // 2]
    if not rows:
        raise InputError(f"expected texts that begin with {words} words and go on, got none")
    return left_padded(rows, max(map(len, rows)))


def text_corpus(
    text: str,
    name: str,
    length: int,
    prompt_words: int = 2,
    rare: float = 1e-5,
    tokenizer: Tokenizer | None = None,
) -> Corpus:
    """Any text as windows of `length` tokens that begin where a word does, and the first words of each.

    A paragraph ends at an empty line, and its last window with eos; no window holds parts of two. A word that the end
    of a window cuts is the first of the next window, so nothing but blanks is lost; only a word as long as a window
    goes on where it is cut, and may be the last without eos.

    Where tokens are characters, which is so if no tokenizer is given, runs of blanks and single line breaks count as
    one space, and accents are composed (Unicode's NFC), so that the same text is the same tokens. To another tokenizer
    a paragraph is given as it is.

    Args:
        text: The whole of it.
        name: What it is called.
        length: L, tokens of a window, bos included.
        prompt_words: Words of a prompt.
        rare: Characters that make up a smaller fraction of the text are replaced by "?" where they are tokens; a space
            never is.
        tokenizer: Of the text; of its characters, if not given.

    Raises:
        InputError: If the text is blank or the windows are too short; see `beginnings` and the tokenizer's `encode`.
    """
    if length < 3:
        raise InputError(f"expected windows of 3 or more tokens, got {length}")
    text = unicodedata.normalize("NFC", text) if tokenizer is None else text
    paragraphs = [part.strip("\r\n") for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not paragraphs:
        raise InputError(f"expected a text with one or more characters in {name}, got an empty one")
    if tokenizer is None:
        paragraphs = [" ".join(part.split()) for part in paragraphs]
        whole = " ".join(paragraphs)
        count = Counter(whole)
        strange = "".join(c for c in count if c != " " and count[c] < rare * len(whole))  # words need their spaces
        tokenizer = tokenizer_for("".join(set(count) - set(strange)) + " " + ("?" if strange else ""))
        table = str.maketrans(strange, "?" * len(strange))
        paragraphs = [part.translate(table) for part in paragraphs]
    rows, starts = [], []
    for part in paragraphs:
        tokens, blank, begins = words_of(part, tokenizer)
        for begin, end in windows(blank, begins, length):
            tail = [EOS] if end == len(tokens) and end - begin < length - 1 else []
            rows.append(np.concatenate([[BOS], tokens[begin:end], tail]))
            said = np.cumsum(~blank[begin:end])  # tokens with more than a blank so far
            others = begins[begin:end] & (said > ~blank[begin:end])  # words behind the first
            starts.append(np.concatenate([[False], others, [False] * len(tail)]))
    texts = right_padded(rows, length)
    prompts = beginnings(texts, right_padded(starts, length) > 0, prompt_words)
    return Corpus(name=name, tokenizer=tokenizer, texts=texts, prompts=prompts)


def words_of(text: str, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of a text [n], which of them are nothing but blanks, and with which of them a word begins, both bool.

    A word begins behind a blank, which may be a part of the same token.
    """
    tokens, spans = tokenizer.spans(text)
    inside = np.asarray([not character.isspace() for character in text] + [False])
    before = np.cumsum(inside) - inside  # characters of words before each place
    first = inside & ~np.append(False, inside[:-1])  # where a word begins
    begun = np.cumsum(first) - first
    begin, end = spans.T
    new = np.maximum(begin, np.maximum.accumulate(np.append(0, end))[:-1])  # several tokens may make one character
    return tokens, before[begin] == before[end], begun[new] < begun[end]


def windows(blank: np.ndarray, begins: np.ndarray, length: int) -> Iterator[tuple[int, int]]:
    """Where windows of a paragraph begin and end in its tokens, see `text_corpus`; arguments are those of `words_of`.

    A window has room for bos and length − 1 tokens, of which eos may be the last.
    """
    begin, n = 0, len(blank)
    while begin < n:
        end = min(begin + length - 1, n)
        yield begin, end
        if end - begin < length - 1:  # the end of the paragraph, with its eos, fits in
            return
        begin = next_window(blank, begins, begin, end)


def next_window(blank: np.ndarray, begins: np.ndarray, begin: int, end: int) -> int:
    """Where to go on behind tokens begin … end: at their last word if that is cut or the text is over, else behind."""
    behind = end
    while behind < len(blank) and blank[behind]:
        behind += 1
    words = begin + 1 + np.flatnonzero(begins[begin + 1 : behind + 1])
    return int(words[-1]) if len(words) else end


class Pair(NamedTuple):
    """A prompt with an answer to it."""

    prompt: str
    answer: str
    where: str = "a pair"  # it stands, as errors say it


def load_pairs(path: str | Path, template: Template = CHAT) -> list[Pair]:
    """Prompts and their answers, from a file of JSON lines `{"prompt": …, "completion": …}`.

    Either may be the messages of a chat, `[{"role": …, "content": …}, …]`, an answer a single one.

    Args:
        path: The file. TRL's *prompt-completion* data sets have this form.
        template: Of the messages, see `pgjax.text.prompt_of`.

    Raises:
        InputError: If it cannot be read or is empty, or a line is of another form: it names the line.
    """
    pairs = []
    for where, fields in objects(path, "prompts and completions", "prompt and completion"):
        for name in ("prompt", "completion"):
            if name not in fields:
                raise InputError(f"{where}: expected prompt and completion, got no {name}")
        try:
            answer = answer_of(fields["completion"], "a completion")
            pairs.append(Pair(prompt_of(fields["prompt"], template), answer, where))
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return pairs


def pairs_corpus(
    pairs: Sequence[Pair], name: str, length: int, tokenizer: Tokenizer | None = None, skip_long: bool = False
) -> Corpus:
    """Prompts with answers as texts of at most `length` tokens, of which the answers alone are learned from.

    A text is bos, a prompt, its answer and eos; the answer and eos are what is learned. No prompt is cut.

    Args:
        pairs: Prompts, each with its answer.
        name: What they are called.
        length: L, tokens of a text, bos and eos included.
        tokenizer: Of the texts; of all their characters, if not given.
        skip_long: Whether pairs that are longer are left out, and how many is said, or refused.

    Raises:
        InputError: If there is none, or one is too long or has no tokens: it says which.

    Example:
        >>> corpus = pairs_corpus([Pair("1+1=", "2"), Pair("2+", "3=5")], "sums", length=8)
        >>> [corpus.tokenizer.decode(text[learned]) for text, learned in zip(corpus.texts, corpus.learned)]
        ['2', '3=5']
    """
    chosen = tokenizer
    if chosen is None:
        chosen = tokenizer_for("".join(pair.prompt + pair.answer for pair in pairs))
    rows, starts, long = [], [], 0
    for pair in pairs:
        try:
            before, after = chosen.encode(pair.prompt), chosen.encode(pair.answer)
        except InputError as error:
            raise InputError(f"{pair.where}: {error}") from error
        row = np.concatenate([[BOS], before, after, [EOS]])
        if len(row) <= length:
            rows.append(row)
            starts.append(1 + len(before))
        elif skip_long:
            long += 1
        else:
            raise InputError(f"{pair.where}: expected at most {length} tokens, bos and eos included, got {len(row)}")
    if long:
        say(f"{long} of {len(pairs)} pairs have more than {length} tokens, and are left out")
    if not rows:
        raise InputError(f"expected one or more prompts with answers of at most {length} tokens in {name}, got none")
    texts = right_padded(rows, max(map(len, rows)))
    prompts = left_padded([row[:start] for row, start in zip(rows, starts, strict=True)], max(starts))
    learned = (np.arange(texts.shape[1]) >= np.asarray(starts)[:, None]) & (texts != PAD)
    return Corpus(name=name, tokenizer=chosen, texts=texts, prompts=prompts, learned=learned)


def python_docs() -> str:
    """The prose that CPython brings for its `help()`; it differs by version, see `digest`."""
    from pydoc_data import topics

    return "\n\n".join(topics.topics[name] for name in sorted(topics.topics))


def digest(*parts: str | np.ndarray) -> str:
    """What tells a text from another: the first 16 digits of its SHA-256.

    Args:
        parts: Of which it is made; an array stands for its bytes, in hexadecimal digits.
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            sha.update(part.encode())
        else:
            given = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            for begin in range(0, len(given), 2**20):  # of a large one, the digits would take memory
                sha.update(given[begin : begin + 2**20].tobytes().hex().encode())
    return sha.hexdigest()[:16]


def read_text(path: str | Path) -> str:
    """A file's text, without a byte order mark, its accents composed (Unicode's NFC).

    Raises:
        InputError: If there is no such file, it is not UTF-8, or nothing is in it.
    """
    path = full_path(path)
    try:
        text = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"expected text in UTF-8 in {path}, got a byte that is none at {error.start}") from error
    except OSError as error:
        raise InputError(f"expected a file of text, got {path}: {error.strerror or error}") from error
    if not text.strip():
        raise InputError(f"expected a text with one or more characters in {path}, got an empty one")
    return text
