import json

import numpy as np
import pytest
import xarray as xr

import pgjax
from common.overoptimised import LAWS, METHODS, Curves, trends_of
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


def test_the_summary_holds_a_peak_for_each_method_size_and_number_of_comparisons(out):
    summary = json.loads((out / "summary.json").read_text())
    found = [(row["reward_width"], row["comparisons"], row["method"]) for row in summary["rows"]]
    assert found == [(8, n, method) for n in (8, 16) for method in ("REINFORCE", "best of n")]
    for row in summary["rows"]:
        low, high = row["peak_interval"]
        assert low <= row["peak"] <= high or low == high
        assert len(row["curve"]["d"]) == (3 if row["method"] == "REINFORCE" else 4)
        assert set(row["errors"]) == {"ln d", "d", "d²"}
    assert [(row["method"], row["law"]) for row in summary["laws"]] == [("REINFORCE", "ln d"), ("best of n", "d")]
    assert [row["what"] for row in summary["variants"]] == ["once, no penalty"]
    assert summary["variants"][0]["more"]["gold"]["mean"] == 0
    for name in ("overoptimisation.png", "side_effects.png"):
        assert (out / name).stat().st_size > 10_000


def test_runs_share_a_grammar_and_have_a_gold_reward_of_their_own():
    found = study.study_of(study.Options(seeds=3, first_seed=5))
    assert found.worth.shape == (3, 24)
    np.testing.assert_allclose(found.worth.sum(1), 0, atol=1e-5)
    assert (np.abs(np.diff(found.worth, axis=0)).min(1) > 0).all()
    again = study.study_of(study.Options(seeds=1, first_seed=6))
    np.testing.assert_array_equal(again.worth[0], found.worth[1])  # whatever runs beside it


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


def test_points_of_a_curve_are_means_over_updates():
    gold, kl = np.arange(20.0), np.repeat([0.0, 1.0, 4.0, 9.0], 5)
    found = study.curves_of(curves(gold, kl), np.array([0.5, 0.7]))
    np.testing.assert_allclose(found.mean()[0], [0, 1, 2, 3], atol=1e-7)
    np.testing.assert_allclose(found.gold, [[1.4, 6.4, 11.4, 16.4]] * 2)  # each less its own start: they are equal


def test_what_a_run_is_worth_at_the_peak_is_not_chosen_on_it():
    kl = np.broadcast_to(np.arange(3.0) ** 2, (3, 3))
    runs = Curves(kl, np.array([[0.0, 9, 0], [0, 0, 3], [0, 0, 3]]))
    assert runs.peak() == 1  # of the mean [0, 3, 2]
    assert runs.at_peak().tolist() == [0, 0, 0]  # the others of the first: the last point; of the second: the middle
    assert set(runs.peaks()) == {1, 2}
    assert Curves(kl, np.array([[0.0, 1, 2]] * 3)).peaks().tolist() == [2] * 2000


def test_a_law_is_without_error_on_its_own_curve_alone():
    d = np.linspace(0, 3, 13)
    for law, bend in LAWS.items():
        errors = {other: Curves(d[None] ** 2, (d * (2 - 0.5 * bend(d)))[None]).error(other)[0] for other in LAWS}
        assert errors.pop(law) < 1e-9
        assert min(errors.values()) > 1e-3


def test_trends_are_of_the_ends_over_all_else():
    def cell(at, height):
        gold = np.zeros((4, 5))
        gold[:, at] = height
        return Curves(np.broadcast_to(np.arange(5.0) ** 2, (4, 5)), gold)

    cells = {(method, width, count): cell(1 + (count == 90) + 2 * (width == 32), width)
             for method in METHODS for width in (16, 32) for count in (10, 50, 90)}  # fmt: skip
    found = trends_of(cells)
    assert [(row["method"], row["from"], row["to"], row["peak"]) for row in found] == [
        (method, *row) for method in METHODS for row in ((16, 32, 2), (10, 90, 1))
    ]
    assert found[0]["peak_interval"] == [2, 2]
    assert found[0]["peak_gold"]["mean"] == 16
    assert found[1]["peak_gold"]["mean"] == 0


def test_a_variant_is_compared_where_the_other_was_as_far():
    once = curves(np.arange(20.0), np.repeat([0.0, 1.0, 4.0, 9.0], 5))
    other = curves(np.full(20, 8.0), np.full(20, 3.5))
    for name in ("length", "entropy", "distinct_2", "self_overlap"):
        once[name] = other[name] = once["gold"]
    found = study.variant_of("near", other, once, np.zeros(2))
    assert found["runs_that_came_as_far"] == 2
    assert found["more_gold_at_its_distance"]["mean"] == pytest.approx(8 - 12)  # at 4 nats, of updates 10 to 14


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
        (["--width", "24"], "expected a width among those of reward models (16, 32), got 24"),
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
