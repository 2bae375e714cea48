import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from experiments.estimators import hold_to_the_exact_gradient, random_problem
from pgjax.verification import Candidate, Verdict, largest_z_by_chance, verify

SETTINGS = 4


@pytest.fixture(scope="module")
def trust():
    """Every estimator, sampled with at least 131072 episodes in each of four settings.

    The problem has a stochastic start, stochastic rewards and early ends; the settings are γ = 1 and γ < 1, with one
    episode a slot and with packed slots.
    """
    return hold_to_the_exact_gradient(samples=65536)


def test_every_unbiased_estimator_has_the_exact_gradient_as_its_mean(trust):
    # Bonferroni over all components of all estimators: a false alarm has a probability of at most 1%, and the seeds are
    # fixed.
    components = sum(verdict.components for verdict in trust.unbiased.values())
    assert len(trust.unbiased) == 2 * (3 * 7 + 2 * 2) + 2 * (2 * 7 + 2)
    assert components == 12 * len(trust.unbiased)
    allowed = largest_z_by_chance(components)
    too_far = {name: verdict.max_abs_z for name, verdict in trust.unbiased.items() if verdict.max_abs_z > allowed}
    assert not too_far
    assert min(verdict.episodes for verdict in trust.unbiased.values()) >= 10**5


def test_every_broken_estimator_is_caught(trust):
    mistakes = {
        "reward-to-go one step late": SETTINGS, "ρ̂ updated before use": SETTINGS, "own episode not left out": SETTINGS,
        "baseline sees its action": SETTINGS, "λ-return of a wrong critic": SETTINGS, "γ^{t−1} left out": 2,
        "unfinished episodes dropped": 2,
    }  # fmt: skip
    for mistake, times in mistakes.items():
        caught = [verdict.max_abs_z for name, verdict in trust.broken.items() if name.startswith(mistake)]
        assert len(caught) == times, mistake
        assert min(caught) > 8, mistake


def test_z_scores_of_unbiased_estimators_are_standard_normal(trust):
    # Estimators share episodes, so only a rough look: one setting's spread is far from none and from twice as much.
    z = np.concatenate([verdict.z[verdict.z != 0] for verdict in trust.unbiased.values()])
    assert 0.7 < z.std() < 1.3


def test_an_estimator_of_ones_own_is_held_to_it():
    mdp, theta = random_problem(S=3, A=2)
    twice = pgjax.reward_to_go()
    twice = twice._replace(returns=lambda *args: 2 * pgjax.reward_to_go().returns(*args))
    found = verify(
        mdp, 3, pgjax.tabular(3, 2), theta, {"twice": Candidate(twice, pgjax.no_baseline())}, samples=4096, batch=2048
    )
    assert found["twice"].components == 4
    assert found["twice"].max_abs_z > 10


def test_words_and_numbers():
    np.testing.assert_allclose(largest_z_by_chance(1, 0.05), 1.959964, rtol=1e-6)
    assert Verdict(np.array([0.0, -3.0, 1.0]), 10).max_abs_z == 3
    assert Verdict(np.array([0.0, -3.0, 1.0]), 10).components == 2
    mdp, theta = random_problem(S=3, A=2)
    with pytest.raises(pgjax.InputError, match="multiple of the batch of 8192 as samples, got 100"):
        verify(mdp, 3, pgjax.tabular(3, 2), theta, {}, samples=100)
    candidate = Candidate(pgjax.lambda_return(), pgjax.no_baseline())
    with pytest.raises(pgjax.InputError, match="predicts nothing"):
        verify(mdp, 3, pgjax.tabular(3, 2), theta, {"nonsense": candidate})


def test_learning_needs_no_gradient_of_what_is_predicted():
    # The predictions of a critic are constants to the policy's gradient, even where they depend on the policy.
    mdp, theta = random_problem(S=3, A=2)
    environment, policy = pgjax.finite(mdp, 4), pgjax.tabular(3, 2)
    Q = jax.random.normal(jax.random.key(0), (3, 2))
    trajectory = pgjax.collect(environment, policy, episodes=8)(jax.random.key(1), theta, mdp)
    numbers = pgjax.reinforce(environment, policy).hyperparameters()
    estimator = pgjax.policy_gradient(environment, policy, pgjax.lambda_return(), pgjax.given_action_values(Q))
    found = np.asarray(estimator(theta, (), trajectory, numbers).gradient)
    visits = jnp.zeros(3).at[trajectory.observation].add(trajectory.mask)
    f = jax.nn.softmax(theta)
    expected = visits[:, None] * f * (Q - jnp.sum(f * Q, -1, keepdims=True)) / 8
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
