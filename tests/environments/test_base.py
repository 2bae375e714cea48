import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.environments.spaces import spaces_in
from tests.cases import ENVIRONMENTS, counting

POLICY = pgjax.mlp(pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), (4,))
KEYS = pgjax.run_keys(0, [0, 0, 1])


def at_random(environment):
    """A policy that looks at nothing."""
    actions = environment.action_space
    if not isinstance(actions, pgjax.Box):
        return pgjax.random_policy(environment)

    def apply(params, observation):
        return pgjax.policies.Gaussian(*jnp.zeros((2, len(observation), *actions.shape)))

    return pgjax.memoryless(lambda key: (), apply)


def changed(**fields):
    """An environment whose steps bring these fields."""
    environment = counting()

    def step(key, state, action, params):
        state, step = environment.step(key, state, action, params)
        return state, step._replace(**fields)

    return environment._replace(step=step)


def acting(actions):
    """An environment with these actions."""
    return counting()._replace(action_space=actions)


def scored(score):
    """An environment with this score."""
    return counting()._replace(score=score)


def test_a_box_clips_and_a_discrete_space_does_not():
    box = pgjax.Box(np.array([-1.0, 0.0]), np.array([1.0, np.inf]), (2,))
    np.testing.assert_array_equal(box.clip(jnp.array([[-5.0, 5.0], [0.5, -1.0]])), [[-1, 5], [0.5, 0]])
    assert pgjax.Discrete(3).clip(7) == 7


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_episodes_keep_the_contract(name):
    environment = ENVIRONMENTS[name]()
    run = jax.jit(jax.vmap(pgjax.collect(environment, at_random(environment), slots=8), (0, None, None)))
    trajectories = jax.device_get(run(KEYS, (), environment.params))
    first, again, other = (jax.tree.map(operator.itemgetter(i), trajectories) for i in range(3))
    real, space = first.mask, environment.observation_space
    lengths = real.sum(axis=0)
    assert environment.name == name
    assert 1 <= lengths.min() <= lengths.max() <= environment.horizon
    np.testing.assert_array_equal(first.last.sum(axis=0), 1)
    assert np.isfinite(first.reward).all()
    for part, seen in zip(spaces_in(space), jax.tree.leaves(first.observation), strict=True):
        low, high = (part.low, part.high) if isinstance(part, pgjax.Box) else (0, part.allowed.shape[-1] - 1)
        assert (seen[real] >= low).all()
        assert (seen[real] <= high).all()
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.action != other.action).any()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (changed(reward=jnp.ones(1)), r"the reward of counting .* got \(1,\)"),
        (changed(reward=1j), "the reward of counting to be of real numbers, got complex64"),
        (changed(terminated=jnp.zeros(2, bool)), r"terminated of counting .* got \(2,\)"),
        (changed(terminated=0.0), "terminated of counting to be true or false, or an integer 0 or 1, got float32"),
        (changed(truncated=jnp.float32(1)), "truncated of counting to be true or false"),
        (changed(observation=jnp.zeros(2)), r"the observation after a step .* got \(\(2,\), 'float32'\)"),
        (counting()._replace(observation_space=pgjax.Box(0.0, 1.0, (1,), jnp.int32)), "the first observation"),
        (
            counting()._replace(step=lambda key, state, *_: (jnp.zeros(3), pgjax.Step(jnp.zeros(1), 0.0))),
            r"the state after a step of counting .* got \(\(3,\), 'float32'\)",
        ),
        (counting()._replace(step=lambda *_: pgjax.Step(jnp.zeros(1), 0.0)), r"\(state, Step\), got a Step"),
        (
            counting()._replace(step=lambda key, state, *_: (jnp.zeros(1), state, 0.0, False, {})),
            r"step of counting to return \(state, Step\), got 5 things",
        ),
        (
            counting()._replace(step=lambda key, state, *_: (state, (jnp.zeros(1), 0.0, False))),
            r"\(state, Step\), got a tuple in second place",
        ),
        (
            counting()._replace(reset=lambda *_: jnp.zeros(1)),
            r"reset of counting to return \(state, observation\), got",
        ),
        (
            counting()._replace(step=lambda key, state, *_: 1 if state > 0 else 0),
            "a step of counting that JAX can trace, it fails with: Attempted boolean conversion .* write jnp.where",
        ),
        (counting()._replace(horizon=0), "a horizon of 1 or more steps for counting, an integer, got 0"),
        (counting()._replace(horizon=8.0), "a horizon of 1 or more steps for counting, an integer, got 8.0"),
        (acting(pgjax.Box(0, 3, (1,), jnp.int32)), "actions of counting in a Box to be real numbers, got int32"),
        (acting(pgjax.Box(1.0, 1.0, (1,))), "a low below the high.* for actions of counting, got 1.0 and 1.0"),
        (acting(pgjax.Box(-3e38, 3e38, (1,))), "a width within float32, for actions of counting"),
        (acting(pgjax.Box(np.zeros(2), 1.0, (1,))), r"bounds of shape \(1,\) for actions of counting"),
        (acting(pgjax.Discrete(2, forbidden=(0, 1))), "1 or more actions of counting to choose from"),
        (acting(2), "actions of counting to be a Discrete, a MultiDiscrete or a Box, got a int"),
        (scored(lambda trajectory, _: trajectory.reward), "score of counting to return a Score, got"),
        (
            scored(lambda trajectory, _: pgjax.environments.Score(trajectory.reward.sum(0))),
            r"reward .* shape \(9, 2\), got \(2,\)",
        ),
        (scored(lambda trajectory, _: pgjax.environments.Score(trajectory.reward[1:])), r"reward .* got \(8, 2\)"),
        (
            scored(lambda trajectory, _: pgjax.environments.Score(trajectory.reward[..., None])),
            r"reward .* got \(9, 2, 1\)",
        ),
        (scored(lambda trajectory, _: pgjax.environments.Score(0.0)), r"reward .* got \(\)"),
        (
            scored(lambda trajectory, _: pgjax.environments.Score(trajectory.reward, {"wins": trajectory.reward[0]})),
            r"the note 'wins' that the score of counting returns .* got \(2,\)",
        ),
    ],
)
def test_an_environment_that_breaks_its_contract_is_refused(environment, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.collect(environment, POLICY, slots=2)


@pytest.mark.parametrize("dtype", [bool, jnp.int32, jnp.uint8])
def test_ends_may_be_truths_or_integers(dtype):
    # As many environments say it: 0 or 1.
    ending = counting()

    def step(key, state, action, params):
        state, step = ending.step(key, state, action, params)
        return state, step._replace(terminated=step.terminated.astype(dtype), truncated=jnp.zeros((), dtype))

    environment = ending._replace(step=step)
    params = POLICY.init(jax.random.key(0))
    found, expected = (
        jax.jit(pgjax.collect(each, POLICY, slots=2))(jax.random.key(1), params, ()) for each in (environment, ending)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert len(pgjax.play(environment, POLICY, jax.random.key(0), params).reward) == 5


def keyed():
    """An environment that draws from keys of its own: one in its state, one among its params."""

    def reset(key, params):
        return (key, jnp.int32(0)), jnp.zeros(1)

    def step(key, state, action, params):
        own, t = state
        x = jax.random.uniform(jax.random.fold_in(own, t)) + jax.random.uniform(jax.random.fold_in(params["key"], t))
        return (own, t + 1), pgjax.Step(x[None], params["scale"] * x, t == 2)

    params = {"key": jax.random.key(3), "scale": 1.0}
    return pgjax.Environment(reset, step, pgjax.Box(0.0, 2.0, (1,)), pgjax.Discrete(2), 4, params, name="keyed")


def test_random_keys_may_be_states_and_params():
    environment = keyed()
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (4,))
    pgjax.check_environment(environment)
    episode = pgjax.play(environment, policy, jax.random.key(0), policy.init(jax.random.key(0)))
    assert len(episode.reward) == 3
    for baseline in (pgjax.no_baseline(), pgjax.leave_one_out()):
        slots = 1 if baseline.online else 2
        algorithm = pgjax.reinforce(environment, policy, slots=slots, baseline=baseline)
        grid = {"environment.scale": [1.0, 2.0]}
        found = pgjax.sweep(algorithm, iterations=1, seeds=[0], grid=grid, progress=False).episode_return.values
        assert found[1] == pytest.approx(2 * found[0], rel=1e-6)
