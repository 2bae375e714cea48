import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import pgjax
from pgjax.hyperparameters import numbers_of
from pgjax.sweeps import Range, runner
from pgjax.sweeps.designs import points_at, random_points, sobol_points
from pgjax.sweeps.tuning import Rung, best_point, judged, numbered, record_of, schedule, sensitivity_of, tune
from pgjax.sweeps.tuning import successive_halving as halving

DESIGNS = {"random": random_points, "sobol": sobol_points}
SPACE = {"rate": Range(1.0, 16.0), "offset": Range(-1.0, 1.0, log=False)}


class Numbers(NamedTuple):
    rate: float = 1.0
    offset: float = 0.0


class Walk(NamedTuple):
    params: jax.Array
    numbers: Numbers


class Place(NamedTuple):
    total: jax.Array


def walk_on(walk):
    params = walk.params + walk.numbers.rate - walk.numbers.offset
    return walk._replace(params=params), Place(jnp.where(walk.numbers.rate > 100, jnp.nan, params))


# An algorithm that adds its rate, less its offset, to zero or one in each iteration.
WALK = pgjax.Algorithm(
    lambda key, numbers: Walk(jax.random.bernoulli(key).astype(float), numbers), walk_on, numbers_of(Numbers())
)


def last_total(results):
    return results.total.isel(iteration=-1)


def tuned(**options):
    defaults = {"iterations": 3, "points": 8, "seeds": 2, "rungs": 3, "fresh_seeds": 5, "score": last_total}
    return tune(WALK, **{"space": SPACE, "progress": False, "configuration": {}} | defaults | options)


@pytest.mark.parametrize("design", DESIGNS)
def test_points_are_within_their_ranges_and_the_same_for_the_same_seed(design):
    points = DESIGNS[design](SPACE, 20, seed=3)
    assert list(points) == list(SPACE)
    for name, (low, high, _) in SPACE.items():
        assert points[name].shape == (20,)
        assert len(set(points[name])) == 20
        assert low <= points[name].min() < points[name].max() <= high
        np.testing.assert_array_equal(points[name], DESIGNS[design](SPACE, 20, seed=3)[name])
        assert (points[name] != DESIGNS[design](SPACE, 20, seed=4)[name]).any()


def test_a_sobol_sequence_has_as_many_points_in_each_part_of_every_range():
    points = sobol_points(SPACE, 16, seed=0)
    for name, numbers in SPACE.items():
        np.testing.assert_array_equal(np.bincount((16 * numbers.place(points[name])).astype(int), minlength=16), 1)


def test_a_range_is_even_on_its_scale():
    places = np.array([[0.0, 0.0], [0.5, 0.25], [1.0, 1.0]])
    points = points_at(SPACE, places)
    np.testing.assert_allclose(points["rate"], [1, 4, 16])
    np.testing.assert_allclose(points["offset"], [-1, -0.5, 1])
    for (name, numbers), place in zip(SPACE.items(), places.T, strict=True):
        np.testing.assert_allclose(numbers.place(points[name]), place, atol=1e-12)


def test_points_have_names_of_six_digits_and_stay_within():
    points = points_at({"rate": Range(1.23456789, 9.87654321)}, np.array([[0.0], [0.5], [1.0]]))
    assert points["rate"].tolist() == [1.23457, 3.49189, 9.87654]


def test_half_of_the_points_are_left_with_twice_the_seeds():
    assert schedule(16, 8, 3) == [(16, range(8)), (8, range(8, 16)), (4, range(16, 32))]
    assert schedule(16, 8, 1, first_seed=5) == [(16, range(5, 13))]
    assert schedule(3, 1, 9, first_seed=5) == [(3, range(5, 6)), (2, range(6, 7))]
    assert schedule(1, 4, 3) == [(1, range(4))]


def test_halving_keeps_the_better_half_by_all_their_seeds():
    # What the seeds 10, then 11, then 12 and 13, say of four points. Point 0 leads until it is seen more often.
    truth = np.array([[9.0, -9, 0, 0], [5, 5, 5, 5], [7, 6, 1, 1], [-np.inf, 8, 8, 8]])
    seen = []

    def run(rung):
        seen.append(rung)
        return truth[np.ix_(rung.points, [seed - 10 for seed in rung.seeds])]

    rungs, scores = halving(run, [(4, range(10, 11)), (2, range(11, 12)), (1, range(12, 14))])
    assert rungs == seen == [Rung([0, 1, 2, 3], range(10, 11)), Rung([0, 2], range(11, 12)), Rung([2], range(12, 14))]
    np.testing.assert_array_equal(scores[2], truth[2])
    np.testing.assert_array_equal(scores[1], [5, np.nan, np.nan, np.nan])


def test_of_equal_points_the_first_are_kept():
    rungs, _ = halving(lambda rung: np.zeros((len(rung.points), len(rung.seeds))), schedule(4, 1, 2))
    assert rungs[1].points == [0, 1]


