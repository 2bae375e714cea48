"""Divergences of a batch, products with its Fisher information, and steps that they measure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import pgjax
from pgjax import algorithms, exact
from pgjax.algorithms.divergence import Nearby, kl_gradient, mean_kl, nearby
from pgjax.estimators import importance_ratio
from pgjax.estimators.gradient import Judged
from pgjax.steps import all_steps
from tests.cases import counting, random_mdp, remembering

MDP, T = random_mdp(3), 3
FINITE, TABLE = pgjax.finite(MDP, T), pgjax.tabular(3, 2)
THETA = jnp.array([[0.4, -0.3], [-0.2, 0.6], [0.0, 0.0]])
NETWORK = pgjax.mlp(pgjax.Discrete(3), pgjax.Discrete(2), (4,))
PLAYED = {
    "table": (FINITE, TABLE, {"slots": 4, "min_steps_per_slot": 5}),
    "network": (FINITE, NETWORK, {"slots": 4, "min_steps_per_slot": 5}),
    "memory": (counting(), remembering(), {"slots": 3}),
    "recurrent": (FINITE, pgjax.recurrent(pgjax.Discrete(3), pgjax.Discrete(2), 3, ()), {"slots": 3}),
}


def played(name):
    environment, policy, settings = PLAYED[name]
    params = jax.tree.map(lambda leaf: leaf + 0.2, policy.init(jax.random.key(1)))
    episodes = pgjax.collect(environment, policy, **settings)(jax.random.key(2), params, environment.params)
    return policy, params, episodes


def judged(trajectory):
    return Judged(trajectory.mask.astype(float), trajectory.reward, ())


@pytest.mark.parametrize("name", PLAYED)
def test_a_product_is_with_the_explicit_fisher_matrix(name):
    policy, params, episodes = played(name)
    flat, back = ravel_pytree(params)

    def log_probs(flat):
        return jax.nn.log_softmax(policy.unroll(back(flat), episodes).logits)

    J = np.asarray(jax.jacobian(log_probs)(flat))
    real = np.asarray(episodes.mask)
    f, J = np.exp(log_probs(flat))[real], J[real]
    explicit = np.einsum("na,nad,nae->de", f, J, J) / real.shape[1]
    near = nearby(policy, importance_ratio(), params, episodes, judged(episodes))
    product = jax.jit(lambda v: ravel_pytree(near.fisher(back(v)))[0])
    for i in range(3):
        v = jnp.asarray(np.random.default_rng(i).normal(size=flat.size), flat.dtype)
        np.testing.assert_allclose(product(v), explicit @ v, rtol=1e-3, atol=1e-4)
    assert np.abs(explicit).max() > 0.1
    np.testing.assert_allclose(near.steps, real.sum() / real.shape[1])


def test_the_divergence_is_that_over_all_actions_and_its_gradient_the_derivative():
    policy, params, episodes = played("table")
    new = params + jnp.arange(6.0).reshape(3, 2) * 0.1
    f, g = (np.asarray(jax.nn.softmax(theta)) for theta in (params, new))
    by_state = (f * np.log(f / g)).sum(1)
    seen = np.asarray(episodes.observation)[np.asarray(episodes.mask)]
    np.testing.assert_allclose(mean_kl(policy, params, new, episodes), by_state[seen].mean(), rtol=1e-4)
    expected = np.zeros((3, 2))
    np.add.at(expected, seen, (g - f)[seen])
    for steps in (None, all_steps(episodes)):
        found = kl_gradient(policy, params, new, episodes, steps)
        np.testing.assert_allclose(found, expected / 4, rtol=1e-4, atol=1e-5)
    some = all_steps(episodes)
    half = some._replace(end=some.end // 2)
    part = np.zeros((3, 2))
    first = np.asarray(episodes.observation).reshape(-1)[np.asarray(some.places[: int(half.end)])]
    np.add.at(part, first, (g - f)[first])
    np.testing.assert_allclose(
        kl_gradient(policy, params, new, episodes, half), part * len(seen) / len(first) / 4, rtol=1e-4, atol=1e-5
    )


def every_state_as_often_as_it_is_met():
    """Nearby of the exact expectation over episodes of a table: F by `exact.information`."""
    F = jnp.sum(exact.information(MDP, T, TABLE, THETA), axis=0)
    f = exact.probabilities(MDP, TABLE, THETA)
    steps = jnp.sum(exact.state_distribution(MDP, T, f))

    def tried(new):
        gain = exact.expected_return(MDP, T, jax.nn.softmax(new)) - exact.expected_return(MDP, T, f)
        visits = jnp.sum(exact.state_distribution(MDP, T, f), axis=0)
        return gain, visits @ jnp.sum(f * jnp.log(f / jax.nn.softmax(new)), axis=1) / steps

    return F, Nearby(lambda v: (F @ v.reshape(-1)).reshape(v.shape), tried, steps)


def test_the_natural_gradient_of_a_table_is_the_exact_solve():
    F, near = every_state_as_often_as_it_is_met()
    descent = -exact.gradient(MDP, T, TABLE, THETA)
    chosen = algorithms.natural(iterations=6, damping=1e-2)
    found, _ = chosen.update(descent, chosen.init(THETA), THETA, near=near)
    expected = np.linalg.solve(np.asarray(F) + 1e-2 * np.eye(6), np.asarray(descent).reshape(-1))
    np.testing.assert_allclose(np.asarray(found).reshape(-1), expected, rtol=1e-3, atol=1e-5)
    eta = 0.5
    step = algorithms.natural_gradient(eta)
    whole, _ = step.update(descent, step.init(THETA), THETA, near=near)
    default = np.linalg.solve(np.asarray(F) + 1e-3 * np.eye(6), np.asarray(descent).reshape(-1))
    np.testing.assert_allclose(np.asarray(whole).reshape(-1), -eta * default, rtol=1e-2, atol=1e-4)


def test_the_fisher_information_of_many_episodes_is_the_exact_one():
    F, _ = every_state_as_often_as_it_is_met()
    episodes = pgjax.collect(FINITE, TABLE, slots=4096)(jax.random.key(0), THETA, MDP)
    near = nearby(TABLE, importance_ratio(), THETA, episodes, judged(episodes))
    v = jnp.array([[1.0, -1.0], [0.5, 2.0], [1.0, 1.0]])
    np.testing.assert_allclose(near.fisher(v).reshape(-1), F @ v.reshape(-1), atol=0.03)
    assert float(jnp.abs(F @ v.reshape(-1)).max()) > 0.3


def test_a_trust_region_moves_the_policy_by_delta_and_gains():
    F, near = every_state_as_often_as_it_is_met()
    descent = -exact.gradient(MDP, T, TABLE, THETA)
    for delta in (1e-4, 1e-2):
        step = algorithms.trust_region(delta)
        change, _ = jax.jit(lambda descent, step=step: step.update(descent, (), THETA, near=near))(descent)
        gained, moved = near.tried(THETA + change)
        assert float(gained) > 0
        assert delta / 4.5 < float(moved) <= delta  # of a halving at most, which quarters it
        natural = np.linalg.solve(np.asarray(F) + 1e-3 * np.eye(6), np.asarray(descent).reshape(-1))
        along = -natural @ np.asarray(change).reshape(-1) / np.linalg.norm(natural) / np.linalg.norm(change)
        np.testing.assert_allclose(along, 1, atol=1e-4)


def test_a_step_that_gains_nothing_or_goes_too_far_is_not_taken():
    _, near = every_state_as_often_as_it_is_met()
    descent, step = -exact.gradient(MDP, T, TABLE, THETA), algorithms.trust_region(0.01)
    worse = near._replace(tried=lambda new: (-jnp.ones(()), jnp.zeros(())))
    far = near._replace(tried=lambda new: (jnp.ones(()), jnp.ones(())))
    for around in (worse, far):
        change, _ = step.update(descent, (), THETA, near=around)
        np.testing.assert_array_equal(change, 0)
    change, _ = step.update(0 * descent, (), THETA, near=near)
    np.testing.assert_array_equal(change, 0)
    once, _ = step.update(descent, (), THETA, near=near._replace(tried=lambda new: (jnp.ones(()), jnp.zeros(()))))
    gone = near._replace(
        tried=lambda new: (jnp.ones(()), jnp.where(jnp.abs(new - THETA).max() < 0.6 * jnp.abs(once).max(), 0, 1.0))
    )
    half, _ = step.update(descent, (), THETA, near=gone)
    np.testing.assert_allclose(half, once / 2, rtol=1e-5)


def updated(rate=0.3, **parts):
    algorithm = pgjax.reinforce(FINITE, TABLE, slots=8, objective=importance_ratio(), optimizer=optax.sgd, **parts)
    state = algorithm.init(jax.random.key(0), algorithm.hyperparameters(learning_rate=rate))
    return jax.jit(algorithm.update)(state._replace(params=THETA))


def test_epochs_stop_once_the_policy_is_too_far():
    """With a limit that the first epoch passes, the update is that of one epoch; with one that none does, of all."""
    one, _ = updated(epochs=1)
    three, free = updated(epochs=3)
    stopped, told = updated(epochs=3, max_kl=1e-6)
    np.testing.assert_allclose(stopped.params, one.params, rtol=1e-6)
    assert float(told.notes["epochs"]) == 1
    assert float(told.notes["policy_kl"]) > 1e-6
    unhindered, told = updated(epochs=3, max_kl=1e6)
    np.testing.assert_allclose(unhindered.params, three.params, rtol=1e-6)
    assert float(told.notes["epochs"]) == 3
    np.testing.assert_allclose(told.gradient_norm, free.gradient_norm, rtol=1e-5)
    assert np.abs(three.params - one.params).max() > 0.01


def test_in_a_batch_each_run_stops_by_itself():
    algorithm = pgjax.reinforce(
        FINITE, TABLE, slots=8, objective=importance_ratio(), optimizer=optax.sgd, epochs=3, max_kl=1e-3
    )
    numbers = algorithm.hyperparameters()
    rates = jnp.array([1e-3, 1.0])
    states = jax.vmap(lambda rate: algorithm.init(jax.random.key(0), numbers._replace(learning_rate=rate)))(rates)
    _, told = jax.jit(jax.vmap(algorithm.update))(states)
    assert told.notes["epochs"].tolist() == [3, 1]


def test_a_penalty_holds_the_policy_and_does_nothing_at_first():
    free, _ = updated(epochs=1)
    first, _ = updated(epochs=1, kl_coefficient=5.0)
    np.testing.assert_allclose(first.params, free.params, atol=1e-6)
    (far, _), (held, _) = updated(epochs=6), updated(epochs=6, kl_coefficient=5.0)
    assert np.abs(held.params - THETA).max() < 0.7 * np.abs(far.params - THETA).max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: updated(epochs=2, max_kl=0.0), "divergence to stop at above 0, got 0.0"),
        (lambda: updated(max_kl=0.1), "2 or more epochs beside max_kl"),
        (lambda: updated(epochs=2, kl_coefficient=-1.0), "coefficient of 0 or more for a divergence, got -1.0"),
        (lambda: algorithms.natural(iterations=0), "1 or more iterations of conjugate gradients, got 0"),
        (lambda: algorithms.trust_region(0.1, damping=0), "damping above 0, got 0"),
        (
            lambda: pgjax.learned_value(pgjax.policies.tabular_value(3), optimizer=algorithms.natural_gradient),
            "stored batch of a policy's episodes for a natural gradient, got none",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(pgjax.InputError, match=message):
        call()
