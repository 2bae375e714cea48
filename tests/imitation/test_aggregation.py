import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.imitation import aggregation as module
from tests.cases import counting, ending_in, random_mdp, remembering

KEY = jax.random.key(0)

Mixture, add, empty_buffer = module.Mixture, module.add, module.empty_buffer


def always(action):
    """An expert of the counting environment that always does the same."""
    return pgjax.imitation.scripted(lambda observation: jnp.full(observation.shape[:-1], action, jnp.int32), counting())


def test_the_mixture_takes_the_experts_action_as_often_as_the_schedule_says():
    first, second = always(0), always(1)
    policy = pgjax.imitation.mixture(first.policy, second.policy)
    play = jax.jit(pgjax.collect(counting(), policy, 2000))
    for beta in (0.0, 0.25, 1.0):
        trajectory = play(KEY, (jnp.asarray(beta), (), ()), ())
        share = 1 - trajectory.action[trajectory.mask].mean()
        # 10000 actions: five standard errors.
        np.testing.assert_allclose(share, beta, atol=5 * np.sqrt(beta * (1 - beta) / 10000))
        within = trajectory.action[:5]  # the steps of an episode choose for themselves
        if beta == 0.25:
            # 2000 pairs: five standard errors.
            alike = 0.25**2 + 0.75**2
            np.testing.assert_allclose(
                (within[0] == within[1]).mean(), alike, atol=5 * np.sqrt(alike * (1 - alike) / 2000)
            )


def test_the_probability_of_a_mixture():
    f = pgjax.policies.Categorical(jnp.log(jnp.asarray([0.9, 0.1])))
    g = pgjax.policies.Categorical(jnp.log(jnp.asarray([0.2, 0.8])))
    mixed = Mixture(jnp.asarray(0.25), f, g)
    np.testing.assert_allclose(jnp.exp(mixed.log_prob(jnp.asarray(0))), 0.25 * 0.9 + 0.75 * 0.2, rtol=1e-6)
    for beta, one in ((0.0, g), (1.0, f)):
        alone = Mixture(jnp.asarray(beta), f, g)
        np.testing.assert_allclose(alone.log_prob(jnp.asarray(1)), one.log_prob(jnp.asarray(1)), rtol=1e-6)


def test_schedules():
    i = jnp.arange(4)
    np.testing.assert_allclose(pgjax.imitation.exponential_mixture(i, jnp.asarray(0.5)), [1, 0.5, 0.25, 0.125])
    np.testing.assert_array_equal(pgjax.imitation.exponential_mixture(i, jnp.asarray(0.0)), [1, 0, 0, 0])
    np.testing.assert_array_equal(pgjax.imitation.exponential_mixture(i, jnp.asarray(1.0)), 1)
    np.testing.assert_allclose(pgjax.imitation.linear_mixture(i, jnp.asarray(0.4)), [1, 0.6, 0.2, 0], atol=1e-7)
    # Any function of the iteration will do, of whole numbers and beyond 0 and 1 too.
    learning = pgjax.dagger(counting(), remembering(), always(0), steps=1, schedule=lambda i, p: 2 - 2 * i)
    _, curves = jax.jit(pgjax.train(learning, 3))(KEY, learning.hyperparameters())
    np.testing.assert_array_equal(curves.beta, [1, 0, 0])


def test_a_mixture_remembers_what_both_of_its_policies_do():
    policy = pgjax.imitation.mixture(remembering(), remembering())
    params = policy.init(KEY)
    params = (jnp.asarray(0.3), *params[1:])
    trajectory = jax.jit(pgjax.collect(counting(), policy, 3))(KEY, params, ())
    unrolled = policy.unroll(params, trajectory).log_prob(trajectory.action)
    memory = policy.memory(3)
    for t in range(5):
        memory, distribution = policy.step(params, memory, trajectory.observation[t])
        np.testing.assert_allclose(distribution.log_prob(trajectory.action[t]), unrolled[t], rtol=1e-5)


