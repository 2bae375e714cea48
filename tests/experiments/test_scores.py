import json
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import pgjax
from common import tasks
from experiments import reinforce, watch
from experiments import scores as study
from pgjax.sweeps import runner
from tests.cases import assert_refused, run_experiment

METHODS = list(tasks.METHODS)[:4:2]  # without a critic and with one
SMALL = {"slots": 2, "hidden": (4,)}
TASKS = {
    "maze": tasks.Task(3, 2, (1e-1, 1e-2), {"slots": 2}, "-14", -20.0, METHODS),
    "recommendation": tasks.Task(3, 2, (1e-2,), SMALL, methods=METHODS),
    "recommendation, long": tasks.Task(3, 3, (), SMALL, methods=[tasks.PPO], env="recommendation"),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run a small study, and return its directory."""
    out = tmp_path_factory.mktemp("scores") / "out"
    patch = pytest.MonkeyPatch()
    patch.setattr(study, "TASKS", TASKS)
    arguments = ["--env", *TASKS, "--choosing-seeds", 2, "--episodes", 40, "--out", out]
    assert run_experiment(patch, study, *arguments) == 0
    patch.undo()
    return out, arguments


def test_every_variant_of_every_task_has_a_row(done):
    summary = json.loads((done[0] / "summary.json").read_text())
    rows = summary["rows"]
    assert [(row["environment"], row["method"]) for row in rows] == [
        (name, method) for name, task in TASKS.items() for method in task.methods
    ]
    for row in rows:
        assert row["seeds"] == 3
        assert row["learning_rate"] in (TASKS[row["environment"]].learning_rates or [row["learning_rate"]])
        assert row["steps"] == row["environment_steps"] / 3
        assert row["interval"][0] <= row["iqm"] <= row["interval"][1]
    assert rows[0]["solved_fraction"] == 0
    assert rows[-1]["solved_fraction"] is None
    assert set(summary["references"]["maze"]) == {"random", "scripted"}
    assert summary["references"]["maze"]["scripted"]["mean"] == -14
    assert set(summary["references"]["recommendation"]) == {"random", "scripted", "clairvoyant bound"}
    assert (done[0] / "scores.png").stat().st_size > 10_000


def test_the_table_holds_what_the_summary_says(done):
    summary = json.loads((done[0] / "summary.json").read_text())
    text = (done[0] / "scores.md").read_text()
    assert text == study.table(summary)
    lines = text.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert (
        len(lines) == 2 + 5 + 2 + 1 + 3 + 3
    )  # a head, variants, references and the published score of the maze, others
    assert sum(line.count("**") == 2 for line in lines) >= 2  # the best of each task, or several if they are equal


def test_what_has_no_interval_has_a_dash(done):
    summary = json.loads((done[0] / "summary.json").read_text())
    summary["references"]["maze"]["random"] = pgjax.analysis.mean_interval([-40.0])
    assert summary["references"]["maze"]["random"] == {"mean": -40, "low": None, "high": None}
    assert "| maze | *random* | - | - | -40 | - | - | - | - | - | - |\n" in study.table(summary)


def test_reported_seeds_chose_nothing(done):
    choice, report = (pgjax.read(done[0] / f"maze-2-{what}") for what in ("choice", "report"))
    assert not set(choice.seed.values) & set(report.seed.values)
    tuned = done[0] / f"recommendation-long-{list(tasks.METHODS).index(tasks.PPO)}-tuning"
    tried, fresh = (pgjax.read(tuned / what) for what in ("rung-0", "fresh"))
    assert tried.sizes["point"] == study.POINTS
    assert not set(tried.seed.values) & set(fresh.seed.values)


def test_a_tuned_row_says_what_it_was_tuned_over_and_what_each_point_was_worth(done):
    row = json.loads((done[0] / "summary.json").read_text())["rows"][-1]
    points, space = row["tuning"]["points"], row["tuning"]["space"]
    assert (len(points), row["tuning"]["budget"]["choosing_runs"]) == (study.POINTS, 2 * study.POINTS)
    best = max(points, key=lambda point: point["iqm"])
    assert (row["learning_rate"], row["entropy_coefficient"]) == (best["learning_rate"], best["entropy_coefficient"])
    for name, bounds in space.items():
        assert all(bounds["low"] <= point[name] <= bounds["high"] for point in points)
    worst = min(point["iqm"] for point in points)
    assert f"| [{worst:.4g}, {best['iqm']:.4g}] |" in study.table(
        {"references": {}, "rows": []} | {"references": {"recommendation, long": {}}, "rows": [row]}
    )


def test_other_tasks_of_a_summary_of_before_are_kept(done, monkeypatch, capsys, tmp_path):
    out, arguments = done
    monkeypatch.setattr(study, "TASKS", TASKS)
    monkeypatch.setattr(runner, "compile_program", None)
    whole = json.loads((out / "summary.json").read_text())
    summary = whole | {"rows": [row | {"seeds": 7} for row in whole["rows"]]}
    before = tmp_path / "before.json"
    before.write_text(json.dumps(summary))
    shutil.copytree(out, tmp_path / "out")
    words = ["--env", "recommendation", *arguments[len(TASKS) + 1 : -1], tmp_path / "out", "--keep", before]
    assert run_experiment(monkeypatch, study, *words) == 0
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["seeds"] for row in found["rows"]] == [7, 7, 3, 3, 7]
    assert found["references"] == whole["references"]
    capsys.readouterr()
    assert_refused(
        monkeypatch, capsys, study, ["--env", "maze", "--keep", tmp_path], "expected a summary of this study"
    )


def test_the_same_command_again_computes_nothing_and_says_the_same(done, monkeypatch):
    out, arguments = done
    monkeypatch.setattr(study, "TASKS", TASKS)
    before = (out / "summary.json").read_bytes()
    monkeypatch.setattr(runner, "compile_program", None)
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert (out / "summary.json").read_bytes() == before


def test_what_is_finished_can_be_reported_before_the_rest(done, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(study, "TASKS", TASKS)
    monkeypatch.setattr(runner, "compile_program", None)
    out, arguments = done
    shutil.copytree(out, tmp_path / "part", ignore=shutil.ignore_patterns("maze-2-report"))
    assert run_experiment(monkeypatch, study, *arguments[:-1], tmp_path / "part", "--finished") == 0
    rows = json.loads((tmp_path / "part" / "summary.json").read_text())["rows"]
    assert rows == [row for i, row in enumerate(json.loads((out / "summary.json").read_text())["rows"]) if i != 1]
    assert_refused(monkeypatch, capsys, study, ["--finished", "--env", "maze", "--out", tmp_path / "new"], "got none")


@pytest.mark.parametrize(("number", "reported"), [(1, "maze-2-report"), (-1, "recommendation-long-4-tuning/fresh")])
def test_the_command_of_a_row_makes_its_runs(done, monkeypatch, tmp_path, number, reported):
    row = json.loads((done[0] / "summary.json").read_text())["rows"][number]
    words = shlex.split(row["command"])
    assert words[:3] == ["uv", "run", "experiments/reinforce.py"]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert run_experiment(monkeypatch, reinforce, *words[3:]) == 0
    again, reported = pgjax.read(tmp_path / "again"), pgjax.read(done[0] / reported)
    np.testing.assert_array_equal(again.episode_return, reported.episode_return)


def test_a_reported_run_can_be_watched(done, monkeypatch, capsys, tmp_path):
    results = done[0] / "recommendation-2-report"
    assert run_experiment(monkeypatch, watch, "--results", results, "--out", tmp_path / "end.png") == 0
    assert capsys.readouterr().out.startswith("recommendation: 20 steps, return ")
    choice = done[0] / "maze-2-choice"
    film = tmp_path / "films" / "maze.gif"
    assert run_experiment(monkeypatch, watch, "--results", choice, "--out", film, "--frames", 5) == 0
    assert film.stat().st_size > 1000


def test_the_table_is_put_between_two_marks(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n" + study.MARKS[0] + "old\n" + study.MARKS[1] + "after\n")
    study.put_into(path, "new\n")
    assert path.read_text() == "before\n" + study.MARKS[0] + "\nnew\n\n" + study.MARKS[1] + "after\n"


def test_the_report_has_the_table_of_the_study():
    root = Path(__file__).parents[2]
    summary = json.loads((root / "experiments" / "figures" / "scores.json").read_text())
    before, after = study.around_marks(root / "experiments" / "scores.md")
    report = (root / "experiments" / "scores.md").read_text(encoding="utf-8")
    assert report == f"{before}\n{study.table(summary)}\n{after}"


def test_every_variant_writes_its_own_results():
    commands = [
        study.command_of(name, method, {"learning_rate": 1e-3}, range(3), 2, 0)
        for name, task in tasks.TASKS.items()
        for method in task.methods
    ]
    assert len({shlex.split(command)[-1] for command in commands}) == len(commands)


@pytest.mark.filterwarnings("ignore")  # brax has some about itself and about what it uses
def test_every_task_can_be_set_up_and_its_command_is_understood(monkeypatch):
    seen = []
    monkeypatch.setattr(reinforce, "main", seen.append)
    for name, task in tasks.TASKS.items():
        for method in task.methods:
            settings = tasks.settings_of(task, method)
            with jax.numpy_rank_promotion("allow"):  # gymnax promotes
                study.algorithm_of(name, method)
            chosen = {"learning_rate": 1e-3} if task.learning_rates else {k: x.low for k, x in study.SPACE.items()}
            command = study.command_of(name, method, chosen, range(9, 9 + task.seeds), task.iterations, 0)
            assert run_experiment(monkeypatch, reinforce, *shlex.split(command)[3:]) == 0
            options, numbers = seen[-1], {key: settings[key] for key in tasks.NUMBERS} | chosen
            assert {key: getattr(options, key) for key in settings if key not in numbers} == {
                key: value for key, value in settings.items() if key not in numbers
            }
            assert {key: getattr(options, key) for key in numbers} == {key: (x,) for key, x in numbers.items()}
            assert (options.env, options.seeds, options.first_seed) == (task.env or name, task.seeds, 9)


def test_frozen_lake_stands_beside_what_is_best():
    found = study.references("FrozenLake-misc", study.Options(episodes=50))
    assert found["exact optimum"] == {"mean": pytest.approx(0.7442, abs=1e-4), "low": None, "high": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "chess"], "expected tasks among CartPole-v1, "),
        (["--seeds", "0"], "expected 1 or more seeds, got 0"),
        (["--choosing-seeds", "0"], "expected 1 or more runs to choose on, got 0"),
        (["--report", "nowhere.md"], "expected a file with marks for the table, got "),
        (["--report", "LICENSE"], "LICENSE to have the lines <!-- scores"),
    ],
)
def test_what_cannot_be_scored_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path], message)
    assert not list(tmp_path.iterdir())
