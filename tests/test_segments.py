"""Gradients and maps over the steps of policies with memory: by chunks as at once, packed as one by one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax import segments
from pgjax.devices import ACTIVATIONS
from pgjax.policies.sampling import at_temperature
from pgjax.segments import bytes_kept, chunk_rows, gradient_over_steps, map_over_steps, slots_together
from tests.cases import counting, random_mdp

MDP = random_mdp()
SELDOM = MDP.p.at[..., -1].mul(0.2)  # that an episode ends
FINITE = pgjax.finite(
    MDP._replace(p=SELDOM / SELDOM.sum(-1, keepdims=True)), 37
)  # most episodes are longer than a chunk, whose borders the memory has to cross
GRU = pgjax.recurrent(pgjax.Discrete(3), pgjax.Discrete(2), 6, ())
WINDOWS = pgjax.recurrent(pgjax.Discrete(3), pgjax.Discrete(2), 6, (), truncation=5)  # none of a chunk's borders
POLICIES = {"recurrent": GRU, "at a temperature": at_temperature(GRU, 0.7), "truncated": WINDOWS}


def lively(policy, key=0):
    """Parameters with which what is remembered decides."""
    return jax.tree.map(lambda leaf: 2 * leaf + 0.1, jax.jit(policy.init)(jax.random.key(key)))


def collected(policy, params, environment=FINITE, **settings):
    return jax.jit(pgjax.collect(environment, policy, **settings))(jax.random.key(3), params, environment.params)


def objective(f, rows, weight):
    log_prob = jnp.where(rows.mask, f.log_prob(rows.action), 0)
    return jnp.sum(weight * log_prob), jnp.sum(jnp.where(rows.mask, f.entropy(), 0))


def weights(trajectory):
    return jnp.where(trajectory.mask, jax.random.normal(jax.random.key(5), trajectory.mask.shape), 0)


def apart(trajectory, *arrays):
    """A trajectory's observations and actions, and arrays like them, with each episode in a slot of its own, [T, N].

    The row after an episode is that after it; which row of which slot each is from comes first, and then which are
    real.
    """
    starts = np.argwhere(np.asarray(trajectory.first))
    ends = [t + int(np.argmax(np.asarray(trajectory.last)[t:, e])) + 1 for t, e in starts]
    row = starts[:, 0] + np.arange(max(end - t for (t, _), end in zip(starts, ends, strict=True)) + 1)[:, None]
    real = row < np.asarray(ends)
    where = (np.minimum(row, np.asarray(ends)), np.broadcast_to(starts[:, 1], row.shape))
    taken = (leaf[where] for leaf in (trajectory.observation, trajectory.action, *arrays))
    return where, real, *taken


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("settings", [{"slots": 16}, {"slots": 5, "min_steps_per_slot": 40}, {"slots": 5, "chunk": 3}])
def test_the_gradient_by_chunks_is_that_of_each_episode_alone(name, settings):
    policy = POLICIES[name]
    params = lively(policy)
    trajectory = collected(policy, params, **settings)
    weight = weights(trajectory)
    assert trajectory.rows > chunk_rows(trajectory)  # more than one chunk
    assert trajectory.episodes > 10 or not settings.get("min_steps_per_slot")
    gradient, entropy = jax.jit(lambda params: gradient_over_steps(policy, objective, params, trajectory, weight))(
        params
    )

    _, real, observation, action, weight = apart(trajectory, weight)
    alone = trajectory._replace(observation=observation, action=action, mask=real)

    @jax.jit
    def one_by_one(params):
        return jax.grad(lambda params: objective(policy.unroll(params, alone), alone, weight * real), has_aux=True)(
            params
        )

    expected, sums = one_by_one(params)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(entropy, sums, rtol=1e-5)


def test_a_map_by_chunks_says_what_each_episode_says_alone():
    environment = counting(limit=99, horizon=10)  # every episode is cut off
    policy = pgjax.recurrent(environment.observation_space, environment.action_space, 6, ())
    params = lively(policy)
    trajectory = collected(policy, params, environment, slots=3, min_steps_per_slot=25, chunk=4)
    Q = jax.random.normal(jax.random.key(1), (*trajectory.mask.shape, 2))
    mapped = jax.jit(lambda params: map_over_steps(policy, lambda f, rows, Q: f.expectation(Q), params, trajectory, Q))(
        params
    )
    # With the final observation, which a bootstrap looks through.
    where, _, observation, _, Q = apart(trajectory, Q)
    expected = policy.unroll(params, trajectory._replace(observation=observation)).expectation(Q)
    np.testing.assert_allclose(mapped[where], expected, rtol=1e-5, atol=1e-6)
    assert len(expected) == 11


def test_rows_may_be_resumed_anywhere():
    params = lively(GRU)
    trajectory = collected(GRU, params, slots=4, min_steps_per_slot=30)
    acted = np.asarray(trajectory.log_prob)
    for cut in (1, 7, 16, 31):
        memory, log_prob = GRU.memory(4), []
        for rows in (slice(0, cut), slice(cut, None)):
            some = jax.tree.map(lambda leaf, rows=rows: leaf[rows] if leaf.ndim else leaf, trajectory)
            memory, f = GRU.resume(params, memory, some)
            log_prob.append(f.log_prob(some.action))
        resumed = np.where(trajectory.mask, np.concatenate(log_prob), 0)
        np.testing.assert_allclose(resumed, acted, atol=1e-5)  # and a slot's next episode knows nothing of the last


def test_what_pads_costs_nothing_and_poisons_nothing():
    policy = pgjax.recurrent(pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), 4, ())
    params = policy.init(jax.random.key(0))
    trajectory = collected(policy, params, counting(limit=20, horizon=500), slots=2)
    assert trajectory.rows == 32
    unused = trajectory._replace(observation=trajectory.observation.at[48:].set(jnp.nan))
    gradient, _ = gradient_over_steps(policy, objective, params, unused, weights(trajectory))
    chex.assert_tree_all_finite(gradient)


def test_runs_of_a_batch_have_the_gradients_that_they_have_alone():
    algorithm = pgjax.reinforce(FINITE, GRU, slots=4, min_steps_per_slot=40)
    keys, numbers = pgjax.run_keys(0, range(3)), algorithm.hyperparameters()
    states = jax.jit(jax.vmap(algorithm.init, (0, None)))(keys, numbers)
    among, metrics = jax.jit(jax.vmap(algorithm.update))(states)
    alone, own = jax.jit(algorithm.update)(jax.tree.map(lambda leaf: leaf[1], states))
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], among.params), alone.params, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics.steps[1], own.steps)


@pytest.mark.parametrize(("slots", "together"), [(48, 16), (34, 2), (7, 7)])
def test_episodes_seen_whole_are_differentiated_some_at_a_time(monkeypatch, slots, together):
    assert slots_together(slots) == together
    policy = GRU._replace(resume=None)
    params = lively(policy)
    trajectory = collected(policy, params, slots=slots)

    def log_prob(f, rows, weight):
        return weight * f.log_prob(rows.action)

    def found():
        given = (params, trajectory, weights(trajectory))
        gradient = jax.jit(gradient_over_steps, static_argnums=(0, 1))(policy, objective, *given)
        return gradient, jax.jit(map_over_steps, static_argnums=(0, 1))(policy, log_prob, *given)

    some = found()
    monkeypatch.setattr(segments, "SLOTS", slots)
    jax.clear_caches()
    chex.assert_trees_all_close(some, found(), rtol=2e-5, atol=1e-5)


def test_fewer_episodes_are_differentiated_together_where_memory_is_short(monkeypatch):
    policy = GRU._replace(resume=None)
    params, sizes = lively(policy), []
    trajectory = collected(policy, params, slots=16)

    def noted(f, rows, weight):
        sizes.append(rows.mask.shape[1])
        return objective(f, rows, weight)

    whole, _ = gradient_over_steps(policy, noted, params, trajectory, weights(trajectory))
    given = trajectory, weights(trajectory)
    kept = bytes_kept(lambda params: objective(policy.unroll(params, trajectory), *given), params)
    monkeypatch.setattr(segments, "memory_budget", lambda: kept / 4 / ACTIVATIONS)
    some, _ = gradient_over_steps(policy, noted, params, *given)
    assert set(sizes) == {16, 4}
    chex.assert_trees_all_close(some, whole, rtol=2e-5, atol=1e-5)
