import itertools

import numpy as np
import pytest

import pgjax
from pgjax.sweeps import looks
from tests.sweeps.test_sweep import ALGORITHM, ASYNCHRONOUS, GRID, STARTS, swept, walked

BEGUN = np.array([10.0, 78, 1109])  # totals of the seeds 9, 2, 5 before the first iteration


def seen_by(run, **options):
    seen = []
    return run(report=seen.append, **options), seen


def test_a_look_is_at_every_point_of_the_batch_and_averages_over_seeds():
    # Four runs, then two: rate 1 of three seeds and rate 10 of the first; rate 10 of the two others.
    _, seen = seen_by(walked)
    places = [(look.point["rate"], look.iteration, look.seeds, look.finished) for look in seen]
    first = [(rate, i, seeds, i == 3) for i in (1, 2, 3) for rate, seeds in ((1.0, 3), (10.0, 1))]
    assert places == first + [(10.0, i, 3, i == 3) for i in (1, 2, 3)]
    for look in seen:
        total = look.metrics["total"]
        runs = BEGUN[: look.seeds] + 3 * look.point["rate"] * look.iteration
        low, high = pgjax.confidence_interval(runs)
        np.testing.assert_allclose(total, [runs.mean(), pgjax.interquartile_mean(runs), low, high], rtol=1e-6)
        assert look.failed == 0
    assert [look.name for look in seen[-2:]] == ["rate=10, seeds=3"] * 2


def test_failed_runs_are_counted_and_left_out():
    start = {"w": STARTS["w"].copy(), "b": STARTS["b"]}
    start["w"][1] = 3e38  # whose sum is infinite
    _, seen = seen_by(walked, by_seed={"start": start}, batch=6)
    for look in seen:
        assert (look.seeds, look.failed) == (3, 1)
        mean = BEGUN[[0, 2]].mean() + 3 * look.point["rate"] * look.iteration
        np.testing.assert_allclose(look.metrics["total"][:2], mean, rtol=1e-6)
    start["w"][:] = 3e38
    _, seen = seen_by(walked, by_seed={"start": start}, batch=6)
    assert all(look.failed == 3 and np.isnan(look.metrics["total"]).all() for look in seen)


@pytest.mark.parametrize("algorithm", [ALGORITHM, ASYNCHRONOUS], ids=["together", "asynchronous"])
def test_looks_are_what_the_results_say_and_change_nothing(algorithm):
    found, seen = seen_by(swept, algorithm=algorithm, grid=GRID, batch=8)
    plain = swept(algorithm, grid=GRID, batch=8)
    for name in ("episode_return", "entropy"):
        np.testing.assert_array_equal(found[name], plain[name])
    last = {tuple(look.point.values()): look for look in seen}
    assert len(last) == 6
    for (rate, discount), look in last.items():
        assert look.finished
        assert (look.iteration, look.seeds) == (7, 5)
        here = found.sel(learning_rate=rate, discount=discount, iteration=7)
        assert look.metrics.keys() == {name for name in found.data_vars if "iteration" in found[name].dims}
        for name, average in look.metrics.items():
            assert average.mean == pytest.approx(float(here[name].mean()), rel=1e-5, abs=1e-6)
    for before, after in itertools.pairwise(seen):
        assert before.name != after.name or before.iteration < after.iteration


def test_what_is_finished_is_not_reported_again(tmp_path):
    options = {"grid": {"learning_rate": [0.1, 0.5]}, "out": tmp_path, "batch": 5}
    _, seen = seen_by(swept, **options)
    assert len(seen) == 14
    assert seen_by(swept, **options)[1] == []


def test_no_seed_of_a_batch_counts_twice(tmp_path):
    # A batch of which a run is missing is computed whole; its other runs are completed already.
    found = swept(out=tmp_path, batch=5)
    completed = found.completed.load()
    completed[1] = False
    completed.to_dataset().drop_vars(completed.coords).to_zarr(found.encoding["source"], mode="r+", consolidated=False)
    _, seen = seen_by(swept, out=tmp_path, batch=5)
    assert [look.seeds for look in seen] == [5] * 7


def test_a_report_that_fails_ends_the_sweep_and_what_is_finished_is_kept(tmp_path):
    def report(look):
        if look.seeds > 4:
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        swept(report=report, out=tmp_path, batch=4, block=4)
    assert pgjax.read(tmp_path).completed.values.tolist() == [True] * 4 + [False]


def test_averages_of_no_runs_are_not_numbers():
    assert np.isnan(looks.averages(["a"], np.empty((1, 0)))["a"]).all()
