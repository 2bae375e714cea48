import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from tests.cases import CREDITS


def two_slots() -> pgjax.Trajectory:
    """Return a slot with episodes of 2 and 3 steps and a gap, and a slot with one of 2 steps that is truncated."""
    mask = jnp.array([[1, 1], [1, 1], [0, 0], [1, 0], [1, 0], [1, 0]], bool)
    return pgjax.Trajectory(
        observation=jnp.zeros((6, 2, 1)),
        action=jnp.zeros((6, 2), jnp.int32),
        reward=jnp.array([[1.0, 5], [2, 6], [0, 0], [3, 0], [4, 0], [5, 0]]),
        terminated=jnp.array([[0, 0], [1, 0], [0, 0], [0, 0], [0, 0], [1, 0]], bool),
        truncated=jnp.array([[0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]], bool),
        mask=mask,
        time=jnp.array([[0, 0], [1, 1], [2, 2], [0, 3], [1, 4], [2, 5]]),
        rows=jnp.int32(6),
    )


BY_HAND = {
    ("reward_to_go", 1.0): [[3, 11], [2, 6], [0, 0], [12, 0], [9, 0], [5, 0]],
    ("reward_to_go", 0.5): [[2, 8], [2, 6], [0, 0], [6.25, 0], [6.5, 0], [5, 0]],
    ("whole_episode", 1.0): [[3, 11], [3, 11], [0, 0], [12, 0], [12, 0], [12, 0]],
    ("whole_episode", 0.5): [[2, 8], [2, 8], [0, 0], [6.25, 0], [6.25, 0], [6.25, 0]],
    ("discounted_reward_to_go", 1.0): [[3, 11], [2, 6], [0, 0], [12, 0], [9, 0], [5, 0]],
    ("discounted_reward_to_go", 0.5): [[2, 8], [1, 3], [0, 0], [6.25, 0], [3.25, 0], [1.25, 0]],
}


@pytest.mark.parametrize(("name", "discount"), BY_HAND)
def test_by_hand(name, discount):
    returns = CREDITS[name](two_slots(), jnp.float32(discount))
    np.testing.assert_allclose(returns, BY_HAND[name, discount])
    assert returns.dtype == jnp.float32


@pytest.mark.parametrize("name", CREDITS)
def test_padding_does_not_matter(name):
    trajectory = two_slots()
    dirty = trajectory._replace(time=jnp.where(trajectory.mask, trajectory.time, 0))
    clean = CREDITS[name](trajectory, jnp.float32(0.9))
    np.testing.assert_array_equal(CREDITS[name](dirty, jnp.float32(0.9)), clean)
    np.testing.assert_array_equal(np.asarray(clean)[~np.asarray(trajectory.mask)], 0)
