import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.exact import compounding
from tests.cases import random_mdp

pytestmark = pytest.mark.slow

A, EPSILON = 1024, 1e-3
EXPERT = np.zeros((2, A))
EXPERT[:, 0] = 1
HORIZONS = [8, 16, 32, 64, 128]


@pytest.fixture(autouse=True)
def _exact():
    with jax.enable_x64(True):
        yield


def costs(mdp, learn, horizons=HORIZONS):
    return [
        float(compounding.cost(mdp, T, learn(mdp, T, jnp.asarray(EXPERT), EPSILON), jnp.asarray(EXPERT)))
        for T in horizons
    ]


def test_costs_against_recursions_by_hand():
    def off_the_road(T, leaving, returning):
        q, total = 0.0, 0.0
        for _ in range(T):
            total += q
            q = q * (1 - returning) + (1 - q) * leaving
        return total

    for T in (1, 7, 40):
        expected = {
            ("road", "cloned"): off_the_road(T, EPSILON, 1 / A),
            ("road", "corrected"): EPSILON * (T - 1),
            ("cliff", "cloned"): off_the_road(T, EPSILON, 0),
            ("cliff", "corrected"): off_the_road(T, EPSILON, 0),
        }
        for (where, how), number in expected.items():
            mdp = compounding.road(A, cliff=where == "cliff")
            (found,) = costs(mdp, getattr(compounding, how), [T])
            np.testing.assert_allclose(found, number, rtol=1e-9, atol=1e-15)


def test_the_cost_of_cloning_grows_quadratically_and_that_of_dagger_linearly_unless_nobody_can_recover():
    road, cliff = compounding.road(A), compounding.road(A, cliff=True)
    assert abs(compounding.exponent(HORIZONS, costs(road, compounding.cloned)) - 2) < 0.2
    assert abs(compounding.exponent(HORIZONS, costs(road, compounding.corrected)) - 1) < 0.2
    assert abs(compounding.exponent(HORIZONS, costs(cliff, compounding.corrected)) - 2) < 0.2


@pytest.mark.parametrize("cliff", [False, True])
def test_both_err_equally_often_where_they_were_trained(cliff):
    mdp, expert = compounding.road(A, cliff), jnp.asarray(EXPERT)
    f = compounding.cloned(mdp, 50, expert, EPSILON)
    np.testing.assert_allclose(compounding.error_rate(mdp, 50, f, expert, expert), EPSILON, rtol=1e-9)
    assert compounding.error_rate(mdp, 50, f, expert, f) > 10 * EPSILON  # but not where its errors lead
    g = compounding.corrected(mdp, 50, expert, EPSILON)
    np.testing.assert_allclose(compounding.error_rate(mdp, 50, g, expert, g), EPSILON, rtol=1e-9)


def test_dagger_is_taught_in_all_it_can_reach_one_state_after_the_other():
    # A chain: each error leads one state further, and only who has erred there can err again.
    S = 5
    p = np.zeros((S, 2, S))
    p[:, 0, 0] = 1
    p[np.arange(S), 1, np.minimum(np.arange(S) + 1, S - 1)] = 1
    mdp = pgjax.environments.tables(np.eye(S)[0], p, np.zeros((S, 2)))
    expert = jnp.asarray([[1.0, 0.0]] * S)
    f = compounding.corrected(mdp, 20, expert, 0.1)
    np.testing.assert_allclose(f, [[0.9, 0.1]] * S)
    f = compounding.corrected(mdp, 3, expert, 0.1)  # too short to get further than the third
    np.testing.assert_allclose(f, [[0.9, 0.1]] * 3 + [[0.5, 0.5]] * 2)
    np.testing.assert_allclose(compounding.cloned(mdp, 20, expert, 0.1), [[0.9, 0.1]] + [[0.5, 0.5]] * 4)


def test_an_exponent_is_that_of_a_power():
    np.testing.assert_allclose(compounding.exponent([1, 2, 5], [3, 3 * 2**1.5, 3 * 5**1.5]), 1.5)


def test_a_road_needs_a_way_to_leave_it():
    with pytest.raises(pgjax.InputError, match="expected 2 or more actions, got 1"):
        compounding.road(1)


def test_costs_are_differences_of_expected_returns():
    mdp = random_mdp()
    f, g = jnp.full((3, 2), 0.5), jnp.asarray([[1.0, 0.0]] * 3)
    expected = pgjax.exact.expected_return(mdp, 4, g) - pgjax.exact.expected_return(mdp, 4, f)
    np.testing.assert_allclose(compounding.cost(mdp, 4, f, g), expected)
