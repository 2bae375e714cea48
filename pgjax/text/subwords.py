"""Subwords as tokens: tokenizers of Hugging Face's library, read from a file or trained on a text.

A file numbers its tokens as it likes, and calls its control tokens as it likes. Here pad is 0, bos 1 and eos 2, and all
other tokens follow in the order of the file; `Subwords.ids` has the file's number of each of ours. Weights that know
the file's numbers are put into our order by it: `embedding = embedding_of_the_file[tokenizer.ids]`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pgjax.errors import InputError, needed
from pgjax.paths import full_path, replacing
from pgjax.text.tokens import PAD, SPECIAL, said

BYTES = 256  # tokens of a byte each, of which every text can be made
LONGEST = 24  # characters of a token that is trained, so that no rule of dashes is one
FILE, NAMES = "tokenizer.json", "tokenizer_config.json"  # as Hugging Face's directories have them
# What control tokens are called where nothing says it, the likeliest first.
CALLED = {
    "pad": ("<pad>", "<|pad|>", "[PAD]"),
    "bos": ("<bos>", "<s>", "<|begin_of_text|>", "[CLS]"),
    "eos": ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "[SEP]"),
}


class Subwords(NamedTuple):
    """A tokenizer of the library `tokenizers` whose tokens are numbered as everywhere here."""

    model: Any  # the library's, with numbers of its own
    ids: np.ndarray  # [V] int32, the model's number of each of our tokens; a pad or bos that it lacks has its eos's
    ours: np.ndarray  # [numbers] int32, our number of each of the model's tokens; 0 for its control tokens

    @property
    def vocabulary(self) -> int:
        """V, how many tokens there are."""
        return len(self.ids)

    def encode(self, text: str) -> np.ndarray:
        """A text as tokens, [n] int32, without bos and eos; names of control tokens in it are text like any other.

        Raises:
            InputError: If there is no token for a part of it.
        """
        return self.spans(text)[0]

    def spans(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a text, and where each comes from, [n, 2]; errors are those of `encode`."""
        try:
            encoding = self.model.encode(text, add_special_tokens=False)
        except Exception as error:  # the library has none of its own
            raise InputError(f"expected a text of tokens, got {text[:40]!r}, which fails with: {error}") from error
        tokens, places = self.ours[encoding.ids], np.asarray(encoding.offsets, int).reshape(-1, 2)
        for control in np.flatnonzero(tokens == PAD)[:1]:
            raise InputError(f"expected a text without the control token {encoding.tokens[control]!r}, got it")
        # A model without a token for what it does not know leaves that out, and says nothing.
        ends, begins = np.append(0, places[:, 1]), np.append(places[:, 0], len(text))
        for gap in np.flatnonzero(begins > ends):
            lost = "".join(text[ends[gap] : begins[gap]].split())
            if lost.isprintable() and lost:
                raise InputError(f"expected characters that the tokenizer has tokens for, got others in {text[:40]!r}")
        return tokens, places

    def decode(self, tokens: Any) -> str:
        """Tokens [n] as a text: up to eos, without pads and bos.

        Raises:
            InputError: If a token is outside the vocabulary.
        """
        return self.model.decode(self.ids[said(tokens, self.vocabulary)].tolist(), skip_special_tokens=False)

    def save(self, directory: str | Path) -> None:
        """Write the tokenizer into a directory as Hugging Face's are: its file, and what its control tokens are called.

        Raises:
            InputError: If the files cannot be written.
        """
        called = (self.model.id_to_token(int(number)) for number in self.ids[:SPECIAL])
        names = json.dumps({f"{kind}_token": name for kind, name in zip(CALLED, called, strict=True)})
        for name, text in ((NAMES, names), (FILE, self.model.to_str(pretty=True))):
            path = full_path(directory) / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as file:
                    file.write(text.encode())
            except OSError as error:
                raise InputError(f"expected a file that can be written, got {path}: {error.strerror}") from error


