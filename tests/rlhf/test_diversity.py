import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import rlhf

TOKENS = jnp.array([[3, 4, 5], [3, 4, 0]])


@pytest.mark.parametrize("n", [4, 5])
def test_outputs_shorter_than_an_ngram_have_none(n):
    assert rlhf.distinct_n(TOKENS, TOKENS > 0, n) == 0
    np.testing.assert_array_equal(rlhf.self_overlap(TOKENS[:, :1], TOKENS[:, :1] > 0), [0, 0])


def test_no_vocabulary_is_too_large():
    V = 2**31
    tokens = jnp.array([[V - 1, V - 1], [V - 1, V - 1], [0, V - 1]])
    assert rlhf.distinct_n(tokens, jnp.ones(tokens.shape, bool), 2) == pytest.approx(2 / 3)
    np.testing.assert_array_equal(rlhf.self_overlap(tokens, jnp.ones(tokens.shape, bool)), [1, 1, 0])


def test_overlap_is_that_of_sets():
    tokens = jax.random.randint(jax.random.key(1), (20, 12), 3, 9)
    output = jnp.arange(12)[None] < jax.random.randint(jax.random.key(0), (20, 1), 0, 13)  # rows from 0 to 12 long
    rows = [row[here].tolist() for row, here in zip(np.asarray(tokens), np.asarray(output), strict=True)]
    grams = [list(itertools.pairwise(row)) for row in rows]
    others = [set(itertools.chain(*grams[:i], *grams[i + 1 :])) for i in range(20)]
    expected = [
        np.mean([gram in theirs for gram in own]) if own else 0 for own, theirs in zip(grams, others, strict=True)
    ]
    assert 0.1 < np.mean(expected) < 0.9
    np.testing.assert_allclose(jax.jit(rlhf.self_overlap)(tokens, output), expected, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_ngrams_are_those_of_a_set(n):
    tokens = jax.random.randint(jax.random.key(n), (20, 12), 0, 5)
    output = jnp.arange(12)[None] < jax.random.randint(jax.random.key(0), (20, 1), 0, 13)  # rows from 0 to 12 long
    rows = [tuple(row[here]) for row, here in zip(np.asarray(tokens), np.asarray(output), strict=True)]
    grams = [row[i : i + n] for row in rows for i in range(len(row) - n + 1)]
    found = jax.jit(rlhf.distinct_n, static_argnums=2)(tokens, output, n)
    assert found == pytest.approx(len(set(grams)) / len(grams))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(AssertionError):
        rlhf.self_overlap(TOKENS, TOKENS[:1] > 0)
