import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import annotate
import pgjax
from common import launch, names
from experiments import rlhf as study
from pgjax import rlhf
from pgjax.text.language_models import unjudged
from tests.cases import assert_refused, run_experiment

TINY = ["--seeds", "2", "--width", "8", "--layers", "1", "--heads", "2", "--sentences", "200", "--pretraining", "100"]
TINY += ["--rounds", "1", "--updates", "3", "--comparisons", "16", "--slots", "8", "--best-of", "4", "--block", "1"]


def run_tiny(out, *arguments):
    """Run a tiny study, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"CANDIDATES": 8, "PROMPTS": 4, "SHOWN": 3, "STORED": 5}.items():
            patch.setattr(study, name, size)
        return run_experiment(patch, study, *TINY, *arguments, "--out", out)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The directory of a tiny study."""
    out = tmp_path_factory.mktemp("rlhf")
    assert run_tiny(out) == 0
    return out


def test_the_summary_says_what_became_better(out):
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rewards"].keys() == {"gold", "learned"}
    for rewards in summary["rewards"].values():
        assert rewards.keys() == {"sft", "rl", "best_of_n"}
        for found in (*rewards.values(), summary["kl"]):
            assert found["low"] <= found["mean"] <= found["high"]
    simulated = summary["simulated"]
    assert simulated["comparisons"] == 16
    assert 0 < simulated["accuracy"] <= 1
    assert 0.5 < simulated["bayes_accuracy"] < 1
    assert len(simulated["identical_texts"]) == 1
    assert summary["people"] is None
    assert summary["failed_seeds"] == []
    assert summary["floor"] < summary["negative_log_likelihood"] < 3
    assert summary["tokens_per_second"] > 0
    assert set(summary["seconds"]) == {"pretraining", "feedback", "all"}
    assert summary["best_of_n_kl"] == pytest.approx(np.log(4) - 3 / 4)
    assert (out / "rlhf.png").stat().st_size > 10_000
    assert len((out / "samples.txt").read_text().splitlines()) == 4


def test_pretraining_has_no_key_of_the_rounds_of_feedback(out):
    studies = [pgjax.read(out / name).attrs["configuration"] for name in ("pretraining", "feedback")]
    keys = [pgjax.run_keys(json.loads(text)["study"], range(100)) for text in studies]
    keys.append(launch.keys_after_training(study.Options(seeds=100)))
    drawn = np.concatenate([jax.random.key_data(key) for key in keys])
    assert len(np.unique(drawn, axis=0)) == 300


def test_rankings_are_written_as_they_are_read(out):
    grammar = pgjax.text.grammar()
    rankings, names = rlhf.load_rankings(out / "rankings.jsonl", grammar.tokenizer, 6, 24)
    assert rankings.tokens.shape == (5, 2, 30)
    assert len(np.unique(rankings.tokens[:, 0, :6], axis=0)) > 1
    assert (rankings.tokens[:, 0] != rankings.tokens[:, 1]).any(-1).all()
    assert names == ("simulated",)


def test_rankings_by_people_are_measured_on_some_of_other_prompts_and_nobody_is_simulated(out, tmp_path, capsys):
    shutil.copytree(out / "pretraining", tmp_path / "new" / "pretraining")
    arguments = ["--rankings", out / "rankings.jsonl", "--gold", "none", "--comparisons", "0"]
    assert run_tiny(tmp_path / "new", *arguments) == 0
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["simulated"] is None
    assert summary["rewards"].keys() == {"learned"}
    people = summary["people"]
    lines = (out / "rankings.jsonl").read_text().splitlines()
    assert people["fitted"] + people["held_out"] == len(lines) == 5
    assert people["prompts"] == 1
    assert people["pairs"] == people["held_out"]
    assert round(people["accuracy"] * people["pairs"] * 2) == pytest.approx(people["accuracy"] * people["pairs"] * 2)
    assert not (tmp_path / "new" / "rankings.jsonl").exists()  # nobody was simulated who could have made some
    said = capsys.readouterr().out
    assert f"rankings: {people['fitted']} by people ({people['held_out']} more are held out)" in said
    assert f"% of {people['pairs']} pairs to held-out prompts (1) as they did, 50% by guessing" in said
    assert "simulated" not in said
    assert "gold" not in said


