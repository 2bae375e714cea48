"""Robot navigation: drive to the goal through a room with obstacles, by what range sensors see, on wheels that slip."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.patches import Circle

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Episode, Step
from pgjax.environments.drawings import BLUE, COLOURS, GREEN, ORANGE
from pgjax.environments.spaces import Box
from pgjax.errors import InputError

ROOM = 10.0  # m, the side of the room
ROBOT = 0.25  # m, the robot's radius
AXLE = 0.4  # m, from wheel to wheel
GOAL = 0.5  # m, the goal's radius
RANGE = 3.0  # m, how far a sensor sees
SPEED = 1.0  # m/s, the fastest
TURN = 1.5  # rad/s, the fastest
DURATION = 0.4  # s, a step
GAP = 1.0  # m, the least between two obstacles or an obstacle and a wall, so that the robot gets everywhere
APART = 2.0  # m, the least between the start and the goal's centre
CANDIDATES = 32  # positions drawn for each episode


class Navigation(NamedTuple):
    """The environment's `params`; layouts with the same number of obstacles can be swept."""

    obstacle_position: Any  # [obstacles, 2], m, centres
    obstacle_radius: Any  # [obstacles], m
    slip: Any  # [], the largest fraction of its speed that a wheel loses
    time_cost: Any  # [], 1/s
    bump_cost: Any  # [], each step that ends in a collision
    goal_reward: Any  # [], on arrival


class State(NamedTuple):
    """Where the robot and its goal are."""

    position: jax.Array  # [2], m from the room's lower left corner
    heading: jax.Array  # [], rad, counter-clockwise from the x-axis
    goal: jax.Array  # [2], m


