import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import pgjax
from pgjax import exact
from pgjax.environments.mazes import LOOPS, ROOMS, read_layout
from pgjax.policies.base import has_memory
from pgjax.sweeps.experts import best_seed
from tests.cases import counting, random_mdp

CONTROLLERS = {
    "CartPole-v1": pgjax.imitation.cartpole_controller,
    "Pendulum-v1": pgjax.imitation.pendulum_controller,
    "MountainCar-v0": pgjax.imitation.mountain_car_controller,
    "MountainCarContinuous-v0": pgjax.imitation.continuous_mountain_car_controller,
    "Acrobot-v1": pgjax.imitation.acrobot_controller,
}
EPISODES = 64
AT_LEAST = {
    "CartPole-v1": 500.0,
    "Pendulum-v1": -175.0,  # the mean is −148; a mean of 64 episodes has a standard error of 10
    "MountainCar-v0": -110.0,
    "MountainCarContinuous-v0": 99.0,
    "Acrobot-v1": -90.0,
}


@pytest.mark.parametrize("name", CONTROLLERS)
def test_controllers_do_their_tasks(name):
    environment = pgjax.from_gymnax(name)
    expert = pgjax.imitation.scripted(CONTROLLERS[name], environment)
    run = jax.jit(pgjax.evaluate(environment, expert.policy, EPISODES, chunk=50))
    returns = run(jax.random.key(0), expert.params, environment.params)
    assert returns.mean() >= AT_LEAST[name]


def mirrored(name, observation, action):
    """What a controller sees and does in the mirror."""
    if name == "Pendulum-v1":
        return observation * jnp.array([[1.0, -1.0, -1.0]]), -action
    if name == "Acrobot-v1":
        return observation * jnp.array([[1.0, -1.0, 1.0, -1.0, -1.0, -1.0]]), 2 - action
    if name == "MountainCar-v0":  # about the centre of its rule; the valley's is elsewhere
        return jnp.array([[-0.95, 0.0]]) - observation, 2 - action
    if name == "CartPole-v1":
        return -observation, 1 - action
    return observation * jnp.array([[1.0, -1.0]]), -action


@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_mirrored_observation_brings_the_mirrored_action(name):
    controller = CONTROLLERS[name]
    observation = jax.random.normal(jax.random.key(0), (200, *pgjax.from_gymnax(name).observation_space.shape))
    action = controller(observation)
    assert len(np.unique(action)) > 1
    seen, done = mirrored(name, observation, action)
    np.testing.assert_array_equal(controller(seen), done)
    np.testing.assert_array_equal(
        controller(observation.reshape(10, 20, -1)), action.reshape(10, 20, *action.shape[1:])
    )


def test_a_scripted_expert_of_discrete_actions_is_certain():
    expert = pgjax.imitation.scripted(lambda x: (x[..., 0] > 2).astype(int), counting())
    assert expert.params == ()
    _, f = expert.policy.step((), (), jnp.array([[1.0], [3.0]]))
    np.testing.assert_array_equal(f.logits, [[0, -np.inf], [-np.inf, 0]])
    many = pgjax.policies.Categorical(jnp.broadcast_to(f.logits, (100, 2, 2)))
    np.testing.assert_array_equal(many.sample(jax.random.key(0)), np.tile([0, 1], (100, 1)))
    np.testing.assert_array_equal(f.log_prob(jnp.array([0, 0])), [0, -np.inf])
    np.testing.assert_array_equal(f.entropy(), 0)


def test_a_scripted_expert_of_continuous_actions_is_certain_and_inside_the_box():
    environment = pgjax.from_gymnax("Pendulum-v1")
    expert = pgjax.imitation.scripted(lambda x: 3 * x[..., :1], environment)
    _, f = expert.policy.step((), (), jnp.array([[1.0, 0, 0], [-0.5, 0, 0]]))
    np.testing.assert_array_equal(f.sample(jax.random.key(0)), [[2.0], [-1.5]])


