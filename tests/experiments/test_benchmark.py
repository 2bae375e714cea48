import json
import subprocess
from pathlib import Path

import pytest

from experiments import benchmark as study
from tests.cases import run_experiment

TINY = [
    "--seeds",
    "2",
    "--repetitions",
    "1",
    "--solve-seeds",
    "2",
    "--solve-iterations",
    "5",
    "--scale",
    "2",
    "--text",
    "1",
]
PEER = {
    "device": "cpu",
    "steps_per_second": {"median": 1e6},
    "to_solved": {"seconds": 50.0, "solved_fraction": 0.0, "seeds": 2},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The summary of a tiny benchmark, whose peer is one that answers at once, and what was printed."""
    out, asked, run = tmp_path_factory.mktemp("benchmark"), [], subprocess.run

    def answer(command, **options):
        if command[0] != "/bin/uv":
            return run(command, **options)
        asked.append(command)
        Path(command[command.index("--out") + 1]).write_text(json.dumps(PEER))
        return subprocess.CompletedProcess(command, 0, "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "MATRIX", 64)
        patch.setattr(study, "SLOTS", 16)
        patch.setattr(study, "LENGTHS", (4, 8))
        patch.setattr(study.shutil, "which", lambda name: f"/bin/{name}")
        patch.setattr(study.subprocess, "run", answer)
        assert run_experiment(patch, study, *TINY, "--out", out) == 0
    return json.loads((out / "summary.json").read_text()), asked


def test_the_summary_holds_every_measurement(measured):
    summary, _ = measured
    wanted = {
        "matmul_gflops", "rows", "peer_steps_per_second", "ratio_to_peer", "solve_seconds", "solved_fraction",
        "peer_seconds", "peer_solved_fraction", "seconds_to_peer_fraction", "compile_seconds", "peak_bytes",
    }  # fmt: skip
    assert wanted <= set(summary)
    assert [(row["seeds"], row["slots"], row["phase"]) for row in summary["rows"]] == [
        (2, 1, "start"), (2, 1, "end"), (2, 16, "start"), (2, 16, "end"),
    ]  # fmt: skip
    assert [len(summary[f"rows_{kind}"]) for kind in ("without_budget", "with_critic", "with_memory")] == [2, 2, 2]
    for row in summary["rows"] + summary["rows_with_memory"]:
        assert 9 < row["mean_return"] < 200  # not much is learned in five updates
        assert 0 < row["real_fraction"] <= 1
        assert row["real_steps_per_second"] > 0
    for row in summary["rows"]:
        share = row["real_steps_per_second"] * summary["flop_per_step"] / 1e9 / summary["matmul_gflops"]
        assert row["roofline_share"] == pytest.approx(share)
    assert summary["solve_seconds"] is None  # nobody solves it in 5 updates
    assert summary["solved_fraction"] == 0
    assert summary["compile_seconds"] > 0
    assert summary["peak_bytes"] > 0
    text = summary["text"]
    assert 100_000 < text["parameters"] < 110_000
    assert [(row["seeds"], row["kl_penalty"]) for row in text["rows"]] == [(1, True), (1, False)]
    for row in text["rows"]:
        assert row["tokens_per_second"] > 0
        assert row["real_fraction"] == 1  # nobody ends a text
    assert [sampled["length"] for sampled in text["sampling"]] == [4, 8]
    for sampled in text["sampling"]:
        assert sampled["tokens_per_second"] > 0
        assert sampled["written_per_read"] > 0


def test_the_operations_of_a_step_are_those_of_its_products():
    # 4-64-64-2: forward 2 (4·64 + 64·64 + 64·2) = 8960, twice; backward twice that, less 2·4·64 for the observation.
    from pgjax import from_gymnax

    assert study.flop_per_step(from_gymnax("CartPole-v1")) == 8960 + 8960 + 2 * 8960 - 512
    # 4-64, twice 64-192, and 64-2: forward 2 (256 + 24576 + 128) = 49920.
    assert study.flop_with_memory(from_gymnax("CartPole-v1")) == 49920 + 49920 + 2 * 49920 - 512


def test_the_peer_is_asked_in_both_ways(measured):
    summary, asked = measured
    assert [command[:3] for command in asked] == [["/bin/uv", "run", "--script"]] * 2
    assert ["--plain" in command for command in asked] == [True, False]
    assert summary["peer_steps_per_second"] == 1e6
    assert summary["peer_seconds"] == 50
    assert summary["ratio_to_peer"] is None  # which is for 256 seeds
    assert summary["seconds_to_peer_fraction"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repetitions", "0"], "expected repetitions to be 1 or more, got 0"),
        (["--seeds", "0"], "expected counts of seeds of 1 or more"),
        (["--text-alone", "--text"], "expected one or more counts of language models with --text-alone, got none"),
        (["--solve-iterations", "-5"], "expected solve_iterations to be 1 or more, got -5"),
    ],
)
def test_bad_counts_are_refused(monkeypatch, tmp_path, capsys, arguments, message):
    assert run_experiment(monkeypatch, study, *arguments, "--out", tmp_path / "new") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_peer_that_fails_is_named(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "something\nlast words\n")
    monkeypatch.setattr(study.shutil, "which", lambda name: name)
    monkeypatch.setattr(study.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(study.pgjax.InputError, match="got status 1: last words; or --no-peer"):
        study.ask_peer(tmp_path, plain=True)
    monkeypatch.setattr(study.shutil, "which", lambda name: None)
    with pytest.raises(study.pgjax.InputError, match="expected uv"):
        study.ask_peer(tmp_path, plain=True)
