import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax


def test_discrete_actions_are_equally_likely():
    policy = pgjax.random_policy(pgjax.maze())
    _, distribution = policy.step((), (), jnp.zeros(5, jnp.int32))
    np.testing.assert_allclose(jnp.exp(distribution.log_prob(jnp.arange(4).repeat(2)[:5])), 0.25, rtol=1e-6)


def test_continuous_actions_fill_their_box_evenly():
    pendulum = pgjax.from_gymnax("Pendulum-v1")
    _, distribution = pgjax.random_policy(pendulum).step((), (), jnp.zeros((100_000, 3)))
    actions = distribution.sample(jax.random.key(0))
    assert actions.shape == (100_000, 1)
    assert float(jnp.abs(actions).max()) <= 2
    assert abs(float(actions.mean())) < 4 * np.sqrt(4 / 3 / 1e5)  # 4 standard errors: wrong in 1 of 15000
    assert abs(float((actions**2).mean()) - 4 / 3) < 4 * np.sqrt(64 / 45 / 1e5)
    np.testing.assert_allclose(distribution.log_prob(actions), -np.log(4), rtol=1e-6)
    np.testing.assert_allclose(distribution.entropy(), np.log(4), rtol=1e-6)
    assert (distribution.log_prob(jnp.full((100_000, 1), 2.1)) == -jnp.inf).all()


def test_unbounded_actions_are_refused():
    environment = pgjax.from_gymnax("Pendulum-v1")._replace(action_space=pgjax.Box(-jnp.inf, 1.0, (1,)), name="endless")
    with pytest.raises(pgjax.InputError, match=r"expected bounded actions of shape .* in endless"):
        pgjax.random_policy(environment)
