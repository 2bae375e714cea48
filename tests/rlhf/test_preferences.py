import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pgjax
from pgjax import rlhf
from pgjax.rlhf.formats import written_line
from pgjax.rlhf.likelihood import preferred
from pgjax.rlhf.preferences import check_annotators, first_different
from pgjax.text.tokens import BOS, EOS, PAD

PAIR = jnp.array([[0, 1]]), jnp.array([True])


def test_equal_scores_cost_ln_2():
    assert rlhf.plackett_luce_loss(jnp.zeros((1, 2)), *PAIR) == pytest.approx(np.log(2))
    assert rlhf.plackett_luce_loss(jnp.zeros((4, 3)), jnp.tile(jnp.arange(3), (4, 1)), jnp.ones(4, bool)) == (
        pytest.approx(np.log(6))
    )


def test_a_pair_is_judged_by_bradley_and_terry():
    scores = jnp.array([[0.3, 1.5]])
    loss = rlhf.plackett_luce_loss(scores, *PAIR)
    assert loss == pytest.approx(-np.log(1 / (1 + np.exp(1.2))), rel=1e-6)
    swapped = rlhf.plackett_luce_loss(scores[:, ::-1], jnp.array([[1, 0]]), PAIR[1])
    assert swapped == loss


def test_what_is_added_to_all_outputs_of_a_prompt_changes_neither_loss_nor_gradient():
    key = jax.random.key(0)
    scores, more = jax.random.normal(key, (6, 4)), 10 * jax.random.normal(jax.random.key(1), (6, 1))
    order = rlhf.rank(jax.random.key(2), scores)
    mask = jnp.arange(6) != 3
    value = jax.value_and_grad(rlhf.plackett_luce_loss)
    for one, other in zip(value(scores, order, mask), value(scores + jnp.tile(more, (1, 4)), order, mask), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    gradient = value(scores, order, mask)[1]
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-6)
    assert not gradient[3].any()


def test_likelihoods_of_all_rankings_sum_to_one_and_are_drawn_so():
    u, n = jnp.array([0.2, -0.5, 1.0]), 60_000
    orders = np.asarray(list(itertools.permutations(range(3))))
    p = np.exp([-rlhf.plackett_luce_loss(u[None], jnp.asarray(order)[None], PAIR[1]) for order in orders])
    assert p.sum() == pytest.approx(1, abs=1e-5)
    by_hand = np.exp(u[2]) / np.exp(u).sum() * np.exp(u[0]) / (np.exp(u[0]) + np.exp(u[1]))
    assert p[orders.tolist().index([2, 0, 1])] == pytest.approx(by_hand, rel=1e-5)
    drawn = np.asarray(rlhf.rank(jax.random.key(0), jnp.tile(u, (n, 1))))
    counts = np.asarray([(drawn == order).all(1).sum() for order in orders])
    # χ² with five degrees of freedom; wrong with probability 10⁻⁴.
    assert np.sum((counts - n * p) ** 2 / (n * p)) < stats.chi2.ppf(1 - 1e-4, 5)


def test_what_is_not_ranked_does_not_count():
    scores = jnp.array([[0.3, 1.5, -9.0, 50.0]])
    order = jnp.array([[1, 0, -1, -1]])
    loss, gradient = jax.value_and_grad(rlhf.plackett_luce_loss)(scores, order, PAIR[1])
    assert loss == pytest.approx(float(np.log1p(np.exp(-1.2))), rel=1e-5)
    assert not gradient[0, 2:].any()
    assert rlhf.pair_accuracy(scores, order, PAIR[1]) == 1
    nothing = jnp.array([False])
    assert rlhf.plackett_luce_loss(scores, order, nothing) == 0
    assert rlhf.pair_accuracy(scores, order, nothing) == 0
    assert np.isfinite(jax.grad(rlhf.plackett_luce_loss)(scores, order, nothing)).all()


