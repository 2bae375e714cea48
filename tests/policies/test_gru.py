import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import pgjax
from pgjax.policies.gru import RecurrentNetwork
from tests.cases import recall

BOX = pgjax.Box(-2.0, 2.0, (3,))


def seen(observation):
    """A trajectory of which only the observations are known."""
    return pgjax.Trajectory(observation, *[None] * (len(pgjax.Trajectory._fields) - 1))


def test_the_unit_is_that_of_flax():
    network, H = RecurrentNetwork(5, (), 2), 5
    h, x = jax.random.normal(jax.random.key(0), (4, H)), jax.random.normal(jax.random.key(1), (4, 3))
    params = network.init(jax.random.key(2), h, x)["params"]
    params["candidate_bias"], params["gates"]["bias"] = jnp.arange(5) / 10, jnp.arange(15) / 10
    theirs = {f"h{gate}": {"kernel": params["recurrent"][:, i * H : (i + 1) * H]} for i, gate in enumerate("rzn")}
    theirs["hn"]["bias"] = params["candidate_bias"]
    for i, gate in enumerate("rzn"):
        theirs[f"i{gate}"] = jax.tree.map(lambda leaf, i=i: leaf[..., i * H : (i + 1) * H], params["gates"])
    expected, _ = linen.GRUCell(H).apply({"params": theirs}, h, x)
    np.testing.assert_allclose(network.apply({"params": params}, h, x)[0], expected, atol=1e-6)


def test_starts_orthogonal_near_uniform_and_without_memories():
    policy = pgjax.recurrent(BOX, pgjax.Discrete(4), 16)
    params = jax.jit(policy.init)(jax.random.key(0))
    gates = params["network"]["params"]["recurrent"].reshape(16, 3, 16)
    np.testing.assert_allclose(np.einsum("hgi,hgj->gij", gates, gates), np.stack([np.eye(16)] * 3), atol=1e-5)
    np.testing.assert_array_equal(policy.memory(2), np.zeros((2, 16)))
    f = policy.unroll(params, seen(jax.random.normal(jax.random.key(1), (5, 10, 3))))
    assert np.all(f.entropy() > np.log(4) - 1e-3)


def test_the_gradient_through_unroll_is_that_of_step_by_step():
    policy, (T, E) = pgjax.recurrent(BOX, pgjax.Box(-1.0, 3.0, (2,)), 6, (5,)), (4, 3)
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(policy.init)(jax.random.key(0)))
    observation = jax.random.normal(jax.random.key(1), (T, E, 3))
    action = policy.unroll(params, seen(observation)).sample(jax.random.key(2))
    weight = jax.random.normal(jax.random.key(3), (T, E))

    def at_once(params):
        return jnp.sum(weight * policy.unroll(params, seen(observation)).log_prob(action))

    def step_by_step(params):
        memory, total = policy.memory(E), 0.0
        for t in range(T):
            memory, distribution = policy.step(params, memory, observation[t])
            total += jnp.sum(weight[t] * distribution.log_prob(action[t]))
        return total

    whole, stepped = jax.jit(jax.grad(at_once))(params), jax.jit(jax.grad(step_by_step))(params)
    chex.assert_trees_all_close(whole, stepped, rtol=1e-4, atol=1e-5)
    assert all(optax.tree.norm(leaf) > 1e-3 for leaf in jax.tree.leaves(whole))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_truncated_the_gradient_is_that_of_windows_whose_first_memory_is_given(k):
    spaces, (T, E) = (BOX, pgjax.Discrete(4)), (7, 3)
    whole, truncated = (pgjax.recurrent(*spaces, 6, (5,), truncation=steps) for steps in (None, k))
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(whole.init)(jax.random.key(0)))
    observation = jax.random.normal(jax.random.key(1), (T, E, 3))
    action = whole.unroll(params, seen(observation)).sample(jax.random.key(2))
    weight = jax.random.normal(jax.random.key(3), (T, E))

    def total(params, policy):
        return jnp.sum(weight * policy.unroll(params, seen(observation)).log_prob(action))

    def by_windows(params, given):
        memory, total = whole.memory(E), 0.0
        for t in range(T):
            if t % k == 0:
                memory = given[t] if given else memory
            memory, distribution = whole.step(params, memory, observation[t])
            total += jnp.sum(weight[t] * distribution.log_prob(action[t]))
        return total

    given, memory = [], whole.memory(E)
    for row in observation:
        given.append(memory)
        memory, _ = whole.step(params, memory, row)
    of_windows, of_all, expected = jax.jit(
        lambda params: (
            jax.grad(total)(params, truncated), jax.grad(total)(params, whole), jax.grad(by_windows)(params, given)
        )
    )(params)  # fmt: skip
    np.testing.assert_allclose(total(params, truncated), total(params, whole), rtol=1e-6)
    chex.assert_trees_all_close(of_windows, expected, rtol=1e-4, atol=1e-5)
    if k < T:  # a bias, in the weights of what is remembered
        recurrent = [gradient["network"]["params"]["recurrent"] for gradient in (of_windows, of_all)]
        assert np.max(np.abs(recurrent[0] - recurrent[1])) > 0.2 * np.max(np.abs(recurrent[1]))
    else:
        chex.assert_trees_all_close(of_windows, of_all, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_remembers_what_no_policy_without_memory_can_know():
    environment = recall()
    spaces = (environment.observation_space, environment.action_space)
    algorithm = pgjax.reinforce(environment, pgjax.recurrent(*spaces, 8, ()), slots=32)
    run = jax.jit(jax.vmap(pgjax.train(algorithm, iterations=60), (0, None)))
    _, curves = run(pgjax.run_keys(0, range(4)), algorithm.hyperparameters(learning_rate=0.03))
    assert np.all(curves.episode_return[:, -20:].mean(axis=1) > 0.95)

    policy, n = pgjax.mlp(*spaces, (8,)), 4000
    params = jax.tree.map(lambda leaf: 5 * leaf + 0.1, policy.init(jax.random.key(0)))
    returns = jax.jit(pgjax.evaluate(environment, policy, n))(jax.random.key(1), params, ())
    assert abs(returns.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(n)  # wrong with probability below 1e-5


def test_what_makes_no_recurrent_policy_is_refused():
    with pytest.raises(pgjax.InputError, match="width 1 or more, got 0"):
        pgjax.recurrent(BOX, pgjax.Discrete(2), 0)
    with pytest.raises(pgjax.InputError, match="truncation to 1 step or more, got 0"):
        pgjax.recurrent(BOX, pgjax.Discrete(2), 4, truncation=0)
    with pytest.raises(pgjax.InputError, match=r"shape \[d\], got \(2, 2\)"):
        pgjax.recurrent(BOX, pgjax.Box(0, 1, (2, 2)))
