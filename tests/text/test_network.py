from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.devices import ACTIVATIONS, memory_budget, within_memory
from pgjax.segments import bytes_kept
from pgjax.text.decoder import transformer
from pgjax.text.environment import Judgement, text_environment
from pgjax.text.layouts import GPT2, LLAMA, PLAIN, TransformerConfig
from pgjax.text.network import Transformer
from pgjax.text.tokens import BOS, EOS, PAD, left_padded

V, T = 7, 6
PROMPTS = left_padded([np.array([BOS, 3, 4, 5]), np.array([BOS]), np.array([BOS, 6])], 4)
SIZES = TransformerConfig(V, context=9, width=16, layers=2, heads=4)
CONFIGS = {
    "plain": SIZES,
    "gpt2": SIZES._replace(layout=GPT2, multiple=8),
    "llama": SIZES._replace(layout=LLAMA, kv_heads=2),
    "one key for all": SIZES._replace(layout=LLAMA, kv_heads=1, remat=True),
}
TEXTS = text_environment(PROMPTS, V, T, lambda texts, params: Judgement(jnp.zeros(len(texts.tokens))))
WORDS = jnp.array([[BOS, 3, 5, 4, EOS]])


def lively(config, key=0):
    """Parameters that are far from where they begin, scales and biases too, so that each matters."""
    params = jax.jit(Transformer(config).init)(jax.random.key(key), WORDS)
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key + 1), len(leaves))
    moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, moved)


def again(config, params, trajectory):
    """The log-probabilities of what was written, by the parallel pass."""
    policy = transformer(TEXTS, config)
    return jax.jit(lambda params, written: policy.unroll(params, written).log_prob(written.action))(params, trajectory)


def softmax(x):
    weight = np.exp(x - x.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def turned(x, position):
    """Pairs of features as complex numbers, turned."""
    half = x.shape[-1] // 2
    angle = position * 10000.0 ** (-2 * np.arange(half) / x.shape[-1])
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=-1)


