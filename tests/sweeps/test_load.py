import jax
import numpy as np
import pytest
import xarray as xr

import pgjax
from pgjax.sweeps import store

POLICY = pgjax.tabular(states=2, actions=4)
ALGORITHM = pgjax.reinforce(pgjax.maze("#SE#", horizon=8), POLICY, slots=4)
LIKE = jax.eval_shape(POLICY.init, jax.random.key(0))
RATES = [0.1, 0.3]


def swept(out=None, seeds=range(5), **options):
    options = {"grid": {"learning_rate": RATES}, "iterations": 2, "configuration": {"env": "x"}} | options
    return pgjax.sweep(ALGORITHM, seeds=seeds, out=out, progress=False, **options)


def fixed(rate):
    return {"grid": None, "hyperparameters": ALGORITHM.hyperparameters(learning_rate=rate)}


@pytest.fixture(scope="module")
def whole():
    """All runs of one sweep."""
    return swept().load()


def assert_same(joined, whole):
    xr.testing.assert_allclose(joined.drop_vars("seconds"), whole.drop_vars("seconds"))
    for rate in RATES:
        for seed in (None, 3):
            ours, theirs = (
                pgjax.load_params(one, LIKE, seed=seed, point={"learning_rate": rate}) for one in (joined, whole)
            )
            np.testing.assert_allclose(ours, theirs)


def test_parts_by_seeds_are_the_whole(whole, tmp_path):
    swept(tmp_path / "a", seeds=[4, 1])
    later = swept(tmp_path / "b", seeds=[0, 2, 3])
    joined = pgjax.join([tmp_path / "a", later])
    assert_same(joined, whole)
    assert joined.completed.all()
    assert pgjax.sweeps.configuration_of(joined) == {"env": "x"}
    assert joined.attrs["device"] == whole.attrs["device"]
    expert = pgjax.trained(joined, POLICY, point={"learning_rate": 0.3})
    np.testing.assert_allclose(expert.params, pgjax.trained(whole, POLICY, point={"learning_rate": 0.3}).params)


def test_parts_by_the_grid_are_the_whole(whole):
    joined = pgjax.join([swept(grid={"learning_rate": [rate]}) for rate in RATES[::-1]])
    assert joined.learning_rate.values.tolist() == RATES  # in the order of their values, not in that of the parts
    assert_same(joined, whole)


def test_parts_with_one_value_each_are_the_whole(whole):
    joined = pgjax.join([swept(**fixed(rate)) for rate in RATES])
    assert joined.learning_rate.values.tolist() == RATES
    assert_same(joined, whole)
    assert_same(pgjax.join([swept(**fixed(0.3)), swept(grid={"learning_rate": [0.1]})]), whole)


def test_options_that_are_dimensions_may_differ(whole):
    parts = [swept(**fixed(rate), configuration={"env": "x", "learning_rate": [rate]}) for rate in RATES]
    assert pgjax.sweeps.configuration_of(pgjax.join(parts)) == {"env": "x", "learning_rate": RATES}


def test_what_is_not_there_yet_is_not_completed(whole, tmp_path):
    swept(tmp_path / "b", seeds=[0, 2, 3])
    complete = store.read(tmp_path / "b")
    running = store.create(
        tmp_path / "a",
        pgjax.sweeps.load.whole_configuration(complete) | {"seeds": [1, 4]},
        {"learning_rate": RATES},
        [1, 4],
        2,
        [name for name in complete.data_vars if name not in store.RESERVED],
    )
    joined = pgjax.join([running, tmp_path / "b"])
    np.testing.assert_array_equal(joined.completed, [[True, False, True, True, False]] * 2)
    assert np.isnan(joined.episode_return.sel(seed=1)).all()
    kept = pgjax.load_params(joined, LIKE, seed=3, point={"learning_rate": 0.3})
    np.testing.assert_allclose(kept, pgjax.load_params(whole, LIKE, seed=3, point={"learning_rate": 0.3}))
    with pytest.raises(pgjax.InputError, match="expected completed runs, got 2 that are not yet"):
        pgjax.load_params(joined, LIKE, point={"learning_rate": 0.3})


def test_a_corner_of_the_grid_may_be_missing():
    joined = pgjax.join([swept(seeds=[0], grid={"learning_rate": [0.1]}), swept(seeds=[1])])
    np.testing.assert_array_equal(joined.completed, [[True, True], [False, True]])


def test_what_is_not_of_one_study_is_not_joined():
    one = swept(seeds=[0, 1])
    with pytest.raises(pgjax.InputError, match="one or more sweeps to join, got none"):
        pgjax.join([])
    with pytest.raises(pgjax.InputError, match="got a run of seed 1 in two"):
        pgjax.join([one, swept(seeds=[1, 2])])
    with pytest.raises(pgjax.InputError, match="study is 1 there and 0 here"):
        pgjax.join([one, swept(seeds=[2], study=1)])
    with pytest.raises(pgjax.InputError, match="iterations is 3 there and 2 here"):
        pgjax.join([one, swept(seeds=[2], iterations=3)])
    with pytest.raises(pgjax.InputError, match="env is 'y' there and 'x' here"):
        pgjax.join([one, swept(seeds=[2], configuration={"env": "y"})])
