import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import pgjax
from pgjax.environments.base import Episode, check_environment
from pgjax.environments.recommender import (
    Recommendation,
    clairvoyant_bound,
    click_probabilities,
    interests,
    recommendation,
)
from pgjax.imitation.controllers import recommendation_controller
from pgjax.off_policy import importance_sampling

AXES = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # a catalogue


@functools.cache
def player(reset, step, controller):
    """A function (keys [users, T + 1], actions [users, T, ...], params) -> the arrays of episodes."""

    def one(keys, actions, params):
        def advance(carry, xs):
            (state, observation), (key, planned) = carry, xs
            action = controller(observation) if controller else planned
            following, outcome = step(key, state, action, params)
            return (following, outcome.observation), (state, observation, action, outcome.reward)

        last, (*before, actions, rewards) = jax.lax.scan(advance, reset(keys[0], params), (keys[1:], actions))
        joined = jax.tree.map(lambda rows, row: jnp.concatenate([rows, row[None]]), tuple(before), last)
        return *joined, actions, rewards

    return jax.jit(jax.vmap(one, (0, 0, None)))


def play(environment, users=1, actions=None, controller=None, params=None):
    """Episodes of all users, [users, T + 1, ...] or [users, T, ...], by a controller or actions [users, T, ...].

    Without either, actions are uniformly random.
    """
    space, T = environment.action_space, environment.horizon
    if actions is None:
        rng = np.random.default_rng(0)
        discrete = isinstance(space, pgjax.Discrete)
        actions = rng.integers(0, space.n, (users, T)) if discrete else rng.uniform(-1, 1, (users, T, *space.shape))
    params = environment.params if params is None else params
    keys = jax.random.split(jax.random.key(0), (users, T + 1))
    run = player(environment.reset, environment.step, controller)
    return Episode(*jax.tree.map(np.asarray, (*run(keys, jnp.asarray(actions, space.dtype), params), params)))


@functools.cache
def played(slate):
    """An environment, and episodes of 500 users of its own with a random and with the written recommender."""
    environment = recommendation(slate=slate)
    return (
        environment,
        play(environment, 500),
        play(environment, 500, controller=recommendation_controller(environment)),
    )


def random_policy(environment):
    """The uniformly random policy of an environment with discrete actions."""
    n = environment.action_space.n
    return pgjax.memoryless(lambda key: (), lambda params, x: pgjax.policies.Categorical(jnp.zeros((*x.shape[:-1], n))))


def expected_clicks(episodes, slates):
    """Σ_t Pr(click_t) of each user, had these slates [users, T, K] been shown."""
    v = jnp.asarray(episodes.params.embedding)

    def one(interest, slates):
        shown = v[slates]
        last = jnp.concatenate([jnp.zeros((1, v.shape[1])), shown.mean(1)[:-1]])
        none = jax.vmap(click_probabilities, (0, 0, 0, None))(interest, shown, last, episodes.params)[:, -1]
        return jnp.sum(1 - none)

    return np.asarray(jax.jit(jax.vmap(one))(episodes.state.interest[:, :-1], slates))


def test_click_probabilities_by_hand():
    params = Recommendation(AXES, affinity=2.0, boredom=3.0, outside=0.5)
    interest, last = jnp.array([0.5, -0.25]), jnp.array([0.6, -0.8])
    # Utilities 2·0.5 − 3·0.6, −2·0.25 (a similarity of −0.8 bores nobody), −2·0.5, and 0.5 for none.
    weights = np.exp([-0.8, -0.5, -1.0, 0.5])
    found = click_probabilities(interest, AXES, last, params)
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(found), 1, rtol=1e-6)
    alone = click_probabilities(interest, AXES[:1], 0 * last, params)
    np.testing.assert_allclose(alone, [1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(0.5))], rtol=1e-6)


