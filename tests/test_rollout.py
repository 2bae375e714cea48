import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.batching import together
from pgjax.environments.base import Score
from pgjax.policies import Categorical
from pgjax.rollout import rows_needed
from pgjax.segments import map_over_rows, sum_over_steps
from pgjax.steps import real_steps
from tests.cases import counting, ending_in, random_mdp, remembering

POLICY = pgjax.mlp(pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), (4,))
PARAMS = POLICY.init(jax.random.key(0))
CARTPOLE = pgjax.from_gymnax("CartPole-v1")
CARTPOLE_POLICY = pgjax.mlp(CARTPOLE.observation_space, CARTPOLE.action_space, (8,))


def collected(environment, policy=POLICY, params=PARAMS, key=0, **options):
    run = jax.jit(pgjax.collect(environment, policy, **options))
    return run(jax.random.key(key), params, environment.params)


def test_one_episode_a_slot_row_by_row():
    trajectory = collected(counting(limit=3), slots=2, chunk=2)
    assert int(trajectory.rows) == 4
    column = {
        "observation": [0, 1, 2],
        "reward": [1, 2, 3],
        "time": [0, 1, 2],
        "terminated": [0, 0, 1],
        "truncated": [0, 0, 0],
    }
    for name, expected in column.items():
        values = np.asarray(getattr(trajectory, name)).reshape(9, 2)[:3]
        np.testing.assert_array_equal(values, np.repeat(expected, 2).reshape(3, 2), err_msg=name)
    np.testing.assert_array_equal(trajectory.mask.sum(0), 3)
    np.testing.assert_array_equal(trajectory.reward[3:], 0)
    assert float(trajectory.episodes) == 2


def test_the_horizon_truncates():
    trajectory = collected(counting(limit=100, horizon=4), slots=2)
    np.testing.assert_array_equal(trajectory.mask.sum(0), 4)
    np.testing.assert_array_equal(trajectory.truncated[3], True)
    assert not trajectory.terminated.any()
    assert trajectory.truncated.sum() == 2


@pytest.mark.parametrize(("horizon", "chunk"), [(4, 4), (6, 4), (4, 16)])  # at the end of a chunk, and of the buffer
def test_the_row_after_a_truncation_holds_the_final_observation(horizon, chunk):
    trajectory = collected(counting(limit=100, horizon=horizon), slots=2, chunk=chunk)
    observation = np.asarray(trajectory.observation)[..., 0]
    np.testing.assert_array_equal(observation[: horizon + 1], np.repeat(np.arange(horizon + 1), 2).reshape(-1, 2))
    packed = collected(counting(limit=100, horizon=horizon), slots=2, min_steps_per_slot=17, chunk=chunk)
    ends = np.argwhere(np.asarray(packed.truncated))
    assert len(ends) >= 6
    for t, e in ends:
        assert float(packed.observation[t + 1, e, 0]) == horizon
        assert not packed.mask[t + 1, e]


# Rows in use that fill chunks of 16, that end within one, that fill the buffer, and a buffer smaller than a chunk; the
# last has no row to spare.
@pytest.mark.parametrize(
    ("limit", "horizon", "chunk", "spare"),
    [(100, 40, 8, True), (20, 48, 12, True), (100, 48, 12, True), (5, 6, 3, True), (100, 23, 23, False)],
)
def test_a_sum_or_a_map_by_chunks_is_that_of_all_rows(limit, horizon, chunk, spare):
    trajectory = collected(counting(limit, horizon), slots=3, chunk=chunk)
    if not spare:
        trajectory = jax.tree.map(lambda leaf: leaf[:-1] if leaf.ndim else leaf, trajectory)
    weights = jax.random.normal(jax.random.key(0), trajectory.reward.shape)
    rows = int(trajectory.rows)
    total = sum_over_steps(
        lambda rows, w: {"weighted": jnp.sum(rows.reward * w), "steps": jnp.sum(rows.mask)}, trajectory, weights
    )
    np.testing.assert_allclose(total["weighted"], jnp.sum(trajectory.reward * weights), atol=2e-3)
    assert int(total["steps"]) == 3 * min(limit, horizon)
    mapped = map_over_rows(lambda rows, w: rows.observation * w[..., None], trajectory, weights)
    expected = trajectory.observation * weights[..., None]
    np.testing.assert_allclose(mapped[: rows + 1], expected[: rows + 1], rtol=1e-6)


