"""The lecture's maze: get out as fast as possible."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.environment import Discrete, Environment, Step
from pgjax.environments.finite import FiniteMDP, tables
from pgjax.errors import InputError

LECTURE = """
#########
#S..#...#
#.#.#.#.#
#.#...#.#
#.#####.#
#.....#E#
#########
"""

DIRECTIONS = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # north, east, south, west


class Maze(NamedTuple):
    """A maze's free cells, numbered row by row; the environment's `params`."""

    next_cell: jax.Array  # [cells, 4] int32, where each direction leads; against a wall: where one is
    exit: jax.Array  # [cells] bool
    start: jax.Array  # [cells], probability of starting there


def read_layout(layout: str) -> tuple[Maze, np.ndarray]:
    """Read a maze from text: `#` is wall, `.` or a space is free, `S` a start, `E` an exit.

    Several starts are equally likely; without one, every free cell but the exits is.

    Returns:
        The maze, and the positions [cells, 2] (row, column) of its free cells in the text's rectangle.

    Raises:
        InputError: If there is a sign of another kind, no exit, or no way from a start to an exit.
    """
    lines = layout.strip("\n").split("\n")
    width = max(len(line) for line in lines)
    grid = np.array([list(line.ljust(width, "#")) for line in lines])
    strange = sorted(set(grid.flat) - set("#. SE"))
    if strange:
        raise InputError(f"expected a maze of '#', '.', ' ', 'S' and 'E', got {str(strange[0])!r}")
    positions = np.argwhere(grid != "#")
    number = {tuple(position): cell for cell, position in enumerate(positions)}
    signs = grid[tuple(positions.T)]
    exits = signs == "E"
    starts = (signs == "S") if (signs == "S").any() else ~exits
    if not exits.any() or not starts.any():
        raise InputError(f"expected a maze with an exit 'E' and a cell to start from, got {layout!r}")
    next_cell = np.array(
        [[number.get(tuple(position + d), number[tuple(position)]) for d in DIRECTIONS] for position in positions]
    )
    leads_out = exits.copy()
    for _ in range(len(positions)):
        leads_out = leads_out | leads_out[next_cell].any(1)
    if not leads_out[starts].all():
        raise InputError(f"expected a way from every start to an exit, got none in {layout!r}")
    maze = Maze(
        jnp.asarray(next_cell, jnp.int32),
        jnp.asarray(exits),
        jnp.asarray(starts / starts.sum(), jnp.result_type(float)),
    )
    return maze, positions


def maze(layout: str = LECTURE, horizon: int = 100) -> Environment:
    """Return the environment of a maze.

    X_t is the number of the cell, A_t ∈ {0 north, 1 east, 2 south, 3 west}, R_{t+1} = −1 each step. Walking into a wall
    leaves the agent where it is. The episode terminates at an exit, and is truncated after `horizon` steps.

    Args:
        layout: The maze as text, see `read_layout`.
        horizon: T, the patience in steps, at least 1.

    Raises:
        InputError: If the layout cannot be read or the horizon is below 1.

    Source: the maze of the lecture ("get out of the maze as fast as possible").
    """
    if horizon < 1:
        raise InputError(f"expected a horizon of 1 or more steps, got {horizon}")
    params, positions = read_layout(layout)

    def reset(key: jax.Array, maze: Maze) -> tuple[jax.Array, jax.Array]:
        cell = jax.random.categorical(key, jnp.log(maze.start)).astype(jnp.int32)
        return cell, cell

    def step(key: jax.Array, cell: jax.Array, action: jax.Array, maze: Maze) -> tuple[jax.Array, Step]:
        cell = maze.next_cell[cell, action]
        return cell, Step(cell, jnp.float32(-1), maze.exit[cell], jnp.bool_(False))

    return Environment(reset, step, Discrete(len(positions)), Discrete(len(DIRECTIONS)), horizon, params, name="maze")


def maze_tables(layout: str = LECTURE) -> FiniteMDP:
    """Return the same maze as the tables of a finite MDP, for exact computations.

    Raises:
        InputError: If the layout cannot be read.
    """
    maze, positions = read_layout(layout)
    p = np.eye(len(positions))[np.asarray(maze.next_cell)]  # [cells, 4, cells]
    return tables(maze.start, p, -np.ones(p.shape[:2]), maze.exit)
