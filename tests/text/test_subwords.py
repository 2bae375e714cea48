import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgjax
from pgjax.text.corpora import words_of
from pgjax.text.subwords import Subwords, load_subwords, numbered, train_subwords
from pgjax.text.tokens import BOS, EOS, PAD, SPECIAL, token_texts

library = pytest.importorskip("tokenizers")
TEXT = "the cat sat on the mat, and the dog sat on the cat. שלום עולם 😀 naïve\r\n" * 20
BPE = train_subwords(TEXT, 295)


def words(vocabulary, **more):
    """A tokenizer of the library whose tokens are whole words, which it numbers like this."""
    model = library.Tokenizer(library.models.WordLevel(vocabulary, **more))
    model.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    return model


def test_pairs_that_are_frequent_are_tokens():
    assert BPE.vocabulary == 295
    assert len(BPE.encode(" the cat sat")) == 3
    assert (BPE.ids == np.arange(295)).all()
    assert train_subwords(TEXT, 295).model.to_str() == BPE.model.to_str()
    assert train_subwords("ab", 5000).vocabulary == 259  # no pair is there twice


@settings(deadline=None, max_examples=100)
@given(st.text())
def test_every_text_comes_back_as_it_was(text):
    tokens = BPE.encode(text)
    assert BPE.decode(tokens) == text
    assert (tokens >= SPECIAL).all()
    row = [PAD, BOS, *tokens, EOS, PAD, *tokens]
    assert BPE.decode(row) == text  # what stands after eos belongs to nothing


@pytest.mark.parametrize(
    "text", ["<eos> and <pad>", "a\r\n\r\n b", "שלום, עולם", "👩‍👩‍👧 e\u0301", "\x00\u2028\ufeff", " ", "\ufffd"]
)
def test_names_of_control_tokens_and_strange_characters_are_text(text):
    tokens, spans = BPE.spans(text)
    assert BPE.decode(tokens) == text
    assert not {PAD, BOS, EOS} & set(tokens.tolist())
    assert spans.min(initial=0) == 0
    assert spans.max() == len(text)


def test_each_token_says_where_it_comes_from():
    text = "the cat 😀"
    tokens, spans = BPE.spans(text)
    whole = [text[a:b] for a, b in spans]
    texts = token_texts(BPE)
    assert [texts[token] for token in tokens[:2]] == whole[:2] == ["the", " cat"]


def test_tokens_of_a_file_are_numbered_as_everywhere_here(tmp_path):
    model = words({"dog": 0, "</s>": 2, "cat": 4, "<pad>": 5, "?": 9}, unk_token="?")
    model.enable_padding(length=8)
    model.enable_truncation(2)
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_subwords(tmp_path)
    assert tokenizer.ids.tolist() == [5, 2, 2, 0, 4, 9]  # it has no bos, for which its eos stands
    assert tokenizer.encode("cat dog bird dog").tolist() == [4, 3, 5, 3]  # neither cut nor padded
    assert tokenizer.decode([PAD, BOS, 4, 3, EOS, 4]) == "cat dog"
    embedding = np.arange(10)
    assert embedding[tokenizer.ids][tokenizer.encode("cat dog")].tolist() == [4, 0]
    with pytest.raises(pgjax.InputError, match="expected a text without the control token '</s>', got it"):
        tokenizer.encode("cat </s>")


