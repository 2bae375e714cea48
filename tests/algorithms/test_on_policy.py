import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from tests.cases import BASELINES, CREDITS, PREDICTING, counting, ending_in, random_mdp, remembering

MDP = random_mdp(seed=3, stochastic_reward=True)
HORIZON = 6
FINITE = pgjax.finite(MDP, HORIZON)
TABLE = pgjax.tabular(3, 2)
CARTPOLE = pgjax.from_gymnax("CartPole-v1")


def estimates(algorithm, n, theta, **hyperparameters):
    """N independent estimates of the gradient at theta, and the metrics: one sgd step of size 1 each."""
    numbers = algorithm.hyperparameters(learning_rate=1.0, **hyperparameters)

    def one(key):
        state, metrics = algorithm.update(algorithm.init(key, numbers)._replace(params=theta))
        return state.params - theta, metrics

    return jax.jit(jax.vmap(one))(pgjax.run_keys(1, range(n)))


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("baseline", BASELINES)
def test_any_credit_goes_with_any_baseline_that_makes_sense(credit, baseline):
    def build():
        return pgjax.reinforce(FINITE, TABLE, slots=2, credit=CREDITS[credit](), baseline=BASELINES[baseline]())

    if CREDITS[credit]().bootstraps and baseline not in PREDICTING:
        with pytest.raises(pgjax.InputError, match=r"predicts v\(X_t\) .* got one that predicts nothing"):
            build()
        return
    algorithm = build()
    state = jax.eval_shape(lambda key: algorithm.init(key, algorithm.hyperparameters()), jax.random.key(0))
    following, metrics = jax.eval_shape(algorithm.update, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(following, state)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(metrics))


def test_values_of_each_action_are_refused_where_actions_are_continuous():
    pendulum = pgjax.from_gymnax("Pendulum-v1")
    with pytest.raises(pgjax.InputError, match=r"discrete actions .* got Pendulum-v1 with actions of Box"):
        pgjax.policies.action_value_for(pendulum)
    value = pgjax.policies.mlp_value(pendulum.observation_space, 3)
    with pytest.raises(pgjax.InputError, match=r"discrete actions .* got Pendulum-v1 with actions of Box"):
        pgjax.reinforce(pendulum, pgjax.policy_for(pendulum), baseline=pgjax.estimators.expected_policy_gradient(value))
    pgjax.reinforce(pendulum, pgjax.policy_for(pendulum), baseline=pgjax.learned_value(pgjax.value_for(pendulum)))


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (pgjax.learned_value(pgjax.policies.tabular_value(3, 2)), r"state values .* shape \(7, 2\), got \(7, 2, 2\)"),
        (
            pgjax.estimators.expected_policy_gradient(pgjax.policies.tabular_value(3)),
            r"action values .* shape \(7, 2, 2\), got \(7, 2\)",
        ),
        (pgjax.learned_action_value(pgjax.policies.tabular_value(3, 1)), r"shape \(7, 2, 2\), got \(7, 2, 1\)"),
    ],
)
def test_predictions_of_another_shape_are_refused(baseline, message):
    algorithm = pgjax.reinforce(FINITE, TABLE, slots=2, baseline=baseline)
    with pytest.raises(pgjax.InputError, match=message):
        algorithm.update(algorithm.init(jax.random.key(0), algorithm.hyperparameters()))


def test_a_baseline_does_not_predict_in_two_ways():
    both = pgjax.estimators.given_values(jnp.zeros(3))._replace(action_values=lambda *_: jnp.zeros(()))
    with pytest.raises(pgjax.InputError, match="got one that predicts both"):
        pgjax.reinforce(FINITE, TABLE, baseline=both)


