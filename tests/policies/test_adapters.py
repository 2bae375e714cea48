import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pgjax
from pgjax.policies.adapters import frozen, low_rank, merged
from tests.cases import counting

ENVIRONMENT = counting()
POLICIES = {
    "mlp": pgjax.mlp(ENVIRONMENT.observation_space, ENVIRONMENT.action_space, (8, 8)),
    "recurrent": pgjax.recurrent(ENVIRONMENT.observation_space, ENVIRONMENT.action_space, 8, (4,)),
}


def lively(adapters):
    return jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), adapters)


def played(policy, params):
    return jax.jit(pgjax.collect(ENVIRONMENT, policy, slots=4))(jax.random.key(1), params, ENVIRONMENT.params)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_of_low_rank_is_the_merged_one(name):
    policy = POLICIES[name]
    given = policy.init(jax.random.key(0))
    adapted = low_rank(policy, given, 2, alpha=3.0)
    own = lively(adapted.init(jax.random.key(1)))
    whole = merged(given, own, alpha=3.0)
    trajectory, again = played(adapted, own), played(policy, whole)
    np.testing.assert_array_equal(trajectory.action, again.action)
    np.testing.assert_allclose(trajectory.log_prob, again.log_prob, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        adapted.unroll(own, trajectory).log_prob(trajectory.action),
        policy.unroll(whole, trajectory).log_prob(trajectory.action),
        rtol=1e-5,
        atol=1e-6,
    )
    for before, after in zip(jax.tree.leaves(given), jax.tree.leaves(whole), strict=True):
        difference = np.asarray(after) - np.asarray(before)
        rank = np.linalg.matrix_rank(difference, tol=1e-4) if after.ndim == 2 else int(difference.any())
        assert rank == (min(2, *after.shape) if after.ndim == 2 else 0)


def test_it_begins_as_the_policy_that_was_given():
    policy = POLICIES["mlp"]
    given = policy.init(jax.random.key(0))
    adapted = low_rank(policy, given, 3)
    trajectory, again = played(adapted, adapted.init(jax.random.key(1))), played(policy, given)
    np.testing.assert_array_equal(trajectory.log_prob, again.log_prob)
    np.testing.assert_array_equal(trajectory.action, played(frozen(policy, given), ()).action)


def test_the_factor_and_the_product_by_hand():
    policy = pgjax.tabular(3, 2)
    own = low_rank(policy, jnp.ones((3, 2)), 1).init(jax.random.key(0))
    ((name, adapter),) = own.items()
    moved = {name: adapter._replace(A=jnp.array([[1.0], [0.0], [2.0]]), B=jnp.array([[3.0, 4.0]]))}
    np.testing.assert_array_equal(merged(jnp.ones((3, 2)), moved), [[4, 5], [1, 1], [7, 9]])
    np.testing.assert_array_equal(merged(jnp.ones((3, 2)), moved, alpha=2.0), [[7, 9], [1, 1], [13, 17]])


def test_an_optimizer_keeps_moments_of_the_adapters_alone():
    policy = POLICIES["mlp"]
    given = policy.init(jax.random.key(0))
    own = low_rank(policy, given, 1, chosen=lambda name: "Dense_0" not in name).init(jax.random.key(1))
    shapes = sorted((adapter.A.shape, adapter.B.shape) for adapter in own.values())
    assert shapes == [((2, 1), (1, 8)), ((8, 1), (1, 8))]  # of matrices 2 × 8 and 8 × 8; that of 1 × 8 is left out
    kept = sum(leaf.size for leaf in jax.tree.leaves(optax.adam(1e-3).init(own)))
    assert kept == 2 * (8 + 2 + 8 + 8) + 1
    whole = sum(leaf.size for leaf in jax.tree.leaves(optax.adam(1e-3).init(given)))
    assert whole == 2 * (8 + 8 + 8 * 8 + 8 + 8 * 2 + 2) + 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: low_rank(pgjax.tabular(3, 2), jnp.ones((3, 2)), 0), "expected rank to be an integer of 1 or more"),
        (
            lambda: low_rank(pgjax.tabular(3, 2), jnp.ones((3, 2)), 1, chosen=lambda name: False),
            "expected one or more matrices to adapt, got none among theta",
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()
