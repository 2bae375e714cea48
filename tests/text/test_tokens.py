import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgjax
from pgjax.text.tokens import BOS, EOS, PAD, Characters, check_tokens, left_padded, right_padded, tokenizer_for


def test_pad_bos_and_eos_are_three_tokens_and_no_characters():
    tokenizer = tokenizer_for("banana")
    assert tokenizer == Characters("abn")
    assert tokenizer.vocabulary == 6
    np.testing.assert_array_equal(tokenizer.encode("ban"), [4, 3, 5])
    assert not {PAD, BOS, EOS} & set(tokenizer.encode("abn").tolist())
    assert len({PAD, BOS, EOS}) == 3


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1), st.integers(0, 3), st.integers(0, 3))
def test_a_text_comes_back(text, left, right):
    tokenizer = tokenizer_for(text)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    row = [PAD] * left + [BOS, *tokens, EOS] + [PAD] * right + tokens[:1].tolist()
    assert tokenizer.decode(row) == text  # what stands after eos belongs to nothing


def test_accents_in_two_parts_are_composed_if_they_have_to_be():
    assert Characters("aé").encode("e\u0301a").tolist() == Characters("aé").encode("éa").tolist() == [4, 3]
    assert len(Characters("ae\u0301").encode("e\u0301")) == 2
    with pytest.raises(pgjax.InputError, match="got 'e' as character 0"):
        Characters("ab").encode("e\u0301")


def test_rows_become_one_array():
    rows = [np.array([3, 4]), np.array([], int), np.array([5])]
    np.testing.assert_array_equal(left_padded(rows, 3), [[0, 3, 4], [0, 0, 0], [0, 0, 5]])
    np.testing.assert_array_equal(right_padded(rows, 2), [[3, 4], [0, 0], [5, 0]])
    assert left_padded(rows, 3).dtype == np.int32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tokenizer_for(""), "expected a text with one or more characters, got an empty one"),
        (lambda: Characters("ab").encode("abc"), "expected characters of the vocabulary 'ab', got 'c' as character 2"),
        (lambda: Characters("ab").decode([3, 5]), r"expected tokens from 0 to 4, got 5 at \[1\]"),
        (lambda: check_tokens([[3, -1]], 5), r"expected tokens from 0 to 4, got -1 at \[0, 1\]"),
        (lambda: check_tokens([0.5], 5), "expected tokens as integers, got an array of float64"),
        (lambda: right_padded([np.arange(4)], 3), "expected rows of at most 3 tokens, got 4 in row 0"),
    ],
)
def test_what_is_no_text_is_refused(call, message):
    with pytest.raises(pgjax.InputError, match=message):
        call()