def test_a_gaussian_policy_has_a_critic_and_every_number_can_be_swept():
    environment = pgjax.from_gymnax("Pendulum-v1", max_steps_in_episode=20)
    value = pgjax.learned_value(pgjax.policies.mlp_value(environment.observation_space, hidden=(8,)))
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (8,))
    algorithm = pgjax.reinforce(
        environment, policy, slots=2, min_steps_per_slot=30, credit=pgjax.lambda_return(), baseline=value
    )
    names = ("discount", "trace_decay", "value_learning_rate", "baseline_decay")

    def three_updates(values):
        numbers = algorithm.hyperparameters(**dict(zip(names, values, strict=True)))
        state = algorithm.init(jax.random.key(0), numbers)
        return jax.lax.fori_loop(0, 3, lambda i, state: algorithm.update(state)[0], state).params

    points = jnp.array([[0.9, 0.9, 0.01, 0.9], [0, 0.9, 0.01, 0.9], [0.9, 0, 0.01, 0.9], [0.9, 0.9, 0.1, 0.9],
                        [0.9, 0.9, 0.01, 0.1]])  # fmt: skip
    params = jax.jit(jax.vmap(three_updates))(points)
    flat = np.concatenate([np.asarray(leaf).reshape(5, -1) for leaf in jax.tree.leaves(params)], axis=1)
    assert np.isfinite(flat).all()
    for other in flat[1:]:
        assert np.abs(other - flat[0]).max() > 1e-6


def test_an_update_ascends_the_estimate():
    baseline = pgjax.learned_action_value(pgjax.policies.tabular_value(3, 2))
    credit = pgjax.estimators.discounted_lambda_return()
    algorithm = pgjax.reinforce(FINITE, TABLE, slots=4, credit=credit, baseline=baseline, optimizer=optax.sgd)
    numbers = algorithm.hyperparameters(learning_rate=0.5, discount=0.9, entropy_coefficient=0.1)
    state, _ = algorithm.update(algorithm.init(jax.random.key(0), numbers))
    trajectory = pgjax.collect(FINITE, TABLE, slots=4)(jax.random.fold_in(state.key, 1), state.params, MDP)
    estimate = pgjax.policy_gradient(FINITE, TABLE, credit, baseline)(state.params, state.baseline, trajectory, numbers)
    following, metrics = algorithm.update(state)
    np.testing.assert_allclose(following.params, state.params + 0.5 * estimate.gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, optax.tree.norm(estimate.gradient), rtol=1e-5)
    assert float(metrics.gradient_norm) > 0.01
    chex.assert_trees_all_close(
        following.baseline, baseline.update(state.baseline, trajectory, estimate.returns), rtol=1e-5, atol=1e-6
    )


def seen_as(factor):
    """A baseline that predicts v(X) = factor · X of a scalar observation."""
    return pgjax.Baseline(
        lambda *_: (), lambda state, trajectory, returns, v: v, lambda *_: (),
        state_values=lambda state, trajectory: factor * trajectory.observation[..., 0],
    )  # fmt: skip


@pytest.mark.parametrize("steps", [0, 9])
def test_a_bootstrap_sees_the_final_observation_of_a_truncated_episode(steps):
    # Rewards 1, 2, 3, 4; the final observation is 4, worth 40. The episode that terminates there is worth no more.
    for limit, horizon, beyond in ((100, 4, 40), (4, 100, 0)):
        environment = counting(limit, horizon)
        policy = pgjax.mlp(environment.observation_space, environment.action_space, (4,))
        trajectory = pgjax.collect(environment, policy, 2, steps, chunk=4)(
            jax.random.key(0), policy.init(jax.random.key(1)), ()
        )
        algorithm = pgjax.reinforce(environment, policy)
        numbers = algorithm.hyperparameters(trace_decay=1.0)
        estimator = pgjax.policy_gradient(environment, policy, pgjax.lambda_return(), seen_as(10))
        returns = estimator(policy.init(jax.random.key(1)), (), trajectory, numbers).returns
        for begin, slot in np.argwhere(np.asarray(trajectory.first)):
            np.testing.assert_allclose(returns[begin : begin + 4, slot], beyond + np.array([10, 9, 7, 4]))