@pytest.mark.parametrize(
    ("controller", "name", "message"),
    [
        (lambda x: x[..., 0], "CartPole-v1", r"actions \(2,\) of type integer .* got \(2,\) of type float32"),
        (lambda x: 1, "CartPole-v1", r"actions \(2,\) of type integer \(one of 2 integers each\), got \(\)"),
        (lambda x: x[..., 0], "Pendulum-v1", r"actions \(2, 1\) of type floating .* got \(2,\)"),
        (lambda x: (x[..., :1] > 0).astype(int), "Pendulum-v1", r"of type floating .* got \(2, 1\) of type int"),
        (lambda x: x @ jnp.ones(9), "CartPole-v1", "takes the observations of CartPole-v1, an array of shape"),
    ],
)
def test_a_controller_that_does_not_fit_is_refused_in_words(controller, name, message):
    with pytest.raises(pgjax.InputError, match=message):
        pgjax.imitation.scripted(controller, pgjax.from_gymnax(name))


def test_actions_of_several_axes_are_refused():
    environment = counting()._replace(action_space=pgjax.Box(0, 1, (2, 2)))
    with pytest.raises(pgjax.InputError, match=r"shape \[d\], got \(2, 2\) in counting"):
        pgjax.imitation.scripted(lambda x: jnp.zeros((*x.shape[:-1], 2, 2)), environment)


def test_the_shortest_path_is_as_long_as_a_search_finds_it():
    expert, (maze, _) = pgjax.imitation.shortest_paths(), read_layout(pgjax.environments.mazes.LECTURE)
    assert not has_memory(expert.policy)
    next_cell, exits = np.asarray(maze.next_cell), np.asarray(maze.exit)
    distance = np.where(exits, 0, -1)
    for steps in range(1, len(exits)):  # breadth first, from the exit on
        reached = (distance == -1) & (distance[next_cell] == steps - 1).any(1)
        distance[reached] = steps
    f = exact.probabilities(pgjax.environments.maze_tables(), expert.policy, expert.params)
    taken, cell = np.zeros(len(exits), int), np.arange(len(exits))
    for _ in range(len(exits)):
        taken += ~exits[cell]
        cell = np.where(exits[cell], cell, next_cell[cell, np.argmax(f, -1)[cell]])
    np.testing.assert_array_equal(taken, distance)
    assert distance[np.asarray(maze.start) > 0].tolist() == [14]
    for horizon in (10, 30):
        earned = exact.expected_return(pgjax.environments.maze_tables(), horizon, f)
        assert earned == exact.optimal(pgjax.environments.maze_tables(), horizon).rho == -min(horizon, 14)


def waiting():
    """An MDP in which waiting pays 1 and leaving pays 3 and ends: one waits until the last step, then leaves."""
    p = np.zeros((2, 2, 2))
    p[0, 0, 0] = p[0, 1, 1] = p[1, :, 1] = 1
    return pgjax.environments.tables([1.0, 0.0], p, [[1.0, 3.0], [0.0, 0.0]], [False, True])


def test_what_is_best_may_depend_on_the_steps_that_are_left():
    mdp, T = waiting(), 4
    environment, expert = pgjax.finite(mdp, T), pgjax.imitation.optimal_expert(waiting(), T)
    assert has_memory(expert.policy)
    trajectory = pgjax.collect(environment, expert.policy, slots=2)(jax.random.key(0), expert.params, mdp)
    np.testing.assert_array_equal(trajectory.reward[:T], np.tile([[1], [1], [1], [3]], 2))
    assert exact.optimal(mdp, T).rho == 6
    unrolled = expert.policy.unroll(expert.params, trajectory)
    memory = expert.policy.memory(2)
    assert memory.dtype == jnp.int32
    for t in range(T):
        memory, stepped = expert.policy.step(expert.params, memory, trajectory.observation[t])
        np.testing.assert_array_equal(stepped.logits, unrolled.logits[t])
    np.testing.assert_array_equal(unrolled.log_prob(trajectory.action)[:T], 0)
    assert not has_memory(pgjax.imitation.optimal_expert(mdp, 1).policy)  # one leaves at once


def test_an_expert_without_memory_earns_what_is_optimal():
    mdp = random_mdp(1)
    expert = pgjax.imitation.optimal_expert(mdp, 30, discount=0.3)
    assert not has_memory(expert.policy)
    f = exact.probabilities(mdp, expert.policy, expert.params)
    np.testing.assert_allclose(exact.expected_return(mdp, 30, f, 0.3), exact.optimal(mdp, 30, 0.3).rho, rtol=1e-6)


POLICY = pgjax.tabular(4, 4)


