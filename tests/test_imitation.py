import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.imitation import examples_of
from tests.cases import random_mdp, remembering

KEY = jax.random.key(0)


def by_hand(states, actions, mask=None):
    """Return demonstrations [T, N] of discrete states and actions, given as lists of episodes."""
    states, actions = (jnp.asarray(array, jnp.int32).T for array in (states, actions))
    return pgjax.Demonstrations(states, actions, jnp.ones(states.shape, bool) if mask is None else jnp.asarray(mask).T)


def logits(*rows):
    return pgjax.Categorical(jnp.log(jnp.asarray(rows)))


def test_distances_against_numbers_by_hand():
    f, expert = logits([0.25, 0.75]), logits([0.5, 0.5])
    action = jnp.asarray([1])
    np.testing.assert_allclose(pgjax.negative_log_likelihood(f, action, None), -np.log(0.75), rtol=1e-6)
    entropy = -0.5 * np.log(0.25) - 0.5 * np.log(0.75)
    np.testing.assert_allclose(pgjax.cross_entropy(f, action, expert), entropy, rtol=1e-6)
    np.testing.assert_allclose(pgjax.forward_kl(f, action, expert), entropy - np.log(2), rtol=1e-5)
    backward = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    np.testing.assert_allclose(pgjax.reverse_kl(f, action, expert), backward, rtol=1e-5)

    f = pgjax.Gaussian(jnp.asarray([[1.0, 0.0]]), jnp.log(jnp.asarray([[2.0, 1.0]])))
    action = jnp.asarray([[3.0, 0.5]])
    density = 0.5 * (1 + 0.25) + np.log(2) + np.log(2 * np.pi)
    np.testing.assert_allclose(pgjax.negative_log_likelihood(f, action, None), density, rtol=1e-6)
    certain = pgjax.Gaussian(action, jnp.full((1, 2), -jnp.inf))
    np.testing.assert_allclose(pgjax.cross_entropy(f, action, certain), density, rtol=1e-6)


@pytest.mark.parametrize("distance", [pgjax.cross_entropy, pgjax.forward_kl, pgjax.reverse_kl])
def test_a_distance_from_the_experts_distribution_needs_it(distance):
    data = by_hand([[0]], [[0]])
    with pytest.raises(pgjax.InputError, match="expected the expert's distribution, a Categorical as the agent's, got"):
        pgjax.behaviour_cloning(pgjax.tabular(2, 2), data, distance=distance)
    data = data._replace(expert=pgjax.Gaussian(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1))))
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
    assert metrics.held_out == metrics.loss
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
        return pgjax.Gaussian(mean, log_std)

    policy = pgjax.memoryless(lambda key: jnp.zeros(2), apply)
    actions = jnp.asarray([1.0, 2.0, 6.0])[:, None, None]
    data = pgjax.Demonstrations(jnp.zeros((3, 1, 1)), actions, jnp.ones((3, 1), bool))
    cloning = pgjax.behaviour_cloning(policy, data, steps=500, batch=500, held_out=0)
    state, _ = jax.jit(pgjax.train(cloning, 2))(KEY, cloning.hyperparameters(learning_rate=0.02))
    np.testing.assert_allclose(state.params, [3.0, np.log(np.std([1, 2, 6]))], atol=0.1)


def test_the_experts_distribution_is_copied_whole_by_cross_entropy():
    expert = jnp.log(jnp.asarray([[0.2, 0.8], [0.7, 0.3]]))
    data = by_hand([[0, 1]], [[0, 0]])  # both actions say 0; the distributions do not
    data = data._replace(expert=pgjax.Categorical(expert[data.observation]))
    for distance in (pgjax.cross_entropy, pgjax.forward_kl, pgjax.reverse_kl):
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
    best = int(np.argmin(curves.held_out))
    assert 0 < best < 29
    assert state.least == curves.held_out[best]
    f = jax.nn.softmax(state.params[0])
    np.testing.assert_allclose(-(2 * np.log(f[0]) + np.log(f[1])) / 3, state.least, rtol=1e-5)
    assert jax.nn.softmax(state.latest[0])[0] > f[0] + 0.1
    assert state.fitted == 27
    assert state.held_out == 3


