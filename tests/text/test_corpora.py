import itertools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgjax
from pgjax.text.corpora import next_window, words_of
from pgjax.text.tokens import BOS, EOS, PAD, right_padded


@pytest.fixture(scope="module")
def every_sentence():
    """A tiny grammar, and the tokens of every sentence that its words can form."""
    grammar = pgjax.text.grammar(seed=3, words=2, parts=2, longest=3)
    texts = [" ".join(words) + "." for n in (1, 2, 3) for words in itertools.product(grammar.words, repeat=n)]
    rows = [np.concatenate([[BOS], grammar.tokenizer.encode(text), [EOS]]) for text in texts]
    return grammar, right_padded(rows, grammar.columns)


def test_probabilities_of_all_sentences_sum_to_one(every_sentence):
    grammar, tokens = every_sentence
    p = np.exp(grammar.log_prob(tokens))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p > 0).all()


def test_entropy_and_length_are_those_of_the_enumeration(every_sentence):
    grammar, tokens = every_sentence
    p = np.exp(grammar.log_prob(tokens))
    assert grammar.entropy == pytest.approx(-(p * np.log(p)).sum(), rel=1e-12)
    assert grammar.length == pytest.approx((p * (tokens[:, 1:] != PAD).sum(1)).sum(), rel=1e-12)
    assert grammar.floor == pytest.approx(grammar.entropy / grammar.length)


def test_sampled_sentences_have_the_law_of_the_grammar(every_sentence):
    grammar, tokens = every_sentence
    n = 20_000
    sampled = np.asarray(jax.jit(grammar.sample, static_argnums=1)(jax.random.key(0), n))
    log_prob = grammar.log_prob(sampled)
    assert np.isfinite(log_prob).all()
    # Both means are within 4.5 standard errors; either is wrong with probability below 10⁻⁵.
    assert abs(-log_prob.mean() - grammar.entropy) < 4.5 * log_prob.std() / np.sqrt(n)
    lengths = (sampled[:, 1:] != PAD).sum(1)
    assert abs(lengths.mean() - grammar.length) < 4.5 * lengths.std() / np.sqrt(n)
    most = tokens[np.argmax(grammar.log_prob(tokens))]
    p = np.exp(grammar.log_prob(most[None]))[0]
    assert abs((sampled == most).all(1).mean() - p) < 4.5 * np.sqrt(p * (1 - p) / n)


def test_what_is_no_sentence_has_no_probability():
    grammar = pgjax.text.grammar()
    a, b = grammar.words[:2]
    texts = [f"{a} {b}", f"{a}  {b}.", f"x{a}.", ".", f" {a}.", f"{a}.{b}."]
    letters = pgjax.text.Characters(grammar.tokenizer.characters)
    rows = []
    for text in texts:
        known = "".join(c if c in letters.characters else letters.characters[-1] for c in text)
        rows.append(np.concatenate([[BOS], letters.encode(known), [EOS]]))
    assert (grammar.log_prob(right_padded(rows, 30)) == -np.inf).all()
    whole = np.concatenate([[BOS], letters.encode(f"{a}."), [EOS]])
    assert np.isfinite(grammar.log_prob(right_padded([whole, whole[:-1]], 30))).tolist() == [True, False]
    strange = [np.insert(whole, 2, PAD), np.insert(whole, 2, BOS), np.append(whole, whole[1]), np.append(PAD, whole)]
    assert (grammar.log_prob(right_padded(strange, 30)) == -np.inf).all()
    many = " ".join([a] * (grammar.longest + 1)) + "."
    assert grammar.log_prob([np.concatenate([[BOS], letters.encode(many), [EOS]])])[0] == -np.inf


def test_a_grammar_is_made_from_its_seed():
    one, same, other = pgjax.text.grammar(1), pgjax.text.grammar(1), pgjax.text.grammar(2)
    assert one.words == same.words != other.words
    assert len(set(one.words)) == len(one.words) == 24
    assert len(set(map(len, one.words))) > 1
    assert 10 < one.tokenizer.vocabulary < 25


