import math

import numpy as np
import pytest

from pgjax import rlhf
from pgjax.rlhf.formats import RankingLine

# Krippendorff (2011), section C: four observers, twelve units, and what is missing. Nominal α = 0.743.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3],
    [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1],
]


def line(ranking, annotator="ada", task="one", shown=(0, 1), **more):
    groups = tuple(group if isinstance(group, tuple) else (group,) for group in ranking)
    return RankingLine("p", ("a", "b", "c")[: len(shown)], groups, annotator, (True,) * len(shown),
                       {"task": task, "shown": list(shown), **more})  # fmt: skip


def test_alpha_is_the_published_one():
    assert rlhf.krippendorff_alpha(PUBLISHED) == pytest.approx(0.743, abs=5e-4)
    # Krippendorff (2011), section A: two observers, ten units, α = 0.095.
    two = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert rlhf.krippendorff_alpha(two) == pytest.approx(0.095, abs=5e-4)
    # Section B: five values, twelve units, α = 0.692.
    five = [[0, 0, 1, 1, 3, 2, 2, 2, 4, 3, 3, 0], [1, 0, 1, 1, 1, 2, 2, 2, 4, 3, 3, 3]]
    assert rlhf.krippendorff_alpha(five) == pytest.approx(0.692, abs=5e-4)


def test_alpha_where_all_agree_and_where_there_is_no_telling():
    assert rlhf.krippendorff_alpha([[0, 1, 2], [0, 1, 2]]) == 1
    assert math.isnan(rlhf.krippendorff_alpha([[0, 0], [0, 0]]))
    assert math.isnan(rlhf.krippendorff_alpha([[0, -1], [-1, 1]]))


def test_kappa_by_hand():
    one, other = [0] * 45 + [1] * 15 + [0] * 25 + [1] * 15, [0] * 60 + [1] * 40
    assert rlhf.cohen_kappa(one, other) == pytest.approx((0.6 - 0.54) / 0.46)
    assert rlhf.cohen_kappa([*one, -1, 0], [*other, 1, -1]) == rlhf.cohen_kappa(one, other)
    assert math.isnan(rlhf.cohen_kappa([0, 0], [0, 0]))
    assert math.isnan(rlhf.cohen_kappa([0, -1], [-1, 0]))


def test_verdicts_are_of_pairs_and_of_the_first_time():
    lines = [
        line([2, (0, 1)], shown=(0, 1, 2)),
        line([0, 1], "bob", "two"),
        line([1, 0], "bob", "two", again=True),
        line([], "bob", "one"),
    ]
    said = rlhf.verdicts(lines)
    assert said.annotators == ("ada", "bob")
    assert said.table.tolist() == [[2, 1, 1, -1], [-1, -1, -1, 0]]  # pairs (0, 1), (0, 2), (1, 2) of one; (0, 1) of two
    assert said.task.tolist() == [0, 0, 0, 1]


def test_agreement_of_two_who_differ_on_one_in_five():
    lines = [line([0, 1], "ada", str(i)) for i in range(5)]
    lines += [line([1, 0] if i == 0 else [0, 1], "bob", str(i)) for i in range(5)]
    lines += [line([(0, 1)], "ada", "tie"), line([0, 1], "bob", "tie")]
    said = rlhf.verdicts(lines)
    agreement = rlhf.agreement_of(said)
    assert agreement.value == pytest.approx(0.8)  # what is tied is no preference
    assert agreement.n == 5
    assert 0 <= agreement.low < 0.8 < agreement.high <= 1
    # n = 12: ten are 0 or 1, … by hand: values 0 × 10, 1 × 1, 2 × 1; of six units two disagree.
    alpha = rlhf.alpha_of(said)
    assert alpha.value == pytest.approx(1 - 11 * 4 / (144 - 102))
    assert alpha.n == 6
    assert rlhf.kappas_of(said).keys() == {("ada", "bob")}


def test_agreement_of_one_is_unknown():
    said = rlhf.verdicts([line([0, 1])])
    assert rlhf.alpha_of(said) == rlhf.agreement_of(said) == (None, None, None, 0)
    assert rlhf.kappas_of(said) == {}
    assert rlhf.position_bias([]) == rlhf.self_consistency([]) == rlhf.first_shown_chosen([]) == (None, None, None, 0)


