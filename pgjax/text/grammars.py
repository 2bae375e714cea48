"""A grammar whose sentences are texts, and of which entropy and probabilities are known exactly."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError
from pgjax.text.tokens import BOS, EOS, PAD, Characters, right_padded, tokenizer_for

STOP = "."


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
    def tokenizer(self) -> Characters:
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
