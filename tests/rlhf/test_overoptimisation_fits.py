import numpy as np
import pytest

from pgjax import rlhf


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
