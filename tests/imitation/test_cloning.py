import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from pgjax.imitation.fitting import examples_of
from tests.cases import random_mdp, remembering

KEY = jax.random.key(0)
LIKELIHOOD = pgjax.imitation.negative_log_likelihood


def by_hand(states, actions, mask=None):
    """Demonstrations [T, N] of discrete states and actions, given as lists of episodes."""
    states, actions = (jnp.asarray(array, jnp.int32).T for array in (states, actions))
    return pgjax.Demonstrations(
        states, actions, jnp.ones(states.shape, bool) if mask is None else jnp.asarray(mask, bool).T
    )


def logits(*rows):
    return pgjax.policies.Categorical(jnp.log(jnp.asarray(rows)))


def test_distances_against_numbers_by_hand():
    f, expert = logits([0.25, 0.75]), logits([0.5, 0.5])
    action = jnp.asarray([1])
    np.testing.assert_allclose(pgjax.imitation.negative_log_likelihood(f, action, None), -np.log(0.75), rtol=1e-6)
    entropy = -0.5 * np.log(0.25) - 0.5 * np.log(0.75)
    np.testing.assert_allclose(pgjax.imitation.cross_entropy(f, action, expert), entropy, rtol=1e-6)
    np.testing.assert_allclose(pgjax.imitation.forward_kl(f, action, expert), entropy - np.log(2), rtol=1e-5)
    backward = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    np.testing.assert_allclose(pgjax.imitation.reverse_kl(f, action, expert), backward, rtol=1e-5)

    f = pgjax.policies.Gaussian(jnp.asarray([[1.0, 0.0]]), jnp.log(jnp.asarray([[2.0, 1.0]])))
    action = jnp.asarray([[3.0, 0.5]])
    density = 0.5 * (1 + 0.25) + np.log(2) + np.log(2 * np.pi)
    np.testing.assert_allclose(pgjax.imitation.negative_log_likelihood(f, action, None), density, rtol=1e-6)
    certain = pgjax.policies.Gaussian(action, jnp.full((1, 2), -jnp.inf))
    np.testing.assert_allclose(pgjax.imitation.cross_entropy(f, action, certain), density, rtol=1e-6)


@pytest.mark.parametrize(
    "distance", [pgjax.imitation.cross_entropy, pgjax.imitation.forward_kl, pgjax.imitation.reverse_kl]
)
def test_a_distance_from_the_experts_distribution_needs_it(distance):
    data = by_hand([[0]], [[0]])
    with pytest.raises(pgjax.InputError, match="expected the expert's distribution, a Categorical as the agent's, got"):
        pgjax.behaviour_cloning(pgjax.tabular(2, 2), data, distance=distance)
    data = data._replace(expert=pgjax.policies.Gaussian(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1))))
    with pytest.raises(pgjax.InputError, match="got a Gaussian"):
        pgjax.behaviour_cloning(pgjax.tabular(2, 2), data, distance=distance)


def test_the_first_loss_is_the_mean_negative_log_likelihood():
    data = by_hand([[0, 1, 1], [1, 0, 0]], [[1, 0, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 0]])
    theta = jnp.log(jnp.asarray([[0.1, 0.9], [0.4, 0.6]]))
    policy = pgjax.tabular(2, 2)._replace(init=lambda key: theta)
    cloning = pgjax.behaviour_cloning(policy, data, steps=1, batch=20000, held_out=0)
    state, metrics = jax.jit(cloning.update)(cloning.init(KEY, cloning.hyperparameters(learning_rate=0.0)))
    losses = -np.log([0.9, 0.4, 0.6, 0.6, 0.9])  # the last step of the second episode has no label
    # Minibatches are drawn: five standard errors.
    np.testing.assert_allclose(metrics.loss, losses.mean(), atol=5 * losses.std() / np.sqrt(20000))
    assert metrics.labels == 5
    assert metrics.held_out_loss == metrics.loss
    np.testing.assert_array_equal(state.params, theta)


