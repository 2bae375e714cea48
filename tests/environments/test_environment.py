import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from tests.cases import ENVIRONMENTS, counting

POLICY = pgjax.mlp(pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), (4,))
KEYS = pgjax.run_keys(0, [0, 0, 1])


def at_random(environment):
    """Return a policy that looks at nothing."""
    actions = environment.action_space

    def apply(params, observation):
        if isinstance(actions, pgjax.Discrete):
            return pgjax.Categorical(jnp.zeros((len(observation), actions.n)))
        return pgjax.Gaussian(*jnp.zeros((2, len(observation), *actions.shape)))

    return pgjax.memoryless(lambda key: (), apply)


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


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_episodes_keep_the_contract(name):
    environment = ENVIRONMENTS[name]()
    run = jax.jit(jax.vmap(pgjax.collect(environment, at_random(environment), episodes=8), (0, None, None)))
    trajectories = jax.device_get(run(KEYS, (), environment.params))
    first, again, other = (jax.tree.map(operator.itemgetter(i), trajectories) for i in range(3))
    real, space = first.mask, environment.observation_space
    lengths = real.sum(axis=0)
    assert environment.name == name
    assert 1 <= lengths.min() <= lengths.max() <= environment.horizon
    np.testing.assert_array_equal(first.last.sum(axis=0), 1)
    assert np.isfinite(first.reward).all()
    seen = first.observation[real]
    low, high = (0, space.n - 1) if isinstance(space, pgjax.Discrete) else (space.low, space.high)
    assert (seen >= low).all()
    assert (seen <= high).all()
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.action != other.action).any()


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
