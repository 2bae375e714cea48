import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.text.tokens import BOS, EOS, PAD

pytestmark = pytest.mark.slow

V, A, B = 5, 3, 4
TEXTS = np.array([[BOS, A, B, EOS, PAD], [BOS, B, EOS, PAD, PAD], [BOS, A, A, A, B]])


def bigram():
    """The policy that looks at the last token alone, with a table [V, V] of logits."""
    return pgjax.memoryless(
        lambda key: jnp.zeros((V, V)),
        lambda params, window: pgjax.policies.Categorical(jnp.asarray(params)[window[..., -1]]),
    )


def test_what_stands_before_a_token_is_what_scores_it():
    # Bigrams of the texts: bos→a, a→b, b→eos | bos→b, b→eos | bos→a, a→a, a→a, a→b. Eos is scored, nothing after it.
    table = np.full((V, V), 0.05)
    table[BOS, A], table[BOS, B], table[A, A], table[A, B], table[B, EOS] = 0.6, 0.2, 0.5, 0.3, 0.8
    table /= table.sum(1, keepdims=True)
    expected = 2 * np.log(table[BOS, A]) + np.log(table[BOS, B]) + 2 * np.log(table[A, A])
    expected += 2 * np.log(table[A, B]) + 2 * np.log(table[B, EOS])
    found = pgjax.text.mean_log_prob(bigram(), TEXTS)(jnp.log(jnp.asarray(table)))
    assert found == pytest.approx(expected / 9, rel=1e-5)


def test_what_is_learned_from_is_every_token_after_the_first_and_nothing_after_eos():
    examples = pgjax.text.next_tokens(np.concatenate([TEXTS, [[BOS, A, EOS, B, B]]]))
    np.testing.assert_array_equal(examples.mask.T, [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(np.asarray(examples.action)[:, 2], [A, A, A, B])
    np.testing.assert_array_equal(np.asarray(examples.observation)[:, 2, 0], [BOS, A, A, A])


def test_answers_alone_are_learned_from():
    # Of the first text b and eos, of the second nothing, of the third its last two: b→eos and a→b twice, a→a once.
    learned = np.array([[0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], bool)
    table = np.full((V, V), 0.05)
    table[A, A], table[A, B], table[B, EOS] = 0.5, 0.3, 0.8
    logits = jnp.log(jnp.asarray(table))
    p = table / table.sum(1, keepdims=True)
    expected = np.log(p[A, B]) + np.log(p[B, EOS]) + np.log(p[A, A]) + np.log(p[A, B])
    assert pgjax.text.mean_log_prob(bigram(), TEXTS, learned)(logits) == pytest.approx(expected / 4, rel=1e-5)
    algorithm = pgjax.text.pretraining(bigram(), TEXTS, learned=learned, batch=3, steps=30, held_out=0.0)
    state, _ = jax.jit(pgjax.train(algorithm, 4))(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.1))
    found = np.asarray(jax.nn.softmax(state.params))
    assert found[B, EOS] > 0.95
    np.testing.assert_allclose(found[A, [A, B]], [1 / 3, 2 / 3], atol=0.1)
    assert not state.params[BOS].any()  # what stands in prompts is not learned
    with pytest.raises(pgjax.InputError, match=r"expected what is learned from to be of shape \(3, 5\), got \(3, 4\)"):
        pgjax.text.next_tokens(TEXTS, learned[:, 1:])
    with pytest.raises(pgjax.InputError, match="with 1 or more labelled steps, got 0"):
        pgjax.text.pretraining(bigram(), TEXTS, learned=np.zeros_like(learned))


def test_a_bigram_model_learns_the_frequencies():
    many = np.concatenate([TEXTS] * 20)
    algorithm = pgjax.text.pretraining(bigram(), many, batch=60, steps=60, held_out=0.0)
    run = jax.jit(pgjax.train(algorithm, 5))
    state, curves = run(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.03))
    learned = np.asarray(jax.nn.softmax(state.params))
    np.testing.assert_allclose(learned[BOS, [A, B]], [2 / 3, 1 / 3], atol=0.06)
    np.testing.assert_allclose(learned[A, [A, B]], [0.5, 0.5], atol=0.06)
    assert learned[B, EOS] > 0.98
    entropy = -(2 * np.log(2 / 3) + np.log(1 / 3) + 4 * np.log(1 / 2)) / 9
    assert curves.loss[-1] == pytest.approx(entropy, abs=0.03)


def test_a_transformer_comes_near_to_the_entropy_of_a_grammar():
    grammar = pgjax.text.grammar(words=2, parts=2, longest=3)
    corpus = pgjax.text.grammar_corpus(grammar, jax.random.key(0), 600)
    policy, sizes = pgjax.text.language_model(corpus, length=12, width=16, layers=1, heads=2)
    assert sizes.context == max(12 + corpus.prompts.shape[1], corpus.texts.shape[1])
    algorithm = pgjax.text.pretraining(policy, corpus.texts, steps=40)
    run = jax.jit(pgjax.train(algorithm, 8))
    state, curves = run(jax.random.key(1), algorithm.hyperparameters(learning_rate=1e-2))
    exact = -grammar.log_prob(corpus.texts).sum() / (corpus.texts[:, 1:] != PAD).sum()
    assert exact == pytest.approx(grammar.floor, rel=0.1)
    found = -jax.jit(pgjax.text.mean_log_prob(policy, corpus.texts))(state.params)
    assert exact - 0.02 < found < 1.15 * exact  # no model is better than the grammar, but by what it learned by heart
    assert curves.held_out_loss[0] > 1.2 * exact
    # The supervised model's outputs are sentences, most of them.
    environment = pgjax.text.text_environment(
        corpus.prompts,
        corpus.tokenizer.vocabulary,
        12,
        lambda texts, params: pgjax.text.Judgement(jnp.zeros(len(texts.tokens))),
    )
    written = jax.jit(pgjax.text.outputs(environment, policy, 200))(jax.random.key(2), state.params, environment.params)
    rows = [row[row != PAD] for row in np.asarray(written)]
    right = [np.isfinite(grammar.log_prob([row])[0]) for row in rows]
    assert np.mean(right) > 0.8


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pgjax.text.next_tokens(np.zeros((0, 4), int)), r"expected one or more texts \[N, L\]"),
        (lambda: pgjax.text.next_tokens([[A, B, EOS]]), "expected texts that begin with bos and have a token after it"),
        (
            lambda: pgjax.text.next_tokens([[BOS, PAD, PAD]]),
            "expected texts that begin with bos and have a token after it",
        ),
    ],
)
def test_texts_that_say_nothing_are_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()


def test_a_text_longer_than_the_context_is_refused():
    environment = pgjax.text.text_environment(
        [[BOS]], V, 3, lambda texts, params: pgjax.text.Judgement(jnp.zeros(len(texts.tokens)))
    )
    policy = pgjax.text.transformer(environment, pgjax.text.TransformerConfig(V, context=3, width=8, layers=1, heads=2))
    with pytest.raises(pgjax.InputError, match="expected texts of at most 4 tokens, as the context allows, got 5"):
        pgjax.text.pretraining(policy, TEXTS)
