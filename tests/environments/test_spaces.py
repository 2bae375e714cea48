"""Observations of several arrays, several actions at once, and masks of actions, from the space to the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pgjax
from pgjax.environments import Masked, MultiDiscrete, masked_actions
from pgjax.policies.networks import features_of
from tests.cases import counting, in_parts, masked_finite, numbers

KEY = jax.random.key(0)


def observing(space):
    """The counting environment, said to observe something else."""
    return counting()._replace(observation_space=space)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (observing({}), "1 or more arrays as observations of counting, got {}"),
        (observing({"a": 3}), "observations of counting to be a Discrete, a MultiDiscrete or a Box, got a int"),
        (observing({"a": pgjax.Discrete(0)}), "1 or more observations of counting to choose from"),
        (observing({"a": counting().observation_space}), "the first observation of counting .* got"),
        (observing(MultiDiscrete(())), "1 or more observations of counting to choose from"),
        (counting()._replace(action_space=MultiDiscrete((2, 0))), "1 or more actions of counting to choose from"),
        (
            observing({"a": Masked(pgjax.Discrete(2), pgjax.Box(0, 1, (2,), bool))}),
            "a Masked to be the whole of observations of counting",
        ),
        (
            observing(Masked(pgjax.Discrete(2), pgjax.Box(0, 1, (3,), bool))),
            r"a mask of booleans of shape \(2,\) in observations of counting, got Box",
        ),
        (observing(Masked(pgjax.Discrete(2), pgjax.Box(0, 1, (2,)))), "a mask of booleans of shape"),
        (
            observing(Masked(pgjax.Discrete(2), pgjax.Discrete(2)))._replace(action_space=pgjax.Box(0.0, 1.0, (1,))),
            "discrete actions for a mask of them in observations of counting, got a Box",
        ),
    ],
)
def test_spaces_that_make_no_sense_are_refused(environment, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.check_environment(environment)


def test_a_rollout_stores_every_part_and_padding_repeats_what_was_seen():
    environment = in_parts(limit=3, horizon=5)
    policy = pgjax.random_policy(environment)
    trajectory = jax.jit(pgjax.collect(environment, policy, slots=2, chunk=2))(KEY, (), ())
    assert trajectory.mask.sum() == 6
    np.testing.assert_array_equal(trajectory.observation["turn"][:3], np.array([[0, 0], [1, 1], [2, 2]]))
    np.testing.assert_array_equal(trajectory.observation["turn"][3:4], 2)
    np.testing.assert_array_equal(trajectory.observation["pair"][0][:3, 0], [[0, 0], [1, 1], [0, 2]])
    assert trajectory.observation["image"].dtype == jnp.uint8
    t = np.array([0, 1, 2])[:, None]
    expected = 10 * (trajectory.action[:3, :, 0] == t % 2) + trajectory.action[:3, :, 1]
    np.testing.assert_array_equal(trajectory.reward[:3], expected)
    # In a first buffer that is too small, and with several episodes a slot, it is the same.
    large = environment._replace(horizon=3000)
    total = pgjax.collect(
        large, policy, 2, 7, chunk=2, then=lambda whole: (whole.observation["turn"].max(), whole.episodes)
    )
    assert tuple(map(int, jax.jit(total)(KEY, (), ()))) == (2, 6)


def test_a_network_sees_integers_one_hot_and_the_parts_in_order():
    environment = in_parts()
    observation = environment.step(KEY, jnp.int32(0), jnp.zeros(2, jnp.int32), ())[1].observation
    expected = [50 / 255] * 9 + [0, 1] + [0, 1, 0] + [1, -1] + [0, 1, 0, 0]
    np.testing.assert_allclose(features_of(environment.observation_space, observation), expected, rtol=1e-6)
    masked = Masked(environment.observation_space, pgjax.Box(0, 1, (2, 3), bool))
    seen = features_of(masked, Masked(observation, jnp.ones((2, 3), bool)))
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_images_within_a_dictionary_go_through_a_convolution():
    environment = in_parts()
    weights = pgjax.policy_for(environment).init(KEY)["network"]["params"]
    assert weights["Dense_0"]["kernel"].shape == (9, 8)  # eight filters of a window of 3 × 3
    assert weights["Dense_1"]["kernel"].shape == (8 + 2 + 3 + 2 + 4, 64)
    trajectory = jax.jit(pgjax.collect(environment, pgjax.random_policy(environment), slots=2))(KEY, (), ())
    value = pgjax.value_for(environment)
    assert value.unroll(value.init(KEY), trajectory).shape == trajectory.mask.shape


def test_an_agent_learns_what_a_dictionary_says():
    environment = in_parts()
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (16,))
    algorithm = pgjax.reinforce(
        environment, policy, baseline=pgjax.learned_value(pgjax.value_for(environment, (16,)), steps=1)
    )
    run = jax.jit(pgjax.train(algorithm, iterations=60))
    _, curves = run(KEY, algorithm.hyperparameters(learning_rate=0.05))
    assert curves.episode_return[-5:].mean() > 35  # 36 is the most, 18 what chance is worth


@pytest.mark.parametrize("masked", [False, True])
def test_demonstrations_in_parts_are_imitated_and_survive_a_file(tmp_path, masked):
    environment = in_parts()
    if masked:
        may = jnp.array([[1, 1, 0], [1, 1, 1]], bool)
        environment = masked_actions(environment, lambda state, params: may)

    def controller(observation):
        turn = (observation.observation if masked else observation)["turn"]
        return jnp.stack([turn % 2, jnp.full_like(turn, 2)], axis=-1)

    expert = pgjax.imitation.scripted(controller, environment)
    demonstrations = jax.jit(pgjax.demonstrate(environment, expert, episodes=2))(KEY)
    np.testing.assert_array_equal(demonstrations.action[:3, 0], [[0, 2], [1, 2], [0, 2]])
    pgjax.imitation.save_demonstrations(tmp_path / "some.npz", demonstrations)
    loaded = pgjax.imitation.load_demonstrations(tmp_path / "some.npz", environment)
    shown = jax.tree.map(lambda leaf: leaf[:3], demonstrations)
    jax.tree.map(np.testing.assert_array_equal, loaded, shown)
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (16,))
    for algorithm in (
        pgjax.behaviour_cloning(policy, loaded, steps=20, held_out=0),
        pgjax.dagger(environment, policy, expert, steps=20),
    ):
        state, _ = jax.jit(pgjax.train(algorithm, 10))(KEY, algorithm.hyperparameters(learning_rate=0.05))
        assert jax.jit(pgjax.evaluate(environment, policy, 20))(KEY, state.params, ()).mean() > 35


def test_a_file_without_one_of_the_parts_is_refused(tmp_path):
    environment = in_parts()
    with (tmp_path / "some.npz").open("wb") as file:
        np.savez(file, actions=np.zeros((3, 2)), observations=np.zeros(3), episode_ends=np.ones(3))
    with pytest.raises(pgjax.InputError, match=r"expected observations.image in .*some.npz, got actions, observations"):
        pgjax.imitation.load_demonstrations(tmp_path / "some.npz", environment)


def test_several_actions_are_as_one_of_all_their_combinations():
    logits, others = jax.random.normal(KEY, (2, 5, 2, 3))
    logits, others = (x.at[:, 0, 2].set(-jnp.inf) for x in (logits, others))  # two choices, and three
    f, g = pgjax.policies.MultiCategorical(logits), pgjax.policies.MultiCategorical(others)

    def joint(logits):
        return pgjax.policies.Categorical((logits[:, 0, :2, None] + logits[:, 1, None, :]).reshape(5, 6))

    whole, other = joint(logits), joint(others)
    np.testing.assert_allclose(f.entropy(), whole.entropy(), rtol=1e-6)
    np.testing.assert_allclose(f.kl(g), whole.kl(other), rtol=1e-5)
    np.testing.assert_allclose(f.cross_entropy(g), whole.cross_entropy(other), rtol=1e-6)
    for a in range(2):
        for b in range(3):
            action, same = jnp.broadcast_to(jnp.array([a, b]), (5, 2)), jnp.full(5, 3 * a + b)
            np.testing.assert_allclose(f.log_prob(action), whole.log_prob(same), rtol=1e-5)
    # By hand: ln 4 + ln 2 of the action (1, 0), and the entropies 3/2 ln 2 and ln 2.
    half = pgjax.policies.MultiCategorical(jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]])))
    np.testing.assert_array_equal(half.mode(), [0, 0])
    np.testing.assert_array_equal(f.mode(), np.argmax(logits, axis=-1))
    np.testing.assert_allclose(half.log_prob(jnp.array([1, 0])), -3 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(half.entropy(), 2.5 * np.log(2), rtol=1e-6)
    for number in (f.entropy, lambda: f.kl(g), lambda: f.log_prob(f.sample(KEY))):
        assert np.isfinite(number()).all()
    steep = jax.grad(lambda x: pgjax.policies.MultiCategorical(x).entropy().sum() + f.kl(f._replace(logits=x)).sum())
    assert np.isfinite(steep(logits)).all()


def test_a_network_says_as_much_of_each_action_as_it_has_choices():
    space = MultiDiscrete((2, 1, 3))
    policy = pgjax.mlp(pgjax.Box(0.0, 1.0, (1,)), space, ())
    params = policy.init(KEY)
    assert params["network"]["params"]["Readout_0"]["kernel"].shape == (6, 1)
    params["network"]["params"]["Readout_0"] = {"kernel": jnp.zeros((6, 1)), "bias": jnp.arange(6.0)}
    f = policy.step(params, (), jnp.zeros((1, 1)))[1]
    np.testing.assert_array_equal(f.logits[0], [[0, 1, -np.inf], [2, -np.inf, -np.inf], [3, 4, 5]])
    warm = pgjax.policies.at_temperature(policy, 2.0).step(params, (), jnp.zeros((1, 1)))[1]
    np.testing.assert_array_equal(warm.logits[0, 2], [1.5, 2, 2.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pgjax.reinforce(in_parts(), pgjax.mlp(in_parts().observation_space, MultiDiscrete((2, 2)))),
            r"integers below \(2, 3\); this one's are 2 integers of 2 at most",
        ),
        (
            lambda: pgjax.reinforce(in_parts(), pgjax.mlp(pgjax.Box(0, 1, (3,)), in_parts().action_space)),
            r"the observations of in parts, {image: an array of shape \(3, 3\), pair.0: integers below",
        ),
        (
            lambda: pgjax.policies.action_value_for(in_parts()),
            "discrete actions for values of each action, got in parts with actions of MultiDiscrete",
        ),
        (
            lambda: masked_actions(pgjax.from_gymnax("Pendulum-v1"), lambda state, params: True),
            "discrete actions and no mask of them yet in Pendulum-v1",
        ),
        (
            lambda: masked_actions(masked_finite()[0], lambda state, params: jnp.ones(4, bool)),
            "no mask of them yet in masked finite",
        ),
        (
            lambda: masked_actions(counting(), lambda state, params: jnp.ones(3)),
            r"a mask of actions of counting to be \(\(2,\), 'bool'\), got \(\(3,\), 'float32'\)",
        ),
        (lambda: pgjax.noisy_actions(masked_finite()[0]), "an environment without a mask of actions for noisy ones"),
    ],
)
def test_what_does_not_fit_together_is_refused(make, message):
    with pytest.raises(pgjax.InputError, match=message):
        make()


def test_a_masked_action_has_probability_0_and_is_never_drawn():
    environment, _, may = masked_finite()
    for policy in (
        pgjax.policy_for(environment),
        pgjax.mlp(environment.observation_space, pgjax.Discrete(4), (8,)),
        pgjax.random_policy(environment),
    ):
        params = jax.tree.map(lambda leaf: leaf + 1, policy.init(KEY))
        _, f = policy.step(params, (), Masked(jnp.arange(4), may))
        probability = np.asarray(jnp.exp(jax.vmap(f.log_prob)(jnp.tile(jnp.arange(4)[:, None], (1, 4)))).T)
        np.testing.assert_array_equal(probability[:3] > 0, may[:3])
        np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-6)
        assert (probability[3] > 0).all()  # where none may be chosen, the mask counts for nothing
        assert np.isfinite(f.entropy()).all()
        trajectory = jax.jit(pgjax.collect(environment, policy, slots=500))(KEY, params, environment.params)
        chosen = jnp.take_along_axis(trajectory.observation.allowed, trajectory.action[..., None], axis=-1)[..., 0]
        assert chosen[trajectory.mask].all()


def test_entropies_divergences_and_gradients_are_finite_whatever_is_masked():
    space = pgjax.Discrete(3, forbidden=(2,))
    masks = jnp.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    logits, others = jax.random.normal(KEY, (2, 4, 3))

    def numbers(logits):
        f, g = (pgjax.policies.Categorical(pgjax.policies.base.allowed(space, x, masks)) for x in (logits, others))
        return f.entropy() + f.kl(g) + f.cross_entropy(g) + f.log_prob(jnp.zeros(4, int)), f

    (values, f), gradient = numbers(logits), jax.grad(lambda x: numbers(x)[0].sum())(logits)
    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, 2], 0)
    np.testing.assert_array_equal(np.isfinite(f.logits), [[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]])


def test_the_gradient_with_masks_is_the_exact_one():
    # The same policy twice: in the environment it sees the mask, in the tables it is given that of the state.
    environment, mdp, may = masked_finite(horizon=3)
    policy = pgjax.policy_for(environment)
    theta = 0.5 * jax.random.normal(KEY, (4, 4))
    of_states = pgjax.memoryless(policy.init, lambda theta, s: policy.step(theta, (), Masked(s, may[s]))[1])
    exact = pgjax.exact.gradient(mdp, 3, of_states, theta)
    np.testing.assert_array_equal(exact[:3][~may[:3]], 0)  # what is never chosen moves nothing
    value = pgjax.exact.solve(mdp, 3, pgjax.exact.probabilities(mdp, of_states, theta)).values

    def sampled(environment, policy, n=20_000):
        """Mean and standard error of the estimate from two episodes."""
        baseline = pgjax.leave_one_out()
        estimate = pgjax.policy_gradient(environment, policy, pgjax.reward_to_go(), baseline)
        hyperparameters, rollout = numbers(), pgjax.collect(environment, policy, 2)

        def one(key):
            whole = rollout(key, theta, environment.params)
            return ravel_pytree(estimate(theta, (), whole, hyperparameters).gradient)[0]

        samples = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, n)), float)
        return samples.mean(0), samples.std(0) / np.sqrt(n)

    def largest_z(mean, error):
        return np.max(np.abs(mean - ravel_pytree(exact)[0])[error > 0] / error[error > 0])

    assert value.shape == (3, 4)
    bound = pgjax.exact.largest_z_by_chance(int((ravel_pytree(exact)[0] != 0).sum()), 1e-4)
    mean, error = sampled(environment, policy)
    np.testing.assert_array_equal(mean[ravel_pytree(exact)[0] == 0], 0)
    assert largest_z(mean, error) < bound
    # One that forgets the mask where it differentiates, and one that forgets it where it acts, are found.
    forgetful = policy._replace(unroll=lambda theta, whole: pgjax.policies.Categorical(theta[whole.observation[0]]))
    assert largest_z(*sampled(environment, forgetful)) > 3 * bound
