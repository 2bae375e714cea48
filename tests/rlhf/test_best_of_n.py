import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import rlhf


def test_values_of_any_shape_are_averaged_alike():
    rng = np.random.default_rng(0)
    proxy, values = jnp.asarray(rng.normal(size=9)), jnp.asarray(rng.normal(size=(9, 2, 3)))
    found = rlhf.best_of_n(proxy, values, 4)
    assert found.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        assert found[i, j] == pytest.approx(float(rlhf.best_of_n(proxy, values[:, i, j], 4)), abs=1e-6)


def test_the_whole_pool_gives_its_best_and_one_gives_the_mean():
    proxy, values = jnp.array([0.0, 3.0, 1.0]), jnp.array([5.0, 7.0, 9.0])
    assert rlhf.best_of_n(proxy, values, 3) == 7
    assert rlhf.best_of_n(proxy, values, 1) == pytest.approx(7, abs=1e-6)


def test_values_of_another_pool_are_refused():
    with pytest.raises(AssertionError):
        rlhf.best_of_n(jnp.zeros(3), jnp.zeros(4), 2)