def test_a_budget_of_steps_fills_slots_with_whole_episodes():
    trajectory = collected(counting(limit=3), slots=2, min_steps_per_slot=9, chunk=4)
    starts = np.flatnonzero(np.asarray(trajectory.first)[:, 0])
    lasts = np.flatnonzero(np.asarray(trajectory.terminated)[:, 0])
    np.testing.assert_array_equal(starts, [0, 3, 6])
    np.testing.assert_array_equal(lasts, [2, 5, 8])
    assert float(trajectory.episodes) == 6


def test_a_slot_restarts_within_a_chunk():
    trajectory = collected(counting(limit=5), slots=1, min_steps_per_slot=12, chunk=8)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(trajectory.first)[:, 0]), [0, 5, 10])
    trajectory = collected(counting(limit=5, horizon=16), slots=1, min_steps_per_slot=40, chunk=4)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(trajectory.first)[:, 0])[:3], [0, 5, 10])


def test_every_start_is_drawn_anew():
    def reset(key, params):
        return jnp.int32(0), jax.random.uniform(key)

    def step(key, state, action, params):  # over after a step
        return state, pgjax.Step(jnp.float32(0), jnp.float32(1), jnp.bool_(True), jnp.bool_(False))

    environment = counting()._replace(reset=reset, step=step, observation_space=pgjax.Box(0.0, 1.0, ()))
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (2,))
    run = pgjax.collect(environment, policy, slots=3, min_steps_per_slot=20, chunk=4)
    trajectory = jax.jit(run)(jax.random.key(0), policy.init(jax.random.key(1)), ())
    assert float(trajectory.episodes) == 60  # no row waits
    assert len(np.unique(np.asarray(trajectory.observation)[:20])) == 60


@pytest.mark.parametrize("steps", [0, 1, 50])
def test_every_episode_is_whole(steps):
    trajectory = collected(
        CARTPOLE, CARTPOLE_POLICY, CARTPOLE_POLICY.init(jax.random.key(0)), slots=4, min_steps_per_slot=steps, chunk=16
    )
    first, last, mask = (np.asarray(x) for x in (trajectory.first, trajectory.last, trajectory.mask))
    assert first.sum() == last.sum() >= 4
    for slot in range(4):
        inside = np.cumsum(first[:, slot]) - np.cumsum(last[:, slot]) + last[:, slot]
        np.testing.assert_array_equal(inside, mask[:, slot])
        begun = np.flatnonzero(first[:, slot])
        assert (begun[1:] < steps).all()
    assert trajectory.mask.shape[0] == rows_needed(CARTPOLE, steps, 16)


@pytest.mark.slow
def test_under_vmap_the_loop_stays_a_loop():
    # out_axes=None is refused for what differs over a batch: the number of rows must be common to it, at any depth.
    run = pgjax.collect(CARTPOLE, CARTPOLE_POLICY, slots=2)
    params = CARTPOLE_POLICY.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), (2, 3))
    one = jax.vmap(lambda key: run(key, params, CARTPOLE.params).rows, out_axes=None)
    rows = jax.jit(jax.vmap(one, out_axes=None))(keys)
    alone = [int(run(key, params, CARTPOLE.params).rows) for key in keys.reshape(-1)]
    assert rows.shape == ()
    assert int(rows) == max(alone)


def test_together_is_any_over_the_batch():
    conditions = jnp.array([[False, False], [True, False]])
    assert bool(jax.vmap(jax.vmap(together, out_axes=None), out_axes=None)(conditions))
    assert not bool(jax.vmap(together, out_axes=None)(conditions[0]))