@pytest.mark.parametrize(
    ("credit", "make"),
    [
        (pgjax.reward_to_go, lambda environment: pgjax.learned_value(pgjax.value_for(environment))),
        (pgjax.lambda_return, lambda environment: pgjax.learned_value(pgjax.value_for(environment))),
        (
            pgjax.lambda_return,
            lambda environment: pgjax.estimators.expected_policy_gradient(pgjax.policies.action_value_for(environment)),
        ),
    ],
    ids=["learned value", "actor-critic", "expected policy gradient"],
)
def test_critics_learn_the_maze(credit, make):
    environment = pgjax.maze("#####\n#S..#\n#.#.#\n#..E#\n#####", horizon=50)
    algorithm = pgjax.reinforce(
        environment, pgjax.policy_for(environment), slots=8, credit=credit(), baseline=make(environment)
    )
    run = jax.jit(jax.vmap(pgjax.train(algorithm, 100), (0, None)))
    numbers = algorithm.hyperparameters(learning_rate=0.1, value_learning_rate=0.1)
    _, curves = run(pgjax.run_keys(0, range(8)), numbers)
    assert np.all(curves.episode_return[:, -1] > -6)  # the shortest way is 4 steps


def test_critics_go_with_a_policy_that_remembers():
    environment = counting(limit=100, horizon=6)
    value = pgjax.policies.mlp_value(environment.observation_space, 2, (4,))
    algorithm = pgjax.reinforce(
        environment, remembering(), slots=4, credit=pgjax.lambda_return(), baseline=pgjax.learned_action_value(value)
    )
    state, metrics = jax.jit(algorithm.update)(algorithm.init(jax.random.key(0), algorithm.hyperparameters()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.baseline, metrics)))
    assert float(metrics.gradient_norm) > 0


def test_the_lecture_by_hand():
    """Replay three iterations of REINFORCE(θ, η, β, max_iters) in NumPy, on the episodes it collected."""
    eta, beta = 0.3, 0.6
    algorithm = pgjax.reinforce(
        FINITE, TABLE, slots=1, credit=pgjax.whole_episode(), baseline=pgjax.running_average(), optimizer=optax.sgd
    )
    state = algorithm.init(jax.random.key(5), algorithm.hyperparameters(learning_rate=eta, baseline_decay=beta))
    collect_episode = jax.jit(pgjax.collect(FINITE, TABLE, slots=1))
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
    algorithm = pgjax.reinforce(silent, TABLE, slots=4, optimizer=optax.sgd)
    found, metrics = estimates(algorithm, 3, theta, entropy_coefficient=0.5)
    entropy = jax.grad(lambda theta: pgjax.policies.Categorical(theta).entropy().sum())(theta)
    for i in range(3):
        state = algorithm.init(pgjax.run_keys(1, [i])[0], algorithm.hyperparameters())
        run = pgjax.collect(silent, TABLE, slots=4)
        trajectory = run(jax.random.fold_in(state.key, 0), theta, silent.params)
        visits = np.bincount(np.asarray(trajectory.observation)[np.asarray(trajectory.mask)], minlength=3)
        np.testing.assert_allclose(found[i], 0.5 / 4 * visits[:, None] * entropy, atol=1e-6)
        mean = (visits * pgjax.policies.Categorical(theta).entropy()).sum() / visits.sum()
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
            environment, each, slots=3, chunk=8, baseline=pgjax.no_baseline(), optimizer=optax.sgd
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
    algorithm = pgjax.reinforce(paying, remembering(), slots=8)
    run = pgjax.train(algorithm, iterations=40)
    _, curves = jax.jit(jax.vmap(run, (0, None)))(
        pgjax.run_keys(0, range(8)), algorithm.hyperparameters(learning_rate=0.1)
    )
    start, end = curves.episode_return[:, 0].mean(), curves.episode_return[:, -1].mean()
    assert end > 4 > 3 > start  # at most 4.5: nothing is known at the first step