def test_with_rankings_by_people_nobody_is_simulated_unless_that_is_asked_for():
    people = Path("people.jsonl")
    assert study.comparisons_of(study.Options()) == 1024
    assert study.comparisons_of(study.Options(rankings=people)) == 0
    assert study.comparisons_of(study.Options(rankings=people, comparisons=7)) == 7


def test_pairs_of_people_are_those_that_were_ranked_each_way_round():
    order = np.array([[1, 0, -1], [2, 0, 1]])
    held_out = rlhf.Rankings(np.zeros((2, 3, 4)), order, np.ones(2, bool), np.zeros(2))
    scores = np.array([[[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]]])  # of one run
    of_pairs, orders = study.pairs_of_people(study.Ranked(held_out, held_out, 2), scores)
    assert of_pairs[:4].tolist() == [[2, 1], [5, 3], [5, 4], [3, 4]]  # the better one first
    assert of_pairs[4:].tolist() == [[1, 2], [3, 5], [4, 5], [4, 3]]
    assert orders.tolist() == [[0, 1]] * 4 + [[1, 0]] * 4


def test_seeds_whose_numbers_are_not_finite_are_named_and_left_out(out, monkeypatch, tmp_path, capsys):
    before = json.loads((out / "summary.json").read_text())
    assert before["rewards"]["gold"]["rl"]["low"] < before["rewards"]["gold"]["rl"]["high"]
    shutil.copytree(out, tmp_path / "some")
    monkeypatch.setattr(pgjax.analysis, "failed", lambda results: results.seed == 1)
    assert run_tiny(tmp_path / "some") == 0
    summary = json.loads((tmp_path / "some" / "summary.json").read_text())
    assert summary["failed_seeds"] == [1]
    for found in summary["rewards"]["gold"].values():
        assert found["mean"] is not None
        assert found["low"] is found["high"] is None  # of the one that is left nothing is known
    assert "numbers that are not finite, and are left out, in seeds: 1\n" in capsys.readouterr().out
    shutil.copytree(out, tmp_path / "all")
    monkeypatch.setattr(pgjax.analysis, "failed", lambda results: results.seed >= 0)
    assert run_tiny(tmp_path / "all") == 2
    message = "error: expected a run whose numbers are finite, got others in all seeds: 0, 1\n"
    assert capsys.readouterr().err.endswith(message)
    assert json.loads((tmp_path / "all" / "summary.json").read_text()) == {"seeds": 2, "failed_seeds": [0, 1]}


