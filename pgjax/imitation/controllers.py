"""Controllers written by hand, for the environments that have one."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Environment
from pgjax.environments.data_centre import HOURS, MIDDLE, READINGS, SLOWEST, UNIT
from pgjax.environments.robot import DURATION, RANGE, ROBOT, ROOM, SPEED, TURN, ray_angles
from pgjax.environments.spaces import Discrete
from pgjax.errors import InputError
from pgjax.imitation.experts import Expert
from pgjax.policies.base import stepwise
from pgjax.policies.distributions import Distribution, Gaussian


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


def navigation_controller(
    observation: jax.Array, *, berth: float = 0.15, near: float = 0.5, weight: float = 2.0
) -> jax.Array:
    """Drive to the goal of `navigation` and around what the sensors see: (v, ω), [..., 2], in m/s and rad/s.

    Observations are [..., 3 + rays], for any leading axes.

    Of 37 directions φ up to 90° to both sides it takes the one with the largest cos(φ − β) − weight·max(1 − c/near, 0).
    β is the goal's direction, and c how far in m the robot gets along φ until it has a point that a sensor hit within
    `berth` m of its rim, or has reached the goal (a goal that is nearer than `near` takes its place). It turns to
    there, and drives the slower the more it has to turn and the smaller c is.

    Source: our own, after the steering by free directions in Borenstein & Koren, *The vector field histogram: fast
    obstacle avoidance for mobile robots*, 1991; the numbers are chosen by measurement.
    """
    dtype = observation.dtype
    goal, cosine, sine = (observation[..., i, None] for i in range(3))
    goal, seen = ROOM * goal, RANGE * observation[..., None, 3:]  # [..., 1], [..., 1, rays]
    directions = np.linspace(-math.pi / 2, math.pi / 2, 37)
    between = directions[:, None] - ray_angles(seen.shape[-1])[None]
    shape = (1,) * (observation.ndim - 1) + between.shape
    ahead, aside = (jnp.asarray(f(between), dtype).reshape(shape) * seen for f in (np.cos, np.sin))
    # Of a point that is nearer than its berth, nothing but the directions towards it is blocked.
    width = jnp.minimum(ROBOT + berth, 0.9 * seen)
    meets = (seen < RANGE) & (ahead > 0) & (jnp.abs(aside) < width)
    way = jnp.where(meets, ahead - jnp.sqrt(jnp.maximum(width**2 - aside**2, 0)), RANGE)
    way = jnp.clip(jnp.min(way, axis=-1), 0, goal)  # [..., directions]
    forward, left = (jnp.asarray(f(directions), dtype).reshape(shape[:-1]) for f in (np.cos, np.sin))
    blocked = jnp.maximum(1 - way / jnp.maximum(jnp.minimum(near, goal), 1e-6), 0)
    best = jnp.argmax(cosine * forward + sine * left - weight * blocked, axis=-1)
    angle = jnp.asarray(directions, dtype)[best]
    clear = jnp.take_along_axis(way, best[..., None], axis=-1)[..., 0]
    v = jnp.clip(clear / (2 * DURATION), SPEED / 10, SPEED) * jnp.cos(angle) ** 2
    return jnp.stack([v, jnp.clip(angle / DURATION, -TURN, TURN)], axis=-1)


def recommendation_controller(
    environment: Environment, *, dislike: float = 0.5, boredom: float = 0.4
) -> Callable[[jax.Array], jax.Array]:
    """A recommender written by hand, observation [..., 3d + 1] -> action: show what is like what was clicked.

    It shows the item with the largest v·(liked − dislike·passed) − boredom·max(0, v·last), of the environment's own
    catalogue. Where actions are queries, it asks for liked − dislike·passed − boredom·last, scaled to a largest number
    of 1.

    Args:
        environment: A `recommendation`.
        dislike: What an item loses by being like what was passed over.
        boredom: And by being like what was shown last.

    Source: the direction is the query of Rocchio, *Relevance feedback in information retrieval*, 1971; the numbers are
    our own, chosen by measurement.
    """
    embedding = environment.params.embedding
    d = embedding.shape[1]

    def controller(observation: jax.Array) -> jax.Array:
        liked, passed, last = (observation[..., i * d : (i + 1) * d] for i in range(3))
        wanted = liked - dislike * passed
        if isinstance(environment.action_space, Discrete):
            score = wanted @ embedding.T - boredom * jnp.maximum(last @ embedding.T, 0)
            return jnp.argmax(score, axis=-1).astype(jnp.int32)
        query = wanted - boredom * last
        largest = jnp.max(jnp.abs(query), axis=-1, keepdims=True)
        return query / jnp.where(largest > 0, largest, 1)

    return controller


class Gains(NamedTuple):
    """The numbers of a PID controller of the valve; each may be swept."""

    kp: Any  # 1/K
    ki: Any  # 1/(K h)
    kd: Any  # h/K
    setpoint: Any  # of the air temperature, °C
    fan: Any  # fan speed with the valve shut
    ratio: Any  # what opening the valve adds to it


class Loop(NamedTuple):
    """What a PID controller remembers of E episodes."""

    integral: jax.Array  # [E], the integral part of its output
    error: jax.Array  # [E], the last, K
    begun: jax.Array  # [E] bool, whether there was one


def pid_controller(
    environment: Environment,
    kp: Any = 0.05,
    ki: Any = 1.6,
    kd: Any = 0.0,
    setpoint: Any = 26.9,
    fan: Any = 0.3,
    ratio: Any = 0.2,
) -> Expert:
    """The expert that holds the air of `cooling` at a set point by the valve, as a building's controls do.

    With the error e = T_a − setpoint the valve opens to kp e + I + kd ė, in 0 … 1, where I is the integral of ki e,
    itself held in 0 … 1, so that it does not wind up while the valve is at its end. It begins at 1/2. The fan's speed
    is fan + ratio·valve, in 0.2 … 1. It always does the same: log_std = −∞.

    Args:
        environment: A `cooling`, with noisy actions or without.
        kp: Valve opening for each K of error.
        ki: Valve opening for each K of error in an hour.
        kd: Valve opening for each K in an hour that the error grows by.
        setpoint: °C.
        fan: Fan speed with the valve shut.
        ratio: What opening the valve adds to it.

    Raises:
        InputError: If the environment has observations or actions of other shapes than `cooling`, [9] and [2].

    The defaults were the best of a grid on 256 days, and cost 71.4 € on 1000 others (95% interval 70.5 to 72.2); the
    best constant action, f = 0.45 and w = 0.8, costs 74.3 € (73.5 to 75.1), and uniformly random ones 165 € (161 to
    169).

    Source: Åström & Hägglund, *Advanced PID control*, 2006.
    """
    seen, done = tuple(environment.observation_space.shape), tuple(environment.action_space.shape)
    if (seen, done) != ((len(READINGS),), (2,)):
        raise InputError(
            f"expected the environment of a data centre, which shows {len(READINGS)} numbers and takes 2, got "
            f"{environment.name}, which shows arrays of shape {seen} and takes arrays of shape {done}"
        )
    gains = Gains(*(jnp.asarray(number, float) for number in (kp, ki, kd, setpoint, fan, ratio)))

    def memory(episodes: int) -> Loop:
        zero = jnp.zeros(episodes)
        return Loop(zero + 0.5, zero, jnp.zeros(episodes, bool))

    def step(gains: Gains, loop: Loop, observation: jax.Array) -> tuple[Loop, Distribution]:
        error = observation[:, 0] * UNIT[0] + MIDDLE[0] - gains.setpoint
        growth = jnp.where(loop.begun, error - loop.error, 0) / HOURS
        integral = jnp.clip(loop.integral + gains.ki * error * HOURS, 0, 1)
        valve = jnp.clip(gains.kp * error + integral + gains.kd * growth, 0, 1)
        speed = jnp.clip(gains.fan + gains.ratio * valve, SLOWEST, 1)
        action = jnp.stack([speed, valve], axis=-1)
        return Loop(integral, error, jnp.ones_like(loop.begun)), Gaussian(action, jnp.full_like(action, -jnp.inf))

    return Expert(stepwise(lambda key: gains, memory, step), gains)
