import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import exact
from pgjax.estimators.baselines import RunningAverage
from tests.cases import random_mdp, remembering

T, DISCOUNT, TRACE_DECAY = 4, 0.8, 0.6
POLICY = pgjax.tabular(3, 2)


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def problem():
    """Tables with chance everywhere and an early end, and logits."""
    return random_mdp(3, stochastic_reward=True), jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))


@pytest.fixture(scope="module")
def listed(problem):
    """Every episode, its probability, and the score of each of its steps, [T, N, 6]."""
    mdp, theta = problem
    f = exact.probabilities(mdp, POLICY, theta)
    episodes = exact.every_episode(mdp, T)
    psi = np.asarray(exact.scores(mdp, POLICY, theta)).reshape(3, 2, 6)
    score = psi[episodes.states, episodes.actions] * np.asarray(episodes.running)[..., None]
    return episodes, np.asarray(episodes.probability(f)), score


@pytest.mark.slow
def test_the_sum_over_every_episode_is_the_expectation(problem, listed):
    mdp, theta = problem
    f = exact.probabilities(mdp, POLICY, theta)
    episodes, probability, _ = listed
    solution = exact.solve(mdp, T, f, DISCOUNT)
    G_1 = (DISCOUNT ** np.arange(T)[:, None] * episodes.rewards).sum(0)
    np.testing.assert_allclose(probability.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(probability @ G_1, solution.rho, rtol=1e-12)
    np.testing.assert_allclose(exact.expected_return(mdp, T, f, DISCOUNT), solution.rho, rtol=1e-12)
    for t in range(T):
        for s in range(3):
            here = np.asarray(episodes.running[t] & (episodes.states[t] == s))
            np.testing.assert_allclose(probability[here].sum(), solution.states[t, s], atol=1e-14)
            if probability[here].sum() > 0:
                to_go = (DISCOUNT ** np.arange(T - t)[:, None] * episodes.rewards[t:]).sum(0)
                mean = probability[here] @ to_go[here] / probability[here].sum()
                np.testing.assert_allclose(mean, solution.values[t, s], rtol=1e-10)
                for a in (0, 1):
                    taken = here & np.asarray(episodes.actions[t] == a)
                    mean = probability[taken] @ to_go[taken] / probability[taken].sum()
                    np.testing.assert_allclose(mean, solution.action_values[t, s, a], rtol=1e-10)
    np.testing.assert_allclose(jnp.sum(f[None] * solution.advantages, -1), 0, atol=1e-14)


def test_three_ways_to_the_gradient(problem, listed):
    mdp, theta = problem
    episodes, _, _ = listed
    by_autodiff = exact.gradient(mdp, T, POLICY, theta, DISCOUNT)
    by_theorem = exact.policy_gradient_theorem(mdp, T, POLICY, theta, DISCOUNT)
    G_1 = (DISCOUNT ** jnp.arange(T)[:, None] * episodes.rewards).sum(0)
    by_listing = jax.grad(lambda theta: episodes.probability(jax.nn.softmax(theta)) @ G_1)(theta)
    np.testing.assert_allclose(by_autodiff, by_theorem, atol=1e-14)
    np.testing.assert_allclose(by_autodiff, by_listing, atol=1e-14)
    difference = np.zeros((3, 2))
    for i in np.ndindex(3, 2):
        up, down = (exact.expected_return(mdp, T, jax.nn.softmax(theta.at[i].add(h)), DISCOUNT) for h in (1e-5, -1e-5))
        difference[i] = (up - down) / 2e-5
    np.testing.assert_allclose(by_autodiff, difference, atol=1e-9)


def test_any_policy_over_the_states(problem):
    mdp, _ = problem
    policy = pgjax.mlp(pgjax.Discrete(3), pgjax.Discrete(2), (4,))
    params = policy.init(jax.random.key(0))
    by_autodiff = exact.gradient(mdp, T, policy, params, DISCOUNT)
    by_theorem = exact.policy_gradient_theorem(mdp, T, policy, params, DISCOUNT)
    for one, other in zip(jax.tree.leaves(by_autodiff), jax.tree.leaves(by_theorem), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)  # the network computes in float32
    estimator = exact.whole_episode_estimator(mdp, T, DISCOUNT)
    mean, covariance = exact.mean_and_covariance(mdp, T, policy, params, estimator)
    flat = jax.flatten_util.ravel_pytree(by_autodiff)[0]
    np.testing.assert_allclose(mean, flat, atol=1e-6)
    assert covariance.shape == (flat.size, flat.size)
    with pytest.raises(pgjax.InputError, match="without memory"):
        exact.probabilities(mdp, remembering(), jnp.zeros((1, 2)))


def covariance_by_listing(probability, samples):
    mean = probability @ samples
    return mean, np.einsum("n,nd,ne->de", probability, samples, samples) - np.outer(mean, mean)


@pytest.mark.parametrize(
    "kind", ["whole episode", "reward to go", "lambda return", "expected policy gradient", "action value"]
)
def test_mean_and_covariance_are_those_over_every_episode(problem, listed, kind):
    mdp, theta = problem
    episodes, probability, score = listed
    f = exact.probabilities(mdp, POLICY, theta)
    rng = np.random.default_rng(1)
    b, Q = rng.normal(size=(T, 3)), rng.normal(size=(T, 3, 2))
    trajectory, states, actions = episodes.trajectory(), np.asarray(episodes.states), np.asarray(episodes.actions)
    running = np.asarray(episodes.running)
    steps = np.arange(T)[:, None]
    baseline, of_action, weight = b[steps, states], Q[steps, states, actions], DISCOUNT ** np.arange(T)
    to_go = np.asarray(pgjax.estimators.rewards_to_go(trajectory, DISCOUNT))[:T]
    every_action = np.einsum("sa,tsa,sad->tsd", f, Q, np.asarray(exact.scores(mdp, POLICY, theta)).reshape(3, 2, 6))
    put_back = every_action[steps, states] * running[..., None]
    if kind == "whole episode":
        estimator = exact.whole_episode_estimator(mdp, T, DISCOUNT, b)
        whole = np.asarray(pgjax.estimators.whole_returns(trajectory, DISCOUNT))[:T]
        samples = ((whole - baseline)[..., None] * score).sum(0)
    elif kind == "reward to go":
        estimator = exact.reward_to_go_estimator(mdp, T, DISCOUNT, b)
        samples = np.einsum("t,tn,tnd->nd", weight, to_go - baseline, score)
    elif kind == "lambda return":
        estimator = exact.lambda_return_estimator(mdp, T, DISCOUNT, TRACE_DECAY, jnp.asarray(b))
        next_values = jnp.where(trajectory.last, 0, jnp.asarray(np.concatenate([baseline[1:], baseline[:2]])))
        judged = np.asarray(pgjax.estimators.lambda_returns(trajectory, DISCOUNT, TRACE_DECAY, next_values))[:T]
        samples = np.einsum("t,tn,tnd->nd", weight, judged - baseline, score)
    elif kind == "expected policy gradient":
        estimator = exact.expected_policy_gradient_estimator(mdp, T, f, DISCOUNT, jnp.asarray(Q))
        samples = np.einsum("t,tnd->nd", weight, put_back)
    else:
        estimator = exact.action_value_estimator(mdp, T, f, DISCOUNT, jnp.asarray(Q))
        samples = np.einsum("t,tnd->nd", weight, (to_go - of_action)[..., None] * score + put_back)
    found = exact.mean_and_covariance(mdp, T, POLICY, theta, estimator)
    for got, expected in zip(found, covariance_by_listing(probability, samples), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-13)
    if kind in ("whole episode", "reward to go", "action value"):  # whatever the baseline
        np.testing.assert_allclose(found[0], exact.gradient(mdp, T, POLICY, theta, DISCOUNT).reshape(-1), atol=1e-13)


def test_the_estimates_that_reinforce_makes_have_these_moments(problem, listed):
    """Every episode goes through the code that learns, one at a time; weighted by Pr(τ), that is its expectation."""
    mdp, theta = problem
    episodes, probability, _ = listed
    environment = pgjax.finite(mdp, T)
    f = exact.probabilities(mdp, POLICY, theta)
    rng = np.random.default_rng(1)
    v, Q = jnp.asarray(rng.normal(size=(T, 3))), jnp.asarray(rng.normal(size=(T, 3, 2)))
    numbers = pgjax.reinforce(environment, POLICY).hyperparameters(discount=DISCOUNT, trace_decay=TRACE_DECAY)
    rho_hat = RunningAverage(jnp.asarray(0.7), jnp.asarray(0.5))
    cases = [
        (pgjax.whole_episode(), pgjax.no_baseline(), (), exact.whole_episode_estimator(mdp, T, DISCOUNT)),
        (pgjax.whole_episode(), pgjax.running_average(), rho_hat, exact.whole_episode_estimator(mdp, T, DISCOUNT, 0.7)),
        (
            pgjax.whole_episode(),
            pgjax.estimators.given_values(v),
            (),
            exact.whole_episode_estimator(mdp, T, DISCOUNT, v),
        ),
        (
            pgjax.estimators.discounted_reward_to_go(),
            pgjax.estimators.given_values(v),
            (),
            exact.reward_to_go_estimator(mdp, T, DISCOUNT, v),
        ),
        (
            pgjax.estimators.discounted_lambda_return(),
            pgjax.estimators.given_values(v),
            (),
            exact.lambda_return_estimator(mdp, T, DISCOUNT, TRACE_DECAY, v),
        ),
        (
            pgjax.estimators.discounted_reward_to_go(),
            pgjax.estimators.given_action_values(Q),
            (),
            exact.expected_policy_gradient_estimator(mdp, T, f, DISCOUNT, Q),
        ),
    ]

    @jax.jit
    def estimates(theta):
        each = jax.tree.map(lambda leaf: leaf.T[..., None] if leaf.ndim else leaf, episodes.trajectory())
        axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, each)

        def one(episode):
            return [
                pgjax.policy_gradient(environment, POLICY, credit, baseline)(theta, state, episode, numbers).gradient
                for credit, baseline, state, _ in cases
            ]

        return jax.vmap(one, (axes,))(each)

    for samples, (*_, estimator) in zip(estimates(theta), cases, strict=True):
        found = covariance_by_listing(probability, np.asarray(samples).reshape(-1, 6))
        for got, expected in zip(found, exact.mean_and_covariance(mdp, T, POLICY, theta, estimator), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-12)