def test_maximum_likelihood_finds_frequencies_and_moments():
    data = by_hand([[0, 0, 0, 1, 1]], [[0, 0, 1, 1, 1]])
    cloning = pgjax.behaviour_cloning(pgjax.tabular(2, 2), data, steps=300, batch=500, held_out=0)
    state, _ = jax.jit(pgjax.train(cloning, 2))(KEY, cloning.hyperparameters(learning_rate=0.05))
    f = jax.nn.softmax(state.params)
    np.testing.assert_allclose(f[0], [2 / 3, 1 / 3], atol=0.03)
    assert f[1, 1] > 0.99

    def apply(params, observation):
        mean, log_std = (jnp.broadcast_to(params[i], observation.shape) for i in range(2))
        return pgjax.policies.Gaussian(mean, log_std)

    policy = pgjax.memoryless(lambda key: jnp.zeros(2), apply)
    actions = jnp.asarray([1.0, 2.0, 6.0])[:, None, None]
    data = pgjax.Demonstrations(jnp.zeros((3, 1, 1)), actions, jnp.ones((3, 1), bool))
    cloning = pgjax.behaviour_cloning(policy, data, steps=500, batch=500, held_out=0)
    state, _ = jax.jit(pgjax.train(cloning, 2))(KEY, cloning.hyperparameters(learning_rate=0.02))
    np.testing.assert_allclose(state.params, [3.0, np.log(np.std([1, 2, 6]))], atol=0.1)


def test_the_experts_distribution_is_copied_whole_by_cross_entropy():
    expert = jnp.log(jnp.asarray([[0.2, 0.8], [0.7, 0.3]]))
    data = by_hand([[0, 1]], [[0, 0]])  # both actions say 0; the distributions do not
    data = data._replace(expert=pgjax.policies.Categorical(expert[data.observation]))
    for distance in (pgjax.imitation.cross_entropy, pgjax.imitation.forward_kl, pgjax.imitation.reverse_kl):
        cloning = pgjax.behaviour_cloning(pgjax.tabular(2, 2), data, distance=distance, steps=300, held_out=0)
        state, _ = jax.jit(pgjax.train(cloning, 1))(KEY, cloning.hyperparameters(learning_rate=0.05))
        np.testing.assert_allclose(jax.nn.softmax(state.params), jnp.exp(expert), atol=0.01)


def test_of_all_parameters_those_best_on_held_out_episodes_are_kept():
    # Nine episodes that teach one thing and a held-out one that says another: learning makes it worse.
    states, actions = np.zeros((10, 3)), np.zeros((10, 3))
    actions[-1] = [1, 0, 0]
    policy = pgjax.tabular(1, 2)
    cloning = pgjax.behaviour_cloning(policy, by_hand(states, actions), steps=5, batch=8)
    state, curves = jax.jit(pgjax.train(cloning, 30))(KEY, cloning.hyperparameters(learning_rate=0.02))
    best = int(np.argmin(curves.held_out_loss))
    assert 0 < best < 29
    assert state.best == curves.held_out_loss[best]
    f = jax.nn.softmax(state.params[0])
    np.testing.assert_allclose(-(2 * np.log(f[0]) + np.log(f[1])) / 3, state.best, rtol=1e-5)
    assert jax.nn.softmax(state.latest[0])[0] > f[0] + 0.1
    assert state.split.fitted == 27
    assert state.split.held_out == 3


@pytest.mark.parametrize(("episodes", "held", "kept"), [(10, 1, 10), (9, 0, 9), (20, 2, 20), (3, 0, 3), (99, 2, 20)])
def test_only_the_first_episodes_are_used_and_a_tenth_is_held_out(episodes, held, kept):
    data = by_hand(np.tile(np.arange(20)[:, None], 4), np.zeros((20, 4)))
    cloning = pgjax.behaviour_cloning(pgjax.tabular(20, 2), data)
    state = cloning.init(KEY, cloning.hyperparameters(episodes=episodes))
    seen = data.observation.reshape(-1)[state.split.indices]
    fitted, held_out = int(state.split.fitted), int(state.split.held_out)
    assert (fitted, held_out) == (4 * (kept - held), 4 * held)
    assert set(np.asarray(seen[:fitted])) == set(range(kept - held))
    assert set(np.asarray(seen[fitted : fitted + held_out])) == set(range(kept - held, kept))
    assert state.split.labels == 4 * kept


