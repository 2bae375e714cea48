import builtins
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.text.layouts import GPT2, TransformerConfig
from pgjax.text.network import Transformer
from pgjax.text.weights import load_gpt2, load_weights, save_gpt2, save_weights
from pgjax.trees import names

ROWS, CONTEXT, WIDTH, LAYERS, HEADS = 11, 6, 8, 2, 2
IDS = [10, 10, 10, *range(10)]  # the last row is pad, bos and eos


def published(seed=0):
    """Small random weights, as they are published."""
    rng = np.random.default_rng(seed)
    shapes = {"wte.weight": (ROWS, WIDTH), "wpe.weight": (CONTEXT, WIDTH)}
    shapes |= {"ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,)}
    for layer in range(LAYERS):
        sizes = {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH), "mlp.c_fc": (WIDTH, 4 * WIDTH)}
        sizes |= {"mlp.c_proj": (4 * WIDTH, WIDTH), "ln_1": (WIDTH,), "ln_2": (WIDTH,)}
        for name, shape in sizes.items():
            shapes |= {f"h.{layer}.{name}.weight": shape, f"h.{layer}.{name}.bias": shape[-1:]}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(path, tensors):
    """A file in the format: the length of a header, the header, and the arrays."""
    header, content = {}, b""
    for name, array in tensors.items():
        kind = {"f": "F", "i": "I"}[array.dtype.kind] + str(8 * array.itemsize)
        place = [len(content), len(content) + array.nbytes]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": place}
        content += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def forward(w, ids):
    """The logits [L, ROWS] of GPT-2 for a text of ids [L], in its own naming."""
    w = {name: array.astype(float) for name, array in w.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def conv1d(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    L, d = len(ids), WIDTH // HEADS
    x = w["wte.weight"][ids] + w["wpe.weight"][:L]
    for layer in range(LAYERS):
        h = f"h.{layer}"
        q, k, v = np.split(conv1d(norm(x, f"{h}.ln_1"), f"{h}.attn.c_attn"), 3, axis=1)
        q, k, v = (part.reshape(L, HEADS, d).swapaxes(0, 1) for part in (q, k, v))
        score = q @ k.swapaxes(1, 2) / np.sqrt(d)
        weight = np.exp(np.where(np.tril(np.ones((L, L))), score, -np.inf))
        seen = (weight / weight.sum(-1, keepdims=True)) @ v
        x = x + conv1d(seen.swapaxes(0, 1).reshape(L, WIDTH), f"{h}.attn.c_proj")
        up = conv1d(norm(x, f"{h}.ln_2"), f"{h}.mlp.c_fc")
        x = x + conv1d(0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))), f"{h}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


def logits(config, params, tokens):
    network = Transformer(config)
    return network.apply(params, network.apply(params, tokens), method="logits")


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_a_published_model_says_what_it_says_elsewhere(tmp_path, prefix):
    weights = published()
    buffers = {"h.0.attn.bias": np.ones((1, 1, 6, 6), np.float32), "h.1.attn.masked_bias": np.float32(-1e4)[None]}
    named = {f"{prefix}{name}": array for name, array in (weights | buffers).items()}
    path = write(tmp_path / "model.safetensors", named | {"lm_head.weight": weights["wte.weight"]})
    config, params = load_gpt2(path, heads=HEADS)
    assert config == TransformerConfig(ROWS, CONTEXT, WIDTH, LAYERS, HEADS, layout=GPT2)
    text = [1, 7, 3, 9, 2]
    np.testing.assert_allclose(logits(config, params, jnp.array([text]))[0], forward(weights, text), atol=1e-4)


def test_rows_are_those_of_our_tokens(tmp_path):
    weights = published()
    path = write(tmp_path / "model.safetensors", weights)
    config, params = load_gpt2(path, heads=HEADS, ids=IDS)
    assert config.vocabulary == len(IDS) == 13
    ours = [1, 6, 3, 12]
    theirs = forward(weights, [IDS[token] for token in ours])
    np.testing.assert_allclose(logits(config, params, jnp.array([ours]))[0], theirs[:, IDS], atol=1e-4)


@pytest.mark.parametrize("ids", [None, IDS, [4, 9, 2, 0, 1, 3, 5, 6, 7, 8, 10]])
def test_what_is_written_is_what_was_read_bit_for_bit(tmp_path, ids):
    weights = published()
    config, params = load_gpt2(write(tmp_path / "model.safetensors", weights), heads=HEADS, ids=ids)
    save_gpt2(tmp_path / "again.safetensors", config, params, ids=ids)
    again = pgjax.text.weights.read_tensors(tmp_path / "again.safetensors")
    assert again.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_rows_that_share_an_id_are_written_as_that_of_eos(tmp_path):
    config, params = load_gpt2(write(tmp_path / "model.safetensors", published()), heads=HEADS, ids=IDS)
    params["params"]["embedding"] = jnp.arange(13.0)[:, None] * jnp.ones((1, WIDTH))
    save_gpt2(tmp_path / "again.safetensors", config, params, ids=IDS)
    rows = pgjax.text.weights.read_tensors(tmp_path / "again.safetensors")["wte.weight"][:, 0]
    assert rows.tolist() == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 2.0]