def test_an_exact_critic_biases_nothing(problem):
    mdp, theta = problem
    f = exact.probabilities(mdp, POLICY, theta)
    solution = exact.solve(mdp, T, f, DISCOUNT)
    gradient = exact.gradient(mdp, T, POLICY, theta, DISCOUNT).reshape(-1)
    variances = []
    for estimator in (
        exact.reward_to_go_estimator(mdp, T, DISCOUNT, solution.values),
        exact.lambda_return_estimator(mdp, T, DISCOUNT, 0.5, solution.values),
        exact.lambda_return_estimator(mdp, T, DISCOUNT, 0.0, solution.values),
        exact.expected_policy_gradient_estimator(mdp, T, f, DISCOUNT, solution.action_values),
    ):
        mean, covariance = exact.mean_and_covariance(mdp, T, POLICY, theta, estimator)
        np.testing.assert_allclose(mean, gradient, atol=1e-14)
        variances.append(float(jnp.trace(covariance)))
    assert variances == sorted(variances, reverse=True)


@pytest.mark.parametrize("by_time", [False, True])
def test_the_covariance_of_leave_one_out_is_that_over_every_pair(problem, by_time):
    mdp, theta = problem
    T = 3
    episodes = exact.every_episode(mdp, T)
    probability = np.asarray(episodes.probability(jax.nn.softmax(theta)))
    possible = probability > 0
    trajectory = episodes.trajectory()
    psi = np.asarray(exact.scores(mdp, POLICY, theta)).reshape(3, 2, 6)
    score = (psi[episodes.states, episodes.actions] * np.asarray(episodes.running)[..., None])[:, possible]
    pairs = np.outer(probability[possible], probability[possible])
    if by_time:
        G, weight = (
            np.asarray(pgjax.estimators.rewards_to_go(trajectory, DISCOUNT))[:T, possible],
            DISCOUNT ** np.arange(T),
        )
        found = exact.leave_one_out_by_time_covariance(mdp, T, POLICY, theta, 2, DISCOUNT)
    else:
        G, weight = np.asarray(pgjax.estimators.whole_returns(trajectory, DISCOUNT))[:T, possible], np.ones(T)
        G = np.broadcast_to(G[:1], G.shape)  # also where the episode is over: it is what the other is judged by
        found = exact.leave_one_out_covariance(mdp, T, POLICY, theta, 2, DISCOUNT)
    samples = sum(
        0.5 * weight[t] * (G[t][:, None] - G[t][None])[..., None] * (score[t][:, None] - score[t][None])
        for t in range(T)
    )
    _, expected = covariance_by_listing(pairs.reshape(-1), samples.reshape(-1, 6))
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("by_time", [False, True])
def test_the_covariance_of_leave_one_out_is_that_over_every_triple(by_time):
    rng, T = np.random.default_rng(2), 2
    mdp = pgjax.environments.tables(
        rng.dirichlet(np.ones(2)), rng.dirichlet(np.ones(2), (2, 2)), rng.normal(size=(2, 2, 2))
    )
    policy, theta = pgjax.tabular(2, 2), jnp.asarray(rng.normal(size=(2, 2)))
    episodes = exact.every_episode(mdp, T)
    p = np.asarray(episodes.probability(jax.nn.softmax(theta)))
    psi = np.asarray(exact.scores(mdp, policy, theta)).reshape(2, 2, 4)
    score = psi[episodes.states, episodes.actions]  # [T, N, 4]
    trajectory = episodes.trajectory()
    judge = pgjax.estimators.rewards_to_go if by_time else pgjax.estimators.whole_returns
    G, weight = np.asarray(judge(trajectory, DISCOUNT))[:T], DISCOUNT ** (by_time * np.arange(T))
    i, j, k = (G.reshape((T, *shape, 1)) for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    at_i, at_j, at_k = (score.reshape((T, *shape, 4)) for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    each = (i - (j + k) / 2) * at_i + (j - (i + k) / 2) * at_j + (k - (i + j) / 2) * at_k
    samples = np.einsum("t,tijkd->ijkd", weight, each).reshape(-1, 4) / 3
    _, expected = covariance_by_listing(np.einsum("i,j,k->ijk", p, p, p).reshape(-1), samples)
    covariance = exact.leave_one_out_by_time_covariance if by_time else exact.leave_one_out_covariance
    np.testing.assert_allclose(covariance(mdp, T, policy, theta, 3, DISCOUNT), expected, atol=1e-13)


@pytest.mark.parametrize("discount", [1.0, DISCOUNT])
def test_the_optimum_is_the_best_of_all_deterministic_policies_by_time(problem, discount):
    mdp, _ = problem
    T, states, p, r = 3, 2, np.asarray(mdp.p), np.asarray(mdp.r)  # the last state is terminal
    assert states == 3 - int(mdp.terminal.sum())
    every = np.array(list(itertools.product([0, 1], repeat=T * states))).reshape(-1, T, states)
    values, expected_reward = np.zeros((T + 1, len(every), 3)), (p * r).sum(-1)
    for t in reversed(range(T)):
        for s in range(states):
            a = every[:, t, s]
            values[t, :, s] = expected_reward[s, a] + discount * (p[s, a] * values[t + 1]).sum(-1)
    optimum = exact.optimal(mdp, T, discount)
    np.testing.assert_allclose(optimum.values[:, :states], values[:T, :, :states].max(1), rtol=1e-12)
    np.testing.assert_allclose(optimum.rho, (values[0] @ mdp.d0).max(), rtol=1e-12)
    np.testing.assert_allclose(optimum.action_values.max(-1), optimum.values, rtol=1e-12)
    for t in range(T):
        follow = values[t + 1].max(0) if t + 1 < T else np.zeros(3)
        by_hand = expected_reward + discount * p @ follow
        np.testing.assert_allclose(optimum.action_values[t, :states], by_hand[:states], rtol=1e-12)


def test_no_policy_exceeds_the_optimum(problem):
    mdp, _ = problem
    best = exact.optimal(mdp, T, DISCOUNT).rho
    policies = jax.nn.softmax(3 * jax.random.normal(jax.random.key(0), (500, 3, 2)))
    found = jax.vmap(lambda f: exact.expected_return(mdp, T, f, DISCOUNT))(policies)
    assert best - 0.5 < found.max() <= best


def test_the_optimum_of_the_maze_is_its_shortest_path():
    mdp = pgjax.environments.maze_tables()
    assert [float(exact.optimal(mdp, horizon).rho) for horizon in (5, 14, 30)] == [-5, -14, -14]


def test_mean_values_are_what_regression_on_many_episodes_comes_to(problem, listed):
    mdp, theta = problem
    episodes, probability, _ = listed
    solution = exact.solve(mdp, T, exact.probabilities(mdp, POLICY, theta), DISCOUNT)
    to_go = np.asarray(pgjax.estimators.rewards_to_go(episodes.trajectory(), DISCOUNT))[:T]
    for s in (0, 1):
        weight = probability * np.asarray(episodes.running & (episodes.states == s))
        np.testing.assert_allclose(solution.mean_values[s], (weight * to_go).sum() / weight.sum(), rtol=1e-10)
        for a in (0, 1):
            taken = weight * np.asarray(episodes.actions == a)
            mean = (taken * to_go).sum() / taken.sum()
            np.testing.assert_allclose(solution.mean_action_values[s, a], mean, rtol=1e-10)


def test_tables_of_single_precision_are_promoted(problem):
    mdp, theta = problem
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, mdp)
    f = exact.probabilities(mdp, POLICY, theta)
    assert exact.solve(single, T, f).rho.dtype == exact.expected_return(single, T, f).dtype == jnp.float64
    np.testing.assert_allclose(exact.solve(single, T, f).rho, exact.solve(mdp, T, f).rho, rtol=1e-6)
    exact.mean_and_covariance(single, T, POLICY, theta, exact.reward_to_go_estimator(single, T))


def test_return_variances_are_those_over_every_episode(problem, listed):
    mdp, theta = problem
    episodes, probability, _ = listed
    G = np.asarray(pgjax.estimators.rewards_to_go(episodes.trajectory(), DISCOUNT))[:T]
    mean, variance = exact.return_variances(mdp, T, jax.nn.softmax(theta), DISCOUNT)
    np.testing.assert_allclose(mean, G @ probability, atol=1e-14)
    np.testing.assert_allclose(variance, G**2 @ probability - (G @ probability) ** 2, atol=1e-13)


def test_variance_on_the_maze_falls_as_the_lecture_says():
    mdp = pgjax.environments.maze_tables()
    theta = jnp.zeros(mdp.p.shape[:2])
    policy, horizon = pgjax.tabular(*theta.shape), 30

    @jax.jit
    def variances(theta):
        solution = exact.solve(mdp, horizon, exact.probabilities(mdp, policy, theta))
        estimators = {
            "G_1": exact.whole_episode_estimator(mdp, horizon),
            "G_1 − ρ": exact.whole_episode_estimator(mdp, horizon, 1.0, solution.rho),
            "G_t": exact.reward_to_go_estimator(mdp, horizon),
            "G_t − v": exact.reward_to_go_estimator(mdp, horizon, 1.0, solution.values),
        }
        return {
            name: jnp.trace(exact.mean_and_covariance(mdp, horizon, policy, theta, estimator)[1])
            for name, estimator in estimators.items()
        }

    found = {name: float(value) for name, value in variances(theta).items()}
    assert found["G_1"] > found["G_t"] > found["G_1 − ρ"] > found["G_t − v"] > 0


def test_what_cannot_be_computed_is_refused_in_words(problem):
    mdp, _ = problem
    with pytest.raises(
        pgjax.InputError, match=r"at most 1000000 episodes to list, got 3 · \(2 · 3\)\^8, about 10\^6.7"
    ):
        exact.every_episode(mdp, 8)
    with pytest.raises(pgjax.InputError, match=r"about 10\^"):
        exact.every_episode(mdp, np.int64(10**6))
    with pytest.raises(pgjax.InputError, match="estimator for the horizon 2, got one for 4"):
        exact.moments(mdp, 2, jnp.ones((3, 2)) / 2, exact.reward_to_go_estimator(mdp, 4))
    with pytest.raises(pgjax.InputError, match=r"table of shape \[S, A\] = \(3, 2\), got \(3, 3\)"):
        exact.solve(mdp, 2, jnp.ones((3, 3)) / 3)
    with pytest.raises(pgjax.InputError, match="policy with 2 actions, got one with 3"):
        exact.gradient(mdp, 2, pgjax.tabular(3, 3), jnp.zeros((3, 3)))
    with pytest.raises(pgjax.InputError, match="horizon of 1 or more steps, got 0"):
        exact.solve(mdp, 0, jnp.ones((3, 2)) / 2)
    with pytest.raises(pgjax.InputError, match="horizon of 1 or more steps, got 0"):
        exact.optimal(mdp, 0)
    with pytest.raises(
        pgjax.InputError, match=r"baseline of shape \[\], \[S\] = \(3,\) or \[T, S\] = \(4, 3\), got \(2,\)"
    ):
        exact.reward_to_go_estimator(mdp, T, 1.0, jnp.zeros(2))
    with pytest.raises(pgjax.InputError, match="2 or more episodes an update for a leave-one-out baseline, got 1"):
        exact.leave_one_out_covariance(mdp, T, POLICY, jnp.zeros((3, 2)), 1)
