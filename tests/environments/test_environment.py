import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from tests.cases import counting

POLICY = pgjax.mlp(pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), (4,))


def changed(**fields):
    """Return an environment whose steps bring these fields."""
    environment = counting()

    def step(key, state, action, params):
        state, step = environment.step(key, state, action, params)
        return state, step._replace(**fields)

    return environment._replace(step=step)


def test_a_box_clips_and_a_discrete_space_does_not():
    box = pgjax.Box(np.array([-1.0, 0.0]), np.array([1.0, np.inf]), (2,))
    np.testing.assert_array_equal(box.clip(jnp.array([[-5.0, 5.0], [0.5, -1.0]])), [[-1, 5], [0.5, 0]])
    assert pgjax.Discrete(3).clip(7) == 7


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (changed(reward=jnp.ones(1)), r"the reward of counting .* got \(1,\)"),
        (changed(terminated=jnp.zeros(2, bool)), r"the terminated of counting .* got \(2,\)"),
        (changed(observation=jnp.zeros(2)), r"the observation after a step .* got \(\(2,\), 'float32'\)"),
        (counting()._replace(observation_space=pgjax.Box(0.0, 1.0, (1,), jnp.int32)), "the first observation"),
        (
            counting()._replace(step=lambda key, state, *_: (jnp.zeros(3), pgjax.Step(jnp.zeros(1), 0.0))),
            r"the state after a step of counting .* got \(\(3,\), 'float32'\)",
        ),
        (counting()._replace(horizon=0), "a horizon of 1 or more steps, got 0"),
    ],
)
def test_an_environment_that_breaks_its_contract_is_refused(environment, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.collect(environment, POLICY, episodes=2)
