"""Texts to learn from: a grammar whose entropy is known exactly, the documentation of Python, or any file."""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError
from pgjax.paths import full_path
from pgjax.text.tokens import BOS, EOS, PAD, Tokenizer, left_padded, right_padded, tokenizer_for

STOP = "."
SENTENCES = 2**32 - 2  # folded into a corpus's key: it has none in common with the runs of a study of that number


class Grammar(NamedTuple):
    """A regular grammar: parts of speech follow each other by chance, and each says a word of its own.

    A sentence is its words, a space between each two, then a full stop. No word belongs to two parts of speech, so
    every sentence comes about in one way, and what is computed of it is exact.
    """

    words: tuple[str, ...]
    part: np.ndarray  # [words] int, the part of speech of each word
    start: np.ndarray  # [parts], probability of each for the first word
    move: np.ndarray  # [parts, parts + 1], of each for the next; the last column: the sentence ends
    say: np.ndarray  # [words], probability of each word within its part of speech
    longest: int  # words of a sentence at most: the last of so many ends it

    @property
    def tokenizer(self) -> Tokenizer:
        """Characters of the words, space and full stop."""
        return tokenizer_for("".join(self.words) + " " + STOP)

    @property
    def columns(self) -> int:
        """L, tokens of the longest possible sentence: bos, characters, eos."""
        return 1 + self.longest * (max(map(len, self.words)) + 1) + 1

    def _expected(self, of_part: np.ndarray, of_step: np.ndarray) -> float:
        """The expectation of a sum over the words of a sentence.

        Args:
            of_part: What is added for each part of speech that says a word, [parts].
            of_step: What is added for the step from it, where the sentence may end, [parts].
        """
        reached, total = self.start, 0.0
        for place in range(self.longest):
            total += float(reached @ of_part)
            if place < self.longest - 1:
                total += float(reached @ of_step)
                reached = reached @ self.move[:, :-1]
        return total

    def _by_part(self, of_word: np.ndarray) -> np.ndarray:
        """Σ_word Pr(word | part) · of_word, [parts]."""
        return np.bincount(self.part, self.say * of_word, minlength=len(self.start))

    @property
    def entropy(self) -> float:
        """−E[ln Pr(sentence)], in nats, exactly."""
        words = self._by_part(-np.log(self.say))
        return entropy_of(self.start) + self._expected(words, np.apply_along_axis(entropy_of, 1, self.move))

    @property
    def length(self) -> float:
        """The expected number of tokens of a sentence after bos, eos included, exactly."""
        letters = self._by_part(np.asarray([len(word) + 1.0 for word in self.words]))  # and what follows each word
        return self._expected(letters, np.zeros(len(self.start))) + 1

    @property
    def floor(self) -> float:
        """The entropy in nats a token: no language model's mean negative log-likelihood is less."""
        return self.entropy / self.length

    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """Draw n sentences, [n, L] int32: bos, characters, eos, and pads to the right."""
        tokenizer, M, L = self.tokenizer, self.longest, self.columns
        spelled = jnp.asarray(right_padded([tokenizer.encode(word) for word in self.words], max(map(len, self.words))))
        sizes = jnp.asarray([len(word) for word in self.words])
        space, stop = (int(tokenizer.encode(character)[0]) for character in " " + STOP)
        says = np.full((len(self.start) + 1, len(self.words)), -np.inf)
        says[self.part, np.arange(len(self.words))] = np.log(self.say)
        says[-1] = 0  # nobody listens
        with np.errstate(divide="ignore"):
            moves = np.log(np.vstack([self.move, np.eye(len(self.start) + 1)[-1]]))
            first = np.log(np.append(self.start, 0))
        over = len(self.start)

        def one_word(part: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            say_key, move_key = jax.random.split(key)
            word = jax.random.categorical(say_key, jnp.asarray(says)[part])
            return jax.random.categorical(move_key, jnp.asarray(moves)[part]), (part, word)

        first_key, *keys = jax.random.split(key, M + 1)
        begins = jax.random.categorical(first_key, jnp.asarray(first), shape=(n,))
        _, (parts, chosen) = jax.lax.scan(one_word, begins, jnp.stack(keys))  # [M, n]
        said = parts != over
        size = jnp.where(said, sizes[chosen] + 1, 0)
        begin = 1 + jnp.cumsum(size, axis=0) - size
        end = 1 + jnp.sum(size, axis=0)
        row = jnp.arange(n)
        tokens = jnp.full((n, L), PAD, jnp.int32).at[:, 0].set(BOS)
        for letter in range(spelled.shape[1]):
            column = jnp.where(said & (letter < sizes[chosen]), begin + letter, L)
            tokens = tokens.at[jnp.broadcast_to(row, column.shape), column].set(spelled[chosen, letter], mode="drop")
        after = jnp.where(said, begin + size - 1, L)
        tokens = tokens.at[jnp.broadcast_to(row, after.shape), after].set(space, mode="drop")
        return tokens.at[row, end - 1].set(stop).at[row, end].set(EOS)

    def log_prob(self, tokens: object) -> np.ndarray:
        """Ln Pr of whole sentences [N, L], [N] float64: bos, characters, eos, pads; −inf for what is none.

        Raises:
            InputError: If a token is outside the vocabulary.
        """
        tokenizer = self.tokenizer
        number = {word: i for i, word in enumerate(self.words)}
        found = []
        for row in np.asarray(tokens):
            text = tokenizer.decode(row)
            words = text[:-1].split(" ")
            spelled = [BOS, *tokenizer.encode(text), EOS]
            whole = row[: len(spelled)].tolist() == spelled and bool((row[len(spelled) :] == PAD).all())
            whole &= text.endswith(STOP) and all(word in number for word in words)
            found.append(self._log_prob([number[word] for word in words]) if whole else -np.inf)
        return np.asarray(found)

    def _log_prob(self, words: Sequence[int]) -> float:
        if len(words) > self.longest:
            return -np.inf
        parts = [int(self.part[word]) for word in words]
        chances = [float(self.start[parts[0]]), *(float(self.say[word]) for word in words)]
        chances += [float(self.move[a, b]) for a, b in itertools.pairwise(parts)]
        if len(words) < self.longest:
            chances.append(float(self.move[parts[-1], -1]))
        with np.errstate(divide="ignore"):
            return float(np.log(chances).sum())


def entropy_of(chances: np.ndarray) -> float:
    """−Σ p ln p, in nats."""
    possible = chances[chances > 0]
    return float(-(possible * np.log(possible)).sum())


def grammar(seed: int = 0, words: int = 6, parts: int = 4, longest: int = 5) -> Grammar:
    """A grammar made from a seed.

    Parts of speech follow each other in a circle, most of the time; words are syllables of a consonant and a vowel,
    perhaps closed by a consonant, and of unequal lengths and probabilities.

    Args:
        seed: Which.
        words: Of each part of speech.
        parts: How many parts of speech there are.
        longest: Words of a sentence at most.

    Raises:
        InputError: If a number is below 1, or there are not so many words.
    """
    for name, number in (("words", words), ("parts of speech", parts), ("words of a sentence", longest)):
        if number < 1:
            raise InputError(f"expected 1 or more {name}, got {number}")
    rng = np.random.default_rng(seed)
    consonants, vowels = list("bdgklmnrst"), list("aeiou")
    syllables = [c + v for c in consonants for v in vowels]
    known = [*syllables, *(s + c for s in syllables for c in "nrs"), *(a + b for a in syllables for b in syllables)]
    if words * parts > len(syllables):
        raise InputError(f"expected at most {len(syllables)} words in all, got {words * parts}")
    lengths = [2 + i % 3 for i in range(words * parts)]  # two, three and four letters
    chosen: list[str] = []
    for length in lengths:
        of_length = [word for word in known if len(word) == length and word not in chosen]
        chosen.append(str(rng.choice(of_length)))
    order = rng.permutation(words * parts)
    move = 0.15 * rng.dirichlet(np.ones(parts), parts)
    move[np.arange(parts), (np.arange(parts) + 1) % parts] += 0.65
    move = np.hstack([move, np.full((parts, 1), 0.2)])
    return Grammar(
        words=tuple(chosen[i] for i in order),
        part=np.repeat(np.arange(parts), words),
        start=rng.dirichlet(np.full(parts, 2.0)),
        move=move,
        say=np.concatenate([rng.dirichlet(np.full(words, 2.0)) for _ in range(parts)]),
        longest=longest,
    )


class Corpus(NamedTuple):
    """Texts, and beginnings of them to go on from."""

    name: str
    tokenizer: Tokenizer
    texts: np.ndarray  # [N, L] int32: bos, characters, perhaps eos, pads to the right
    prompts: np.ndarray  # [M, W] int32: pads to the left, bos, characters
    grammar: Grammar | None = None  # that they are of


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
    space = texts == grammar.tokenizer.encode(" ")[0]
    prompts = beginnings(texts, np.roll(space, 1, axis=1), prompt_words)
    return Corpus(name="grammar", tokenizer=grammar.tokenizer, texts=texts, prompts=prompts, grammar=grammar)


def beginnings(texts: np.ndarray, starts: np.ndarray, words: int) -> np.ndarray:
    """The first words of texts [N, L], each with the blank after it, [M, W]; of no words, bos alone.

    A text of fewer words has none, and one whose words take more than half of the columns is passed over.

    Args:
        texts: Which.
        starts: Where a word of them begins, [N, L] bool; that the first one does, goes without saying.
        words: How many.

    Raises:
        InputError: If there is none, or the number of words is below 0.
    """
    if words < 0:
        raise InputError(f"expected prompts of 0 or more words, got {words}")
    if words == 0:
        return np.full((1, 1), BOS, np.int32)
    counts = np.cumsum(starts & (np.arange(texts.shape[1]) > 1), axis=1)
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
    text = text if tokenizer else unicodedata.normalize("NFC", text)
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
            starts.append(np.concatenate([[False], begins[begin:end], [False] * len(tail)]))
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
    return tokens, before[begin] == before[end], begun[begin] < begun[end]


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


def python_docs() -> str:
    """The prose that CPython brings for its `help()`; it differs by version, see `digest`."""
    from pydoc_data import topics

    return "\n\n".join(topics.topics[name] for name in sorted(topics.topics))


def digest(text: str) -> str:
    """What tells a text from another: the first 16 digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
