"""The study of rewards that can be checked, made tiny."""

import json
import os
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from experiments import verifiable as study
from tests.cases import assert_refused, run_experiment

TINY = ["--digits", "2", "--examples", "2048", "--practice", "512", "--noise", "0.2", "--layers", "1", "--seeds", "2"]
TINY += ["--pretraining", "600", "--pretraining-rate", "0.01", "--slots", "64", "--learning-rate", "0.001"]
UPDATES = 20


def run_tiny(out, *arguments):
    """Run a tiny study, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "PROBLEMS", 32)
        patch.setattr(study, "ANSWERS", 8)
        return run_experiment(patch, study, *TINY, "--updates", UPDATES, *arguments, "--out", out)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The directory of a tiny study."""
    out = tmp_path_factory.mktemp("verifiable")
    assert run_tiny(out) == 0
    return out


def test_the_check_alone_makes_answers_better(out):
    summary = json.loads((out / "summary.json").read_text())
    before, after = summary["models"]["pretrained"], summary["models"]["RLOO"]
    for found in (before, after):
        assert list(found["pass"]) == ["all", "2"]
        rates = [found["pass"]["all"][str(k)]["mean"] for k in (1, 2, 4, 8)]
        assert rates == sorted(rates)
        assert found["pass"]["all"] == found["pass"]["2"]
        assert all(0 <= found[name]["mean"] <= 1 for name in ("greedy", "flawless"))
    assert after["pass"]["all"]["1"]["mean"] > before["pass"]["all"]["1"]["mean"] + 0.03
    assert summary["failed_seeds"] == []
    assert (out / "verifiable.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "samples.txt").read_text().splitlines()) == study.SHOWN + 1
    results = pgjax.read(out / "practice")
    begun, ended = (results.right[:, part].mean("iteration") for part in (slice(5), slice(-5, None)))
    assert (ended > begun).all()
    np.testing.assert_allclose(results.right, results.episode_return, atol=1e-6)  # there is no price


def test_a_check_in_python_pays_the_same():
    problems = pgjax.text.Additions(np.array([47, 3]), np.array([85, 4]), np.array([2, 1]))
    rows = [(0, "#132.", 1), (0, "7+5+0=12,4+8+1=13#132.", 1), (0, "#132", 0), (0, "#7.", 0), (1, "#7.", 1)]
    rows += [(0, "132.", 0), (0, "#12#132.", 0), (0, "#132#132.", 0), (1, "#07.", 0)]
    characters, W = study.arithmetic.CHARACTERS, problems.prompts.shape[1]
    written = [[*characters.encode(said.rstrip(".")), *[pgjax.text.EOS] * said.count(".")] for _, said, _ in rows]
    which = np.array([number for number, _, _ in rows])
    output = pgjax.text.right_padded([np.asarray(row) for row in written], problems.length)
    tokens = np.concatenate([problems.prompts[which], output], axis=1)
    texts = pgjax.text.Texts(
        tokens=jnp.asarray(tokens),
        output=jnp.asarray((tokens != pgjax.text.PAD) & (np.arange(tokens.shape[1]) >= W)),
        prompt=jnp.asarray(which),
        data=jnp.asarray(problems.answers[which]),
    )
    in_python = pgjax.text.host_reward(partial(study.right_answers, problems), characters.decode)
    for judge in (in_python, pgjax.text.answer_check(study.MARK)):
        assert judge(texts, ()).reward.tolist() == [pay for _, _, pay in rows]


def test_a_check_that_fails_in_the_midst_of_a_program_is_one_sentence(out, tmp_path, monkeypatch, capsys):
    def fails(problems, texts):
        raise RuntimeError("no interpreter")

    def end_at_once(status):
        raise SystemExit(status)

    shutil.copytree(out / "pretraining", tmp_path / "pretraining")
    monkeypatch.setattr(study, "right_answers", fails)
    monkeypatch.setattr(os, "_exit", end_at_once)
    assert run_tiny(tmp_path, "--on-host") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: expected a reward of the output '")
    assert error.endswith("got RuntimeError: no interpreter")
    assert pgjax.read(tmp_path / "pretraining").completed.all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "2 or more seeds for an interval, got 1"),
        (["--digits", "1"], "at most 100 problems of 1 digits, got"),
        (["--noise", "1.5"], "a probability of mistakes from 0 to 1, got 1.5"),
        (["--updates", "0"], "1 or more updates, got 0"),
        (["--beta", "-1"], "a KL coefficient β of 0 or more, got -1.0"),
        (["--group-size", "5"], "groups of the same start that divide 128 slots, got 5"),
        (["--method", "ppo", "--group-size", "4"], "no --group-size beside --method ppo, got 4"),
        (["--learning-rate", "-1"], "expected a finite learning_rate of 0 or more, got -1.0"),
        (["--pretraining-rate", "-1"], "expected a finite learning_rate of 0 or more, got -1.0"),
    ],
)
def test_what_cannot_be_used_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()


def test_ppo_has_a_critic_that_reads():
    options = study.Options(seeds=2, method="ppo", examples=16, practice=16, width=8, layers=1, heads=2, slots=8)
    task = study.task_of(options)
    algorithm = study.method_of(options, task)
    numbers = algorithm.hyperparameters(discount=1.0)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), numbers)
    assert "right" in jax.eval_shape(algorithm.update, state)[1].notes
