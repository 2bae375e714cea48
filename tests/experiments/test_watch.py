import numpy as np
import pytest
from PIL import Image

import pgjax
from experiments import watch as study
from tests.cases import assert_refused, run_experiment


def test_policies_that_learned_nothing_can_be_watched(monkeypatch, capsys, tmp_path):
    film = tmp_path / "new" / "maze.gif"
    assert run_experiment(monkeypatch, study, "--policy", "scripted", "--env", "maze", "--out", film) == 0
    assert capsys.readouterr().out == f"maze: 14 steps, return -14\nwritten to {film}\n"
    with Image.open(film) as image:
        assert image.n_frames >= 15
    arguments = ["--policy", "random", "--env", "Catch-bsuite", "--out", tmp_path / "catch.png", "--episode", 1]
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert (tmp_path / "catch.png").stat().st_size > 1000
    several = ["--policy", "scripted", "--env", "maze", "t-maze", "--out", tmp_path / "both.png"]
    assert run_experiment(monkeypatch, study, *several) == 0
    assert (tmp_path / "both.png").stat().st_size > 1000


def test_the_best_point_of_a_grid_is_watched_or_the_one_asked_for(tmp_path):
    environment = pgjax.maze()
    algorithm = pgjax.reinforce(environment, pgjax.policy_for(environment), slots=4)
    made = {"env": "maze", "policy": "auto", "hidden": [64, 64]}
    options = {"iterations": 3, "seeds": range(3), "grid": {"learning_rate": [1e-6, 1.0]}, "progress": False}
    results = pgjax.sweep(algorithm, **options, out=tmp_path, configuration=made)
    final = pgjax.analysis.final_return(results.load()).transpose("learning_rate", "seed").values
    i = np.median(final, axis=1).argmax()
    like = pgjax.load_params(results, results_like(), seed=int(final[i].argmax()), point=point(results, i))
    _, _, best = study.trained(study.Options(results=tmp_path))
    np.testing.assert_array_equal(best.params, like)
    _, _, other = study.trained(study.Options(results=tmp_path, learning_rate=1e-6, seed=2))
    asked = pgjax.load_params(results, results_like(), seed=2, point={"learning_rate": 1e-6})
    np.testing.assert_array_equal(other.params, asked)


def results_like():
    return np.zeros((23, 4), np.float32)


def point(results, i):
    return {"learning_rate": float(results.learning_rate[i])}


def test_results_without_names_are_refused(monkeypatch, capsys, tmp_path):
    algorithm = pgjax.reinforce(pgjax.maze(horizon=5), pgjax.policy_for(pgjax.maze()), slots=2)
    pgjax.sweep(algorithm, iterations=1, seeds=[0], out=tmp_path / "mine", configuration={"x": 1}, progress=False)
    message = "got some that do not say their env"
    assert_refused(monkeypatch, capsys, study, ["--results", tmp_path / "mine"], message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "nowhere"], "nowhere"),
        (["--policy", "random"], "expected --env for a random policy, got none"),
        (["--policy", "scripted", "--env", "partial-maze-loops"], "by hand, got partial-maze-loops"),
        (["--policy", "random", "--env", "mase"], "did you mean maze"),
        (["--env", "maze"], "expected the environment of the trained run, got --env maze"),
        (
            ["--policy", "random", "--env", "maze", "t-maze"],
            "expected a file that ends in .png for several environments",
        ),
        (["--out", "episode.mp4"], "expected a file that ends in .gif or .png, got "),
        (["--frames", "0"], "expected 1 or more frames, got 0"),
        (["--frames-per-second", "0"], "expected 1 or more frames a second, got 0"),
        (["--episode", "-1"], "expected an episode from 0 to 2**32 - 1, got -1"),
    ],
)
def test_what_cannot_be_watched_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(monkeypatch, capsys, study, arguments, message)
    assert not list(tmp_path.iterdir())
