"""Objectives: one gradient where the actions were drawn, what each does elsewhere, and the exact gradient for all."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from experiments.estimators import random_problem
from pgjax.estimators.gradient import Judged, differentiating
from pgjax.exact import Candidate, gradient, largest_z_by_chance, verify
from tests.cases import counting, random_mdp, remembering

OBJECTIVES = {
    "score_function": pgjax.estimators.score_function,
    "importance_ratio": pgjax.estimators.importance_ratio,
    "clipped_ratio": pgjax.estimators.clipped_ratio,
    "sequence_ratio": pgjax.estimators.sequence_ratio,
}
FINITE = pgjax.finite(random_mdp(seed=3), 6)
PLAYED = {
    "without memory": (FINITE, pgjax.tabular(3, 2), {"slots": 3, "min_steps_per_slot": 5}),
    "differentiated whole": (counting(), remembering(), {"slots": 3}),
    "differentiated by chunks": (FINITE, pgjax.recurrent(pgjax.Discrete(3), pgjax.Discrete(2), 4, ()), {"slots": 3}),
}


@pytest.mark.parametrize("played", PLAYED)
def test_all_have_one_gradient_where_the_actions_were_drawn(played):
    environment, policy, settings = PLAYED[played]
    params = jax.tree.map(lambda leaf: leaf + 0.3, policy.init(jax.random.key(1)))
    trajectory = pgjax.collect(environment, policy, **settings)(jax.random.key(2), params, environment.params)
    numbers = pgjax.reinforce(environment, policy).hyperparameters(entropy_coefficient=0.1)
    found = {}
    for name, objective in OBJECTIVES.items():
        estimator = pgjax.policy_gradient(
            environment, policy, pgjax.reward_to_go(), pgjax.no_baseline(), objective=objective()
        )
        found[name] = jax.jit(estimator)(params, (), trajectory, numbers)
        chex.assert_trees_all_close(found[name].gradient, found["score_function"].gradient, rtol=1e-4, atol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(found["score_function"].gradient)) > 0.1
    assert found["score_function"].notes == {}
    np.testing.assert_allclose(found["clipped_ratio"].notes["approx_kl"], 0, atol=1e-6)
    assert float(found["clipped_ratio"].notes["clip_fraction"]) == 0


def test_ratios_are_unbiased_where_the_actions_were_drawn_and_scales_are_not():
    mdp, theta = random_problem(S=3, A=2)
    estimators = pgjax.estimators
    candidates = {
        name: Candidate(pgjax.reward_to_go(), pgjax.leave_one_out(), objective=objective())
        for name, objective in OBJECTIVES.items()
    }
    candidates["standardized"] = Candidate(
        pgjax.reward_to_go(), pgjax.no_baseline(), scale=estimators.batch_standardized()
    )
    candidates["group mean"] = Candidate(pgjax.reward_to_go(), estimators.group_mean(2))
    found = verify(mdp, 3, pgjax.tabular(3, 2), theta, candidates, samples=16384, batch=8192)
    bound = largest_z_by_chance(4 * len(OBJECTIVES))
    assert max(found[name].max_abs_z for name in OBJECTIVES) < bound
    assert found["standardized"].max_abs_z > 2 * bound
    assert found["group mean"].max_abs_z > 2 * bound


def one_step_problem():
    """A bandit of three arms as an MDP of one step, its parameters when actions were drawn, and others."""
    mdp = pgjax.environments.tables([1.0, 0.0], np.tile([0.0, 1.0], (2, 3, 1)), [[1.0, -0.5, 2.0], [0, 0, 0]], [0, 1])
    drew, now = jnp.array([[0.5, 0.1, -0.3], [0, 0, 0]]), jnp.array([[-0.2, 0.4, 0.9], [0, 0, 0]])
    return mdp, drew, now


def expected_objective(objective, advantage):
    """The exact expectation of an objective's gradient at other parameters, and of its notes, over all three arms."""
    _, drew, now = one_step_problem()
    f_old = jax.nn.softmax(drew[0])
    none = jnp.zeros((1, 3), bool)
    played = pgjax.Trajectory(
        jnp.zeros((1, 3), jnp.int32),
        jnp.arange(3)[None],
        advantage[None],
        ~none,
        none,
        mask=~none,
        time=jnp.zeros((1, 3), jnp.int32),
        rows=jnp.int32(1),
        log_prob=jnp.log(f_old)[None],
    )

    def total(theta):
        terms = objective(pgjax.policies.Categorical(theta[played.observation]), played, played.reward)
        return jnp.sum(f_old[None] * terms.ascended), {
            name: jnp.sum(f_old[None] * note) for name, note in terms.notes.items()
        }

    return jax.grad(total, has_aux=True)(now)


