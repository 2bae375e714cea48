from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from pgjax.policies.networks import features_of
from tests.cases import counting, in_parts, masked_finite, random_mdp, remembering
from tests.text.exact_texts import texts

MDP = random_mdp()
BOX = pgjax.Box(-2.0, 2.0, (3,))
PLANE = pgjax.Box(np.array([-1.0, 0.0]), np.array([1.0, 10.0]), (2,))
PENDULUM = pgjax.from_gymnax("Pendulum-v1", max_steps_in_episode=5)
CASES = {
    "tabular": (pgjax.tabular(3, 2), pgjax.finite(MDP, 5)),
    "mlp one-hot": (pgjax.mlp(pgjax.Discrete(3), pgjax.Discrete(2), (8,)), pgjax.finite(MDP, 5)),
    "mlp": (pgjax.mlp(pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), (8,)), counting()),
    "memory": (remembering(), counting()),
    "recurrent": (pgjax.recurrent(pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), 8, (4,)), counting()),
    "recurrent one-hot": (pgjax.recurrent(pgjax.Discrete(3), pgjax.Discrete(2), 8, ()), pgjax.finite(MDP, 5)),
    "mlp in parts": (pgjax.mlp(in_parts().observation_space, in_parts().action_space, (8,)), in_parts()),
    "cnn in parts": (pgjax.policy_for(in_parts()), in_parts()),
    "recurrent in parts": (pgjax.recurrent(in_parts().observation_space, in_parts().action_space, 8, ()), in_parts()),
    "masked table": (pgjax.policy_for(masked_finite()[0]), masked_finite()[0]),
    "masked recurrent": (
        pgjax.recurrent(masked_finite()[0].observation_space, pgjax.Discrete(4), 8, ()),
        masked_finite()[0],
    ),
    "recurrent gaussian": (pgjax.recurrent(PENDULUM.observation_space, PENDULUM.action_space, 8), PENDULUM),
    "tabular by time": (  # for fewer steps than the horizon, so that the last table is used again
        pgjax.policies.tabular_by_time(3, 3, 2)._replace(init=lambda key: jax.random.normal(key, (3, 3, 2))),
        pgjax.finite(MDP, 5),
    ),
}


def spoiled(**methods):
    """A policy for CartPole whose distributions have some methods that do other things than they should."""

    class Spoiled(NamedTuple):
        logits: jax.Array

        sample = methods.get("sample", lambda f, key: pgjax.policies.Categorical(f.logits).sample(key))
        log_prob = methods.get("log_prob", lambda f, action: pgjax.policies.Categorical(f.logits).log_prob(action))
        entropy = methods.get("entropy", lambda f: pgjax.policies.Categorical(f.logits).entropy())
        kl = methods.get("kl", lambda f, other: pgjax.policies.Categorical(f.logits).kl(other))

    return pgjax.memoryless(lambda key: jnp.zeros((4, 2)), lambda theta, x: Spoiled(x @ theta))


@pytest.mark.parametrize("name", CASES)
def test_the_policies_of_pgjax_keep_their_contract(name):
    policy, environment = CASES[name]
    pgjax.check_policy(policy, environment)


def test_a_policy_whose_two_ways_disagree_is_found():
    whole = remembering()
    forgetful = whole._replace(
        unroll=lambda params, trajectory: pgjax.policies.Categorical(trajectory.observation @ params)
    )
    with pytest.raises(pgjax.InputError, match=r"same log-probabilities from step and unroll, got .* at step 2"):
        pgjax.check_policy(forgetful, counting())
    column = whole._replace(unroll=lambda params, trajectory: Column(whole.unroll(params, trajectory)))
    with pytest.raises(pgjax.InputError, match=r"log_prob of what unroll returns to be of shape \(17, 3\), got"):
        pgjax.check_policy(column, counting(limit=20, horizon=16))
    kink = pgjax.memoryless(
        lambda key: jnp.zeros((1, 2)),
        lambda theta, x: pgjax.policies.Categorical(jnp.sqrt(x) @ (theta - jax.lax.stop_gradient(theta))),
    )
    pgjax.check_policy(kink, counting())
    steep = pgjax.memoryless(
        lambda key: jnp.zeros((1, 2)), lambda theta, x: pgjax.policies.Categorical(jnp.sqrt(0 * (x @ theta)))
    )
    with pytest.raises(
        pgjax.InputError, match="expected a finite gradient of the log-probabilities, got another in params"
    ):
        pgjax.check_policy(steep, counting())