def layout(obstacles: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw circles with radii between 0.5 and 1 m, that leave 1 m or more between each other and to the walls.

    Returns:
        Their centres [obstacles, 2] and radii [obstacles], in m.

    Raises:
        InputError: If they do not all find a place.
    """
    rng = np.random.default_rng(seed)
    positions, radii = np.zeros((0, 2)), np.zeros(0)
    for _ in range(1000):
        if len(radii) == obstacles:
            break
        position, radius = rng.uniform(0, ROOM, 2), rng.uniform(0.5, 1)
        rims = np.hypot(*(positions - position).T) - radii
        radius = min(radius, np.min([*rims, *position, *(ROOM - position)]) - GAP)
        if radius >= 0.5:
            positions, radii = np.append(positions, [position], 0), np.append(radii, radius)
    if len(radii) < obstacles:
        raise InputError(
            f"expected obstacles that all find a place, got {obstacles}, of which {len(radii)} do (seed {seed})"
        )
    return positions, radii


def chord(heading: Any, v: Any, omega: Any, duration: float) -> tuple[jax.Array, jax.Array]:
    """The length (m) and the direction (rad) of the straight line between the ends of a unicycle's path.

    At constant speed v and turning rate ω the path is an arc, and after Δt exactly
    |Δx| = v·Δt·sin(ωΔt/2) / (ωΔt/2) in the direction θ + ωΔt/2, while the heading has become θ + ωΔt.
    """
    half = omega * duration / 2
    return v * duration * jnp.sinc(half / math.pi), heading + half


def slipping(wheels: jax.Array, v: jax.Array, omega: jax.Array, slip: Any) -> tuple[jax.Array, jax.Array]:
    """V and ω when the left and the right wheel lose the fractions slip·wheels [2] of their speeds v ∓ ω·axle/2.

    A wheel that slips more than the other turns the robot to its side.
    """
    left = (v - omega * AXLE / 2) * (1 - slip * wheels[0])
    right = (v + omega * AXLE / 2) * (1 - slip * wheels[1])
    return (left + right) / 2, (right - left) / AXLE


def free_distances(
    position: jax.Array, direction: jax.Array, centres: jax.Array, radii: jax.Array, margin: float = 0.0
) -> jax.Array:
    """How far it is from a position to the next obstacle or wall, [k] in m.

    A circle of radius r at c relative to the position is met at d·c − √(r² − (d × c)²), if that root is real and
    d·c > 0; a wall at a distance g along an axis is at g/|d|.

    Args:
        position: [2], in the room.
        direction: [k, 2], unit vectors d.
        centres: [n, 2], of the circles.
        radii: [n], of the circles.
        margin: How much is added to the circles and to the walls: the radius of what moves. From within it, whatever
            leads further in is free for a distance of 0, and what leads out of it is free.
    """
    c = centres - position[None]
    dx, dy = direction[:, :1], direction[:, 1:]
    cx, cy = c[None, :, 0], c[None, :, 1]
    along = dx * cx + dy * cy  # [k, n]
    square = (radii[None] + margin) ** 2 - (dx * cy - dy * cx) ** 2
    circles = jnp.where((along > 0) & (square > 0), along - jnp.sqrt(jnp.maximum(square, 0)), jnp.inf)
    size = jnp.abs(direction)
    gap = jnp.where(direction > 0, ROOM - margin - position[None], position[None] - margin)
    walls = jnp.where(size > 1e-6, gap / jnp.maximum(size, 1e-6), jnp.inf)
    return jnp.maximum(jnp.minimum(jnp.min(circles, axis=1, initial=jnp.inf), jnp.min(walls, axis=1)), 0)


def ray_angles(rays: int) -> np.ndarray:
    """Where the sensors look, [rays] in rad from the heading: from 90° to the right to 90° to the left."""
    return np.linspace(-math.pi / 2, math.pi / 2, rays)


def observe(state: State, rays: int, params: Navigation) -> jax.Array:
    """What the robot knows, [3 + rays] float32: where the goal is, and what is around; see `navigation`."""
    distance = jnp.linalg.norm(state.goal - state.position)
    cosine, sine = jnp.cos(state.heading), jnp.sin(state.heading)
    x, y = (state.goal - state.position) / jnp.maximum(distance, 1e-6)
    direction = jnp.clip(jnp.stack([cosine * x + sine * y, cosine * y - sine * x]), -1, 1)
    angles = ray_angles(rays)
    ahead, aside = (jnp.asarray(part, cosine.dtype) for part in (np.cos(angles), np.sin(angles)))
    rays_to = jnp.stack([cosine * ahead - sine * aside, sine * ahead + cosine * aside], axis=1)
    seen = free_distances(state.position, rays_to, params.obstacle_position, params.obstacle_radius)
    return jnp.concatenate([distance[None] / ROOM, direction, jnp.minimum(seen / RANGE, 1)]).astype(jnp.float32)


def placed(key: jax.Array, params: Navigation) -> State:
    """A robot and a goal where there is room for them, see `navigation`."""
    drawn = jax.random.uniform(key, (2 * CANDIDATES + 1,))
    places = ROBOT + (ROOM - 2 * ROBOT) * drawn[1:].reshape(CANDIDATES, 2)
    away = jnp.linalg.norm(places[:, None] - params.obstacle_position[None], axis=-1)  # [candidates, obstacles]
    free = jnp.all(away > params.obstacle_radius[None] + ROBOT, axis=1)
    position = places[jnp.argmax(free)]
    goal = places[jnp.argmax(free & (jnp.linalg.norm(places - position[None], axis=-1) >= APART))]
    return State(position, math.pi * (2 * drawn[0] - 1), goal)


def driven(key: jax.Array, state: State, action: jax.Array, params: Navigation) -> tuple[State, jax.Array]:
    """Where the robot is after an action [2], and whether it touched something on the way."""
    dtype = state.position.dtype
    v, omega = action.astype(dtype)
    v, omega = slipping(jax.random.uniform(key, (2,), dtype), v, omega, params.slip)
    length, angle = chord(state.heading, v, omega, DURATION)
    length, direction = jnp.abs(length), jnp.sign(length) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    free = free_distances(
        state.position, direction[None], params.obstacle_position, params.obstacle_radius, margin=ROBOT
    )[0]
    position = jnp.clip(state.position + jnp.minimum(length, free) * direction, ROBOT, ROOM - ROBOT)
    heading = (state.heading + omega * DURATION).astype(dtype)
    return State(position.astype(dtype), heading, state.goal), free < length


def navigation(
    obstacles: int = 6,
    rays: int = 9,
    horizon: int = 100,
    seed: int = 0,
    slip: Any = 0.2,
    time_cost: Any = 0.1,
    bump_cost: Any = 0.2,
    goal_reward: Any = 1.0,
) -> Environment:
    """The environment of a robot with two wheels that is to reach a goal in a room of 10 m by 10 m.

    The robot, a disc of radius 0.25 m, and the middle of the goal, a disc of radius 0.5 m, are placed uniformly where
    the robot fits, at least 2 m apart; the heading is uniform. (They are the first that do of 32 positions; that none
    does has a probability below 1e-7.) The obstacles are the same in every episode; they are drawn here, with the seed.

    A_t = (v, ω): speed, 0 to 1 m/s, and turning rate, −1.5 to 1.5 rad/s, to the left being positive, for 0.4 s. Each
    wheel loses a fraction of its speed that is uniform between 0 and `slip`. The robot moves in a straight line to the
    end of the arc that it would drive, and stops on the way where it would touch an obstacle or a wall; it turns all
    the same.

    X_t, [3 + rays]: the distance to the goal's middle, in units of 10 m; the cosine and the sine of the goal's
    direction, from the heading; then what the sensors see, from 90° to the right to 90° to the left: the distance from
    the robot's middle to the next obstacle or wall, at most 3 m, in units of 3 m.

    R_{t+1} = d_t − d_{t+1} − 0.4 s·time_cost − bump_cost [collision] + goal_reward [arrival], where d is the distance
    in m that is left to the goal's rim, 0 within. The first two terms telescope to d_1 − d_{T+1} (without discount),
    so that they prefer no way of reaching the goal to another; an episode that is cut off is paid for how near it came.

    The episode terminates when the robot's middle is in the goal, and is truncated after `horizon` steps.

    Args:
        obstacles: How many; 0 for none.
        rays: Sensors, at least 3.
        horizon: T in steps, at least 1.
        seed: Of the obstacles' positions and radii (`environment.params` holds them).
        slip: Between 0 and 1.
        time_cost: In 1/s, as progress pays 1/m.
        bump_cost: Of each step that ends in a collision.
        goal_reward: On arrival.

    Raises:
        InputError: If a number is out of range or the obstacles do not all find a place.

    Source: the task is our own; the potential d is after Ng, Harada & Russell, *Policy invariance under reward
    transformations*, 1999.
    """
    for expected, number, least in (
        ("0 or more obstacles", obstacles, 0),
        ("3 or more rays", rays, 3),
        ("a seed of 0 or more", seed, 0),
    ):
        if number < least:
            raise InputError(f"expected {expected}, got {number}")
    check_horizon(horizon)
    if isinstance(slip, int | float) and not 0 <= slip <= 1:
        raise InputError(f"expected slip between 0 and 1, got {slip}")
    dtype = jnp.result_type(float)
    numbers = (*layout(obstacles, seed), slip, time_cost, bump_cost, goal_reward)
    params = Navigation(*(jnp.asarray(number, dtype) for number in numbers))

    def reset(key: jax.Array, params: Navigation) -> tuple[State, jax.Array]:
        state = placed(key, params)
        return state, observe(state, rays, params)

    def step(key: jax.Array, state: State, action: jax.Array, params: Navigation) -> tuple[State, Step]:
        after, bumped = driven(key, state, action, params)
        before, distance = (jnp.linalg.norm(state.goal - place) for place in (state.position, after.position))
        arrived = distance <= GOAL
        reward = (
            jnp.maximum(before - GOAL, 0)
            - jnp.maximum(distance - GOAL, 0)
            - DURATION * params.time_cost
            - params.bump_cost * bumped
            + params.goal_reward * arrived
        )
        return after, Step(observe(after, rays, params), reward.astype(jnp.float32), terminated=arrived)

    low = np.array([0, -1, -1] + [0] * rays, np.float32)
    high = np.array([math.sqrt(2), 1, 1] + [1] * rays, np.float32)
    return Environment(
        reset=reset,
        step=step,
        observation_space=Box(low, high, (3 + rays,)),
        action_space=Box(np.array([0, -TURN], np.float32), np.array([SPEED, TURN], np.float32), (2,)),
        horizon=horizon,
        params=params,
        name="navigation",
        draw=draw,
    )


def draw(axes: Any, episode: Episode, t: int) -> None:
    """Draw the room after t steps: obstacles, goal, the way so far, and the robot with what its sensors see."""
    params, state = episode.params, episode.state
    (x, y), heading = state.position[t], state.heading[t]
    axes.set(xlim=(0, ROOM), ylim=(0, ROOM), xticks=[], yticks=[], aspect="equal")
    axes.set_title(f"{DURATION * t:.1f} s", fontsize="medium")
    axes.add_patch(Circle(state.goal[t], GOAL, facecolor=GREEN, alpha=0.5))
    for centre, radius in zip(params.obstacle_position, params.obstacle_radius, strict=True):
        axes.add_patch(Circle(centre, radius, color=COLOURS[-1]))
    seen = RANGE * episode.observation[t][3:]
    angles = heading + ray_angles(len(seen))
    for end_x, end_y in zip(x + seen * np.cos(angles), y + seen * np.sin(angles), strict=True):
        axes.plot([x, end_x], [y, end_y], color=ORANGE, linewidth=0.6)
    axes.plot(*state.position[: t + 1].T, color=BLUE, linewidth=1.5)
    axes.add_patch(Circle((x, y), ROBOT, color=BLUE, zorder=3))
    axes.plot(
        [x, x + ROBOT * np.cos(heading)], [y, y + ROBOT * np.sin(heading)], color="white", linewidth=1.5, zorder=4
    )
