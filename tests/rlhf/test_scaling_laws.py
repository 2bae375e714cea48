"""Best-of-n, diversity, and the laws of over-optimisation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import rlhf


def test_best_of_n_is_the_mean_over_all_subsets():
    rng = np.random.default_rng(0)
    proxy, values = rng.normal(size=7), rng.normal(size=7)
    best = jax.jit(rlhf.best_of_n)
    for n in range(1, 8):
        subsets = list(itertools.combinations(range(7), n))
        expected = np.mean([values[max(subset, key=lambda i: proxy[i])] for subset in subsets])
        assert best(jnp.asarray(proxy), jnp.asarray(values), n) == pytest.approx(expected, abs=1e-5)


def test_the_kl_of_best_of_n_is_that_of_its_law():
    # The i-th smallest of N equally likely scores is the best of n independent draws with (i/N)ⁿ − ((i − 1)/N)ⁿ.
    N = 20_000
    for n in (1, 2, 4, 16):
        p = np.diff((np.arange(N + 1) / N) ** n)
        p = p[p > 0]
        assert rlhf.best_of_n_kl(n) == pytest.approx((p * np.log(p * N)).sum(), abs=2e-3)


def test_n_beyond_the_pool_is_refused():
    for n in (0, 4):
        with pytest.raises(pgjax.InputError, match=f"expected n from 1 to 3, the outputs that there are, got {n}"):
            rlhf.best_of_n(jnp.zeros(3), jnp.zeros(3), n)


TOKENS = jnp.array([[3, 4, 3, 4, 0], [3, 4, 5, 0, 0], [5, 5, 5, 5, 5], [3, 0, 0, 0, 0]])
OUTPUT = TOKENS > 0


def test_distinct_ngrams_by_hand():
    # Tokens: 4 + 3 + 5 + 1, of which 3, 4 and 5 differ. Bigrams: 34 43 34 | 34 45 | 55 55 55 55.
    assert rlhf.distinct_n(TOKENS, OUTPUT, 1) == pytest.approx(3 / 13)
    assert rlhf.distinct_n(TOKENS, OUTPUT, 2) == pytest.approx(4 / 9)
    assert rlhf.distinct_n(TOKENS, OUTPUT, 3) == pytest.approx(4 / 6)  # 343 434 | 345 | 555 555 555
    assert rlhf.distinct_n(TOKENS, jnp.zeros_like(OUTPUT), 2) == 0


def test_overlap_is_with_others():
    np.testing.assert_allclose(rlhf.self_overlap(TOKENS, OUTPUT), [2 / 3, 1 / 2, 0, 0], atol=1e-6)
    alike = jnp.tile(TOKENS[:1], (3, 1))
    np.testing.assert_allclose(rlhf.self_overlap(alike, alike > 0), 1)


def test_fits_find_the_law_that_made_the_points():
    d = np.linspace(0, 3, 12)
    found = rlhf.fit_rl(d, d * (2.0 - 0.8 * np.log(np.where(d > 0, d, 1))))
    assert found == pytest.approx((2.0, 0.8, 1.0, np.exp(2.0 / 0.8 - 1)))
    np.testing.assert_allclose(rlhf.predict_rl(found, [0, 1]), [0, 2])
    found = rlhf.fit_best_of_n(d, d * (2.0 - 0.5 * d))
    assert found == pytest.approx((2.0, 0.5, 1.0, 2.0))
    np.testing.assert_allclose(rlhf.predict_best_of_n(found, [0, 2]), [0, 2])
    assert rlhf.fit_rl(d, d).peak == np.inf or rlhf.fit_rl(d, d).peak > 1e6
    rises = rlhf.fit_best_of_n(d, d**2)
    assert rises.peak == np.inf
    noisy = rlhf.fit_best_of_n(d, d * (2.0 - 0.5 * d) + 0.3 * (-1.0) ** np.arange(12))
    assert 0.5 < noisy.r_squared < 0.95


@pytest.mark.parametrize(
    ("d", "reward", "message"),
    [
        ([1, 2], [1, 2], "expected 3 or more distances"),
        ([1, 2, 3], [1, 2], r"got shapes \(3,\) and \(2,\)"),
        ([1, -2, 3], [1, 2, 3], "expected distances of 0 or more and rewards, all finite"),
        ([1, 2, np.nan], [1, 2, 3], "expected distances of 0 or more and rewards, all finite"),
    ],
)
def test_points_that_no_law_fits_are_refused(d, reward, message):
    for fit in (rlhf.fit_rl, rlhf.fit_best_of_n):
        with pytest.raises(pgjax.InputError, match=message):
            fit(d, reward)


def test_a_reward_that_only_falls_is_largest_at_the_start():
    d = np.linspace(0, 2, 5)
    found = rlhf.fit_best_of_n(d, d * (-1.0 - 0.5 * d))
    assert found == pytest.approx((-1.0, 0.5, 1.0, 0.0))


def test_the_peak_is_where_the_law_is_largest():
    d = np.linspace(0, 4, 100_001)
    for fit, predict, law in (
        (rlhf.fit_rl, rlhf.predict_rl, lambda d: 1.5 - 0.9 * np.log(np.where(d > 0, d, 1))),
        (rlhf.fit_best_of_n, rlhf.predict_best_of_n, lambda d: 1.5 - 0.9 * d),
    ):
        found = fit(d[::5000], d[::5000] * law(d[::5000]))
        assert found.peak == pytest.approx(d[predict(found, d).argmax()], abs=1e-4)
