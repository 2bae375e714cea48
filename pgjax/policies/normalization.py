"""Observations in units of what was observed so far, for any policy and any value function.

The running moments stand beside the parameters, so they are stored, loaded and evaluated with them, each run has its
own, and what only plays never moves them. An algorithm moves them by `observe`, once it has learned from the episodes
that it collected with them: what is differentiated is what was played.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.spaces import Box, Space, Spaces, map_spaces, spaces_in, without_mask
from pgjax.errors import InputError
from pgjax.moments import deviation, merged, moments_of, no_moments
from pgjax.policies.base import Policy, ValueFunction
from pgjax.policies.distributions import Distribution
from pgjax.trees import PyTree


class Normalized(NamedTuple):
    """Parameters, and what was observed so far."""

    params: PyTree
    seen: PyTree  # Moments of each real-valued array of an observation, () of others


def normalization(spaces: Spaces, clip: float) -> tuple[Callable[[], PyTree], Callable[[PyTree, Any], Any]]:
    """Two functions: () -> no moments yet; (moments, trajectory) -> the trajectory with normalized observations.

    Raises:
        InputError: If no part of an observation is of real numbers, or the clip is not above 0.
    """
    within = without_mask(spaces)
    if not any(map(_is_real, spaces_in(within))):
        raise InputError(f"expected observations with real numbers to be normalized, got {spaces}")
    if not clip > 0:
        raise InputError(f"expected normalized observations to be clipped to more than 0, got {clip}")

    def normal(space: Space, moments: Any, part: jax.Array) -> jax.Array:
        if not _is_real(space):
            return part
        mean, spread = (jnp.broadcast_to(x, part.shape) for x in (moments.mean, deviation(moments)))
        return jnp.clip((part - mean) / spread, -clip, clip).astype(part.dtype)

    def normalized(seen: PyTree, observation: Any) -> Any:
        seen, parts = jax.lax.stop_gradient(seen), without_mask(observation)
        parts = map_spaces(normal, within, seen, parts)
        return parts if within is spaces else observation._replace(observation=parts)

    def nothing() -> PyTree:
        return map_spaces(lambda space: no_moments(space.shape) if _is_real(space) else (), within)

    return nothing, normalized


def _is_real(space: Space) -> bool:
    return isinstance(space, Box) and jnp.issubdtype(space.dtype, jnp.floating)


def observing(spaces: Spaces) -> Callable[[Normalized, Any], Normalized]:
    """A function (params, trajectory) -> params that have seen its real steps, too."""

    def more(space: Space, moments: Any, part: jax.Array, mask: jax.Array) -> Any:
        return merged(moments, moments_of(part, mask)) if _is_real(space) else moments

    def observe(params: Normalized, trajectory: Any) -> Normalized:
        parts = without_mask(trajectory.observation)
        seen = map_spaces(
            lambda space, moments, part: more(space, moments, part, trajectory.mask),
            without_mask(spaces),
            params.seen,
            parts,
        )
        return params._replace(seen=seen)

    return observe


def normalized(policy: Policy, observation_space: Spaces, clip: float = 10.0) -> Policy:
    """The policy, with every real-valued observation less its running mean, divided by its running deviation.

    Integers, images of them, and masks stay as they are. Its parameters are `Normalized`. `pgjax.reinforce` and what is
    made of it, behaviour cloning and DAgger keep the moments up to date; before the first update nothing is changed.

    Args:
        policy: f.
        observation_space: What it sees.
        clip: The largest absolute value that it is shown.

    Raises:
        InputError: If no part of an observation is of real numbers, or the clip is not above 0.

    Source: Andrychowicz et al., *What matters in on-policy reinforcement learning?*, 2021, §3.3.

    Example:
        >>> from pgjax.environments.spaces import Discrete
        >>> from pgjax.policies.feedforward import mlp
        >>> space = Box(-1.0, 1.0, (3,))
        >>> policy = normalized(mlp(space, Discrete(2)), space)
        >>> policy.init(jax.random.key(0)).seen.mean.tolist()
        [0.0, 0.0, 0.0]
    """
    nothing, of = normalization(observation_space, clip)

    def within(params: Normalized, trajectory: Any) -> Any:
        return trajectory._replace(observation=of(params.seen, trajectory.observation))

    def step(params: Normalized, memory: PyTree, observation: Any) -> tuple[PyTree, Distribution]:
        return policy.step(params.params, memory, of(params.seen, observation))

    def resume(params: Normalized, memory: PyTree, trajectory: Any) -> tuple[PyTree, Distribution]:
        return policy.resume(params.params, memory, within(params, trajectory))  # type: ignore[misc]

    return Policy(
        init=lambda key: Normalized(policy.init(key), nothing()),
        memory=policy.memory,
        step=step,
        unroll=lambda params, trajectory: policy.unroll(params.params, within(params, trajectory)),
        resume=None if policy.resume is None else resume,
        observe=observing(observation_space),
    )


def normalized_value(value: ValueFunction, observation_space: Spaces, clip: float = 10.0) -> ValueFunction:
    """The value function of normalized observations, with moments of its own; arguments are those of `normalized`."""
    nothing, of = normalization(observation_space, clip)

    def unroll(params: Normalized, trajectory: Any) -> jax.Array:
        seen = trajectory._replace(observation=of(params.seen, trajectory.observation))
        return value.unroll(params.params, seen)

    return ValueFunction(
        init=lambda key: Normalized(value.init(key), nothing()),
        unroll=unroll,
        memoryless=value.memoryless,
        observe=observing(observation_space),
    )
