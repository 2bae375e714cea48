import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from pgjax.descent import descend
from pgjax.environments.spaces import Masked
from pgjax.estimators import normalized_returns
from pgjax.moments import Moments, deviation, merged, moments_of, no_moments
from pgjax.policies import normalized, normalized_value
from tests.cases import counting, in_parts, masked_finite, numbers

KEY = jax.random.key(0)


def drifting(horizon=4):
    """An environment that shows two numbers of very different size, and pays for the first action."""

    def reset(key, params):
        x = jnp.array([500.0, 0.001]) + jnp.array([100.0, 0.001]) * jax.random.normal(key, (2,))
        return x, x

    def step(key, x, action, params):
        return x + jnp.array([30.0, 0.0]), pgjax.Step(x + jnp.array([30.0, 0.0]), 1.0 - action, x[0] > 600)

    space = pgjax.Box(-jnp.inf, jnp.inf, (2,))
    return pgjax.Environment(reset, step, space, pgjax.Discrete(2), horizon, name="drifting")


ENVIRONMENT = drifting()
SPACE = ENVIRONMENT.observation_space
POLICY = normalized(pgjax.mlp(SPACE, pgjax.Discrete(2), (4,)), SPACE)


def real(trajectories):
    """The observations of the real steps of some trajectories, [n, 2] in float64."""
    return np.concatenate([np.asarray(each.observation, float)[np.asarray(each.mask)] for each in trajectories])


def assert_moments(moments, seen):
    """Assert that moments are those of the rows seen, as NumPy has them."""
    assert moments.number == len(seen)
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation(moments), np.where(seen.std(0) > 0, seen.std(0), 1), rtol=1e-4)


def test_merged_moments_are_those_of_all_values():
    rng = np.random.default_rng(0)
    values, mask = 1000 + rng.normal(size=(3, 6, 5, 2)), rng.random((3, 6, 5)) < 0.6
    mask[2] = False  # a batch in which nothing is real
    moments = no_moments((2,))
    for x, m in zip(values, mask, strict=True):
        x = np.where(m[..., None], x, np.nan)
        moments = merged(moments, moments_of(jnp.asarray(x, jnp.float32), jnp.asarray(m)))
    assert_moments(moments, values[mask])
    np.testing.assert_array_equal(deviation(no_moments((2,))), 1)
    constant = moments_of(jnp.full((4, 1), 3.0), jnp.ones((4, 1), bool))
    assert (constant.mean, deviation(constant)) == (3, 1)


def test_a_run_knows_the_moments_of_all_its_real_steps_and_differentiates_what_it_played():
    algorithm = pgjax.reinforce(ENVIRONMENT, POLICY, slots=3)
    rollout = jax.jit(pgjax.collect(ENVIRONMENT, POLICY, slots=3))
    state = algorithm.init(KEY, algorithm.hyperparameters(learning_rate=0.1))
    update, seen = jax.jit(algorithm.update), []
    for i in range(3):
        seen.append(rollout(jax.random.fold_in(state.key, i), state.params, ()))
        mask = seen[-1].mask
        again = POLICY.unroll(state.params, seen[-1]).log_prob(seen[-1].action)
        np.testing.assert_allclose(jnp.where(mask, again, 0), seen[-1].log_prob, atol=1e-6)
        state, _ = update(state)
        assert_moments(state.params.seen, real(seen))
    assert (~mask).any()  # there was padding
    # The moments after an update are others than those it was collected with.
    later = POLICY.unroll(state.params, seen[-1]).log_prob(seen[-1].action)
    assert np.abs(jnp.where(mask, later - seen[-1].log_prob, 0)).max() > 1e-3


def test_what_is_shown_is_in_units_of_what_was_seen():
    inner = pgjax.memoryless(lambda key: jnp.zeros(()), lambda theta, x: pgjax.policies.Gaussian(x, jnp.zeros_like(x)))
    policy = normalized(inner, SPACE, clip=2.0)
    seen = Moments(jnp.float32(4), jnp.array([10.0, -1.0]), jnp.array([16.0, 4.0]))  # deviations of 2 and 1
    params = policy.init(KEY)._replace(seen=seen)
    x = jnp.array([[12.0, -1.5], [100.0, -100.0]])
    np.testing.assert_allclose(policy.step(params, (), x)[1].mean, [[1, -0.5], [2, -2]], rtol=1e-6)
    np.testing.assert_array_equal(policy.step(policy.init(KEY), (), x[:1])[1].mean, [[2, -1.5]])  # nothing seen yet


def test_each_seed_has_its_own_moments_alone_and_among_others():
    algorithm = pgjax.reinforce(ENVIRONMENT, POLICY, slots=2, min_steps_per_slot=6)
    run = pgjax.train(algorithm, 2)
    state, curves = jax.jit(jax.vmap(run, (0, None)))(pgjax.run_keys(0, range(3)), algorithm.hyperparameters())
    np.testing.assert_array_equal(state.params.seen.number, curves.steps.sum(1))
    assert len(np.unique(state.params.seen.mean[:, 0])) == 3
    alone, _ = jax.jit(run)(pgjax.run_keys(0, [2])[0], algorithm.hyperparameters())
    np.testing.assert_allclose(alone.params.seen.mean, state.params.seen.mean[2], rtol=1e-6)