@pytest.mark.parametrize("score", [jnp.nan, jnp.inf, -jnp.inf])
def test_scores_that_are_not_finite_do_no_harm_where_there_is_no_ranking(score):
    order, mask = jnp.array([[1, 0, -1], [0, 1, 2]]), jnp.array([True, False])
    scores = jnp.array([[0.3, 1.5, 0.0], [0.0, 1.0, 2.0]])
    value = jax.value_and_grad(rlhf.plackett_luce_loss)
    wanted = value(scores, order, mask)
    for one, other in zip(value(scores.at[0, 2].set(score).at[1, 0].set(score), order, mask), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("level", [-1e30, -2e30, 1e30])
def test_scores_of_any_size_are_compared_with_what_is_ranked_alone(level):
    # 10²⁴ is some of float32's last bits there: the first is preferred for sure, and the third is not ranked.
    scores, order = jnp.array([[level + 1e24, level, 0.0]]), jnp.array([[0, 1, -1], [1, 0, -1]])
    value = jax.value_and_grad(rlhf.plackett_luce_loss)
    loss, gradient = value(scores, order[:1], PAIR[1])
    assert loss == 0
    np.testing.assert_array_equal(gradient, jnp.zeros((1, 3)))
    loss, gradient = value(scores, order[1:], PAIR[1])
    assert loss == scores[0, 0] - scores[0, 1]
    np.testing.assert_array_equal(gradient, [[1, -1, 0]])


def test_equal_scores_of_any_size_cost_ln_2():
    scores, order = jnp.full((1, 3), -1e30), jnp.array([[1, 0, -1]])
    loss, gradient = jax.value_and_grad(rlhf.plackett_luce_loss)(scores, order, PAIR[1])
    np.testing.assert_allclose(gradient, [[0.5, -0.5, 0]], rtol=1e-6)
    assert loss == pytest.approx(np.log(2))


def test_a_score_that_is_no_number_is_noticed_where_it_counts():
    scores, order = jnp.array([[jnp.nan, 1.0, 0.0], [0.0, 1.0, 2.0]]), jnp.array([[1, 0, -1], [2, 1, 0]])
    both, second = jnp.array([True, True]), jnp.array([False, True])
    for measure in (rlhf.plackett_luce_loss, rlhf.pair_accuracy):
        assert np.isnan(measure(scores, order, both))
        assert np.isfinite(measure(scores, order, second))
    unranked = jnp.array([[1, 2, -1], [2, 1, 0]])  # the first output, to which places after the last point, is NaN
    loss, gradient = jax.value_and_grad(rlhf.plackett_luce_loss)(scores, unranked, both)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_calibration_of_scores_that_are_not_finite_is_refused():
    scores, order = [[0.0, np.nan], [1.0, 0.0]], [[1, 0], [0, 1]]
    with pytest.raises(pgjax.InputError, match="expected finite scores of the rankings that count, got nan"):
        rlhf.calibration(scores, order, [True, True])
    np.testing.assert_array_equal(rlhf.calibration(scores, order, [False, True]).preferred, [1])


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(AssertionError):
        rlhf.plackett_luce_loss(jnp.zeros((4, 1)), jnp.zeros((4, 2), int), jnp.ones(4, bool))
    for measure in (rlhf.plackett_luce_loss, rlhf.pair_accuracy):
        for mask in ((4, 1), (1,)):
            with pytest.raises(AssertionError):
                measure(jnp.zeros((4, 2)), jnp.zeros((4, 2), int), jnp.ones(mask, bool))


def test_a_tie_is_half_a_win_either_way():
    scores, order = jnp.array([[0.3, 1.5]]), jnp.array([[0, 1]])
    tie = jnp.array([[False, True]])
    one = jnp.array([True])
    # ½ (ln(1 + e^{1.2}) + ln(1 + e^{−1.2})) = ½ (1.463282 + 0.263282)
    assert rlhf.plackett_luce_loss(scores, order, one, tie) == pytest.approx(0.863282, abs=1e-5)
    assert rlhf.plackett_luce_loss(scores, order, one, ~tie & tie) == rlhf.plackett_luce_loss(scores, order, one)
    gradient = jax.grad(rlhf.plackett_luce_loss)(scores, order, one, tie)
    pull = 1 / (1 + np.exp(-1.2)) - 0.5  # of the better score towards the other one
    np.testing.assert_allclose(gradient, [[-pull, pull]], atol=1e-6)
    np.testing.assert_allclose(jax.grad(rlhf.plackett_luce_loss)(jnp.ones((1, 2)), order, one, tie), 0, atol=1e-7)
    assert rlhf.pair_accuracy(scores, order, one, tie) == 0  # no pair has an order


def test_ties_among_three_are_the_mean_of_the_orders_that_they_leave_open():
    scores = jnp.array([[0.2, -0.5, 1.0, jnp.nan]])
    one, cost = jnp.array([True]), rlhf.plackett_luce_loss

    def of(*order):
        return float(cost(scores, jnp.array([[*order, -1]]), one))

    for tied, orders in {
        (False, True, False): [(2, 0, 1), (0, 2, 1)],
        (False, False, True): [(2, 0, 1), (2, 1, 0)],
        (False, True, True): list(itertools.permutations(range(3))),
    }.items():
        found = cost(scores, jnp.array([[2, 0, 1, -1]]), one, jnp.array([[*tied, False]]))
        assert found == pytest.approx(np.mean([of(*order) for order in orders]), rel=1e-6)
    last = jnp.array([[False, False, True, False]])
    assert rlhf.pair_accuracy(scores, jnp.array([[2, 1, 0, -1]]), one, last) == 1  # 2 before both, which are tied
    with pytest.raises(pgjax.InputError, match="expected ties among at most 5 outputs, got rankings of 6"):
        cost(jnp.zeros((1, 6)), jnp.zeros((1, 6), int), one, jnp.zeros((1, 6), bool))


def test_accuracy_counts_pairs_and_ties_by_half():
    scores, order = jnp.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0]]), jnp.array([[0, 1, 2], [0, 1, 2]])
    # Of the first: 0>1 and 0>2 right, 1>2 wrong; of the second: a tie, and two right.
    assert rlhf.pair_accuracy(scores, order, jnp.ones(2, bool)) == pytest.approx((2 + 2.5) / 6)


