"""The last few observations in place of the last one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Environment, Step
from pgjax.environments.spaces import Box, Masked, Space, map_spaces, spaces_in, without_mask
from pgjax.errors import InputError
from pgjax.trees import PyTree


class Stacked(NamedTuple):
    """The state of an environment whose last observations are kept."""

    state: PyTree  # of the environment itself
    frames: PyTree  # each array [*shape, k], the latest last


def frame_stack(environment: Environment, frames: int) -> Environment:
    """An environment whose observations are the last k ones, the latest last; at first all of them are the first one.

    They stand side by side along the last axis: an image [H, W, C] becomes one [H, W, C·k], an array [n] one of [n·k],
    a number an array [k]. Of a pytree each part is stacked; a mask of actions is the latest one.

    Args:
        environment: With observations of a `Box`, or a pytree of them.
        frames: k, at least 1.

    Raises:
        InputError: If k is below 1, or observations are integers of a `Discrete` or `MultiDiscrete`.

    Source: Mnih et al., *Human-level control through deep reinforcement learning*, 2015.
    """
    spaces = environment.observation_space
    if frames < 1:
        raise InputError(f"expected 1 or more frames, got {frames}")
    for space in spaces_in(without_mask(spaces)):
        if not isinstance(space, Box):
            raise InputError(f"expected observations of a Box to be stacked, got {space} in {environment.name}")

    def wider(space: Space) -> Space:
        assert isinstance(space, Box)
        low, high = (
            np.repeat(np.broadcast_to(bound, space.shape)[..., None], frames, -1) for bound in (space.low, space.high)
        )
        shape = joined(space.shape)
        return Box(_side_by_side(low), _side_by_side(high), shape, space.dtype)

    def joined(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] * frames) if shape else (frames,)

    def seen(kept: PyTree, observation: Any) -> Any:
        stacked = jax.tree.map(_side_by_side, kept)
        return observation._replace(observation=stacked) if isinstance(observation, Masked) else stacked

    def reset(key: jax.Array, params: PyTree) -> tuple[Stacked, Any]:
        state, observation = environment.reset(key, params)
        kept = jax.tree.map(lambda leaf: jnp.repeat(leaf[..., None], frames, -1), without_mask(observation))
        return Stacked(state, kept), seen(kept, observation)

    def step(key: jax.Array, state: Stacked, action: jax.Array, params: PyTree) -> tuple[Stacked, Step]:
        following, step = environment.step(key, state.state, action, params)
        kept = jax.tree.map(
            lambda old, new: jnp.concatenate([old[..., 1:], new[..., None]], axis=-1),
            state.frames,
            without_mask(step.observation),
        )
        return Stacked(following, kept), step._replace(observation=seen(kept, step.observation))

    wide = map_spaces(wider, without_mask(spaces))
    return environment._replace(
        reset=reset,
        step=step,
        observation_space=spaces._replace(observation=wide) if isinstance(spaces, Masked) else wide,
        name=f"{environment.name}, {frames} frames",
        draw=None,
    )


def _side_by_side(frames: Any) -> Any:
    """Frames [..., n, k] as [..., k·n], one after the other; of numbers [k], as they are."""
    if frames.ndim == 1:
        return frames
    return frames.swapaxes(-1, -2).reshape(*frames.shape[:-2], -1)
