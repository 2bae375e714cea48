"""Scales of advantages by hand, and GRPO's bias: exact by enumeration, and as it is sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.estimators import batch_standardized, combined, episode_length, group_deviation, group_mean
from pgjax.exact import every_episode, gradient, largest_z_by_chance, probabilities
from tests.cases import random_mdp

REAL = jnp.array([[True, True, True, True], [True, False, True, False]])
REWARD = jnp.array([[1.0, 2.0, 0.0, 5.0], [2.0, 0.0, 1.0, 0.0]])
ADVANTAGE = jnp.array([[1.0, -1.0, 3.0, 0.0], [2.0, 0.0, 1.0, 0.0]])


def played(real=REAL, reward=REWARD):
    """Four episodes of one or two steps: Σ_t R_{t+1} = 3, 2, 1, 5."""
    none, time = jnp.zeros(real.shape, bool), jnp.broadcast_to(jnp.arange(2)[:, None], real.shape)
    return pgjax.Trajectory(time, time, reward, none, none, mask=real, time=time, rows=jnp.int32(2))


def test_the_batch_is_standardized_over_real_steps_alone():
    found = batch_standardized()(ADVANTAGE, played())
    real = np.array([1, -1, 3, 0, 2, 1.0])
    expected = (real - real.mean()) / (real.std() + 1e-4)
    np.testing.assert_allclose(found[REAL], expected, rtol=1e-5)
    assert np.all(np.asarray(found)[~REAL] == 0)


def test_a_group_is_divided_by_the_deviation_of_its_returns_and_an_episode_by_its_length():
    found = combined(group_deviation(2), episode_length())(ADVANTAGE, played())
    deviation = np.repeat([np.sqrt(0.5), np.sqrt(8)], 2) + 1e-4  # of 3 and 2, and of 1 and 5
    np.testing.assert_allclose(found, np.asarray(ADVANTAGE) / deviation / [2, 1, 2, 1], rtol=1e-5)


def test_equal_advantages_are_not_blown_up_by_rounding():
    alike = jnp.full((2, 4), 0.1)
    assert np.abs(batch_standardized()(jnp.where(REAL, 0.1, 0), played())).max() < 1e-2
    assert np.all(np.isfinite(group_deviation(2)(0 * alike, played(reward=alike))))


def test_a_group_mean_takes_one_part_in_k_of_leave_one_out():
    returns = jnp.where(REAL, jnp.array([[3.0, 2.0, 1.0, 5.0]]), 0)
    mean = group_mean(4).values((), played(), returns, None)
    np.testing.assert_allclose(mean, 11 / 4, rtol=1e-6)
    others = pgjax.leave_one_out(4).values((), played(), returns, None)
    np.testing.assert_allclose((returns - mean)[0], 3 / 4 * (returns - others)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_deviation(1), "groups of 2 or more for their standard deviation, got 1"),
        (lambda: group_deviation(3)(ADVANTAGE, played()), "groups that divide 4 slots .* got 3"),
        (lambda: group_mean(1), "groups of 2 or more for a group's mean, got 1"),
    ],
)
def test_groups_that_do_not_fit_are_refused(call, message):
    with pytest.raises(pgjax.InputError, match=message):
        call()


def test_a_scale_is_refused_beside_a_baseline_with_action_values():
    environment = pgjax.finite(random_mdp(), 3)
    with pytest.raises(pgjax.InputError, match="without a scale beside a baseline with action values"):
        pgjax.reinforce(
            environment,
            pgjax.tabular(3, 2),
            baseline=pgjax.learned_action_value(pgjax.policies.tabular_value(3, 2)),
            scale=batch_standardized(),
        )


MDP = random_mdp(seed=3)
POLICY, THETA, HORIZON = pgjax.tabular(3, 2), jnp.array([[0.4, -0.3], [-0.2, 0.6], [0.0, 0.0]]), 2
SCALES = {"GRPO": combined(group_deviation(2), episode_length()), "Dr. GRPO": None}


def exact_mean(scale):
    """E[the estimate of two episodes], by going through every pair of episodes of the problem.

    They are numbered from 0 to N − 1; a pair is a batch of two slots of the same start or of any.
    """
    episodes = every_episode(MDP, HORIZON)
    probability = episodes.probability(probabilities(MDP, POLICY, THETA))
    possible = np.flatnonzero(np.asarray(probability) > 0)
    first, second = (jnp.asarray(pairs.ravel()) for pairs in np.meshgrid(possible, possible, indexing="ij"))
    environment = pgjax.finite(MDP, HORIZON)
    numbers = pgjax.reinforce(environment, POLICY).hyperparameters()
    estimator = pgjax.policy_gradient(environment, POLICY, pgjax.whole_episode(), group_mean(2), scale=scale)
    every = episodes.trajectory()

    def estimate(pair):
        two = jax.tree.map(lambda leaf: leaf[:, pair] if leaf.ndim else leaf, every)
        return estimator(THETA, (), two, numbers).gradient

    estimates = jax.jit(jax.vmap(estimate))(jnp.stack([first, second], axis=1))
    return np.tensordot(np.asarray(probability[first] * probability[second], np.float64), np.asarray(estimates), 1)


@pytest.mark.parametrize("name", SCALES)
def test_the_sampled_bias_is_the_exact_one(name):
    scale, true = SCALES[name], gradient(MDP, HORIZON, POLICY, THETA)
    mean = exact_mean(scale)
    environment = pgjax.finite(MDP, HORIZON)
    numbers = pgjax.reinforce(environment, POLICY).hyperparameters()
    estimator = pgjax.policy_gradient(environment, POLICY, pgjax.whole_episode(), group_mean(2), scale=scale)
    rollout, samples = pgjax.collect(environment, POLICY, slots=2), 2**15

    def sample(key):
        return estimator(THETA, (), rollout(key, THETA, MDP), numbers).gradient

    sampled = np.asarray(jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(7), samples)), np.float64)
    error = sampled.std(0) / np.sqrt(samples)
    moved = error > 0
    z = ((sampled.mean(0) - mean)[moved]) / error[moved]
    assert np.abs(z).max() < largest_z_by_chance(int(moved.sum()))
    if scale is None:  # the own episode in the mean: half of the gradient for groups of two, and its direction
        np.testing.assert_allclose(mean, true / 2, rtol=1e-3, atol=1e-6)
    else:  # another direction
        cosine = np.sum(mean * true) / np.linalg.norm(mean) / np.linalg.norm(true)
        assert cosine < 0.995
        assert np.abs((sampled.mean(0) - true)[moved] / error[moved]).max() > 10