def choices(annotators, gold, length, n=40_000):
    """How often the first of two outputs is preferred."""
    u = rlhf.utilities(annotators, jnp.array([gold]), jnp.array([length]), jnp.zeros((1, 2)))
    return float((rlhf.rank(jax.random.key(0), jnp.tile(u, (n, 1)))[:, 0] == 0).mean())


@pytest.mark.parametrize(
    ("annotators", "gold", "length", "logit"),
    [
        (rlhf.Annotators(0.5), [1.0, 0.6], [3.0, 9.0], 0.8),  # a flip has probability σ(−Δ/τ)
        (rlhf.Annotators(2.0), [1.0, 0.6], [3.0, 9.0], 0.2),
        (rlhf.Annotators(1.0, position_bias=0.7), [1.0, 1.0], [3.0, 9.0], 0.7),
        (rlhf.Annotators(1.0, length_bias=0.1), [1.0, 1.0], [3.0, 9.0], -0.6),
    ],
)
def test_people_choose_as_their_temperature_and_biases_say(annotators, gold, length, logit):
    p, n = 1 / (1 + np.exp(-logit)), 40_000
    # Four and a half standard deviations; wrong with probability below 10⁻⁵.
    assert abs(choices(annotators, gold, length) - p) < 4.5 * np.sqrt(p * (1 - p) / n)


def test_a_person_has_a_taste_of_their_own_and_keeps_it():
    key, N, V = jax.random.key(4), 4000, 8
    tokens = jax.random.randint(jax.random.key(0), (N, 2, 6), 3, V)
    output = jnp.ones(tokens.shape, bool).at[:, 1, 4:].set(False)
    person = jnp.arange(N, dtype=jnp.int32) % 3
    weights = jax.random.normal(key, (3, V))
    taste = rlhf.tastes(weights, tokens, output, person)
    by_hand = np.asarray(weights)[1][np.asarray(tokens[1, 1, :4])].sum() / 2
    assert taste[1, 1] == pytest.approx(by_hand, abs=1e-5)
    # Two people who are asked the same differ more often than one who is asked twice.
    zero = jnp.zeros((N, 2))
    people = rlhf.Annotators(1.0, disagreement=3.0)
    answers = {}
    for who, seed in ((0, 1), (0, 2), (1, 3)):
        taste = rlhf.tastes(weights, tokens, output, jnp.full(N, who))
        answers[who, seed] = rlhf.rank(jax.random.key(seed), rlhf.utilities(people, zero, zero, taste))[:, 0]
    same = float((answers[0, 1] == answers[0, 2]).mean())
    other = float((answers[0, 1] == answers[1, 3]).mean())
    assert same > other + 0.1


def test_the_ceiling_is_what_the_best_guess_would_reach():
    u = jnp.array([[0.2, -0.5, 1.0], [0.0, 0.0, 3.0]])
    best = []
    for row in np.asarray(u):
        for i, j in itertools.combinations(range(3), 2):
            p = 1 / (1 + np.exp(row[j] - row[i]))
            best.append(max(p, 1 - p))
    everything = jnp.ones(2, bool)
    assert rlhf.bayes_accuracy(u, everything) == pytest.approx(np.mean(best), rel=1e-5)
    assert rlhf.bayes_accuracy(u, everything.at[0].set(False)) == pytest.approx(np.mean(best[3:]), rel=1e-5)
    assert rlhf.bayes_accuracy(u, ~everything) == 0
    order = rlhf.rank(jax.random.key(0), jnp.tile(u, (30_000, 1)))
    reached = rlhf.pair_accuracy(jnp.tile(u, (30_000, 1)), order, jnp.ones(60_000, bool))
    # 180,000 pairs, in threes that are not independent: 4.5 of at most √(1/4 / 60,000), and a tie counts half there.
    assert abs(reached - np.mean(best)) < 4.5 * np.sqrt(0.25 / 60_000)


