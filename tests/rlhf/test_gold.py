import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import rlhf
from pgjax.text.tokens import BOS, EOS, PAD

TOKENIZER = pgjax.text.Characters(" .ab")
WORDS, VALUES = ("a", "ab", "bba"), (1.0, 10.0, 100.0)
GOLD = jax.jit(rlhf.word_values(TOKENIZER, WORDS, VALUES, unknown=-0.25, unfinished=-3.0))
W, T = 4, 9


def row(prompt, output, ended=True):
    """A text as a row, [W + T]."""
    tokens = [*TOKENIZER.encode(output), *([EOS] if ended else [])]
    return np.concatenate([pgjax.text.left_padded([np.array([BOS, *TOKENIZER.encode(prompt)])], W)[0],
                           pgjax.text.right_padded([np.array(tokens, int)], T)[0]])  # fmt: skip


def worth(prompt, output, ended=True):
    tokens = jnp.asarray(row(prompt, output, ended))[None]
    return float(GOLD(tokens, rlhf.output_of(tokens, W))[0])


def test_the_output_is_what_follows_the_prompt_up_to_eos():
    tokens = jnp.array([[PAD, BOS, 3, 4, EOS, 3, PAD], [BOS, 3, 3, 5, 5, 5, 5], [PAD, PAD, BOS, EOS, PAD, PAD, PAD]])
    np.testing.assert_array_equal(
        rlhf.output_of(tokens, 3), [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0]]
    )


@pytest.mark.parametrize(
    ("prompt", "output", "ended", "expected"),
    [
        ("a ", "ab bba.", True, 110),
        ("a ", "ab ab.", True, 10),  # a word counts once
        ("a ", "abb a.", True, 1 - 0.25),
        ("a ", "a ab", False, 11 - 3),
        ("a", "b a.", True, 1),  # "ab" began in the prompt
        ("", "bba..a", True, 101),
        ("", "", True, 0),
        ("a ", "bb bb.", True, -0.5),
    ],
)
def test_values_of_words_by_hand(prompt, output, ended, expected):
    assert worth(prompt, output, ended) == pytest.approx(expected)


def test_values_of_words_against_plain_python():
    rng = np.random.default_rng(0)
    for _ in range(200):
        prompt, ended = ("a ", "b", "")[rng.integers(3)], bool(rng.integers(2))
        output = "".join(rng.choice(list(" .ab"), rng.integers(0, T)))
        begun = prompt.endswith("b")
        runs = re.split("[ .]+", ("b" if begun else "") + output)
        runs = [run for run in (runs[1:] if begun else runs) if run]
        values = dict(zip(WORDS, VALUES, strict=True))
        expected = sum(values[word] for word in set(runs) & set(WORDS)) - 0.25 * sum(run not in WORDS for run in runs)
        assert worth(prompt, output, ended) == pytest.approx(expected - (0 if ended else 3)), (prompt, output)


def test_words_and_letters_are_the_same_whatever_a_token_is():
    tokenizer = pgjax.text.train_subwords("a abb ba. bab.a abb b.b " * 30, 270)
    texts = ["ab bba", "abb.a", "é ab\nbba ab", "bb", "", " a.", "b a. bab.a abb b.b é"]
    rows = [tokenizer.encode(text) for text in texts]
    assert sum(map(len, rows)) < 0.8 * sum(map(len, texts))  # some tokens are several words, or parts of them
    ends = [i % 3 > 0 for i in range(len(texts))]
    prompt = [BOS, *tokenizer.encode("b")]
    tokens = jnp.asarray(
        pgjax.text.right_padded(
            [[*prompt, *row, *([EOS] if end else [])] for row, end in zip(rows, ends, strict=True)], 40
        )
    )
    output = rlhf.output_of(tokens, 2)
    values = dict(zip(WORDS, VALUES, strict=True))
    expected = []
    for text, end in zip(texts, ends, strict=True):
        runs = re.split(r"[\s.]+", "b" + text)[1:]  # the first goes on with the prompt's
        known = sum(values[word] for word in set(runs) & set(WORDS))
        expected.append(known - 0.25 * sum(run not in WORDS for run in runs if run) - 3 * (not end))
    gold = jax.jit(rlhf.word_values(tokenizer, WORDS, VALUES, unknown=-0.25, unfinished=-3.0))
    np.testing.assert_allclose(gold(tokens, output), expected)
    shares = [text.count("b") / max(1, len(text) + end) for text, end in zip(texts, ends, strict=True)]
    plain = ["é" not in text for text in texts]  # whose two bytes are two tokens here
    np.testing.assert_allclose(rlhf.letter_share(tokenizer, "b")(tokens, output)[np.array(plain)],
                               np.array(shares)[plain], rtol=1e-6)  # fmt: skip


def test_the_words_of_a_grammar_have_values_around_zero():
    grammar = pgjax.text.grammar()
    gold = rlhf.grammar_gold(grammar)
    rows = np.stack([np.concatenate([[BOS], grammar.tokenizer.encode(word + "."), [EOS], [PAD] * (5 - len(word))])
                     for word in grammar.words]).astype(np.int32)  # fmt: skip
    values = np.asarray(gold(jnp.asarray(rows), rlhf.output_of(jnp.asarray(rows), 1)))
    assert abs(values.mean()) < 1e-5
    assert 0.5 < values.std() < 1.5


def test_letters_and_length():
    tokens = jnp.asarray(np.stack([row("a ", "abba"), row("a ", "", ended=False)]))
    output = rlhf.output_of(tokens, W)
    np.testing.assert_allclose(rlhf.letter_share(TOKENIZER, "b")(tokens, output), [2 / 5, 0])
    np.testing.assert_allclose(rlhf.length_gold()(tokens, output), [5, 0])


def test_common_words_of_a_corpus():
    corpus = pgjax.text.text_corpus("\n\n".join(["the cat and the cat on a dog."] * 20), "cats", length=40)
    gold = rlhf.common_words(corpus, most=2)  # the and cat; "on" and "a" have fewer than three letters
    tokens = jnp.asarray([[BOS, *corpus.tokenizer.encode("the cat dog the"), PAD]])
    assert float(gold(tokens, rlhf.output_of(tokens, 1))[0]) == 1 + 1 - 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlhf.word_values(TOKENIZER, [], []), "expected one or more words with a value each, got 0 and 0"),
        (
            lambda: rlhf.word_values(TOKENIZER, ["a"], [1, 2]),
            "expected one or more words with a value each, got 1 and 2",
        ),
        (lambda: rlhf.word_values(TOKENIZER, ["a b"], [1]), "expected words without blanks and full stops, got 'a b'"),
        (lambda: rlhf.word_values(TOKENIZER, ["a", "a"], [1, 2]), "expected each word once, got 'a' twice or more"),
        (lambda: rlhf.word_values(TOKENIZER, ["c"], [1]), "expected characters of the vocabulary"),
        (lambda: rlhf.letter_share(TOKENIZER, ""), "expected one or more letters, got none"),
    ],
)
def test_what_is_no_gold_reward_is_refused(call, message):
    with pytest.raises(pgjax.InputError, match=message):
        call()