def test_an_importance_ratio_has_the_gradient_of_the_present_policy():
    mdp, drew, now = one_step_problem()
    found, notes = expected_objective(pgjax.estimators.importance_ratio(), mdp.r[0])
    np.testing.assert_allclose(found, gradient(mdp, 1, pgjax.tabular(2, 3), now), rtol=1e-5, atol=1e-6)
    f_old, f = jax.nn.softmax(drew[0]), jax.nn.softmax(now[0])
    np.testing.assert_allclose(notes["approx_kl"], jnp.sum(f_old * jnp.log(f_old / f)), rtol=1e-5)
    wrong, _ = expected_objective(pgjax.estimators.score_function(), mdp.r[0])
    assert np.abs(wrong - found).max() > 0.1


def test_what_is_clipped_by_hand():
    _, drew, now = one_step_problem()
    f_old, f = jax.nn.softmax(drew[0]), jax.nn.softmax(now[0])
    ratio = np.asarray(f / f_old)
    assert ratio[0] < 0.8 < 0.9 < ratio[1] < 1.2 < ratio[2]
    gradients = np.asarray(f)[:, None] * (np.eye(3) - np.asarray(f))  # ∇f of each arm
    # What is good and likelier already, or bad and less likely already, gains nothing; the rest is as without clipping.
    for advantage, gains in (([1.0, 1.0, 1.0], [1, 1, 0]), ([-1.0, -1.0, -1.0], [0, 1, 1])):
        found, notes = expected_objective(pgjax.estimators.clipped_ratio(0.2), jnp.array(advantage))
        expected = (np.array(advantage) * gains) @ gradients
        np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(notes["clip_fraction"], jnp.sum(f_old * (1 - np.array(gains))), rtol=1e-6)


def test_a_step_that_is_padding_adds_nothing_whatever_is_in_it():
    none = jnp.zeros((1, 2), bool)
    rows = pgjax.Trajectory(
        none, jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2)), none, none,
        mask=jnp.array([[True, False]]), time=none, rows=1, log_prob=jnp.array([[-1.0, -900.0]]),
    )  # fmt: skip
    f = pgjax.policies.Categorical(jnp.array([[[0.0, 0.0], [-jnp.inf, 0.0]]]))
    for objective in OBJECTIVES.values():
        terms = objective()(f, rows, jnp.array([[2.0, 0.0]]))
        assert terms.ascended[0, 1] == 0
        assert np.isfinite(terms.ascended[0, 0])


@pytest.mark.parametrize("epsilon", [0, -0.1, float("nan")])
@pytest.mark.parametrize("objective", [pgjax.estimators.clipped_ratio, pgjax.estimators.sequence_ratio])
def test_no_range_of_ratios_is_refused(objective, epsilon):
    with pytest.raises(pgjax.InputError, match=f"expected a clipping range ε above 0, got {epsilon}"):
        objective(epsilon)


@pytest.mark.parametrize(("played", "moved"), [("without memory", 0.8), ("differentiated by chunks", 0.2)])
def test_a_sequence_ratio_has_the_gradient_of_its_formula(played, moved):
    """Σ_i n_i min(s_i A_i, clip(s_i) A_i) over episodes, differentiated as it stands."""
    environment, policy, _ = PLAYED[played]
    old = jax.tree.map(lambda leaf: leaf + 0.3, policy.init(jax.random.key(1)))
    now = jax.tree.map(lambda leaf: leaf * 0.5 - moved * jnp.arange(leaf.size).reshape(leaf.shape), old)
    episodes = pgjax.collect(environment, policy, slots=8)(jax.random.key(2), old, environment.params)
    real, epsilon = episodes.mask, 0.15
    A = jnp.array([1.0, -1.0, 2.0, -0.5, 1.0, -1.0, 0.5, -2.0])
    n = real.sum(0)

    def ratios(params):
        log_ratio = policy.unroll(params, episodes).log_prob(episodes.action) - episodes.log_prob
        return jnp.exp(jnp.sum(jnp.where(real, log_ratio, 0), 0) / n)

    def formula(params):
        s = ratios(params)
        return jnp.sum(n * jnp.minimum(s * A, jnp.clip(s, 1 - epsilon, 1 + epsilon) * A)) / 8

    judged = Judged(jnp.where(real, A, 0), episodes.reward, ())
    numbers = pgjax.reinforce(environment, policy).hyperparameters()
    estimate = jax.jit(differentiating(policy, pgjax.estimators.sequence_ratio(epsilon)))
    found = estimate(now, episodes, judged, numbers)
    chex.assert_trees_all_close(found.gradient, jax.grad(formula)(now), rtol=1e-3, atol=1e-5)
    s = np.asarray(ratios(now))
    clipped = ((s > 1 + epsilon) & (A > 0)) | ((s < 1 - epsilon) & (A < 0))
    assert 0 < clipped.sum() < 8
    assert float(found.notes["approx_kl"]) > 0