def examples(numbers, known=None):
    numbers = jnp.asarray(numbers)[None]
    known = jnp.ones(numbers.shape, bool) if known is None else jnp.asarray(known)[None]
    return pgjax.Demonstrations(numbers, numbers, known)


def test_a_buffer_holds_everything_until_it_is_full():
    buffer = empty_buffer(examples([0, 0]), 6)
    assert buffer.filled == 0
    buffer = add(buffer, examples([1, 2, 3], [True, False, True]), KEY)
    buffer = add(buffer, examples([4, 5]), jax.random.key(1))
    assert buffer.filled == 4
    assert set(np.asarray(buffer.examples.action[0, :4])) == {1, 3, 4, 5}
    assert buffer.examples.mask[0, :4].all()


def test_an_overflowing_buffer_holds_a_uniform_sample_of_all_there_was():
    def fill(key):
        buffer = empty_buffer(examples([0]), 6)
        for i, batch in enumerate(([0, 1], [2, 3, 4, 5, 6, 7, 8, 9], [10, 11], [12, 13, 14, 15, 99])):
            known = jnp.asarray(batch) != 99
            buffer = add(buffer, examples(batch, known), jax.random.fold_in(key, i))
        return buffer.filled, buffer.examples.action[0]

    counts, kept = jax.jit(jax.vmap(fill))(jax.random.split(KEY, 4000))
    np.testing.assert_array_equal(counts, 6)
    assert all(len(set(row)) == 6 for row in np.asarray(kept[:100]))
    often = np.bincount(np.asarray(kept).reshape(-1), minlength=100)
    assert often[99] == 0
    # Each of 16 is kept with probability 6/16: 1500 times of 4000, with a standard deviation of 31; five of them.
    np.testing.assert_allclose(often[:16], 1500, atol=155)


@pytest.mark.slow
def test_dagger_learns_what_the_expert_does_beside_its_own_way():
    # The expert keeps to the road; an untrained learner leaves it, and only there learns how to return.
    mdp = pgjax.exact.compounding.road(4)
    environment, policy = pgjax.finite(mdp, 6), pgjax.tabular(2, 4)
    expert = pgjax.Expert(policy, jnp.asarray([[0.0, -jnp.inf, -jnp.inf, -jnp.inf]] * 2))

    def learned(algorithm, iterations):
        state, curves = jax.jit(pgjax.train(algorithm, iterations))(KEY, algorithm.hyperparameters(learning_rate=0.05))
        return jax.nn.softmax(state.params), curves

    f, _ = learned(pgjax.behaviour_cloning(policy, pgjax.demonstrate(environment, expert, 8)), 4)
    assert f[0, 0] > 0.95
    np.testing.assert_allclose(f[1], 0.25, atol=1e-6)
    f, curves = learned(pgjax.dagger(environment, policy, expert, slots=8, steps=20), 12)
    assert (f[:, 0] > 0.95).all()
    np.testing.assert_array_equal(curves.beta, [1] + [0] * 11)
    np.testing.assert_array_equal(curves.labels, curves.steps)
    assert curves.episode_return[0] == 0  # the expert's own
    assert curves.episode_return[1] < 0 < curves.loss[-1]


def test_with_the_expert_always_acting_it_is_its_own_return_that_is_seen():
    environment, policy = pgjax.finite(random_mdp(), 6), pgjax.tabular(3, 2)
    expert = pgjax.Expert(policy, jnp.asarray([[0.0, 3.0], [3.0, 0.0], [0.0, 0.0]]))
    learning = pgjax.dagger(
        environment, policy, expert, slots=400, steps=1, labels=2, distance=pgjax.imitation.forward_kl
    )
    state, curves = jax.jit(pgjax.train(learning, 3))(KEY, learning.hyperparameters(mixture_decay=1.0))
    f = jax.nn.softmax(expert.params)
    means, variances = pgjax.exact.return_variances(random_mdp(), 6, f)
    np.testing.assert_array_equal(curves.beta, 1)
    # 1200 episodes: five standard errors.
    np.testing.assert_allclose(curves.episode_return.mean(), means[0], atol=5 * np.sqrt(variances[0] / 1200))
    assert (curves.labels <= 800).all()
    assert state.buffer.filled == curves.labels.sum()


