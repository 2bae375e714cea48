"""Experts: policies that are worth imitating, whose distribution f*(X_t) is known for every observation.

One is written by hand (`scripted`; controllers for the tasks of classic control are here), computed (`optimal_expert`,
`shortest_paths`), or was trained before (`trained`). Learning from one is the business of others.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pgjax import exact
from pgjax.environments.environment import Discrete, Environment, PyTree
from pgjax.environments.finite import FiniteMDP
from pgjax.environments.maze import LECTURE, maze_tables, partial_maze, read_layout
from pgjax.errors import InputError
from pgjax.policies.distributions import Categorical, Distribution, Gaussian
from pgjax.policies.policy import Policy, check_fit, describe, memoryless
from pgjax.policies.tabular import tabular, tabular_by_time
from pgjax.results import load_params, opened, where
from pgjax.statistics import final_return

TOLERANCE = 1e-6  # relative, within which a policy counts as optimal


class Expert(NamedTuple):
    """Who is imitated: any policy, with or without memory, and its parameters."""

    policy: Policy
    params: PyTree


def scripted(controller: Callable[[jax.Array], jax.Array], environment: Environment) -> Expert:
    """Return the expert that always does what a function says.

    Its distribution gives that action the probability 1: a Categorical with logits 0 and −inf, or a Gaussian with
    log_std = −inf around the action clipped to the box, which has no density: its `log_prob` is not a number. It has
    no parameters.

    Args:
        controller: observation [..., *shape] -> action [..., *action shape], for any leading axes: integers of a
            `Discrete` action space (others than its 0 … n − 1 have no distribution), or real numbers.
        environment: Where it acts; a `Box` of actions must have shape [d].

    Raises:
        InputError: If the controller does not take the environment's observations or return its actions.

    Example:
        >>> import pgjax
        >>> environment = pgjax.maze("#S.E#", horizon=10)
        >>> expert = scripted(jnp.ones_like, environment)  # always to the east
        >>> returns = pgjax.evaluate(environment, expert.policy, episodes=3)
        >>> returns(jax.random.key(0), expert.params, environment.params).tolist()
        [-2.0, -2.0, -2.0]
    """
    actions = environment.action_space
    if not isinstance(actions, Discrete) and len(actions.shape) != 1:
        raise InputError(f"expected continuous actions of shape [d], got {tuple(actions.shape)} in {environment.name}")

    def apply(params: PyTree, observation: jax.Array) -> Distribution:
        return certain(environment, observation, controller(observation))

    policy = memoryless(lambda key: (), apply)
    check_fit(environment, policy)
    return Expert(policy, ())


def certain(environment: Environment, observation: jax.Array, action: Any) -> Distribution:
    """Return the distribution [...] that at observations [..., *shape] always takes these actions, see `scripted`.

    Raises:
        InputError: If they are not actions [..., *action shape] of the environment.
    """
    states, actions = environment.observation_space, environment.action_space
    action = jnp.asarray(action)
    expected = (*observation.shape[: observation.ndim - len(states.shape)], *actions.shape)
    kind = jnp.integer if isinstance(actions, Discrete) else jnp.floating
    if action.shape != expected or not jnp.issubdtype(action.dtype, kind):
        raise InputError(
            f"expected a controller that returns, for observations {observation.shape} of {environment.name}, "
            f"actions {expected} of type {kind.__name__} ({describe(actions)} each), got {action.shape} of type "
            f"{action.dtype}"
        )
    if isinstance(actions, Discrete):
        return Categorical(jnp.log(jax.nn.one_hot(action, actions.n)))
    return Gaussian(actions.clip(action), jnp.full_like(action, -jnp.inf))


def scripted_with_memory(
    memory: Callable[[int], PyTree],
    controller: Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]],
    environment: Environment,
) -> Expert:
    """Return the expert that always does what a function says that remembers; all else is as in `scripted`.

    Args:
        memory: E -> what E episodes begin with.
        controller: (memory, observation [E, *shape]) -> (memory, action [E, *action shape]).
        environment: Where it acts.

    Raises:
        InputError: If the controller does not take the environment's observations or return its actions.
    """

    def step(params: PyTree, memory: PyTree, observation: jax.Array) -> tuple[PyTree, Distribution]:
        memory, action = controller(memory, observation)
        return memory, certain(environment, observation, action)

    def unroll(params: PyTree, trajectory: Any) -> Distribution:
        begun = memory(trajectory.mask.shape[1])
        return jax.lax.scan(lambda carry, row: step(params, carry, row), begun, trajectory.observation)[1]

    policy = Policy(lambda key: (), memory, step, unroll)
    check_fit(environment, policy)
    return Expert(policy, ())


def optimal_expert(mdp: FiniteMDP, horizon: int, discount: float = 1.0) -> Expert:
    """Return an expert that acts optimally in `finite(mdp, horizon)`; of equally good actions it takes the first.

    If the greedy policy of the first step's Q*_1 earns ρ* (to a relative 1e-6), it is that, a `tabular` policy. If not,
    what is best depends on the steps that are left, and it is a `tabular_by_time` policy, which counts them.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        discount: γ.

    Raises:
        InputError: If the horizon is below 1.
    """
    solution = exact.optimal(mdp, horizon, discount)
    states, actions = mdp.p.shape[:2]
    best = jax.nn.one_hot(jnp.argmax(solution.action_values, axis=-1), actions)  # [T, S, A]
    # What it costs to act by the table of the first step throughout, v* − Q*, summed over the steps it then makes.
    visits = exact.state_distribution(mdp, horizon, best[0])
    regret = solution.values - jnp.sum(best[:1] * solution.action_values, axis=-1)
    lost = discount ** jnp.arange(horizon) @ jnp.sum(visits * regret, axis=-1)
    if lost <= TOLERANCE * jnp.abs(solution.rho):
        return Expert(tabular(states, actions), jnp.log(best[0]))
    return Expert(tabular_by_time(horizon, states, actions), jnp.log(best))


def shortest_paths(layout: str = LECTURE) -> Expert:
    """Return the expert that takes a shortest way out of `maze(layout)` from every cell, whatever the horizon.

    Raises:
        InputError: If the layout cannot be read.
    """
    mdp = maze_tables(layout)
    return optimal_expert(mdp, horizon=len(mdp.d0))


def dead_reckoning(layout: str = LECTURE, sight: int = 1) -> Expert:
    """Return the expert that takes a shortest way out of `partial_maze(layout, sight=sight)`: it knows where it is.

    It has the map, and remembers each of its moves since the start.

    Raises:
        InputError: If the layout cannot be read, has more than one start, or the sight is below 0.
    """
    maze, _ = read_layout(layout)
    starts = np.flatnonzero(maze.start)
    if len(starts) != 1:
        raise InputError(f"expected a maze with one start, got one with {len(starts)}")
    best = jnp.argmax(shortest_paths(layout).params, axis=-1)

    def controller(cell: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        return maze.next_cell[cell, best[cell]], best[cell].astype(jnp.int32)

    def memory(episodes: int) -> jax.Array:
        return jnp.full(episodes, starts[0], jnp.int32)

    return scripted_with_memory(memory, controller, partial_maze(layout, sight=sight))


def sign_follower(environment: Environment) -> Expert:
    """Return the expert that walks through a `t_maze` and turns to the side of the sign that it saw.

    Raises:
        InputError: If observations are not four numbers, or actions not four.
    """
    if environment.observation_space.shape != (4,) or getattr(environment.action_space, "n", None) != 4:
        raise InputError(f"expected a t_maze, got {environment.name} with other observations or actions")

    def controller(side: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        north, south, junction = (observation[:, i] > 0 for i in (0, 1, 3))
        side = jnp.where(north, 0, jnp.where(south, 2, side))
        return side, jnp.where(junction, side, 1)

    return scripted_with_memory(lambda episodes: jnp.zeros(episodes, jnp.int32), controller, environment)


def trained(
    results: xr.Dataset | str | Path,
    policy: Policy,
    *,
    seed: int | None = None,
    point: Mapping[str, float] | None = None,
) -> Expert:
    """Return a policy as a run of a sweep left it.

    Args:
        results: What `sweep` or `read` returned, or the directory that was given to a sweep as `out`.
        policy: The one that was trained.
        seed: The run; if not given, the one with the highest `final_return` among those of the point.
        point: A value of each hyper-parameter of the grid, {"learning_rate": 1e-3}.

    Raises:
        InputError: See `load_params`; if the best of the runs is asked for and no return is known, or none is finite.
    """
    if seed is None:
        seed = best_seed(opened(results), point or {})
    like = jax.eval_shape(policy.init, jax.random.key(0))
    return Expert(policy, load_params(results, like, seed=seed, point=point))


def best_seed(dataset: xr.Dataset, point: Mapping[str, float]) -> int:
    """Return the seed of the highest final return at a point of the grid, of those that are finite.

    Raises:
        InputError: If there is no such point, or no final return that is a finite number.
    """
    runs = dataset.isel(dict(zip(dataset.completed.dims, where(dataset, None, point), strict=True)))
    if not {"episode_return", "episodes"} <= set(runs.data_vars):
        raise InputError("expected a seed, or results with the returns of episodes to choose it by, got neither")
    finals = final_return(runs)
    if not np.isfinite(finals).any():
        raise InputError(f"expected a run with a finite return, got {finals.size} runs without one")
    return int(finals.seed[np.where(np.isfinite(finals), finals, -np.inf).argmax()])


def cartpole_controller(
    observation: jax.Array,
    *,
    position: float = 0.1,
    velocity: float = 0.3,
    angle: float = 3.0,
    angular_velocity: float = 1.0,
) -> jax.Array:
    """Balance CartPole-v1 by state feedback: push to the right (1) where k·(x, ẋ, θ, θ̇) > 0, else to the left (0).

    Gains k are of x in m, ẋ in m/s, θ in rad from upright and θ̇ in rad/s, which are the observation [..., 4]; actions
    are [...] int32. The pole is caught by pushing to where it falls; the small gains of the cart have the pole lean
    towards the middle, and bring the cart back.
    Source: the task is from Barto, Sutton & Anderson, *Neuronlike adaptive elements that can solve difficult learning
    control problems*, 1983; the gains are our own, chosen by measurement.
    """
    return (observation @ jnp.array([position, velocity, angle, angular_velocity]) > 0).astype(jnp.int32)


def pendulum_controller(
    observation: jax.Array, *, rate: float = 0.2, stiffness: float = 8.0, damping: float = 2.0
) -> jax.Array:
    """Swing Pendulum-v1 up by its energy and hold it upright by a spring and a damper: a torque u [..., 1] in N m.

    With θ = 0 upright, θ̈ = 15 sin θ + 3u, and |u| ≤ 2. The energy E = θ̇²/2 + 15 (cos θ − 1) is 0 at rest on top and
    changes by Ė = 3uθ̇, so u = −rate·E·θ̇ brings it to 0. Within 60° of the top u = −stiffness·sin θ − damping·θ̇.
    Observations [..., 3] are cos θ, sin θ, and θ̇ in rad/s.
    Source: Åström & Furuta, *Swinging up a pendulum by energy control*, 2000.
    """
    cosine, sine, velocity = observation[..., 0], observation[..., 1], observation[..., 2]
    energy = velocity**2 / 2 + 15 * (cosine - 1)
    torque = jnp.where(cosine > 0.5, -stiffness * sine - damping * velocity, -rate * energy * velocity)
    return jnp.clip(torque, -2, 2)[..., None]


def mountain_car_controller(observation: jax.Array, *, slope: float = 0.01, centre: float = -0.475) -> jax.Array:
    """Drive MountainCar-v0 out of its valley: push right (2) where v ≥ slope·(x − centre), else left (0).

    Where the car moves, that is the direction in which it moves, so that every push adds energy; where it hardly does,
    it is away from where it stands, towards the centre. (With slope 0 it is the velocity's direction alone, and takes
    14 steps more.) Observations [..., 2] are positions x in the task's units and velocities v in those a step; actions
    are [...] int32.
    Source: the task is from Moore, *Efficient Memory-based Learning for Robot Control*, 1990; slope and centre are our
    own, chosen by measurement.
    """
    position, velocity = observation[..., 0], observation[..., 1]
    return jnp.where(velocity >= slope * (position - centre), 2, 0).astype(jnp.int32)


def continuous_mountain_car_controller(observation: jax.Array, *, gain: float = 4.5, least: float = 0.02) -> jax.Array:
    """Drive MountainCarContinuous-v0 out of its valley with little force: a = gain·v + least·sign(v), [..., 1].

    A step's work is proportional to a·v and its price is a²/10, so that a force proportional to the velocity buys the
    most energy; the smaller the cheaper, as long as the car is out before the 999 steps are over. The `least` force
    gets it going. Observations are [..., 2], as in `mountain_car_controller`.
    Source: our own, from that argument; the numbers are chosen by measurement.
    """
    velocity = observation[..., 1:]
    return jnp.clip(gain * velocity + least * jnp.sign(velocity), -1, 1)


def acrobot_controller(observation: jax.Array) -> jax.Array:
    """Swing Acrobot-v1 up: the torque between the links (0, 1, 2 for −1, 0, 1 N m) is −sign(θ̇_1).

    θ_1 is the first link's angle, θ_2 the second's relative to it, so the torque's power is torque·θ̇_2: this one feeds
    the faster of the two ways in which the links swing, that where they turn against each other. Observations [..., 6]
    are the cosines and sines of both angles, then θ̇_1 and θ̇_2 in rad/s; actions are [...] int32.
    Source: our own, after the pumping of energy in Spong, *The swing up control problem for the Acrobot*, 1995.
    """
    return 1 - jnp.sign(observation[..., 4]).astype(jnp.int32)