def test_some_labels_of_each_episode_are_chosen_at_random():
    mask = np.ones((2, 6), bool)
    mask[1, 4:] = False
    data = by_hand(np.arange(12).reshape(2, 6), np.arange(12).reshape(2, 6), mask)

    def chosen(key):
        examples, episode = examples_of(data, pgjax.tabular(12, 12), LIKELIHOOD, 3, key)
        return examples.observation, examples.mask, episode, examples.action

    observation, labelled, episode, action = jax.vmap(chosen)(jax.random.split(KEY, 3000))
    assert observation.shape == (3000, 1, 6)
    assert labelled.all()
    np.testing.assert_array_equal(observation, action)
    np.testing.assert_array_equal(observation[:, 0] >= 6, episode == 1)
    assert all(len(set(row)) == 6 for row in np.asarray(observation[:50, 0]))
    counts = np.bincount(np.asarray(observation).reshape(-1), minlength=12)
    np.testing.assert_array_equal(counts[10:], 0)
    # Of 6 steps 3 are chosen, of 4 too; six standard errors of a frequency are 3000 · 6 · √(¼ / 3000).
    np.testing.assert_allclose(counts[:10], [1500] * 6 + [2250] * 4, atol=165)

    few, _ = examples_of(data, pgjax.tabular(12, 12), LIKELIHOOD, 5, KEY)  # more than the second episode has
    assert few.mask.sum() == 9
    whole, _ = examples_of(data, remembering(), LIKELIHOOD, 3, KEY)  # for a policy with memory episodes stay whole
    np.testing.assert_array_equal(whole.observation[data.mask], data.observation[data.mask])
    np.testing.assert_array_equal(whole.mask.sum(0), 3)
    assert not (whole.mask & ~data.mask).any()


def test_what_is_not_labelled_has_no_influence():
    rng = np.random.default_rng(0)
    mask = rng.random((6, 8)) < 0.5
    states, actions = rng.integers(0, 3, (6, 8)), rng.integers(0, 2, (6, 8))
    results = []
    for other in (0, 1):
        data = by_hand(states, np.where(mask, actions, other), mask)
        cloning = pgjax.behaviour_cloning(pgjax.tabular(3, 2), data, steps=10)
        results.append(jax.jit(pgjax.train(cloning, 3))(KEY, cloning.hyperparameters()))
    jax.tree.map(np.testing.assert_array_equal, results[0][0].params, results[1][0].params)
    jax.tree.map(np.testing.assert_array_equal, results[0][1], results[1][1])


def test_a_policy_with_memory_is_fitted_to_whole_episodes():
    # The action is whether the first observation was positive, which only memory knows at later steps.
    rng = np.random.default_rng(0)
    first = rng.choice([-1.0, 1.0], 40)
    observation = np.zeros((4, 40, 1))
    observation[0, :, 0] = first
    action = jnp.asarray(np.tile(first > 0, (4, 1)), jnp.int32)
    data = pgjax.Demonstrations(jnp.asarray(observation, jnp.float32), action, jnp.ones((4, 40), bool))
    cloning = pgjax.behaviour_cloning(remembering(), data, steps=100, batch=16)
    state, curves = jax.jit(pgjax.train(cloning, 5))(KEY, cloning.hyperparameters(learning_rate=0.1))
    assert state.split.fitted == 36  # episodes
    assert curves.labels[-1] == 160
    assert curves.held_out_loss[-1] < 0.02
    expected = remembering().unroll(state.params, data).log_prob(action)[:, -4:]
    np.testing.assert_allclose(-expected.mean(), state.best, rtol=1e-4)


def test_demonstrations_of_an_expert_are_what_it_did_and_would_do():
    mdp = random_mdp()
    environment, policy = pgjax.finite(mdp, 6), pgjax.tabular(3, 2)
    expert = pgjax.Expert(policy, jnp.log(jnp.asarray([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])))
    data = jax.jit(pgjax.demonstrate(environment, expert, 5))(KEY)
    played = jax.jit(pgjax.collect(environment, policy, 5))(KEY, expert.params, mdp)
    np.testing.assert_array_equal(data.action, played.action)
    np.testing.assert_array_equal(data.mask, played.mask)
    np.testing.assert_array_equal(data.expert.logits, expert.params[data.observation])


def test_data_given_and_the_same_data_drawn_make_the_same_run():
    data = by_hand([[0, 1, 2], [1, 0, 1]], [[1, 0, 1], [1, 1, 0]])
    runs = []
    for source in (data, lambda key: data):
        cloning = pgjax.behaviour_cloning(pgjax.tabular(3, 2), source, steps=5, held_out=0.5)
        runs.append(jax.jit(pgjax.train(cloning, 3))(KEY, cloning.hyperparameters()))
    assert runs[0][0].examples == ()
    np.testing.assert_array_equal(runs[0][0].params, runs[1][0].params)
    jax.tree.map(np.testing.assert_array_equal, runs[0][1], runs[1][1])


