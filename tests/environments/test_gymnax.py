import os
import subprocess
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax

STEPS = 200
KEY = jax.random.key(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", pgjax.environments.gymnax_names())
def test_follows_gymnax_step_by_step(name):
    environment = pgjax.from_gymnax(name)
    theirs, params = gymnax.make(name)
    actions = theirs.action_space(params)

    def close(ours, their):
        return jnp.stack(
            [
                jnp.allclose(a, b, rtol=1e-5, atol=1e-6)
                for a, b in zip(*map(jax.tree.leaves, (ours, their)), strict=True)
            ]
        )

    def one(state, key):
        act, move, again = jax.random.split(key, 3)
        action = actions.sample(act)
        seen, their_state, reward, terminated, _ = theirs.step_env(move, state, action, params)
        truncated = theirs.is_truncated(their_state, params)
        state, step = environment.step(move, state, action, environment.params)
        same = jnp.stack(
            [
                close(step.observation, seen).all(),
                close(state, their_state).all(),
                close(step.reward, reward).all(),
                step.terminated == terminated,
                step.truncated == truncated,
            ]
        )
        fresh, _ = environment.reset(again, environment.params)
        done = step.terminated | step.truncated
        return jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, state), (same, step)

    @jax.jit
    def play(key):
        state, observation = environment.reset(key, environment.params)
        seen, their_state = theirs.reset_env(key, params)
        _, (same, steps) = jax.lax.scan(one, state, jax.random.split(key, STEPS))
        return close(observation, seen).all() & close(state, their_state).all(), same, steps

    with jax.numpy_rank_promotion("allow"):
        first, same, steps = play(jax.random.key(1))
    assert first
    assert np.all(same), f"first difference at step {np.argmin(np.all(same, 1))}"
    space = environment.observation_space
    assert steps.observation.shape == (STEPS, *space.shape)
    assert steps.observation.dtype == space.dtype
    assert steps.reward.shape == (STEPS,)
    assert steps.reward.dtype == jnp.float32
    assert steps.terminated.dtype == steps.truncated.dtype == bool
    if environment.horizon <= STEPS:
        assert np.any(steps.terminated | steps.truncated)


def test_time_limit_truncates_and_does_not_terminate():
    environment = pgjax.from_gymnax("Pendulum-v1", max_steps_in_episode=3)
    assert environment.horizon == 3
    state, _ = environment.reset(jax.random.key(0), environment.params)
    ends = []
    for _ in range(3):
        state, step = environment.step(jax.random.key(0), state, jnp.zeros(1), environment.params)
        ends.append((bool(step.terminated), bool(step.truncated)))
    assert ends == [(False, False), (False, False), (False, True)]


def test_parameters_change_the_dynamics():
    light, heavy = (pgjax.from_gymnax("CartPole-v1", gravity=g) for g in (1.0, 20.0))
    state, _ = light.reset(jax.random.key(0), light.params)
    moved = [e.step(jax.random.key(0), state, jnp.int32(1), e.params)[1].observation for e in (light, heavy)]
    assert not np.allclose(*moved)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(pgjax.InputError, match=r"'cartpole'; did you mean CartPole-v1"):
        pgjax.from_gymnax("cartpole")
    with pytest.raises(pgjax.InputError, match="there are: CartPole-v1"):
        pgjax.from_gymnax("qqq")
    with pytest.raises(pgjax.InputError, match=r"has no parameter 'mass'; it has .*masscart"):
        pgjax.from_gymnax("CartPole-v1", mass=1.0)
    with pytest.raises(pgjax.InputError, match="1 or more, got 0"):
        pgjax.from_gymnax("CartPole-v1", max_steps_in_episode=0)


IN_64_BITS = """
import jax, jax.numpy as jnp, pgjax

names = pgjax.environments.gymnax_names()
key = jax.random.key(0)
for name in names:
    environment = pgjax.from_gymnax(name)
    pgjax.check_environment(environment)
    random = pgjax.random_policy(environment)

    def play(key, params):
        def one(carry, key):
            state, observation = carry
            _, f = random.step((), (), observation[None])
            state, step = environment.step(key, state, f.sample(key)[0], params)
            return (state, step.observation), step.reward

        return jax.lax.scan(one, environment.reset(key, params), jax.random.split(key, 20))[1]

    reward = jax.jit(play)(key, environment.params)
    assert reward.dtype == jnp.float32 and jnp.isfinite(reward).all(), name
print(len(names))
"""


@pytest.mark.slow
def test_every_environment_runs_in_a_program_of_64_bits():
    options = os.environ | {"JAX_ENABLE_X64": "1"}
    done = subprocess.run([sys.executable, "-c", IN_64_BITS], env=options, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(len(pgjax.environments.gymnax_names()))]


def test_frozen_lakes_tables_are_those_that_are_simulated_and_its_optimum_is_the_known_one():
    environment, mdp = pgjax.from_gymnax("FrozenLake-misc"), pgjax.environments.frozen_lake_tables()
    optimum = pgjax.exact.optimal(mdp, 1000)
    assert float(optimum.rho) == pytest.approx(14 / 17, abs=1e-4)  # without a limit to the time
    state = environment.reset(KEY, environment.params)[0]
    n, S, A = 3000, 16, 4  # draws of every state and action; 5 deviations

    def led_to(key, s, a):
        step = environment.step(key, state.replace(position=s), a, environment.params)[1]
        return step.observation, step.reward, step.terminated

    draw = jax.vmap(jax.vmap(jax.vmap(led_to, (0, None, None)), (None, None, 0)), (None, 0, None))
    after, reward, ends = jax.jit(draw)(jax.random.split(KEY, n), jnp.arange(S), jnp.arange(A))
    shares = jax.nn.one_hot(after, S).mean(2)
    assert np.abs(shares - mdp.p).max() < 5 * np.sqrt(0.25 / n)
    np.testing.assert_array_equal(ends, np.asarray(mdp.terminal)[after])
    np.testing.assert_array_equal(reward, np.asarray(mdp.r)[0, 0][after])
