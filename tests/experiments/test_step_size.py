import json

import numpy as np
import pytest
import xarray as xr

import pgjax
from experiments import step_size as study
from pgjax.sweeps import runner
from tests.cases import assert_refused, run_experiment

SMALL = ["--env", "maze", "--seeds", "3", "--iterations", "4", "--slots", "2"]
RANDOM = np.log(2)


def test_writes_results_summary_figure_and_table(monkeypatch, tmp_path, capsys):
    arguments = [*SMALL, "--optimizer", "adam", "--learning-rate", "0.1", "0.01", "--out", tmp_path]
    assert run_experiment(monkeypatch, study, *arguments) == 0
    table = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["definitions"]) == set(study.CLASSES) == set(study.COLOURS)
    assert summary["thresholds"]["solved"] == study.SOLVED
    points = [(row["optimizer"], row["entropy_coefficient"], row["learning_rate"]) for row in summary["rows"]]
    assert points == [("adam", c, eta) for c in (0.0, 0.3) for eta in (0.01, 0.1)]
    for row in summary["rows"]:
        assert row["environment"] == "maze"
        assert sum(row["counts"].values()) == row["runs"] == 3
        assert sum(row["fractions"].values()) == pytest.approx(1)
        assert all(
            row["intervals"][name][0] <= row["fractions"][name] <= row["intervals"][name][1] for name in study.CLASSES
        )
        assert set(row["counts"]) == set(row["fractions"]) == set(study.CLASSES)
        assert row["interval"][0] <= row["iqm"] <= row["interval"][1]
        assert 0 <= row["final_entropy"] <= np.log(4) + 1e-5
        assert row["final_gradient_norm"] >= 0
        assert 0 <= row["zero_gradient_below_best"] <= 1
        assert study.heading(row) in table
    found = pgjax.read(tmp_path / "maze-adam")
    assert dict(found.sizes) == {"entropy_coefficient": 2, "learning_rate": 2, "seed": 3, "iteration": 4}
    assert (tmp_path / "step_size.png").read_bytes().startswith(b"\x89PNG")

    # The same command again computes nothing and says the same.
    monkeypatch.setattr(runner, "compile_program", None)
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_numbers_that_are_not_finite_count_as_overstepped(monkeypatch, tmp_path):
    huge = ["--optimizer", "sgd", "--entropy-coefficient", "0", "--learning-rate", "3e38", "--slots", "16"]
    assert run_experiment(monkeypatch, study, *SMALL, *huge, "--out", tmp_path) == 0
    (row,) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert row["failed_seeds"]
    assert row["counts"]["overstepped"] == len(row["failed_seeds"])