def test_a_vmapped_run_is_a_single_one_and_a_sweep_of_them():
    environment = pgjax.finite(random_mdp(), 6)
    expert = pgjax.Expert(pgjax.tabular(3, 2), jnp.asarray([[0.0, 3.0], [3.0, 0.0], [0.0, 0.0]]))
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (4,))
    data = pgjax.demonstrate(environment, expert, 4)
    cloning = pgjax.behaviour_cloning(policy, data, steps=5, batch=8, held_out=0.5)
    # What a sweep computes is vmapped.
    swept = pgjax.sweep(cloning, iterations=3, seeds=range(3), grid={"episodes": [1, 2]}, progress=False)
    numbers = cloning.hyperparameters(episodes=2)
    counted = jax.jit(chex.assert_max_traces(pgjax.train(cloning, 3), n=1))
    for seed in (1, 2):
        state, curves = counted(pgjax.run_keys(0, [seed])[0], numbers)
        same = swept.sel(episodes=2, seed=seed)
        for name in curves._fields:
            np.testing.assert_allclose(same[name].values, getattr(curves, name), rtol=1e-4, err_msg=name)
    like = jax.eval_shape(policy.init, KEY)
    params = pgjax.load_params(swept, like, seed=2, point={"episodes": 2})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), params, state.params)
    assert (swept.labels.sel(episodes=1).values < swept.labels.sel(episodes=2).values).all()


def test_pretrained_parameters_are_those_a_run_ends_with():
    environment, policy = pgjax.finite(random_mdp(), 6), pgjax.tabular(3, 2)
    expert = pgjax.Expert(policy, jnp.asarray([[0.0, 3.0], [3.0, 0.0], [0.0, 0.0]]))
    cloning = pgjax.behaviour_cloning(policy, pgjax.demonstrate(environment, expert, 4), steps=5)
    numbers = cloning.hyperparameters(learning_rate=0.1)
    start = pgjax.pretrained(policy, cloning, 3, numbers)
    tuning = pgjax.reinforce(environment, start, slots=2)
    keys = pgjax.run_keys(0, range(2))
    state = jax.jit(jax.vmap(tuning.init, (0, None)))(keys, tuning.hyperparameters())
    assert not np.array_equal(state.params[0], state.params[1])
    params_key = jax.random.split(keys[1], 3)[1]
    trained, _ = jax.jit(pgjax.train(cloning, 3))(params_key, numbers)
    np.testing.assert_allclose(state.params[1], trained.params, rtol=1e-4, atol=1e-6)


def test_a_copy_goes_past_its_expert_with_reinforce():
    mdp = random_mdp()
    environment, policy = pgjax.finite(mdp, 6), pgjax.tabular(3, 2)
    best = pgjax.exact.optimal(mdp, 6)
    # The expert prefers the worse action in every state, but not always.
    worse = 1 - jax.nn.one_hot(jnp.argmax(best.action_values[0], axis=-1), 2)
    expert = pgjax.Expert(policy, jnp.log(0.3 + 0.4 * worse))
    cloning = pgjax.behaviour_cloning(policy, pgjax.demonstrate(environment, expert, 100), steps=200)
    copy = pgjax.pretrained(policy, cloning, 1, cloning.hyperparameters(learning_rate=0.03))
    tuning = pgjax.reinforce(environment, copy)

    def ends(key):
        state, _ = pgjax.train(tuning, 60)(key, tuning.hyperparameters(learning_rate=0.1))
        rho = [pgjax.exact.expected_return(mdp, 6, jax.nn.softmax(params)) for params in (copy.init(key), state.params)]
        return jnp.stack(rho)

    copied, tuned = jax.jit(jax.vmap(ends))(pgjax.run_keys(0, range(8))).T
    of_expert = pgjax.exact.expected_return(mdp, 6, jax.nn.softmax(expert.params))
    gain = best.rho - of_expert
    np.testing.assert_allclose(copied, of_expert, atol=0.25 * gain)
    assert (tuned > of_expert + 0.8 * gain).all()