def test_rankings_are_held_out_by_prompt():
    prompt = np.repeat(np.arange(10), 3)  # three rankings for each of ten prompts
    tokens = np.stack([np.full((2, 4), 3 + i) for i in prompt]) + np.arange(2)[:, None] * np.array([0, 0, 1, 1])
    mask = np.arange(30) != 29
    rankings = rlhf.Rankings(tokens, np.tile([1, 0], (30, 1)), mask, np.arange(30))
    fitted, held_out = rlhf.split_by_prompt(rankings, width=2, fraction=0.2)
    theirs = [set(part.tokens[:, 0, 0].tolist()) for part in (fitted, held_out)]
    assert len(theirs[1]) == 2
    assert theirs[0] | theirs[1] == set(range(3, 13))
    assert not theirs[0] & theirs[1]
    assert sorted([*fitted.annotator, *held_out.annotator]) == list(range(29))  # each of the real ones once
    again = rlhf.split_by_prompt(rankings, width=2, fraction=0.2)
    np.testing.assert_array_equal(again[1].annotator, held_out.annotator)
    # However small the fraction is, there is one to measure by; however large, one to learn from.
    for fraction, prompts in ((0.01, 1), (0.99, 9)):
        _, held_out = rlhf.split_by_prompt(rankings, width=2, fraction=fraction)
        assert len(np.unique(held_out.tokens[:, 0, 0])) == prompts
    with pytest.raises(pgjax.InputError, match="expected rankings for two or more prompts, one of them to measure by"):
        rlhf.split_by_prompt(jax.tree.map(lambda leaf: leaf[:3], rankings), width=2)
    with pytest.raises(pgjax.InputError, match=r"expected a fraction of held-out prompts between 0 and 1, got 1\.0"):
        rlhf.split_by_prompt(rankings, width=2, fraction=1.0)


def test_the_first_texts_that_differ_are_chosen():
    a, b, c = [3, 2, 0], [3, 3, 2], [3, 3, 3]
    tokens = jnp.array([[a, b, c, a], [a, a, b, a], [b, b, b, c], [c, c, c, c]])
    chosen, enough = first_different(tokens, 2)
    assert chosen.tolist() == [[0, 1], [0, 2], [0, 3], [0, 1]]
    assert enough.tolist() == [True, True, True, False]
    chosen, enough = first_different(tokens, 3)  # where two differ, the first of the repeats is the third
    assert chosen.tolist() == [[0, 1, 2], [0, 2, 1], [0, 3, 1], [0, 1, 2]]
    assert enough.tolist() == [True, False, False, False]


def test_calibration_by_hand():
    scores = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    order = np.array([[0, 1], [1, 0], [1, 0], [0, 1]])
    found = rlhf.calibration(scores, order, [True, True, True, True], bins=2)
    high = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(found.predicted, [1 - high, (2 * high + 0.5) / 3])
    np.testing.assert_allclose(found.preferred, [0, 2 / 3])
    np.testing.assert_array_equal(found.pairs, [1, 3])
    assert found.error == pytest.approx(((1 - high) + 3 * abs((2 * high + 0.5) / 3 - 2 / 3)) / 4)


def test_scores_far_apart_are_certain():
    found = rlhf.calibration([[0.0, 2000.0], [2000.0, 0.0]], [[1, 0], [0, 1]], [True, True])
    np.testing.assert_array_equal(found.predicted, [0, 1])
    assert found.error == 0


def test_the_first_is_preferred_as_bradley_and_terry_say():
    u = jnp.array([[0.0, 0.0], [1.0, 0.6]])
    np.testing.assert_allclose(preferred(u), [0.5, 1 / (1 + np.exp(-0.4))], rtol=1e-6)
    np.testing.assert_allclose(preferred(u) + preferred(u[:, ::-1]), 1, rtol=1e-6)


TOKENIZER = pgjax.text.Characters(" .ab")
W, T = 4, 6
LINE = {
    "prompt": "a ",
    "outputs": ["ab.", "b", ""],
    "ranking": [2, 0],
    "annotator": "ada",
    "ended": [True, False, True],
}