def test_the_runs_at_numbered_points_are_those_of_a_grid():
    algorithm = pgjax.reinforce(pgjax.maze("#SE#", horizon=8), pgjax.tabular(states=2, actions=4), slots=4)
    points = {"learning_rate": np.array([0.1, 0.3, 0.2]), "discount": np.array([0.9, 1.0, 0.9])}
    several = numbered(algorithm, algorithm.hyperparameters(entropy_coefficient=0.1), points)
    options = {"iterations": 4, "seeds": range(3), "progress": False}
    found = pgjax.sweep(several, grid={"point": [2, 1]}, **options)
    grid = {"learning_rate": [0.2, 0.3], "discount": [0.9, 1.0]}
    whole = pgjax.sweep(
        algorithm, grid=grid, hyperparameters=algorithm.hyperparameters(entropy_coefficient=0.1), **options
    )
    for point, chosen in ((2, (0, 0)), (1, (1, 1))):
        for name in ("episode_return", "gradient_norm", "entropy"):
            np.testing.assert_allclose(found[name].sel(point=point), whole[name][chosen], rtol=1e-6)


def test_the_best_point_wins_and_is_run_on_fresh_seeds():
    found = tuned()
    worth = 3 * (found.points["rate"] - found.points["offset"])
    best = int(np.argmax(worth))
    assert found.winner == {name: values[best] for name, values in found.points.items()}
    assert [len(rung.points) for rung in found.rungs] == [8, 4, 2]
    assert [rung.seeds for rung in found.rungs] == [range(2), range(2, 4), range(4, 8)]
    assert found.fresh.seed.values.tolist() == [8, 9, 10, 11, 12]
    starts = np.asarray([jax.random.bernoulli(key) for key in pgjax.run_keys(0, range(13))], float)
    np.testing.assert_allclose(found.scores[best], worth[best] + starts[:8], rtol=1e-5)
    assert found.chosen_by == pytest.approx(worth[best] + pgjax.interquartile_mean(starts[:8]), rel=1e-5)
    assert found.estimate.value == pytest.approx(worth[best] + pgjax.interquartile_mean(starts[8:]), rel=1e-5)
    assert found.estimate.low <= found.estimate.value <= found.estimate.high
    dropped = sorted(set(range(8)) - set(found.rungs[1].points))
    assert np.isnan(found.scores[dropped, 2:]).all()
    assert np.isfinite(found.scores[:, :2]).all()


def test_each_look_names_its_rung_and_its_point():
    looks = []
    found = tuned(report=looks.append, batch=4)
    last = {tuple(look.point.items()): look for look in looks if look.finished}
    for number, rung in enumerate(found.rungs):
        for point in rung.points:
            values = {name: numbers[point] for name, numbers in found.points.items()}
            seeds = slice(rung.seeds.start, rung.seeds.stop)
            look = last.pop(tuple({"rung": number, **values}.items()))
            assert look.seeds == len(rung.seeds)
            assert look.metrics["total"].mean == pytest.approx(found.scores[point, seeds].mean(), rel=1e-5)
    [(point, look)] = last.items()
    assert dict(point) == {"rung": 3, **found.winner}
    assert look.metrics["total"].iqm == pytest.approx(found.estimate.value, rel=1e-5)


def test_no_seed_that_a_choice_was_made_on_is_among_the_fresh_ones():
    for points, rungs, first in ((1, 1, 0), (5, 2, 7), (8, 9, 100)):
        found = tuned(points=points, rungs=rungs, first_seed=first, seeds=1, fresh_seeds=2)
        chosen_on = [seed for rung in found.rungs for seed in rung.seeds]
        assert chosen_on == list(range(first, first + len(chosen_on)))
        assert found.fresh.seed.values.tolist() == [chosen_on[-1] + 1, chosen_on[-1] + 2]


def test_what_is_written_is_the_record_and_the_same_arguments_compute_nothing(tmp_path, monkeypatch):
    found = tuned(out=tmp_path)
    record = json.loads((tmp_path / "tuning.json").read_text())
    assert record == record_of(found)
    assert record["space"]["rate"] == {"low": 1.0, "high": 16.0, "log": True}
    # Eight points of two seeds, four of two more, two of four more.
    assert record["budget"] | {"seconds": 0} == {
        "points": 8,
        "choosing_runs": 32,
        "fresh_runs": 5,
        "iterations": 3,
        "seconds": 0,
    }
    assert sorted({len(trial["scores"]) for trial in record["trials"]}) == [2, 4, 8]
    assert record["winner"]["seeds"] == [8, 12]
    assert record["rungs"][1]["seeds"] == [2, 3]
    assert pgjax.read(tmp_path / "rung-1").point.values.tolist() == found.rungs[1].points
    assert float(pgjax.load_params(tmp_path / "fresh", jnp.float32(0), seed=9)) == last_total(found.fresh)[1]
    monkeypatch.setattr(runner, "compile_program", None)
    assert record_of(tuned(out=tmp_path)) == record
    with pytest.raises(pgjax.InputError, match="expected a new directory or one with results of this configuration"):
        tuned(out=tmp_path, space={"rate": Range(1.0, 15.0), "offset": SPACE["offset"]})


