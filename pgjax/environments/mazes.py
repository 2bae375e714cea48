"""The lecture's maze, and others: get out as fast as possible, knowing where one is or only what is around."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Episode, Step
from pgjax.environments.drawings import BLUE, GREEN, ORANGE, RED
from pgjax.environments.finite_mdp import FiniteMDP, tables
from pgjax.environments.spaces import Box, Discrete
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


ROOMS = """
#############
#S....#.....#
#.....#.....#
#...........#
#.....#.....#
#.....#.....#
##.####.....#
#.....###.###
#.....#.....#
#.....#.....#
#...........#
#.....#....E#
#############
"""  # the four rooms of Sutton, Precup & Singh, *Between MDPs and semi-MDPs*, 1999


SPIRAL = """
###########
#S........#
#########.#
#.......#.#
#.#####.#.#
#.#E..#.#.#
#.###.#.#.#
#.....#.#.#
#######.#.#
#.........#
###########
"""


LOOPS = """
###########
#....#....#
#.##.#.##.#
#.#.....#.#
#...#.#...#
###.#E#.###
#...#.#...#
#.#.....#.#
#.##.#.##.#
#....#....#
###########
"""  # many places look alike, and every free cell is a start


LAYOUTS = {"lecture": LECTURE, "rooms": ROOMS, "spiral": SPIRAL, "loops": LOOPS}
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
        InputError: If there is a sign of another kind, no exit, no cell to start from, or no way from there to an exit.
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
    """The environment of a maze.

    X_t is the number of the cell, A_t ∈ {0 north, 1 east, 2 south, 3 west}, R_{t+1} = −1 each step. Walking into a wall
    leaves the agent where it is. The episode terminates at an exit, and is truncated after `horizon` steps.

    Args:
        layout: The maze as text, see `read_layout`; `pgjax.environments.LAYOUTS` has some.
        horizon: T, the horizon in steps, at least 1.

    Raises:
        InputError: If the layout cannot be read or the horizon is below 1.

    Source: the maze of the lecture ("get out of the maze as fast as possible").

    Example:
        >>> environment = maze("#S.E#")
        >>> state, x = environment.reset(jax.random.key(0), environment.params)
        >>> state, step = environment.step(jax.random.key(0), state, 1, environment.params)  # to the east
        >>> int(x), int(step.observation), float(step.reward), bool(step.terminated)
        (0, 1, -1.0, False)
    """
    check_horizon(horizon)
    params, positions = read_layout(layout)

    def reset(key: jax.Array, maze: Maze) -> tuple[jax.Array, jax.Array]:
        cell = jax.random.categorical(key, jnp.log(maze.start)).astype(jnp.int32)
        return cell, cell

    def step(key: jax.Array, cell: jax.Array, action: jax.Array, maze: Maze) -> tuple[jax.Array, Step]:
        cell = maze.next_cell[cell, action]
        return cell, Step(observation=cell, reward=jnp.float32(-1), terminated=maze.exit[cell])

    def draw(axes: Any, episode: Episode, t: int) -> None:
        draw_maze(axes, positions, np.asarray(episode.params.exit), episode.state, t)

    states, actions = Discrete(len(positions)), Discrete(len(DIRECTIONS))
    return Environment(
        reset=reset,
        step=step,
        observation_space=states,
        action_space=actions,
        horizon=horizon,
        params=params,
        name="maze",
        draw=draw,
    )


class PartialMaze(NamedTuple):
    """The `params` of a maze of which the agent sees what is around it."""

    maze: Maze
    seen: jax.Array  # [cells, n] float, the observation in each cell


def partial_maze(layout: str = LECTURE, horizon: int = 100, sight: int = 1) -> Environment:
    """The environment of a maze in which the agent sees only what is around it.

    All is as in `maze`, but X_t are two windows of (2·sight + 1)² cells around the agent, [2 (2·sight + 1)²], row by
    row: first 1 where a wall is and 0 elsewhere, then 1 where an exit is. Cells that look alike cannot be told apart
    without remembering the way there, so a policy with memory has an advantage (`pgjax.recurrent`).

    Args:
        layout: The maze as text, see `read_layout`.
        horizon: T, the horizon in steps, at least 1.
        sight: How many cells far it sees in each direction, through walls too; at least 0.

    Raises:
        InputError: If the layout cannot be read, the horizon is below 1, or the sight is below 0.

    Example:
        >>> environment = partial_maze("#S.E#", sight=0)
        >>> environment.observation_space.shape
        (2,)
    """
    if sight < 0:
        raise InputError(f"expected a sight of 0 or more cells, got {sight}")
    known = maze(layout, horizon)
    params, positions = read_layout(layout)
    free = np.zeros(positions.max(0) + 2 * sight + 2, bool)  # in a frame of walls
    out = np.zeros_like(free)
    rows, columns = (positions + sight).T
    free[rows, columns], out[rows, columns] = True, np.asarray(params.exit)
    width = 2 * sight + 1
    around = [(slice(row, row + width), slice(column, column + width)) for row, column in positions]
    seen = np.array([np.concatenate([~free[window].reshape(-1), out[window].reshape(-1)]) for window in around])

    def reset(key: jax.Array, params: PartialMaze) -> tuple[jax.Array, jax.Array]:
        cell, _ = known.reset(key, params.maze)
        return cell, params.seen[cell]

    def step(key: jax.Array, cell: jax.Array, action: jax.Array, params: PartialMaze) -> tuple[jax.Array, Step]:
        cell, step = known.step(key, cell, action, params.maze)
        return cell, step._replace(observation=params.seen[cell])

    def draw(axes: Any, episode: Episode, t: int) -> None:
        draw_maze(axes, positions, np.asarray(episode.params.maze.exit), episode.state, t, sight)

    return Environment(
        reset=reset,
        step=step,
        observation_space=Box(0.0, 1.0, (seen.shape[1],)),
        action_space=known.action_space,
        horizon=horizon,
        params=PartialMaze(params, jnp.asarray(seen, jnp.float32)),
        name="partially observed maze",
        draw=draw,
    )


class Corridor(NamedTuple):
    """Where the agent of a T-maze is."""

    place: jax.Array  # [] int32, cells from the start; `length` is the junction
    side: jax.Array  # [] int32, where the good end is: 0 north, 1 south


def t_maze(length: int = 8, horizon: int = 30) -> Environment:
    """The T-maze: a sign at the start says to which side to turn at the end of a corridor.

    X_t is [north, south, corridor, junction]: at the start the first or the second is 1, then the third, and at the
    junction the last. A_t ∈ {0 north, 1 east, 2 south, 3 west}. At the junction, north and south end the episode, with
    R = 4 on the side of the sign and −0.1 on the other. A step that a wall stops brings −0.1, any other 0. The best
    return is 4; a policy without memory cannot know where to turn, and comes to 1.95 at most.

    Args:
        length: Steps from the start to the junction, at least 1.
        horizon: T, at least `length` + 1.

    Raises:
        InputError: If the corridor is too short or too long.

    Source: Bakker, *Reinforcement learning with long short-term memory*, 2001.
    """
    if not 1 <= length < horizon:
        raise InputError(f"expected a corridor of 1 to {horizon - 1} steps, got {length}")

    def look(state: Corridor) -> jax.Array:
        start, junction = state.place == 0, state.place == length
        north = state.side == 0
        seen = jnp.stack([start & north, start & ~north, ~start & ~junction, junction])
        return seen.astype(jnp.float32)

    def reset(key: jax.Array, params: tuple[()]) -> tuple[Corridor, jax.Array]:
        state = Corridor(jnp.int32(0), jax.random.bernoulli(key).astype(jnp.int32))
        return state, look(state)

    def step(key: jax.Array, state: Corridor, action: jax.Array, params: tuple[()]) -> tuple[Corridor, Step]:
        turn = (action == 0) | (action == 2)
        ended = turn & (state.place == length)
        place = state.place + jnp.where(action == 1, 1, 0) - jnp.where(action == 3, 1, 0)
        place = jnp.clip(place, 0, length)
        stopped = (place == state.place) & ~ended
        right = action // 2 == state.side
        reward = jnp.where(ended & right, 4.0, jnp.where(ended | stopped, -0.1, 0.0)).astype(jnp.float32)
        state = Corridor(place, state.side)
        return state, Step(observation=look(state), reward=reward, terminated=ended)

    positions = np.array([(2, 1 + i) for i in range(length + 1)] + [(1, 1 + length), (3, 1 + length)])

    def draw(axes: Any, episode: Episode, t: int) -> None:
        good = int(episode.state.side[0])
        cells = np.array(episode.state.place)
        if len(episode.reward) and cells[-2] == length and episode.action[-1] in (0, 2):
            cells[-1] = length + 1 + int(episode.action[-1]) // 2
        draw_maze(axes, positions, np.arange(length + 3) == length + 1 + good, cells, t)

    actions = Discrete(len(DIRECTIONS))
    return Environment(
        reset=reset,
        step=step,
        observation_space=Box(0.0, 1.0, (4,)),
        action_space=actions,
        horizon=horizon,
        name="T-maze",
        draw=draw,
    )


def draw_maze(
    axes: Any, positions: np.ndarray, exits: np.ndarray, cells: np.ndarray, t: int, sight: int | None = None
) -> None:
    """Draw a maze, the way through it up to step t, the agent, and what it sees.

    Args:
        axes: Matplotlib's, to draw onto.
        positions: [cells, 2], row and column of each free cell.
        exits: [cells] bool.
        cells: [n + 1], where the agent was at each step.
        t: The step.
        sight: How far it sees; None if there is nothing to show.
    """
    rows, columns = positions.max(0) + 2
    grid = np.zeros((rows, columns))
    grid[tuple(positions.T)] = 1
    axes.imshow(grid, cmap="gray", vmin=-0.6, vmax=1, interpolation="nearest")
    row, column = positions[exits].T
    axes.plot(column, row, linestyle="", marker="s", markersize=12, color=GREEN)
    row, column = positions[cells[: t + 1]].T
    axes.plot(column, row, color=BLUE, linewidth=2, alpha=0.5)
    axes.plot(column[-1:], row[-1:], marker="o", markersize=12, color=RED)
    if sight is not None:
        corner, width = (column[-1] - sight - 0.5, row[-1] - sight - 0.5), 2 * sight + 1
        right, low = corner[0] + width, corner[1] + width
        outline = ([corner[0], right, right, corner[0], corner[0]], [corner[1], corner[1], low, low, corner[1]])
        axes.plot(*outline, color=ORANGE, linewidth=1.5)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


def maze_tables(layout: str = LECTURE) -> FiniteMDP:
    """The maze of `maze(layout)` as the tables of a finite MDP, S cells and A = 4, for exact computations.

    Raises:
        InputError: If the layout cannot be read.
    """
    maze, positions = read_layout(layout)
    p = np.eye(len(positions))[np.asarray(maze.next_cell)]  # [cells, 4, cells]
    return tables(maze.start, p, -np.ones(p.shape[:2]), maze.exit)
