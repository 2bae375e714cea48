import json

import numpy as np
import pytest
import xarray as xr

from experiments import stuck as study
from pgjax.sweeps import runner
from tests.cases import assert_refused, run_experiment


def dataset(returns):
    """The curves of runs with these returns [seeds, updates], one episode each, and gradients that tell them apart."""
    returns = np.asarray(returns, float)
    names = {"episode_return": returns, "episodes": np.ones_like(returns), "steps": -returns}
    names |= {"entropy": np.ones_like(returns), "gradient_norm": (returns > -10) * 2.0}
    curves = {name: (("seed", "iteration"), numbers) for name, numbers in names.items()}
    return xr.Dataset(curves, {"seed": range(len(returns)), "iteration": range(1, returns.shape[1] + 1)})


def test_what_is_found_of_runs_that_are_known():
    worst, better = [-10.0] * 150, [-10.0] * 15 + [-4.0] * 135
    found = study.found_in(dataset([worst, better, [-4.0] * 150, worst]), 10)
    assert (found["stuck"], found["silent"], found["left silence"], found["silent from update"]) == (2, 3, 1, 1)
    assert found["parted by update"] == 16
    assert (found["gradient_norm at the end, stuck"], found["gradient_norm at the end, not stuck"]) == (0, 2)


def test_a_run_is_saved_if_its_sibling_was_stuck():
    worst, good = [-10.0] * 150, [-4.0] * 150
    row = study.rescue(dataset([good, good, worst]), 10, np.array([True, True, False, True]))
    assert (row["stuck"], row["saved"], row["final return (IQM)"]) == ("33.3%", "2 of 2", "-6")


def test_runs_that_are_tied_are_not_apart():
    found = study.apart(np.array([[-10, -4.0], [-10, -10.0]]), np.array([[-10, -10.0]]))
    np.testing.assert_array_equal(found, [0.5, 0.75])


def test_the_study_runs_and_goes_on(monkeypatch, tmp_path, capsys):
    words = ["--env", "partial-maze", "--iterations", 12, "--seeds", 6, "--rescued", 2]
    monkeypatch.setattr(study, "settings_for", lambda env: dict([*whole(env).items()][:2]))
    assert run_experiment(monkeypatch, study, *words, "--out", tmp_path / "out") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    settings = summary["tasks"]["partial-maze"]["settings"]
    assert [row["runs"] for row in settings.values()] == [6, 2]
    assert (tmp_path / "out" / "stuck.png").stat().st_size > 10_000
    monkeypatch.setattr(runner, "compile_program", None)
    assert run_experiment(monkeypatch, study, *words, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert_refused(monkeypatch, capsys, study, ["--env", "maze", "--out", tmp_path / "new"], "got maze")


whole = study.settings_for


@pytest.mark.parametrize("env", study.LEARNING_RATES)
def test_each_setting_changes_one_thing(env):
    own, *others = study.settings_for(env).values()
    assert [sum(own[name] != other[name] for name in own) for other in others] == [1] * 6
