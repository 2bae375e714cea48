import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.policies.sampling import at_temperature, top_k, top_p
from pgjax.text.decoder import Transformer, TransformerConfig, context_of, token_values, transformer
from pgjax.text.environment import Judgement, text_environment
from pgjax.text.tokens import BOS, EOS, PAD, left_padded

V, T = 7, 10
PROMPTS = left_padded([np.array([BOS, 3, 4, 5]), np.array([BOS]), np.array([BOS, 6])], 4)
SIZES = TransformerConfig(V, context=13, width=16, layers=2, heads=2)


def judge(texts, params):
    return Judgement(jnp.zeros(len(texts.tokens)))


TEXTS = text_environment(PROMPTS, V, T, judge)


def lively(policy, key=0):
    """Parameters of a policy whose distributions are far from uniform."""
    return jax.tree.map(lambda leaf: 2 * leaf, policy.init(jax.random.key(key)))


ADJUSTED = {
    "as it is": lambda policy: policy,
    "sharper": lambda policy: at_temperature(policy, 0.5),
    "flatter": lambda policy: at_temperature(policy, 2.0),
    "top k": lambda policy: top_k(policy, 3),
    "top p": lambda policy: top_p(policy, 0.7),
}


@pytest.mark.parametrize("name", ADJUSTED)
def test_the_sampler_and_the_parallel_pass_give_the_same_log_probabilities(name):
    policy = ADJUSTED[name](transformer(TEXTS, SIZES))
    params = lively(policy)
    trajectory = jax.jit(pgjax.collect(TEXTS, policy, slots=40))(jax.random.key(1), params, TEXTS.params)
    lengths = np.asarray(trajectory.mask.sum(0))
    assert lengths.min() < T == lengths.max()
    assert len({int(n) for n in (trajectory.observation[0] != PAD).sum(1)}) == 3  # prompts of unequal lengths
    again = policy.unroll(params, trajectory).log_prob(trajectory.action)
    mask = np.asarray(trajectory.mask)
    np.testing.assert_allclose(np.asarray(again)[mask], np.asarray(trajectory.log_prob)[mask], atol=1e-5)
    entropy = np.asarray(policy.unroll(params, trajectory).entropy())[mask]
    assert 0 <= entropy.min() < entropy.max() <= np.log(V - 2) + 1e-6  # pad and bos are never written


def test_long_texts_are_written_as_they_are_read():
    sizes = TransformerConfig(V, context=100, width=8, layers=1, heads=2)
    environment = text_environment(PROMPTS, V, 96, judge)
    policy = transformer(environment, sizes)
    params = lively(policy)
    # Nobody ends a text, so that all of it is read.
    on_and_on = policy._replace(
        step=lambda params, memory, observation: (
            lambda after: (after[0], pgjax.policies.Categorical(after[1].logits.at[..., EOS].set(-jnp.inf)))
        )(policy.step(params, memory, observation))
    )
    run = jax.jit(pgjax.collect(environment, on_and_on, slots=6))
    trajectory = run(jax.random.key(0), params, environment.params)
    assert trajectory.mask.sum() == 6 * 96
    logits = policy.unroll(params, trajectory).logits.at[..., EOS].set(-jnp.inf)
    again = pgjax.policies.Categorical(logits).log_prob(trajectory.action)
    mask = np.asarray(trajectory.mask)
    np.testing.assert_allclose(np.asarray(again)[mask], np.asarray(trajectory.log_prob)[mask], atol=2e-5)


def test_pads_on_either_side_and_what_follows_eos_change_nothing():
    network = Transformer(TransformerConfig(V, context=12, width=16))
    words = jnp.array([[BOS, 3, 5, 4, EOS]])
    params = jax.tree.map(lambda leaf: 3 * leaf, network.init(jax.random.key(0), words))
    plain = network.apply(params, words)
    padded = jnp.pad(words, ((0, 0), (3, 4)))
    np.testing.assert_allclose(network.apply(params, padded)[:, 3:8], plain, atol=1e-5)
    followed = jnp.concatenate([words, jnp.array([[3, 3, BOS]])], axis=1)
    np.testing.assert_allclose(network.apply(params, followed)[:, :5], plain, atol=1e-5)
    assert len({PAD, BOS, EOS}) == 3


def test_what_is_to_come_is_not_seen():
    network = Transformer(TransformerConfig(V, context=8, width=16))
    tokens = jnp.array([[BOS, 3, 5, 4, 6]])
    params = network.init(jax.random.key(0), tokens)
    before, after = (network.apply(params, tokens.at[0, 3].set(token)) for token in (4, 6))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-3