def test_seed_17_alone_is_seed_17_among_1000():
    algorithm = pgjax.reinforce(
        CARTPOLE, pgjax.mlp(CARTPOLE.observation_space, CARTPOLE.action_space, (16, 16)), slots=2
    )
    numbers = algorithm.hyperparameters()

    def one_update(key):
        return algorithm.update(algorithm.init(key, numbers))

    alone, metrics_alone = jax.jit(one_update)(pgjax.run_keys(0, [17])[0])
    among, metrics_among = jax.jit(jax.vmap(one_update))(pgjax.run_keys(0, range(1000)))
    chex.assert_trees_all_close(alone.params, jax.tree.map(lambda x: x[17], among.params), rtol=1e-5, atol=1e-5)
    one_of_many = jax.tree.map(lambda x: x[17], metrics_among)
    assert metrics_alone.computed <= one_of_many.computed  # padding is for the longest episode of all
    chex.assert_trees_all_close(metrics_alone, one_of_many._replace(computed=metrics_alone.computed), rtol=1e-5)


def test_learning_rates_and_keys_share_one_compilation():
    algorithm = pgjax.reinforce(FINITE, TABLE, slots=2)
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
    algorithm = pgjax.reinforce(FINITE, TABLE, slots=64)
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
    with pytest.raises(pgjax.InputError, match="iterations to be an integer of 1 or more, got 0"):
        pgjax.train(pgjax.reinforce(FINITE, TABLE), iterations=0)


def masking():
    """A policy that excludes, by −∞, every action where what it observes is negative: there nothing is legal."""

    def apply(theta, x):
        legal = jnp.broadcast_to(x >= 0, (*x.shape[:-1], 2))
        return pgjax.policies.Categorical(jnp.where(legal, x * jnp.broadcast_to(theta, (*x.shape[:-1], 2)), -jnp.inf))

    return pgjax.memoryless(lambda key: jax.random.normal(key, (1, 2))[0], apply)


def remembered_value():
    """V(X_t) = θ · the sum of all observations so far, which is differentiated over whole episodes."""

    def unroll(theta, trajectory):
        return theta * jnp.cumsum(trajectory.observation[..., 0], axis=0)

    return pgjax.ValueFunction(lambda key: jnp.ones(()), unroll, memoryless=False)


WAYS = {
    "stored": (masking, {"slots": 4}),
    "stored, with a budget of steps": (masking, {"slots": 2, "min_steps_per_slot": 5}),
    "streaming": (masking, {"slots": 1, "baseline": pgjax.running_average()}),
    "with memory": (remembering, {"slots": 4}),
    "a value of whole episodes": (
        masking,
        {"slots": 4, "credit": pgjax.lambda_return(), "baseline": pgjax.learned_value(remembered_value())},
    ),
}


@pytest.mark.parametrize("after", [jnp.nan, -1.0])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_observed_after_the_end_does_not_matter(way, after):
    # NaN, as 0/0 is, or −1, where the policy finds no action legal.
    make, options = WAYS[way]
    policy, ended = make(), []
    for seen in (after, 0.3):
        algorithm = pgjax.reinforce(ending_in(seen), policy, **options)
        run = jax.jit(pgjax.train(algorithm, 3))
        hyperparameters = algorithm.hyperparameters(learning_rate=0.1, entropy_coefficient=0.1)
        state, curves = run(jax.random.key(0), hyperparameters)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.baseline, curves)))
        ended.append((state.params, state.baseline, curves))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *ended)
    assert curves.gradient_norm.min() > 0


def recording():
    """An optimizer that changes nothing and remembers the value that it is given."""

    def update(gradient, state, params=None, *, value, **more):
        return jax.tree.map(jnp.zeros_like, gradient), value

    return optax.GradientTransformationExtraArgs(lambda params: jnp.zeros(()), update)


@pytest.mark.parametrize("slots", [1, 4])
def test_an_optimizer_that_wants_the_value_gets_minus_the_mean_return(slots):
    algorithm = pgjax.reinforce(
        counting(),
        remembering() if slots > 1 else masking(),
        slots=slots,
        baseline=pgjax.running_average(),
        optimizer=lambda eta: recording(),
    )
    state, curves = jax.jit(pgjax.train(algorithm, 1))(jax.random.key(0), algorithm.hyperparameters())
    assert float(state.optimizer) == -15 == -float(curves.episode_return[0])


