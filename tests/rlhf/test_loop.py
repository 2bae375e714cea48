"""The loop: sample, rank, model the rankings, optimise, repeat."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import rlhf
from pgjax.rlhf.loop import controlled_beta
from pgjax.rlhf.preferences import joined

pytestmark = pytest.mark.slow

GRAMMAR = pgjax.text.grammar(words=2, parts=2, longest=2)
CORPUS = pgjax.text.grammar_corpus(GRAMMAR, jax.random.key(0), 200)
T, W, V = 10, CORPUS.prompts.shape[1], CORPUS.tokenizer.vocabulary
POLICY, CONFIG = pgjax.text.language_model(CORPUS, T, width=8, layers=1, heads=2)
MODEL = rlhf.reward_model(CONFIG)
ROUNDS, UPDATES, RANKINGS = 2, 3, 24
OPTIONS = {
    "vocabulary": V,
    "length": T,
    "rounds": ROUNDS,
    "updates": UPDATES,
    "rankings": RANKINGS,
    "test_rankings": 16,
    "reward_updates": 2,
    "reward_steps": 4,
    "slots": 8,
    "group_size": 4,
    "evaluated": 16,
    "candidates": 4,
}


def a_count(tokens, output):
    """How many of the first character of the vocabulary an output has."""
    return jnp.sum((tokens == 3) & output, axis=1).astype(jnp.float32)


def loop(model=CONFIG, **options):
    return rlhf.feedback(POLICY, rlhf.reward_model(model), a_count, CORPUS.prompts, **arguments(options))


def arguments(options):
    """Options as the settings and the other arguments of `feedback`."""
    counts = {name: count for name, count in {**OPTIONS, **options}.items() if name in rlhf.FeedbackSettings._fields}
    others = {name: value for name, value in options.items() if name not in counts}
    return {"settings": rlhf.FeedbackSettings(**counts), **others}


def by_external_annotators(n=6):
    """Rankings of an output of one token against none, for the first prompt."""
    tokens = np.zeros((n, 2, W + T), np.int32)
    tokens[:, :, :W] = CORPUS.prompts[0]
    tokens[:, 0, W : W + 2], tokens[:, 1, W] = [3, 2], 2
    return rlhf.Rankings(tokens, np.tile([0, 1], (n, 1)), np.ones(n, bool), np.zeros(n, np.int32))


@functools.cache
def compiled():
    """The loop with an ensemble of two, its hyper-parameters, and its functions, compiled for two seeds."""
    made = loop(members=2, annotators=3, external=by_external_annotators())
    people = rlhf.Annotators(temperature=0.5, position_bias=0.1, length_bias=0.05, disagreement=0.3)
    numbers = made.algorithm.hyperparameters(
        learning_rate=3e-2, beta=0.1, kl_target=0.5, comparisons=20, annotators=people
    )
    start = jax.jit(jax.vmap(made.algorithm.init, (0, None)))
    return made, numbers, start, jax.jit(jax.vmap(made.algorithm.update))


@functools.cache
def history():
    """The states of a batch of two runs, from the first on, and the metrics of each update."""
    _, numbers, start, update = compiled()
    states, metrics = [start(pgjax.run_keys(0, range(2)), numbers)], []
    for _ in range(ROUNDS * UPDATES + 1):
        state, emitted = update(states[-1])
        states.append(state)
        metrics.append(emitted)
    return states, metrics


def test_the_supervised_model_and_within_a_round_the_reward_model_stay_bitwise_what_they_are():
    states, _ = history()
    supervised = states[0].policy.params
    for i, state in enumerate(states[1:], 1):
        jax.tree.map(np.testing.assert_array_equal, state.policy.hyperparameters.environment.reference, supervised)
        if i % UPDATES != 1 or i == len(states) - 1:  # after the last round nobody is asked any more
            jax.tree.map(np.testing.assert_array_equal, state.params.reward, states[i - 1].params.reward)
        moved = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.params.policy, supervised))
        assert max(moved) > 1e-3
    for first, second in ((0, 1), (UPDATES, UPDATES + 1)):
        before, after = (states[i].params.reward.params for i in (first, second))
        assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), before, after))) > 1e-3


def test_scores_are_normalised_under_the_supervised_model():
    states, metrics = history()
    for state in (states[UPDATES], states[-1]):

        def normalised(state):
            reward = state.params.reward
            return (rlhf.ensemble_score(MODEL, reward.params, state.first_outputs) - reward.mean) / reward.spread

        scores = np.asarray(jax.jit(jax.vmap(normalised))(state))
        np.testing.assert_allclose(scores.mean(1), 0, atol=1e-4)
        np.testing.assert_allclose(scores.std(1), 1, atol=1e-3)
    # The first outputs that are optimised are the supervised model's too.
    assert np.abs(np.asarray(metrics[0].notes["proxy"])).max() < 1.5
    np.testing.assert_allclose(metrics[0].notes["kl"], 0, atol=1e-4)


def test_every_round_asks_about_outputs_of_the_model_as_it_is():
    states, _ = history()
    for done, known in ((0, 0), (1, 20), (UPDATES, 20), (UPDATES + 1, 40), (len(states) - 1, 40)):
        ranked = states[done].rankings
        differ = np.asarray((ranked.tokens[:, :, 0] != ranked.tokens[:, :, 1]).any(-1))
        np.testing.assert_array_equal(ranked.mask.sum(1), known)
        assert differ[np.asarray(ranked.mask)].all()
    ranked = states[-1].rankings
    assert (np.sort(ranked.order, axis=-1) == [0, 1]).all()
    assert set(np.asarray(ranked.annotator).ravel()) == {0, 1, 2}
    tokens = np.asarray(ranked.tokens)
    assert (tokens[:, :, 0, :W] == tokens[:, :, 1, :W]).all()  # two outputs to one prompt
    assert (tokens[0] != tokens[1]).any()


def first_round(logits, room, **options):
    """The state and the metrics after one update of a policy that draws every token with the same logits."""

    def apply(logits, window):
        return pgjax.policies.Categorical(jnp.broadcast_to(logits, (*window.shape[:-1], V)))

    policy = pgjax.memoryless(lambda key: jnp.zeros(V), apply)
    options = {**OPTIONS, "rounds": 1, "rankings": room, **options}
    algorithm = rlhf.feedback(policy, MODEL, a_count, CORPUS.prompts, **arguments(options)).algorithm
    numbers = algorithm.hyperparameters(supervised=jnp.asarray(logits, float), comparisons=room - 4)
    return jax.jit(lambda key: algorithm.update(algorithm.init(key, numbers)))(jax.random.key(0))


def test_people_rank_different_texts_of_a_model_that_nearly_always_writes_the_same():
    logits = np.where(np.arange(V) == 2, np.log(4 * 2), np.where((np.arange(V) == 3) | (np.arange(V) == 4), 0, -np.inf))
    state, metrics = first_round(logits, room=100)  # it ends at once with probability 0.8
    tokens, mask = np.asarray(state.rankings.tokens), np.asarray(state.rankings.mask)
    differ = (tokens[:, 0] != tokens[:, 1]).any(-1)
    np.testing.assert_array_equal(mask, differ & (np.arange(100) < 96))
    # All of 16 end at once with probability 0.8¹⁶ = 0.028: 15 of 112 with one below 10⁻⁶. Of two, 64% do.
    assert metrics.notes["identical_texts"] < 15 / 112
    # The text that is likeliest is the first to be shown as often as not: within 4.5 standard deviations.
    empty = tokens[mask, :, W] == 2
    one = empty.sum(1) == 1
    assert abs(empty[one, 0].mean() - 0.5) < 4.5 * 0.5 / np.sqrt(one.sum())
    assert one.sum() > 60


def test_rankings_of_identical_texts_are_counted_and_teach_nothing():
    logits = np.where(np.arange(V) == 3, 0, -np.inf)  # it writes the first character until it is cut off
    state, metrics = first_round(logits, room=10, drawn=5)
    assert metrics.notes["identical_texts"] == 1
    assert not state.rankings.mask.any()
    assert metrics.notes["accuracy"] == metrics.notes["bayes_accuracy"] == 0  # there is no pair
    assert all(np.isfinite(number) for number in jax.tree.leaves(metrics))


def test_metrics_say_what_was_optimised():
    _, metrics = history()
    for emitted in metrics:
        expected = emitted.notes["proxy"] - emitted.notes["kl_coefficient"] * emitted.notes["kl"]
        np.testing.assert_allclose(emitted.episode_return, expected, atol=1e-4)
        assert (emitted.notes["length"] * emitted.episodes == emitted.steps).all()
        assert (emitted.notes["bayes_accuracy"] > 0.5).all()
        assert (emitted.notes["bayes_accuracy"] <= 1).all()
        assert (emitted.notes["accuracy"] >= 0).all()
        assert (emitted.entropy > 0).all()
        assert (emitted.entropy < np.log(V)).all()
        assert (emitted.notes["distinct_2"] <= 1).all()
    followed = [
        controlled_beta(a.notes["kl_coefficient"], a.notes["kl"], jnp.float32(0.5), jnp.float32(0.1))
        for a in metrics[:-1]
    ]
    np.testing.assert_allclose(followed, [b.notes["kl_coefficient"] for b in metrics[1:]], rtol=1e-5)


def test_outputs_are_evaluated_without_the_penalty():
    made, *_ = compiled()
    states, _ = history()
    state = jax.tree.map(lambda leaf: leaf[0], states[-1])
    supervised = state.policy.hyperparameters.environment.reference
    evaluate = jax.jit(made.evaluate)
    before = evaluate(jax.random.key(0), supervised, state.params.reward, supervised)
    after = evaluate(jax.random.key(0), state.params.policy, state.params.reward, supervised)
    np.testing.assert_allclose(before.kl, 0, atol=1e-4)
    assert after.kl.mean() > 0.01
    np.testing.assert_array_equal(before.tokens[:, :W], after.tokens[:, :W])  # the same prompts, four outputs to each
    assert (np.asarray(before.tokens)[:, :W].reshape(4, 4, W) == np.asarray(before.tokens)[::4, None, :W]).all()
    np.testing.assert_array_equal(before.gold, a_count(before.tokens, rlhf.output_of(before.tokens, W)))


def test_beta_follows_the_kl():
    beta = jnp.float32(0.2)
    assert controlled_beta(beta, jnp.float32(9.0), jnp.float32(3.0), jnp.float32(0.1)) == pytest.approx(0.2 * 1.02)
    assert controlled_beta(beta, jnp.float32(1.0), jnp.float32(3.0), jnp.float32(0.1)) == pytest.approx(0.2 * 0.98)
    assert controlled_beta(beta, jnp.float32(3.3), jnp.float32(3.0), jnp.float32(0.1)) == pytest.approx(0.2 * 1.01)
    assert controlled_beta(beta, jnp.float32(9.0), jnp.float32(0.0), jnp.float32(0.1)) == beta


def test_a_sweep_drives_it_with_a_supervised_model_for_each_seed(tmp_path):
    made, numbers, *_ = compiled()
    states, metrics = history()
    supervised = states[0].policy.params  # of seeds 0 and 1
    options = {"seeds": [1, 0], "by_seed": {"supervised": jax.tree.map(lambda leaf: leaf[::-1], supervised)}}
    options |= {"hyperparameters": numbers, "iterations": 4, "grid": {"beta": [0.1, 10.0]}}
    options |= {"out": tmp_path / "sweep", "configuration": {}, "progress": False, "block": 1}
    results = pgjax.sweep(made.algorithm, **options)
    # Each seed is the same run in another batch, here one alone, though its θ_SL is given and not drawn.
    for seed in (0, 1):
        found = results.gold.sel(beta=0.1, seed=seed).values
        np.testing.assert_allclose(found, [emitted.notes["gold"][seed] for emitted in metrics[:4]], atol=1e-4)
    kept = jax.eval_shape(lambda key: made.algorithm.init(key, numbers).params, jax.random.key(0))
    tuned = pgjax.load_params(results, kept, seed=1, point={"beta": 0.1})
    ours, theirs = tuned.policy["params"]["embedding"], states[4].params.policy["params"]["embedding"]
    np.testing.assert_allclose(ours, theirs[1], atol=1e-4)
    assert pgjax.sweep(made.algorithm, **options).identical(results)


def test_people_may_have_ranked_everything_elsewhere_and_nobody_is_simulated():
    # Those that are held out say the opposite of those that are fitted: who learns from these is wrong on the others.
    external, held_out = by_external_annotators(), by_external_annotators(4)
    held_out = held_out._replace(order=held_out.order[:, ::-1].copy())
    options = {"rankings": 0, "rounds": 1, "external": external, "reward_updates": 10}
    made = rlhf.feedback(POLICY, MODEL, None, CORPUS.prompts, **arguments({**options, "held_out": held_out}))
    numbers = made.algorithm.hyperparameters(reward_learning_rate=1e-2)
    state, metrics = jax.jit(lambda key: made.algorithm.update(made.algorithm.init(key, numbers)))(jax.random.key(0))
    assert state.rankings is None  # what all runs share, none of them carries
    assert metrics.notes["held_out_accuracy"] == 0
    assert {"gold", "accuracy", "bayes_accuracy", "identical_texts"}.isdisjoint(metrics.notes)
    supervised = state.policy.hyperparameters.environment.reference
    assert jax.eval_shape(made.evaluate, jax.random.key(0), supervised, state.params.reward, supervised).gold is None


def test_a_run_may_begin_elsewhere_than_at_the_supervised_model_and_is_asked_about_its_outputs():
    made = loop(external=by_external_annotators(), rankings=0, rounds=1)
    supervised, theta = (POLICY.init(jax.random.key(i)) for i in (0, 1))
    numbers = made.algorithm.hyperparameters(supervised=supervised, start=theta)
    state = made.algorithm.init(jax.random.key(2), numbers)
    jax.tree.map(np.testing.assert_array_equal, state.params.policy, theta)
    jax.tree.map(np.testing.assert_array_equal, state.policy.hyperparameters.environment.reference, supervised)
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.policy.optimizer))
    tokens, enough = jax.jit(made.sample, static_argnums=2)(jax.random.key(3), theta, 5)
    assert tokens.shape == (5, 2, W + T)
    np.testing.assert_array_equal(tokens[:, 0, :W], tokens[:, 1, :W])  # two to each prompt
    np.testing.assert_array_equal(enough, jnp.any(tokens[:, 0] != tokens[:, 1], axis=-1))


def test_ties_of_people_stand_beside_rankings_by_simulated_annotators_without_any():
    tied = by_external_annotators()._replace(tied=np.tile([False, True], (6, 1)))
    made = loop(external=tied)
    numbers = made.algorithm.hyperparameters()
    start = made.algorithm.init(jax.random.key(0), numbers)
    after, _ = jax.eval_shape(made.algorithm.update, start)
    assert start.rankings.tied is after.rankings.tied is None
    both = joined(start.rankings, tied)
    assert both.tied.tolist() == [[False, False]] * RANKINGS * ROUNDS + [[False, True]] * 6
    np.testing.assert_array_equal(both.tokens[-6:], tied.tokens)
    assert joined(start.rankings, by_external_annotators()).tied is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: loop().algorithm.hyperparameters(beta=-0.1), "expected a finite beta of 0 or more, got -0.1"),
        (lambda: loop().algorithm.hyperparameters(kl_gain=-1), "expected a finite kl_gain of 0 or more, got -1"),
        (
            lambda: loop().algorithm.hyperparameters(beta=0.0, kl_target=1.0),
            "expected a first β above 0 for a KL target, as the controller multiplies it, got 0.0",
        ),
        (lambda: loop(model=CONFIG._replace(vocabulary=V - 1)), f"expected a reward model for a vocabulary of {V}"),
        (lambda: loop(model=CONFIG._replace(context=W + T - 1)), f"expected a reward model .* of {W + T} tokens"),
        (
            lambda: loop(external=by_external_annotators()._replace(tokens=np.full((6, 2, W + T), V))),
            f"expected tokens from 0 to {V - 1}, got {V}",
        ),
        (lambda: loop().algorithm.hyperparameters(kl_target=-1), "expected a finite kl_target of 0 or more, got -1"),
        (lambda: loop().algorithm.hyperparameters(comparisons=99), "expected 1 to 24 comparisons of a round, got 99"),
        (
            lambda: loop().algorithm.hyperparameters(annotators=rlhf.Annotators(0.0)),
            "expected annotators with a temperature τ above 0, got 0.0",
        ),
        (lambda: loop(rounds=0), "expected 1 or more rounds, got 0"),
        (lambda: loop(rankings=0), "expected 1 or more rankings, got 0"),
        (lambda: loop(rankings=-1, external=by_external_annotators()), "expected 0 or more rankings, got -1"),
        (
            lambda: rlhf.feedback(
                POLICY, MODEL, None, CORPUS.prompts, **arguments({"external": by_external_annotators()})
            ),
            "expected no rankings by simulated annotators without a gold reward, got 24",
        ),
        (
            lambda: loop(held_out=by_external_annotators()._replace(tokens=np.full((6, 2, W + T), V))),
            f"expected tokens from 0 to {V - 1}, got {V}",
        ),
        (lambda: loop(outputs=1), "expected 2 or more outputs to rank together, got 1"),
        (lambda: loop(outputs=3, drawn=2), "expected 3 or more outputs drawn for a ranking of 3, got 2"),
        (lambda: loop(length=40), "expected prompts and outputs of at most"),
        (
            lambda: loop(external=rlhf.Rankings(np.zeros((2, 3, 4), int), np.zeros((2, 3)), np.ones(2), np.zeros(2))),
            "expected rankings of 2 outputs in rows of",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()


@pytest.mark.parametrize("context", [jax.debug_key_reuse, jax.enable_x64])
def test_no_key_is_used_twice_and_the_types_stay_what_they_are(context):
    with context(True):
        algorithm = loop(rankings=4, test_rankings=4, reward_updates=1, reward_steps=1, evaluated=4).algorithm

        def two(key):
            state = algorithm.init(key, algorithm.hyperparameters())
            return algorithm.update(algorithm.update(state)[0])[0]

        once = jax.eval_shape(lambda key: algorithm.init(key, algorithm.hyperparameters()), jax.random.key(0))
        twice = jax.jit(two)(jax.random.key(0))
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), once) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), twice
        )
        assert twice.hyperparameters.learning_rate.dtype == jnp.result_type(float)