@pytest.mark.parametrize(("episodes", "held", "kept"), [(10, 1, 10), (9, 0, 9), (20, 2, 20), (3, 0, 3), (99, 2, 20)])
def test_only_the_first_episodes_are_used_and_a_tenth_is_held_out(episodes, held, kept):
    data = by_hand(np.tile(np.arange(20)[:, None], 4), np.zeros((20, 4)))
    cloning = pgjax.behaviour_cloning(pgjax.tabular(20, 2), data)
    state = cloning.init(KEY, cloning.hyperparameters(episodes=episodes))
    seen = data.observation.reshape(-1)[state.places]
    fitted, held_out = int(state.fitted), int(state.held_out)
    assert (fitted, held_out) == (4 * (kept - held), 4 * held)
    assert set(np.asarray(seen[:fitted])) == set(range(kept - held))
    assert set(np.asarray(seen[fitted : fitted + held_out])) == set(range(kept - held, kept))
    assert state.labels == 4 * kept


def test_some_labels_of_each_episode_are_chosen_at_random():
    mask = np.ones((2, 6), bool)
    mask[1, 4:] = False
    data = by_hand(np.arange(12).reshape(2, 6), np.arange(12).reshape(2, 6), mask)

    def chosen(key):
        examples, episode = examples_of(data, pgjax.tabular(12, 12), 3, key)
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

    few, _ = examples_of(data, pgjax.tabular(12, 12), 5, KEY)  # more than the second episode has
    assert few.mask.sum() == 9
    whole, _ = examples_of(data, remembering(), 3, KEY)  # for a policy with memory episodes stay whole
    np.testing.assert_array_equal(whole.observation, data.observation)
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
    assert state.fitted == 36  # episodes
    assert curves.labels[-1] == 160
    assert curves.held_out[-1] < 0.02
    expected = remembering().unroll(state.params, data).log_prob(action)[:, -4:]
    np.testing.assert_allclose(-expected.mean(), state.least, rtol=1e-4)


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
    cloning = pgjax.behaviour_cloning(
        pgjax.mlp(environment.observation_space, environment.action_space, (4,)),
        pgjax.demonstrate(environment, expert, 4),
        steps=5,
        batch=8,
        held_out=0.5,
    )
    run = pgjax.train(cloning, 3)
    keys = pgjax.run_keys(0, range(3))
    numbers = cloning.hyperparameters(episodes=2)
    together = jax.jit(jax.vmap(run, (0, None)))(keys, numbers)
    alone = jax.jit(run)(keys[1], numbers)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6), together[1], alone[1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6), together[0].params, alone[0].params
    )
    swept = pgjax.sweep(cloning, iterations=3, seeds=range(3), grid={"episodes": [1, 2]}, progress=False)
    np.testing.assert_allclose(swept.held_out.sel(episodes=2).values, together[1].held_out, rtol=1e-4)
    assert (swept.labels.sel(episodes=1).values < swept.labels.sel(episodes=2).values).all()


def test_pretrained_parameters_are_those_a_run_ends_with():
    environment, policy = pgjax.finite(random_mdp(), 6), pgjax.tabular(3, 2)
    expert = pgjax.Expert(policy, jnp.asarray([[0.0, 3.0], [3.0, 0.0], [0.0, 0.0]]))
    cloning = pgjax.behaviour_cloning(policy, pgjax.demonstrate(environment, expert, 4), steps=5)
    numbers = cloning.hyperparameters(learning_rate=0.1)
    start = pgjax.pretrained(policy, cloning, 3, numbers)
    tuning = pgjax.reinforce(environment, start, episodes=2)
    keys = pgjax.run_keys(0, range(2))
    state = jax.jit(jax.vmap(tuning.init, (0, None)))(keys, tuning.hyperparameters())
    assert not np.array_equal(state.params[0], state.params[1])
    params_key = jax.random.split(keys[1], 3)[1]
    trained, _ = jax.jit(pgjax.train(cloning, 3))(params_key, numbers)
    np.testing.assert_allclose(state.params[1], trained.params, rtol=1e-4, atol=1e-6)


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
    with pytest.raises(pgjax.InputError, match="expected actions of shape and type"):
        pgjax.behaviour_cloning(policy, data._replace(action=jnp.zeros((2, 1, 1))))
    with pytest.raises(pgjax.InputError, match="expected a policy that fits the demonstrations"):
        pgjax.behaviour_cloning(pgjax.mlp(pgjax.Box(-1.0, 1.0, (3,)), pgjax.Discrete(2)), data)