@pytest.mark.parametrize(
    "optimizer",
    [lambda eta: optax.chain(optax.adam(eta), optax.contrib.reduce_on_plateau()), lambda eta: optax.polyak_sgd(eta)],
)
def test_optimizers_that_look_at_the_value_can_be_used(optimizer):
    algorithm = pgjax.reinforce(FINITE, TABLE, slots=2, optimizer=optimizer)
    state, _ = jax.jit(pgjax.train(algorithm, 2))(jax.random.key(0), algorithm.hyperparameters())
    assert np.isfinite(state.params).all()


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda eta: optax.chain(optax.sgd(eta), optax.scale_by_backtracking_linesearch(max_backtracking_steps=3)),
        lambda eta: optax.lookahead(optax.sgd(eta), sync_period=2, slow_step_size=0.5),
    ],
)
def test_optimizers_that_need_more_are_refused(optimizer):
    sentence = "expected an optimizer whose step needs the gradient, the parameters and the value alone"
    with pytest.raises(pgjax.InputError, match=sentence):
        pgjax.reinforce(FINITE, TABLE, slots=2, optimizer=optimizer)
    with pytest.raises(pgjax.InputError, match=sentence):
        pgjax.learned_value(pgjax.policies.tabular_value(3), optimizer=optimizer)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": jnp.full(2, 0.1)}, r"expected learning_rate to be one number, got an array of shape \(2,\)"),
        ({"discount": np.ones((4, 1))}, r"expected discount to be one number, got an array of shape \(4, 1\)"),
        ({"learning_rate": True}, "expected learning_rate to be one number, got True"),
        ({"learning_rate": "fast"}, "expected learning_rate to be one number, got 'fast'"),
        ({"learning_rate": -1.0}, r"expected a finite learning_rate of 0 or more, got -1.0"),
        ({"value_learning_rate": -1}, "expected a finite value_learning_rate of 0 or more, got -1"),
        ({"learning_rate": float("inf")}, "expected a finite learning_rate of 0 or more, got inf"),
        ({"discount": 1.01}, "expected a finite discount from 0 to 1, got 1.01"),
        ({"trace_decay": -0.1}, "expected a finite trace_decay from 0 to 1, got -0.1"),
        ({"baseline_decay": np.float32(2)}, "expected a finite baseline_decay from 0 to 1, got 2.0"),
        ({"entropy_coefficient": float("nan")}, "expected a finite entropy_coefficient, got nan"),
        ({"learning_rat": 0.1}, "expected the name of a hyper-parameter, got 'learning_rat'; there are learning_rate"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(values, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.reinforce(FINITE, TABLE, slots=2).hyperparameters(**values)


@pytest.mark.parametrize(
    ("credit", "baseline", "message"),
    [
        (
            pgjax.reward_to_go()._replace(returns=lambda trajectory, *_: trajectory.reward[:1]),
            pgjax.no_baseline(),
            r"the returns of the credit to be of shape \(7, 2\), got \(1, 2\)",
        ),
        (
            pgjax.reward_to_go()._replace(weight=lambda trajectory, *_: 1.0),
            pgjax.no_baseline(),
            r"the weights of the credit to be of shape \(7, 2\), got \(\)",
        ),
        (
            pgjax.reward_to_go(),
            pgjax.no_baseline()._replace(values=lambda state, trajectory, *_: jnp.zeros(2), online=False),
            r"the values of the baseline to be of shape \(7, 2\), got \(2,\)",
        ),
    ],
)
def test_what_a_credit_and_a_baseline_return_is_not_broadcast(credit, baseline, message):
    algorithm = pgjax.reinforce(FINITE, TABLE, slots=2, credit=credit, baseline=baseline)
    with pytest.raises(pgjax.InputError, match=message):
        jax.eval_shape(algorithm.update, algorithm.init(jax.random.key(0), algorithm.hyperparameters()))


@pytest.mark.parametrize("slots", [1, 2])
def test_no_key_is_used_twice(slots):
    with jax.debug_key_reuse(True):
        algorithm = pgjax.reinforce(FINITE, TABLE, slots=slots, baseline=pgjax.running_average())
        state, _ = jax.jit(pgjax.train(algorithm, 2))(jax.random.key(0), algorithm.hyperparameters())
    assert int(state.iteration) == 2
