import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import rlhf
from pgjax.rlhf import reward_models
from pgjax.text.tokens import BOS, EOS

pytestmark = pytest.mark.slow

V, A, B = 5, 3, 4
SIZES = pgjax.text.TransformerConfig(V, context=8, width=8, layers=1, heads=2)
MODEL = rlhf.reward_model(SIZES)._replace(score=jax.jit(rlhf.reward_model(SIZES).score))


def pairs(n, key=0):
    """Comparisons of random outputs [n, 2, 6], in which more a's are always liked better."""
    rng = np.random.default_rng(key)
    outputs = rng.integers(A, B + 1, (n, 2, 4))
    tokens = np.concatenate([np.full((n, 2, 1), BOS), outputs, np.full((n, 2, 1), EOS)], axis=2)
    liked = (outputs == A).sum(2) + 0.1 * (outputs[:, :, 0] == A)
    order = np.argsort(-liked, axis=1)
    real = liked[:, 0] != liked[:, 1]
    return rlhf.Rankings(*map(jnp.asarray, (tokens, order, real, np.zeros(n, int))))


def test_the_score_is_that_of_the_last_token_whatever_pads_stand_beside():
    params = jax.tree.map(lambda leaf: 3 * leaf, MODEL.init(jax.random.key(0), ()))
    tokens = jnp.array([[BOS, A, B, EOS]])
    score = MODEL.score(params, tokens)
    assert score.shape == (1,)
    np.testing.assert_allclose(MODEL.score(params, jnp.pad(tokens, ((0, 0), (2, 2)))), score, atol=1e-5)
    assert abs(MODEL.score(params, tokens.at[0, 1].set(B)) - score) > 1e-4
    assert abs(MODEL.score(params, tokens[:, :3]) - score) > 1e-4


def test_many_texts_are_scored_a_part_after_another(monkeypatch):
    tokens, params = pairs(50).tokens, MODEL.init(jax.random.key(0), ())
    members = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)

    def both(params, members, tokens):
        return rlhf.scores_of(MODEL, params, tokens), rlhf.ensemble_score(MODEL, members, tokens[:, 0], 0.5)

    # Of functions of their own, as what is compiled of one is not compiled again.
    whole = jax.jit(lambda *arguments: both(*arguments))
    expected, needed = whole(params, members, tokens), memory(whole, params, members, tokens)
    monkeypatch.setattr(reward_models, "AT_ONCE", 32)  # two texts at once
    parts = jax.jit(lambda *arguments: both(*arguments))
    for one, other in zip(parts(params, members, tokens), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert memory(parts, params, members, tokens) < needed / 4


def memory(function, *arguments):
    return function.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def test_it_begins_with_a_language_model_where_that_is_given():
    environment = pgjax.text.text_environment(
        [[BOS]], V, 7, lambda tokens, output, params: pgjax.text.Judgement(jnp.zeros(len(tokens)))
    )
    body = pgjax.text.transformer(environment, SIZES).init(jax.random.key(3))
    params = MODEL.init(jax.random.key(0), body)
    jax.tree.map(np.testing.assert_array_equal, params["params"]["body"], body["params"])
    other = pgjax.text.transformer(environment, SIZES._replace(width=16)).init(jax.random.key(3))
    with pytest.raises(pgjax.InputError, match="expected the weights of a language model of the configuration"):
        MODEL.init(jax.random.key(0), other)


@pytest.fixture(scope="module")
def fitted():
    algorithm = rlhf.reward_modelling(MODEL, pairs(300), steps=20)
    run = jax.jit(pgjax.train(algorithm, 12))
    return run(jax.random.key(0), algorithm.hyperparameters(learning_rate=1e-2))


def test_it_learns_what_is_liked(fitted):
    state, curves = fitted
    new = pairs(400, key=1)
    accuracy = rlhf.pair_accuracy(rlhf.scores_of(MODEL, state.params, new.tokens), new.order, new.mask)
    assert accuracy > 0.95
    assert curves.loss[0] > 0.2 > 0.05 > curves.loss[-1]
    assert curves.accuracy[-1] > 0.9
    # The parameters that are kept are those with the least loss on what was held out.
    assert state.best == pytest.approx(float(curves.held_out_loss.min()))


def test_a_tenth_is_held_out_of_what_is_real(fitted):
    state, _ = fitted
    real = np.asarray(pairs(300).mask)
    assert not state.fitted[~real].any()
    assert (real & ~np.asarray(state.fitted)).sum() == real.sum() // 10


def test_members_of_an_ensemble_differ_by_what_they_say_of_pairs():
    model = rlhf.RewardModel(lambda key, body: (), lambda slope, tokens: slope * tokens[:, -1].astype(float))
    tokens = jnp.array([[[1], [0]], [[3], [3]]])
    found = rlhf.preference_disagreement(model, jnp.array([0.0, 2.0]), tokens)
    np.testing.assert_allclose(found, [(1 / (1 + np.exp(-2)) - 0.5) / 2, 0], atol=1e-6)  # σ(0) and σ(2); equal outputs
    three = rlhf.preference_disagreement(model, jnp.array([0.0, 2.0]), jnp.array([[[1], [0], [0]]]))
    np.testing.assert_allclose(three, found[:1] * 2 / 3, rtol=1e-5)  # one pair of three is of equal ones


def test_an_ensemble_says_its_mean_less_what_it_disagrees():
    params = jax.vmap(lambda key: MODEL.init(key, ()))(jax.random.split(jax.random.key(0), 3))
    tokens = pairs(5).tokens[:, 0]
    each = np.stack([MODEL.score(jax.tree.map(lambda leaf, i=i: leaf[i], params), tokens) for i in range(3)])
    np.testing.assert_allclose(rlhf.ensemble_score(MODEL, params, tokens), each.mean(0), atol=1e-6)
    cautious = rlhf.ensemble_score(MODEL, params, tokens, 2.0)
    np.testing.assert_allclose(cautious, each.mean(0) - 2 * each.std(0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "expected 1 or more rankings in a batch, got 0"),
        ({"steps": 0}, "expected 1 or more gradient steps an update, got 0"),
        ({"held_out": 1.0}, "expected a fraction of held-out rankings from 0 to below 1, got 1.0"),
    ],
)
def test_counts_out_of_range_are_refused(options, message):
    with pytest.raises(pgjax.InputError, match=message):
        rlhf.reward_modelling(MODEL, pairs(4), **options)


def test_no_ranking_is_refused():
    with pytest.raises(pgjax.InputError, match=r"expected rankings of tokens \[N, K, L\]"):
        rlhf.reward_modelling(MODEL, jax.tree.map(lambda leaf: leaf[:0], pairs(4)))
