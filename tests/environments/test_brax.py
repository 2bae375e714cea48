"""The adapter is held to an environment that speaks as brax does, and to brax itself where it is installed."""

import sys
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.environments.base import check_environment

pytestmark = pytest.mark.slow


class Thrown(NamedTuple):
    """As brax's State: a ball of unit mass, pushed by two actions."""

    pipeline_state: Any  # position and velocity
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    metrics: Any
    info: Any


class Ball:
    observation_size, action_size = 4, 2

    def reset(self, rng):
        start = jax.random.uniform(rng, (2,)), jnp.zeros(2)
        return Thrown(start, jnp.concatenate(start), jnp.zeros(()), jnp.zeros(()), {"height": jnp.zeros(())}, {})

    def step(self, state, action):
        x, v = state.pipeline_state
        v = v + 0.1 * action
        x = x + 0.1 * v
        done = jnp.where(jnp.abs(x).max() > 2, 1.0, 0.0)
        return state._replace(pipeline_state=(x, v), obs=jnp.concatenate([x, v]), reward=-jnp.sum(x**2), done=done)


def get_environment(name, backend="generalized"):
    return {"ball": Ball}[name]()


@pytest.fixture
def installed(monkeypatch):
    envs = types.SimpleNamespace(get_environment=get_environment)
    monkeypatch.setitem(sys.modules, "brax", types.SimpleNamespace(envs=envs))
    monkeypatch.setitem(sys.modules, "brax.envs", envs)


def test_an_environment_of_brax_keeps_the_contract(installed):
    environment = pgjax.from_brax("ball", horizon=40)
    check_environment(environment)
    state, x = environment.reset(jax.random.key(0), ())
    for _ in range(3):
        state, step = environment.step(jax.random.key(1), state, jnp.ones(2), ())
    np.testing.assert_allclose(step.observation[:2], x[:2] + 0.06, rtol=1e-6)  # 0.1² (1 + 2 + 3)
    np.testing.assert_allclose(step.observation[2:], 0.3, rtol=1e-6)
    np.testing.assert_allclose(step.reward, -jnp.sum(step.observation[:2] ** 2), rtol=1e-6)
    assert not step.terminated


def test_reinforce_runs_there_and_episodes_end(installed):
    environment = pgjax.from_brax("ball", horizon=40)
    push = pgjax.imitation.scripted(lambda x: jnp.ones((*x.shape[:-1], 2)), environment)
    trajectory = pgjax.collect(environment, push.policy, 2)(jax.random.key(0), (), ())
    lengths = trajectory.mask.sum(0)
    assert (lengths < 40).all()
    assert trajectory.terminated.any(0).all()
    algorithm = pgjax.reinforce(environment, pgjax.policy_for(environment), slots=2)
    _, curves = jax.jit(pgjax.train(algorithm, 2))(jax.random.key(0), algorithm.hyperparameters())
    assert np.isfinite(curves.episode_return).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "bal"}, r"expected an environment of brax with its options, got 'bal' \{\}"),
        ({"name": "ball", "gravity": 9.8}, r"expected an environment of brax with its options, got 'ball' \{'gravity'"),
        ({"name": "ball", "horizon": 0}, "expected a horizon of 1 or more steps, got 0"),
    ],
)
def test_what_brax_does_not_have_is_refused(installed, arguments, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.from_brax(**arguments)


def test_without_brax_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(pgjax.InputError, match=r'expected brax to be installed \(pip install "pgjax\[brax\]"\)'):
        pgjax.from_brax("ant")


@pytest.mark.filterwarnings("ignore")  # brax has some about itself and about what it uses
@pytest.mark.parametrize("name", ["inverted_pendulum", "hopper", "halfcheetah", "ant"])
def test_brax_itself(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where mujoco leaves a log
    with jax.numpy_rank_promotion("allow"):  # which brax needs
        environment = pgjax.from_brax(name, backend="spring", horizon=5)
        check_environment(environment)
        _, observation = environment.reset(jax.random.key(0), environment.params)
    assert np.isfinite(observation).all()
    assert observation.shape == environment.observation_space.shape
