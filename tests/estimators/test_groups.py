"""Baselines of a group: the optimal constant by hand and where it is optimal, a greedy episode, and v by time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from experiments.estimators import random_problem
from pgjax import estimators, exact, policies
from pgjax.exact import Candidate, largest_z_by_chance, verify
from tests.cases import random_mdp

TABLE = pgjax.tabular(3, 2)


def one_step(actions, rewards):
    """Episodes of one step each, [1, E], with the row after it for final observations."""
    E = len(actions)
    zeros, real = jnp.zeros((2, E), jnp.int32), jnp.array([[True] * E, [False] * E])
    action, reward = zeros.at[0].set(jnp.array(actions)), zeros.astype(float).at[0].set(jnp.array(rewards))
    return pgjax.Trajectory(zeros, action, reward, real, real & ~real, mask=real, time=zeros, rows=jnp.int32(1))


PLAYED = one_step([0, 1, 1, 0], [1.0, 4.0, -2.0, 7.0])


def test_the_optimal_constant_by_hand():
    theta, played = jnp.zeros((3, 2)).at[0].set(jnp.log(jnp.array([0.8, 0.2]))), PLAYED
    squares = np.array([2 * 0.2**2, 2 * 0.8**2, 2 * 0.8**2, 2 * 0.2**2])  # ‖e_a − f‖²
    G = np.array([1.0, 4, -2, 7])
    for group in (None, 2):
        found = estimators.variance_optimal(TABLE, group).of_policy(theta, played, played.reward)
        for e in range(4):
            others = [i for i in range(4) if i != e and (group is None or i // 2 == e // 2)]
            expected = (G[others] @ squares[others]) / squares[others].sum()
            np.testing.assert_allclose(found[0, e], expected, rtol=1e-5)


def test_a_policy_without_chance_has_nothing_to_subtract():
    theta = jnp.zeros((3, 2)).at[0].set(jnp.array([0.0, -jnp.inf]))
    played = one_step([0, 0], [1.0, 4.0])
    found = estimators.variance_optimal(TABLE).of_policy(theta, played, played.reward)
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    ("credit", "kind"),
    [
        (pgjax.whole_episode(), exact.whole_episode_estimator),
        (pgjax.reward_to_go(), exact.reward_to_go_estimator),
    ],
    ids=["G_1", "G_t"],
)
def test_no_constant_has_less_variance(credit, kind):
    """With every episode in proportion to its probability the constant is the optimum of the exact covariance."""
    mdp, theta, T = random_mdp(3, stochastic_reward=True), jnp.array([[0.4, -0.3], [-0.2, 0.6], [0.0, 0.0]]), 2
    episodes = exact.every_episode(mdp, T)
    probability = np.asarray(episodes.probability(exact.probabilities(mdp, TABLE, theta)))
    played = episodes.trajectory()
    returns = credit.returns(played, pgjax.reinforce(pgjax.finite(mdp, T), TABLE).hyperparameters(), None)
    kept = np.flatnonzero(probability > 0)
    score = np.asarray(exact.scores(mdp, TABLE, theta)).reshape(3, 2, 6)[played.observation, played.action]
    score = score * np.asarray(played.mask)[..., None]
    W, Z = (np.asarray(returns)[..., None] * score).sum(0), score.sum(0)
    b = (probability @ (W * Z).sum(1)) / (probability @ (Z * Z).sum(1))

    def spread(constant):
        table = jnp.full((T, 3), constant)
        return float(jnp.trace(exact.mean_and_covariance(mdp, T, TABLE, theta, kind(mdp, T, 1.0, table))[1]))

    assert spread(b) < min(spread(b - 0.1), spread(b + 0.1), spread(0.0))
    np.testing.assert_allclose(spread(b - 0.1), spread(b + 0.1), rtol=1e-3)  # a parabola's lowest point
    # The same from the code that learns: two slots, of which one judges by the other alone.
    pair = jax.tree.map(lambda leaf: leaf[:, kept[:2]] if leaf.ndim else leaf, played)
    found = estimators.variance_optimal(TABLE).of_policy(theta, pair, returns[:, kept[:2]])
    products = (W * Z).sum(1)[kept[:2]] / (Z * Z).sum(1)[kept[:2]]
    np.testing.assert_allclose(found[0], products[::-1], rtol=1e-4)


def test_the_greedy_episode_is_what_the_others_are_compared_with():
    played = PLAYED
    for group, expected in ((2, [2 * (1 - 4), 0, 2 * (-2 - 7), 0]), (4, [4 / 3 * (G - 7) for G in (1, 4, -2, 7)])):
        values = estimators.greedy_of_group(group).values((), played, played.reward, None)
        np.testing.assert_allclose((played.reward - values)[0], expected, rtol=1e-6)


def test_greedy_slots_take_the_likeliest_action_and_the_others_draw():
    theta = jnp.tile(jnp.log(jnp.array([0.4, 0.6])), (3, 1))
    greedy = policies.greedy_in_groups(TABLE, 2)
    played = pgjax.collect(pgjax.finite(random_mdp(), 20), greedy, slots=64)(jax.random.key(0), theta, random_mdp())
    action, real = np.asarray(played.action), np.asarray(played.mask)
    assert np.all(action[:, 1::2][real[:, 1::2]] == 1)
    assert 0.3 < np.mean(action[:, ::2][real[:, ::2]] == 0) < 0.5
    np.testing.assert_allclose(np.asarray(played.log_prob)[real], np.log([0.4, 0.6])[action[real]], rtol=1e-5)
    gaussian = policies.Gaussian(jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1)))
    np.testing.assert_array_equal(gaussian.mode(), gaussian.mean)


def test_they_are_unbiased():
    mdp, theta = random_problem(S=3, A=2)
    T, made = 3, {"G_1": pgjax.whole_episode(), "G_t": pgjax.reward_to_go()}
    subtracted = {"optimal": estimators.variance_optimal(TABLE)}
    subtracted["v by time"] = pgjax.learned_value(policies.tabular_value_by_time(T, 3))
    candidates = {f"{c} − {b}": Candidate(made[c], subtracted[b]) for c in made for b in subtracted}
    wrong = estimators.variance_optimal(TABLE)
    seen = wrong.of_policy
    candidates["own slot"] = Candidate(
        made["G_1"], wrong._replace(of_policy=lambda params, played, returns: seen(params, played, returns)[:, ::-1])
    )
    for steps in (0, 4):
        found = verify(mdp, T, TABLE, theta, candidates, steps=steps, samples=16384)
        bound = largest_z_by_chance(2 * 4 * len(candidates))
        assert found.pop("own slot").max_abs_z > 2 * bound
        assert max(verdict.max_abs_z for verdict in found.values()) < bound
    greedy = {name: Candidate(credit, estimators.greedy_of_group(2)) for name, credit in made.items()}
    greedy["judges itself"] = Candidate(made["G_1"], pgjax.no_baseline())
    found = verify(mdp, T, policies.greedy_in_groups(TABLE, 2), theta, greedy, samples=16384)
    assert found.pop("judges itself").max_abs_z > 2 * bound
    assert max(verdict.max_abs_z for verdict in found.values()) < bound


def test_a_value_that_sees_the_time_tells_steps_apart():
    environment = pgjax.from_gymnax("CartPole-v1", max_steps_in_episode=10)
    value = policies.value_by_time_for(environment, (8,))
    params = jax.tree.map(lambda leaf: leaf + 0.1, value.init(jax.random.key(0)))
    played = pgjax.collect(environment, pgjax.policy_for(environment), slots=2)(
        jax.random.key(1), pgjax.policy_for(environment).init(jax.random.key(2)), environment.params
    )
    still = played._replace(observation=jnp.zeros_like(played.observation))
    found = np.asarray(value.unroll(params, still))[:, 0]
    assert len(np.unique(found)) == len(np.unique(np.asarray(played.time[:, 0]))) > 5
    table = policies.value_by_time_for(pgjax.finite(random_mdp(), 4))
    assert table.init(jax.random.key(0)).shape == (4, 3)
    theta = jnp.arange(12.0).reshape(4, 3)
    rows = one_step([0, 0], [1.0, 1.0])._replace(
        observation=jnp.array([[1, 2], [0, 1]]), time=jnp.array([[0, 3], [1, 4]])
    )
    np.testing.assert_array_equal(table.unroll(theta, rows), [[1, 11], [3, 10]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimators.variance_optimal(TABLE, 1), "groups of 2 or more for a variance-optimal baseline, got 1"),
        (lambda: estimators.greedy_of_group(1), "groups of 2 or more for the greedy episode's return, got 1"),
        (lambda: policies.greedy_in_groups(TABLE, 1), "groups of 2 or more with a greedy slot each, got 1"),
        (
            lambda: estimators.greedy_of_group(3).values((), PLAYED, PLAYED.reward, None),
            "groups that divide 4 slots for the greedy episode's return, got 3",
        ),
        (
            lambda: policies.greedy_in_groups(pgjax.memoryless(lambda key: (), lambda _, x: x), 2).step((), (), PLAYED),
            "whose distributions have a mode, got Trajectory",
        ),
        (lambda: policies.value_by_time_for(pgjax.from_gymnax("Breakout-MinAtar")), "have one axis .* sees the time"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(pgjax.InputError, match=message):
        call()
