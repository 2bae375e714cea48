"""The environment of texts, its sampler's law, and REINFORCE on it, held to every text that there is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import pgjax
from pgjax.text.tokens import BOS, EOS, PAD
from tests.cases import numbers
from tests.text.exact_texts import (
    PROMPT,
    A,
    B,
    T,
    V,
    all_outputs,
    by_context,
    episodes,
    reward_of,
    texts,
    tiny_transformer,
    trajectory_of,
    value_by_context,
)

BETA = 0.3
OUTPUTS = all_outputs()
POLICIES = {"by context": lambda environment: by_context(), "transformer": tiny_transformer}


def lively(policy, key=0):
    return jax.tree.map(lambda leaf: 2 * leaf, policy.init(jax.random.key(key)))


def chances(policy, params, environment):
    """The probability of every output, [15], differentiable."""
    trajectory = trajectory_of(OUTPUTS, policy, params, environment)
    log_prob = policy.unroll(params, trajectory).log_prob(trajectory.action)
    return jnp.exp(jnp.sum(jnp.where(trajectory.mask, log_prob, 0), axis=0))


def test_there_are_fifteen_texts_and_one_of_them_is_written():
    assert len(OUTPUTS) == 1 + 2 + 4 * 3
    environment = texts()
    for make in POLICIES.values():
        policy = make(environment)
        assert jnp.sum(chances(policy, lively(policy), environment)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_the_law_of_the_sampler(name):
    environment, n = texts(), 100_000
    policy = POLICIES[name](environment)
    params = lively(policy)
    written = np.asarray(
        jax.jit(pgjax.text.outputs(environment, policy, n))(jax.random.key(3), params, environment.params)
    )
    assert (written[:, :3] == PROMPT[0]).all()
    code = (written[:, 3:] @ V ** np.arange(T)).astype(int)
    observed = np.asarray([(code == row @ V ** np.arange(T)).sum() for row in OUTPUTS])
    expected = n * np.asarray(chances(policy, params, environment), float)
    assert observed.sum() == n
    # χ² over all fifteen texts; wrong with probability 10⁻⁴.
    assert np.sum((observed - expected) ** 2 / expected) < stats.chi2.ppf(1 - 1e-4, len(OUTPUTS) - 1)


def test_a_text_of_as_many_tokens_as_there_may_be_is_whole():
    # Nothing follows it, so nothing is to be bootstrapped from: it terminates, like one that writes eos.
    environment, policy = texts(), by_context()
    penalized = pgjax.kl_penalty(environment, policy, lively(policy))
    for each in (environment, penalized):
        run = jax.jit(pgjax.collect(each, policy, slots=64))
        trajectory = run(jax.random.key(0), lively(policy), each.params)
        long = np.asarray(trajectory.mask[T - 1])
        assert 10 < long.sum() < 64
        assert trajectory.terminated[T - 1][long].all()
        assert not (trajectory.truncated & ~trajectory.terminated).any()


def collected_outputs(environment, policy, params):
    """Episodes that write each of the fifteen outputs, as the environment itself says how they end."""
    rows = jnp.asarray(np.where(OUTPUTS == PAD, EOS, OUTPUTS), jnp.int32).T  # [T, 15]
    following = pgjax.Policy(
        init=lambda key: (),
        memory=lambda episodes: jnp.zeros(episodes, jnp.int32),
        step=lambda params, t, window: (t + 1, Certain(rows[jnp.minimum(t, T - 1), jnp.arange(15)])),
        unroll=lambda params, trajectory: None,
    )
    trajectory = pgjax.collect(environment, following, slots=15)(jax.random.key(0), (), environment.params)
    log_prob = policy.unroll(params, trajectory).log_prob(trajectory.action)
    return trajectory._replace(log_prob=jnp.where(trajectory.mask, log_prob, 0))


class Certain(NamedTuple):
    """The distribution of an action that is known."""

    action: jax.Array

    def sample(self, key):
        return self.action

    def log_prob(self, action):
        return jnp.zeros(action.shape)


def test_the_gradient_of_actor_critic_on_texts():
    # With λ = 1 and any critic the estimator is unbiased; six in fifteen texts reach T, and were bootstrapped through.
    environment, policy = texts(), by_context()
    params = lively(policy)
    baseline = pgjax.learned_value(value_by_context())
    hyperparameters = numbers(trace_decay=1.0)
    state = baseline.init(jax.random.key(5), hyperparameters)._replace(moments=jnp.array([1.0, 3.0, 13.0]))  # 3 ± 2
    estimate = pgjax.policy_gradient(environment, policy, pgjax.lambda_return(), baseline)
    trajectory, p = collected_outputs(environment, policy, params), chances(policy, params, environment)
    parts = jax.lax.map(
        lambda i: p[i] * estimate(params, state, episodes(trajectory, i[None]), hyperparameters).gradient,
        jnp.arange(15),
    )
    exact = exact_gradient(policy, params, params, environment, 0.0)
    np.testing.assert_allclose(parts.sum(0), exact, atol=1e-5 * float(jnp.abs(exact).max()))


def exact_gradient(policy, params, reference, environment, beta):
    """The gradient of Σ Pr(text) (r(text) − β ln f/f_SL), by automatic differentiation of the whole."""
    trajectory = trajectory_of(OUTPUTS, policy, params, texts())
    reward = jnp.sum(trajectory.reward, axis=0)
    start = chances(policy, reference, environment)

    def objective(params):
        p = chances(policy, params, environment)
        return jnp.sum(p * (reward - beta * jnp.log(p / start)))

    return jax.grad(objective)(params)


BASELINES = {
    "none": (pgjax.no_baseline, 1),
    "running average": (pgjax.running_average, 1),
    "leave one out": (pgjax.leave_one_out, 2),
    "leave one out by time": (pgjax.estimators.leave_one_out_by_time, 2),
    "learned value": (
        lambda: pgjax.learned_value(pgjax.text.transformer_value(pgjax.text.TransformerConfig(V, 2 * T, 8, 1, 2))),
        1,
    ),
}


ESTIMATORS = [
    (name, credit)
    for name in BASELINES
    for credit in (pgjax.whole_episode, pgjax.reward_to_go)
    if (name, credit) != ("leave one out by time", pgjax.whole_episode)  # which belongs to rewards to go
]


@pytest.mark.parametrize(("baseline", "credit"), ESTIMATORS)
def test_the_mean_of_the_estimator_is_the_gradient_of_reward_less_kl(baseline, credit):
    environment = texts()
    policy = tiny_transformer(environment)
    params, reference = lively(policy, 0), lively(policy, 1)
    penalized = pgjax.kl_penalty(environment, policy, reference, BETA)
    make, together = BASELINES[baseline]
    made = make()
    estimate = pgjax.policy_gradient(penalized, policy, credit(), made)
    hyperparameters = numbers()
    state = made.init(jax.random.key(5), hyperparameters)
    if baseline == "running average":
        state = state._replace(rho_hat=jnp.asarray(0.9))
    trajectory = trajectory_of(OUTPUTS, policy, params, penalized)
    p = chances(policy, params, environment)
    groups = np.stack(np.meshgrid(*[np.arange(len(OUTPUTS))] * together, indexing="ij"), -1).reshape(-1, together)

    @jax.jit
    def of_group(chosen):
        found = estimate(params, state, episodes(trajectory, chosen), hyperparameters).gradient
        return jax.tree.map(lambda leaf: leaf * jnp.prod(p[chosen]), found)

    parts = jax.lax.map(of_group, jnp.asarray(groups))
    mean = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)
    exact = exact_gradient(policy, params, reference, environment, BETA)
    length = optax.tree.norm(exact)
    assert length > 0.1
    assert optax.tree.norm(jax.tree.map(jnp.subtract, mean, exact)) < 2e-5 * length


def test_a_mean_that_has_seen_its_own_text_is_not_the_gradient():
    # The control of the test above: (r − mean of both) is half of (r − the other's), so half the gradient.
    environment = texts()
    policy = by_context()
    params = lively(policy)
    own = pgjax.leave_one_out()._replace(
        values=lambda state, trajectory, returns, _: jnp.broadcast_to(
            jnp.mean(jnp.where(trajectory.first, returns, 0).sum(0)), returns.shape
        )
    )
    estimate = pgjax.policy_gradient(environment, policy, pgjax.whole_episode(), own)
    trajectory, p = trajectory_of(OUTPUTS, policy, params, environment), chances(policy, params, environment)
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(15), jnp.arange(15)), -1).reshape(-1, 2)
    found = jax.lax.map(
        lambda pair: jnp.prod(p[pair]) * estimate(params, (), episodes(trajectory, pair), numbers()).gradient, pairs
    ).sum(0)
    exact = exact_gradient(policy, params, params, environment, 0.0)
    np.testing.assert_allclose(found, exact / 2, atol=1e-5)


def test_adding_to_every_reward_of_a_prompt_changes_nothing_among_its_outputs():
    environment, policy = texts(), by_context()
    params = lively(policy)
    trajectory = trajectory_of(OUTPUTS[[0, 3, 7, 12]], policy, params, environment)
    shifted = trajectory._replace(
        reward=trajectory.reward + jnp.where(trajectory.last, jnp.array([[5.0, 5.0, -2.0, -2.0]]), 0)
    )
    for among, same in ((2, True), (4, False)):
        estimate = pgjax.policy_gradient(
            environment, policy, pgjax.whole_episode(), pgjax.leave_one_out(group_size=among)
        )
        one, other = (estimate(params, (), which, numbers()).gradient for which in (trajectory, shifted))
        assert np.allclose(one, other, atol=1e-5) == same
    # K/(K − 1) (r − mean), for the four outputs of one prompt.
    reward = np.asarray(trajectory.reward.sum(0))
    returns = pgjax.estimators.whole_returns(trajectory, 1.0)
    baseline = pgjax.leave_one_out().values((), trajectory, returns, None)
    np.testing.assert_allclose(np.asarray(returns - baseline)[0], 4 / 3 * (reward - reward.mean()), atol=1e-6)


def test_a_long_text_is_not_pushed_less_for_its_length():
    environment, policy = texts(), by_context()
    params = lively(policy)
    estimate = pgjax.policy_gradient(environment, policy, pgjax.whole_episode(), pgjax.no_baseline())
    for row in ([EOS, PAD, PAD], [A, B, A]):
        trajectory = trajectory_of([row], policy, params, environment)

        def log_prob(params, trajectory=trajectory):
            chosen = policy.unroll(params, trajectory).log_prob(trajectory.action)
            return jnp.sum(jnp.where(trajectory.mask, chosen, 0))

        expected = jnp.sum(trajectory.reward) * jax.grad(log_prob)(params)
        np.testing.assert_allclose(estimate(params, (), trajectory, numbers()).gradient, expected, atol=1e-6)


def test_the_score_comes_at_the_end_and_survives_in_float32():
    environment = texts(lambda written, params: pgjax.text.Judgement(jnp.full(len(written.tokens), 0.7)))
    policy = by_context()
    trajectory = trajectory_of(OUTPUTS, policy, lively(policy), environment)
    reward = np.asarray(trajectory.reward)
    assert reward.dtype == np.float32
    np.testing.assert_array_equal(reward, np.where(trajectory.last, np.float32(0.7), 0))
    assert (np.asarray(trajectory.last).sum(0) == 1).all()
    assert (np.asarray(trajectory.notes["length"]).sum(0) == (OUTPUTS != PAD).sum(1)).all()  # eos, and nothing after


def trained(judge, beta, iterations, start, learning_rate=0.5):
    environment, policy = texts(judge), by_context()
    penalized = pgjax.kl_penalty(environment, policy, start, beta)
    algorithm = pgjax.reinforce(
        penalized,
        policy._replace(init=lambda key: start),
        slots=64,
        credit=pgjax.whole_episode(),
        baseline=pgjax.leave_one_out(),
        optimizer=optax.sgd,
    )
    run = jax.jit(pgjax.train(algorithm, iterations))
    return run(jax.random.key(0), algorithm.hyperparameters(learning_rate=learning_rate))


def test_the_trained_distribution_is_that_of_the_supervised_model_tilted_by_the_reward():
    beta = 0.5
    environment, policy = texts(), by_context()
    start = policy.init(jax.random.key(2))
    state, curves = trained(reward_of, beta, 4000, start)
    before, after = (chances(policy, params, environment) for params in (start, state.params))
    reward = trajectory_of(OUTPUTS, policy, start, environment).reward.sum(0)
    tilted = before * jnp.exp(reward / beta)
    Z = tilted.sum()
    assert 0.5 * jnp.abs(after - tilted / Z).sum() < 1e-3
    assert 0.5 * jnp.abs(before - tilted / Z).sum() > 0.2
    # Where f is the tilted one, every text has the same r − β ln f/f_SL = β ln Z.
    np.testing.assert_allclose(curves.episode_return[-100:], beta * jnp.log(Z), atol=2e-3)
    assert curves.notes["kl"][-100:].mean() == pytest.approx(float(jnp.sum(after * jnp.log(after / before))), abs=0.02)


def test_actor_critic_comes_to_the_same_distribution():
    # The critic learns v = β ln Σ …, the λ-return looks through nothing that is whole; closed form as above.
    beta = 0.5
    environment, policy = texts(), by_context()
    start = policy.init(jax.random.key(2))
    algorithm = pgjax.reinforce(
        pgjax.kl_penalty(environment, policy, start, beta),
        policy._replace(init=lambda key: start),
        slots=64,
        credit=pgjax.lambda_return(),
        baseline=pgjax.learned_value(value_by_context(), steps=2),
        optimizer=optax.sgd,
    )
    run = jax.jit(pgjax.train(algorithm, 1500))
    state, _ = run(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.5, value_learning_rate=0.03))
    before, after = (chances(policy, params, environment) for params in (start, state.params))
    tilted = before * jnp.exp(trajectory_of(OUTPUTS, policy, start, environment).reward.sum(0) / beta)
    assert 0.5 * jnp.abs(after - tilted / tilted.sum()).sum() < 0.02


@pytest.mark.slow
def test_policies_write_no_pads_and_nothing_that_is_forbidden():
    for forbid, legal in (((), {EOS, A, B}), ((EOS,), {A, B}), ((A, EOS), {B})):
        environment = texts(forbid=forbid)
        policies = [pgjax.random_policy(environment), pgjax.policy_for(environment), tiny_transformer(environment)]
        policies.append(pgjax.recurrent(environment.observation_space, environment.action_space, 4, ()))
        for policy in policies:
            params = policy.init(jax.random.key(0))
            run = jax.jit(pgjax.collect(environment, policy, slots=64))
            trajectory = run(jax.random.key(1), params, environment.params)
            assert set(np.unique(trajectory.action[trajectory.mask])) == legal
            entropy = policy.unroll(params, trajectory).entropy()[trajectory.mask]
            assert entropy.max() <= np.log(len(legal)) + 1e-6
        uniform = policies[0].step((), (), trajectory.observation[0])[1]
        np.testing.assert_allclose(uniform.entropy(), np.log(len(legal)), rtol=1e-6)
    outputs = pgjax.text.outputs(texts(forbid=[EOS]), policies[0], 8)
    assert (outputs(jax.random.key(0), (), texts().params)[:, 3:] >= A).all()  # T tokens each


def test_without_a_reward_nothing_moves():
    start = by_context().init(jax.random.key(2))

    def nothing(written, params):
        return pgjax.text.Judgement(jnp.zeros(len(written.tokens)))

    state, curves = trained(nothing, 0.5, 20, start)
    np.testing.assert_allclose(state.params, start, atol=1e-6)
    np.testing.assert_allclose(curves.notes["kl"], 0, atol=1e-5)


def test_outputs_to_one_prompt_lie_beside_each_other():
    prompts = np.array([[PAD, BOS, A], [BOS, A, B], [PAD, PAD, BOS], [BOS, B, B]])
    environment, policy = texts(prompts=prompts), by_context()
    run = jax.jit(pgjax.collect(environment, policy, slots=60, group_size=5))
    trajectory = run(jax.random.key(0), lively(policy), environment.params)
    first = np.asarray(trajectory.observation[0]).reshape(12, 5, 3)
    assert (first == first[:, :1]).all()
    assert len(np.unique(first[:, 0], axis=0)) == 4
    assert len(np.unique(np.asarray(trajectory.action[0]).reshape(12, 5), axis=0)) > 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: texts(prompts=np.zeros((0, 3), int)), r"expected one or more prompts \[N, W\]"),
        (lambda: texts(prompts=np.array([[BOS, V]])), "expected tokens from 0 to 4, got 5 at"),
        (lambda: texts(prompts=[[BOS], [BOS, A]]), r"expected prompts of one length \[N, W\]"),
        (lambda: texts(forbid=[V]), "expected tokens from 0 to 4, got 5"),
        (lambda: texts(forbid=[EOS, A, B]), "expected 1 or more tokens to write with, got 5, all of them forbidden"),
        (lambda: texts(lambda written, params: written.output.sum(1)), "a judge that returns a Judgement, got a"),
        (
            lambda: texts(lambda written, params: pgjax.text.Judgement(written.output.sum(1, keepdims=True))),
            r"the reward that the judge returns of 2 texts to be of shape \(2,\), got \(2, 1\)",
        ),
        (
            lambda: texts(lambda written, _: pgjax.text.Judgement(jnp.zeros(len(written.tokens)), {"long": 1.0})),
            r"the note 'long' that the judge returns of 2 texts to be of shape \(2,\), got \(\)",
        ),
        (
            lambda: texts(lambda written, params: pgjax.text.Judgement(1 if written.output.any() else 0)),
            "expected a judge of texts that JAX can trace",
        ),
        (lambda: texts(prompts=np.array([[BOS, PAD]])), "expected prompts with pads to their left alone"),
        (
            lambda: pgjax.text.text_environment([[BOS]], 3, T, reward_of),
            "expected a vocabulary of 4 or more tokens, .*, got 3",
        ),
        (lambda: pgjax.leave_one_out(group_size=1), "expected groups of 2 or more for a leave-one-out baseline, got 1"),
        (
            lambda: pgjax.estimators.leave_one_out_by_time(group_size=0),
            "expected groups of 2 or more for a leave-one-out baseline",
        ),
        (lambda: pgjax.text.text_environment(PROMPT, V, 0, reward_of), "expected outputs of 1 or more tokens, got 0"),
        (
            lambda: pgjax.kl_penalty(texts(), by_context(), by_context().init(jax.random.key(0)), -0.1),
            "expected a KL coefficient β of 0 or more, got -0.1",
        ),
        (
            lambda: pgjax.reinforce(texts(), by_context(), slots=6, group_size=4),
            "expected groups of the same start that divide 6 slots, got 4",
        ),
        (
            lambda: pgjax.reinforce(pgjax.maze(), pgjax.policy_for(pgjax.maze()), min_steps_per_slot=9, group_size=2),
            "expected min_steps_per_slot=0 for episodes of the same start",
        ),
        (
            lambda: pgjax.reinforce(texts(), by_context(), min_steps_per_slot=8),
            "expected min_steps_per_slot=0 for an environment with a score",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()


def test_groups_that_do_not_divide_the_episodes_are_refused():
    trajectory = trajectory_of(OUTPUTS[:6], by_context(), lively(by_context()), texts())
    with pytest.raises(pgjax.InputError, match="groups of 2 or more that divide 6 slots"):
        pgjax.leave_one_out(group_size=4).values((), trajectory, trajectory.reward, None)


def test_without_a_price_a_reference_may_exclude_what_is_written():
    environment, policy = texts(), by_context()
    params = lively(policy)
    certain = pgjax.policies.top_k(policy, 1)
    free = pgjax.kl_penalty(environment, certain, params)
    trajectory = trajectory_of(OUTPUTS, policy, params, free)
    np.testing.assert_array_equal(trajectory.reward, trajectory_of(OUTPUTS, policy, params, environment).reward)
    assert np.isinf(trajectory.notes["kl"]).any()


def test_a_note_with_the_name_of_a_metric_is_refused():
    def judge(written, params):
        zeros = jnp.zeros(len(written.tokens))
        return pgjax.text.Judgement(zeros, {"entropy": zeros})

    algorithm = pgjax.reinforce(texts(judge), by_context(), slots=2)
    with pytest.raises(pgjax.InputError, match="expected notes with names of their own, got entropy"):
        jax.eval_shape(algorithm.update, algorithm.init(jax.random.key(0), algorithm.hyperparameters()))


def test_a_penalty_keeps_any_policy_close():
    # The same wrapper in an environment whose rewards come step by step.
    environment = pgjax.maze(horizon=20)
    policy = pgjax.policy_for(environment)
    start = jax.random.normal(jax.random.key(0), policy.init(jax.random.key(0)).shape)
    penalized = pgjax.kl_penalty(environment, policy, start, 0.5)
    other = start + 1.0 * jax.random.normal(jax.random.key(1), start.shape)
    run = jax.jit(pgjax.collect(penalized, policy, slots=8))
    trajectory = run(jax.random.key(2), other, penalized.params)
    ours, theirs = (policy.unroll(p, trajectory).log_prob(trajectory.action) for p in (other, start))
    expected = jnp.where(trajectory.mask, -1 - 0.5 * (ours - theirs), 0)
    np.testing.assert_allclose(trajectory.reward, expected, atol=1e-5)


def by_prompt(written, params):
    """A judge that says which prompt it is of, and what belongs to it."""
    noted = {"prompt_number": written.prompt.astype(float), "key": written.data["key"][:, 1].astype(float)}
    return pgjax.text.Judgement(params + written.data["worth"], noted)


PROMPTS = np.array([[PAD, BOS, A], [BOS, A, B], [PAD, PAD, BOS], [PAD, BOS, A]])  # the first is there twice
DATA = {"worth": np.array([0.5, 1.0, 2.0, 4.0]), "key": np.arange(8).reshape(4, 2)}


@pytest.mark.parametrize("wrap", [lambda environment, policy: environment, lambda e, p: pgjax.kl_penalty(e, p, 0, 0.0)])
def test_a_judge_gets_what_belongs_to_the_prompt_that_was_drawn(wrap):
    policy = by_context()
    params = lively(policy)
    environment = pgjax.text.text_environment(PROMPTS, V, T, by_prompt, jnp.float32(10.0), data=DATA)
    environment = wrap(environment, policy)
    if hasattr(environment.params, "reference"):
        environment = environment._replace(params=environment.params._replace(reference=params))
    trajectory = jax.jit(pgjax.collect(environment, policy, slots=60, group_size=3))(
        jax.random.key(0), params, environment.params
    )
    which = np.asarray(trajectory.notes["prompt_number"].sum(0)).astype(int)
    assert set(which) == {0, 1, 2, 3}  # prompts that look alike are told apart
    assert (which.reshape(20, 3) == which[::3, None]).all()  # a group has one
    np.testing.assert_array_equal(trajectory.observation[0], PROMPTS[which])
    np.testing.assert_allclose(trajectory.reward.sum(0), 10 + DATA["worth"][which])
    np.testing.assert_array_equal(trajectory.notes["key"].sum(0), DATA["key"][which, 1])
    assert "prompt" not in trajectory.notes


def test_data_of_prompts_can_differ_from_run_to_run():
    environment = pgjax.text.text_environment(PROMPTS, V, T, by_prompt, jnp.float32(0.0), data=DATA)
    policy = by_context()
    params, run = lively(policy), pgjax.collect(environment, policy, slots=8)

    def rewards(worth):
        data = {**environment.params.data, "worth": worth}
        return run(jax.random.key(0), params, environment.params._replace(data=data)).reward.sum(0)

    worth = jnp.stack([jnp.arange(4.0), 3 * jnp.arange(4.0)])
    one, three = jax.jit(jax.vmap(rewards))(worth)
    np.testing.assert_allclose(3 * one, three)


def test_data_of_other_prompts_are_refused():
    with pytest.raises(pgjax.InputError, match=r"expected data of 4 prompts, arrays \[4, ...\], got one of shape \(3,"):
        pgjax.text.text_environment(PROMPTS, V, T, by_prompt, 0.0, data={**DATA, "worth": np.zeros(3)})
