"""Direct preference optimization: its loss by hand, its optimum f_SL e^{r/β}/Z, and that rankings lead there."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from pgjax import rlhf
from pgjax.rlhf.direct import replayed
from pgjax.text.tokens import EOS, PAD
from tests.text.exact_texts import PROMPT, A, B, T, by_context

POLICY, W = by_context(), PROMPT.shape[1]
SUPERVISED = POLICY.init(jax.random.key(1))


def every_text():
    """All 15 texts of at most three letters, [N, W + T]."""
    outputs = [(*text, EOS) for n in range(T) for text in itertools.product((A, B), repeat=n)]
    outputs += list(itertools.product((A, B), repeat=T))
    return np.array([[*PROMPT[0], *text, *[PAD] * (T - len(text))] for text in outputs], np.int32)


TEXTS = every_text()


def log_probs(theta):
    """ln f of each text, token by token from the tables as they stand."""
    found = []
    for text in TEXTS:
        total = 0.0
        for t in range(T):
            number = sum(int(token) * 5**i for i, token in enumerate(text[t : t + W]))
            if t and text[W + t - 1] == EOS:
                break
            logits = np.asarray(theta[number], np.float64)[2:]
            total += logits[text[W + t] - 2] - np.log(np.exp(logits).sum())
        found.append(total)
    return np.array(found)


def test_the_loss_by_hand():
    theta, beta = POLICY.init(jax.random.key(2)), 0.3
    score = rlhf.implicit_reward(POLICY, SUPERVISED, W, beta).score(theta, jnp.asarray(TEXTS))
    expected = beta * (log_probs(theta) - log_probs(SUPERVISED))
    np.testing.assert_allclose(score, expected, atol=1e-5)
    better, worse = 3, 9
    loss = rlhf.plackett_luce_loss(score[None, jnp.array([better, worse])], jnp.array([[0, 1]]), jnp.array([True]))
    np.testing.assert_allclose(loss, np.log1p(np.exp(expected[worse] - expected[better])), rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_probs(theta)).sum(), 1, rtol=1e-6)  # every text is among them


def test_nothing_after_the_end_counts_and_texts_are_episodes():
    texts = replayed(jnp.asarray(TEXTS), W)
    assert texts.mask.sum(0).tolist() == [1, 2, 2, 3, 3, 3, 3, *[3] * 8]
    np.testing.assert_array_equal(texts.observation[1, 1], [PAD, *PROMPT[0][2:], A])
    model, theta = rlhf.implicit_reward(POLICY, SUPERVISED, W, 1.0), POLICY.init(jax.random.key(2))
    longer = TEXTS.copy()
    longer[0, W + 1 :] = B  # after its eos
    np.testing.assert_allclose(model.score(theta, longer)[0], model.score(theta, TEXTS)[0], rtol=1e-6)
    slope = jax.grad(lambda theta: jnp.sum(model.score(theta, jnp.asarray(TEXTS))))(theta)
    assert np.all(np.isfinite(slope))


def test_the_optimum_is_the_tilted_distribution():
    """With every pair as often as annotators by Bradley–Terry have it, the best policy is f_SL e^{r/β}/Z."""
    r, beta = np.random.default_rng(0).normal(size=len(TEXTS)), 0.5
    model = rlhf.implicit_reward(POLICY, SUPERVISED, W, beta)
    i, j = (jnp.asarray(side) for side in np.triu_indices(len(TEXTS), 1))
    preferred = jax.nn.sigmoid(jnp.asarray(r)[i] - jnp.asarray(r)[j])

    def loss(theta):
        margin = (lambda score: score[i] - score[j])(model.score(theta, jnp.asarray(TEXTS)))
        return -jnp.mean(preferred * jax.nn.log_sigmoid(margin) + (1 - preferred) * jax.nn.log_sigmoid(-margin))

    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 1500))

    def step(_, carry):
        theta, state = carry
        change, state = optimizer.update(jax.grad(loss)(theta), state)
        return theta + change, state

    start = (SUPERVISED, optimizer.init(SUPERVISED))
    theta, _ = jax.jit(lambda start: jax.lax.fori_loop(0, 1500, step, start))(start)
    tilted = log_probs(SUPERVISED) + r / beta
    tilted = np.exp(tilted - tilted.max()) / np.exp(tilted - tilted.max()).sum()
    np.testing.assert_allclose(np.exp(log_probs(theta)), tilted, atol=2e-3)
    assert np.abs(np.exp(log_probs(SUPERVISED)) - tilted).max() > 0.1


def test_rankings_are_fitted_as_by_any_reward_model():
    pairs = jnp.asarray(TEXTS[[[7, 8], [7, 9], [3, 8]]])  # those that begin with two a are always preferred
    rankings = rlhf.Rankings(pairs, jnp.tile(jnp.array([0, 1]), (3, 1)), jnp.ones(3, bool), jnp.zeros(3, jnp.int32))
    model = rlhf.implicit_reward(POLICY, SUPERVISED, W, 1.0)
    algorithm = rlhf.reward_modelling(model, rankings, batch=4, steps=10, held_out=0)
    state, curves = jax.jit(pgjax.train(algorithm, 5))(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.1))
    assert float(curves.loss[-1]) < 0.5 * np.log(2)
    before, after = log_probs(SUPERVISED), log_probs(state.params)
    assert np.all((after - before)[[7, 7, 3]] > (after - before)[[8, 9, 8]])


def test_what_does_not_fit_is_refused():
    with pytest.raises(pgjax.InputError, match="coefficient β above 0 for direct preference optimization, got 0"):
        rlhf.implicit_reward(POLICY, SUPERVISED, W, 0)
    with pytest.raises(pgjax.InputError, match="no body for a policy that is its own reward model"):
        rlhf.implicit_reward(POLICY, SUPERVISED, W, 1.0).init(jax.random.key(0), SUPERVISED)


@pytest.mark.slow
def test_a_round_of_the_loop_fits_the_policy_to_its_rankings():
    """θ moves when a round begins, and nowhere else; what was preferred is likelier than it was."""
    from tests.rlhf.test_loop import POLICY, by_external_annotators, loop

    external = by_external_annotators()
    feedback = loop(method=rlhf.Direct(updates=3, steps=5), rankings=0, external=external, updates=2, rounds=1)
    algorithm = feedback.algorithm
    update = jax.jit(algorithm.update)
    start = algorithm.init(jax.random.key(0), algorithm.hyperparameters(learning_rate=1e-2))
    first, metrics = update(start)
    second, _ = update(first)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), start.policy.params, first.policy.params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    jax.tree.map(np.testing.assert_array_equal, first.policy.params, second.policy.params)
    width = external.tokens.shape[2] - 10
    model = rlhf.implicit_reward(POLICY, start.policy.params, width, 1.0)
    better, worse = model.score(first.policy.params, jnp.asarray(external.tokens[0]))
    assert better > worse
    assert np.isfinite(float(metrics.notes["kl"]))