def test_minibatches_differ_within_an_update_and_between_updates():
    # A table with a row for each step, and one step a minibatch: the rows that moved are the steps that were drawn.
    data = by_hand([np.arange(1000)], [np.zeros(1000)])
    cloning = pgjax.behaviour_cloning(pgjax.tabular(1000, 2), data, steps=20, batch=1, optimizer=optax.sgd)
    update = jax.jit(cloning.update)
    state, _ = update(cloning.init(KEY, cloning.hyperparameters(learning_rate=0.1)))
    moved = np.asarray(state.latest).any(1).sum()
    assert 15 < moved <= 20
    state, _ = update(state)
    assert 30 < np.asarray(state.latest).any(1).sum() <= 40


def test_whole_episodes_are_weighed_by_their_steps_whatever_the_batch():
    # Episodes of one step say 1, those of three say 0: of all labels a quarter are 1.
    def apply(params, observation):
        return pgjax.policies.Categorical(jnp.broadcast_to(params, (*observation.shape[:-1], 2)))

    policy = remembering()._replace(
        init=lambda key: jnp.zeros(2), unroll=lambda params, episodes: apply(params, episodes.observation)
    )
    mask = np.tile([[True, True], [False, True], [False, True]], (1, 10))
    action = np.tile([[1, 0]], (3, 10))
    data = pgjax.Demonstrations(np.zeros((3, 20, 1), np.float32), action.astype(np.int32), mask)
    cloning = pgjax.behaviour_cloning(policy, data, batch=1, steps=4000, held_out=0, optimizer=optax.sgd)
    state, _ = jax.jit(pgjax.train(cloning, 1))(KEY, cloning.hyperparameters(learning_rate=0.01))
    # With so small a step, θ ends within a few hundredths of the maximum of the likelihood.
    np.testing.assert_allclose(jax.nn.softmax(state.params), [0.75, 0.25], atol=0.05)


