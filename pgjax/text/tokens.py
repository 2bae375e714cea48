"""Characters as tokens, and texts as rows of an array.

Three tokens are no characters: a pad fills a row, bos begins a text, eos ends one. A row has W columns for the
prompt, with pads to its left, and then T for the output, with pads to its right; so all outputs begin in one column.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pgjax.errors import InputError

PAD, BOS, EOS = 0, 1, 2
SPECIAL = 3  # tokens that are no characters


class Tokenizer(NamedTuple):
    """A token for each character: the i-th is i + 3."""

    characters: str  # each once

    @property
    def vocabulary(self) -> int:
        """V, how many tokens there are."""
        return SPECIAL + len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """The characters of a text as tokens, [n] int32, without bos and eos.

        Accents that the vocabulary has no characters for are composed (Unicode's NFC).

        Raises:
            InputError: If there is no token for a character.
        """
        known = {character: SPECIAL + i for i, character in enumerate(self.characters)}
        forms = (text, unicodedata.normalize("NFC", text))
        text = next((form for form in forms if known.keys() >= set(form)), text)
        for place, character in enumerate(text):
            if character not in known:
                raise InputError(
                    f"expected characters of the vocabulary {self.characters!r}, got {character!r} as character {place}"
                )
        return np.asarray([known[character] for character in text], np.int32)

    def decode(self, tokens: Any) -> str:
        """Tokens [n] as a text: up to eos, without pads and bos.

        Raises:
            InputError: If a token is outside the vocabulary.
        """
        row = np.asarray(tokens)
        check_tokens(row, self.vocabulary)
        ends = np.flatnonzero(row == EOS)
        row = row[: ends[0]] if len(ends) else row
        return "".join(self.characters[token - SPECIAL] for token in row if token >= SPECIAL)


def tokenizer_for(text: str) -> Tokenizer:
    """The tokenizer of the characters that a text has, in their order.

    Raises:
        InputError: If it has none.

    Example:
        >>> tokenizer = tokenizer_for("hello")
        >>> tokenizer.characters, tokenizer.encode("hole").tolist()
        ('ehlo', [4, 6, 5, 3])
    """
    if not text:
        raise InputError("expected a text with one or more characters, got an empty one")
    return Tokenizer("".join(sorted(set(text))))


def check_tokens(tokens: Any, vocabulary: int) -> None:
    """Raise unless every token of an array is one of a vocabulary.

    Raises:
        InputError: If not.
    """
    array = np.asarray(tokens)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"expected tokens as integers, got an array of {array.dtype}")
    for place in np.argwhere((array < 0) | (array >= vocabulary))[:1]:
        raise InputError(
            f"expected tokens from 0 to {vocabulary - 1}, got {array[tuple(place)]} at {[int(i) for i in place]}"
        )


def left_padded(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Rows of tokens as one array [N, width] int32, with pads to their left.

    Raises:
        InputError: If a row is longer.
    """
    return _padded(rows, width, lambda row: slice(width - len(row), width))


def right_padded(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Rows of tokens as one array [N, width] int32, with pads to their right.

    Raises:
        InputError: If a row is longer.
    """
    return _padded(rows, width, lambda row: slice(0, len(row)))


def _padded(rows: Sequence[np.ndarray], width: int, place: Any) -> np.ndarray:
    array = np.full((len(rows), width), PAD, np.int32)
    for i, row in enumerate(rows):
        if len(row) > width:
            raise InputError(f"expected rows of at most {width} tokens, got {len(row)} in row {i}")
        array[i, place(row)] = row
    return array