def test_a_run_fails_whose_outputs_cannot_be_compared():
    curves = xr.Dataset({"loss": (("seed", "iteration"), np.array([[1.0], [1.0], [np.nan]]))}, {"seed": [0, 1, 2]})
    options = study.Options(seeds=3)
    good, found = study.without_failed(options, curves, curves, lambda x: {"kl": 1 / x}, (np.array([2.0, 0.0, 4.0]),))
    assert good.tolist() == [True, False, False]
    assert found["kl"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--position-bias", "nan"], "expected a finite --position-bias, got nan"),
        (["--length-bias", "inf"], "expected a finite --length-bias, got inf"),
        (["--beta", "-0.1"], "expected a finite beta of 0 or more, got -0.1"),
        (["--temperature", "0"], "expected annotators with a temperature τ above 0, got 0.0"),
        (["--corpus", "/nowhere.txt"], "expected a file of text, got /nowhere.txt"),
        (["--corpus", "/nowhere.jsonl"], "expected a file of prompts and completions, got /nowhere.jsonl"),
        (["--tokenizer", "bpe:300"], "expected --tokenizer characters for the grammar, got bpe:300"),
        (
            ["--corpus", "python-docs", "--tokenizer", "bpe:9"],
            "expected a vocabulary of 259 or more tokens",
        ),
        (["--corpus", "python-docs", "--tokenizer", "bpe"], "expected --tokenizer bpe: with a number of tokens, as in"),
        (
            ["--corpus", "python-docs", "--tokenizer", "/no.json"],
            "expected a file of a tokenizer, got /no.json",
        ),
        (["--prompt-tokens", "2"], "expected --prompt-tokens of 6 or more, as the corpus has them, got 2"),
        (["--gold", "fame"], "expected a gold reward words, length or letters:LETTERS, got fame"),
        (["--best-of", "99"], "expected n from 1 to 32 for best-of-n, got 99"),
        (["--heads", "3"], "expected heads that divide the width 32, got 3"),
        (["--group-size", "1"], "expected groups of 2 or more for a leave-one-out baseline, got 1"),
        (
            ["--beta", "0", "--kl-target", "5"],
            "expected a first β above 0 for a KL target, as the controller multiplies it",
        ),
        (["--seeds", "0"], "expected 1 or more seeds, got 0"),
        (["--study", str(2**30)], "expected a study from 0 to 2**30 - 1, got 1073741824"),
        (["--slots", "6"], "expected groups of the same start that divide 6 slots, got 4"),
        (["--rankings", "/nowhere.jsonl"], "expected a file of rankings, got /nowhere.jsonl"),
        (["--gold", "none"], "expected --rankings, a file of rankings by people, beside --gold none, got no file"),
        (["--comparisons", "0"], "expected 1 or more rankings, got 0"),
        (["--drawn", "1"], "expected 2 or more outputs drawn for a ranking of 2, got 1"),
        (["--position-bias", "nan"], "a finite --position-bias, got nan"),
        (["--length-bias", "inf"], "a finite --length-bias, got inf"),
    ],
)
def test_wrong_options_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()


def test_rankings_for_one_prompt_or_beside_no_gold_are_refused(monkeypatch, capsys, tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    line = '{"prompt": "", "outputs": ["a.", "b."], "ranking": [0, 1]}\n'
    one.write_text(2 * line)
    message = "expected rankings for two or more prompts, one of them to measure by, got 1 prompt"
    assert_refused(monkeypatch, capsys, study, ["--rankings", one], message)
    two.write_text(line + line.replace('"prompt": ""', '"prompt": "a"'))
    message = "expected no rankings by simulated annotators without a gold reward, got 5"
    assert_refused(monkeypatch, capsys, study, ["--rankings", two, "--gold", "none", "--comparisons", "5"], message)


def test_an_empty_corpus_and_a_ranking_that_names_an_output_twice_are_refused(monkeypatch, capsys, tmp_path):
    empty, twice = tmp_path / "empty.txt", tmp_path / "rankings.jsonl"
    empty.write_text(" \n")
    assert_refused(monkeypatch, capsys, study, ["--corpus", empty], f"in {empty}, got an empty one")
    twice.write_text('{"prompt": "", "outputs": ["a.", "b."], "ranking": [0, 1]}\n'
                     '{"prompt": "", "outputs": ["a.", "b."], "ranking": [1, 1]}\n')  # fmt: skip
    message = f"{twice}, line 2: expected every output at most once in the ranking"
    assert run_experiment(monkeypatch, study, "--rankings", twice) == 2
    assert message in capsys.readouterr().err


def test_a_model_learns_answers_in_subwords_and_can_be_made_again(tmp_path):
    pairs, rankings, out = (tmp_path / name for name in ("pairs.jsonl", "rankings.jsonl", "out"))
    chats = [[{"role": "user", "content": f"who {verb}?"}] for verb in ("eats", "sleeps", "sees")]
    answers = [f"The {animal} eats." for animal in ("cat", "dog", "bird")]
    several = [{"prompt": chat, "completion": answer} for chat in chats for answer in answers]
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in [*several, {"prompt": "x" * 99, "completion": "y"}]))
    liked = [{"prompt": chat, "chosen": answers[0], "rejected": answers[1]} for chat in chats]
    rankings.write_text("".join(json.dumps(pair) + "\n" for pair in liked))
    texts = ["--corpus", pairs, "--tokenizer", "bpe:290", "--skip-long", "--template", "{role}> {content}\\n"]
    sizes = ["--seeds", "1", "--pretraining", "50", "--updates", "1", "--length", "12", "--prompt-tokens", "30"]
    assert run_tiny(out, *texts, *sizes, "--rankings", rankings, "--gold", "letters:aeiou") == 0
    tokenizer = pgjax.text.load_subwords(out / "tokenizer")
    made = study.Options(corpus=str(pairs), tokenizer="bpe:290", skip_long=True, template="{role}> {content}\\n")
    for kept in (out / "tokenizer", None):
        corpus = names.corpus_named(made, seed=0, kept=kept)
        assert corpus.tokenizer.model.to_str() == tokenizer.model.to_str()
    assert tokenizer.decode(corpus.prompts[0]) == "user> who eats?\nassistant> "
    assert json.loads((out / "summary.json").read_text())["people"]["prompts"] == 1
    assert len(rlhf.ranking_lines(out / "rankings.jsonl")) > 0