def test_users_click_with_these_probabilities():
    environment, n = recommendation(items=5, slate=2), 40_000
    params = environment.params
    state, _ = environment.reset(jax.random.key(3), params)
    state = state._replace(last=params.embedding[0], interest=0.3 * state.interest + params.embedding[1])
    query = params.embedding[1] + 0.1 * params.embedding[2]
    step = jax.jit(jax.vmap(environment.step, (0, None, None, None)))
    after, outcome = step(jax.random.split(jax.random.key(0), n), state, query, params)
    slate = np.asarray(after.slate[0])
    assert set(slate) == set(np.argsort(-np.asarray(params.embedding @ query))[:2])
    exact = np.asarray(click_probabilities(state.interest, params.embedding[slate], state.last, params))
    assert exact.min() > 0.02
    found = np.array([np.mean(after.clicked == item) for item in (*slate, -1)])
    # 3 frequencies, each within 5 standard errors: wrong with probability below 2e-6.
    assert np.all(np.abs(found - exact) < 5 * np.sqrt(exact * (1 - exact) / n))
    np.testing.assert_array_equal(outcome.reward, after.clicked >= 0)
    # What a click reveals is not in the noise of the drift: a difference of means within 5 standard errors.
    clicked = np.asarray(outcome.reward) > 0
    noise = np.asarray(after.interest) - 0.95 * np.asarray(state.interest)
    scale = np.sqrt((1 - 0.95**2) * (1 / clicked.sum() + 1 / (~clicked).sum()))
    assert np.all(np.abs(noise[clicked].mean(0) - noise[~clicked].mean(0)) < 5 * scale)


def test_an_episode_by_hand():
    environment = recommendation(items=3, dimension=2, horizon=3)
    params = Recommendation(AXES, 1.0, 100.0, 0.0, 0.0, 0.5)  # who likes an item is sure to click, and never changes
    state, x = environment.reset(jax.random.key(0), params)
    np.testing.assert_array_equal(x, np.zeros(7))
    state = state._replace(interest=jnp.array([1.0, -1.0]))
    expected = [  # liked, passed, last, clicked
        [0.5, 0, 0, 0, 1, 0, 1],
        [0.25, 0, 0, 0.5, 0, 1, 0],
        [0.625, 0, 0, 0.25, 1, 0, 1],
    ]
    for action, seen in zip((0, 1, 0), expected, strict=True):
        state, step = environment.step(jax.random.key(1), state, jnp.int32(action), params)
        np.testing.assert_allclose(step.observation, seen, rtol=1e-6)
        np.testing.assert_array_equal(state.interest, [1, -1])
        assert (float(step.reward), step.reward.dtype) == (seen[-1], jnp.float32)
        assert not step.terminated
        assert not step.truncated


def test_of_a_slate_each_item_is_liked_or_passed():
    environment, episodes, _ = played(3)
    d, v = 4, np.asarray(environment.params.embedding)
    state, x = episodes.state, episodes.observation
    means, clicked = v[state.slate[:, 1:]].mean(2), state.clicked[:, 1:]
    liked = np.where(clicked[..., None] >= 0, v[clicked], 0)
    np.testing.assert_allclose(x[:, 1:, :d] - 0.8 * x[:, :-1, :d], 0.2 * liked, atol=1e-6)
    passed = means - liked / 3
    np.testing.assert_allclose(x[:, 1:, d : 2 * d] - 0.8 * x[:, :-1, d : 2 * d], 0.2 * passed, atol=1e-6)
    np.testing.assert_allclose(x[:, 1:, 2 * d : -1], means, atol=1e-6)
    np.testing.assert_array_equal(x[:, 1:, -1], episodes.reward)
    assert np.all((clicked < 0) | np.any(clicked[..., None] == state.slate[:, 1:], axis=-1))
    assert np.abs(x).max() <= 1


def test_interests_are_stationary_and_correlated_as_they_should_be():
    environment, n = recommendation(horizon=6, dimension=2), 10_000
    draw = jax.jit(jax.vmap(lambda key: interests(key, environment.params, 6)))
    of_episodes = play(environment, n).state.interest[:, :-1]
    for u in (np.asarray(draw(jax.random.split(jax.random.key(0), n))), of_episodes):
        # Twice 24 means and variances and 10 correlations, within 5 standard errors: wrong with probability below 4e-5.
        assert np.abs(u.mean(0)).max() < 5 / np.sqrt(n)
        assert np.abs(u.var(0) - 1).max() < 5 * np.sqrt(2 / n)
        assert np.abs((u[:, 1:] * u[:, :-1]).mean(0) - 0.95).max() < 5 * np.sqrt((1 + 0.95**2) / n)


def test_the_same_keys_bring_the_same_users_whatever_is_shown():
    _, first, second = played(1)
    np.testing.assert_array_equal(first.state.interest, second.state.interest)
    assert (first.action != second.action).any()


