import json
import subprocess
from pathlib import Path

import pytest

from common import measuring_texts
from experiments import benchmark as study
from tests.cases import run_experiment

TINY = [
    *("--seeds", "2", "--repetitions", "1", "--solve-seeds", "2", "--solve-iterations", "5", "--scale", "2"),
    *("--pixels", "2", "--text", "1"),
]
PEER = {
    "device": "cpu",
    "steps_per_second": {"CartPole": {"median": 1e6}, "Breakout": {"median": 1e4}},
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
        patch.setattr(study, "PEER_SEEDS", {"CartPole": 2, "Breakout": 256})
        patch.setattr(measuring_texts, "LENGTHS", (4, 8))
        patch.setattr(study.shutil, "which", lambda name: f"/bin/{name}")
        patch.setattr(study.subprocess, "run", answer)
        assert run_experiment(patch, study, *TINY, "--out", out) == 0
    return json.loads((out / "summary.json").read_text()), asked


def test_the_summary_holds_every_measurement(measured):
    summary, _ = measured
    cart_pole = ("1 episode", "16, budget", "16", "16, critic", "16, memory")
    assert [(row["case"], row["seeds"], row["phase"]) for row in summary["rows"]] == [
        *((case, 2, phase) for case in cart_pole for phase in ("start", "end")),
        *((case, 2, "start") for case in ("pixels", "pixels, critic")),
    ]
    for row in summary["rows"]:
        learned = (0, 5) if "pixels" in row["case"] else (9, 200)  # not much is learned in five updates
        assert learned[0] <= row["mean_return"] < learned[1]
        assert 0 < row["real_fraction"] <= 1
        assert row["real_steps_per_second"] > 0
    for row in summary["rows"][:2]:
        share = row["real_steps_per_second"] * 35328 / 1e9 / summary["matmul_gflops"]
        assert row["roofline_share"] == pytest.approx(share)
    assert set(summary["environment_steps_per_second"]) == {"CartPole-v1", "Breakout-MinAtar"}
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
    assert study.products((4, 64, 64, 2)) == 8960 + 8960 + 2 * 8960 - 512
    assert {case.flop for case in study.cart_pole(None)} == {35328}
    # 4-64, twice 64-192, and 64-2: forward 2 (256 + 24576 + 128) = 49920.
    assert study.with_memory().flop == 49920 + 49920 + 2 * 49920 - 512
    # 8·8 places of 36 pixels by 8 filters, 512-64-64-3: forward 2 (18432 + 32768 + 4096 + 192) = 110976.
    assert {case.flop for case in study.from_pixels()} == {4 * 110976 - 36864}


def test_the_peer_is_asked_in_both_ways(measured):
    summary, asked = measured
    assert [command[:3] for command in asked] == [["/bin/uv", "run", "--script"]] * 2
    assert ["--plain" in command for command in asked] == [True, False]
    cart_pole = summary["peer"]["CartPole, in_blocks"]
    slower = min(row["real_steps_per_second"] for row in summary["rows"] if row["case"] == "16, critic")
    assert cart_pole["ratio_with_critic"] == pytest.approx(slower / 1e6)
    assert cart_pole["seconds"] == 50
    assert summary["peer"]["Breakout, documented"]["ratio"] is None  # which is for 256 seeds
    assert summary["peer"]["seconds_to_its_fraction"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repetitions", "0"], "expected repetitions to be 1 or more, got 0"),
        (["--seeds", "0"], r"expected one or more of --seeds, and counts of 1 or more, got (0,)"),
        (["--text"], "expected one or more of --text, and counts of 1 or more, got ()"),
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
