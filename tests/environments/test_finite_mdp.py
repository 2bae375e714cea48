import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from tests.cases import random_mdp


def test_moves_and_pays_by_its_tables():
    mdp = random_mdp(stochastic_reward=True)
    environment = pgjax.finite(mdp, horizon=4)
    n = 20_000

    def one(key):
        first, second = jax.random.split(key)
        state, x = environment.reset(first, mdp)
        _, step = environment.step(second, state, jnp.int32(1), mdp)
        return x, step

    x, step = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), n))
    joint = np.zeros((3, 3))
    np.add.at(joint, (np.asarray(x), np.asarray(step.observation)), 1 / n)
    exact = np.asarray(mdp.d0)[:, None] * np.asarray(mdp.p)[:, 1]
    # 9 frequencies, each within 5 standard errors: wrong with probability below 1e-5.
    assert np.all(np.abs(joint - exact) <= 5 * np.sqrt(exact * (1 - exact) / n))
    np.testing.assert_allclose(step.reward, np.asarray(mdp.r)[x, 1, step.observation], rtol=1e-6)
    np.testing.assert_array_equal(step.terminated, step.observation == 2)


def test_the_horizon_terminates():
    environment = pgjax.finite(pgjax.environments.tables([1.0], np.ones((1, 1, 1)), [[2.0]]), horizon=2)
    state, _ = environment.reset(jax.random.key(0), environment.params)
    state, first = environment.step(jax.random.key(0), state, jnp.int32(0), environment.params)
    state, second = environment.step(jax.random.key(0), state, jnp.int32(0), environment.params)
    assert not first.terminated
    assert second.terminated
    assert not second.truncated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d0": [0.5, 0.4]}, "d0 to hold probabilities .* sum of 0.9"),
        ({"d0": [1.0]}, r"d0 of shape \[S\] = \(2,\), got \(1,\)"),
        ({"p": np.ones((2, 2, 2))}, "p to hold probabilities"),
        ({"p": np.ones((2, 2))}, r"p of shape \[S, A, S\], got \(2, 2\)"),
        ({"r": np.zeros((2, 3))}, r"r of shape .* got \(2, 3\)"),
        ({"terminal": [True]}, "terminal of shape"),
        ({"terminal": [True, False]}, "start in states that are not terminal"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, message):
    good = {"d0": [1.0, 0.0], "p": np.full((2, 2, 2), 0.5), "r": np.zeros((2, 2))}
    assert pgjax.environments.tables(**good).p.shape == (2, 2, 2)
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.environments.tables(**(good | change))


def test_an_empty_horizon_is_refused():
    with pytest.raises(pgjax.InputError, match="got 0"):
        pgjax.finite(random_mdp(), horizon=0)