def written(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_rankings_come_back_from_a_file(tmp_path):
    path = written(tmp_path / "rankings.jsonl", LINE, {"prompt": "", "outputs": ["a", "b"], "ranking": [1, 0]})
    rankings, names = rlhf.load_rankings(path, TOKENIZER, W, T)
    assert names == ("", "ada")
    np.testing.assert_array_equal(rankings.annotator, [1, 0])
    np.testing.assert_array_equal(rankings.order, [[2, 0, -1], [1, 0, -1]])
    assert rankings.tokens.shape == (2, 3, W + T)
    a, b, space, stop = (int(TOKENIZER.encode(c)[0]) for c in "ab .")
    np.testing.assert_array_equal(rankings.tokens[0, 0], [PAD, 1, a, space, a, b, stop, EOS, PAD, PAD])
    np.testing.assert_array_equal(rankings.tokens[0, 1, W:], [b, PAD, PAD, PAD, PAD, PAD])  # cut off
    rlhf.save_rankings(tmp_path / "again.jsonl", rankings, TOKENIZER, W, names)
    again, same = rlhf.load_rankings(tmp_path / "again.jsonl", TOKENIZER, W, T)
    assert same == names
    for one, other in zip(rankings, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["again.jsonl", "rankings.jsonl"]


def random_rankings(people, N=40, K=3):
    """Rankings of K outputs of one to three letters each, some of them equal, by that many people."""
    rng = np.random.default_rng(0)
    tokens = np.full((N, K, W + T), PAD, np.int32)
    tokens[:, :, W - 1] = BOS
    for n, k in np.ndindex(N, K):
        text = rng.choice(TOKENIZER.encode("ab"), rng.integers(1, 4))
        tokens[n, k, W : W + len(text) + 1] = [*text, EOS]
    order = np.stack([rng.permutation(K) for _ in range(N)]).astype(np.int32)
    return rlhf.Rankings(tokens, order, np.ones(N, bool), (np.arange(N) % people).astype(np.int32))


def test_annotators_without_names_come_back_as_who_they_were_and_equal_outputs_do_not(tmp_path):
    saved = random_rankings(people=12)
    rlhf.save_rankings(tmp_path / "rankings.jsonl", saved, TOKENIZER, W)
    loaded, names = rlhf.load_rankings(tmp_path / "rankings.jsonl", TOKENIZER, W, T)
    differ = np.array([len({tuple(row) for row in rows}) == 3 for rows in saved.tokens])
    assert 12 < differ.sum() < 40
    assert names == tuple(map(str, range(12)))
    for one, other in zip(saved, loaded, strict=True):
        np.testing.assert_array_equal(one if one is None else one[differ], other)


def test_outputs_that_are_not_ranked_may_be_equal(tmp_path):
    two = {"prompt": "", "outputs": ["a", "b"], "ranking": [1, 0]}
    four = {"prompt": "", "outputs": ["a", "b", "ab", "ab"], "ranking": [1, 2, 0]}
    rankings, names = rlhf.load_rankings(written(tmp_path / "one", two, four), TOKENIZER, W, T)
    rlhf.save_rankings(tmp_path / "two", rankings, TOKENIZER, W, names)  # where the first has two empty outputs
    again, _ = rlhf.load_rankings(tmp_path / "two", TOKENIZER, W, T)
    np.testing.assert_array_equal(again.order, [[1, 0, -1, -1], [1, 2, 0, -1]])


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_ties_come_back_from_a_file_and_skips_do_not(tmp_path, ensure_ascii):
    lines = [{**LINE, "ranking": ranking} for ranking in ([[2, 0]], [1, [2, 0]], [], [0, 2])]
    path = tmp_path / "rankings.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=ensure_ascii) + "\n" for line in lines))
    rankings, names = rlhf.load_rankings(path, TOKENIZER, W, T)
    np.testing.assert_array_equal(rankings.order, [[2, 0, -1], [1, 2, 0], [0, 2, -1]])
    np.testing.assert_array_equal(rankings.tied, [[False, True, False], [False, False, True], [False] * 3])
    rlhf.save_rankings(tmp_path / "again", rankings, TOKENIZER, W, names)
    again, _ = rlhf.load_rankings(tmp_path / "again", TOKENIZER, W, T)
    for one, other in zip(rankings, again, strict=True):
        np.testing.assert_array_equal(one, other)
    skipped = written(tmp_path / "skipped", {**LINE, "ranking": []})
    with pytest.raises(pgjax.InputError, match="got nothing but skips"):
        rlhf.load_rankings(skipped, TOKENIZER, W, T)


def test_several_files_are_one_and_names_are_numbered_together(tmp_path):
    one = written(tmp_path / "one", LINE, {**LINE, "annotator": "bob"})
    two = written(tmp_path / "two", {**LINE, "annotator": "abe"})
    rankings, names = rlhf.load_rankings([one, two], TOKENIZER, W, T)
    assert names == ("abe", "ada", "bob")
    assert rankings.annotator.tolist() == [1, 2, 0]
    pair = written(tmp_path / "pair", {"prompt": "", "outputs": ["a", "b"], "ranking": [1, 0]})
    with pytest.raises(pgjax.InputError, match="two, line 1: expected at most 2 outputs, got 3"):
        rlhf.load_rankings([pair, two], TOKENIZER, W, T, outputs=2)
    with pytest.raises(pgjax.InputError, match="expected one or more files of rankings, got none"):
        rlhf.ranking_lines([])


def test_fields_that_are_not_known_are_kept_and_withdrawn_lines_are_not(tmp_path):
    more = {"shown": [2, 0, 1], "seconds": 1.5, "mood": {"good": [1]}, "id": "x"}
    path = written(tmp_path / "one", {**LINE, **more}, {**LINE, "id": "y"}, {"withdraws": "y"}, {**LINE, "ranking": []})
    lines = rlhf.ranking_lines(path)
    assert [line.ranking for line in lines] == [((2,), (0,)), ()]
    assert lines[0].more == more
    assert json.loads(written_line(lines[0])) == {**LINE, **more}


def test_what_was_preferred_is_written_as_trl_reads_it(tmp_path):
    path = written(tmp_path / "one", *({**LINE, "ranking": ranking} for ranking in ([2, [0, 1]], [[0, 1]], [])))
    assert rlhf.save_preferences(tmp_path / "trl", rlhf.ranking_lines(path)) == 2
    pairs = [json.loads(line) for line in (tmp_path / "trl").read_text().splitlines()]
    assert pairs == [{"prompt": "a ", "chosen": "", "rejected": rejected} for rejected in ("ab.", "b")]
    with pytest.raises(pgjax.InputError, match="expected one or more outputs that were preferred to another, got none"):
        rlhf.save_preferences(tmp_path / "no", rlhf.ranking_lines(path)[1:])
    assert not (tmp_path / "no").exists()


def test_preferences_as_others_have_them_are_comparisons(tmp_path):
    pair = {"prompt": "a ", "chosen": "b", "rejected": "ab.", "score": 3, "id": "same"}
    talk = {"prompt": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "b"}],
            "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}  # fmt: skip
    path = written(tmp_path / "pairs", pair, pair | {"rejected": "b."}, talk)
    lines = rlhf.ranking_lines(path, template="{role} {content}. ")
    assert [line.prompt for line in lines] == ["a ", "a ", "user ab. assistant b. assistant "]
    assert [line.outputs for line in lines] == [("b", "ab."), ("b", "b."), ("a", "b")]
    assert {line.ranking for line in lines} == {((0,), (1,))}
    assert lines[0].more == {"score": 3}
    assert rlhf.ranking_lines(path, template=lambda messages: messages[0]["content"])[2].prompt == "ab"
    rankings, names = rlhf.load_rankings(written(tmp_path / "two", pair), TOKENIZER, W, T)
    np.testing.assert_array_equal(rankings.order, [[0, 1]])
    assert names == ("",)
    rlhf.save_preferences(tmp_path / "again", lines)
    assert [line.outputs for line in rlhf.ranking_lines(tmp_path / "again")] == [line.outputs for line in lines]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"chosen": "a", "rejected": "a"}, "expected outputs that differ in the ranking, got 'a' twice or more"),
        ({"chosen": "a"}, "expected prompt, chosen and rejected, got no rejected"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "expected a prompt that is a text, got list"),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "expected messages with a role and a content"),
        ({"chosen": [{"role": "a", "content": "b"}] * 2, "rejected": "b"}, "expected an output of one message, got 2"),
    ],
)
def test_preferences_that_say_nothing_are_named(tmp_path, line, message):
    path = written(tmp_path / "pairs", LINE, {"prompt": "a", **line})
    with pytest.raises(pgjax.InputError, match=f"pairs, line 2: {message}"):
        rlhf.load_rankings(path, TOKENIZER, W, T)
    with pytest.raises(pgjax.InputError, match=r"expected a template with \{role\} and \{content\}, got '\{role\}'"):
        rlhf.ranking_lines(written(tmp_path / "talk", {**LINE, "prompt": [{"role": "a", "content": "b"}]}), "{role}")


