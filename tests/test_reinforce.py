import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from tests.cases import BASELINES, CREDITS, counting, random_mdp, remembering

MDP = random_mdp(seed=3, stochastic_reward=True)
HORIZON = 6
FINITE = pgjax.finite(MDP, HORIZON)
TABLE = pgjax.tabular(3, 2)
CARTPOLE = pgjax.from_gymnax("CartPole-v1")


def estimates(algorithm, n, theta, **hyperparameters):
    """Return n independent estimates of the gradient at theta, and the metrics: one sgd step of size 1 each."""
    numbers = algorithm.hyperparameters(learning_rate=1.0, **hyperparameters)

    def one(key):
        state, metrics = algorithm.update(algorithm.init(key, numbers)._replace(params=theta))
        return state.params - theta, metrics

    return jax.jit(jax.vmap(one))(pgjax.run_keys(1, range(n)))


def z_scores(samples):
    """Return the mean of samples [n, ...] in units of its standard error."""
    samples = np.asarray(samples, np.float64).reshape(len(samples), -1)
    return samples.mean(0) / (samples.std(0) / np.sqrt(len(samples)) + 1e-12)


UNBIASED = [
    (credit, baseline, steps, discount)
    for credit in CREDITS
    for baseline in BASELINES
    for steps, discount in ((0, 1.0), (12, 1.0), (0, 0.8))
    if not (credit == "reward_to_go" and discount < 1)  # follows no gradient exactly
]


@pytest.mark.parametrize(("credit", "baseline", "steps", "discount"), UNBIASED)
def test_the_estimate_is_unbiased(credit, baseline, steps, discount):
    # Six components in each of 32 cases, |z| < 5: some test fails by chance with probability below 2e-4.
    theta = jnp.array([[0.5, -0.5], [1.0, 0.0], [0.0, 0.0]])
    algorithm = pgjax.reinforce(
        FINITE, TABLE, episodes=8, steps=steps, credit=CREDITS[credit], baseline=BASELINES[baseline](), chunk=4,
        optimizer=optax.sgd,
    )  # fmt: skip
    found, metrics = estimates(algorithm, 4000, theta, discount=discount)
    exact = jax.grad(lambda theta: exact_return(MDP, HORIZON, theta, discount))(theta)
    episodes_per_slot = metrics.episodes[:, None, None] / 8  # Wald: E[estimate] = E[episodes of a slot] ∇ρ
    assert (metrics.episodes.std() > 0) == (steps > 0)
    z = z_scores(found - episodes_per_slot * exact[None])
    assert np.abs(z).max() < 5


def test_a_biased_estimate_is_caught():
    theta = jnp.array([[0.5, -0.5], [1.0, 0.0], [0.0, 0.0]])
    algorithm = pgjax.reinforce(FINITE, TABLE, episodes=8, optimizer=optax.sgd)
    found, _ = estimates(algorithm, 4000, theta, discount=0.8)  # leaves out γ^{t−1}
    exact = jax.grad(lambda theta: exact_return(MDP, HORIZON, theta, 0.8))(theta)
    assert np.abs(z_scores(found - exact[None])).max() > 8


def test_the_lecture_by_hand():
    """Replay three iterations of REINFORCE(θ, η, β, max_iters) in NumPy, on the episodes it collected."""
    eta, beta = 0.3, 0.6
    algorithm = pgjax.reinforce(
        FINITE, TABLE, episodes=1, credit=pgjax.whole_episode(), baseline=pgjax.running_average(), optimizer=optax.sgd
    )
    state = algorithm.init(jax.random.key(5), algorithm.hyperparameters(learning_rate=eta, baseline_decay=beta))
    collect_episode = jax.jit(pgjax.collect(FINITE, TABLE, episodes=1))
    theta, rho_hat = np.asarray(state.params, np.float64), 0.0
    update = jax.jit(algorithm.update)
    for itr in range(3):
        episode = collect_episode(jax.random.fold_in(state.key, itr), jnp.asarray(theta, jnp.float32), MDP)
        T = int(episode.mask.sum())
        states, actions, rewards = (np.asarray(x)[:T, 0] for x in (episode.observation, episode.action, episode.reward))
        G_1 = rewards.sum()
        gradient = np.zeros_like(theta)
        for x, a in zip(states, actions, strict=True):
            f = np.exp(theta[x]) / np.exp(theta[x]).sum()
            gradient[x] += np.eye(2)[a] - f
        theta = theta + eta * (G_1 - rho_hat) * gradient
        rho_hat = beta * rho_hat + (1 - beta) * G_1

        state, metrics = update(state)
        np.testing.assert_allclose(state.params, theta, atol=1e-5)
        np.testing.assert_allclose(state.baseline.rho_hat, rho_hat, atol=1e-5)
        np.testing.assert_allclose(metrics.episode_return, G_1, atol=1e-5)
        assert (float(metrics.episodes), float(metrics.steps)) == (1, T)
    assert np.abs(theta).max() > 0.05


