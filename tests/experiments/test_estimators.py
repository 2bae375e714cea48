import json

import numpy as np
import pytest

import pgjax
from experiments import estimators as study
from pgjax.exact.verification import largest_z_by_chance
from tests.cases import run_experiment

SETTINGS = 2  # of the study's four: γ = 1 with packed slots, γ < 1 with one episode a slot


@pytest.fixture(scope="module")
def trust():
    """Every estimator, sampled with at least 131072 episodes in two settings.

    The problem has a stochastic start, stochastic rewards and early ends. Compiling takes most of the time, so of γ = 1
    and γ < 1, one episode a slot and packed slots, each is there once, and the study has all four pairs.
    """
    every = list(study.settings())
    assert [(discount < 1, steps > 0) for _, discount, steps in every] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "settings", lambda: every[1:3])
        return study.hold_to_the_exact_gradient(samples=65536)


def test_every_unbiased_estimator_has_the_exact_gradient_as_its_mean(trust):
    # Bonferroni over all components of all estimators: a false alarm has a probability of at most 1%, and the seeds are
    # fixed.
    components = sum(verdict.components for verdict in trust.unbiased.values())
    assert len(trust.unbiased) == (3 * 7 + 2 * 2) + (2 * 7 + 2)
    assert components == 12 * len(trust.unbiased)
    allowed = largest_z_by_chance(components)
    too_far = {name: verdict.max_abs_z for name, verdict in trust.unbiased.items() if verdict.max_abs_z > allowed}
    assert not too_far
    assert min(verdict.episodes for verdict in trust.unbiased.values()) >= 10**5


def test_every_broken_estimator_is_caught(trust):
    mistakes = {
        "reward-to-go one step late": SETTINGS, "ρ̂ updated before use": SETTINGS, "own episode not left out": SETTINGS,
        "baseline sees its action": SETTINGS, "λ-return of a wrong critic": SETTINGS, "γ^{t−1} left out": 1,
        "unfinished episodes dropped": 1,
    }  # fmt: skip
    for mistake, times in mistakes.items():
        caught = [verdict.max_abs_z for name, verdict in trust.broken.items() if name.startswith(mistake)]
        assert len(caught) == times, mistake
        assert min(caught) > 8, mistake


def test_z_scores_of_unbiased_estimators_are_standard_normal(trust):
    # Estimators share episodes, so only a rough look: one setting's spread is far from none and from twice as much.
    z = np.concatenate([verdict.z[verdict.z != 0] for verdict in trust.unbiased.values()])
    assert 0.7 < z.std() < 1.3


def test_writes_summary_figures_and_tables(monkeypatch, tmp_path, capsys, trust):
    monkeypatch.setattr(study, "hold_to_the_exact_gradient", lambda samples: trust)
    every = study.methods
    kept = ("G_t − v(X_t), learned",)
    monkeypatch.setattr(
        study, "methods", lambda environment: {name: pair for name, pair in every(environment).items() if name in kept}
    )
    small = ["--env", "maze", "--seeds", 4, "--choosing-seeds", 2, "--maze-iterations", 3, "--slots", 2]
    small += ["--learning-rate", 0.01, 0.1, "--out", tmp_path]
    assert run_experiment(monkeypatch, study, *small) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["components"] == sum(verdict.components for verdict in trust.unbiased.values())
    assert summary["unbiased_max_abs_z"] < summary["allowed_abs_z"] < 8 < summary["broken_min_abs_z"]
    assert summary["episodes"] >= 10**5
    for name in ("variance.png", "learning.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert "largest |z|" in table
    for name in kept:
        row = summary["learning"]["maze"][name]
        assert row["learning_rate"] in (0.01, 0.1)
        assert name in table

    # On the maze, at every policy on the way: the order that the lecture gives, and G_t − v the lowest of its own.
    assert [round(found["rho"]) for found in summary["noise"].values()] == [-99, -47, -16]
    for found in summary["noise"].values():
        variance = found["variance"]
        assert variance["G_1"] > variance["G_1 − ρ"]
        assert variance["G_1"] > variance["G_t"]
        lecture = ["G_1", "G_1 − ρ", "G_1 − leave-one-out mean", "G_t", "G_t − ρ", "G_t − leave-one-out mean per step"]
        assert variance["G_t − v_t(X_t)"] < min(variance[name] for name in lecture)
        unbiased = [name for name in variance if "λ" not in name and "^0" not in name]
        assert max(found["bias"][name] for name in unbiased) < 1e-3 * found["gradient_norm"]
    assert summary["variance"] == summary["noise"]["at the start"]["variance"]


def test_speed_by_hand():
    curves = pgjax.sweep(
        pgjax.reinforce(pgjax.maze(), pgjax.policy_for(pgjax.maze()), slots=2), iterations=3, seeds=range(3),
        progress=False,
    )  # fmt: skip
    curves["episode_return"].values[:] = [[-90, -10, -50], [-90, -90, -20], [-90, -90, -90]]
    curves["steps"].values[:] = [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
    found = study.speed(curves, goal=-20)
    assert found["reached"] == 2 / 3
    assert found["steps_to_goal"] == 27
    assert study.speed(curves, goal=-15)["steps_to_goal"] is None
    curves["entropy"].values[0, 2] = np.nan
    assert study.speed(curves, goal=-20)["reached"] == 1 / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "100"], "multiple of 8192 as samples, got 100"),
        (["--seeds", "0"], "expected 1 or more seeds, got 0"),
        (["--first-seed", "3"], "begin after the 32 that learning rates are chosen on, got 3 as the first"),
        (["--env", "maze", "maze"], "every task once"),
        (["--slots", "1"], "2 or more slots for a leave-one-out baseline, got 1"),
        (["--learning-rate", "nan"], "expected a finite --learning-rate, got nan"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_status_2(monkeypatch, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert run_experiment(monkeypatch, study, *arguments, "--out", out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_directory_with_other_things_in_it_is_refused(monkeypatch, tmp_path, capsys):
    (tmp_path / "summary.txt").write_text("mine")
    assert run_experiment(monkeypatch, study, "--out", tmp_path) == 2
    assert "got " + str(tmp_path) + ", which holds summary.txt" in capsys.readouterr().err
    assert run_experiment(monkeypatch, study, "--out", tmp_path / "summary.txt") == 2
    assert "got the file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["summary.txt"]
    assert len(study.methods(pgjax.maze())) == study.METHODS
