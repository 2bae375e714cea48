import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.text.layouts import LLAMA, TransformerConfig, check_config
from pgjax.text.network import Transformer

SIZES = TransformerConfig(7, context=9, width=16, layers=2, heads=4)


def test_the_sizes_that_follow_from_others():
    assert (SIZES.features, SIZES.shared_heads, SIZES.hidden, SIZES.rows) == (4, 4, 64, 7)
    llama = SIZES._replace(layout=LLAMA, width=96, heads=8, kv_heads=2, multiple=8)
    assert (llama.features, llama.shared_heads, llama.hidden, llama.rows) == (12, 2, 256, 8)  # 8/3 · 96 = 256


def test_the_number_of_parameters_of_a_llama_by_hand():
    d, layers = 96, 3
    config = SIZES._replace(layout=LLAMA, width=d, layers=layers, heads=8, kv_heads=2)
    # Queries and two heads each of keys and values; out of attention; gate and hidden numbers; out of these; two norms.
    block = d * (8 + 2 + 2) * 12 + d * d + d * 2 * 256 + 256 * d + 2 * d
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.ones((1, 1), int))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 7 * d + layers * block + d


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "expected a transformer whose width is 1 or more, got 0"),
        ({"multiple": 0}, "expected a transformer whose multiple is 1 or more, got 0"),
        ({"kv_heads": 0}, "expected a transformer whose kv_heads is 1 or more, got 0"),
        ({"layers": 2.0}, "expected layers to be an integer"),
        ({"heads": 3}, "expected heads that divide the width 16, got 3"),
        ({"kv_heads": 3}, "expected heads of keys and values that divide 4, got 3"),
        ({"heads": 16, "layout": LLAMA}, "expected an even number of features in a head to turn in pairs, got 1"),
        ({"compute": jnp.int32}, "expected a type of floats for products, got"),
    ],
)
def test_what_makes_no_transformer_is_refused(change, message):
    with pytest.raises(pgjax.InputError, match=message):
        check_config(SIZES._replace(**change))
