import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from experiments.estimators import random_problem
from pgjax.verification import Candidate, Verdict, largest_z_by_chance, verify


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
