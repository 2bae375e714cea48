import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.environments import partly_observed

KEY = jax.random.key(0)


def test_what_is_seen_is_a_part_of_what_there_is_and_the_rest_is_as_it_was():
    whole = pgjax.from_gymnax("CartPole-v1")
    environment = partly_observed(whole, (2, 0))
    pgjax.check_environment(environment)
    assert (environment.horizon, environment.params) == (whole.horizon, whole.params)
    np.testing.assert_array_equal(environment.observation_space.high, np.asarray(whole.observation_space.high)[[2, 0]])
    state, observation = environment.reset(KEY, environment.params)
    all_of_it = whole.reset(KEY, whole.params)[1]
    np.testing.assert_array_equal(observation, [all_of_it[2], all_of_it[0]])
    action = jnp.int32(1)
    (after, step), (as_well, full) = (e.step(KEY, state, action, e.params) for e in (environment, whole))
    np.testing.assert_array_equal(step.observation, [full.observation[2], full.observation[0]])
    jax.tree.map(np.testing.assert_array_equal, (after, step.reward), (as_well, full.reward))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: partly_observed(pgjax.maze(), (0,)),
            "expected observations of one axis to be seen in part, got Discr",
        ),
        (lambda: partly_observed(pgjax.navigation(), ()), "expected one or more numbers from 0 to 11 that are seen"),
        (lambda: partly_observed(pgjax.navigation(), (0, 12)), r"numbers from 0 to 11 that are seen, got \[0, 12\]"),
    ],
)
def test_what_cannot_be_hidden_is_refused(make, message):
    with pytest.raises(pgjax.InputError, match=message):
        make()