def test_no_gradient_step_moves_the_moments_whatever_the_optimizer_does():
    params = POLICY.init(KEY)._replace(seen=Moments(jnp.float32(9), jnp.ones(2), jnp.ones(2)))
    decaying = optax.adamw(0.1, weight_decay=0.5)
    moved, _ = descend(decaying, jax.tree.map(jnp.zeros_like, params), decaying.init(params), params, jnp.zeros(()))
    jax.tree.map(np.testing.assert_array_equal, moved.seen, params.seen)
    kernel = ("network", "params", "Dense_0", "kernel")
    before, after = (within(tree.params, kernel) for tree in (params, moved))
    np.testing.assert_allclose(after, 0.95 * before, rtol=1e-6)


def within(tree, path):
    """What a nested dictionary holds at the end of a path."""
    for key in path:
        tree = tree[key]
    return tree


def test_a_recurrent_policy_and_one_of_parts_with_masks_can_be_normalized():
    pgjax.check_policy(normalized(pgjax.recurrent(SPACE, pgjax.Discrete(2), 4, ()), SPACE), ENVIRONMENT)
    environment = in_parts()
    may = jnp.array([[1, 1, 0], [1, 0, 1]], bool)
    masked = pgjax.environments.masked_actions(environment, lambda t, params: may)
    policy = normalized(pgjax.policy_for(masked), masked.observation_space)
    pgjax.check_policy(policy, masked)
    params = policy.init(KEY)
    assert params.seen["image"] == params.seen["turn"] == ()
    trajectory = jax.jit(pgjax.collect(masked, policy, slots=2))(KEY, params, ())
    assert_moments(policy.observe(params, trajectory).seen["pair"][1], np.array([[0, -1], [1, -1], [2, -1]] * 2))
    assert isinstance(trajectory.observation, Masked)


def test_a_critic_has_moments_of_its_own():
    value = normalized_value(pgjax.value_for(ENVIRONMENT, (4,)), SPACE)
    baseline = pgjax.learned_value(value, steps=1)
    algorithm = pgjax.reinforce(ENVIRONMENT, pgjax.random_policy(ENVIRONMENT), slots=3, baseline=baseline)
    state = algorithm.init(KEY, algorithm.hyperparameters())
    trajectory = jax.jit(pgjax.collect(ENVIRONMENT, pgjax.random_policy(ENVIRONMENT), slots=3))(
        jax.random.fold_in(state.key, 0), (), ()
    )
    state, _ = jax.jit(algorithm.update)(state)
    assert_moments(state.baseline.params.seen, real([trajectory]))


def test_an_imitator_knows_what_its_expert_saw():
    expert = pgjax.imitation.scripted(lambda x: (x[..., 0] > 500).astype(jnp.int32), ENVIRONMENT)
    demonstrations = jax.jit(pgjax.demonstrate(ENVIRONMENT, expert, episodes=10))(KEY)
    cloning = pgjax.behaviour_cloning(POLICY, demonstrations, steps=1, held_out=0.2)
    state = jax.jit(cloning.init)(KEY, cloning.hyperparameters(episodes=10))
    fitted = jax.tree.map(lambda leaf: leaf[:, :8], (demonstrations.observation, demonstrations.mask))
    assert_moments(state.params.seen, np.asarray(fitted[0], float)[np.asarray(fitted[1])])
    aggregating = pgjax.dagger(ENVIRONMENT, POLICY, expert, slots=2, steps=1)
    state, curves = jax.jit(pgjax.train(aggregating, 2))(KEY, aggregating.hyperparameters())
    assert state.params.seen.number == curves.steps.sum()


def test_advantages_are_in_units_of_the_returns_of_earlier_updates():
    environment, _, _ = masked_finite()
    policy, theta = pgjax.policy_for(environment), 0.1 * jnp.arange(16.0).reshape(4, 4)
    trajectory = jax.jit(pgjax.collect(environment, policy, slots=4))(KEY, theta, environment.params)
    hyperparameters = numbers(baseline_decay=0.5)
    for inner in (
        pgjax.running_average(),
        pgjax.learned_action_value(pgjax.policies.tabular_value(4, 4), steps=1),
    ):
        baseline = normalized_returns(inner)
        state = baseline.init(KEY, hyperparameters)
        plain, scaled = (
            jax.jit(pgjax.policy_gradient(environment, policy, pgjax.reward_to_go(), each))
            for each in (inner, baseline)
        )
        found = plain(theta, state[0], trajectory, hyperparameters)
        first = scaled(theta, state, trajectory, hyperparameters)
        np.testing.assert_allclose(first.gradient, found.gradient, rtol=1e-6)  # nothing is known yet
        state = baseline.update(state, trajectory, found.returns)
        spread = np.asarray(found.returns, float)[np.asarray(trajectory.mask)].std()
        expected = plain(theta, state[0], trajectory, hyperparameters).gradient / spread
        got = scaled(theta, state, trajectory, hyperparameters).gradient
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: normalized(pgjax.tabular(23, 4), pgjax.Discrete(23)), "observations with real numbers to be normal"),
        (lambda: normalized(POLICY, SPACE, clip=0.0), "clipped to more than 0, got 0.0"),
        (
            lambda: normalized_value(pgjax.value_for(counting()), pgjax.Box(0, 255, (3, 3), jnp.uint8)),
            "observations with real numbers to be normalized, got Box",
        ),
    ],
)
def test_what_cannot_be_normalized_is_refused(make, message):
    with pytest.raises(pgjax.InputError, match=message):
        make()