def test_tuning_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    expected, sweep = record_of(tuned()), pgjax.sweeps.tuning.sweep
    calls = []

    def stopped(*arguments, **options):
        calls.append(options["out"].name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sweep(*arguments, **options)

    monkeypatch.setattr(pgjax.sweeps.tuning, "sweep", stopped)
    with pytest.raises(KeyboardInterrupt):
        tuned(out=tmp_path)
    assert not (tmp_path / "tuning.json").exists()
    found = record_of(tuned(out=tmp_path))
    assert calls == ["rung-0", "rung-1", "rung-2", "rung-0", "rung-1", "rung-2", "fresh"]
    for record in (found, expected):
        del record["budget"]["seconds"]
    assert found == expected


def test_a_point_whose_runs_fail_is_the_worst():
    found = tuned(space={"rate": Range(1.0, 1000.0)}, points=8, rungs=1)
    broken = found.points["rate"] > 100
    assert broken.any()
    np.testing.assert_array_equal(found.scores[broken], -np.inf)
    assert found.winner["rate"] == found.points["rate"][~broken].max()
    assert found.sensitivity["rate"][2] is None
    trial = record_of(found)["trials"][int(np.argmax(broken))]
    assert trial["scores"] == [None, None]
    assert trial["iqm"] is None
    with pytest.raises(pgjax.InputError, match="expected a point at which most runs do not fail, got none among 8"):
        tuned(space={"rate": Range(200.0, 1000.0)})


def test_failed_fresh_runs_are_named_and_left_out():
    def score(results):
        return last_total(results).where(results.seed != 9)

    found = tuned(score=score)
    assert found.failed_seeds == [9]
    assert np.isfinite(found.estimate.value)
    none = tuned(score=lambda results: last_total(results).where(results.seed < 8), fresh_seeds=2)
    assert record_of(none)["winner"]["iqm"] is None
    assert none.failed_seeds == [8, 9]


def test_sensitivity_is_the_best_of_each_third():
    points = points_at({"rate": Range(1.0, 1000.0)}, np.array([[0.0], [0.3], [0.4], [0.6], [1.0]]))
    scores = np.array([1.0, 5.0, 4.0, 2.0, -np.inf])
    assert sensitivity_of({"rate": Range(1.0, 1000.0)}, points, scores) == {"rate": [5.0, 4.0, None]}


def test_the_best_point_of_a_grid_has_the_best_middle_half():
    values = np.array([[[1.0, 2.0, 3.0, 9.0], [2.0, 2.5, 3.0, np.nan]], [[0.0, 0.0, 100.0, 0.0], [0, 2.4, 2.4, 0]]])
    np.testing.assert_array_equal(judged(values), [[2.5, 2.25], [0, 1.2]])
    per_run = xr.DataArray(values, {"a": [0.1, 0.2], "b": [3.0, 4.0]}, ("a", "b", "seed"))
    assert best_point(per_run) == best_point(per_run.transpose("seed", "b", "a")) == {"a": 0.1, "b": 3.0}


def test_the_best_learning_rate_is_that_of_the_best_runs_by_either_measure():
    returns = np.array([[1.0, 2.0, 3.0, 9.0], [2.0, 2.5, 3.0, np.nan], [0.0, 0.0, 100.0, 0.0]])[..., None]
    axes = ("learning_rate", "seed", "iteration")
    results = xr.Dataset(
        {"episode_return": (axes, returns), "episodes": (axes, np.full_like(returns, 100.0))},
        {"learning_rate": [1.0, 2.0, 3.0]},
    )
    # Interquartile means of 4 runs are those of the middle two: 2.5; 2.25, as what failed is the worst; 0.
    assert best_point(pgjax.analysis.final_return(results)) == {"learning_rate": 1.0}
    curves = xr.DataArray([[[1.0, 5], [1, 5]], [[4, 4], [4, 4]], [[9, 9], [np.nan, 9]]], dims=axes)
    per_run = curves.assign_coords(learning_rate=[0.1, 0.2, 0.3]).mean("iteration", skipna=False)
    assert best_point(per_run) == {"learning_rate": 0.2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": {}}, "expected a range of one or more hyper-parameters, got none"),
        (
            {"space": {"rate": Range(0.0, 1.0)}},
            "a range of rate from a number above 0 to a larger one, got 0.0",
        ),
        (
            {"space": {"rate": Range(2.0, 2.0, log=False)}},
            "a range of rate from a number to a larger one, got 2",
        ),
        ({"space": {"speed": Range(1.0, 2.0)}}, "expected the name of a hyper-parameter, got 'speed'"),
        ({"points": 0}, "expected points to be an integer of 1 or more, got 0"),
        ({"seeds": 1.5}, "expected seeds to be an integer of 1 or more, got 1.5"),
        ({"first_seed": -1}, "expected first_seed to be an integer of 0 or more, got -1"),
    ],
)
def test_what_cannot_be_tuned_is_refused(monkeypatch, options, message):
    monkeypatch.setattr(runner, "compile_program", None)
    with pytest.raises(pgjax.InputError, match=message):
        tuned(**options)
