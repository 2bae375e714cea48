import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax

CORRIDOR = """
#####
#S.E#
#####
"""
NORTH, EAST, SOUTH, WEST = range(4)


def walk(environment, actions):
    state, x = environment.reset(jax.random.key(0), environment.params)
    seen = [int(x)]
    for action in actions:
        state, step = environment.step(jax.random.key(0), state, jnp.int32(action), environment.params)
        seen.append(int(step.observation))
        assert float(step.reward) == -1
    return seen, bool(step.terminated)


def test_walks_bumps_and_gets_out():
    assert walk(pgjax.maze(CORRIDOR), [NORTH, WEST, SOUTH, EAST]) == ([0, 0, 0, 0, 1], False)
    assert walk(pgjax.maze(CORRIDOR), [EAST, WEST, EAST, EAST]) == ([0, 1, 0, 1, 2], True)


def test_is_the_finite_mdp_of_its_tables():
    mdp, environment = pgjax.maze_tables(), pgjax.maze()
    next_cell = np.asarray(environment.params.next_cell)
    np.testing.assert_array_equal(np.asarray(mdp.p).argmax(-1), next_cell)
    np.testing.assert_array_equal(np.asarray(mdp.p).max(-1), 1)
    np.testing.assert_array_equal(mdp.r, -1)
    np.testing.assert_array_equal(mdp.terminal, environment.params.exit)
    np.testing.assert_array_equal(mdp.d0, environment.params.start)


def test_without_a_start_every_free_cell_is_one():
    environment = pgjax.maze(CORRIDOR.replace("S", "."))
    keys = jax.random.split(jax.random.key(0), 100)
    _, x = jax.vmap(environment.reset, (0, None))(keys, environment.params)
    assert set(np.asarray(x).tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("layout", "message"),
    [("#S?E#", "got '\\?'"), ("#S..#", "with an exit"), ("#S#E#", "a way from every start")],
)
def test_layouts_that_are_no_maze_are_refused(layout, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.maze(layout)


def test_an_empty_horizon_is_refused():
    with pytest.raises(pgjax.InputError, match="got 0"):
        pgjax.maze(horizon=0)
