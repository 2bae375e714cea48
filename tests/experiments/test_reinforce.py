import json

import jax
import numpy as np
import pytest

import pgjax
from common import names
from experiments import reinforce as study
from pgjax.sweeps import runner
from tests.cases import assert_refused, run_experiment

SMALL = ["--env", "maze", "--seeds", "3", "--iterations", "4", "--slots", "2"]


def test_writes_results_summary_figure_and_table(monkeypatch, tmp_path, capsys):
    assert run_experiment(monkeypatch, study, *SMALL, "--learning-rate", "0.01", "0.1", "--out", tmp_path) == 0
    table = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    wanted = {"seeds", "environment", "solved_fraction", "iqm", "interval", "environment_steps", "seconds"}
    assert wanted | {"steps_per_second", "iterations", "rows"} <= set(summary)
    assert [row["learning_rate"] for row in summary["rows"]] == [0.01, 0.1]
    assert summary["chosen_from"] == 2
    found = pgjax.read(tmp_path)
    assert dict(found.sizes) == {"learning_rate": 2, "seed": 3, "iteration": 4}
    assert sum(row["environment_steps"] for row in summary["rows"]) == int(found.steps.sum())
    assert "final return (IQM)" in table
    assert f"{summary['iqm']:.4g}" in table
    assert (tmp_path / "learning_curves.png").read_bytes().startswith(b"\x89PNG")

    # The same command again computes nothing and says the same.
    monkeypatch.setattr(runner, "compile_program", None)
    assert run_experiment(monkeypatch, study, *SMALL, "--learning-rate", "0.01", "0.1", "--out", tmp_path) == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_a_single_run_has_no_interval(monkeypatch, tmp_path, capsys):
    single = ["--env", "maze", "--seeds", "1", "--iterations", "4", "--slots", "2", "--out", tmp_path]
    assert run_experiment(monkeypatch, study, *single) == 0
    [row] = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert row["interval"] is None
    assert row["iqm"] is not None
    header, line = capsys.readouterr().out.splitlines()[:2]
    assert line.split()[:5] == ["1", "0", f"{row['iqm']:.4g}", "-", "-"], header


def test_the_lecture_is_a_configuration(monkeypatch, tmp_path):
    lecture = ["--slots", "1", "--credit", "whole-episode", "--baseline", "running-average", "--optimizer", "sgd"]
    assert run_experiment(monkeypatch, study, *SMALL, *lecture, "--out", tmp_path) == 0
    np.testing.assert_array_equal(pgjax.read(tmp_path).episodes, 1)


@pytest.mark.parametrize("baseline", ["learned-value", "learned-action-value", "expected-policy-gradient"])
def test_a_critic_is_a_configuration(monkeypatch, tmp_path, baseline):
    critic = ["--credit", "lambda-return", "--baseline", baseline, "--trace-decay", "0", "0.9", "--out", tmp_path]
    assert run_experiment(monkeypatch, study, *SMALL, *critic) == 0
    found = pgjax.read(tmp_path)
    assert dict(found.sizes) == {"trace_decay": 2, "seed": 3, "iteration": 4}
    assert (found.gradient_norm.isel(trace_decay=0) != found.gradient_norm.isel(trace_decay=1)).any()