@pytest.fixture(scope="module", params=["on disk", "in memory"])
def swept(request, tmp_path_factory):
    """A small sweep: where to find its results, and its dataset."""
    out = tmp_path_factory.mktemp("swept") if request.param == "on disk" else None
    found = pgjax.sweep(
        pgjax.reinforce(pgjax.maze("...E", horizon=6), POLICY, slots=2),
        iterations=2,
        seeds=[5, 3, 8],
        grid={"learning_rate": [0.1, 0.5]},
        out=out,
        configuration={},
        progress=False,
    )
    return out or found, found


def test_a_trained_expert_is_the_best_of_its_runs_unless_one_is_named(swept):
    (found, dataset), point = swept, {"learning_rate": 0.5}
    like = jax.eval_shape(POLICY.init, jax.random.key(0))
    first, second, third = pgjax.analysis.final_return(dataset).sel(learning_rate=0.5).values
    assert second > max(first, third)
    expert = pgjax.trained(found, POLICY, point=point)
    assert expert.policy == POLICY
    np.testing.assert_array_equal(expert.params, pgjax.load_params(found, like, seed=3, point=point))
    named = pgjax.trained(found, POLICY, seed=5, point=point)
    np.testing.assert_array_equal(named.params, pgjax.load_params(found, like, seed=5, point=point))
    for seed in (None, 5):
        with pytest.raises(pgjax.InputError, match=r"a value of each of \['learning_rate'\], got \[\]"):
            pgjax.trained(found, POLICY, seed=seed)
    with pytest.raises(pgjax.InputError, match="seed to be one of the results', got 4"):
        pgjax.trained(found, POLICY, seed=4, point=point)


def curves(returns):
    """What a sweep without a grid finds where each of its seeds has this return throughout."""
    returns = np.asarray(returns, float)[:, None] * np.ones((1, 2))
    runs = ("seed", "iteration")
    return xr.Dataset(
        {
            "episode_return": (runs, returns),
            "episodes": (runs, np.ones_like(returns)),
            "completed": ("seed", np.ones(len(returns), bool)),
        },
        {"seed": np.arange(10, 10 + len(returns))},
    )


def test_what_is_not_a_finite_number_is_never_the_best():
    assert best_seed(curves([np.nan, -3.0, -2.0, np.inf, -5.0]), {}) == 12
    assert best_seed(curves([np.nan, -3.0]), {}) == 11
    with pytest.raises(pgjax.InputError, match="a run with a finite return, got 2 runs without one"):
        best_seed(curves([np.nan, np.nan]), {})
    with pytest.raises(pgjax.InputError, match="returns of episodes to choose it by, got neither"):
        best_seed(curves([1.0, 2.0]).drop_vars("episode_return"), {})


@pytest.mark.parametrize(
    ("environment", "expert", "best"),
    [
        (pgjax.partial_maze, pgjax.imitation.dead_reckoning, -14),
        (lambda: pgjax.partial_maze(ROOMS), lambda: pgjax.imitation.dead_reckoning(ROOMS), -20),
        (pgjax.t_maze, lambda: pgjax.imitation.sign_follower(pgjax.t_maze()), 4),
    ],
)
def test_who_remembers_where_it_is_does_as_well_as_can_be(environment, expert, best):
    environment, expert = environment(), expert()
    trajectory = pgjax.collect(environment, expert.policy, 8)(jax.random.key(0), (), environment.params)
    np.testing.assert_allclose(trajectory.reward.sum(0), best)
    unrolled = expert.policy.unroll((), trajectory).log_prob(trajectory.action)
    np.testing.assert_array_equal(jnp.where(trajectory.mask, unrolled, 0), 0)  # what it did was certain


def test_who_remembers_is_held_to_the_environment_too():
    corridor = pgjax.t_maze()
    with pytest.raises(pgjax.InputError, match="expected a t_maze, got CartPole-v1"):
        pgjax.imitation.sign_follower(pgjax.from_gymnax("CartPole-v1"))
    with pytest.raises(pgjax.InputError, match=r"actions \(2,\) of type integer .* got \(2,\) of type float32"):
        pgjax.imitation.scripted_with_memory(
            lambda episodes: jnp.zeros(episodes), lambda memory, observation: (memory, memory + 0.5), corridor
        )


def test_from_several_starts_nobody_knows_where_it_is():
    with pytest.raises(pgjax.InputError, match="expected a maze with one start, got one with 54"):
        pgjax.imitation.dead_reckoning(LOOPS)
