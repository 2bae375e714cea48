"""Gold (true) rewards of texts, as a function that can be computed. Only annotators get to see it."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError
from pgjax.text.corpora import STOP, Corpus, Grammar
from pgjax.text.tokens import EOS, PAD, Tokenizer, right_padded

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
    of the prompt, that run is none of them.

    Args:
        tokenizer: Of the texts.
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
        if not word or " " in word or STOP in word:
            raise InputError(f"expected words without blanks and full stops, got {word!r}")
        if list(words).count(word) > 1:
            raise InputError(f"expected each word once, got {word!r} twice or more")
    spelled = jnp.asarray(right_padded([tokenizer.encode(word) for word in words], max(map(len, words))))
    sizes = jnp.asarray([len(word) for word in words])
    worth = jnp.asarray(values, jnp.float32)
    separators = [int(tokenizer.encode(c)[0]) for c in " " + STOP if c in tokenizer.characters]
    S = spelled.shape[1]

    def gold(tokens: jax.Array, output: jax.Array) -> jax.Array:
        letter = jnp.where(tokens >= 3, True, False)
        for separator in separators:
            letter &= tokens != separator
        before = jnp.pad(letter, ((0, 0), (1, 0)))[:, :-1]
        begins = letter & ~before & output
        padded = jnp.pad(jnp.where(letter & output, tokens, PAD), ((0, 0), (0, S)))
        same = jnp.ones((*tokens.shape, len(words)), bool)
        for i in range(S):
            here = padded[:, i : i + tokens.shape[1], None]
            same &= jnp.where(i < sizes[None, None], here == spelled[None, None, :, i], True)
        # The word is over where the next character is none of its letters.
        longer = jnp.stack([padded[:, n : n + tokens.shape[1]] != PAD for n in range(1, S + 1)], axis=-1)
        known = begins[:, :, None] & same & ~longer[:, :, np.asarray(sizes) - 1]
        value = jnp.sum(jnp.where(jnp.any(known, axis=1), worth[None], 0), axis=1)
        others = jnp.sum(begins & ~jnp.any(known, axis=2), axis=1)
        ended = jnp.any(output & (tokens == EOS), axis=1)
        return value + unknown * others.astype(value.dtype) + jnp.where(ended, 0, unfinished)

    return gold


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
    count = Counter(word for word in re.split(r"[ .]+", said) if len(word) >= letters)
    words = [word for word, _ in count.most_common(most)]
    return word_values(corpus.tokenizer, words, np.ones(len(words)), unknown=-0.5, unfinished=0.0)


def letter_share(tokenizer: Tokenizer, letters: str) -> Gold:
    """The fraction of an output's tokens, eos included, that are among some letters; 0 for one without a token.

    Raises:
        InputError: If there is no letter, or no token for one.
    """
    if not letters:
        raise InputError("expected one or more letters, got none")
    wanted = jnp.zeros(tokenizer.vocabulary, bool).at[tokenizer.encode(letters)].set(True)

    def gold(tokens: jax.Array, output: jax.Array) -> jax.Array:
        count = jnp.sum(output, axis=1, dtype=jnp.float32)
        return jnp.sum(wanted[tokens] & output, axis=1) / jnp.maximum(count, 1)

    return gold


def length_gold() -> Gold:
    """The number of tokens of an output, eos included."""

    def gold(tokens: jax.Array, output: jax.Array) -> jax.Array:
        return jnp.sum(output, axis=1, dtype=jnp.float32)

    return gold