def test_a_memory_is_a_configuration(monkeypatch, tmp_path):
    memory = ["--policy", "recurrent", "--hidden", "5", "3", "--out", tmp_path]
    assert run_experiment(monkeypatch, study, *SMALL, *memory) == 0
    environment = pgjax.maze()
    policy = pgjax.recurrent(environment.observation_space, environment.action_space, hidden=3, encoder=(5,))
    like = jax.eval_shape(policy.init, jax.random.key(0))
    found = pgjax.load_params(tmp_path, like, seed=2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_normalization_and_frames_are_a_configuration_and_are_loaded_with_the_parameters(monkeypatch, tmp_path):
    how = ["--env", "Pendulum-v1", "--seeds", "2", "--iterations", "1", "--slots", "2", "--hidden", "3"]
    how += ["--frames", "2", "--normalize-observations", "--normalize-returns"]
    assert run_experiment(monkeypatch, study, *how, "--out", tmp_path) == 0
    environment = names.environment_named("Pendulum-v1", frames=2)
    policy = names.policy_named("auto", environment, (3,), normalize_observations=True)
    like = jax.eval_shape(policy.init, jax.random.key(0))
    found = pgjax.load_params(tmp_path, like, seed=1)
    assert found.seen.mean.shape == (6,)
    assert found.seen.number == pgjax.read(tmp_path).steps.sel(seed=1).sum()


def test_seeds_that_fail_are_named_in_the_table(monkeypatch, tmp_path, capsys):
    assert run_experiment(monkeypatch, study, *SMALL, "--learning-rate", "3e38", "--out", tmp_path) == 0
    failed = json.loads((tmp_path / "summary.json").read_text())["failed_seeds"]
    assert failed
    assert f"numbers that are not finite in seeds: {', '.join(map(str, failed))}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "ppo", "--normalize-returns"], "no --normalize-returns beside --method ppo, got True"),
        (
            ["--env", "maze", "--normalize-observations"],
            "observations with real numbers to be normalized, got Discrete",
        ),
        (["--env", "maze", "--frames", "2"], "observations of a Box to be stacked, got Discrete"),
        (["--env", "CartPole-v2"], "'CartPole-v2'; did you mean CartPole-v1"),
        (["--seeds", "0"], "1 or more seeds, got 0"),
        (["--seeds", "-3"], "1 or more seeds, got -3"),
        (["--iterations", "0"], "iterations to be an integer of 1 or more, got 0"),
        (["--slots", "0"], "1 or more slots, got 0"),
        (["--episodes", "4"], "expected --slots, which --episodes is called now, got --episodes"),
        (["--steps=9"], "expected --min-steps-per-slot, which --steps is called now, got --steps"),
        (["--baseline=all-actions"], "expected expected-policy-gradient, which all-actions is called now"),
        (["--baseline", "all-actions"], "expected expected-policy-gradient, which all-actions is called now"),
        (["--slots", "1"], "2 or more slots for a leave-one-out baseline, got 1"),
        (["--learning-rate", "nan"], "a finite --learning-rate, got nan"),
        (["--learning-rate", "0.1", "inf"], "a finite --learning-rate, got inf"),
        (["--discount", "0.9", "0.9"], "every value of discount once"),
        (["--policy", "gaussian"], "Box action space for a gaussian policy, got CartPole-v1"),
        (["--policy", "tabular"], "discrete observations and actions for a tabular policy, got CartPole-v1"),
        (["--env", "Pendulum-v1", "--policy", "categorical"], "Discrete action space for a categorical policy"),
        (["--hidden", "0"], "width 1 or more, got 0"),
        (["--policy", "recurrent", "--bfloat16"], "float32 for a recurrent policy, got bfloat16"),
        (["--policy", "recurrent", "--hidden"], "1 or more hidden layers for a recurrent policy"),
        (["--credit", "lambda-return"], "a baseline that predicts v(X_t) or Q(X_t, ·)"),
        (["--env", "Pendulum-v1", "--baseline", "expected-policy-gradient"], "got Pendulum-v1 with actions of Box"),
        (["--baseline", "learned-value", "--value-steps", "0"], "1 or more gradient steps an update"),
        (["--solved-at", "nan"], "expected a finite --solved-at, got nan"),
        (["--batch", "0"], "batch to be an integer of 1 or more, got 0"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_status_2(monkeypatch, tmp_path, capsys, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "out"], message)
    assert not (tmp_path / "out").exists()


def test_a_foreign_or_unwritable_directory_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runner, "compile_program", None)
    (tmp_path / "notes.txt").write_text("mine")
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path) == 2
    assert "which holds other files" in capsys.readouterr().err
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path / "notes.txt") == 2
    assert "got the file" in capsys.readouterr().err
    assert run_experiment(monkeypatch, study, *SMALL, "--out", "/proc/results") == 2
    assert "that can be written, got /proc/results" in capsys.readouterr().err
    monkeypatch.setattr("pgjax.sweeps.store.os.access", lambda path, mode: False)
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path / "locked") == 2
    assert "no permission" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_help_shows_the_question_and_the_options(monkeypatch, capsys):
    assert run_experiment(monkeypatch, study, "--help") == 0
    text = capsys.readouterr().out
    assert "Does REINFORCE solve the task" in text
    assert "--learning-rate" in text


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "ppo", "--epochs", "2", "--minibatches", "2", "--discount", "0.9"],
        ["--method", "grpo", "--group-size", "2"],
        ["--method", "rloo", "--group-size", "2"],
    ],
)
def test_a_method_of_the_family_is_a_configuration(monkeypatch, tmp_path, options):
    assert run_experiment(monkeypatch, study, *SMALL, *options, "--out", tmp_path) == 0
    found = pgjax.read(tmp_path)
    assert np.isfinite(found.episode_return).all()
    assert ("clip_fraction" in found) == (options[1] != "rloo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "ppo", "--credit", "whole-episode"], "no --credit beside --method ppo, got whole-episode"),
        (["--method", "ppo", "--group-size", "2"], "no --group-size beside --method ppo, got 2"),
        (["--method", "rloo", "--epochs", "2"], "no --epochs beside --method rloo, got 2"),
        (["--epochs", "2"], "no --epochs beside --method reinforce, got 2"),
        (["--method", "grpo", "--min-steps-per-slot", "9"], "--min-steps-per-slot 0 for grpo, got 9"),
        (["--method", "ppo", "--epochs", "0"], "1 or more epochs, got 0"),
    ],
)
def test_methods_that_make_no_sense_are_refused(monkeypatch, capsys, options, message):
    assert_refused(monkeypatch, capsys, study, [*SMALL, *options], message)
