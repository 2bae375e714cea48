"""Look at an episode: play one and keep all of its states, then draw it as a frame or an animation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pgjax.environments.base import Environment, Episode, check_environment, strong, whole_score
from pgjax.environments.drawings import draw_anything
from pgjax.errors import InputError
from pgjax.paths import full_path
from pgjax.policies.base import Policy, check_fit
from pgjax.rollout import Slots, Stepped, episode_step
from pgjax.trees import PyTree, plain


def play(
    environment: Environment, policy: Policy, key: jax.Array, params: PyTree, env_params: PyTree = None
) -> Episode:
    """Play one episode, and return it with all of its states.

    Args:
        environment: Where.
        policy: Who acts; actions are sampled.
        key: Of the episode.
        params: The policy's.
        env_params: The environment's; its own, if not given.

    Raises:
        InputError: If the policy does not fit, or the environment does not do what the contract says.
    """
    check_environment(environment)
    check_fit(environment, policy)
    env_params = environment.params if env_params is None else env_params

    @jax.jit
    def run(key: jax.Array, params: PyTree, env_params: PyTree) -> Any:
        reset_key, play_key = jax.random.split(key)
        state, observation = jax.tree.map(lambda leaf: leaf[None], environment.reset(reset_key, env_params))
        running, time = jnp.ones(1, bool), jnp.zeros(1, jnp.int32)
        first = Slots(
            state=state, observation=observation, memory=policy.memory(1), running=running, cut_off=~running, time=time
        )

        def one(slots: Slots, key: jax.Array) -> tuple[Slots, tuple[PyTree, Stepped]]:
            stepped = episode_step(environment, policy, key, params, env_params, slots)
            after = slots._replace(state=stepped.state, observation=stepped.observation, memory=stepped.memory)
            running = slots.running & ~stepped.row.last
            return after._replace(running=running, time=slots.time + 1), (slots.state, stepped)

        last, (state, stepped) = jax.lax.scan(one, first, jax.random.split(play_key, environment.horizon))
        row, final = stepped.row, (last.state, last.observation)
        whole = row._replace(rows=jnp.sum(row.mask, dtype=jnp.int32))
        reward = whole_score(environment, whole, env_params).reward
        along = (state, row.observation, stepped.played, reward, row.mask)
        return jax.tree.map(lambda leaf: leaf[0], final), jax.tree.map(lambda leaf: leaf[:, 0], along)

    (final_state, final_observation), (state, observation, played, reward, mask) = run(key, params, env_params)
    n = int(mask.sum())

    def through(before: Any, last: Any) -> np.ndarray:
        """What was before each of the n steps and after the last, [n + 1, ...]."""
        return np.concatenate([plain(before)[:n], plain(before[n] if n < len(before) else last)[None]])

    return Episode(
        state=jax.tree.map(through, state, final_state),
        observation=jax.tree.map(through, observation, final_observation),
        action=np.asarray(played)[:n],
        reward=np.asarray(reward)[:n],
        params=jax.tree.map(plain, strong(env_params)),
    )


def frame(environment: Environment, episode: Episode, t: int, axes: Axes) -> None:
    """Draw how things stand after t steps of an episode, 0 ≤ t ≤ n, and say so above.

    Raises:
        InputError: If it does not have so many steps.
    """
    n = len(episode.reward)
    if not 0 <= t <= n:
        raise InputError(f"expected 0 to {n} steps of this episode, got {t}")
    axes.clear()
    (environment.draw or draw_anything)(axes, episode, t)
    earned = float(np.sum(episode.reward[:t]))
    axes.set_title(
        f"{environment.name}, step {t} of {n}, return so far {earned:.4g}", fontsize="medium", parse_math=False
    )


def save_frame(environment: Environment, episode: Episode, path: str | Path, t: int | None = None) -> None:
    """Save a frame of an episode, PNG: after t steps, or at its end.

    Raises:
        InputError: If it does not have so many steps.
    """
    path, figure = full_path(path), Figure(figsize=(6, 4.8), layout="constrained")
    frame(environment, episode, len(episode.reward) if t is None else t, figure.subplots())
    figure.savefig(path, dpi=120)


def save_frames(episodes: Sequence[tuple[Environment, Episode]], path: str | Path, columns: int = 4) -> None:
    """Save frames of several episodes beside each other, PNG, each after two thirds of its steps.

    Raises:
        InputError: If there is none, or no column.
    """
    if not episodes or columns < 1:
        raise InputError(f"expected 1 or more episodes and columns, got {len(episodes)} and {columns}")
    path, columns = full_path(path), min(columns, len(episodes))
    rows = -(-len(episodes) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for (environment, episode), axes in zip(episodes, panels, strict=False):
        frame(environment, episode, 2 * len(episode.reward) // 3, axes)
        axes.set_title(axes.get_title().replace(", return", "\nreturn"), fontsize="medium")
    for axes in panels[len(episodes) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=100)


def save_animation(
    environment: Environment, episode: Episode, path: str | Path, frames_per_second: int = 15, most: int = 200
) -> None:
    """Save an animation of an episode, GIF; of one longer than `most` frames every second step, or every third, ….

    Raises:
        InputError: If there is no frame or no speed to show it at.
    """
    if most < 1 or frames_per_second < 1:
        raise InputError(f"expected 1 or more frames, and as many a second, got {most} and {frames_per_second}")
    n = len(episode.reward)
    shown = list(range(0, n + 1, -(-(n + 1) // most)))
    shown += [n] * (1 + frames_per_second - (shown[-1] == n))  # the end stays for a second
    path, figure = full_path(path), Figure(figsize=(6, 4.8), layout="constrained")
    axes = figure.subplots()
    animation = FuncAnimation(
        figure, lambda t: frame(environment, episode, t, axes), frames=shown, init_func=lambda: None
    )
    animation.save(path, writer=PillowWriter(fps=frames_per_second), dpi=80)
