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