def test_an_infinite_distance_keeps_the_latest_and_one_that_is_no_number_does_not():
    expert = pgjax.policies.Gaussian(jnp.zeros((1, 20, 1)), jnp.full((1, 20, 1), -jnp.inf))
    data = pgjax.Demonstrations(jnp.zeros((1, 20, 1)), jnp.zeros((1, 20, 1)), jnp.ones((1, 20), bool), expert)
    policy = pgjax.mlp(pgjax.Box(-1.0, 1.0, (1,)), pgjax.Box(-1.0, 1.0, (1,)), (4,))
    cloning = pgjax.behaviour_cloning(policy, data, distance=pgjax.imitation.forward_kl, steps=3)
    state, curves = jax.jit(pgjax.train(cloning, 2))(KEY, cloning.hyperparameters())
    assert (curves.held_out_loss == jnp.inf).all()
    jax.tree.map(np.testing.assert_array_equal, state.params, state.latest)
    cloning = pgjax.behaviour_cloning(policy, data, distance=lambda f, action, expert: jnp.nan * f.mean[..., 0])
    state, _ = jax.jit(pgjax.train(cloning, 2))(KEY, cloning.hyperparameters())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    for distance in (pgjax.imitation.reverse_kl, pgjax.imitation.forward_kl, pgjax.imitation.cross_entropy):
        broken, fine = pgjax.policies.Categorical(jnp.full(2, jnp.nan)), pgjax.policies.Categorical(jnp.zeros(2))
        assert jnp.isnan(distance(broken, jnp.asarray(0), fine))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((2, 1), bool)}, "expected a mask of booleans with 1 or more labelled steps, got 0 of bool"),
        ({"mask": np.ones((2, 1))}, "with 1 or more labelled steps, got 2.0 of float32"),
        ({"action": np.asarray([[0], [7]])}, "expected actions from 0 to 1, got 0 to 7"),
        ({"action": np.asarray([0, 1])}, r"expected arrays \[T, N, ...\] and a mask \[T, N\], got \[2\]"),
    ],
)
def test_arrays_with_nothing_to_learn_from_are_refused(change, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.behaviour_cloning(pgjax.tabular(2, 2), by_hand([[0, 1]], [[0, 1]])._replace(**change))


def test_an_expert_answers_with_an_action_or_draws_one():
    with pytest.raises(pgjax.InputError, match="expected the expert's actions or a key"):
        pgjax.imitation.labelled(pgjax.Expert(pgjax.tabular(2, 2), np.zeros((2, 2))), by_hand([[0, 1]], [[0, 1]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": -1}, "expected 0 or more labels of an episode, got -1"),
        ({"held_out": 1.0}, "from 0 to below 1, got 1.0"),
        ({"held_out": float("nan")}, "from 0 to below 1, got nan"),
        ({"batch": 0}, "expected 1 or more examples in a batch, got 0"),
        ({"steps": 0}, "expected 1 or more gradient steps an update, got 0"),
        ({"distance": lambda f, action, expert: jnp.zeros(())}, r"expected a distance of shape \(2, 1\)"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.behaviour_cloning(pgjax.tabular(2, 2), by_hand([[0, 1]], [[0, 1]]), **options)


def test_demonstrations_that_do_not_fit_the_policy_are_refused():
    data = by_hand([[0, 1]], [[0, 1]])
    with pytest.raises(pgjax.InputError, match="it fails with: take_along_axis indices must be of integer"):
        pgjax.behaviour_cloning(pgjax.tabular(2, 2), data._replace(action=data.action.astype(float)))
    policy = pgjax.mlp(pgjax.Discrete(2), pgjax.Box(-1.0, 1.0, (2,)))
    with pytest.raises(pgjax.InputError, match="expected actions of shape and kind"):
        pgjax.behaviour_cloning(policy, data._replace(action=jnp.zeros((2, 1, 1))))
    with pytest.raises(pgjax.InputError, match="expected a policy that fits the demonstrations"):
        pgjax.behaviour_cloning(pgjax.mlp(pgjax.Box(-1.0, 1.0, (3,)), pgjax.Discrete(2)), data)


def test_what_is_not_known_of_an_episode_may_be_anything():
    # NaN after the end, and where the expert was not asked: with memory, episodes are differentiated whole.
    T, N = 4, 3
    real = jnp.arange(T)[:, None] < jnp.array([[4, 2, 3]])
    asked = real & (jnp.arange(T)[:, None] != 1)
    observation = jnp.arange(T * N, dtype=float).reshape(T, N, 1) / 10
    logits = jnp.stack([observation[..., 0], jnp.zeros((T, N))], axis=-1)
    fitted = []
    for unknown in (jnp.nan, 0.0):
        demonstrations = pgjax.Demonstrations(
            jnp.where(real[..., None], observation, unknown),
            jnp.where(asked, 1, 7 if jnp.isnan(unknown) else 0),
            asked,
            pgjax.policies.Categorical(jnp.where(asked[..., None], logits, unknown)),
        )
        for distance in (LIKELIHOOD, pgjax.imitation.cross_entropy):
            cloning = pgjax.behaviour_cloning(remembering(), demonstrations, distance=distance, steps=4, batch=3)
            state, curves = jax.jit(pgjax.train(cloning, 2))(KEY, cloning.hyperparameters())
            assert np.isfinite(state.params).all()
            assert np.isfinite(curves.loss).all()
            fitted.append(state.params)
    np.testing.assert_array_equal(fitted[:2], fitted[2:])


@pytest.mark.parametrize("memory", [False, True])
def test_no_key_is_used_twice(memory):
    environment = pgjax.finite(random_mdp(), 4)
    policy = pgjax.policies.tabular_by_time(4, 3, 2) if memory else pgjax.tabular(3, 2)
    expert = pgjax.Expert(pgjax.tabular(3, 2), jnp.ones((3, 2)))
    with jax.debug_key_reuse(True):
        for learning in (
            pgjax.behaviour_cloning(policy, pgjax.demonstrate(environment, expert, 3), labels=2, steps=2),
            pgjax.dagger(environment, policy, expert, labels=2, steps=2),
        ):
            state, _ = jax.jit(pgjax.train(learning, 2))(jax.random.key(0), learning.hyperparameters())
            assert int(state.iteration) == 2


def test_an_optimizer_that_wants_the_value_gets_the_loss():
    demonstrations = by_hand([[0, 1, 2]], [[1, 0, 1]])
    cloning = pgjax.behaviour_cloning(pgjax.tabular(3, 2), demonstrations, steps=2, optimizer=optax.polyak_sgd)
    state, _ = jax.jit(pgjax.train(cloning, 3))(KEY, cloning.hyperparameters())
    assert state.params[0, 1] > state.params[0, 0]
    with pytest.raises(pgjax.InputError, match="expected an optimizer whose step needs the gradient"):
        pgjax.behaviour_cloning(
            pgjax.tabular(3, 2), demonstrations, optimizer=lambda eta: optax.lookahead(optax.sgd(eta), 2, 0.5)
        )
