import jax
import jax.numpy as jnp
import numpy as np

import pgjax
from pgjax.algorithms.given import made_with
from pgjax.policies.adapters import frozen, low_rank
from tests.cases import random_mdp

ENVIRONMENT = pgjax.finite(random_mdp(), 5)
POLICY = pgjax.mlp(ENVIRONMENT.observation_space, ENVIRONMENT.action_space, (64, 64))
WEIGHTS = POLICY.init(jax.random.key(3))


def adapted(weights):
    environment = pgjax.kl_penalty(ENVIRONMENT, frozen(POLICY, weights), (), 0.1)
    return pgjax.reinforce(environment, low_rank(POLICY, weights, 2), slots=4)


def test_an_algorithm_made_with_weights_learns_as_the_one_that_closes_over_them():
    algorithm, closed = made_with(adapted, WEIGHTS), adapted(WEIGHTS)
    state = algorithm.init(jax.random.key(0), algorithm.hyperparameters(learning_rate=0.1))
    other = closed.init(jax.random.key(0), closed.hyperparameters(learning_rate=0.1))
    update, update_closed = (jax.jit(each.update).lower(begun) for each, begun in ((algorithm, state), (closed, other)))
    compiled, compiled_closed = update.compile(), update_closed.compile()
    for _ in range(2):
        state, metrics = compiled(state)
        other, others = compiled_closed(other)
    for one, same in zip(*map(jax.tree.leaves, ((state.params, metrics), (other.params, others))), strict=True):
        np.testing.assert_allclose(one, same, atol=1e-5)
    assert metrics.notes["kl"] != 0
    assert all(jnp.any(adapter.B != 0) for adapter in state.params.values())
    jax.tree.map(np.testing.assert_array_equal, state.weights, WEIGHTS)
    # Nor is anything of their size a constant of its program.
    text, closed_text = update.as_text(), update_closed.as_text()
    assert "dense<" in closed_text
    assert len(text) + 4 * 64 * 64 < len(closed_text)


def test_each_run_can_have_weights_of_its_own():
    policy = pgjax.tabular(3, 2)

    def start(theta):
        return pgjax.reinforce(ENVIRONMENT, policy._replace(init=lambda key: theta), slots=2)

    algorithm, several = made_with(start, jnp.zeros((3, 2))), jnp.arange(12.0).reshape(2, 3, 2)
    numbers = algorithm.hyperparameters(learning_rate=0.0)

    @jax.vmap
    def run(key, theta):
        return algorithm.update(algorithm.init(key, numbers._replace(weights=theta)))[0]

    states = jax.jit(run)(jax.random.split(jax.random.key(0), 2), several)
    np.testing.assert_array_equal(states.weights, several)
    np.testing.assert_array_equal(states.params, several)
