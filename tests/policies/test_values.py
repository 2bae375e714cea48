import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax

GRID = pgjax.Box(0.0, 1.0, (2, 3))


def seen(observation):
    """A trajectory of these observations [T, E, ...]."""
    empty = jnp.zeros(observation.shape[:2])
    return pgjax.Trajectory(observation, *(empty,) * 6, jnp.int32(0))


@pytest.mark.parametrize("actions", [None, 4])
@pytest.mark.parametrize(
    ("make", "observation"),
    [
        (lambda actions: pgjax.policies.tabular_value(5, actions), jnp.array([[0, 4], [2, 2], [1, 3]])),
        (
            lambda actions: pgjax.policies.mlp_value(pgjax.Discrete(5), actions, (8,)),
            jnp.array([[0, 4], [2, 2], [1, 3]]),
        ),
        (
            lambda actions: pgjax.policies.mlp_value(GRID, actions, (8,)),
            jax.random.uniform(jax.random.key(0), (3, 2, 2, 3)),
        ),
    ],
    ids=["table", "network over states", "network over arrays"],
)
def test_values_of_rows(make, observation, actions):
    value = make(actions)
    params = value.init(jax.random.key(0))
    found = value.unroll(params, seen(observation))
    assert found.shape == (3, 2) + (() if actions is None else (actions,))
    np.testing.assert_allclose(found, 0, atol=0.1)  # near zero at first
    changed = jax.tree.map(lambda leaf: leaf + jax.random.normal(jax.random.key(1), leaf.shape), params)
    whole = value.unroll(changed, seen(observation))
    alone = jnp.stack([value.unroll(changed, seen(row[None]))[0] for row in observation])
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-6)  # memoryless: a row depends on that row alone
    assert float(jnp.std(whole)) > 0.05


def test_a_fitting_value_is_chosen():
    maze, cartpole = pgjax.maze(), pgjax.from_gymnax("CartPole-v1")
    assert pgjax.value_for(maze).init(jax.random.key(0)).shape == (23,)
    assert pgjax.policies.action_value_for(maze).init(jax.random.key(0)).shape == (23, 4)
    for make, outputs in ((pgjax.value_for, 1), (pgjax.policies.action_value_for, 2)):
        layers = make(cartpole).init(jax.random.key(0))["params"]
        assert [layer["kernel"].shape for layer in layers.values()] == [(4, 64), (64, 64), (outputs, 64)]


def test_an_unknown_state_has_no_value():
    table = pgjax.policies.tabular_value(3)
    assert np.isnan(table.unroll(jnp.zeros(3), seen(jnp.array([[7]])))).all()
