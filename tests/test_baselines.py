import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.reinforce import Hyperparameters
from tests.cases import BASELINES
from tests.test_returns import two_slots

HYPERPARAMETERS = Hyperparameters(0.1, jnp.float32(0.75), 1.0, 0.0, ())


def values(baseline, returns, trajectory=None):
    state = baseline.init(jax.random.key(0), HYPERPARAMETERS)
    return baseline.values(state, two_slots() if trajectory is None else trajectory, returns)


@pytest.mark.parametrize("name", BASELINES)
def test_shapes_and_repeatability(name):
    trajectory, baseline = two_slots(), BASELINES[name]()
    returns = pgjax.reward_to_go(trajectory, jnp.float32(1))
    state = baseline.init(jax.random.key(0), HYPERPARAMETERS)
    found = baseline.values(state, trajectory, returns)
    assert found.shape == returns.shape
    assert np.all(np.isfinite(found))
    updated = baseline.update(state, trajectory, returns)
    assert jax.tree.structure(updated) == jax.tree.structure(state)


def test_running_average_uses_what_was_before():
    trajectory, baseline = two_slots(), pgjax.running_average()
    returns = pgjax.whole_episode(trajectory, jnp.float32(1))
    state = baseline.init(jax.random.key(0), HYPERPARAMETERS)
    np.testing.assert_array_equal(baseline.values(state, trajectory, returns), 0)
    state = baseline.update(state, trajectory, returns)
    mean = (3 + 12 + 11) / 3
    np.testing.assert_allclose(state.rho_hat, 0.25 * mean, rtol=1e-6)
    state = baseline.update(state, trajectory, returns)
    np.testing.assert_allclose(state.rho_hat, (0.75 * 0.25 + 0.25) * mean, rtol=1e-6)


def test_leave_one_out_by_hand():
    trajectory = two_slots()
    found = values(pgjax.leave_one_out(), pgjax.whole_episode(trajectory, jnp.float32(1)))
    np.testing.assert_allclose(found[:, 0], 11)  # the other slot's only episode
    np.testing.assert_allclose(found[:, 1], (3 + 12) / 2)


def test_leave_one_out_by_time_by_hand():
    trajectory = two_slots()
    found = values(pgjax.leave_one_out_by_time(), pgjax.reward_to_go(trajectory, jnp.float32(1)))
    np.testing.assert_allclose(found[:2, 0], [11, 6])
    np.testing.assert_allclose(found[3:, 0], [11, 6, 0])  # the other episode is over at its third step
    np.testing.assert_allclose(found[:2, 1], [(3 + 12) / 2, (2 + 9) / 2])


def test_leave_one_out_is_k_over_k_minus_one():
    G = np.array([1.0, 4.0, -2.0, 7.0])
    one_step = pgjax.Trajectory(
        *(jnp.zeros((1, 4)),) * 2, jnp.asarray(G[None]), *(jnp.zeros((1, 4), bool),) * 2, jnp.ones((1, 4), bool),
        jnp.zeros((1, 4), jnp.int32), jnp.int32(1),
    )  # fmt: skip
    for baseline in (pgjax.leave_one_out(), pgjax.leave_one_out_by_time()):
        advantage = one_step.reward - values(baseline, one_step.reward, one_step)
        np.testing.assert_allclose(advantage[0], 4 / 3 * (G - G.mean()), rtol=1e-6)


@pytest.mark.parametrize("name", ["leave_one_out", "leave_one_out_by_time"])
def test_a_single_episode_has_no_others(name):
    trajectory = jax.tree.map(lambda x: x[:, :1] if jnp.ndim(x) else x, two_slots())
    with pytest.raises(pgjax.InputError, match=r"2 or more episodes an update .* got 1"):
        values(BASELINES[name](), trajectory.reward, trajectory)
