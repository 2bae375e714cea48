import json

import numpy as np
import pytest
import xarray as xr

import pgjax
from experiments import overoptimisation as study
from tests.cases import assert_refused, run_experiment

TINY = ["--seeds", "2", "--comparisons", "8", "16", "--reward-width", "8", "--width", "8", "--updates", "15"]
TINY += ["--pretraining", "20", "--pool", "4", "--block", "1", "--beta", "--length-bias", "0", "--rounds", "1"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The directory of a tiny study."""
    out = tmp_path_factory.mktemp("overoptimisation")
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"LENGTH": 8, "PROMPTS": 2, "SENTENCES": 200, "PRETRAINING_STEPS": 10}.items():
            patch.setattr(study, name, size)
        assert run_experiment(patch, study, *TINY, "--out", out) == 0
    return out


def test_the_summary_holds_a_law_for_each_method_size_and_number_of_comparisons(out):
    summary = json.loads((out / "summary.json").read_text())
    found = [(row["reward_width"], row["comparisons"], row["method"]) for row in summary["rows"]]
    assert found == [(8, n, method) for n in (8, 16) for method in ("RL", "best-of-n")]
    for row in summary["rows"]:
        low, high = row["peak_interval"]
        assert low <= row["peak_gold"] <= high
        assert row["peak_gold"] == pytest.approx(max(row["curve"]["gold"]), abs=1e-5)
        assert len(row["curve"]["d"]) == (3 if row["method"] == "RL" else 4)
        assert row["curve"]["d"][0] < 0.5 < row["curve"]["d"][-1] or row["method"] == "RL"
    assert summary["side_effects"][0]["what"] == "β = 0"
    for name in ("overoptimisation.png", "side_effects.png"):
        assert (out / name).stat().st_size > 10_000


def test_pretraining_has_no_key_of_the_feedback(out):
    studies = [json.loads(pgjax.read(out / f"{name}-8").attrs["configuration"])["study"]
               for name in ("pretraining", "comparisons")]  # fmt: skip
    assert studies == [2**31, 0]


def curves(gold, kl):
    """Results of two seeds, whose gold and KL are these at every update, apart by 0.2."""
    apart = np.array([[-0.1], [0.1]])
    both = {name: (("seed", "iteration"), np.asarray(x)[None] + apart) for name, x in {"gold": gold, "kl": kl}.items()}
    both["proxy"] = both["gold"]
    return xr.Dataset(both)


def test_points_of_a_curve_are_means_over_updates_and_seeds():
    gold, kl = np.arange(20.0), np.repeat([0.0, 1.0, 4.0, 9.0], 5)
    curve = study.curve_of(curves(gold, kl), np.array([0.5, 0.7]))
    np.testing.assert_allclose(curve.d, [0, 1, 2, 3], atol=1e-7)
    np.testing.assert_allclose(curve.gold, [1.4, 6.4, 11.4, 16.4])  # each seed less its own start: the two are equal
    np.testing.assert_allclose(curve.high, curve.gold)
    # From the same start they are ± 0.1 apart: a standard deviation of 0.1 √2, of the mean 0.1, and t is 12.7.
    apart = study.curve_of(curves(gold, kl), np.zeros(2))
    np.testing.assert_allclose(apart.high - apart.gold, 1.2706, rtol=1e-4)
    row = study.row_of(curve, "RL", reward_width=8)
    assert row["peak"] == pytest.approx(3)
    assert row["peak_gold"] == row["final_gold"] == pytest.approx(16.4)


def test_seeds_that_fail_in_one_sweep_are_named_and_left_out_of_all(tmp_path):
    def sweep(*numbers):
        return xr.Dataset({"gold": (("beta", "seed", "iteration"), np.reshape(numbers, (2, 3, 1)))})

    options = study.Options(seeds=3, first_seed=7, out=tmp_path)
    fine = sweep(1.0, 2, 3, 4, 5, 6)
    good, failed = study.failures(options, {"one": fine, "other": sweep(1.0, 2, 3, 4, np.nan, 6)})
    assert good.tolist() == [True, False, True]
    assert failed == {"other": [8]}
    sweeps = {"one": fine, "other": sweep(np.inf, 2, 3, 4, np.nan, 6), "third": sweep(1, 2, 3, 4, 5, np.nan)}
    message = "expected a seed whose numbers are finite in all sweeps, got others in other: 7, 8; third: 9"
    with pytest.raises(pgjax.InputError, match=message):
        study.failures(options, sweeps)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"seeds": 3, "failed_seeds": {"other": [7, 8], "third": [9]}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "expected 1 or more seeds, got 0"),
        (["--comparisons", "0"], "expected 1 or more comparisons, got 0"),
        (["--width", "24"], "expected a width among those of reward models (16, 32, 64), got 24"),
        (["--updates", "5"], "expected 15 or more updates, for a curve, got 5"),
        (["--pool", "1"], "expected a pool of 4 or more outputs to a prompt, got 1"),
        (["--beta", "inf"], "expected a finite --beta, got inf"),
        (["--beta", "0.1", "0.1"], "expected every value of beta once, got (0.1, 0.1)"),
        (["--comparisons", "8", "8"], "expected every value of comparisons once, got (8, 8)"),
        (["--temperature", "0"], "expected annotators with a temperature τ above 0, got 0.0"),
        (["--reward-width", "30", "--width", "30"], "expected heads that divide the width 30, got 4"),
        (["--learning-rate", "-1"], "expected a finite learning_rate of 0 or more, got -1.0"),
        (["--beta", "-0.1"], "expected KL coefficients β above 0, to compare with none, got -0.1"),
    ],
)
def test_wrong_options_are_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "new"], message)
    assert not (tmp_path / "new").exists()
