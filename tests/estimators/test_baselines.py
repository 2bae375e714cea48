import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from tests.cases import BASELINES, PREDICTING, numbers, random_mdp
from tests.estimators.test_returns import two_slots

HYPERPARAMETERS = numbers(baseline_decay=0.75, value_learning_rate=0.1)


def predictions(baseline, state, trajectory, returns):
    if baseline.of_policy is not None:
        return baseline.of_policy(jnp.zeros((3, 2)), trajectory, returns)
    predict = baseline.state_values or baseline.action_values
    return None if predict is None else predict(state, trajectory)


def values(baseline, returns, trajectory=None, state=None):
    trajectory = two_slots() if trajectory is None else trajectory
    state = baseline.init(jax.random.key(0), HYPERPARAMETERS) if state is None else state
    return baseline.values(state, trajectory, returns, predictions(baseline, state, trajectory, returns))


def returns_of(trajectory):
    return pgjax.estimators.rewards_to_go(trajectory, 1.0)


@pytest.mark.parametrize("name", BASELINES)
def test_shapes_and_repeatability(name):
    trajectory, baseline = two_slots(), BASELINES[name]()
    returns = returns_of(trajectory)
    state = baseline.init(jax.random.key(0), HYPERPARAMETERS)
    found = values(baseline, returns, trajectory, state)
    assert found.shape == returns.shape
    assert np.all(np.isfinite(found))
    updated = baseline.update(state, trajectory, returns)
    assert jax.tree.structure(updated) == jax.tree.structure(state)


def test_running_average_uses_what_was_before():
    trajectory, baseline = two_slots(), pgjax.running_average()
    returns = pgjax.estimators.whole_returns(trajectory, 1.0)
    state = baseline.init(jax.random.key(0), HYPERPARAMETERS)
    np.testing.assert_array_equal(values(baseline, returns, trajectory, state), 0)
    state = baseline.update(state, trajectory, returns)
    mean = (3 + 12 + 11) / 3
    np.testing.assert_allclose(state.rho_hat, 0.25 * mean, rtol=1e-6)
    state = baseline.update(state, trajectory, returns)
    np.testing.assert_allclose(state.rho_hat, (0.75 * 0.25 + 0.25) * mean, rtol=1e-6)


def test_leave_one_out_by_hand():
    trajectory = two_slots()
    found = values(pgjax.leave_one_out(), pgjax.estimators.whole_returns(trajectory, 1.0))
    np.testing.assert_allclose(found[:, 0], 11)  # the other slot's only episode
    np.testing.assert_allclose(found[:, 1], (3 + 12) / 2)


def test_leave_one_out_by_time_by_hand():
    trajectory = two_slots()
    found = values(pgjax.estimators.leave_one_out_by_time(), returns_of(trajectory))
    np.testing.assert_allclose(found[:2, 0], [11, 6])
    np.testing.assert_allclose(found[3:6, 0], [11, 6, 0])  # the other episode is over at its third step
    np.testing.assert_allclose(found[:2, 1], [(3 + 12) / 2, (2 + 9) / 2])


def test_leave_one_out_is_k_over_k_minus_one():
    G = np.array([1.0, 4.0, -2.0, 7.0])
    one_step = pgjax.Trajectory(
        *(jnp.zeros((1, 4)),) * 2, jnp.asarray(G[None]), *(jnp.zeros((1, 4), bool),) * 2, jnp.ones((1, 4), bool),
        jnp.zeros((1, 4), jnp.int32), jnp.int32(1),
    )  # fmt: skip
    for baseline in (pgjax.leave_one_out(), pgjax.estimators.leave_one_out_by_time()):
        advantage = one_step.reward - values(baseline, one_step.reward, one_step)
        np.testing.assert_allclose(advantage[0], 4 / 3 * (G - G.mean()), rtol=1e-6)


@pytest.mark.parametrize("name", ["leave_one_out", "leave_one_out_by_time"])
def test_a_single_episode_has_no_others(name):
    trajectory = jax.tree.map(lambda x: x[:, :1] if jnp.ndim(x) else x, two_slots())
    with pytest.raises(pgjax.InputError, match=r"2 or more slots .* got 1"):
        values(BASELINES[name](), trajectory.reward, trajectory)


def test_only_what_predicts_is_said_to():
    for name, make in BASELINES.items():
        baseline = make()
        assert ((baseline.state_values is None) and (baseline.action_values is None)) == (name not in PREDICTING), name


def fitted(baseline, updates=200, **values):
    """A baseline's state after so many updates on one trajectory of a random MDP, and that trajectory."""
    environment, policy = pgjax.finite(random_mdp(1), 5), pgjax.tabular(3, 2)
    trajectory = pgjax.collect(environment, policy, slots=64)(
        jax.random.key(0), policy.init(jax.random.key(1)), environment.params
    )
    returns = returns_of(trajectory)
    state = baseline.init(jax.random.key(2), numbers(value_learning_rate=0.05, baseline_decay=0.5, **values))
    state = jax.jit(
        lambda state: jax.lax.fori_loop(0, updates, lambda i, s: baseline.update(s, trajectory, returns), state)
    )(state)
    return state, trajectory, np.asarray(returns)


def test_a_learned_value_is_the_mean_return_of_its_observation():
    baseline = pgjax.learned_value(pgjax.policies.tabular_value(3))
    state, trajectory, returns = fitted(baseline)
    found = np.asarray(baseline.state_values(state, trajectory))
    mask, observation = np.asarray(trajectory.mask), np.asarray(trajectory.observation)
    for s in (0, 1):
        here = mask & (observation == s)
        np.testing.assert_allclose(found[here], returns[here].mean(), rtol=1e-3)


