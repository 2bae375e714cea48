import json
import re

import numpy as np
import pytest

import pgjax
from experiments import tune as study
from pgjax.sweeps import runner
from tests.cases import assert_refused, run_experiment

SMALL = ["--env", "maze", "--iterations", "3", "--slots", "2", "--budget", "4", "--choosing-seeds", "2", "--seeds", "3"]


def test_points_are_halved_and_the_winner_runs_on_fresh_seeds(monkeypatch, capsys, tmp_path):
    arguments = [*SMALL, "--discount", "0.9", "1", "--rungs", "2", "--out", tmp_path]
    assert run_experiment(monkeypatch, study, *arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("reinforce: 4 x 2 + 2 x 2 = 12 runs to choose on, and 3 fresh ones\n")
    record = json.loads((tmp_path / "tuning.json").read_text())
    assert record["space"] == {
        "learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
        "discount": {"low": 0.9, "high": 1.0, "log": False},
    }
    budget = {
        "points": 4,
        "choosing_runs": 12,
        "fresh_runs": 3,
        "iterations": 3,
        "seconds": record["budget"]["seconds"],
    }
    assert record["budget"] == budget
    winner = record["winner"]
    best = max((trial for trial in record["trials"] if len(trial["scores"]) == 4), key=lambda trial: trial["iqm"])
    assert (winner["learning_rate"], winner["chosen_by"]) == (best["learning_rate"], best["iqm"])
    assert f"winner: learning_rate {winner['learning_rate']:g}, discount {winner['discount']:g}; " in printed
    assert f"on fresh seeds 4 to 6: {winner['iqm']:.4g}, 95% interval [" in printed
    assert len(re.findall(r"^ *0\.\d+ +\S+ +[24] +0 +-\d", printed, re.M)) == 4
    fresh = pgjax.analysis.final_return(pgjax.read(tmp_path / "fresh").load())
    assert winner["iqm"] == pytest.approx(float(pgjax.interquartile_mean(fresh)))
    assert (tmp_path / "learning_curves.png").read_bytes().startswith(b"\x89PNG")

    # The same command again computes nothing and says the same.
    monkeypatch.setattr(runner, "compile_program", None)
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert capsys.readouterr().out == printed


def test_random_points_are_others(monkeypatch, tmp_path):
    for design in ("sobol", "random"):
        more = ["--design", design, "--entropy-coefficient", "0", "0.1", "--score", "area-under-curve"]
        arguments = [*SMALL, "--rungs", "1", *more]
        assert run_experiment(monkeypatch, study, *arguments, "--out", tmp_path / design) == 0
    found = [json.loads((tmp_path / design / "tuning.json").read_text()) for design in ("sobol", "random")]
    assert not found[0]["space"]["entropy_coefficient"]["log"]  # as it begins at 0
    rates = [[trial["learning_rate"] for trial in record["trials"]] for record in found]
    assert not np.isin(*rates).any()


def test_methods_are_tuned_alike_and_compared(monkeypatch, capsys, tmp_path):
    more = ["--method", "reinforce", "ppo", "--rungs", "1", "--epochs", "1", "--minibatches", "1"]
    assert run_experiment(monkeypatch, study, *SMALL, *more, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    fresh = {name: pgjax.read(tmp_path / name / "fresh").load() for name in ("reinforce", "ppo")}
    steps = min(int(runs.steps.sum("iteration").min()) for runs in fresh.values())
    finals = [pgjax.analysis.final_return(runs, steps=steps) for runs in fresh.values()]
    gap = float(pgjax.interquartile_mean(finals[0]) - pgjax.interquartile_mean(finals[1]))
    [line] = re.findall(r"^ *reinforce +ppo +3 and 3 .*$", printed, re.M)
    assert float(line.split()[5]) == pytest.approx(gap, rel=1e-3)
    assert printed.endswith(f"within the first {steps:.3g} steps of each run, compared in pairs of the same seed.\n")
    assert json.loads((tmp_path / "ppo" / "tuning.json").read_text())["budget"]["choosing_runs"] == 8


def test_a_budget_in_minutes_buys_as_many_points_as_its_runs_leave_time_for(monkeypatch, capsys, tmp_path):
    arguments = [*SMALL, "--rungs", "1", "--budget", "0.01", "minutes", "--out", tmp_path]
    arguments.remove("4")  # points
    arguments.remove("--budget")
    sweep = pgjax.sweep

    def timed(*given, **options):  # as if a run took 50 ms
        found = sweep(*given, **options)
        return found.assign(seconds=found.seconds * 0 + 0.05)

    monkeypatch.setattr(pgjax, "sweep", timed)
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert capsys.readouterr().out.startswith("reinforce: 4 x 2 = 8 runs")  # (8 + 3) x 50 ms are 0.55 s, 2 more 0.65
    assert sorted(pgjax.read(tmp_path / "pilot").seed.values) == [0, 1]
    arguments[arguments.index("0.01")] = "0.001"
    message = "expected 0.0058 minutes or more for two points and the fresh runs, got 0.001"
    assert_refused(monkeypatch, capsys, study, arguments, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "expected 1 or more points as --budget, got 0"),
        (["--budget", "0", "minutes"], "expected more than 0 minutes as --budget, got 0.0"),
        (["--learning-rate", "0.1"], "expected a lowest and a highest value of one or more hyper-parameters, got none"),
        (["--discount", "0", "0.5", "1"], "expected one value of --discount, or a lowest and a highest, got 3"),
        (["--method", "ppo", "ppo"], "expected one or more different methods, got ppo ppo"),
        (
            ["--method", "ppo", "--credit", "whole-episode"],
            "expected no --credit beside --method ppo, got whole-episode",
        ),
        (["--discount", "1", "0.5"], "expected a range of discount from a number to a larger one, got 1.0 to 0.5"),
        (["--discount", "0.5", "1.5"], "expected a finite discount from 0 to 1, got 1.5"),
    ],
)
def test_what_cannot_be_tuned_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*SMALL, *arguments, "--out", tmp_path / "out"], message)
    assert not (tmp_path / "out").exists()
