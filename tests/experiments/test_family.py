"""The study of the family on small runs: they end at their steps, methods are compared, and a stopped study goes on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import pgjax
from common.equal_steps import pausing, until
from experiments import family as study
from tests.cases import assert_refused, counting, run_experiment

METHODS = ("reinforce", "ppo", "grpo")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small study, its directory and its arguments."""
    out = tmp_path_factory.mktemp("family") / "out"
    arguments = ["--env", "maze", "--method", *METHODS[1:], "--seeds", 3, "--choosing-seeds", 2, "--steps", 3000]
    patch = pytest.MonkeyPatch()
    patch.setitem(study.TASKS, "maze", study.TASKS["maze"]._replace(iterations=4, learning_rates=(0.1, 0.3)))
    patch.setattr(study, "BATCH", 4)
    assert run_experiment(patch, study, *arguments, "--out", out) == 0
    yield out, [*arguments, "--out", out]
    patch.undo()


def test_every_method_has_a_row_and_is_compared_with_reinforce(done):
    rows = json.loads((done[0] / "summary.json").read_text())["rows"]
    assert [row["method"] for row in rows] == list(METHODS)
    least = min(row["cpu_ms"] for row in rows)
    for row in rows:
        assert row["learning_rate"] in (0.1, 0.3)
        assert row["at_the_edge"]
        assert row["seeds"] == 3
        assert row["failed"] == row["ended_early"] == 0
        assert row["equal_steps"]["steps"] == 3000
        assert row["equal_seconds"]["steps"] == pytest.approx(3000 * least / row["cpu_ms"])
        assert -100 <= row["equal_steps"]["iqm"] <= -14
        assert ("better" in row["equal_steps"]) == (row["method"] != "reinforce")
    table = (done[0] / "family.md").read_text()
    assert table == study.table(rows)
    assert len({line.count("|") for line in table.splitlines()}) == 1
    assert (done[0] / "family.png").read_bytes().startswith(b"\x89PNG")


def test_runs_end_with_the_update_that_brings_them_to_their_steps(done):
    with np.load(done[0] / "maze-ppo.npz") as file:
        steps, episodes = file["steps"], file["episodes"]
        assert file["choice"].shape == (2, 2)
    before = np.cumsum(steps, axis=1) - steps
    assert (steps[before < 3000] > 0).all()
    assert (steps[before >= 3000] == 0).all()
    assert (episodes[before >= 3000] == 0).all()
    assert (before >= 3000).any()


def test_what_is_finished_is_reported_and_not_computed_again(done, monkeypatch, capsys):
    out, arguments = done
    before = (out / "summary.json").read_bytes()
    monkeypatch.setattr(study, "compute", lambda *arguments: pytest.fail("computed again"))
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert (out / "summary.json").read_bytes() == before
    with_more = [word if word != "grpo" else "rloo" for word in arguments]
    assert run_experiment(monkeypatch, study, *with_more, "--finished") == 0
    assert [row["method"] for row in json.loads((out / "summary.json").read_text())["rows"]] == ["reinforce", "ppo"]
    other = [word if word != 3000 else 2000 for word in arguments]
    assert_refused(monkeypatch, capsys, study, other, "expected a new directory, or the options of")
    assert_refused(monkeypatch, capsys, study, ["--finished", "--out", out / "new"], "got none")


def test_until_does_what_the_algorithm_does_and_then_nothing():
    environment = counting(limit=5)  # of 5 steps an episode
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (4,))
    plain = pgjax.reinforce(environment, policy, slots=2)
    ending = until(pgjax.reinforce(pausing(environment), policy, slots=2), 25)
    key = jax.random.key(0)
    numbers = {"learning_rate": 0.1}
    state, curves = jax.jit(pgjax.train(plain, 3))(key, plain.hyperparameters(**numbers))
    ended, told = jax.jit(pgjax.train(ending, 5))(key, ending.hyperparameters(**numbers))
    assert told.steps.tolist() == [10, 10, 10, 0, 0]
    np.testing.assert_allclose(told.episode_return[:3], curves.episode_return)
    assert ended.steps == 30
    jax.tree.map(np.testing.assert_allclose, ended.state.params, state.params)


def test_a_paused_environment_ends_with_the_first_step():
    environment = pausing(counting())
    state, _ = environment.reset(jax.random.key(0), environment.params)
    ends = [
        bool(environment.step(jax.random.key(0), state, 0, environment.params._replace(paused=paused))[1].truncated)
        for paused in (False, jnp.bool_(True))
    ]
    assert ends == [False, True]


def curves(returns, steps=10.0):
    """Curves [runs, iterations] of one episode an update."""
    returns = np.asarray(returns, float)
    return study.as_dataset([returns, np.ones_like(returns), np.full_like(returns, steps)])


def test_equal_seconds_are_those_of_the_cheapest(monkeypatch):
    learned = curves(np.tile([1.0, 2.0, 3.0, 4.0], (6, 1)))
    monkeypatch.setattr(study, "LAST", 2)
    methods = {
        "reinforce": study.Runs(0.1, learned, cpu_ms=1.0),
        "ppo": study.Runs(0.1, curves(np.tile([2.0, 4.0, 6.0, 8.0], (6, 1))), cpu_ms=2.0),
    }
    task = study.Task(40, 4, (0.01, 0.1, 1.0), 1.0, solved_at=4.0)
    plain, ppo = study.rows_of("maze", task, methods)
    assert (plain["equal_steps"]["steps"], plain["equal_seconds"]["steps"]) == (40, 40)
    assert (ppo["equal_steps"]["steps"], ppo["equal_seconds"]["steps"]) == (40, 20)
    assert (ppo["equal_steps"]["iqm"], ppo["equal_seconds"]["iqm"]) == (7, 3)
    assert ppo["equal_steps"]["better"]["probability"] == 1
    assert not ppo["at_the_edge"]
    np.testing.assert_array_equal(study.ends(learned, 9), 1)  # as its first policy was
    failing = learned.copy(
        data={name: np.where(np.arange(6)[:, None] == 0, np.nan, array) for name, array in learned.items()}
    )
    assert study.better(learned, failing, (40, 40))["probability"] == (0.5 * 5 + 1) / 6
    grid, runs = study.curve_of(xr.concat([learned, failing], "seed"), 40)
    assert runs.shape == (11, len(grid))
    np.testing.assert_allclose(runs[0][grid == 20], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pong"], "expected some of CartPole-v1"),
        (["--method", "sarsa"], "expected some of reinforce, actor-critic"),
        (["--seeds", "0"], "1 or more seeds, got 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "new"], message)


def test_rejax_is_asked_and_ppo_runs_beside_it(monkeypatch, tmp_path):
    peer = {"seconds": 2.0, "cores_busy": 1.5, "solved_fraction": 0.25, "steps_per_seed": 100, "seeds": 2}
    peer |= {"episodes": 2, "solved_at": 475.0}
    monkeypatch.setattr(study, "ask_peer", lambda out, plain: {"to_solved": peer})
    monkeypatch.setattr(study, "REJAX_STEPS", 300)
    monkeypatch.setattr(study, "REJAX_UPDATES", 2)
    found = study.beside_rejax(study.Options(out=tmp_path))
    assert found["rejax"]["steps_per_cpu_second"] == 2 * 100 / 3
    assert found["pgjax"]["steps"] >= 300
    assert found["pgjax"]["solved_fraction"] == 0
