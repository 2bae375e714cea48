import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from experiments import imitation as study
from pgjax.sweeps import runner
from tests.cases import assert_refused, run_experiment

SMALL = ["--env", "maze", "--episodes", "2", "--noise", "0", "0.5", "--seeds", "3", "--gradient-steps", "20"]
SMALL += ["--iterations", "2", "--test-episodes", "2", "--horizon", "2", "8"]


def test_writes_what_was_found(monkeypatch, tmp_path, capsys):
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path) == 0
    table = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert abs(summary["bc_exponent"] - 2) < 1
    assert abs(summary["dagger_exponent"] - 1) < 1
    methods = {row["method"] for row in summary["rows"]}
    assert methods == {*study.COLOURS, *study.CLONES.values(), *study.TUNED.values(), "weak expert"}
    for row in summary["rows"]:
        low, high = row["interval"]
        assert low <= row["iqm"] <= high
        assert row["runs"] == 3
        assert row["failed"] == 0
    (expert,) = (row for row in summary["rows"] if row["method"] == "expert" and row["noise"] == 0)
    assert expert["iqm"] == -14
    (amid,) = (row for row in summary["rows"] if row["method"] == "DAgger amid the noise")
    assert (amid["noise"], amid["episodes"]) == (0.5, 2)
    (cloning,) = (row for row in summary["rows"] if row["method"] == "behaviour cloning" and row["noise"] == 0.5)
    assert cloning["labels"] == 10  # five of each episode
    assert set(summary["findings"]) == {"maze"}
    for figure in ("imitation.png", "fine_tuning.png", "compounding.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
    assert "behaviour cloning, every label" in table

    single = [row | {"interval": None} for row in summary["rows"]]  # as of a single run
    assert study.findings(single, 0.0) == {}
    study.draw(single, study.Options(noise=(0.0, 0.5)), tmp_path / "imitation.png")
    costs = [row | {"interval": None} if "interval" in row else row for row in summary["compounding"]]
    study.draw_compounding(costs, 1e-3, tmp_path / "compounding.png")

    sweeps = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(sweeps) == 12
    assert all(bool(pgjax.read(path).completed.all()) for path in sweeps)
    monkeypatch.setattr(runner, "compile_program", None)
    monkeypatch.setattr(pgjax.analysis, "failed", lambda results: results.seed == 1)
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path) == 0
    again = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert {row["failed"] for row in again if row["method"] in ("DAgger", "behaviour cloning")} == {1}
    (tmp_path / "notes.txt").write_text("mine")
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path) == 2
    assert "which holds notes.txt" in capsys.readouterr().err


def test_findings_are_read_off_the_intervals():
    def row(method, low, high, episodes=None, noise=0.0):
        return {"method": method, "interval": [low, high], "episodes": episodes, "noise": noise}

    rows = [row("expert", 9, 10), row("weak expert", 3, 4), row("clone, then REINFORCE", 4.5, 6)]
    rows += [row("behaviour cloning, every label", 8, 9, 30), row("behaviour cloning", 1, 2, 3, noise=0.1)]
    rows += [row("behaviour cloning", 5, 6, 3), row("behaviour cloning", 7, 8, 10)]
    rows += [row("DAgger", 6.5, 7, 3), row("DAgger", 7.5, 9, 10)]
    for noise, low in ((0.1, 4), (0.2, 5)):
        rows += [row("behaviour cloning", 3, 4.5, 10, noise), row("DAgger amid the noise", low, 6, 10, noise)]
    said = study.findings(rows, 0.0)
    assert said == {
        "cloning_reaches_expert": True,
        "dagger_beats_cloning_at_episodes": [3],
        "dagger_beats_cloning_at_noise": [0.2],
        "tuned_beats_weak_expert": True,
    }
    rows[0], rows[2] = row("expert", 9.5, 10), row("clone, then REINFORCE", 3.5, 6)
    said = study.findings(rows, 0.0)
    assert not said["cloning_reaches_expert"]
    assert not said["tuned_beats_weak_expert"]


def test_an_erring_policy_errs_as_often_as_it_must_and_begins_by_chance():
    policy = study.erring(0.125)
    params = policy.init(jax.random.key(0))
    _, f = policy.step(params, (), jnp.asarray([0, 1]))
    np.testing.assert_allclose(jnp.exp(f.logits), 1 / study.ACTIONS, rtol=1e-5)
    _, f = policy.step(params.at[:, 3].set(100.0), (), jnp.asarray([0, 1]))
    probabilities = np.exp(f.logits)
    np.testing.assert_allclose(probabilities[:, 3], 1 - 0.125, rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_a_clone_explores_again_before_it_is_tuned():
    policy = pgjax.mlp(pgjax.Box(-1.0, 1.0, (2,)), pgjax.Box(-1.0, 1.0, (2,)), (4,))
    narrow = policy._replace(init=lambda key: policy.init(key) | {"log_std": jnp.log(jnp.asarray([0.01, 0.5]))})
    params = study.exploring(narrow).init(jax.random.key(0))
    np.testing.assert_allclose(jnp.exp(params["log_std"]), [0.3, 0.5], rtol=1e-5)
    table = pgjax.tabular(2, 2)
    np.testing.assert_array_equal(study.exploring(table).init(jax.random.key(0)), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0"], "1 or more expert episodes, got 0"),
        (["--gradient-steps", "0"], "1 or more gradient steps, got 0"),
        (["--seeds", "0"], "1 or more seeds, got 0"),
        (["--iterations", "-1"], "1 or more updates of REINFORCE, got -1"),
        (["--noise", "0", "2"], "levels of noise from 0 to 1, each once, got 2.0"),
        (["--noise", "0.1", "0.1"], "each once, got 0.1"),
        (["--noise", "0", "nan"], "expected a finite --noise, got nan"),
        (["--noise"], "one or more tasks and levels of noise"),
        (["--horizon", "8"], "two or more horizons of 2 steps or more"),
        (["--horizon", "1", "8"], "two or more horizons of 2 steps or more"),
        (["--error", "1"], "an error rate between 0 and 1, got 1.0"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_status_2(monkeypatch, tmp_path, capsys, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "out"], message)
    assert not (tmp_path / "out").exists()