def test_learner_and_expert_may_both_have_a_memory():
    expert = pgjax.Expert(remembering(), jnp.asarray([[2.0, -2.0]]))
    learning = pgjax.dagger(
        counting(),
        remembering(),
        expert,
        slots=4,
        capacity=48,
        labels=3,
        steps=50,
        distance=pgjax.imitation.cross_entropy,
    )
    state, curves = jax.jit(pgjax.train(learning, 6))(KEY, learning.hyperparameters(learning_rate=0.1))
    assert state.buffer.examples.mask.shape == (9, 5)  # rows, and as many episodes as 48 steps are
    np.testing.assert_array_equal(curves.labels, 12)
    assert state.buffer.filled == 5
    np.testing.assert_array_equal(state.buffer.examples.mask.sum(0), 3)
    # The exact distance to the expert, which cross-entropy has at its least, is gone.
    episodes = state.buffer.examples
    distance = pgjax.imitation.forward_kl(
        remembering().unroll(state.params, episodes), episodes.action, episodes.expert
    )
    assert distance[episodes.mask].max() < 0.02


def test_a_vmapped_run_is_a_single_one_and_a_sweep_of_them():
    environment = pgjax.finite(random_mdp(), 6)
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (4,))
    expert = pgjax.Expert(pgjax.tabular(3, 2), jnp.asarray([[0.0, 3.0], [3.0, 0.0], [0.0, 0.0]]))
    learning = pgjax.dagger(environment, policy, expert, slots=2, steps=5, batch=8, capacity=16)
    # What a sweep computes is vmapped.
    swept = pgjax.sweep(learning, iterations=3, seeds=range(3), grid={"mixture_decay": [0.5, 1.0]}, progress=False)
    update = jax.jit(chex.assert_max_traces(learning.update, n=1))
    state = learning.init(pgjax.run_keys(0, [2])[0], learning.hyperparameters(mixture_decay=0.5))
    for i in range(3):
        state, metrics = update(state)
        same = swept.sel(mixture_decay=0.5, seed=2).isel(iteration=i)
        for name in metrics._fields:
            np.testing.assert_allclose(same[name].values, getattr(metrics, name), rtol=1e-4, err_msg=name)
    assert state.buffer.filled == 16  # fewer than there were
    assert len(set(swept.episode_return.sel(mixture_decay=1.0, seed=2).values)) > 1  # other episodes in each update
    like = jax.eval_shape(policy.init, KEY)
    params = pgjax.load_params(swept, like, seed=2, point={"mixture_decay": 0.5})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), params, state.params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": -1}, "expected 0 or more labels of an episode, got -1"),
        ({"schedule": lambda i, p: jnp.ones(2)}, r"expected what the schedule returns to be of shape \(\), got \(2,\)"),
        ({"capacity": 0}, "expected a capacity of 1 or more steps, got 0"),
        ({"slots": 0}, "expected 1 or more slots, got 0"),
        ({"steps": 0}, "expected 1 or more gradient steps an update, got 0"),
        ({"expert": pgjax.Expert(pgjax.tabular(3, 2), jnp.zeros((3, 2)))}, "expected a policy that takes"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.dagger(**{"environment": counting(), "policy": remembering(), "expert": always(0), **options})


def test_an_observation_after_the_end_that_is_no_number_does_not_matter():
    expert = pgjax.imitation.scripted(lambda observation: jnp.zeros(observation.shape[:-1], jnp.int32), ending_in(0.3))
    fitted = []
    for after in (jnp.nan, 0.3):
        learning = pgjax.dagger(ending_in(after), remembering(), expert, slots=3, steps=5)
        state, _ = jax.jit(pgjax.train(learning, 2))(KEY, learning.hyperparameters())
        fitted.append(state.params)
        assert np.isfinite(state.params).all()
    np.testing.assert_array_equal(*fitted)