def test_prompts_are_beginnings():
    grammar = pgjax.text.grammar()
    corpus = pgjax.text.grammar_corpus(grammar, jax.random.key(0), 100, prompt_words=1)
    firsts = {corpus.tokenizer.decode(row).split(" ")[0] + " " for row in corpus.texts}
    prompts = {corpus.tokenizer.decode(row) for row in corpus.prompts}
    assert prompts <= firsts
    assert all(prompt[:-1] in grammar.words for prompt in prompts)
    assert len({(row != PAD).sum() for row in corpus.prompts}) > 1
    assert (corpus.prompts[:, -1] != PAD).all()
    nothing = pgjax.text.grammar_corpus(grammar, jax.random.key(0), 5, prompt_words=0)
    np.testing.assert_array_equal(nothing.prompts, [[BOS]])


def test_windows_follow_each_other_from_word_to_word():
    text = "one two three four five six\nseven eight\n\n\nnine  ten."
    corpus = pgjax.text.text_corpus(text, "numbers", length=12, prompt_words=1)
    said = [corpus.tokenizer.decode(row) for row in corpus.texts]
    assert said == ["one two thr", "three four ", "five six se", "seven eight", "eight", "nine ten."]
    assert [EOS in row for row in corpus.texts] == [False, False, False, False, True, True]
    assert (corpus.texts[:, 0] == BOS).all()
    # "three " and "seven " are more than half of the columns.
    assert [corpus.tokenizer.decode(row) for row in corpus.prompts] == ["one ", "five ", "nine "]
    _, blank, begins = words_of("one two", pgjax.text.tokenizer_for("one two"))
    assert [next_window(blank, begins, 0, end) for end in (2, 3, 4, 5, 7)] == [2, 4, 4, 4, 4]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("ab", min_size=1, max_size=6), min_size=2, max_size=20, unique=True), st.integers(8, 20))
def test_every_word_of_a_text_is_whole_in_a_window(words, length):
    corpus = pgjax.text.text_corpus(" ".join(words), "words", length, prompt_words=0)
    said = [corpus.tokenizer.decode(row) for row in corpus.texts]
    assert set(words) <= set(" ".join(said).split())
    assert all(" " + text.rstrip() in " " + " ".join(words) for text in said)
    assert (corpus.texts == EOS).any(1).tolist() == [False] * (len(said) - 1) + [True]


def test_rare_characters_are_replaced():
    corpus = pgjax.text.text_corpus("ab " * 100 + "ß", "rare", length=20, rare=0.01)
    assert "ß" not in corpus.tokenizer.characters
    assert "?" in corpus.tokenizer.characters


def test_the_documentation_of_python_is_read_as_it_is():
    text = pgjax.text.python_docs()
    assert len(text) > 300_000
    assert "assignment" in text
    assert pgjax.text.digest(text) == pgjax.text.digest(pgjax.text.python_docs())
    assert len(pgjax.text.digest(text)) == 16
    array = np.arange(700_000)[::2].reshape(2, -1)  # of which the bytes are not beside each other
    assert pgjax.text.digest(array, "ab") == pgjax.text.digest(array.tobytes().hex() + "ab")