def test_an_episode_does_not_depend_on_what_runs_beside_it():
    run = pgjax.collect(CARTPOLE, CARTPOLE_POLICY, slots=2, min_steps_per_slot=30)
    params = CARTPOLE_POLICY.init(jax.random.key(0))
    keys = pgjax.run_keys(0, range(8))
    alone = jax.jit(run)(keys[5], params, CARTPOLE.params)
    among = jax.jit(jax.vmap(run, (0, None, None)))(keys, params, CARTPOLE.params)
    used = int(alone.rows)
    ours, theirs = (
        jax.tree.map(lambda leaf: leaf[:used], whole._replace(rows=jnp.zeros(used)))
        for whole in (alone, jax.tree.map(lambda leaf: leaf[5], among))
    )
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert int(among.mask[5].sum()) == int(alone.mask.sum())


def test_little_is_padding_when_slots_are_packed():
    # Untrained CartPole episodes last 22 steps on average: a scan over all 500 rows would be 4% real.
    run = pgjax.collect(CARTPOLE, CARTPOLE_POLICY, slots=16, min_steps_per_slot=128)
    params = CARTPOLE_POLICY.init(jax.random.key(0))
    trajectories = jax.jit(jax.vmap(run, (0, None, None)))(pgjax.run_keys(0, range(16)), params, CARTPOLE.params)
    assert trajectories.mask.sum() / (trajectories.rows.sum() * 16) > 0.5


def test_memory_starts_afresh_and_is_carried_over_chunks():
    # A policy that counts its steps, and with near certainty plays action 1 at each third of them.
    policy = pgjax.Policy(
        init=lambda key: (),
        memory=lambda episodes: jnp.zeros(episodes, jnp.int32),
        step=lambda params, steps, x: (
            steps + 1, Categorical(jnp.where((steps % 3 == 2)[:, None], 1, -1) * jnp.array([[-500.0, 500.0]])),
        ),
        unroll=lambda params, trajectory: Categorical(jnp.zeros((*trajectory.observation.shape[:2], 2))),
    )  # fmt: skip
    for key in (0, 1):
        trajectory = collected(counting(limit=7), policy, (), key=key, slots=2, chunk=2)
        np.testing.assert_array_equal(trajectory.action[:7], [[0, 0], [0, 0], [1, 1], [0, 0], [0, 0], [1, 1], [0, 0]])


def test_a_score_replaces_the_rewards():
    environment = counting(limit=3)._replace(score=lambda trajectory, params: Score(trajectory.last * 7))
    trajectory = collected(environment, slots=2)
    np.testing.assert_array_equal(trajectory.reward[:3], [[0, 0], [0, 0], [7, 7]])
    assert trajectory.reward.dtype == jnp.float32


def test_what_cannot_be_collected_is_refused():
    with pytest.raises(pgjax.InputError, match="1 or more slots, got 0"):
        pgjax.collect(counting(), POLICY, slots=0)
    with pytest.raises(pgjax.InputError, match="0 or more steps for each slot, got -1"):
        pgjax.collect(counting(), POLICY, slots=1, min_steps_per_slot=-1)
    with pytest.raises(pgjax.InputError, match="policy with memory that has no resume, got 5"):
        pgjax.collect(counting(), remembering(), slots=1, min_steps_per_slot=5)
    with pytest.raises(pgjax.InputError, match="with a score"):
        pgjax.collect(counting()._replace(score=lambda *_: 0), POLICY, slots=1, min_steps_per_slot=5)


def test_noise_differs_between_slots_rows_and_chunks():
    mdp = random_mdp()
    environment = pgjax.finite(mdp._replace(terminal=jnp.zeros(3, bool)), horizon=64)
    policy = pgjax.tabular(3, 2)
    trajectory = collected(environment, policy, policy.init(jax.random.key(0)), slots=8, chunk=16)
    actions = np.asarray(trajectory.action)[:64]
    columns = {tuple(column) for column in actions.T}
    blocks = {tuple(block.reshape(-1)) for block in actions.reshape(4, 16, 8)}
    assert len(columns) == 8
    assert len(blocks) == 4


