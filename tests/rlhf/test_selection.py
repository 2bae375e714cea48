import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

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


@pytest.mark.parametrize("N", [1, 1000, 50_000])
def test_float32_loses_nothing_in_a_large_pool(N):
    def log_choose(a, b):
        return gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)

    proxy = np.random.default_rng(0).normal(size=N).astype(np.float32)
    best, i = jax.jit(rlhf.best_of_n), np.arange(1, N + 1)
    for n in {1, min(4, N), min(100, N), N}:
        weight = np.where(i >= n, np.exp(log_choose(np.maximum(i, n) - 1, n - 1) - log_choose(N, n)), 0)
        assert best(jnp.asarray(proxy), jnp.asarray(proxy), n) == pytest.approx(weight @ np.sort(proxy), abs=1e-5)


@pytest.mark.parametrize("strange", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_proxy_that_is_not_finite_makes_no_number(strange):
    found = jax.jit(rlhf.best_of_n)(jnp.array([0.0, strange, 1.0]), jnp.array([[5.0, 1.0], [7.0, 1.0], [9.0, 1.0]]), 2)
    np.testing.assert_array_equal(found, [jnp.nan, jnp.nan])


def test_among_equal_proxies_the_later_one_is_chosen():
    # Of the pairs 01, 02 and 12, the best are 1, 2 and 2.
    assert rlhf.best_of_n(jnp.zeros(3), jnp.array([9.0, 1.0, 4.0]), 2) == pytest.approx(3)