@pytest.mark.parametrize("make", [pgjax.learned_action_value, pgjax.estimators.expected_policy_gradient])
def test_a_learned_action_value_is_the_mean_return_of_its_action(make):
    baseline = make(pgjax.policies.tabular_value(3, 2))
    state, trajectory, returns = fitted(baseline)
    Q = np.asarray(baseline.action_values(state, trajectory))
    mask, observation, action = (np.asarray(x) for x in (trajectory.mask, trajectory.observation, trajectory.action))
    for s in (0, 1):
        for a in (0, 1):
            here = mask & (observation == s) & (action == a)
            np.testing.assert_allclose(Q[here][:, a], returns[here].mean(), rtol=1e-3)
    taken = np.take_along_axis(Q, action[..., None], -1)[..., 0]
    subtracted = baseline.values(state, trajectory, jnp.asarray(returns), jnp.asarray(Q))
    np.testing.assert_allclose(subtracted, returns if make is pgjax.estimators.expected_policy_gradient else taken)


def test_a_learned_network_comes_near_to_it():
    table = pgjax.learned_value(pgjax.policies.tabular_value(3))
    network = pgjax.learned_value(pgjax.policies.mlp_value(pgjax.Discrete(3), hidden=(8,)))
    (state, trajectory, _), (tabular_state, _, _) = fitted(network), fitted(table)
    mask = np.asarray(trajectory.mask)
    np.testing.assert_allclose(
        network.state_values(state, trajectory)[mask], table.state_values(tabular_state, trajectory)[mask], rtol=2e-3
    )


def test_a_learned_value_does_not_depend_on_the_scale_of_rewards():
    # Each state has returns away from their mean, so that no gradient is rounding alone, which Adam would blow up.
    baseline = pgjax.learned_value(pgjax.policies.tabular_value(3))
    observation = jnp.array([[0, 1], [0, 2], [0, 0], [1, 0], [1, 0], [2, 0], [0, 0]])
    trajectory, at = two_slots()._replace(observation=observation), numbers()
    returns = returns_of(trajectory)
    found = []
    for scale in (1.0, 1000.0):
        state = baseline.init(jax.random.key(0), at)
        for _ in range(3):
            state = baseline.update(state, trajectory, scale * returns)
        found.append(np.asarray(baseline.state_values(state, trajectory)) / scale)
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_a_learned_value_uses_what_was_before_its_update():
    baseline, trajectory = pgjax.learned_value(pgjax.policies.tabular_value(3)), two_slots()
    state = baseline.init(jax.random.key(0), HYPERPARAMETERS)
    np.testing.assert_array_equal(values(baseline, returns_of(trajectory), trajectory, state), 0)
    assert (
        float(baseline.state_values(baseline.update(state, trajectory, returns_of(trajectory)), trajectory)[0, 0]) > 1
    )


def test_more_gradient_steps_an_update_fit_better():
    errors = []
    for steps in (1, 20):
        baseline = pgjax.learned_value(pgjax.policies.tabular_value(3), steps=steps)
        state, trajectory, returns = fitted(baseline, updates=3)
        error = (np.asarray(baseline.state_values(state, trajectory)) - returns)[np.asarray(trajectory.mask)]
        errors.append((error**2).mean())
    assert errors[1] < 0.99 * errors[0]
    with pytest.raises(pgjax.InputError, match="1 or more gradient steps an update for a learned value, got 0"):
        pgjax.learned_value(pgjax.policies.tabular_value(3), steps=0)
    with pytest.raises(pgjax.InputError, match="1 or more minibatches for a learned value, got 0"):
        pgjax.learned_value(pgjax.policies.tabular_value(3), minibatches=0)


def test_given_values_are_looked_up_by_state_and_by_time():
    trajectory = two_slots()._replace(observation=jnp.array([[0, 1]] * 7))
    by_state = pgjax.estimators.given_values(jnp.array([5.0, 6.0]))
    np.testing.assert_array_equal(by_state.state_values((), trajectory), [[5, 6]] * 7)
    by_time = pgjax.estimators.given_values(jnp.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(by_time.state_values((), trajectory)[:4, 0], [0, 2, 4, 0])
    with pytest.raises(pgjax.InputError, match=r"1 or, by time, 2 axes, got one of shape \(\)"):
        pgjax.estimators.given_values(0.5).state_values((), trajectory)
    assert np.isnan(pgjax.estimators.given_values(np.array([5.0])).state_values((), trajectory)[0, 1])
    Q = pgjax.estimators.given_action_values(jnp.array([[1.0, 2], [3, 4]]))
    np.testing.assert_array_equal(Q.action_values((), trajectory)[0], [[1, 2], [3, 4]])


def test_a_value_function_with_memory_sees_episodes_whole():
    # One that only claims to remember gives the same, unrolled whole, as by chunks of rows.
    found = []
    for memoryless in (True, False):
        value = pgjax.policies.mlp_value(pgjax.Discrete(3), hidden=(4,))._replace(memoryless=memoryless)
        state, trajectory, _ = fitted(pgjax.learned_value(value), updates=5)
        used = int(trajectory.rows) + 1
        found.append(np.asarray(pgjax.learned_value(value).state_values(state, trajectory))[:used])
    np.testing.assert_allclose(*found, rtol=1e-4)