def test_evaluation_is_the_return_of_fresh_episodes():
    environment = counting(limit=4)
    returns = pgjax.evaluate(environment, POLICY, episodes=3)
    np.testing.assert_array_equal(returns(jax.random.key(0), POLICY.init(jax.random.key(1)), ()), [10, 10, 10])


def test_real_steps_are_gathered_from_wherever_they_are():
    trajectory = collected(counting(limit=3), slots=2, min_steps_per_slot=9, chunk=4)
    places, count = real_steps(trajectory)
    np.testing.assert_array_equal(places[:count], np.flatnonzero(np.asarray(trajectory.mask)))
    seen = sum_over_steps(lambda steps: jnp.sum(jnp.where(steps.mask, steps.observation[..., 0], 0)), trajectory)
    assert float(seen) == 6 * (0 + 1 + 2)


@pytest.mark.parametrize("steps", [0, 7])
def test_padding_observes_what_was_observed(steps):
    # At the end there is nothing to observe, NaN; and rows that no slot came to were never written.
    environment = ending_in(jnp.nan)
    run = jax.jit(pgjax.collect(environment, POLICY, slots=2, min_steps_per_slot=steps, chunk=4))
    trajectory = run(jax.random.key(0), POLICY.init(jax.random.key(1)), ())
    assert (~trajectory.mask).any()
    assert np.isfinite(trajectory.observation).all()
    np.testing.assert_allclose(trajectory.observation[trajectory.mask][:, 0], 0.1 * trajectory.time[trajectory.mask])


@pytest.mark.parametrize("limit", [2, 5, 9, 40])
def test_episodes_come_out_alike_in_whichever_buffer(monkeypatch, limit):
    # Buffers of 4 (+ 1), 8, 16, … rows, the last of 40: what is made of episodes of these lengths is the same.
    environment = counting(limit, horizon=40)

    def made(trajectory, scale):
        return (
            jnp.sum(trajectory.reward),
            scale * jnp.sum(trajectory.observation[..., 0] * trajectory.mask),
            trajectory.rows,
        )

    params = POLICY.init(jax.random.key(0))
    keys = pgjax.run_keys(0, range(3))
    found = []
    for first in (4, 1024):
        monkeypatch.setattr(pgjax.rollout, "FIRST_ROWS", first)
        monkeypatch.setattr(pgjax.rollout, "GROWTH", 2)
        run = pgjax.collect(environment, POLICY, slots=2, chunk=4, then=made)
        found.append(jax.jit(jax.vmap(run, (0, None, None, None)))(keys, params, (), 2.0))
    jax.tree.map(np.testing.assert_array_equal, *found)
    reward, observed, rows = found[0]
    np.testing.assert_array_equal(reward, limit * (limit + 1))  # 1 + 2 + … + limit, in each of two slots
    np.testing.assert_array_equal(observed, 2 * limit * (limit - 1))
    np.testing.assert_array_equal(rows, -(-limit // 4) * 4)


def test_buffers_grow_to_the_longest_episode():
    assert pgjax.rollout.buffer_sizes(513, 16) == [513]
    assert pgjax.rollout.buffer_sizes(100_001, 16) == [1025, 8193, 100_001]


def test_old_keys_play_the_same_episodes():
    environment = pgjax.maze("#S..S.E#", horizon=10)
    policy = pgjax.policy_for(environment)
    run = jax.jit(pgjax.collect(environment, policy, slots=6, group_size=3))
    params = policy.init(jax.random.key(0))
    old, new = (run(key, params, environment.params) for key in (jax.random.PRNGKey(5), jax.random.key(5)))
    jax.tree.map(np.testing.assert_array_equal, old, new)
