import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.environments import Masked, Score, frame_stack, masked_actions, scaled_rewards
from tests.cases import counting, in_parts

KEY = jax.random.key(0)


def shown(environment, steps):
    """What is observed at first and after each of some steps."""
    state, observation = environment.reset(KEY, environment.params)
    seen = [observation]
    for _ in range(steps):
        state, step = environment.step(KEY, state, jnp.int32(1), environment.params)
        seen.append(step.observation)
    return seen


def test_the_last_observations_stand_side_by_side_the_latest_last():
    environment = frame_stack(counting(), 3)
    pgjax.check_environment(environment)
    assert environment.observation_space.shape == (3,)
    np.testing.assert_array_equal(shown(environment, 3), [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]])
    run = jax.jit(pgjax.collect(environment, pgjax.policy_for(environment), slots=2))
    trajectory = run(KEY, pgjax.policy_for(environment).init(KEY), ())
    np.testing.assert_array_equal(trajectory.observation[:4, 1], [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]])


def test_images_numbers_parts_and_bounds_are_stacked():
    # Of an image the channels of a frame stay together; numbers make a vector; a mask of actions is the latest one.
    def reset(key, params):
        return jnp.int32(0), {"image": jnp.zeros((3, 3, 2)), "time": jnp.float32(0)}

    def step(key, t, action, params):
        image = jnp.stack([jnp.full((3, 3), t + 1.0), jnp.full((3, 3), -t - 1.0)], axis=-1)
        return t + 1, pgjax.Step({"image": image, "time": t + 1.0}, 0.0)

    space = {"image": pgjax.Box(np.array([-9.0, -5.0]), 9.0, (3, 3, 2)), "time": pgjax.Box(0.0, 9.0, ())}
    plain = pgjax.Environment(reset, step, space, pgjax.Discrete(2), horizon=5)
    masked = masked_actions(plain, lambda t, params: jnp.array([True, False]) | (t > 1))
    environment = frame_stack(masked, 2)
    pgjax.check_environment(environment)
    wide = environment.observation_space.observation
    assert (wide["image"].shape, wide["time"].shape) == ((3, 3, 4), (2,))
    np.testing.assert_array_equal(wide["image"].low[0, 0], [-9, -5, -9, -5])
    last = shown(environment, 2)[-1]
    assert isinstance(last, Masked)
    np.testing.assert_array_equal(last.observation["image"][1, 1], [1, -1, 2, -2])
    np.testing.assert_array_equal(last.observation["time"], [1, 2])
    np.testing.assert_array_equal(last.allowed, [True, True])


def test_rewards_are_scaled_by_a_number_that_can_be_swept():
    environment = scaled_rewards(counting(limit=3), 0.5)
    pgjax.check_environment(environment)
    run = jax.jit(jax.vmap(pgjax.evaluate(environment, pgjax.random_policy(environment), 2), (None, None, 0)))
    params = environment.params._replace(scale=jnp.array([0.5, 1.0, 10.0])), environment.params
    np.testing.assert_array_equal(
        run(KEY, (), environment.params._replace(scale=params[0].scale)), [[3, 3], [6, 6], [60, 60]]
    )
    algorithm = pgjax.reinforce(environment, pgjax.policy_for(environment))
    assert algorithm.hyperparameters().environment.scale == 0.5


def test_a_score_sees_the_rewards_as_they_were_and_is_scaled():
    def score(trajectory, params):
        doubled = 2 * jnp.sum(trajectory.reward, axis=0, keepdims=True)
        return Score(jnp.where(trajectory.last, doubled, 0), {"paid": trajectory.reward})

    environment = scaled_rewards(counting(limit=3)._replace(score=score), 10.0)
    run = jax.jit(pgjax.collect(environment, pgjax.random_policy(environment), slots=1))
    trajectory = run(KEY, (), environment.params)
    np.testing.assert_allclose(trajectory.reward[:3, 0], [0, 0, 120])
    np.testing.assert_allclose(trajectory.notes["paid"][:3, 0], [1, 2, 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: frame_stack(counting(), 0), "1 or more frames, got 0"),
        (lambda: frame_stack(pgjax.maze(), 2), r"observations of a Box to be stacked, got Discrete\(n=23"),
        (lambda: frame_stack(in_parts(), 2), "observations of a Box to be stacked, got MultiDiscrete"),
        (lambda: scaled_rewards(counting(), 0), "a finite factor above 0 for the rewards of counting, got 0"),
        (lambda: scaled_rewards(counting(), float("nan")), "a finite factor above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(pgjax.InputError, match=message):
        make()
