import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pgjax

LOGITS = jnp.array([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]])


def test_categorical_by_hand():
    f = pgjax.policies.Categorical(LOGITS)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    np.testing.assert_allclose(f.log_prob(jnp.array([2, 0])), np.log([p[0, 2], p[1, 0]]), rtol=1e-6)
    np.testing.assert_allclose(f.entropy(), -(p * np.log(p)).sum(-1), rtol=1e-6)
    other = pgjax.policies.Categorical(LOGITS[::-1])
    np.testing.assert_allclose(f.kl(other), (p * np.log(p / p[::-1])).sum(-1), rtol=1e-6)
    np.testing.assert_allclose(f.kl(f), 0, atol=1e-7)
    np.testing.assert_allclose(f.cross_entropy(other), -(p * np.log(p[::-1])).sum(-1), rtol=1e-6)
    np.testing.assert_allclose(f.cross_entropy(other), f.entropy() + f.kl(other), rtol=1e-6)
    values = np.arange(p.size, dtype=np.float32).reshape(p.shape)
    np.testing.assert_allclose(f.expectation(jnp.asarray(values)), (p * values).sum(-1), rtol=1e-6)


def test_categorical_samples_have_its_law():
    n = 50_000
    actions = pgjax.policies.Categorical(jnp.broadcast_to(LOGITS[0], (n, 3))).sample(jax.random.key(0))
    counts = np.bincount(actions, minlength=3)
    assert stats.chisquare(counts, n * np.asarray(jax.nn.softmax(LOGITS[0]), float)).pvalue > 1e-4


def test_an_excluded_action_leaves_no_nan():
    f = pgjax.policies.Categorical(jnp.array([0.0, 0.0, -jnp.inf]))
    np.testing.assert_allclose(f.entropy(), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(f.kl(pgjax.policies.Categorical(jnp.zeros(3))), np.log(1.5), rtol=1e-6)
    gradient = jax.grad(lambda logits: pgjax.policies.Categorical(logits).entropy())(f.logits)
    assert np.all(np.isfinite(gradient))


def test_the_cross_entropy_with_a_certain_expert_is_that_of_its_action():
    logits, action = LOGITS, jnp.array([2, 0])
    expert = pgjax.policies.Categorical(jnp.log(jax.nn.one_hot(action, 3)))
    f = pgjax.policies.Categorical(logits)
    np.testing.assert_array_equal(expert.cross_entropy(f), -f.log_prob(action))
    certain = pgjax.policies.Gaussian(jnp.array([[1.0, 2.0]]), jnp.full((1, 2), -jnp.inf))
    g = pgjax.policies.Gaussian(jnp.array([[0.3, -1.0]]), jnp.array([[-0.5, 0.7]]))
    np.testing.assert_array_equal(certain.sample(jax.random.key(0)), certain.mean)
    np.testing.assert_allclose(certain.cross_entropy(g), -g.log_prob(certain.mean), rtol=1e-6)
    by_cross_entropy = jax.grad(lambda g: certain.cross_entropy(g).sum())(g)
    by_log_prob = jax.grad(lambda g: -g.log_prob(certain.mean).sum())(g)
    for one, other in zip(by_cross_entropy, by_log_prob, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_an_action_excluded_by_both_adds_nothing_to_the_cross_entropy():
    f, g = (pgjax.policies.Categorical(jnp.array([x, 0.0, -jnp.inf])) for x in (0.0, np.log(3)))
    np.testing.assert_allclose(f.cross_entropy(g), -(np.log(0.75) + np.log(0.25)) / 2, rtol=1e-6)
    gradient = jax.grad(lambda logits: f.cross_entropy(pgjax.policies.Categorical(logits)))(g.logits)
    np.testing.assert_allclose(gradient, [0.25, -0.25, 0.0], atol=1e-7)  # g − f
    assert pgjax.policies.Categorical(jnp.zeros(3)).cross_entropy(g) == np.inf


def test_gaussian_by_scipy():
    mean, log_std = jnp.array([[0.3, -1.0]]), jnp.array([[-0.5, 0.7]])
    f = pgjax.policies.Gaussian(mean, log_std)
    action = jnp.array([[1.0, 2.0]])
    reference = stats.norm(mean, np.exp(log_std))
    np.testing.assert_allclose(f.log_prob(action), reference.logpdf(action).sum(-1), rtol=1e-6)
    np.testing.assert_allclose(f.entropy(), reference.entropy().sum(-1), rtol=1e-6)
    np.testing.assert_allclose(f.kl(f), 0, atol=1e-7)
    g = pgjax.policies.Gaussian(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, np.log(2)]]))
    # −E[ln g] = ½ ln 2π + ln s + (σ² + (μ − m)²) / 2s², for each number
    by_hand = np.log(2 * np.pi) + np.log(2) + (np.exp(-1) + 0.09) / 2 + (np.exp(1.4) + 4) / 8
    np.testing.assert_allclose(f.cross_entropy(g), [by_hand], rtol=1e-6)
    np.testing.assert_allclose(f.cross_entropy(g), f.entropy() + f.kl(g), rtol=1e-6)


@pytest.mark.parametrize(
    "f", [pgjax.policies.Categorical(LOGITS[0]), pgjax.policies.Gaussian(jnp.array([1.0]), jnp.array([-0.5]))]
)
@pytest.mark.parametrize("other", [0.0, 0.7])
def test_entropies_and_kl_are_means_of_log_probabilities(f, other):
    g = jax.tree.map(lambda x: x * other, f)
    n = 50_000
    many, reference = (jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), h) for h in (f, g))
    action = many.sample(jax.random.key(1))
    for sampled, exact in (
        (-many.log_prob(action), f.entropy()),
        (many.log_prob(action) - reference.log_prob(action), f.kl(g)),
        (-reference.log_prob(action), f.cross_entropy(g)),
    ):
        error = float(np.std(sampled) / np.sqrt(n))
        assert abs(float(np.mean(sampled)) - float(exact)) < 4.5 * error + 1e-6  # wrong with probability below 1e-5
