"""Reuse of a batch: a PPO iteration by hand, twins with a mistake each, and minibatches of whole episodes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from pgjax.algorithms.on_policy import SHUFFLING
from pgjax.algorithms.reuse import minibatches_of
from pgjax.estimators import batch_standardized, clipped_ratio, importance_ratio, score_function
from pgjax.estimators.gradient import differentiating, judging
from pgjax.policies.base import has_memory
from pgjax.rollout import in_buffer
from pgjax.steps import Steps, shuffled_steps
from tests.cases import counting, random_mdp, remembering

MDP = random_mdp(seed=3, stochastic_reward=True)
FINITE = pgjax.finite(MDP, 6)
TABLE = pgjax.tabular(3, 2)
E, EPOCHS, MINIBATCHES, EPSILON, VALUE_STEPS = 3, 2, 2, 0.1, 2
NUMBERS = {
    "learning_rate": 0.8,
    "discount": 0.9,
    "trace_decay": 0.8,
    "value_learning_rate": 0.3,
    "baseline_decay": 0.6,
    "entropy_coefficient": 0.05,
}


def ppo():
    return pgjax.reinforce(
        FINITE,
        TABLE,
        slots=E,
        min_steps_per_slot=6,
        credit=pgjax.lambda_return(),
        baseline=pgjax.learned_value(
            pgjax.policies.tabular_value(3), optimizer=optax.sgd, steps=VALUE_STEPS, minibatches=VALUE_STEPS
        ),
        objective=clipped_ratio(EPSILON),
        scale=batch_standardized(),
        epochs=EPOCHS,
        minibatches=MINIBATCHES,
        optimizer=optax.sgd,
    )


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def spread_of(moments):
    mean = moments[1] / moments[0]
    return mean, np.sqrt(max(moments[2] / moments[0] - mean**2, 1e-6 * (1 + mean**2)))


def lambda_advantages(episode, v):
    """G_t^λ [T, E], one slot after the other, and (G_t^λ − v(X_t)) standardized over real steps, 0 in padding."""
    T = len(episode.mask)
    returns, gamma, trace = np.zeros((T, E)), NUMBERS["discount"], NUMBERS["trace_decay"]
    for e in range(E):
        following = 0.0
        for t in reversed(range(T)):
            if not episode.mask[t, e]:
                continue
            value = 0.0 if episode.terminated[t, e] else v[episode.observation[t + 1, e]]
            last = episode.terminated[t, e] or episode.truncated[t, e]
            following = episode.reward[t, e] + gamma * (value if last else (1 - trace) * value + trace * following)
            returns[t, e] = following
    advantage = returns - v[episode.observation]
    real = advantage[episode.mask]
    return returns, np.where(episode.mask, (advantage - real.mean()) / (real.std() + 1e-4), 0)


def replayed(state, mistake=None):
    """What an iteration of PPO makes of a state in NumPy: θ, the critic's θ and moments, and notes, perhaps wrongly."""
    played = jax.jit(pgjax.collect(FINITE, TABLE, slots=E, min_steps_per_slot=6))(
        jax.random.fold_in(state.key, state.iteration), state.params, MDP
    )
    shuffling = jax.random.fold_in(jax.random.fold_in(state.key, SHUFFLING), state.iteration)
    orders = [np.asarray(shuffled_steps(jax.random.fold_in(shuffling, i), played).places) for i in range(EPOCHS)]
    episode = jax.tree.map(np.asarray, played)
    theta, count = np.asarray(state.params, np.float64), int(episode.mask.sum())
    critic, moments = (np.asarray(part, np.float64) for part in (state.baseline.params, state.baseline.moments))
    mean, spread = spread_of(moments)
    v = mean + spread * critic
    returns, advantage = lambda_advantages(episode, v)
    kept, c = [], NUMBERS["entropy_coefficient"]
    for order in orders:
        for b in range(MINIBATCHES):
            places = order[b * count // MINIBATCHES : (b + 1) * count // MINIBATCHES]
            before, gradient, clipped, moved = theta.copy(), np.zeros_like(theta), 0, 0.0
            for place in places:
                t, e = divmod(place, E)
                x, a, A = episode.observation[t, e], episode.action[t, e], advantage[t, e]
                f, old = softmax(theta[x]), np.exp(episode.log_prob[t, e])
                if mistake == "the ratio is against the present θ":
                    old = f[a]
                ratio = f[a] / old
                gains = np.clip(ratio, 1 - EPSILON, 1 + EPSILON) * A >= ratio * A
                gradient[x] += gains * A * ratio * (np.eye(2)[a] - f) - c * f * (np.log(f) + -(f * np.log(f)).sum())
                clipped, moved = clipped + (not gains), moved + ratio - 1 - np.log(ratio)
            gradient *= count / len(places) / E
            theta = theta + NUMBERS["learning_rate"] * gradient
            kept.append((clipped / len(places), moved / len(places), np.linalg.norm(gradient)))
            if mistake == "advantages are taken again after a step":
                weighted = [softmax(theta[x])[a] / softmax(before[x])[a] for x in range(3) for a in range(2)]
                _, advantage = lambda_advantages(episode, v + 0.1 * np.reshape(weighted, (3, 2)).mean(1))
    beta = NUMBERS["baseline_decay"]
    real = returns[episode.mask]
    moments = beta * moments + (1 - beta) * np.array([1, real.mean(), (real**2).mean()])
    mean, spread = spread_of(moments)
    steps = np.argwhere(episode.mask)
    for i in range(VALUE_STEPS):
        descent = np.zeros(3)
        # Of the steps 0, 1, 2, … dealt to two parts, the first gets 0, 3, 4, 7, … and the second 1, 2, 5, 6, …
        part = [step for n, step in enumerate(steps) if (n + n // VALUE_STEPS * (VALUE_STEPS - 1)) % VALUE_STEPS == i]
        for t, e in part:
            x = episode.observation[t, e]
            descent[x] += (critic[x] - (returns[t, e] - mean) / spread) / len(part)
        critic = critic - NUMBERS["value_learning_rate"] * descent
    return theta, critic, moments, np.mean(kept, axis=0)


def second_state():
    """The state after an update, when the critic and its moments are no longer those of the beginning."""
    algorithm = ppo()
    state = algorithm.init(jax.random.key(7), algorithm.hyperparameters(**NUMBERS))
    update = jax.jit(algorithm.update)
    return update, update(state)[0]


def test_an_iteration_of_ppo_by_hand():
    update, state = second_state()
    theta, critic, moments, (clipped, moved, norm) = replayed(state)
    following, metrics = update(state)
    np.testing.assert_allclose(following.params, theta, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(following.baseline.params, critic, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(following.baseline.moments, moments, rtol=1e-4)
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-4)
    np.testing.assert_allclose(metrics.notes["clip_fraction"], clipped, rtol=1e-4)
    np.testing.assert_allclose(metrics.notes["approx_kl"], moved, rtol=1e-3, atol=1e-6)
    assert clipped > 0.05
    assert np.abs(theta - state.params).max() > 0.1
    for mistake in ("the ratio is against the present θ", "advantages are taken again after a step"):
        assert np.abs(replayed(state, mistake)[0] - theta).max() > 0.01


PLAYED = {
    "without memory": (FINITE, TABLE, {"slots": 4, "min_steps_per_slot": 9}),
    "differentiated whole": (counting(), remembering(), {"slots": 4}),
    "differentiated by chunks": (
        FINITE,
        pgjax.recurrent(pgjax.Discrete(3), pgjax.Discrete(2), 4, ()),
        {"slots": 4, "min_steps_per_slot": 9},
    ),
}


@pytest.mark.parametrize("played", PLAYED)
def test_minibatches_together_are_the_batch_and_cut_no_episode_of_a_policy_with_memory(played):
    environment, policy, settings = PLAYED[played]
    params = jax.tree.map(lambda leaf: leaf + 0.3, policy.init(jax.random.key(1)))
    trajectory = pgjax.collect(environment, policy, **settings)(jax.random.key(2), params, environment.params)
    numbers = pgjax.reinforce(environment, policy).hyperparameters(entropy_coefficient=0.1)
    judged = judging(environment, policy, pgjax.reward_to_go(), pgjax.no_baseline())(params, (), trajectory, numbers)
    differentiate = jax.jit(differentiating(policy, importance_ratio()))
    moved = jax.tree.map(lambda leaf: leaf - 0.2, params)
    whole = differentiate(moved, trajectory, judged, numbers)
    shuffled, minibatch = minibatches_of(policy, 2)

    def together(order):
        parts = [minibatch(order, b, trajectory, judged) for b in range(2)]
        found = [differentiate(moved, *part[:2], numbers, part[2]) for part in parts]
        if isinstance(order, Steps):  # they may differ by one step
            shares = [part[2].number / order.number for part in parts]
        else:
            shares = [0.5, 0.5]
            np.testing.assert_array_equal(sum(part[0].episodes for part in parts), trajectory.episodes)
        return jax.tree.map(lambda *leaves: sum(s * leaf for s, leaf in zip(shares, leaves, strict=True)), *(
            estimate.gradient for estimate in found
        ))  # fmt: skip

    order = shuffled(jax.random.key(3), trajectory)
    chex.assert_trees_all_close(together(order), whole.gradient, rtol=1e-4, atol=1e-5)
    if has_memory(policy):  # a twin that takes single steps of it: each would be the first of its episode
        cutting = differentiating(policy._replace(memory=lambda slots: ()), importance_ratio())
        wrong = cutting(moved, trajectory, judged, numbers).gradient
        assert optax.tree.norm(optax.tree.sub(wrong, whole.gradient)) > 0.01


def test_each_epoch_goes_once_through_every_real_step_whatever_the_padding():
    trajectory = pgjax.collect(FINITE, TABLE, slots=4, min_steps_per_slot=9)(jax.random.key(2), jnp.ones((3, 2)), MDP)
    steps = shuffled_steps(jax.random.key(3), trajectory)
    count, places = int(steps.end), np.asarray(steps.places)
    real = np.flatnonzero(np.asarray(trajectory.mask).ravel())
    assert not np.array_equal(places[:count], real)
    np.testing.assert_array_equal(np.sort(places[:count]), real)
    longer = shuffled_steps(jax.random.key(3), in_buffer(trajectory, 500))
    np.testing.assert_array_equal(longer.places[:count], places[:count])
    other = shuffled_steps(jax.random.key(4), trajectory)
    assert not np.array_equal(other.places[:count], places[:count])


def test_shuffled_places_are_uniform():
    trajectory = pgjax.collect(FINITE, TABLE, slots=2)(jax.random.key(2), jnp.ones((3, 2)), MDP)
    n, samples = int(trajectory.mask.sum()), 4096
    keys = jax.random.split(jax.random.key(0), samples)
    first = np.asarray(jax.jit(jax.vmap(lambda key: shuffled_steps(key, trajectory).places[0]))(keys))
    seen = np.unique(first, return_counts=True)[1]
    assert len(seen) == n
    assert np.sum((seen - samples / n) ** 2 / (samples / n)) < 2 * n + 20  # χ² of n − 1


def test_an_objective_used_once_changes_nothing_and_used_often_it_does():
    ended = {}
    for name, options in {
        "once": {},
        "ratio": {"objective": importance_ratio()},
        "given": {"objective": score_function()},
        "twice": {"epochs": 2},
        "parts": {"minibatches": 2},
    }.items():
        algorithm = pgjax.reinforce(FINITE, TABLE, slots=4, optimizer=optax.sgd, **options)
        run = jax.jit(pgjax.train(algorithm, 2))
        ended[name] = run(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.3))[0].params
    np.testing.assert_array_equal(ended["once"], ended["given"])
    np.testing.assert_allclose(ended["ratio"], ended["once"], rtol=1e-4, atol=1e-5)
    for name in ("twice", "parts"):
        assert np.abs(ended[name] - ended["once"]).max() > 1e-3


def test_a_run_alone_is_the_run_among_others_and_a_second_call_compiles_nothing():
    cartpole = pgjax.from_gymnax("CartPole-v1")
    algorithm = pgjax.algorithms.ppo(
        cartpole,
        pgjax.mlp(cartpole.observation_space, cartpole.action_space, (8,)),
        pgjax.policies.mlp_value(cartpole.observation_space, hidden=(8,)),
        slots=2,
        min_steps_per_slot=16,
        epochs=2,
        minibatches=3,
    )
    numbers = algorithm.hyperparameters()

    def one_update(key):
        return algorithm.update(algorithm.init(key, numbers))

    alone, told = jax.jit(one_update)(pgjax.run_keys(0, [17])[0])
    many = jax.jit(jax.vmap(chex.assert_max_traces(one_update, n=1)))
    among, all_told = many(pgjax.run_keys(0, range(40)))
    many(pgjax.run_keys(1, range(40)))
    chex.assert_trees_all_close(alone.params, jax.tree.map(lambda leaf: leaf[17], among.params), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(all_told.notes["approx_kl"][17], told.notes["approx_kl"], rtol=1e-3, atol=1e-6)


def test_minibatches_of_which_some_are_empty_leave_the_numbers_finite():
    one_step = pgjax.finite(MDP, 1)  # two real steps in all
    algorithm = pgjax.reinforce(one_step, TABLE, slots=2, objective=clipped_ratio(), minibatches=5)
    state, metrics = jax.jit(pgjax.train(algorithm, 2))(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.3))
    assert metrics.steps.tolist() == [2, 2]
    chex.assert_tree_all_finite((state.params, metrics))
    assert np.abs(state.params).max() > 0.01


@pytest.mark.parametrize("made", [lambda: (FINITE, TABLE, 3), lambda: (counting(), remembering(), 2)])
def test_no_key_is_used_twice(made):
    environment, policy, minibatches = made()
    policy = policy._replace(init=lambda key: jnp.ones((3, 2) if minibatches == 3 else (1, 2)))
    algorithm = pgjax.reinforce(
        environment, policy, slots=4, objective=clipped_ratio(), epochs=2, minibatches=minibatches
    )
    numbers = algorithm.hyperparameters()
    with jax.debug_key_reuse(True):
        state, _ = jax.jit(pgjax.train(algorithm, 2))(jax.random.key(0), numbers)
    assert int(state.iteration) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "expected 1 or more epochs, got 0"),
        ({"minibatches": 0}, "expected 1 or more minibatches, got 0"),
        ({"slots": 4, "minibatches": 3}, "whole episodes that divide 4 slots, for a policy with memory, got 3"),
    ],
)
def test_counts_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.reinforce(counting(), remembering(), **options)
