import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from tests.cases import CREDITS, numbers


def two_slots() -> pgjax.Trajectory:
    """A slot with episodes of 2 and 3 steps and a gap, and a slot with one of 2 steps that is truncated.

    Its six rows are followed by the one that is there for final observations."""
    return pgjax.Trajectory(
        observation=jnp.zeros((7, 2), jnp.int32),
        action=jnp.zeros((7, 2), jnp.int32),
        reward=jnp.array([[1.0, 5], [2, 6], [0, 0], [3, 0], [4, 0], [5, 0], [0, 0]]),
        terminated=jnp.array([[0, 0], [1, 0], [0, 0], [0, 0], [0, 0], [1, 0], [0, 0]], bool),
        truncated=jnp.array([[0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]], bool),
        mask=jnp.array([[1, 1], [1, 1], [0, 0], [1, 0], [1, 0], [1, 0], [0, 0]], bool),
        time=jnp.array([[0, 0], [1, 1], [2, 2], [0, 3], [1, 4], [2, 5], [3, 6]]),
        rows=jnp.int32(6),
    )


# v(X_{t+1}): of the next row, of the final observation where slot 1 was truncated, 0 where slot 0 terminated.
NEXT_VALUES = jnp.array([[10.0, 20], [0, 30], [0, 0], [40, 0], [50, 0], [0, 0], [0, 0]])

BY_HAND = {
    ("reward_to_go", 1.0): [[3, 11], [2, 6], [0, 0], [12, 0], [9, 0], [5, 0]],
    ("reward_to_go", 0.5): [[2, 8], [2, 6], [0, 0], [6.25, 0], [6.5, 0], [5, 0]],
    ("whole_episode", 1.0): [[3, 11], [3, 11], [0, 0], [12, 0], [12, 0], [12, 0]],
    ("whole_episode", 0.5): [[2, 8], [2, 8], [0, 0], [6.25, 0], [6.25, 0], [6.25, 0]],
    # λ = 0.8; slot 1: 6 + 30 γ, then 5 + γ (0.2 · 20 + 0.8 · 36 or 21).
    ("lambda_return", 1.0): [[4.6, 37.8], [2, 36], [0, 0], [25.4, 0], [18, 0], [5, 0]],
    ("lambda_return", 0.5): [[2.8, 15.4], [2, 21], [0, 0], [11.4, 0], [11, 0], [5, 0]],
}


@pytest.mark.parametrize(("name", "discount"), BY_HAND)
def test_by_hand(name, discount):
    credit, at = CREDITS[name](), numbers(discount=discount, trace_decay=0.8)
    returns = credit.returns(two_slots(), at, NEXT_VALUES if credit.bootstraps else None)
    np.testing.assert_allclose(returns[:6], BY_HAND[name, discount], rtol=1e-6)
    assert returns.dtype == jnp.float32


@pytest.mark.parametrize("name", CREDITS)
def test_weights(name):
    found = np.asarray(CREDITS[name]().weight(two_slots(), numbers(discount=0.5)))[np.asarray(two_slots().mask)]
    by_time = [1, 1, 0.5, 0.5, 1, 0.5, 0.25]
    np.testing.assert_allclose(found, by_time if name.startswith("discounted") else 1.0)


@pytest.mark.parametrize("name", CREDITS)
def test_padding_does_not_matter(name):
    trajectory, at = two_slots(), numbers(discount=0.9)
    dirty = trajectory._replace(time=jnp.where(trajectory.mask, trajectory.time, 0))
    clean = CREDITS[name]().returns(trajectory, at, NEXT_VALUES)
    np.testing.assert_array_equal(CREDITS[name]().returns(dirty, at, NEXT_VALUES), clean)
    np.testing.assert_array_equal(np.asarray(clean)[~np.asarray(trajectory.mask)], 0)


def test_generalised_advantage_is_the_sum_of_td_errors():
    trajectory, gamma, decay = two_slots(), 0.9, 0.7
    v = jax.random.normal(jax.random.key(0), (7, 2))
    next_values = jnp.where(trajectory.terminated, 0, jnp.roll(v, -1, axis=0))
    delta = np.asarray(trajectory.reward + gamma * next_values - v)
    gae = np.zeros((8, 2))
    for t in reversed(range(7)):
        gae[t] = delta[t] + gamma * decay * np.where(trajectory.last[t], 0, gae[t + 1])
    found = pgjax.estimators.lambda_returns(trajectory, gamma, decay, next_values) - v
    mask = np.asarray(trajectory.mask)
    np.testing.assert_allclose(np.asarray(found)[mask], gae[:7][mask], rtol=1e-5, atol=1e-6)


def test_a_bootstrap_looks_through_truncation_and_never_through_termination():
    trajectory = two_slots()
    low, high = (
        pgjax.estimators.lambda_returns(trajectory, 1.0, 1.0, NEXT_VALUES.at[1, 1].set(v)) for v in (0.0, 100.0)
    )
    np.testing.assert_allclose((high - low)[:2, 1], 100)  # the truncated episode's steps
    np.testing.assert_allclose((high - low)[:, 0], 0)  # λ = 1: within an episode, v does not matter
