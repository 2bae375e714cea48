"""Drawings of environments that do not draw themselves: gymnax's, and any other by its observations."""

from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from pgjax.environments.base import Episode

# Colours that people with any kind of colour vision tell apart (Okabe & Ito, *Color universal design*, 2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#999999")


BLUE, ORANGE, GREEN, RED, SKY, PINK, BLACK, _ = COLOURS
GREY = "0.6"
CHANNELS = (BLUE, ORANGE, GREEN, RED, SKY, PINK, BLACK, GREY, "#F0E442", "#7F3C8D")


def draw_anything(axes: Axes, episode: Episode, t: int) -> None:
    """Draw an observation: an image as an image, its channels in colours; anything else as bars."""
    observation = np.asarray(episode.observation[t], float)
    if observation.ndim in (2, 3) and min(observation.shape[:2]) > 1:
        draw_image(axes, observation)
        return
    values = observation.reshape(-1)
    everything = np.asarray(episode.observation, float)
    axes.bar([str(i) for i in range(len(values))], values, color=BLUE)
    low, high = min(everything.min(), 0.0), max(everything.max(), 0.0)
    axes.set(xlabel="number of the observation", ylabel="value", ylim=(low - 0.05, high + 0.05))


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """Draw [H, W] or [H, W, C] with a colour for each channel, those of later ones on top."""
    layers = image[..., None] if image.ndim == 2 else image
    picture = np.ones((*layers.shape[:2], 3))
    for c in range(layers.shape[-1]):
        colour = np.array(colors.to_rgb(CHANNELS[c % len(CHANNELS)]))
        weight = np.clip(layers[..., c, None], 0, 1)
        picture = (1 - weight) * picture + weight * colour
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def scene(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Give a scene its limits, the same scale both ways, and nothing around it."""
    axes.set(xlim=x, ylim=y, aspect="equal", xticks=[], yticks=[])


def rod(axes: Axes, x: Any, y: Any, colour: str = RED) -> None:
    """Draw rods through points, and a joint at each."""
    axes.plot(x, y, color=colour, linewidth=6, solid_capstyle="round")
    axes.plot(x, y, linestyle="", marker="o", markersize=7, color="0.2")


def draw_cartpole(axes: Axes, episode: Episode, t: int) -> None:
    """Draw the cart on its rail, and the pole."""
    state, params = episode.state, episode.params
    x, angle, length = float(state.x[t]), float(state.theta[t]), 2 * float(params.length)
    edge = float(params.x_threshold)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.vlines([-edge, edge], -0.1, 0.1, color=GREY)
    axes.add_patch(Rectangle((x - 0.25, -0.12), 0.5, 0.24, color=BLUE))
    rod(axes, [x, x + length * np.sin(angle)], [0, length * np.cos(angle)])
    scene(axes, (-edge - 0.4, edge + 0.4), (-0.8, length + 0.5))


def draw_pendulum(axes: Axes, episode: Episode, t: int) -> None:
    """Draw the pendulum; upright is where it should be."""
    angle, length = float(episode.state.theta[t]), float(episode.params.l)
    rod(axes, [0, length * np.sin(angle)], [0, length * np.cos(angle)])
    scene(axes, (-1.3 * length, 1.3 * length), (-1.3 * length, 1.3 * length))


def draw_acrobot(axes: Axes, episode: Episode, t: int) -> None:
    """Draw both links and the height that the tip should come to."""
    first = float(episode.state.joint_angle1[t])
    both = first + float(episode.state.joint_angle2[t])
    lengths = float(episode.params.link_length_1), float(episode.params.link_length_2)
    x = np.cumsum([0, lengths[0] * np.sin(first), lengths[1] * np.sin(both)])
    y = -np.cumsum([0, lengths[0] * np.cos(first), lengths[1] * np.cos(both)])
    axes.axhline(lengths[0], color=GREEN, linewidth=1.5)
    rod(axes, x, y)
    reach = sum(lengths) + 0.2
    scene(axes, (-reach, reach), (-reach, reach))


def draw_mountain_car(axes: Axes, episode: Episode, t: int) -> None:
    """Draw the car in its valley, and the flag."""
    params = episode.params
    low, high = float(params.min_position), float(params.max_position)
    ground, car, goal = np.linspace(low, high, 100), float(episode.state.position[t]), float(params.goal_position)
    axes.plot(ground, np.sin(3 * ground), color="0.3", linewidth=2)
    axes.plot([goal, goal], [np.sin(3 * goal), np.sin(3 * goal) + 0.3], color=GREEN, linewidth=3)
    axes.plot(car, np.sin(3 * car) + 0.06, marker="o", markersize=14, color=RED)
    scene(axes, (low - 0.05, high + 0.05), (-1.2, 1.4))


def draw_reacher(axes: Axes, episode: Episode, t: int) -> None:
    """Draw the arm, whose angles are those with the horizontal, and the target."""
    angles = np.asarray(episode.state.angles[t])
    goal = np.asarray(episode.state.goal_xy[t])
    reach = len(angles) + 0.3
    axes.add_patch(Circle(tuple(goal), 0.12, color=GREEN))
    rod(axes, np.append(0, np.cumsum(np.cos(angles))), np.append(0, np.cumsum(np.sin(angles))))
    scene(axes, (-reach, reach), (-reach, reach))


def draw_swimmer(axes: Axes, episode: Episode, t: int) -> None:
    """Draw the swimmer and its way, the goal, and the urchins that it should keep away from."""
    way = np.asarray(episode.state.xy[: t + 1])
    for urchin in np.asarray(episode.state.urchin_xys[t]):
        axes.add_patch(Circle(tuple(urchin), 0.18, color=GREY))
    axes.add_patch(Circle(tuple(np.asarray(episode.state.goal_xy[t])), 0.12, color=GREEN))
    axes.plot(way[:, 0], way[:, 1], color=BLUE, alpha=0.5)
    axes.plot(*way[-1], marker="o", markersize=12, color=RED)
    reach = max(1.3, float(np.abs(episode.state.xy).max()) + 0.2)
    scene(axes, (-reach, reach), (-reach, reach))


def draw_point_robot(axes: Axes, episode: Episode, t: int) -> None:
    """Draw the point, its way, and the goal on the half circle."""
    way = np.asarray(episode.state.pos[: t + 1])
    radius = float(episode.params.circle_radius)
    angles = np.linspace(0, np.pi, 100)
    axes.plot(radius * np.cos(angles), radius * np.sin(angles), color=GREY)
    axes.add_patch(Circle(tuple(np.asarray(episode.state.goal[t])), float(episode.params.goal_radius), color=GREEN))
    axes.plot(way[:, 0], way[:, 1], color=BLUE, alpha=0.5)
    axes.plot(*way[-1], marker="o", markersize=12, color=RED)
    reach = max(1.5 * radius, float(np.abs(episode.state.pos).max()) + 0.2)
    scene(axes, (-reach, reach), (-reach, reach))


def draw_four_rooms(axes: Axes, episode: Episode, t: int) -> None:
    """Draw the rooms, the way through them, and the goal."""
    from gymnax.environments.misc.rooms import four_rooms_map, string_to_bool_map

    axes.imshow(np.asarray(string_to_bool_map(four_rooms_map)), cmap="gray", vmin=-0.6, vmax=1, interpolation="nearest")
    way, goal = np.asarray(episode.state.pos[: t + 1]), np.asarray(episode.state.goal[t])
    axes.plot(goal[1], goal[0], marker="s", markersize=12, color=GREEN)
    axes.plot(way[:, 1], way[:, 0], color=BLUE, linewidth=2, alpha=0.5)
    axes.plot(way[-1, 1], way[-1, 0], marker="o", markersize=12, color=RED)
    axes.set(xticks=[], yticks=[])


GYMNAX = {
    "CartPole-v1": draw_cartpole,
    "Pendulum-v1": draw_pendulum,
    "Acrobot-v1": draw_acrobot,
    "MountainCar-v0": draw_mountain_car,
    "MountainCarContinuous-v0": draw_mountain_car,
    "Reacher-misc": draw_reacher,
    "Swimmer-misc": draw_swimmer,
    "PointRobot-misc": draw_point_robot,
    "FourRooms-misc": draw_four_rooms,
}