def test_the_bootstrap_interval_of_alpha_is_as_wide_as_theory_says():
    """Of 400 tasks, each agreed on with probability 0.8 by two who like both outputs equally often, α ≈ 0.6 ± 0.08."""
    rng = np.random.default_rng(1)
    one = rng.integers(0, 2, 400)
    other = np.where(rng.random(400) < 0.8, one, 1 - one)
    said = rlhf.Verdicts(("a", "b"), np.stack([one, other]), np.arange(400))
    alpha = rlhf.alpha_of(said)
    assert alpha.low < 0.6 < alpha.high
    assert alpha.high - alpha.low == pytest.approx(2 * 1.96 * 2 * np.sqrt(0.8 * 0.2 / 400), rel=0.15)


@pytest.mark.parametrize(("agreement", "bound"), [(1.0, 1.0), (0.68, 0.8), (0.5, 0.5), (0.3, 0.5)])
def test_what_agreement_implies(agreement, bound):
    assert rlhf.accuracy_bound(agreement) == bound


def swapped(wins):
    """An annotator's answers to a pair with its sides swapped: "LL" chose the left one both times."""
    lines = []
    for i, (first, second) in enumerate(wins):
        lines.append(line([0, 1] if first == "L" else [1, 0], task=str(i)))
        lines.append(line([1, 0] if second == "L" else [0, 1], task=str(i), shown=(1, 0), again=True))
    return lines


def test_position_bias_by_hand():
    lines = swapped(["LL"] * 30 + ["RR"] * 10 + ["LR"] * 40 + ["RL"] * 20)
    bias = rlhf.position_bias(lines)
    assert bias.n == 40
    assert bias.value == pytest.approx(np.log(3) / 2)  # e^{2b} = 30/10
    # Where the logarithm of 30 σ(2b) and 10 σ(−2b) is 1.9207 below its most.
    for b in bias[1:3]:
        p = 1 / (1 + np.exp(-2 * b))
        assert 30 * np.log(0.75 / p) + 10 * np.log(0.25 / (1 - p)) == pytest.approx(1.9207, abs=1e-3)
    assert bias.low < bias.value < bias.high
    consistent = rlhf.self_consistency(lines)
    assert (consistent.value, consistent.n) == (0.6, 100)
    assert rlhf.first_shown_chosen(lines).value == pytest.approx((60 + 60) / 200)


def test_a_bias_without_a_bound():
    always = rlhf.position_bias(swapped(["LL"] * 8))
    assert always.value is None
    assert always.high is None
    assert 0 < always.low < 1
    never = rlhf.position_bias(swapped(["RR"] * 8))
    assert (never.value, never.low, never.high) == (None, None, -always.low)
    assert rlhf.position_bias(swapped(["LR"] * 8)).n == 0


def test_places_count_where_three_are_shown():
    """Shown 0 1 2 and then 2 1 0, an output that wins by its place alone wins by 2 places in all, or by 4."""
    lines = [line([0, 1, 2], shown=(0, 1, 2)), line([2, 1, 0], shown=(2, 1, 0), again=True)]
    assert rlhf.position_bias(lines).n == 3
    # σ(2b)² σ(4b), less 1.9207 in logarithm
    low = rlhf.position_bias(lines).low
    assert 2 * np.log1p(np.exp(-2 * low)) + np.log1p(np.exp(-4 * low)) == pytest.approx(1.9207, abs=1e-3)


def test_the_interval_covers_the_bias_of_simulated_annotators():
    """At 95%: of 100 studies 5 do not, and more than 12 with a probability of 0.0015."""
    rng, missed = np.random.default_rng(0), 0
    for _ in range(100):
        u = rng.normal(0, 1, 300)
        left = [rng.random(300) < 1 / (1 + np.exp(-(0.5 + sign * u))) for sign in (1, -1)]
        first, second = (np.where(chosen, "L", "R") for chosen in left)
        bias = rlhf.position_bias(swapped(np.char.add(first, second)))
        missed += not bias.low <= 0.5 <= bias.high
    assert missed <= 12