def test_a_byte_order_mark_and_accents_in_two_parts_are_no_other_text(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbf" + "cafe\u0301 au lait, et cetera".encode())
    text = pgjax.text.read_text("~/text")
    assert text == "caf\u00e9 au lait, et cetera"
    apart, whole = (pgjax.text.text_corpus(form, "t", 20, 1) for form in ("cafe\u0301 au lait, et cetera", text))
    assert apart.tokenizer == whole.tokenizer
    np.testing.assert_array_equal(apart.texts, whole.texts)


def lines(path, *fields):
    path.write_text("".join(json.dumps(line) + "\n" for line in fields))
    return path


def test_prompts_with_answers_are_texts_whose_answers_are_learned(tmp_path):
    chat = {"prompt": [{"role": "user", "content": "b"}], "completion": [{"role": "assistant", "content": "aa"}]}
    path = lines(tmp_path / "pairs.jsonl", {"prompt": "ab", "completion": "b", "more": 1}, chat)
    pairs = pgjax.text.load_pairs(path, template="{content}>")
    assert [pair[:2] for pair in pairs] == [("ab", "b"), ("b>", "aa")]
    corpus = pgjax.text.pairs_corpus(pairs, "pairs", length=6)
    more, a, b = corpus.tokenizer.encode(">ab")
    np.testing.assert_array_equal(corpus.texts, [[BOS, a, b, b, EOS, PAD], [BOS, b, more, a, a, EOS]])
    np.testing.assert_array_equal(corpus.learned, [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(corpus.prompts, [[BOS, a, b], [BOS, b, more]])


def test_pairs_that_are_too_long_are_named_or_counted(tmp_path, capsys):
    path = lines(tmp_path / "pairs.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "aab", "completion": "ba"})
    pairs = pgjax.text.load_pairs(path)
    with pytest.raises(pgjax.InputError, match=r"pairs.jsonl, line 2: expected at most 5 tokens, bos and eos incl"):
        pgjax.text.pairs_corpus(pairs, "pairs", length=5)
    assert len(pgjax.text.pairs_corpus(pairs, "pairs", length=5, skip_long=True).texts) == 1
    assert capsys.readouterr().err == "1 of 2 pairs have more than 5 tokens, and are left out\n"
    with pytest.raises(pgjax.InputError, match="expected one or more prompts with answers of at most 3 tokens in few"):
        pgjax.text.pairs_corpus(pairs, "few", length=3, skip_long=True)
    other = [*pairs[:1], pairs[1]._replace(answer="c")]
    with pytest.raises(pgjax.InputError, match="line 2: expected characters of the vocabulary 'ab', got 'c' as char"):
        pgjax.text.pairs_corpus(other, "pairs", length=9, tokenizer=pgjax.text.Characters("ab"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a"}, "expected prompt and completion, got no completion"),
        ({"prompt": 1, "completion": "a"}, "expected a prompt that is a text, got int"),
        ({"prompt": "a", "completion": [{"content": "a"}]}, "expected messages with a role and a content that are tex"),
        ([], "expected an object with prompt and completion, got list"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, line, message):
    path = lines(tmp_path / "pairs", {"prompt": "a", "completion": "b"}, line)
    with pytest.raises(pgjax.InputError, match=f"pairs, line 2: {message}"):
        pgjax.text.load_pairs(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file of text, got .*: No such file"),
        (b"\xff\xfe", "expected text in UTF-8 in .*, got a byte that is none at 0"),
        (b" \n ", "expected a text with one or more characters in .*, got an empty one"),
    ],
)
def test_a_file_that_holds_no_text_is_refused(tmp_path, content, message):
    path = tmp_path / "corpus.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.text.read_text(path)
    with pytest.raises(pgjax.InputError, match=r"expected a file of text, got .*: Is a directory"):
        pgjax.text.read_text(tmp_path)
    with pytest.raises(pgjax.InputError, match=r"expected a path without a null byte, got 'a\\x00b'"):
        pgjax.text.read_text("a\0b")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pgjax.text.text_corpus("  \n", "nothing", 10),
            "expected a text with one or more characters in nothing",
        ),
        (lambda: pgjax.text.text_corpus("a b", "short", 2), "expected windows of 3 or more tokens, got 2"),
        (lambda: pgjax.text.text_corpus("a b", "short", 9, prompt_words=5), "expected texts that begin with 5 words"),
        (
            lambda: pgjax.text.text_corpus("a b", "short", 9, prompt_words=-1),
            "expected prompts of 0 or more words, got -1",
        ),
        (lambda: pgjax.text.grammar(words=0), "expected 1 or more words, got 0"),
        (lambda: pgjax.text.grammar(words=99), "expected at most 50 words in all, got 396"),
    ],
)
def test_what_is_no_corpus_is_refused(call, message):
    with pytest.raises(pgjax.InputError, match=message):
        call()
