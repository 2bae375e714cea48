import re

import jax
import pytest

import large_model as study
from tests.cases import assert_refused, run_experiment

TINY = ["--size", "tiny", "--texts", 4, "--prompt", 2, "--tokens", 5, "--compilation-cache", "None"]


@pytest.mark.parametrize("trained", ["all", "adapters"])
def test_a_tiny_model_is_written_read_and_updated(trained, tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.safetensors"
    options = ["--bfloat16", "--model", path] if trained == "all" else ["--rank", 2]
    assert run_experiment(monkeypatch, study, *TINY, *options) == 0
    said = capsys.readouterr().out
    # Tokens, positions, two blocks, and a last norm; adapters of rank 2 beside every matrix of them.
    block = 4 * 16 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)
    count = 132 * 16 + 2 * block + 32
    own = count if trained == "all" else 2 * (116 + 48 + 2 * (64 + 32 + 80 + 80))
    assert f"{count:,} parameters, {own:,} are trained" in said
    assert len(re.findall(r"update \d: .* tokens/s, return 0\.\d+, KL", said)) == 2
    assert path.exists() == (trained == "all")


def test_what_cannot_be_used_is_refused(tmp_path, monkeypatch, capsys):
    assert_refused(monkeypatch, capsys, study, [*TINY, "--tokens", 32], "a context of 33 tokens or more for prompts")
    assert_refused(monkeypatch, capsys, study, [*TINY, "--texts", 0], "expected 1 or more texts")
    assert_refused(monkeypatch, capsys, study, [*TINY, "--tokens", 0], "expected outputs of 1 or more tokens, got 0")
    path = tmp_path / "model.safetensors"
    study.text.save_gpt2(path, config := study.SIZES["tiny"]._replace(layers=1), init(config))
    assert_refused(monkeypatch, capsys, study, [*TINY, "--model", path], "expected a model of the size")
    path.write_text("nothing")
    assert_refused(monkeypatch, capsys, study, [*TINY, "--model", path], "expected a file of weights (.safetensors) at")


def init(config):
    environment = study.environment(study.Options(size="tiny", prompt=2, tokens=5), config)
    return study.text.transformer(environment, config).init(jax.random.key(0))