def reference(params, config, tokens):
    """The logits [L, V] of a text [L], token by token and head by head, from the papers."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    d = config.width // config.heads
    kv = config.kv_heads or config.heads

    def norm(x, p):
        if config.layout is LLAMA:
            return x / np.sqrt(np.mean(x**2) + 1e-5) * p["scale"]
        epsilon = 1e-5 if config.layout is GPT2 else 1e-6
        return (x - x.mean()) / np.sqrt(x.var() + epsilon) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p.get("bias", 0)

    def feed_forward(x, p):
        up, down = dense(x, p["up"]), p["down"].T
        if config.layout is LLAMA:
            n = len(up) // 2
            return (up[:n] / (1 + np.exp(-up[:n])) * up[n:]) @ down
        if config.layout is GPT2:
            return 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3))) @ down + p["down_bias"]
        return np.maximum(up, 0) @ down

    xs = [p["embedding"][token] for token in tokens]
    if config.layout is not LLAMA:
        xs = [x + p["positions"][t] for t, x in enumerate(xs)]
    for layer in range(config.layers):
        block, keys, values, after = p[f"blocks_{layer}"], [], [], []
        for t, x in enumerate(xs):
            q, k, v = np.split(dense(norm(x, block["before_attention"]), block["attention"]), np.cumsum([16, kv * d]))
            q, k, v = q.reshape(-1, d), k.reshape(kv, d), v.reshape(kv, d)
            if config.layout is LLAMA:
                q, k = turned(q, t), turned(k, t)
            keys.append(k)
            values.append(v)
            seen = []
            for head in range(config.heads):
                shared = head // (config.heads // kv)
                weight = softmax(np.array([q[head] @ key[shared] for key in keys]) / np.sqrt(d))
                seen.append(sum(w * value[shared] for w, value in zip(weight, values, strict=True)))
            x = x + dense(np.concatenate(seen), block["attended"])
            after.append(x + feed_forward(norm(x, block["before_layer"]), block))
        xs = after
    return np.stack([norm(x, p["norm"]) @ p["embedding"][: config.vocabulary].T for x in xs])


@partial(jax.jit, static_argnums=0)
def logits(config, params, tokens):
    network = Transformer(config)
    return network.apply(params, network.apply(params, tokens), method="logits")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parallel_pass_is_what_the_papers_say(name):
    config = CONFIGS[name]
    params = lively(config)
    expected = reference(params, config, WORDS[0])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits(config, params, WORDS)[0], expected, atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_pads_on_either_side_and_what_follows_eos_change_nothing(name):
    config = CONFIGS[name]
    params = lively(config)
    around = jnp.concatenate([jnp.full((1, 2), PAD), WORDS, jnp.array([[3, PAD]])], axis=1)
    np.testing.assert_allclose(logits(config, params, around)[:, 2:7], logits(config, params, WORDS), atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_sampler_and_the_parallel_pass_give_the_same_log_probabilities(name):
    policy, params = transformer(TEXTS, CONFIGS[name]), lively(CONFIGS[name])
    trajectory = jax.jit(pgjax.collect(TEXTS, policy, slots=12))(jax.random.key(1), params, TEXTS.params)
    assert len({int(n) for n in (trajectory.observation[0] != PAD).sum(1)}) == 3  # prompts of unequal lengths
    assert len({int(n) for n in trajectory.mask.sum(0)}) > 1
    log_prob, mask = again(CONFIGS[name], params, trajectory), np.asarray(trajectory.mask)
    np.testing.assert_allclose(np.asarray(log_prob)[mask], np.asarray(trajectory.log_prob)[mask], atol=1e-5)
    heads = {"llama": 2, "one key for all": 1}.get(name, 4)
    assert policy.memory(3).keys[1].shape == policy.memory(3).values[0].shape == (3, heads, 9, 4)


def test_a_transformer_without_options_is_what_it_was():
    # Numbers of a transformer that had none.
    params = Transformer(SIZES).init(jax.random.key(0), WORDS)
    found = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert SIZES.layout is PLAIN
    assert sum(leaf.size for leaf in found.values()) == 6816
    np.testing.assert_allclose(sum(jnp.abs(leaf).sum() for leaf in found.values()), 1137.2589, rtol=1e-5)
    expected = [-0.16369006, 0.07215318, -0.14050651, 0.06322122, -0.03856350, 0.03054493, 0.02168564]
    np.testing.assert_allclose(logits(SIZES, params, WORDS)[0, -1], expected, atol=1e-6)


def test_rows_beyond_the_vocabulary_are_no_tokens():
    config = CONFIGS["gpt2"]._replace(vocabulary=5, multiple=4)
    params = lively(config)
    assert params["params"]["embedding"].shape == (8, 16)
    before = logits(config, params, WORDS[:, :2])
    params["params"]["embedding"] = params["params"]["embedding"].at[5:].set(9.0)
    assert before.shape == (1, 2, 5)
    np.testing.assert_array_equal(logits(config, params, WORDS[:, :2]), before)


def test_rematerialisation_changes_no_gradient_and_takes_less_memory():
    tokens = jax.random.randint(jax.random.key(0), (8, 64), 3, V)
    compiled, gradients = {}, {}
    for remat in (False, True):
        config = SIZES._replace(context=64, layers=4, layout=LLAMA, remat=remat)
        params = lively(config)
        gradient = jax.jit(jax.grad(lambda params, config=config: jnp.sum(logits(config, params, tokens) ** 2)))
        compiled[remat] = gradient.lower(params).compile()
        gradients[remat] = compiled[remat](params)
    for plain, repeated in zip(*map(jax.tree.leaves, gradients.values()), strict=True):
        np.testing.assert_allclose(repeated, plain, rtol=1e-4, atol=1e-5 * float(jnp.abs(plain).max()))
    without, with_it = (compiled[remat].memory_analysis().temp_size_in_bytes for remat in (False, True))
    assert with_it < 0.6 * without


@pytest.mark.parametrize("layout", [GPT2, LLAMA])
def test_blocks_are_computed_again_where_a_text_does_not_fit_into_memory(layout):
    config = TransformerConfig(V, context=64, width=64, layers=3, heads=4, layout=layout)
    params, tokens = jax.eval_shape(Transformer(config).init, jax.random.key(0), WORDS), jnp.full((1, 64), 3)

    def kept(remat):
        chosen = config._replace(remat=remat)
        return bytes_kept(lambda params: (jnp.sum(Transformer(chosen).apply(params, tokens)), ()), params)

    assert kept(remat=True) < 0.5 * kept(remat=False)
    with within_memory(int(1.1 * kept(remat=False) / ACTIVATIONS)):
        assert kept(remat=None) == kept(remat=False)
    with within_memory(int(0.9 * kept(remat=False) / ACTIVATIONS)):
        assert kept(remat=None) == kept(remat=True)
    assert memory_budget() > 2**26  # as before


def test_products_in_bfloat16_leave_parameters_and_log_probabilities_in_float32():
    config = SIZES._replace(layout=LLAMA, compute=jnp.bfloat16)
    policy, params = transformer(TEXTS, config), lively(config)
    trajectory = jax.jit(pgjax.collect(TEXTS, policy, slots=24))(jax.random.key(1), params, TEXTS.params)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, jax.eval_shape(policy.init, jax.random.key(0))))} == {
        np.dtype("float32")
    }
    assert policy.memory(2).keys[0].dtype == policy.memory(2).values[0].dtype == jnp.bfloat16
    read, exact = (again(c, params, trajectory) for c in (config, config._replace(compute=None)))
    assert read.dtype == trajectory.log_prob.dtype == np.float32
    mask = np.asarray(trajectory.mask)
    written, read, exact = (np.asarray(x)[mask] for x in (trajectory.log_prob, read, exact))
    assert np.abs(read - written).max() < 0.1  # 8 bits of a number
    assert 0 < np.abs(read - exact).mean() < 0.025
    assert np.abs(read - exact).max() < 0.1