def test_the_number_of_parameters_by_hand():
    # Embedding and positions; in a block two norms, attention in and out, a layer of four widths; a last norm.
    d, c, layers = 64, 39, 2
    block = 4 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + 4 * d * d
    policy = transformer(text_environment(np.full((1, 8), 3), 50, 32, judge), TransformerConfig(50, c, d, layers, 4))
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(policy.init, jax.random.key(0))))
    assert count == 50 * d + c * d + layers * block + 2 * d
    assert 100_000 < count < 110_000


def test_under_vmap_a_step_still_reads_one_column():
    policy = transformer(TEXTS, SIZES)
    run = pgjax.collect(TEXTS, policy, slots=4)
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.vmap(policy.init)(keys)
    together = jax.jit(jax.vmap(run, (0, 0, None)))
    hlo = together.lower(keys, params, TEXTS.params).as_text()
    cache = "tensor<3x4x2x13x8xf32>"
    # Were columns in use counted by run, the loop that reads the prompt would run on, and select among whole caches.
    assert not re.search(rf"stablehlo.select .*{cache}", hlo)
    # Keys and values of two layers, whole: sums of their products in another layout cost up to six times as much.
    assert len(re.findall(rf"stablehlo.dot_general .*{cache}\) ->", hlo)) == 4
    many = together(keys, params, TEXTS.params)
    for i in range(3):
        alone = jax.jit(run)(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], params), TEXTS.params)
        np.testing.assert_array_equal(many.action[i], alone.action)


def test_a_step_writes_into_the_cache_in_place():
    policy = transformer(TEXTS, SIZES)
    run = jax.jit(pgjax.collect(TEXTS, policy, slots=4))
    compiled = run.lower(jax.random.key(0), policy.init(jax.random.key(0)), TEXTS.params).compile().as_text()
    loops = compiled[: compiled.index("\nENTRY ")]  # the caches of zeros that it begins with are copied once
    assert "f32[4,2,13,8]" in loops
    assert not re.search(r"= f32\[4,2,13,8\]\S* copy\(", loops)


def test_top_k_and_top_p_by_hand():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    policy = pgjax.memoryless(lambda key: (), lambda params, observation: pgjax.policies.Categorical(logits[None]))

    def probabilities(adjusted):
        return np.asarray(jax.nn.softmax(adjusted.step((), (), jnp.zeros((1, 1)))[1].logits))[0]

    np.testing.assert_allclose(probabilities(top_k(policy, 2)), [0.625, 0.375, 0, 0], atol=1e-6)
    np.testing.assert_allclose(probabilities(top_k(policy, 9)), [0.5, 0.3, 0.15, 0.05], atol=1e-6)
    np.testing.assert_allclose(probabilities(top_p(policy, 0.5)), [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(probabilities(top_p(policy, 0.6)), [0.625, 0.375, 0, 0], atol=1e-6)
    np.testing.assert_allclose(probabilities(top_p(policy, 1.0)), [0.5, 0.3, 0.15, 0.05], atol=1e-6)
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(probabilities(at_temperature(policy, 0.5)), squared / squared.sum(), atol=1e-6)


def test_values_are_those_of_each_token():
    init, values = token_values(SIZES)
    params = init(jax.random.key(0))
    tokens = jnp.array([[BOS, 3, 4, 5]])
    np.testing.assert_allclose(values(params, tokens)[:, :2], values(params, tokens[:, :2]), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: transformer(TEXTS, SIZES._replace(context=12)), "expected a context of 13 tokens or more for prompts"),
        (lambda: transformer(TEXTS, SIZES._replace(vocabulary=8)), "expected texts of a vocabulary of 8 tokens, got"),
        (lambda: transformer(TEXTS, SIZES._replace(heads=3)), "expected heads that divide the width 16, got 3"),
        (lambda: transformer(TEXTS, SIZES._replace(layers=0)), "whose layers is 1 or more, got 0"),
        (lambda: transformer(pgjax.from_gymnax("CartPole-v1"), SIZES), "expected texts of a vocabulary of 7"),
        (lambda: at_temperature(transformer(TEXTS, SIZES), 0), "expected a finite temperature above 0, got 0"),
        (lambda: at_temperature(transformer(TEXTS, SIZES), np.inf), "expected a finite temperature above 0, got inf"),
        (lambda: top_k(transformer(TEXTS, SIZES), 0), "expected 1 or more actions to choose from, got 0"),
        (lambda: top_p(transformer(TEXTS, SIZES), 0), "expected a probability above 0 and at most 1, got 0"),
    ],
)
def test_wrong_sizes_are_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()


def test_the_context_of_a_policy():
    assert context_of(transformer(TEXTS, SIZES)) == 13
    assert context_of(pgjax.tabular(3, 2)) is None
