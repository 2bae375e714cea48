"""Gold (true) rewards of texts, as a function that can be computed. Only annotators get to see it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError
from pgjax.text.corpora import Corpus
from pgjax.text.grammars import STOP, Grammar
from pgjax.text.tokens import EOS, PAD, Tokenizer, right_padded, token_texts

# From texts [E, L], and where their output is, eos included, [E, L] bool, to what each is worth, [E].
Gold = Callable[[jax.Array, jax.Array], jax.Array]


def output_of(tokens: jax.Array, width: int) -> jax.Array:
    """Where the outputs of texts [E, L] are, [E, L] bool: from column `width` on, up to eos, without pads."""
    column = jnp.arange(tokens.shape[1])[None]
    ended = jnp.cumsum((tokens == EOS) & (column >= width), axis=1)
    before = ended - (tokens == EOS)  # eos itself belongs to the output
    return (column >= width) & (before <= 0) & (tokens != PAD)


def word_values(
    tokenizer: Tokenizer,
    words: Sequence[str],
    values: Sequence[float] | np.ndarray,
    *,
    unknown: float = -1.0,
    unfinished: float = -1.0,
) -> Gold:
    """Σ value over the distinct known words of an output + unknown · (other words) + unfinished · (no eos).

    The words of an output are its runs of characters between blanks and full stops. Where it goes on with the last word
    of the prompt, that run is none of them. A token may be a part of a word or more than one.

    Args:
        tokenizer: Of the texts. A word with a character that it cuts into several tokens is not known where it does.
        words: Those that are known.
        values: What each is worth, once in a text.
        unknown: What any other word adds.
        unfinished: What is added if the text did not end by itself.

    Raises:
        InputError: If there is no word, a value is missing, a word is there twice, or one is empty, has a blank or full
            stop in it, or a character that is no token.
    """
    if not len(words) or len(words) != len(values):
        raise InputError(f"expected one or more words with a value each, got {len(words)} and {len(values)}")
    for word in words:
        if not word or STOP in word or any(map(str.isspace, word)):
            raise InputError(f"expected words without blanks and full stops, got {word!r}")
        if list(words).count(word) > 1:
            raise InputError(f"expected each word once, got {word!r} twice or more")
        tokenizer.encode(word)
    worth, reader = jnp.asarray(values, jnp.float32), word_reader(tokenizer, words)

    def gold(tokens: jax.Array, output: jax.Array) -> jax.Array:
        known, others = read_words(reader, tokens, output)
        value = jnp.sum(jnp.where(known, worth[None], 0), axis=1)
        ended = jnp.any(output & (tokens == EOS), axis=1)
        return value + unknown * others.astype(value.dtype) + jnp.where(ended, 0, unfinished)

    return gold


class WordReader(NamedTuple):
    """A machine that reads characters: known words as a tree of their beginnings, each of which is a state of it."""

    spelled: jax.Array  # [V, C] int32, the characters of each token; 0 where there is none, 1 for what ends a word
    following: jax.Array  # [states, characters] int32, the state after another character
    word: jax.Array  # [states] int32, which of the N words has been read; N if it is none, N + 1 if there is no word
    words: int  # N


# States before which no known word begins: between words, in one that is not known, in one that the prompt began.
BETWEEN, OTHER, PROMPTS = 0, 1, 2
NOTHING, SEPARATOR, UNKNOWN = 0, 1, 2  # characters; the others are those of the words


def word_reader(tokenizer: Tokenizer, words: Sequence[str]) -> WordReader:
    """The reader of these words, in the tokens of a tokenizer."""
    letters = {letter: UNKNOWN + 1 + i for i, letter in enumerate(sorted(set("".join(words))))}

    def code(character: str) -> int:
        return SEPARATOR if character == STOP or character.isspace() else letters.get(character, UNKNOWN)

    spelled = [np.asarray(without_repeats(map(code, text or STOP))) for text in token_texts(tokenizer)]
    following = [[OTHER] * (UNKNOWN + 1 + len(letters)) for _ in (BETWEEN, OTHER)]
    following.append([PROMPTS] * len(following[0]))
    word = [len(words) + 1, len(words), len(words) + 1]
    for number, text in enumerate(words):
        state = BETWEEN
        for letter in text:
            if following[state][letters[letter]] == OTHER:
                following[state][letters[letter]] = len(following)
                following.append([OTHER] * len(following[0]))
                word.append(len(words))
            state = following[state][letters[letter]]
        word[state] = number
    return WordReader(
        spelled=jnp.asarray(right_padded(spelled, max(map(len, spelled)))),
        following=jnp.asarray(following, jnp.int32),
        word=jnp.asarray(word, jnp.int32),
        words=len(words),
    )


def without_repeats(codes: Iterable[int]) -> list[int]:
    """Characters without those that say nothing new: that a word is over, or not known, after just that."""
    found: list[int] = []
    for code in codes:
        if code > UNKNOWN or found[-1:] != [code]:
            found.append(code)
    return found


def read_words(reader: WordReader, tokens: jax.Array, output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which words stand in the outputs of texts [E, L], [E, N] bool, and how many others do, [E] int32."""
    E, N = len(tokens), reader.words
    begun = jnp.cumsum(output, axis=1) > 0
    ours = jnp.where((output | ~begun)[..., None], reader.spelled[tokens], SEPARATOR)  # no word behind the output
    codes = ours.reshape(E, -1).T
    inside = jnp.repeat(begun, ours.shape[2], axis=1).T  # [L C, E], as the characters are

    def one(state: jax.Array, column: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        code, inside = column
        over, read = code == SEPARATOR, jnp.where(inside, reader.following[state, code], PROMPTS)
        following = jnp.where(code == NOTHING, state, jnp.where(over, BETWEEN, read))
        return following, jnp.where(over, reader.word[state], N + 1)

    last, found = jax.lax.scan(one, jnp.full(E, BETWEEN), (codes, inside))
    found = jnp.concatenate([found, reader.word[last][None]])
    known = jnp.zeros((E, N + 2), bool).at[jnp.broadcast_to(jnp.arange(E), found.shape), found].set(True)
    return known[:, :N], jnp.sum(found == N, axis=0)


def grammar_gold(grammar: Grammar, seed: int = 0) -> Gold:
    """`word_values` of a grammar's words, with values drawn from N(0, 1) with a seed, less their mean."""
    values = np.random.default_rng([seed, 1]).normal(size=len(grammar.words))
    return word_values(grammar.tokenizer, grammar.words, values - values.mean())


def common_words(corpus: Corpus, most: int = 300, letters: int = 3) -> Gold:
    """`word_values` of a corpus's most frequent words of so many letters or more: 1 for each, −0.5 for others.

    It wants many different words that there are. That an output is cut off does not matter.

    Raises:
        InputError: If there is no such word.
    """
    said = " ".join(corpus.tokenizer.decode(row) for row in corpus.texts)
    count = Counter(word for word in re.split(r"[\s.]+", said) if len(word) >= letters)
    words = [word for word, _ in count.most_common(most)]
    return word_values(corpus.tokenizer, words, np.ones(len(words)), unknown=-0.5, unfinished=0.0)


def letter_share(tokenizer: Tokenizer, letters: str) -> Gold:
    """The fraction of an output's characters, eos being one, that are among some letters; 0 for one without a token.

    A character that is cut into several tokens is one in each, and none of the letters.

    Raises:
        InputError: If there is no letter, or no token for one.
    """
    if not letters:
        raise InputError("expected one or more letters, got none")
    tokenizer.encode(letters)
    texts = token_texts(tokenizer)
    wanted = jnp.asarray([sum(character in letters for character in text) for text in texts])
    size = jnp.asarray([len(text) or 1 for text in texts])

    def gold(tokens: jax.Array, output: jax.Array) -> jax.Array:
        count = jnp.sum(jnp.where(output, size[tokens], 0), axis=1, dtype=jnp.float32)
        return jnp.sum(jnp.where(output, wanted[tokens], 0), axis=1) / jnp.maximum(count, 1)

    return gold


def length_gold() -> Gold:
    """The number of tokens of an output, eos included."""

    def gold(tokens: jax.Array, output: jax.Array) -> jax.Array:
        return jnp.sum(output, axis=1, dtype=jnp.float32)

    return gold
