import sys

import jax
import numpy as np
import pytest

import pgjax


def test_a_game_is_played_as_pgx_plays_it_and_no_illegal_action_is_drawn():
    pgx = pytest.importorskip("pgx")
    environment = pgjax.environments.from_pgx("2048", horizon=30)
    pgjax.check_environment(environment)
    game, key = pgx.make("2048"), jax.random.key(0)
    state, observation = jax.jit(environment.reset)(key, ())
    theirs = jax.jit(game.init)(key)
    for t in range(20):
        np.testing.assert_array_equal(observation.observation, theirs.observation)
        np.testing.assert_array_equal(observation.allowed, theirs.legal_action_mask)
        action, key = np.flatnonzero(theirs.legal_action_mask)[t % 2 - 1], jax.random.fold_in(key, t)
        state, step = jax.jit(environment.step)(key, state, action, ())
        theirs = jax.jit(game.step)(theirs, action, key)
        observation = step.observation
        assert (step.reward, step.terminated) == (theirs.rewards[0], theirs.terminated)
    policy = pgjax.policy_for(environment)
    run = jax.jit(pgjax.collect(environment, policy, slots=4))
    trajectory = run(key, policy.init(key), ())
    chosen = np.take_along_axis(
        np.asarray(trajectory.observation.allowed), np.asarray(trajectory.action)[..., None], -1
    )
    assert chosen[..., 0][np.asarray(trajectory.mask)].all()
    assert trajectory.reward.sum() > 0


def test_what_pgx_does_not_have_for_one_player_is_refused():
    pytest.importorskip("pgx")
    with pytest.raises(pgjax.InputError, match="a game of pgx, got 'tetris'; there are 2048"):
        pgjax.environments.from_pgx("tetris")
    with pytest.raises(pgjax.InputError, match="for one player, got tic_tac_toe, which is for 2"):
        pgjax.environments.from_pgx("tic_tac_toe")
    with pytest.raises(pgjax.InputError, match="a horizon of 1 or more"):
        pgjax.environments.from_pgx("2048", horizon=0)


def test_without_pgx_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pgx", None)
    with pytest.raises(pgjax.InputError, match=r"expected pgx to be installed \(pip install"):
        pgjax.environments.from_pgx("2048")
