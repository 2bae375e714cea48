import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import rlhf

TOKENS = jnp.array([[3, 4, 5], [3, 4, 0]])


@pytest.mark.parametrize("n", [4, 5])
def test_outputs_shorter_than_an_ngram_have_none(n):
    assert rlhf.distinct_n(TOKENS, TOKENS > 0, n, 6) == 0
    np.testing.assert_array_equal(rlhf.self_overlap(TOKENS[:, :1], TOKENS[:, :1] > 0, 6), [0, 0])


def test_ngrams_that_no_number_holds_are_refused():
    with pytest.raises(pgjax.InputError, match=r"expected V\^n of at most 2\^31, got 2000\^3"):
        rlhf.distinct_n(TOKENS, TOKENS > 0, 3, 2000)


def test_the_largest_number_is_counted():
    V = 2**15
    tokens = jnp.array([[V - 1, V - 1], [V - 1, V - 1], [0, V - 1]])
    assert rlhf.distinct_n(tokens, jnp.ones(tokens.shape, bool), 2, V) == pytest.approx(2 / 3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_ngrams_are_those_of_a_set(n):
    tokens = jax.random.randint(jax.random.key(n), (20, 12), 0, 5)
    output = jnp.arange(12)[None] < jax.random.randint(jax.random.key(0), (20, 1), 0, 13)  # rows from 0 to 12 long
    rows = [tuple(row[here]) for row, here in zip(np.asarray(tokens), np.asarray(output), strict=True)]
    grams = [row[i : i + n] for row in rows for i in range(len(row) - n + 1)]
    found = jax.jit(rlhf.distinct_n, static_argnums=(2, 3))(tokens, output, n, 5)
    assert found == pytest.approx(len(set(grams)) / len(grams))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(AssertionError):
        rlhf.self_overlap(TOKENS, TOKENS[:1] > 0, 6)