def test_what_control_tokens_are_called_may_stand_beside_the_file(tmp_path):
    words({"stop": 0, "</s>": 1, "a": 2}).save(str(tmp_path / "tokenizer.json"))
    assert load_subwords(tmp_path / "tokenizer.json").ids.tolist() == [1, 1, 1, 0, 2]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "stop"}, "bos_token": None}))
    assert load_subwords(tmp_path).ids.tolist() == [0, 0, 0, 1, 2]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "end"}))
    with pytest.raises(pgjax.InputError, match=r"expected a token that ends a text \(end\) in .*, got a tokenizer wit"):
        load_subwords(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(pgjax.InputError, match=r"expected names of control tokens as JSON in .*_config.json, got"):
        load_subwords(tmp_path)


def test_a_tokenizer_that_is_saved_is_the_same(tmp_path):
    BPE.save(tmp_path / "new")
    again = load_subwords(tmp_path / "new")
    assert again.ids.tolist() == BPE.ids.tolist()
    assert again.encode(TEXT).tolist() == BPE.encode(TEXT).tolist()
    odd = numbered(words({"a": 0, "b": 1, "c": 2, "z": 3}), [2, 0, 1])
    odd.save(tmp_path / "odd")
    assert load_subwords(tmp_path / "odd").ids.tolist() == [2, 0, 1, 3]
    (tmp_path / "file").write_text("")
    with pytest.raises(pgjax.InputError, match="expected a file that can be written, got"):
        BPE.save(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file of a tokenizer, got .*: No such file"),
        ("{}", "expected a file of a tokenizer, got .*, which fails with"),
        (words({"a": 0}).to_str(), r"expected a token that ends a text \(<eos>, </s>, .* got a tokenizer without one"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content, message):
    path = tmp_path / "tokens.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(pgjax.InputError, match=message):
        load_subwords(path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_subwords(TEXT, 258), "expected a vocabulary of 259 or more tokens of bytes, got 258"),
        (lambda: train_subwords(" \n", 300), "expected a text with one or more characters, got an empty one"),
        (lambda: BPE.decode([295]), r"expected tokens from 0 to 294, got 295 at \[0\]"),
        (lambda: BPE.encode("\ud800"), "expected a text of tokens, got"),
        (
            lambda: numbered(library.Tokenizer(library.models.BPE({"a": 0, "b": 1}, [])), [1, 1, 1]).encode("ac"),
            "expected characters that the tokenizer has tokens for, got others in 'ac'",
        ),
        (
            lambda: pgjax.text.pretraining(small(), [[BOS, *BPE.encode("the cat")]]),
            "expected actions from 0 to 99, got",
        ),
    ],
)
def test_what_has_no_tokens_is_refused(call, message):
    with pytest.raises(pgjax.InputError, match=message):
        call()


def small():
    """A language model with fewer tokens than the tokenizer."""
    corpus = pgjax.text.Corpus("few", pgjax.text.Characters("".join(map(chr, range(97)))), np.ones((1, 4), int),
                               np.ones((1, 1), int))  # fmt: skip
    return pgjax.text.language_model(corpus, length=4, width=4, layers=1, heads=1)[0]


def test_without_the_library_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(pgjax.InputError, match=r'expected tokenizers to be installed \(pip install "pgjax\[text\]"\)'):
        train_subwords(TEXT, 300)


def test_windows_of_subwords_begin_where_a_word_does():
    text = "the cat sat on the mat, and\n    the dog sat.\n\nThe naïve dog"
    corpus = pgjax.text.text_corpus(text, "pets", length=9, prompt_words=1, tokenizer=BPE)
    assert isinstance(corpus.tokenizer, Subwords)
    said = [BPE.decode(row) for row in corpus.texts]
    assert " ".join(said).split() == text.split()  # nothing but blanks is lost
    assert said[0].startswith("the cat sat on the mat")
    ends = (corpus.texts == EOS).any(1)
    assert ends[-1]
    assert ends.sum() == 2
    starts = [text.find(part.strip()) for part in said]
    assert all(place == 0 or text[place - 1].isspace() for place in starts)
    assert BPE.decode(corpus.prompts[0]) == "the"
    assert (corpus.prompts[:, -1] != PAD).all()


def test_a_word_begins_with_its_first_token_alone():
    text = "naïve 😀 the"
    tokens, blank, begins = words_of(text, train_subwords("a", 259))  # each byte a token
    spelled = np.frombuffer(text.encode(), np.uint8)
    assert len(tokens) == len(spelled)
    np.testing.assert_array_equal(blank, spelled == ord(" "))
    np.testing.assert_array_equal(begins, np.append(True, blank[:-1]))
    _, blank, begins = words_of("the cat  sat", BPE)  # "the", " cat", " ", " sat"
    assert begins.tolist() == [True, True, False, True]
    assert blank.tolist() == [False, False, True, False]


def test_a_blank_before_a_text_is_no_word(tmp_path):
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((character, -1.0) for character in "▁theca")]
    model = library.Tokenizer(library.models.Unigram(pieces, 0))
    model.pre_tokenizer, model.decoder = library.pre_tokenizers.Metaspace(), library.decoders.Metaspace()
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_subwords(tmp_path)
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"
    corpus = pgjax.text.text_corpus("the cat", "pets", length=12, prompt_words=1, tokenizer=tokenizer)
    assert tokenizer.decode(corpus.prompts[0]) == "the "
    assert token_texts(tokenizer)[tokenizer.encode("the")[0]] == " "