@pytest.mark.parametrize("environment", study.PROBLEMS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_default_map_has_ten_learning_rates_and_100_seeds(environment, optimizer):
    rates = study.PROBLEMS[environment].learning_rates[optimizer]
    assert len(rates) == 10
    np.testing.assert_allclose(np.diff(np.log10(rates)), 0.5, atol=0.03)
    assert study.Options().seeds == 100


def run_with(episode_return, entropy=RANDOM, gradient_norm=1.0):
    """Six updates of a run, 50 episodes each: the first from return 0, at random, with a gradient norm of 1."""

    def curve(start, rest):
        return [start, *np.broadcast_to(rest, 5)]

    return curve(0.0, episode_return), curve(RANDOM, entropy), curve(1.0, gradient_norm)


# By hand, for a best return of 100 and two actions. The last updates are the last two: they have 100 episodes.
RUNS = [
    ("solved", run_with([20, 40, 80, 96, 96])),
    ("solved", run_with([20, 40, 80, 96, 96], entropy=0, gradient_norm=0)),  # and that is no commitment too early
    ("solved", run_with([90, 10, 10, 96, 96])),  # it came back
    ("unfinished", run_with([20, 40, 80, 94, 94])),
    ("unfinished", run_with([20, 40, 80, 100, 88], gradient_norm=[1, 1, 1, 0, 1])),  # no gradient where it is the best
    ("flat", run_with(20, gradient_norm=0)),
    ("flat", run_with(-10, gradient_norm=0.049)),  # below the return it started from
    ("unfinished", run_with(20, gradient_norm=0.051)),
    ("flat", run_with(20, gradient_norm=[1, 1, 1, 0, 1])),  # every other update
    ("unfinished", run_with(20, gradient_norm=[0, 0, 0, 1, 1])),  # it found the way out
    ("overcommitted", run_with(20, entropy=0.049 * RANDOM)),
    ("overcommitted", run_with(20, entropy=0, gradient_norm=0)),  # and not flat
    ("unfinished", run_with(20, entropy=0.051 * RANDOM)),
    ("overstepped", run_with([60, 60, 60, 29, 29])),
    ("overstepped", run_with([60, 60, 10, 10, 10], entropy=0, gradient_norm=0)),  # whatever it ended as
    ("overstepped", run_with([100, 100, 100, 0, 0])),
    ("unfinished", run_with([60, 60, 60, 31, 31])),
    ("unfinished", run_with([9, 9, 9, 0, 0])),  # never rose
    ("overstepped", run_with([20, 40, 80, np.nan, np.nan])),
    ("overstepped", run_with([20, 40, 80, 96, 96], gradient_norm=[1, 1, 1, np.inf, 1])),
]


def dataset(runs):
    """The results of a sweep of these runs."""
    episode_return, entropy, gradient_norm = np.moveaxis(np.array(runs), 1, 0)
    curves = {"episode_return": episode_return, "entropy": entropy, "gradient_norm": gradient_norm}
    curves["episodes"] = np.full(episode_return.shape, 50.0)
    return xr.Dataset({name: (("seed", "iteration"), curve) for name, curve in curves.items()})


@pytest.mark.parametrize("number", range(len(RUNS)))
def test_a_run_is_classified_by_how_its_curves_end(number):
    expected, run = RUNS[number]
    assert study.classify(dataset([run]), best=100.0, actions=2).item() == expected


def test_runs_are_classified_alike_alone_and_in_a_grid():
    results = dataset([run for _, run in RUNS]).assign_coords(seed=range(len(RUNS)))
    grid = results.expand_dims(learning_rate=[0.1, 1.0], axis=-1)  # in another order of dimensions
    classes = study.classify(grid, best=100.0, actions=2)
    for eta in (0.1, 1.0):
        assert classes.sel(learning_rate=eta).values.tolist() == [expected for expected, _ in RUNS]


def test_a_run_with_fewer_than_100_episodes_is_judged_whole():
    results = dataset([run_with(20)])
    assert study.last_updates(results) == 2
    assert study.last_updates(results.assign(episodes=results.episodes / 50)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "1 or more seeds, got 0"),
        (["--iterations", "0"], "iterations to be an integer of 1 or more, got 0"),
        (["--slots", "1"], "2 or more slots for a leave-one-out baseline, got 1"),
        (["--learning-rate", "nan"], "expected a finite --learning-rate, got nan"),
        (["--learning-rate", "0.1", "0.1"], "every value of learning_rate once"),
        (["--entropy-coefficient", "inf"], "expected a finite --entropy-coefficient, got inf"),
        (["--hidden", "0"], "width 1 or more, got 0"),
        (["--batch", "0"], "batch to be an integer of 1 or more, got 0"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_status_2(monkeypatch, tmp_path, capsys, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "out"], message)
    assert not (tmp_path / "out").exists()


def test_a_directory_of_something_else_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runner, "compile_program", None)
    (tmp_path / "notes.txt").write_text("mine")
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path) == 2
    assert "which holds notes.txt" in capsys.readouterr().err
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path / "notes.txt") == 2
    assert "got the file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unknown_environment_is_refused(monkeypatch, capsys):
    assert run_experiment(monkeypatch, study, "--env", "Pendulum-v1") == 2
    assert "maze" in capsys.readouterr().err
