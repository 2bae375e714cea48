import operator

import chex
import jax
import numpy as np
import optax
import pytest

import pgjax
from pgjax.algorithms.base import by_name
from pgjax.environments.base import Score
from tests.cases import counting, random_mdp, remembering

MDP = random_mdp()
ONLINE_CREDITS = {
    "whole_episode": pgjax.whole_episode,
    "reward_to_go": pgjax.reward_to_go,
    "discounted_reward_to_go": pgjax.estimators.discounted_reward_to_go,
}
ONLINE_BASELINES = {"none": pgjax.no_baseline, "running_average": pgjax.running_average}


def both_ways(environment, policy, credit, baseline, **options):
    """REINFORCE of one episode an update, without a trajectory and with one."""
    streaming = pgjax.reinforce(environment, policy, slots=1, credit=credit, baseline=baseline, **options)
    stored = pgjax.reinforce(
        environment, policy, slots=1, credit=credit, baseline=baseline._replace(online=False), **options
    )
    assert streaming.step is not None
    assert stored.step is None
    return streaming, stored


@pytest.mark.slow
@pytest.mark.parametrize("credit", ONLINE_CREDITS)
@pytest.mark.parametrize("baseline", ONLINE_BASELINES)
def test_whole_runs_are_those_of_stored_trajectories(credit, baseline):
    # The same keys, so the same episodes; of 1 to 11 steps in chunks of 4, which some end within and some outlast.
    with jax.enable_x64(True):
        environment = pgjax.finite(random_mdp(), horizon=11)
        algorithms = both_ways(
            environment, pgjax.tabular(3, 2), ONLINE_CREDITS[credit](), ONLINE_BASELINES[baseline](),
            optimizer=optax.adam, chunk=4,
        )  # fmt: skip
        ends, computed = [], []
        for algorithm in algorithms:
            numbers = algorithm.hyperparameters(learning_rate=0.1, discount=0.9, entropy_coefficient=0.3)
            run = jax.jit(jax.vmap(pgjax.train(algorithm, 15), (0, None)))
            state, curves = run(pgjax.run_keys(0, range(5)), numbers)
            ends.append((state._replace(episode=(), key=jax.random.key_data(state.key)), curves._replace(computed=0)))
            computed.append(np.asarray(curves.computed))
        assert (computed[0] <= computed[1]).all()  # nobody waits for the longest episode of the batch
        assert computed[0].sum() < 0.8 * computed[1].sum()
        lengths = np.asarray(ends[0][1].steps)
        assert lengths.min() <= 4 < lengths.max()
        assert len(np.unique(lengths.sum(axis=1))) > 1
        chex.assert_trees_all_close(*ends, rtol=1e-9, atol=1e-9)


def test_an_observation_of_many_numbers_and_a_network():
    environment = pgjax.from_gymnax("Pendulum-v1", max_steps_in_episode=10)
    policy = pgjax.mlp(environment.observation_space, environment.action_space, (4,))
    ends = []
    for algorithm in both_ways(environment, policy, pgjax.reward_to_go(), pgjax.running_average(), chunk=4):
        state, metrics = jax.jit(pgjax.train(algorithm, 3))(jax.random.key(1), algorithm.hyperparameters())
        ends.append((state.params, metrics))
    chex.assert_trees_all_close(*ends, rtol=1e-4, atol=1e-5)


def test_every_run_of_a_batch_has_its_own_clock_and_ends_in_time():
    # Beside runs with longer episodes a run does as many updates as alone, and no more.
    environment = pgjax.finite(random_mdp(), horizon=40)
    algorithm = pgjax.reinforce(
        environment, pgjax.tabular(3, 2), slots=1, baseline=pgjax.running_average(), optimizer=optax.sgd, chunk=4
    )
    run = pgjax.train(algorithm, 6)
    numbers = algorithm.hyperparameters(learning_rate=0.5)
    together, curves = jax.jit(jax.vmap(run, (0, None)))(pgjax.run_keys(0, range(16)), numbers)
    assert len(np.unique(np.asarray(curves.steps).sum(axis=1))) > 4
    np.testing.assert_array_equal(together.iteration, 6)
    assert not np.any(together.episode.slots.running)
    alone = jax.jit(run)
    for seed in (0, 3):
        state, curve = alone(pgjax.run_keys(0, [seed])[0], numbers)
        np.testing.assert_allclose(state.params, together.params[seed], rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(curve, jax.tree.map(operator.itemgetter(seed), curves), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"segment": 1}, {"segment": 3, "block": 2, "batch": 4}])
def test_a_sweep_of_them_is_the_runs_one_by_one(options):
    # In segments of few iterations a run may be a segment ahead of another, but none does more than it should.
    environment = pgjax.finite(random_mdp(), horizon=40)
    algorithm = pgjax.reinforce(
        environment, pgjax.tabular(3, 2), slots=1, baseline=pgjax.running_average(), optimizer=optax.sgd, chunk=4
    )
    numbers = algorithm.hyperparameters(learning_rate=0.5)
    found = pgjax.sweep(
        algorithm, iterations=7, seeds=range(6), hyperparameters=numbers, configuration={}, progress=False, **options
    )
    state, curves = jax.jit(jax.vmap(pgjax.train(algorithm, 7), (0, None)))(pgjax.run_keys(0, range(6)), numbers)
    for name, curve in by_name(curves).items():
        if name != "computed":  # which says how long a run was idle, too
            np.testing.assert_allclose(found[name], curve, rtol=1e-5, atol=1e-6, err_msg=name)
    like = jax.eval_shape(pgjax.tabular(3, 2).init, jax.random.key(0))
    np.testing.assert_allclose(pgjax.load_params(found, like), state.params, rtol=1e-5, atol=1e-6)


def test_update_is_one_episode():
    algorithm = pgjax.reinforce(
        counting(limit=7), pgjax.policy_for(counting()), slots=1, baseline=pgjax.no_baseline(), chunk=3
    )
    state = algorithm.init(jax.random.key(0), algorithm.hyperparameters())
    for iteration in (1, 2):
        state, metrics = jax.jit(algorithm.update)(state)
        assert int(state.iteration) == iteration
        assert float(metrics.steps) == 7
        assert float(metrics.episode_return) == sum(range(1, 8))


def test_it_is_chosen_only_where_it_is_exact():
    environment = pgjax.finite(MDP, horizon=4)
    table = pgjax.tabular(3, 2)
    average = pgjax.running_average()
    assert pgjax.reinforce(environment, table, slots=1, baseline=average).step is not None
    for refused in (
        pgjax.reinforce(environment, table, slots=2, baseline=average),
        pgjax.reinforce(environment, table, slots=1, min_steps_per_slot=9, baseline=average),
        pgjax.reinforce(environment, table, slots=1, baseline=pgjax.learned_value(pgjax.policies.tabular_value(3))),
        pgjax.reinforce(
            environment._replace(score=lambda trajectory, params: Score(trajectory.reward)),
            table,
            slots=1,
            baseline=average,
        ),
        pgjax.reinforce(counting(), remembering(), slots=1, baseline=average),
    ):
        assert refused.step is None
