import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from experiments.estimators import random_problem
from pgjax.exact.verification import Candidate, Verdict, largest_z_by_chance, verify

pytestmark = pytest.mark.slow


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


def one_candidate(baseline, **options):
    mdp, theta = random_problem(S=3, A=2)
    candidates = {"it": Candidate(pgjax.reward_to_go(), baseline)}
    return verify(mdp, 3, pgjax.tabular(3, 2), theta, candidates, samples=4096, batch=2048, **options)["it"]


def test_a_baseline_is_held_to_it_as_it_is_after_learning():
    # At first this baseline is 0; once it has been updated, it takes half of the return that it judges.
    late = pgjax.Baseline(
        lambda key, numbers: jnp.zeros(()),
        lambda state, trajectory, returns, _: state * returns,
        lambda state, trajectory, returns: jnp.full((), 0.5),
    )
    assert one_candidate(late).max_abs_z > 10


def test_what_is_not_a_number_is_not_unbiased():
    nan = pgjax.no_baseline()._replace(values=lambda state, trajectory, returns, _: returns * jnp.nan)
    assert one_candidate(nan).max_abs_z == np.inf


def test_an_estimate_without_any_chance_is_not_condemned_for_its_rounding():
    # One step from one state, and all actions counted exactly: every sample is the gradient itself.
    mdp = pgjax.environments.tables(
        [1.0, 0.0], np.array([[[0.0, 1], [0, 1]], [[0, 1], [0, 1]]]), [[0.1, 0.7], [0, 0]], [0, 1]
    )
    theta = jnp.array([[0.3, -0.2], [0.0, 0.0]])
    candidate = Candidate(pgjax.reward_to_go(), pgjax.estimators.given_action_values(mdp.r))
    found = verify(mdp, 1, pgjax.tabular(2, 2), theta, {"exact": candidate}, samples=64, batch=64)["exact"]
    assert found.max_abs_z < 2
    wrong = Candidate(pgjax.reward_to_go(), pgjax.estimators.given_action_values(2 * mdp.r))
    assert verify(mdp, 1, pgjax.tabular(2, 2), theta, {"it": wrong}, samples=64, batch=64)["it"].max_abs_z > 1e4


def test_learning_needs_no_gradient_of_what_is_predicted():
    # The predictions of a critic are constants to the policy's gradient, even where they depend on the policy.
    mdp, theta = random_problem(S=3, A=2)
    environment, policy = pgjax.finite(mdp, 4), pgjax.tabular(3, 2)
    Q = jax.random.normal(jax.random.key(0), (3, 2))
    trajectory = pgjax.collect(environment, policy, slots=8)(jax.random.key(1), theta, mdp)
    numbers = pgjax.reinforce(environment, policy).hyperparameters()
    estimator = pgjax.policy_gradient(
        environment, policy, pgjax.lambda_return(), pgjax.estimators.given_action_values(Q)
    )
    found = np.asarray(estimator(theta, (), trajectory, numbers).gradient)
    visits = jnp.zeros(3).at[trajectory.observation].add(trajectory.mask)
    f = jax.nn.softmax(theta)
    expected = visits[:, None] * f * (Q - jnp.sum(f * Q, -1, keepdims=True)) / 8
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 4])
def test_what_looks_at_the_policy_or_the_time_is_unbiased_too(steps):
    mdp, theta = random_problem(S=3, A=2)
    policy, T = pgjax.tabular(3, 2), 3
    solution = pgjax.exact.solve(mdp, T, pgjax.exact.probabilities(mdp, policy, theta), 0.9)
    before, after = (pgjax.exact.unbiased(solution, 0.9, *given) for given in ((), (policy,)))
    new = {name: candidate for name, candidate in after.items() if name not in before}
    assert len(new) == 2 * 2 + 3  # two baselines of two credits, and the objectives of ratios
    ratio = new["γ^t G_t, clipped ratio"].objective
    new["half an advantage"] = Candidate(  # a mistake of an objective is caught
        pgjax.estimators.discounted_reward_to_go(),
        pgjax.no_baseline(),
        objective=lambda f, rows, advantage: ratio(f, rows, advantage / 2),
    )
    found = verify(mdp, T, policy, theta, new, steps=steps, samples=16384, discount=0.9)
    bound = largest_z_by_chance(sum(verdict.components for verdict in found.values()))
    assert found.pop("half an advantage").max_abs_z > 2 * bound
    assert max(verdict.max_abs_z for verdict in found.values()) < bound