def test_halves_become_floats(tmp_path):
    weights = {name: array.astype(np.float16) for name, array in published().items()}
    _, params = load_gpt2(write(tmp_path / "model.safetensors", weights), heads=HEADS)
    assert params["params"]["positions"].dtype == np.float32
    np.testing.assert_array_equal(params["params"]["positions"], weights["wpe.weight"])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"h.1.ln_2.bias": None}, {}, "expected an array h.1.ln_2.bias in .*model.safetensors, got none"),
        ({"h.0.more": np.ones(2)}, {}, "expected 28 arrays in .*model.safetensors, got one more: h.0.more"),
        ({"h.0.mlp.c_fc.weight": np.ones((32, 8))}, {}, r"c_fc.weight of shape \(8, 32\) in .*, got \(32, 8\)"),
        ({"ln_f.bias": np.ones(8, int)}, {}, "expected floats as ln_f.bias in .*, got int64"),
        ({"wpe.weight": None}, {}, "expected weights of GPT-2's family in .*, got no matrix wpe.weight"),
        ({"lm_head.weight": np.ones((11, 8))}, {}, "lm_head.weight in .* to be the embedding"),
        ({}, {"heads": None}, "expected the number of heads for a width of 8 in .*, got none"),
        ({}, {"heads": 3}, "expected heads that divide the width 8, got 3"),
        ({}, {"ids": [0, 1, 2, 11]}, "expected ids of the 11 rows in .*, got 11: a larger vocabulary"),
        ({}, {"ids": [0, 1, 2, 3, 3]}, "pad, bos and eos alone may be the same"),
        ({}, {"ids": [0, 1, 2, 1]}, "pad, bos and eos alone may be the same"),
        ({}, {"ids": [0, 1, 2]}, "expected an id for each of 4 or more tokens"),
    ],
)
def test_other_weights_are_refused_by_file_and_name(tmp_path, change, options, message):
    weights = {name: array for name, array in (published() | change).items() if array is not None}
    path = write(tmp_path / "model.safetensors", weights)
    with pytest.raises(pgjax.InputError, match=message):
        load_gpt2(path, **{"heads": HEADS} | options)


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("no weights at all")
    for name in ("text.safetensors", "nothing.safetensors", "."):
        with pytest.raises(pgjax.InputError, match=r"expected a file of weights .*, got: "):
            load_gpt2(tmp_path / name)


def test_without_the_library_its_name_is_said(tmp_path, monkeypatch):
    there = builtins.__import__

    def without(name, *arguments):
        if name.startswith("safetensors"):
            raise ImportError("no such module")
        return there(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(pgjax.InputError, match="expected safetensors to be installed"):
        load_gpt2(tmp_path / "model.safetensors")


def test_only_its_own_parameters_are_written(tmp_path):
    config, params = load_gpt2(write(tmp_path / "model.safetensors", published()), heads=HEADS)
    for other in (config._replace(layers=1), TransformerConfig(ROWS, CONTEXT, WIDTH, LAYERS, HEADS)):
        with pytest.raises(pgjax.InputError, match="expected a configuration of GPT-2's layout and its parameters"):
            save_gpt2(tmp_path / "again.safetensors", other, params)
    with pytest.raises(pgjax.InputError, match="expected an id for each of 11 tokens, got 13"):
        save_gpt2(tmp_path / "again.safetensors", config, params, ids=IDS)
    assert not (tmp_path / "again.safetensors").exists()
    with pytest.raises(pgjax.InputError, match=r"expected a file that can be written, got .*nowhere"):
        save_gpt2(tmp_path / "nowhere" / "model.safetensors", config, params)


def test_any_parameters_are_read_as_they_were_written(tmp_path):
    tree = {"a": (jnp.arange(6.0).reshape(2, 3).T, jnp.ones(2, jnp.bfloat16)), "key": jax.random.key(3)}
    save_weights(tmp_path / "tree.safetensors", tree)
    again = load_weights(tmp_path / "tree.safetensors", jax.eval_shape(lambda: tree))
    assert names(again) == names(tree)
    assert again["a"][1].dtype == jnp.bfloat16
    np.testing.assert_array_equal(again["a"][0], tree["a"][0])
    np.testing.assert_array_equal(jax.random.key_data(again["key"]), jax.random.key_data(tree["key"]))
    with pytest.raises(pgjax.InputError, match=r"expected int32 as a.0 in .*, got float32"):
        load_weights(tmp_path / "tree.safetensors", tree | {"a": (jnp.ones((3, 2), int), tree["a"][1])})