def load_subwords(path: str | Path) -> Subwords:
    """The tokenizer of a file of Hugging Face's library, or of a directory with such a `tokenizer.json`.

    What its control tokens are called is read from `tokenizer_config.json` beside it, if that is there. If not, they
    are found by the names that are in use: `</s>`, `<|endoftext|>`, … No text becomes one of them.

    Raises:
        InputError: If the library is not installed, the file cannot be read, or it has no eos.
    """
    path, library = full_path(path), needed("tokenizers", "text")
    path = path / FILE if path.is_dir() else path
    try:
        model = library.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"expected a file of a tokenizer, got {path}: {error.strerror}") from error
    except Exception as error:  # the library has none of its own
        raise InputError(f"expected a file of a tokenizer, got {path}, which fails with: {error}") from error
    numbers, names = model.get_vocab(with_added_tokens=True), names_beside(path)
    control = {
        kind: next((numbers[name] for name in ([names[kind]] if kind in names else called) if name in numbers), None)
        for kind, called in CALLED.items()
    }
    if control["eos"] is None:
        wanted = names.get("eos", ", ".join(CALLED["eos"]))
        raise InputError(f"expected a token that ends a text ({wanted}) in {path}, got a tokenizer without one")
    return numbered(model, [control["eos"] if number is None else number for number in control.values()])


def names_beside(path: Path) -> dict[str, str]:
    """What the control tokens of a tokenizer's file are called, as far as the file beside it says so.

    Raises:
        InputError: If that is none of JSON.
    """
    beside = path.with_name(NAMES)
    try:
        said = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        found = {kind: said.get(f"{kind}_token") for kind in CALLED}
        named = {kind: name["content"] if isinstance(name, dict) else name for kind, name in found.items() if name}
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"expected names of control tokens as JSON in {beside}, got: {error}") from error
    return named


def numbered(model: Any, control: Iterable[int]) -> Subwords:
    """A tokenizer of the library as one of ours.

    Args:
        model: The library's. It is changed: it truncates and pads nothing, and what looks like a token is text to it.
        control: Its numbers of pad, bos and eos; one may be all of them.
    """
    model.no_truncation()
    model.no_padding()
    model.encode_special_tokens = True
    first = list(control)
    others = sorted(set(model.get_vocab(with_added_tokens=True).values()) - set(first))
    ids = np.asarray([*first, *others], np.int32)
    ours = np.full(ids.max() + 1, PAD, np.int32)
    ours[others] = np.arange(SPECIAL, len(ids))
    return Subwords(model, ids, ours)


def train_subwords(text: str, vocabulary: int) -> Subwords:
    """Byte-pair encoding of a text: the most frequent pair of neighbouring tokens becomes a token, again and again.

    It begins with bytes, so every text can be encoded and comes back as it was, whatever it was trained on.

    Args:
        text: What to count pairs in. A token is within a word, with the blank before it.
        vocabulary: V, control tokens and bytes included; fewer, if no pair is left that is there twice.

    Raises:
        InputError: If the library is not installed, the text is blank, or the vocabulary has no room for all bytes.

    Source: Sennrich, Haddow & Birch, *Neural machine translation of rare words with subword units*, 2016; for bytes,
    Radford et al., *Language models are unsupervised multitask learners*, 2019.
    """
    if vocabulary < SPECIAL + BYTES:
        raise InputError(f"expected a vocabulary of {SPECIAL + BYTES} or more tokens of bytes, got {vocabulary}")
    if not text.strip():
        raise InputError("expected a text with one or more characters, got an empty one")
    library = needed("tokenizers", "text")
    model, bytes_of = library.Tokenizer(library.models.BPE()), library.pre_tokenizers.ByteLevel
    model.pre_tokenizer, model.decoder = bytes_of(add_prefix_space=False), library.decoders.ByteLevel()
    names = [called[0] for called in CALLED.values()]
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        max_token_length=LONGEST,
        special_tokens=names,
        initial_alphabet=sorted(bytes_of.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(text.splitlines(keepends=True), trainer)
    return numbered(model, range(SPECIAL))
