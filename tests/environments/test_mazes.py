import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.environments.mazes import LAYOUTS, LOOPS, ROOMS

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
    mdp, environment = pgjax.environments.maze_tables(), pgjax.maze()
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


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_has_a_shortest_way_out(name):
    environment, expert = pgjax.maze(LAYOUTS[name]), pgjax.imitation.shortest_paths(LAYOUTS[name])
    returns = pgjax.evaluate(environment, expert.policy, 64)(jax.random.key(0), expert.params, environment.params)
    # Of the loops, whose starts are all cells, the furthest is 9 steps from the exit.
    shortest = {"lecture": [14, 14], "rooms": [20, 20], "spiral": [42, 42], "loops": [1, 9]}[name]
    assert shortest[0] <= -float(returns.max()) <= -float(returns.min()) <= shortest[1]


def test_what_is_around_is_seen():
    environment = pgjax.partial_maze(CORRIDOR)
    wall, free = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    expected = [
        [*wall, 1.0, 0.0, 0.0, *wall, *free, *free, *free],  # at the start: a wall to the west
        [*wall, *free, *wall, *free, 0.0, 0.0, 1.0, *free],  # in the middle: the exit to the east
        [*wall, 0.0, 0.0, 1.0, *wall, *free, 0.0, 1.0, 0.0, *free],  # at the exit
    ]
    np.testing.assert_array_equal(environment.params.seen, expected)
    near = pgjax.partial_maze(CORRIDOR, sight=0)
    np.testing.assert_array_equal(near.params.seen, [[0, 0], [0, 0], [0, 1]])


def test_a_partially_observed_maze_moves_as_the_maze():
    known, partial = pgjax.maze(ROOMS), pgjax.partial_maze(ROOMS)
    actions = jax.random.randint(jax.random.key(1), (200,), 0, 4)
    cell, _ = known.reset(jax.random.key(0), known.params)
    place, seen = partial.reset(jax.random.key(0), partial.params)
    for action in actions:
        assert cell == place
        np.testing.assert_array_equal(seen, partial.params.seen[cell])
        cell, one = known.step(jax.random.key(0), cell, action, known.params)
        place, other = partial.step(jax.random.key(0), place, action, partial.params)
        seen = other.observation
        assert (one.reward, one.terminated) == (other.reward, other.terminated)


def test_places_of_the_loops_look_alike():
    seen = np.asarray(pgjax.partial_maze(LOOPS, sight=1).params.seen)
    _, counts = np.unique(seen, axis=0, return_counts=True)
    assert (len(seen), len(counts), counts.max()) == (55, 35, 3)


def t_maze_returns(acts, n=64):
    """What a function of the sign and the time earns in the T-maze of length 3."""
    environment = pgjax.t_maze(3, 9)

    def one(key):
        state, seen = environment.reset(key, ())
        sign, total, running = seen[1], 0.0, True
        for t in range(9):
            state, step = environment.step(key, state, acts(sign, t), ())
            total = total + jnp.where(running, step.reward, 0)
            running = running & ~step.terminated
        return total, running

    return jax.vmap(one)(jax.random.split(jax.random.key(0), n))


def test_who_remembers_the_sign_turns_to_the_right_side():
    returns, running = t_maze_returns(lambda sign, t: jnp.where(t < 3, EAST, jnp.where(sign > 0, SOUTH, NORTH)))
    np.testing.assert_allclose(returns, 4)
    assert not running.any()
    returns, _ = t_maze_returns(lambda sign, t: jnp.where(t < 3, EAST, jnp.where(sign > 0, NORTH, SOUTH)))
    np.testing.assert_allclose(returns, -0.1, rtol=1e-6)


def test_who_does_not_remember_is_right_half_of_the_time():
    returns, _ = t_maze_returns(lambda sign, t: jnp.where(t < 3, EAST, NORTH), n=1000)
    right = np.asarray(returns) > 0
    assert abs(right.mean() - 0.5) < 4 * 0.5 / np.sqrt(1000)  # 4 standard errors: wrong in 1 of 15000
    np.testing.assert_allclose(returns, np.where(right, 4, -0.1), rtol=1e-6)


def test_walls_of_the_t_maze_cost():
    returns, running = t_maze_returns(lambda sign, t: jnp.int32(WEST))
    np.testing.assert_allclose(returns, -0.9, rtol=1e-5)
    assert running.all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pgjax.partial_maze(sight=-1), "expected a sight of 0 or more cells, got -1"),
        (lambda: pgjax.partial_maze(horizon=0), "expected a horizon of 1 or more steps, got 0"),
        (lambda: pgjax.t_maze(0), "expected a corridor of 1 to 29 steps, got 0"),
        (lambda: pgjax.t_maze(9, 9), "expected a corridor of 1 to 8 steps, got 9"),
    ],
)
def test_mazes_that_cannot_be_are_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()