def test_what_is_too_long_is_left_out_and_counted_if_that_is_asked_for(tmp_path, capsys):
    long = {**LINE, "prompt": "abab"}, {**LINE, "outputs": ["ababab.", "b", ""]}
    path = written(tmp_path / "some", long[0], LINE, long[1], LINE)
    rankings, _ = rlhf.load_rankings(path, TOKENIZER, W, T, skip_long=True)
    assert len(rankings.mask) == 2
    assert capsys.readouterr().err == "2 of 4 rankings have a text that is too long, and are left out\n"
    with pytest.raises(pgjax.InputError, match="some, line 1: expected a prompt of at most 3 tokens, got 4"):
        rlhf.load_rankings(path, TOKENIZER, W, T)
    with pytest.raises(pgjax.InputError, match=r"expected one or more rankings in .*, got nothing but too long ones"):
        rlhf.load_rankings(written(tmp_path / "all", *long), TOKENIZER, W, T, skip_long=True)
    with pytest.raises(pgjax.InputError, match="line 2: expected a ranking of indices"):
        rlhf.load_rankings(written(tmp_path / "bad", LINE, {**LINE, "ranking": 1}), TOKENIZER, W, T, skip_long=True)


def test_rankings_in_subwords_come_back(tmp_path):
    tokenizer = pgjax.text.train_subwords("ab ab. b ab " * 9, 265)
    line = {
        "prompt": "é <eos>",
        "outputs": ["ab ab.", " ab\r\n", "שלום"],
        "ranking": [2, 0],
        "ended": [True, False, True],
    }
    rankings, names = rlhf.load_rankings(written(tmp_path / "one", line), tokenizer, 12, 12)
    rlhf.save_rankings(tmp_path / "two", rankings, tokenizer, 12, names)
    assert rlhf.ranking_lines(tmp_path / "two") == rlhf.ranking_lines(tmp_path / "one")