def test_the_entropy_term_has_its_gradient():
    # At θ = 0 with rewards of 0 nothing pulls but the entropy; away from it, ∇H = Σ_t ∇H(f(X_t)) over visited states.
    silent = pgjax.finite(MDP._replace(r=jnp.zeros_like(MDP.r)), HORIZON)
    theta = jnp.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    algorithm = pgjax.reinforce(silent, TABLE, episodes=4, optimizer=optax.sgd)
    found, metrics = estimates(algorithm, 3, theta, entropy_coefficient=0.5)
    entropy = jax.grad(lambda theta: pgjax.Categorical(theta).entropy().sum())(theta)
    for i in range(3):
        state = algorithm.init(pgjax.run_keys(1, [i])[0], algorithm.hyperparameters())
        run = pgjax.collect(silent, TABLE, episodes=4)
        trajectory = run(jax.random.fold_in(state.key, 0), theta, silent.params)
        visits = np.bincount(np.asarray(trajectory.observation)[np.asarray(trajectory.mask)], minlength=3)
        np.testing.assert_allclose(found[i], 0.5 / 4 * visits[:, None] * entropy, atol=1e-6)
        mean = (visits * pgjax.Categorical(theta).entropy()).sum() / visits.sum()
        np.testing.assert_allclose(metrics.entropy[i], mean, rtol=1e-5)


def test_chunks_do_not_matter_to_the_gradient():
    # A policy with memory is differentiated whole; the same policy, with a memory it ignores, must give the same as
    # in chunks of 8 rows. (In chunks of another size it draws other noise.)
    environment = counting(limit=11, horizon=24)
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (4,))
    remembers = policy._replace(memory=lambda episodes: jnp.zeros((episodes, 1)))
    params = []
    for each in (policy, remembers):
        algorithm = pgjax.reinforce(
            environment, each, episodes=3, chunk=8, baseline=pgjax.no_baseline(), optimizer=optax.sgd
        )
        first = algorithm.init(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.1))
        params.append(jax.jit(algorithm.update)(first)[0].params)
        assert optax.tree.norm(optax.tree.sub(params[-1], first.params)) > 1e-3
    chex.assert_trees_all_close(*params, rtol=1e-5, atol=1e-6)


def test_a_policy_with_memory_learns():
    environment = counting(limit=5)
    paying = environment._replace(
        step=lambda key, state, action, params: (
            lambda moved: (moved[0], moved[1]._replace(reward=action.astype(float)))
        )(environment.step(key, state, action, params))
    )
    algorithm = pgjax.reinforce(paying, remembering(), episodes=8)
    run = pgjax.train(algorithm, iterations=40)
    _, curves = jax.jit(jax.vmap(run, (0, None)))(
        pgjax.run_keys(0, range(8)), algorithm.hyperparameters(learning_rate=0.1)
    )
    start, end = curves.episode_return[:, 0].mean(), curves.episode_return[:, -1].mean()
    assert end > 4 > 3 > start  # at most 4.5: nothing is known at the first step


def test_seed_17_alone_is_seed_17_among_1000():
    algorithm = pgjax.reinforce(
        CARTPOLE, pgjax.mlp(CARTPOLE.observation_space, CARTPOLE.action_space, (16, 16)), episodes=2
    )
    numbers = algorithm.hyperparameters()

    def one_update(key):
        return algorithm.update(algorithm.init(key, numbers))

    alone, metrics_alone = jax.jit(one_update)(pgjax.run_keys(0, [17])[0])
    among, metrics_among = jax.jit(jax.vmap(one_update))(pgjax.run_keys(0, range(1000)))
    chex.assert_trees_all_close(alone.params, jax.tree.map(lambda x: x[17], among.params), rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(metrics_alone, jax.tree.map(lambda x: x[17], metrics_among), rtol=1e-5)


def test_learning_rates_and_keys_share_one_compilation():
    algorithm = pgjax.reinforce(FINITE, TABLE, episodes=2)
    run = pgjax.train(algorithm, iterations=3)
    counted = jax.jit(jax.vmap(chex.assert_max_traces(run, n=1), (0, None)))
    endings = []
    for study, learning_rate in ((0, 0.1), (1, 0.1), (0, 0.7)):
        numbers = algorithm.hyperparameters(learning_rate=learning_rate, discount=0.9, entropy_coefficient=0.01)
        state, _ = counted(pgjax.run_keys(study, range(4)), numbers)
        endings.append(np.asarray(state.params))
    assert not np.allclose(endings[0], endings[1])
    assert not np.allclose(endings[0], endings[2])


def test_environment_parameters_can_be_swept_by_vmap():
    algorithm = pgjax.reinforce(FINITE, TABLE, episodes=64)
    scales = jnp.array([1.0, 10.0])

    def run(scale):
        numbers = algorithm.hyperparameters(environment=MDP._replace(r=MDP.r * scale))
        return algorithm.update(algorithm.init(jax.random.key(0), numbers))[1].episode_return

    small, large = jax.jit(jax.vmap(run))(scales)
    np.testing.assert_allclose(large, 10 * small, rtol=1e-5)


def test_learns_the_maze():
    environment = pgjax.maze("#####\n#S..#\n#.#.#\n#..E#\n#####", horizon=50)
    algorithm = pgjax.reinforce(environment, pgjax.policy_for(environment))
    run = jax.jit(jax.vmap(pgjax.train(algorithm, 100), (0, None)))
    _, curves = run(pgjax.run_keys(0, range(8)), algorithm.hyperparameters(learning_rate=0.1))
    assert np.all(curves.episode_return[:, -1] > -5.5)  # the shortest way is 4 steps
    assert curves.entropy[:, -1].mean() < curves.entropy[:, 0].mean()


def test_no_iterations_are_refused():
    with pytest.raises(pgjax.InputError, match="1 or more iterations, got 0"):
        pgjax.train(pgjax.reinforce(FINITE, TABLE), iterations=0)
