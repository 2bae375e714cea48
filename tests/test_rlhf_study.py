import json

import jax
import numpy as np
import pytest

import pgjax
from experiments import rlhf as study
from pgjax import commandline, rlhf
from tests.cases import assert_refused, run_experiment

TINY = ["--seeds", "2", "--width", "8", "--layers", "1", "--heads", "2", "--sentences", "200", "--pretraining", "100"]
TINY += ["--rounds", "1", "--updates", "3", "--comparisons", "16", "--episodes", "8", "--best-of", "4", "--block", "1"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return the directory of a tiny study."""
    out = tmp_path_factory.mktemp("rlhf")
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"CANDIDATES": 8, "PROMPTS": 4, "SHOWN": 3, "STORED": 5}.items():
            patch.setattr(study, name, size)
        assert run_experiment(patch, study, *TINY, "--out", out) == 0
    return out


def test_the_summary_says_what_became_better(out):
    summary = json.loads((out / "summary.json").read_text())
    for found in (*(summary["gold"][name] for name in ("sft", "rl", "best_of_n")), summary["kl"]):
        assert found["low"] <= found["mean"] <= found["high"]
    assert 0 < summary["reward_model_accuracy"] <= 1
    assert 0.5 < summary["accuracy_ceiling"] < 1
    assert summary["floor"] < summary["negative_log_likelihood"] < 3
    assert summary["tokens_per_second"] > 0
    assert set(summary["seconds"]) == {"pretraining", "feedback", "all"}
    assert summary["best_of_n_kl"] == pytest.approx(np.log(4) - 3 / 4)
    assert (out / "rlhf.png").stat().st_size > 10_000
    assert len((out / "samples.txt").read_text().splitlines()) == 4


def test_pretraining_has_no_key_of_the_rounds_of_feedback(out):
    studies = [pgjax.read(out / name).attrs["configuration"] for name in ("pretraining", "feedback")]
    keys = [pgjax.run_keys(json.loads(text)["study"], range(100)) for text in studies]
    keys.append(commandline.keys_after_training(study.Options(seeds=100)))
    drawn = np.concatenate([jax.random.key_data(key) for key in keys])
    assert len(np.unique(drawn, axis=0)) == 300


def test_rankings_are_written_as_they_are_read(out):
    grammar = rlhf.grammar()
    rankings, names = rlhf.load_rankings(out / "rankings.jsonl", grammar.tokenizer, 6, 24)
    assert rankings.tokens.shape == (5, 2, 30)
    assert names == ("simulated",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--beta", "-0.1"], "expected a KL coefficient β of 0 or more, got -0.1"),
        (["--temperature", "0"], "expected annotators with a temperature τ above 0, got 0.0"),
        (["--corpus", "/nowhere.txt"], "expected a file of text, got /nowhere.txt"),
        (["--gold", "fame"], "expected a gold reward words, length or letters:LETTERS, got fame"),
        (["--best-of", "99"], "expected n from 1 to 32 for best-of-n, got 99"),
        (["--heads", "3"], "expected heads that divide the width 32, got 3"),
        (["--same-prompt", "1"], "expected groups of 2 or more for a leave-one-out baseline, got 1"),
        (["--beta", "0", "--kl-target", "5"], "expected a first β above 0 for a KL target, as steering multiplies it"),
        (["--seeds", "0"], "expected 1 or more seeds, got 0"),
        (["--study", str(2**30)], "expected a study from 0 to 2**30 - 1, got 1073741824"),
        (["--episodes", "6"], "expected groups of the same start that divide 6 episodes, got 4"),
        (["--rankings", "/nowhere.jsonl"], "expected a file of rankings, got /nowhere.jsonl"),
    ],
)
def test_wrong_options_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()


def test_an_empty_corpus_and_a_ranking_that_names_an_output_twice_are_refused(monkeypatch, capsys, tmp_path):
    empty, twice = tmp_path / "empty.txt", tmp_path / "rankings.jsonl"
    empty.write_text(" \n")
    assert_refused(monkeypatch, capsys, study, ["--corpus", empty], f"in {empty}, got an empty one")
    twice.write_text('{"prompt": "", "outputs": ["a.", "b."], "ranking": [0, 1]}\n'
                     '{"prompt": "", "outputs": ["a.", "b."], "ranking": [1, 1]}\n')  # fmt: skip
    message = f"{twice}, line 2: expected every output at most once in the ranking"
    assert run_experiment(monkeypatch, study, "--rankings", twice) == 2
    assert message in capsys.readouterr().err
