"""Tokens, and texts as rows of an array: what a tokenizer is, and the one whose tokens are characters.

Three tokens stand for no text, whatever the tokenizer: a pad fills a row, bos begins a text, eos ends one. A row has W
columns for the prompt, with pads to its left, and then T for the output, with pads to its right; so all outputs begin
in one column.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from pgjax.errors import InputError

PAD, BOS, EOS = 0, 1, 2
SPECIAL = 3  # tokens that stand for no text


class Tokenizer(Protocol):
    """Texts as tokens and back. Pad is 0, bos 1 and eos 2; no text, whatever is in it, is encoded as one of these.

    `Characters` are one, `pgjax.text.Subwords` another.
    """

    @property
    def vocabulary(self) -> int:
        """V, how many tokens there are."""

    def encode(self, text: str) -> np.ndarray:
        """A text as tokens, [n] int32, without bos and eos.

        Raises:
            InputError: If there is no token for a part of it.
        """

    def decode(self, tokens: Any) -> str:
        """Tokens [n] as a text: up to eos, without pads and bos.

        Raises:
            InputError: If a token is outside the vocabulary.
        """

    def spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """`encode(text)`, and where in the text each token comes from, [n, 2] int: its first character, and its end.

        Raises:
            InputError: If there is no token for a part of it.
        """


class Characters(NamedTuple):
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

    def spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a text, and where each comes from, [n, 2]; of the composed text, where it has to be."""
        tokens = self.encode(text)
        place = np.arange(len(tokens))
        return tokens, np.stack([place, place + 1], axis=1)

    def decode(self, tokens: Any) -> str:
        """Tokens [n] as a text: up to eos, without pads and bos.

        Raises:
            InputError: If a token is outside the vocabulary.
        """
        return "".join(self.characters[token - SPECIAL] for token in said(tokens, self.vocabulary))


def tokenizer_for(text: str) -> Characters:
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
    return Characters("".join(sorted(set(text))))


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """What each token is worth within a text, [V]; control tokens are worth nothing.

    Where a character is made of several tokens, each of them says that there is one that it does not know: U+FFFD.

    Example:
        >>> token_texts(Characters("ab"))
        ['', '', '', 'a', 'b']
    """
    before = [SPECIAL]  # some tokenizers strip what begins a text
    skip = len(tokenizer.decode(before))
    those = (tokenizer.decode([*before, token])[skip:] for token in range(SPECIAL, tokenizer.vocabulary))
    return [""] * SPECIAL + list(those)


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


def said(tokens: Any, vocabulary: int) -> np.ndarray:
    """Tokens [n] up to eos, without pads and bos.

    Raises:
        InputError: If a token is outside the vocabulary.
    """
    row = np.asarray(tokens)
    check_tokens(row, vocabulary)
    ends = np.flatnonzero(row == EOS)
    row = row[: ends[0]] if len(ends) else row
    return row[row >= SPECIAL]


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
