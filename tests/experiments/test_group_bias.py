"""The study of groups on a small problem: what is exact has known values, and the command keeps its word."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import group_bias as study
from pgjax.sweeps import runner
from tests.cases import assert_refused, run_experiment

SMALL = ["--length", "2", "--group-size", "2", "--seeds", "2", "--iterations", "3", "--ascent", "400"]


@pytest.mark.slow
def test_writes_what_is_exact_and_what_is_sampled(monkeypatch, tmp_path, capsys):
    kept = {"METHODS": ("RLOO", "Dr. GRPO"), "PRICES": ("reward k1", "loss k1"), "SAMPLED": ("reward k1",)}
    for name, few in kept.items():
        monkeypatch.setattr(study, name, few)
    arguments = [*SMALL, "--out", tmp_path]
    assert run_experiment(monkeypatch, study, *arguments) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = summary["rows"]
    assert summary["texts"] == 7  # the end alone; a letter and the end, or two letters: 1 + 2 + 4
    assert list(rows) == [f"{method}, {price}" for method in study.METHODS for price in study.PRICES]
    right = rows["RLOO, reward k1"]
    assert right["bias"] < 1e-4
    np.testing.assert_allclose([right["cosine"], right["scale"]], 1, rtol=1e-4)
    assert right["end_from_optimum"] < 1e-3
    half = rows["Dr. GRPO, reward k1"]
    np.testing.assert_allclose([half["cosine"], half["scale"]], [1, 1 / 2], rtol=1e-3)  # (K − 1)/K, with K = 2
    assert half["end_from_optimum"] < 1e-3
    assert rows["RLOO, loss k1"]["end_from_optimum"] > 0.02  # whose mean gradient is 0: as if there were no price
    assert set(summary["sampled"]) == {f"{method}, {price}" for method in study.METHODS for price in study.SAMPLED}
    for found in summary["sampled"].values():
        assert 1 <= found["length"]["iqm"] <= 2
        assert found["length"]["interval"][0] <= found["length"]["iqm"] <= found["length"]["interval"][1]
    for name in ("group_bias.png", "group_length.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "RLOO, reward k1" in capsys.readouterr().out

    # The same command again computes nothing and says the same.
    monkeypatch.setattr(runner, "compile_program", None)
    monkeypatch.setattr(study, "exactly", lambda *_: pytest.fail("listed again"))
    assert run_experiment(monkeypatch, study, *arguments) == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert_refused(
        monkeypatch, capsys, study, [*arguments, "--beta", "0.1"], "expected a new directory, or the options"
    )


def test_the_estimates_of_the_divergence_are_those_of_the_sources():
    x = jnp.array([-0.5, 0.0, 1.0])
    found = {name: np.asarray(k(x)) for name, k in study.ESTIMATES.items()}
    np.testing.assert_allclose(found["loss k1"], x)
    np.testing.assert_allclose(found["loss k2"], [0.125, 0, 0.5])
    np.testing.assert_allclose(found["loss k3"], [np.exp(0.5) - 1.5, 0, np.exp(-1)], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beta", "0"], "price β above 0, got 0.0"),
        (["--seeds", "1"], "2 or more seeds for an interval, got 1"),
        (["--letters", "0"], "1 or more letters, got 0"),
        (["--length", "6"], "at most 20000 groups to list, got"),
        (["--group-size", "1"], "groups of 2 or more for a leave-one-out baseline, got 1"),
    ],
)
def test_what_cannot_be_listed_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "new"], message)