def test_a_task_is_told_by_its_texts():
    task = rlhf.task_id("p", ["a", "b"], [True, False])
    assert len(task) == 16
    others = [("p", ["b", "a"], [False, True]), ("p", ["a", "b"], [True, True]), ("pa", ["", "b"], [True, False])]
    assert len({task, *(rlhf.task_id(*other) for other in others)}) == 4


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_files_of_other_programs_are_read(tmp_path, ensure_ascii):
    tokenizer = pgjax.text.Characters(" aé")
    lines = [{"prompt": "", "outputs": ["e\u0301", "a"], "ranking": [1, 0]}] * 2
    text = "\r\n".join(json.dumps(line, ensure_ascii=ensure_ascii) for line in lines) + "\r\n\r\n  \n"
    (tmp_path / "rankings.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    rankings, _ = rlhf.load_rankings(tmp_path / "rankings.jsonl", tokenizer, 1, 2)
    np.testing.assert_array_equal(rankings.tokens[:, 0, 1:], [[*tokenizer.encode("é"), EOS]] * 2)


def test_a_relative_file_of_rankings_and_one_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    rlhf.save_rankings("~/rankings.jsonl", random_rankings(2), TOKENIZER, W)
    monkeypatch.chdir(tmp_path)
    assert rlhf.load_rankings("rankings.jsonl", TOKENIZER, W, T)[1] == ("0", "1")
    assert rlhf.load_rankings("~/rankings.jsonl", TOKENIZER, W, T)[1] == ("0", "1")


@pytest.mark.parametrize("character", ["\n", "\r", "\x0c", "\x85", "\u2028", "\u2029", '"', "\\", "ρ"])
def test_a_character_of_an_output_ends_no_line(tmp_path, character):
    tokenizer, path = pgjax.text.Characters("a" + character), tmp_path / "rankings.jsonl"
    tokens = np.array([[[1, 3, 4, EOS], [1, 4, EOS, PAD]]], np.int32)
    saved = rlhf.Rankings(tokens, np.array([[1, 0]], np.int32), np.array([True]), np.zeros(1, np.int32))
    rlhf.save_rankings(path, saved, tokenizer, 1)
    loaded, _ = rlhf.load_rankings(path, tokenizer, 1, 3)
    for one, other in zip(saved, loaded, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    rankings, names = rlhf.load_rankings(written(tmp_path / "rankings.jsonl", LINE), TOKENIZER, W, T)
    with pytest.raises(pgjax.InputError, match=r"expected a file that can be written, got .*nowhere"):
        rlhf.save_rankings(tmp_path / "nowhere" / "rankings.jsonl", rankings, TOKENIZER, W, names)


def test_rankings_that_cannot_be_written_are_refused_and_leave_nothing(tmp_path):
    rankings, _ = rlhf.load_rankings(written(tmp_path / "one", LINE), TOKENIZER, W, T)
    with pytest.raises(pgjax.InputError, match="whose mask is true and whose outputs differ, got none"):
        rlhf.save_rankings(tmp_path / "two", rankings._replace(mask=np.zeros(1, bool)), TOKENIZER, W)
    equal = rankings._replace(tokens=rankings.tokens[:, [2, 1, 2]])
    with pytest.raises(pgjax.InputError, match="whose outputs differ, got none"):
        rlhf.save_rankings(tmp_path / "two", equal, TOKENIZER, W)
    with pytest.raises(pgjax.InputError, match="expected a name for each annotator, got 0 and annotator 0"):
        rlhf.save_rankings(tmp_path / "two", rankings, TOKENIZER, W, ())
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "expected JSON, got '{'"),
        ("[" * 100_000, "expected JSON, got .*: maximum recursion depth"),
        (f"[{'1' * 5000}]", "expected JSON, got .*: Exceeds the limit"),
        ("\n" + json.dumps(LINE), "expected JSON, got ''"),
        (
            {**LINE, "outputs": ["ab.", "b", "ab."]},
            "expected outputs that differ in the ranking, got 'ab.' twice or more",
        ),
        ("[1]", "expected an object with prompt, outputs and ranking, got list"),
        ({"prompt": "a", "outputs": ["a", "b"]}, "expected prompt, outputs and ranking, got no ranking"),
        ({**LINE, "ranking": [[]]}, r"expected a ranking of indices, got \[\[\]\]"),
        ({**LINE, "ranking": [[2, 2], 0]}, "expected every output at most once in the ranking, got 2 twice"),
        ({**LINE, "shown": [0, 1, 1]}, r"expected each of 0 to 2 once in shown, got \[0, 1, 1\]"),
        ({**LINE, "seconds": -1}, "expected seconds of 0 or more, got -1"),
        ({**LINE, "seconds": float("nan")}, "expected seconds of 0 or more, got nan"),
        ({"withdraws": "x"}, "expected a line above to withdraw, got 'x'"),
        ({**LINE, "prompt": 3}, "expected a prompt that is a text, got int"),
        ({**LINE, "annotator": 3}, "expected an annotator that is a text, got int"),
        ({**LINE, "outputs": []}, r"expected two or more outputs that are texts, got \[\]"),
        ({**LINE, "outputs": ["a", 1]}, "expected two or more outputs that are texts"),
        ({**LINE, "ranking": "01"}, "expected a ranking of indices, got 01"),
        ({**LINE, "ranking": [True, 0]}, "expected a ranking of indices"),
        ({**LINE, "ranking": [3, 0]}, "expected indices from 0 to 2 in the ranking, got 3"),
        ({**LINE, "ranking": [1, 1]}, "expected every output at most once in the ranking, got 1 twice"),
        ({**LINE, "ranking": [1]}, "expected two or more outputs in the ranking, got 1"),
        ({**LINE, "ended": [True]}, "expected true or false for each output in ended"),
        ({**LINE, "prompt": "c"}, "expected characters of the vocabulary ' .ab', got 'c' as character 0"),
        ({**LINE, "prompt": "aaaa"}, "expected a prompt of at most 3 tokens, got 4"),
        ({**LINE, "outputs": ["aaaaaa", "b", ""]}, "expected outputs of at most 6 tokens, eos included, got 7"),
    ],
)
def test_a_line_that_is_no_ranking_is_named(tmp_path, change, message):
    path = written(tmp_path / "rankings.jsonl", LINE, change)
    with pytest.raises(pgjax.InputError, match=f"rankings.jsonl, line 2: {message}"):
        rlhf.load_rankings(path, TOKENIZER, W, T)