class Column(NamedTuple):
    """A distribution whose log_prob has an axis too many."""

    f: pgjax.policies.Categorical

    def log_prob(self, action):
        return self.f.log_prob(action)[..., None]


@pytest.mark.parametrize("name", CASES)
def test_step_and_unroll_give_the_same_log_probabilities(name):
    policy, environment = CASES[name]
    params = policy.init(jax.random.key(0))
    run = pgjax.collect(environment, policy, slots=3, chunk=2)
    trajectory = jax.jit(run)(jax.random.key(1), params, environment.params)
    unrolled = policy.unroll(params, trajectory).log_prob(trajectory.action)
    memory, stepped = policy.memory(3), []
    for t in range(trajectory.mask.shape[0]):
        observation = jax.tree.map(lambda leaf, t=t: leaf[t], trajectory.observation)
        memory, distribution = policy.step(params, memory, observation)
        stepped.append(distribution.log_prob(trajectory.action[t]))
    assert trajectory.mask.sum() > 3
    np.testing.assert_allclose(
        np.where(trajectory.mask, unrolled, 0), np.where(trajectory.mask, np.stack(stepped), 0), atol=1e-6
    )


def test_tabular_gradient_by_hand():
    policy = pgjax.tabular(3, 2)
    theta = jax.random.normal(jax.random.key(0), (3, 2))

    def log_prob(theta):
        return policy.step(theta, (), jnp.array([1]))[1].log_prob(jnp.array([0]))[0]

    expected = np.zeros((3, 2))
    expected[1] = np.array([1.0, 0.0]) - np.asarray(jax.nn.softmax(theta[1]))
    np.testing.assert_allclose(jax.grad(log_prob)(theta), expected, atol=1e-6)