def test_a_corpus_and_its_tokenizer_are_found_by_their_names(tmp_path):
    (tmp_path / "text").write_text("the cat sat on the mat\n" * 9)
    plain = names.corpus_named(names.Texts(corpus=str(tmp_path / "text")), seed=0)
    assert isinstance(plain.tokenizer, pgjax.text.Characters)
    pgjax.text.train_subwords("the cat", 270).save(tmp_path / "new")
    options = names.Texts(corpus=str(tmp_path / "text"), tokenizer=str(tmp_path / "new"), prompt_tokens=9)
    corpus = names.corpus_named(options, seed=0)
    assert corpus.prompts.shape[1] == 9
    assert corpus.tokenizer.vocabulary == pgjax.text.load_subwords(tmp_path / "new").vocabulary


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A text, a tokenizer of it, and the random weights of a small model, in files; and the options that name them."""
    out = tmp_path_factory.mktemp("given")
    (out / "text").write_text("the cat sat on the mat\n" * 20)
    tokenizer = pgjax.text.train_subwords("the cat sat", 270)
    tokenizer.save(out)
    config = pgjax.text.TransformerConfig(tokenizer.vocabulary, 64, 16, layers=1, heads=2, layout=pgjax.text.GPT2)
    init = pgjax.text.transformer(pgjax.text.text_environment([[1]], config.vocabulary, 4, unjudged), config).init
    pgjax.text.save_gpt2(out / "model.safetensors", config, init(jax.random.key(5)), ids=tokenizer.ids)
    return out, ["--corpus", out / "text", "--tokenizer", out, "--model", out / "model.safetensors"]


def test_a_model_begins_with_given_weights(given, tmp_path):
    directory, options = given
    assert run_tiny(tmp_path / "new", *options, "--pretraining", "0", "--updates", "2", "--length", "6") == 0
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    model = directory / "model.safetensors"
    made = study.Options(corpus=str(directory / "text"), tokenizer=str(directory), model=model, heads=2, length=6)
    corpus = names.corpus_named(made, seed=0)
    _, policy, config = study.language_model(made, corpus)
    assert config[:5] == (corpus.tokenizer.vocabulary, 64, 16, 1, 2)
    score = pgjax.text.mean_log_prob(policy, corpus.texts[: study.JUDGED])(policy.init(jax.random.key(0)))
    assert summary["negative_log_likelihood"] == pytest.approx(-float(score), rel=1e-5)
    assert summary["seconds"]["pretraining"] == 0
    assert 0 < abs(summary["kl"]["mean"]) < 1  # from those weights
    assert not (tmp_path / "new" / "pretraining").exists()
    saved = json.loads((tmp_path / "new" / "model.json").read_text())
    assert (saved["width"], saved["layers"], saved["heads"], saved["pretraining"]) == (16, 1, 2, 0)
    again = annotate.options_of(tmp_path / "new")
    theta = study.supervised_of(again, study.language_model(again, corpus)[1], tmp_path / "new")
    for leaf, first in zip(*map(jax.tree.leaves, (theta, policy.init(jax.random.key(0)))), strict=True):
        np.testing.assert_array_equal(leaf, [first, first])


@pytest.mark.parametrize("begun_at_random", [True, False])
def test_types_of_products_and_what_is_computed_again_are_chosen(given, begun_at_random):
    directory, _ = given
    model = None if begun_at_random else directory / "model.safetensors"
    made = study.Options(corpus=str(directory / "text"), tokenizer=str(directory), model=model, heads=2, length=6)
    corpus = names.corpus_named(made, seed=0)
    _, policy, config = study.language_model(made, corpus)
    assert (config.compute, config.remat) == (None, None)
    assert policy.memory(1).keys[0].dtype == jnp.float32
    for again in (True, False):
        options, policy, config = study.language_model(replace(made, bfloat16=True, remat=again), corpus)
        assert (config.compute, config.remat) == (jnp.bfloat16, again)
        assert study.told_apart(options) == {**study.told_apart(made), "bfloat16": True}
        assert policy.memory(1).keys[0].dtype == jnp.bfloat16
        params = jax.eval_shape(policy.init, jax.random.key(0))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_given_weights_can_be_pretrained_further(given, tmp_path):
    _, options = given
    assert run_tiny(tmp_path / "new", *options, "--pretraining", "50", "--updates", "1", "--length", "6") == 0
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["negative_log_likelihood"] < 4.5 < np.log(261)  # what random weights say


def test_weights_that_do_not_fit_are_refused(given, monkeypatch, capsys, tmp_path):
    options = [*given[1], "--heads", 2, "--out", tmp_path / "new"]
    (tmp_path / "bad.safetensors").write_text("no weights")
    pgjax.text.train_subwords("the cat sat on the mat. " * 9, 280).save(tmp_path)
    for more, message in (
        (
            ["--tokenizer", "characters"],
            "expected the file of its tokens as --tokenizer beside --model, got characters",
        ),
        (["--tokenizer", "bpe:270"], "expected the file of its tokens as --tokenizer beside --model, got bpe:270"),
        (["--tokenizer", tmp_path], "a larger vocabulary"),
        (["--model", tmp_path / "bad.safetensors"], "expected a file of weights (.safetensors) at"),
        (["--length", 64], "expected a context of"),
        (["--context", 90], "expected texts of at most 65 tokens, as the context allows, got"),
        (["--pretraining", -1], "expected 0 or more gradient steps of pretraining, got -1"),
    ):
        assert_refused(monkeypatch, capsys, study, [*options, *more], message)
    assert not (tmp_path / "new").exists()


def test_another_method_optimises_the_model(tmp_path):
    assert run_tiny(tmp_path, "--method", "grpo") == 0
    found = pgjax.read(tmp_path / "feedback")
    assert np.isfinite(found.approx_kl).all()
    assert (found.clip_fraction >= 0).all()


def test_a_model_is_fitted_to_rankings_without_a_reward_model(tmp_path, capsys):
    assert run_tiny(tmp_path, "--method", "dpo") == 0
    printed = capsys.readouterr().out
    assert "3 updates of DPO; rankings: 16 by simulated annotators in each" in printed
    assert re.search(r"^ +DPO +-?\d", printed, re.M)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["kl"]["mean"] > 0  # it has moved
    assert summary["method"] == "DPO"


def test_preferences_without_a_price_on_divergence_are_refused(monkeypatch, capsys, tmp_path):
    options = [*TINY, "--method", "dpo", "--beta", "0", "--out", tmp_path]
    assert_refused(monkeypatch, capsys, study, options, "expected a --beta above 0 beside --method dpo")


def test_a_method_with_a_baseline_is_refused(monkeypatch, capsys, tmp_path):
    options = [*TINY, "--method", "grpo", "--baseline", "running-average", "--out", tmp_path]
    assert_refused(monkeypatch, capsys, study, options, "no --baseline beside --method grpo, got running-average")