def test_a_file_that_holds_no_rankings_is_refused(tmp_path):
    with pytest.raises(pgjax.InputError, match=r"expected a file of rankings, got .*nowhere"):
        rlhf.load_rankings(tmp_path / "nowhere", TOKENIZER, W, T)
    with pytest.raises(pgjax.InputError, match=r"expected one or more rankings in .*, got an empty file"):
        rlhf.load_rankings(written(tmp_path / "empty"), TOKENIZER, W, T)
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(pgjax.InputError, match="expected rankings in UTF-8"):
        rlhf.load_rankings(tmp_path / "bytes", TOKENIZER, W, T)
    with pytest.raises(pgjax.InputError, match="line 1: expected at most 2 outputs, got 3"):
        rlhf.load_rankings(written(tmp_path / "three", LINE), TOKENIZER, W, T, outputs=2)


@pytest.mark.parametrize(
    ("annotators", "message"),
    [
        (rlhf.Annotators(0.0), "expected annotators with a temperature τ above 0, got 0.0"),
        (rlhf.Annotators(1.0, disagreement=-1.0), "expected annotators with a disagreement of 0 or more, got -1.0"),
        (rlhf.Annotators(1.0, float("nan")), "expected annotators with a finite position bias, got nan"),
        (rlhf.Annotators(1.0, 0.0, float("inf")), "expected annotators with a finite length bias, got inf"),
    ],
)
def test_people_who_cannot_choose_are_refused(annotators, message):
    with pytest.raises(pgjax.InputError, match=message):
        check_annotators(annotators)
