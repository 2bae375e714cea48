import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.environments.base import Score
from pgjax.hyperparameters import with_values
from tests.cases import counting, random_mdp

PENDULUM = pgjax.from_gymnax("Pendulum-v1", max_steps_in_episode=9)
CARTPOLE = pgjax.from_gymnax("CartPole-v1")
MDP, HORIZON = random_mdp(stochastic_reward=True), 5
FINITE = pgjax.finite(MDP, HORIZON)
TABLE = pgjax.tabular(3, 2)


def played(space, action, noise, n):
    """What is played, n times, where some action was chosen."""

    def step(key, state, action, params):
        return action, pgjax.Step(jnp.zeros(1), 0.0)

    environment = pgjax.noisy_actions(counting()._replace(step=step, action_space=space))
    params = environment.params._replace(noise=noise)
    keys = jax.random.split(jax.random.key(0), n)
    return jax.vmap(lambda key: environment.step(key, action, action, params)[0])(keys)


@pytest.mark.parametrize("environment", [FINITE, CARTPOLE, PENDULUM])
def test_without_noise_nothing_changes(environment):
    policy = pgjax.policy_for(environment)
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(policy.init)(jax.random.key(0)))
    noisy = pgjax.noisy_actions(environment)
    seen = [
        jax.jit(pgjax.collect(each, policy, slots=8))(jax.random.key(1), params, each.params)
        for each in (environment, noisy)
    ]
    chex.assert_trees_all_close(*seen, rtol=0, atol=1e-4)  # two programs, which may round differently
    assert noisy.name == f"{environment.name} with noisy actions"
    assert noisy.action_space == environment.action_space


def test_episodes_are_worth_what_the_mixed_policy_is():
    # Playing any action with probability ε is, for the return, to follow (1 − ε) f + ε / A.
    noisy, n = pgjax.noisy_actions(FINITE), 20_000
    theta = jnp.array([[2.0, -1.0], [-2.0, 1.0], [0.0, 0.0]])
    noises = jnp.array([0.0, 0.3, 1.0])
    run = pgjax.evaluate(noisy, TABLE, n)
    returns = jax.jit(jax.vmap(lambda noise: run(jax.random.key(0), theta, noisy.params._replace(noise=noise))))(noises)
    f = jax.nn.softmax(theta)
    exact = np.array([pgjax.exact.expected_return(MDP, HORIZON, (1 - noise) * f + noise / 2) for noise in noises])
    error = 4.5 * returns.std(axis=1) / np.sqrt(n)  # wrong with probability below 3e-5
    assert np.all(np.abs(returns.mean(axis=1) - exact) < error)
    assert np.abs(exact[:, None] - exact[None])[~np.eye(3, dtype=bool)].min() > 2 * error.max()


def test_any_action_is_drawn_alike():
    n = 30_000
    for noise in (0.3, 1.0):
        frequency = np.bincount(played(pgjax.Discrete(3), jnp.int32(2), noise, n), minlength=3) / n
        exact = (1 - noise) * np.array([0, 0, 1]) + noise / 3
        # 6 frequencies, each within 5 standard errors: wrong with probability below 1e-5.
        assert np.all(np.abs(frequency - exact) < 5 * np.sqrt(exact * (1 - exact) / n))


def test_noise_of_a_box_is_in_its_units_and_clipped():
    box = pgjax.Box(np.array([-1.0, 0.0, -np.inf]), np.array([1.0, 10.0, np.inf]), (3,))
    action, n = jnp.array([0.0, 5.0, 2.0]), 20_000
    std = 0.1 * np.array([1.0, 5.0, 1.0])
    near = np.asarray(played(box, action, 0.1, n))  # the nearest side is ten standard deviations away
    # Means and standard deviations of 3 numbers within 5 standard errors: wrong with probability below 1e-5.
    assert np.all(np.abs(near.mean(axis=0) - action) < 5 * std / np.sqrt(n))
    assert np.all(np.abs(near.std(axis=0) - std) < 5 * std / np.sqrt(2 * n))
    assert np.abs(np.corrcoef(near.T) - np.eye(3)).max() < 5 / np.sqrt(n)
    far = np.asarray(played(box, action, 4.0, n))
    assert np.all(far >= box.low)
    assert np.all(far <= box.high)
    clipped = np.mean((far == box.low) | (far == box.high), axis=0)  # 2 Φ(−1/4) = 0.8026
    assert np.all(np.abs(clipped - [0.8026, 0.8026, 0]) < [0.015, 0.015, 1e-9])


def test_noise_and_the_parameters_beneath_have_names():
    algorithm = pgjax.reinforce(pgjax.noisy_actions(CARTPOLE, 0), pgjax.policy_for(CARTPOLE))
    values = {"environment.noise": 0.25, "environment.environment.length": 0.75}
    numbers = with_values(algorithm.hyperparameters(), values).environment
    assert (float(numbers.noise), float(numbers.environment.length)) == (0.25, 0.75)


def test_a_trajectory_holds_what_was_chosen_and_a_score_gets_the_parameters_beneath():
    theta = jnp.tile(jnp.array([[50.0, -50.0]]), (3, 1))
    noisy = pgjax.noisy_actions(
        FINITE._replace(score=lambda trajectory, mdp: Score(trajectory.last * mdp.r[0, 0, 0])), 1.0
    )
    trajectory = jax.jit(pgjax.collect(noisy, TABLE, slots=16))(jax.random.key(0), theta, noisy.params)
    assert not np.asarray(trajectory.action)[np.asarray(trajectory.mask)].any()
    np.testing.assert_array_equal(trajectory.reward.sum(axis=0), MDP.r[0, 0, 0])


@pytest.mark.parametrize(
    ("environment", "noise", "message"),
    [
        (FINITE, -0.1, "noise between 0 and 1 for finite, got -0.1"),
        (FINITE, 1.5, "noise between 0 and 1 for finite, got 1.5"),
        (FINITE, float("nan"), "noise between 0 and 1 for finite, got nan"),
        (PENDULUM, -1, "noise between 0 and inf for Pendulum-v1, got -1"),
        (pgjax.noisy_actions(FINITE), 0.5, "not noisy yet, got finite with noisy actions"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(environment, noise, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.noisy_actions(environment, noise)


def test_strong_noise_in_a_box_is_allowed():
    assert float(pgjax.noisy_actions(PENDULUM, 2.5).params.noise) == 2.5


def test_noise_plays_nothing_that_is_forbidden():
    chosen = played(pgjax.Discrete(4, forbidden=(0, 2)), jnp.int32(1), 1.0, 200)
    assert set(np.unique(chosen)) == {1, 3}
