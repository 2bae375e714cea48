import re
import shutil
from pathlib import Path

import pytest

import pgjax
from experiments import reinforce
from experiments import show as study
from tests.cases import assert_refused, run_experiment

SMALL = ["--env", "maze", "--iterations", "4", "--slots", "2"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two small sweeps, one of them over a grid, and the directory they are in."""
    out = tmp_path_factory.mktemp("sweeps")
    patch = pytest.MonkeyPatch()
    grid = ["--learning-rate", "0.01", "0.1", "--entropy-coefficient", "0", "0.01", "--seeds", "4"]
    assert run_experiment(patch, reinforce, *SMALL, *grid, "--out", out / "grid") == 0
    assert run_experiment(patch, reinforce, *SMALL, "--seeds", "3", "--out", out / "one <1>") == 0
    patch.undo()
    return out


def test_a_table_for_each_sweep_and_one_of_their_differences(done, monkeypatch, capsys, tmp_path):
    out = tmp_path / "new" / "report.html"
    assert run_experiment(monkeypatch, study, done / "grid", done / "one <1>", "--paired", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "grid: 16 of 16 runs completed\n" in printed
    assert "one <1>: 3 of 3 runs completed\n" in printed
    assert re.search(r"grid +one <1> +3 and 3 ", printed)
    assert "Points chosen on the very runs that are compared: grid at learning rate 0." in printed
    assert printed.endswith(f"written to {out}\n")


def test_sweeps_are_compared_after_equally_many_steps(done, monkeypatch, capsys, tmp_path):
    arguments = [done / "grid", done / "one <1>", "--equal-steps", "--out", tmp_path / "a.html"]
    assert run_experiment(monkeypatch, study, *arguments) == 0
    steps = min(int(pgjax.read(done / name).steps.sum("iteration").min()) for name in ("grid", "one <1>"))
    [within] = re.findall(
        r"Final returns are those within the first (\S+) steps of each run\.\n", capsys.readouterr().out
    )
    assert float(within) >= steps  # of the grid it is its best point alone that counts
    assert "Final returns are those within" in (tmp_path / "a.html").read_text()


def test_directories_are_told_apart_by_what_differs():
    def names(*paths):
        return study.told_apart([Path(path) for path in paths])

    assert names("a/x", "b/y") == ["x", "y"]
    assert names("a/x", "b/x") == ["a", "b"]
    assert names("a/1/x", "b/x") == ["a/1", "b"]


def test_the_report_needs_no_other_file(done, monkeypatch, tmp_path):
    out = tmp_path / "report.html"
    assert run_experiment(monkeypatch, study, done / "grid", done / "one <1>", "--out", out) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 3 + 1 + 1  # curves, sensitivity and a map; curves; the difference
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "one &lt;1&gt;" in text
    assert "<h2>one <1>" not in text
    for word in ("&quot;iterations&quot;: 4", "git_revision: ", "No completed run failed.", "4, from 0 to 3"):
        assert word in text


def test_a_running_sweep_is_shown_as_far_as_it_is(done, monkeypatch, capsys, tmp_path):
    shutil.copytree(done / "grid", tmp_path / "running")
    found = pgjax.read(tmp_path / "running")
    completed = found.completed.load()
    completed[0, 0, 1:] = False
    completed[1] = False
    completed.to_dataset().drop_vars(completed.coords).to_zarr(found.encoding["source"], mode="r+", consolidated=False)
    assert run_experiment(monkeypatch, study, tmp_path / "running", "--out", tmp_path / "a.html") == 0
    printed = capsys.readouterr().out
    assert "running: 5 of 16 runs completed" in printed
    assert len(re.findall(r"^ +0\.01 ", printed, re.M)) == 2
    assert (tmp_path / "a.html").read_text().count("data:image") == 1


def test_parts_are_put_together(monkeypatch, capsys, tmp_path):
    for first in (0, 2):
        part = ["--seeds", "2", "--first-seed", first, "--out", tmp_path / str(first)]
        assert run_experiment(monkeypatch, reinforce, *SMALL, *part) == 0
    capsys.readouterr()
    parts = [tmp_path / "0", tmp_path / "2", "--join"]
    assert run_experiment(monkeypatch, study, *parts, "--out", tmp_path / "a.html") == 0
    assert "0: 4 of 4 runs completed" in capsys.readouterr().out


def test_sweeps_without_returns_have_curves(monkeypatch, capsys, tmp_path):
    environment = pgjax.maze("#SE#", horizon=8)
    expert = pgjax.Expert(pgjax.random_policy(environment), ())
    cloning = pgjax.behaviour_cloning(
        pgjax.tabular(states=2, actions=4), pgjax.demonstrate(environment, expert, episodes=2), labels=2, steps=1
    )
    options = {"iterations": 3, "seeds": range(3), "configuration": {}, "progress": False}
    found = pgjax.sweep(cloning, out=tmp_path / "clone", **options)
    curve = next(str(name) for name, array in found.data_vars.items() if "iteration" in array.dims)
    arguments = [tmp_path / "clone", "--variable", curve, "--out", tmp_path / "a.html"]
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert "clone: 3 of 3 runs completed" in capsys.readouterr().out
    assert (tmp_path / "a.html").read_text().count("data:image") == 1
    message = f"expected --variable among {', '.join(sorted(found.data_vars.keys() - {'seconds', 'completed'}))}, got"
    assert_refused(monkeypatch, capsys, study, [tmp_path / "clone", "--out", tmp_path / "a.html"], message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one or more directories of results, got none"),
        (["nowhere"], "expected a directory with results.zarr, got nowhere"),
        (["nowhere", "--out", "a.txt"], "expected a file that ends in .html, got "),
    ],
)
def test_what_cannot_be_shown_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(monkeypatch, capsys, study, arguments, message)
    assert not list(tmp_path.iterdir())
