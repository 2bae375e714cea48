"""Experts: policies that are worth imitating, whose distribution f*(X_t) is known for every observation.

One is written by hand (`scripted`, of a controller), computed (`optimal_expert`, `shortest_paths`), or was trained
before (`pgjax.trained`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Environment
from pgjax.environments.finite_mdp import FiniteMDP
from pgjax.environments.mazes import LECTURE, maze_tables, partial_maze, read_layout
from pgjax.environments.spaces import Box, batch_of
from pgjax.errors import InputError
from pgjax.exact.solution import optimal, state_distribution
from pgjax.policies.base import Policy, check_fit, describe, memoryless, stepwise
from pgjax.policies.distributions import Categorical, Distribution, Gaussian, MultiCategorical
from pgjax.policies.tables import tabular, tabular_by_time
from pgjax.trees import PyTree

TOLERANCE = 1e-6  # relative, within which a policy counts as optimal


class Expert(NamedTuple):
    """Who is imitated: any policy, with or without memory, and its parameters."""

    policy: Policy
    params: PyTree


def scripted(controller: Callable[[jax.Array], jax.Array], environment: Environment) -> Expert:
    """The expert that always does what a function says.

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
    if isinstance(actions, Box) and len(actions.shape) != 1:
        raise InputError(f"expected continuous actions of shape [d], got {tuple(actions.shape)} in {environment.name}")

    def apply(params: PyTree, observation: jax.Array) -> Distribution:
        return certain(environment, observation, controller(observation))

    policy = memoryless(lambda key: (), apply)
    check_fit(environment, policy)
    return Expert(policy, ())


def certain(environment: Environment, observation: Any, action: Any) -> Distribution:
    """The distribution [...] that at observations [..., *shape] always takes these actions, see `scripted`.

    Raises:
        InputError: If they are not actions [..., *action shape] of the environment.
    """
    states, actions = environment.observation_space, environment.action_space
    action = jnp.asarray(action)
    expected = (*batch_of(states, observation), *actions.shape)
    kind = jnp.floating if isinstance(actions, Box) else jnp.integer
    if action.shape != expected or not jnp.issubdtype(action.dtype, kind):
        raise InputError(
            f"expected a controller that returns, for observations {jax.tree.map(jnp.shape, observation)} of "
            f"{environment.name}, actions {expected} of type {kind.__name__} ({describe(actions)} each), got "
            f"{action.shape} of type {action.dtype}"
        )
    if not isinstance(actions, Box):
        logits = jnp.log(jax.nn.one_hot(action, actions.allowed.shape[-1]))
        return MultiCategorical(logits) if actions.shape else Categorical(logits)
    return Gaussian(actions.clip(action), jnp.full_like(action, -jnp.inf))


def scripted_with_memory(
    memory: Callable[[int], PyTree],
    controller: Callable[[PyTree, jax.Array], tuple[PyTree, jax.Array]],
    environment: Environment,
) -> Expert:
    """The expert that always does what a function says that remembers; all else is as in `scripted`.

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

    policy = stepwise(lambda key: (), memory, step)
    check_fit(environment, policy)
    return Expert(policy, ())


def optimal_expert(mdp: FiniteMDP, horizon: int, discount: float = 1.0) -> Expert:
    """An expert that acts optimally in `finite(mdp, horizon)`; of equally good actions it takes the first.

    If the greedy policy of the first step's Q*_1 earns ρ* (to a relative 1e-6), it is that, a `tabular` policy. If not,
    what is best depends on the steps that are left, and it is a `tabular_by_time` policy, which counts them.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        discount: γ.

    Raises:
        InputError: If the horizon is below 1.
    """
    solution = optimal(mdp, horizon, discount)
    states, actions = mdp.p.shape[:2]
    best = jax.nn.one_hot(jnp.argmax(solution.action_values, axis=-1), actions)  # [T, S, A]
    # What it costs to act by the table of the first step throughout, v* − Q*, summed over the steps it then makes.
    visits = state_distribution(mdp, horizon, best[0])
    regret = solution.values - jnp.sum(best[:1] * solution.action_values, axis=-1)
    lost = discount ** jnp.arange(horizon) @ jnp.sum(visits * regret, axis=-1)
    if lost <= TOLERANCE * jnp.abs(solution.rho):
        return Expert(tabular(states, actions), jnp.log(best[0]))
    return Expert(tabular_by_time(horizon, states, actions), jnp.log(best))


def shortest_paths(layout: str = LECTURE) -> Expert:
    """The expert that takes a shortest way out of `maze(layout)` from every cell, whatever the horizon.

    Raises:
        InputError: If the layout cannot be read.
    """
    mdp = maze_tables(layout)
    return optimal_expert(mdp, horizon=len(mdp.d0))


def dead_reckoning(layout: str = LECTURE, sight: int = 1) -> Expert:
    """The expert that takes a shortest way out of `partial_maze(layout, sight=sight)`: it knows where it is.

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
    """The expert that walks through a `t_maze` and turns to the side of the sign that it saw.

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