def test_mlp_starts_orthogonal_and_near_uniform():
    policy = pgjax.mlp(BOX, pgjax.Discrete(4))
    params = policy.init(jax.random.key(0))
    layers = params["network"]["params"]
    kernel = layers["Dense_1"]["kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(64), atol=1e-4)
    _, f = policy.step(params, (), jax.random.normal(jax.random.key(1), (10, 3)))
    assert np.all(f.entropy() > np.log(4) - 1e-3)


def test_gaussian_mlp_is_in_units_of_the_box():
    policy = pgjax.mlp(BOX, PLANE, (8,))
    _, f = policy.step(policy.init(jax.random.key(0)), (), jnp.zeros((1, 3)))
    np.testing.assert_allclose(f.mean, [[0.0, 5.0]], atol=1e-5)
    np.testing.assert_allclose(np.exp(f.log_std), [[0.6, 3.0]], rtol=1e-5)
    unbounded = pgjax.mlp(BOX, pgjax.Box(-np.inf, np.inf, (1,)), (8,))
    _, f = unbounded.step(unbounded.init(jax.random.key(0)), (), jnp.zeros((1, 3)))
    np.testing.assert_allclose(np.exp(f.log_std), [[0.6]], rtol=1e-5)


def test_an_environment_gets_bounded_actions_and_the_gradient_stays_exact():
    # One step, reward = the action as played. Under N(μ, σ²) clipped to [-1, 1]: dρ/dμ = Pr(-1 < A < 1).
    def step(key, state, action, params):
        return state, pgjax.Step(jnp.zeros(1), action[0], True)

    environment = pgjax.Environment(
        lambda key, params: (jnp.int32(0), jnp.zeros(1)),
        step,
        pgjax.Box(0.0, 1.0, (1,)),
        pgjax.Box(-1.0, 1.0, (1,)),
        horizon=1,
    )
    mean, std, n = 0.5, 1.0, 200_000

    def apply(params, observation):
        return pgjax.policies.Gaussian(jnp.broadcast_to(params, observation.shape), jnp.zeros_like(observation))

    policy = pgjax.memoryless(lambda key: jnp.full((1, 1), mean), apply)
    run = jax.jit(pgjax.collect(environment, policy, slots=n))
    with jax.numpy_rank_promotion("allow"):
        trajectory = run(jax.random.key(0), jnp.full(1, mean), ())
    played, drawn = np.asarray(trajectory.reward[0]), np.asarray(trajectory.action[0, :, 0])
    assert np.abs(drawn).max() > 1.5
    np.testing.assert_allclose(played, np.clip(drawn, -1, 1), atol=1e-6)
    samples = played * (drawn - mean) / std**2
    from scipy.stats import norm

    exact = norm.cdf(1, mean, std) - norm.cdf(-1, mean, std)
    assert abs(samples.mean() - exact) < 4.5 * samples.std() / np.sqrt(n)  # wrong with probability below 1e-5


def test_the_default_fits_every_space():
    def environment(states, actions):
        return pgjax.Environment(lambda *_: None, lambda *_: None, states, actions, 1)

    for states in (pgjax.Discrete(5), BOX, pgjax.Box(0, 1, (4, 4, 2), jnp.int32)):
        for actions in (pgjax.Discrete(3), PLANE):
            policy = pgjax.policy_for(environment(states, actions))
            params = policy.init(jax.random.key(0))
            observation = jnp.zeros((2, *states.shape), states.dtype)
            action = policy.step(params, (), observation)[1].sample(jax.random.key(0))
            assert action.shape == (2, *actions.shape)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (pgjax.mlp(pgjax.Box(0, 1, (4,)), pgjax.Discrete(3)), "one of 2 integers; this one's are one of 3 integers"),
        (pgjax.mlp(pgjax.Box(0, 1, (4,)), PLANE), r"one of 2 integers; this one's are arrays of shape \(2,\)"),
        (
            pgjax.mlp(pgjax.Box(0, 1, (7,)), pgjax.Discrete(2)),
            "takes the observations of CartPole-v1, an array of shape",
        ),
        (pgjax.tabular(3, 2), "takes the observations of CartPole-v1, an array of shape"),
        (spoiled(log_prob=lambda f, action: jnp.zeros((2, 1))), r"log_prob of a Spoiled .* \(2,\), got \(2, 1\)"),
        (spoiled(log_prob=lambda f, action: jnp.zeros(())), r"log_prob of a Spoiled .* \(2,\), got \(\)"),
        (spoiled(entropy=lambda f: jnp.zeros((2, 2))), r"entropy of a Spoiled .* got \(2, 2\)"),
        (spoiled(kl=lambda f, other: jnp.zeros((2, 1))), r"kl of a Spoiled .* got \(2, 1\)"),
        (spoiled(sample=lambda f, key: jnp.zeros((2, 1), int)), r"one of 2 integers; this one's are arrays of shape"),
        (spoiled(sample=lambda f, key: jnp.zeros(2)), "one of 2 integers; this one's are arrays of shape .* float32"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(policy, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.reinforce(pgjax.from_gymnax("CartPole-v1"), policy)


def test_a_table_for_windows_of_tokens_is_refused_for_what_it_sees():
    table = pgjax.tabular(5, 5)
    with pytest.raises(
        pgjax.InputError, match=r"the observations of text, .* \(2, 3, 5\), where \[2, n\] are expected"
    ):
        pgjax.reinforce(texts(), table)


def test_actions_of_several_axes_are_refused():
    with pytest.raises(pgjax.InputError, match=r"shape \[d\], got \(2, 2\)"):
        pgjax.mlp(BOX, pgjax.Box(0, 1, (2, 2)))


def test_products_in_bfloat16_are_those_in_float32_rounded():
    whole = pgjax.mlp(BOX, pgjax.Discrete(4), (16, 16))
    rounded = pgjax.mlp(BOX, pgjax.Discrete(4), (16, 16), product_dtype=jnp.bfloat16)
    params = jax.tree.map(lambda leaf: leaf + 0.1, whole.init(jax.random.key(0)))
    observation = jax.random.normal(jax.random.key(1), (50, 3))

    def log_prob(params, policy):
        return policy.step(params, (), observation)[1].log_prob(jnp.zeros(50, int)).sum()

    exact, near = jax.grad(log_prob)(params, whole), jax.grad(log_prob)(params, rounded)
    chex.assert_trees_all_equal_shapes_and_dtypes(exact, near)
    difference = jax.tree.map(jnp.subtract, exact, near)
    assert 0 < optax.tree.norm(difference) < 0.02 * optax.tree.norm(exact)  # bfloat16 has 8 bits


def test_a_table_never_chooses_what_is_forbidden():
    space = pgjax.Discrete(3, forbidden=(1,))
    _, f = pgjax.tabular(2, space).step(jnp.ones((2, 3)), (), jnp.arange(2))
    np.testing.assert_array_equal(jnp.exp(f.log_prob(jnp.array([0, 1]))), [0.5, 0.0])
    environment = pgjax.finite(MDP, 5)._replace(action_space=pgjax.Discrete(2, forbidden=(0,)))
    trajectory = pgjax.collect(environment, pgjax.policy_for(environment), slots=8)(
        jax.random.key(0), jnp.zeros((3, 2)), MDP
    )
    assert (trajectory.action[trajectory.mask] == 1).all()


def test_pixels_are_scaled_by_their_box():
    whole = pgjax.Box(0, 255, (6, 5, 2), jnp.uint8)
    part = pgjax.Box(0.0, 1.0, (6, 5, 2))
    pixels = jax.random.randint(jax.random.key(0), (3, 4, *whole.shape), 0, 256).astype(jnp.uint8)
    seen = pixels, pixels.astype(float) / 255
    makers = [pgjax.mlp, pgjax.cnn, pgjax.recurrent]
    for make in makers:
        logits = []
        for i, space in enumerate((whole, part)):
            policy = make(space, pgjax.Discrete(4))
            params = policy.init(jax.random.key(1))
            trajectory = pgjax.Trajectory(seen[i], *[jnp.zeros((3, 4))] * 6, rows=jnp.int32(3))
            logits.append(policy.unroll(params, trajectory).logits)
            assert policy.unroll(params, trajectory).entropy().min() > np.log(4) - 0.02  # near the uniform one
        np.testing.assert_allclose(*logits, atol=1e-6)
    for make in (pgjax.policies.mlp_value, pgjax.policies.cnn_value):
        values = []
        for i, space in enumerate((whole, part)):
            value = make(space)
            trajectory = pgjax.Trajectory(seen[i], *[jnp.zeros((3, 4))] * 6, rows=jnp.int32(3))
            values.append(value.unroll(value.init(jax.random.key(1)), trajectory))
        np.testing.assert_allclose(*values, atol=1e-6)
    counts = pgjax.Box(0, 9, (3,), jnp.int32)  # numbers that are no image are taken as they are
    np.testing.assert_array_equal(features_of(counts, jnp.array([1, 5, 9])), [1.0, 5.0, 9.0])
    shifted = pgjax.Box(np.array([[0, 10]]), np.array([[4, 20]]), (1, 2), jnp.int32)
    np.testing.assert_allclose(features_of(shifted, jnp.array([[1, 20]])), [0.25, 1.0])