@pytest.mark.parametrize(("items", "slate", "horizon"), [(4, 2, 3), (3, 1, 4)])
def test_hindsight_is_the_best_of_all_sequences(items, slate, horizon):
    environment = recommendation(items, slate, 3, horizon)
    episodes = play(environment, users=6)
    slates = np.array(list(itertools.combinations(range(items), slate)))
    sequences = slates[np.array(list(itertools.product(range(len(slates)), repeat=horizon)))]
    interest = np.repeat(episodes.state.interest, len(sequences), axis=0)
    many = episodes._replace(state=episodes.state._replace(interest=interest))
    values = expected_clicks(many, np.tile(sequences, (6, 1, 1))).reshape(6, -1)
    value = jax.jit(jax.vmap(lambda u: clairvoyant_bound(environment.params, u, slate)))
    np.testing.assert_allclose(value(episodes.state.interest[:, :-1]), values.max(1), rtol=1e-5)
    assert np.all(np.ptp(values, axis=1) > 0.1)


@pytest.mark.parametrize("slate", [1, 3])
def test_random_is_worse_than_by_hand_and_nothing_better_than_hindsight(slate):
    environment, *both = played(slate)
    value = jax.jit(jax.vmap(lambda u: clairvoyant_bound(environment.params, u, slate)))
    best = np.asarray(value(both[0].state.interest[:, :-1]))
    for episodes in both:
        assert np.all(expected_clicks(episodes, episodes.state.slate[:, 1:]) <= best + 1e-4)
    means = np.array([*(episodes.reward.sum(1).mean() for episodes in both), best.mean()])
    # The measured gaps are 3.0 clicks and more. The difference of two means of 500 numbers with standard deviations
    # below 4 is off by 1.3 with probability below 3e-7.
    assert np.all(np.diff(means) > 1.4)
    assert 0 < means[0] < means[-1] < 20


def test_another_order_of_the_catalogue_changes_nothing():
    order = np.array([3, 0, 4, 1, 2])
    single, several = recommendation(items=5), recommendation(items=5, slate=2)
    plan = np.random.default_rng(0).integers(0, 5, (20, 20))
    shuffled = single.params._replace(embedding=single.params.embedding[order])
    as_it_was = play(single, 20, plan)
    renamed = play(single, 20, np.argsort(order)[plan], params=shuffled)
    np.testing.assert_allclose(as_it_was.observation, renamed.observation, atol=1e-6)
    clicked = renamed.state.clicked
    np.testing.assert_array_equal(as_it_was.state.clicked, np.where(clicked >= 0, order[clicked], -1))
    queried, again = (play(several, 20, params=params) for params in (several.params, shuffled))
    np.testing.assert_array_equal(queried.reward, again.reward)
    np.testing.assert_array_equal(queried.state.slate[:, 1:], order[again.state.slate[:, 1:]])
    best = jax.jit(lambda params: clairvoyant_bound(params, as_it_was.state.interest[0, :-1], 2))
    np.testing.assert_allclose(best(single.params), best(shuffled), rtol=1e-5)


def test_a_log_of_the_random_policy_has_what_is_learned_from():
    environment = recommendation(horizon=3)
    demonstrations = jax.jit(pgjax.demonstrate(environment, pgjax.Expert(random_policy(environment), ()), 50))(
        jax.random.key(0)
    )
    assert demonstrations.observation.shape == (4, 50, 13)
    assert int(demonstrations.labels) == 150
    log_prob = demonstrations.expert.log_prob(demonstrations.action)
    np.testing.assert_allclose(np.asarray(log_prob)[np.asarray(demonstrations.mask)], -np.log(10), rtol=1e-6)


def test_importance_sampling_of_a_log_is_the_value_of_a_policy():
    environment, logs, n = recommendation(items=4, horizon=3), 32, 1000
    own = random_policy(environment)
    other = pgjax.memoryless(  # rather shows something else than last
        lambda key: (), lambda params, x: pgjax.policies.Categorical(-2 * x[..., 8:12] @ environment.params.embedding.T)
    )
    log = pgjax.collect(environment, own, n)

    def estimates(key):
        trajectory = log(key, (), environment.params)
        earned = jnp.sum(trajectory.reward) / n
        return importance_sampling(trajectory, other, ()), importance_sampling(trajectory, own, ()), earned

    found, of_own, earned = jax.jit(jax.vmap(estimates))(jax.random.split(jax.random.key(0), logs))
    for value in (of_own.unbiased, of_own.self_normalized):
        np.testing.assert_allclose(value, earned, rtol=1e-5)
    np.testing.assert_allclose(of_own.effective_episodes, n, rtol=1e-5)
    assert np.all((found.effective_episodes > 1) & (found.effective_episodes < n))
    simulated = jax.jit(pgjax.evaluate(environment, other, 50_000))(jax.random.key(1), (), environment.params)
    for value in (found.unbiased, found.self_normalized):
        error = np.hypot(value.std(ddof=1) / np.sqrt(logs), simulated.std() / np.sqrt(len(simulated)))
        # Within 5 standard errors of 32 logs: wrong with probability below 3e-5; the bias of O(1/n) is much smaller.
        assert abs(value.mean() - simulated.mean()) < 5 * error
        assert abs(earned.mean() - simulated.mean()) > 10 * error


