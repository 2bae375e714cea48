"""The thin adapters are held to the libraries themselves, where they are installed."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import environments

LIBRARIES = {
    "jumanji": (environments.from_jumanji, "Game2048-v1"),
    "navix": (environments.from_navix, "Navix-Empty-5x5-v0"),
    "craftax": (environments.from_craftax, "Craftax-Classic-Symbolic-v1"),
}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # they have some about what they use


@pytest.fixture(autouse=True)
def _promotion():
    """They promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


def installed(library):
    return pytest.importorskip(library, reason=f"{library} is not installed: pip install 'pgjax[{library}]'")


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_environment_keeps_the_contract_and_reinforce_runs_there(library):
    installed(library)
    make, name = LIBRARIES[library]
    environment = make(name, horizon=6)
    pgjax.check_environment(environment)
    policy = pgjax.policy_for(environment)
    algorithm = pgjax.reinforce(environment, policy, slots=2)
    _, curves = jax.jit(pgjax.train(algorithm, 2))(jax.random.key(0), algorithm.hyperparameters())
    assert np.isfinite(curves.episode_return).all()
    assert (curves.steps <= 2 * 6).all()


def test_a_game_is_played_as_jumanji_plays_it_and_no_illegal_action_is_drawn():
    jumanji = installed("jumanji")
    environment, game, key = environments.from_jumanji("Game2048-v1"), jumanji.make("Game2048-v1"), jax.random.key(3)
    (state, observation), (theirs, played) = jax.jit(environment.reset)(key, ()), jax.jit(game.reset)(key)
    for t in range(10):
        np.testing.assert_array_equal(observation.observation["board"], played.observation.board)
        np.testing.assert_array_equal(observation.allowed, played.observation.action_mask)
        action = np.flatnonzero(observation.allowed)[t % 2 - 1]
        state, step = jax.jit(environment.step)(key, state, action, ())
        theirs, played = jax.jit(game.step)(theirs, action)
        observation = step.observation
        assert (step.reward, step.terminated, step.truncated) == (played.reward, False, False)
    policy = pgjax.policy_for(environment)
    trajectory = jax.jit(pgjax.collect(environment, policy, slots=2))(key, policy.init(key), ())
    allowed, action = np.asarray(trajectory.observation.allowed), np.asarray(trajectory.action)
    assert np.take_along_axis(allowed, action[..., None], -1)[..., 0][np.asarray(trajectory.mask)].all()
    assert trajectory.terminated.any(0).all()


def test_kinds_of_actions_of_jumanji():
    installed("jumanji")
    cleaner = environments.from_jumanji("Cleaner-v0")
    assert isinstance(cleaner.observation_space, environments.Masked)
    assert cleaner.action_space == environments.MultiDiscrete((4, 4, 4))
    cube = environments.from_jumanji("RubiksCube-v0")
    assert set(cube.observation_space) == {"cube", "step_count"}
    with pytest.raises(pgjax.InputError, match=r"for one agent, got Connector-v3 with rewards \(10,\)"):
        environments.from_jumanji("Connector-v3")
    with pytest.raises(pgjax.InputError, match="expected MultiCVRP-v0 to have discrete actions"):
        environments.from_jumanji("MultiCVRP-v0")


def test_a_world_is_walked_as_navix_walks_it():
    navix = installed("navix")
    name, key = "Navix-Empty-5x5-v0", jax.random.key(0)
    environment, world = environments.from_navix(name, horizon=9), navix.make(name, max_steps=9)
    (state, observation), theirs = environment.reset(key, ()), world.reset(key)
    for action in (2, 2, 1, 2, 2):  # forward twice, turn right, forward twice: the goal
        np.testing.assert_array_equal(observation, theirs.observation)
        state, step = environment.step(key, state, jnp.int32(action), ())
        theirs, observation = world.step(theirs, jnp.int32(action)), step.observation
        assert (step.reward, step.terminated, step.truncated) == (
            theirs.reward,
            theirs.is_termination(),
            theirs.is_truncation(),
        )
    assert step.reward > 0
    assert step.terminated
    idle = [environment.reset(key, ())]
    for _ in range(9):
        idle.append(environment.step(key, idle[-1][0], jnp.int32(0), ()))
    assert [bool(step.truncated) for _, step in idle[1:]] == 8 * [False] + [True]
    assert not idle[-1][1].terminated


def test_a_world_is_lived_in_as_in_craftax():
    installed("craftax")
    from craftax.craftax_env import make_craftax_env_from_name

    name, key = "Craftax-Classic-Symbolic-v1", jax.random.key(0)
    environment, world = environments.from_craftax(name), make_craftax_env_from_name(name, auto_reset=False)
    state, observation = jax.jit(environment.reset)(key, ())
    seen, theirs = world.reset(key)
    for action in (1, 3, 5):
        np.testing.assert_array_equal(observation, seen)
        state, step = jax.jit(environment.step)(key, state, jnp.int32(action), ())
        seen, theirs, reward, over, _ = world.step(key, theirs, action)
        observation = step.observation
        assert (step.reward, step.terminated) == (reward, over)
    short = environments.from_craftax(name, horizon=2)
    state, _ = jax.jit(short.reset)(key, ())
    for _ in range(2):
        state, step = jax.jit(short.step)(key, state, jnp.int32(0), ())
    assert not step.terminated  # for the time limit is the rollout's


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_a_library_does_not_have_is_refused(library):
    installed(library)
    make, name = LIBRARIES[library]
    with pytest.raises(pgjax.InputError, match=f"of {library}.*, got 'Tetris-v9'"):
        make("Tetris-v9")
    with pytest.raises(pgjax.InputError, match=r"got .* \{'gravity': 1\}"):
        make(name, gravity=1)
    with pytest.raises(pgjax.InputError, match="a horizon of 1 or more"):
        make(name, horizon=0)


@pytest.mark.parametrize("library", LIBRARIES)
def test_without_a_library_one_sentence_says_what_to_install(library, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    make, name = LIBRARIES[library]
    wanted = "navix" if library == "navix" else rf'"pgjax\[{library}\]"'
    with pytest.raises(pgjax.InputError, match=rf"expected {library} to be installed \(pip install {wanted}\)"):
        make(name)