def test_a_log_without_log_probabilities_is_refused():
    trajectory = pgjax.Trajectory(*jnp.zeros((8, 1, 1)))
    with pytest.raises(pgjax.InputError, match="with the log-probabilities of its actions, got none"):
        importance_sampling(trajectory, random_policy(recommendation()), ())


def test_users_can_be_swept_and_the_hand_written_recommender_is_an_expert():
    environment = recommendation(slate=2, horizon=5)
    for each in (environment, recommendation()):
        check_environment(each)
        pgjax.imitation.scripted(recommendation_controller(each), each)
    expert = pgjax.imitation.scripted(recommendation_controller(environment), environment)
    run = pgjax.evaluate(environment, expert.policy, 200)
    outside = jnp.array([-100.0, 2.0, 100.0])
    returns = jax.jit(jax.vmap(lambda c: run(jax.random.key(0), (), environment.params._replace(outside=c))))(outside)
    np.testing.assert_array_equal(returns[0], 5)
    np.testing.assert_array_equal(returns[2], 0)
    assert 1 < returns[1].mean() < 5


@pytest.mark.parametrize("slate", [1, 3])
def test_every_step_can_be_drawn(slate):
    environment = recommendation(slate=slate, horizon=4)
    episodes = play(environment)
    episode = Episode(*jax.tree.map(lambda leaf: leaf[0], tuple(episodes[:4])), episodes.params)
    for t in range(5):
        axes = Figure().subplots()
        environment.draw(axes, episode, t)
        heights = np.array([bar.get_height() for bar in axes.containers[0]])
        expected = episode.params.embedding @ episode.state.interest[max(t - 1, 0)]
        np.testing.assert_allclose(heights, expected, rtol=1e-5)
        colours = [bar.get_facecolor() for bar in axes.containers[0]]
        assert len([colour for colour in colours if len(set(colour[:3])) > 1]) == (slate if t else 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": 1}, "a catalogue of 2 or more, got 1"),
        ({"dimension": 0}, "embeddings of 1 or more, got 0"),
        ({"horizon": 0}, "a horizon of 1 or more, got 0"),
        ({"seed": -1}, "a seed of 0 or more, got -1"),
        ({"slate": 0}, "slates of 1 to 9 items, got 0"),
        ({"slate": 10}, "slates of 1 to 9 items, got 10"),
    ],
)
def test_what_cannot_be_recommended_is_refused(arguments, message):
    with pytest.raises(pgjax.InputError, match=message):
        recommendation(**arguments)


@pytest.mark.parametrize(
    ("items", "slate", "shape", "message"),
    [
        (10, 1, (4,), r"interests of shape \[T, 4\] with 1 or more steps, got \[4\]"),
        (10, 1, (5, 3), r"interests of shape \[T, 4\] with 1 or more steps, got \[5, 3\]"),
        (10, 1, (0, 4), r"interests of shape \[T, 4\] with 1 or more steps, got \[0, 4\]"),
        (10, 0, (5, 4), "slates of 1 to 9 items, got 0"),
        (40, 3, (5, 4), "at most 5000 slates to choose from, got 9880 of 3 of 40 items"),
    ],
)
def test_hindsight_that_cannot_be_computed_is_refused(items, slate, shape, message):
    with pytest.raises(pgjax.InputError, match=message):
        clairvoyant_bound(recommendation(items).params, jnp.zeros(shape), slate)


def test_interests_of_no_steps_are_refused():
    with pytest.raises(pgjax.InputError, match="a horizon of 1 or more steps, got 0"):
        interests(jax.random.key(0), recommendation().params, 0)
