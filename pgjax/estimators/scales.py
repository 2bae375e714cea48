"""Scales of advantages: what is made of those of a batch together, before an objective is ascended.

A scale looks at all episodes of a batch at once, one's own among them, so what it divides by depends on the action that
is judged: each has a bias, of the order of one over the number of episodes (`tests/estimators/test_scales.py` has it
exactly). Without a scale there is none.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from pgjax.errors import InputError
from pgjax.trajectory import Trajectory

LEAST = 1e-4  # added to a standard deviation, so that rounding is not magnified where all advantages are equal


class Scale(Protocol):
    """Advantages [T, E] in place of advantages [T, E], which are 0 in padding."""

    def __call__(self, advantage: jax.Array, trajectory: Trajectory, /) -> jax.Array: ...


def batch_standardized() -> Scale:
    """The scale (A − μ)/σ, with the mean μ and the standard deviation σ of the advantages over all real steps.

    Source: Andrychowicz et al., *What matters in on-policy reinforcement learning?*, 2021, §3.4.
    """

    def standardized(advantage: jax.Array, trajectory: Trajectory) -> jax.Array:
        count = jnp.sum(trajectory.mask, dtype=advantage.dtype)
        centred = jnp.where(trajectory.mask, advantage - jnp.sum(advantage) / count, 0)
        return centred / (jnp.sqrt(jnp.sum(centred**2) / count) + LEAST)

    return standardized


def group_deviation(group_size: int) -> Scale:
    """The scale A/σ, with the standard deviation σ of the returns Σ_t R_{t+1} of so many episodes beside each other.

    They are whole episodes of the same start, one a slot (`reinforce(group_size=...)`). σ is that of a sample, with
    K − 1 for K episodes.

    Raises:
        InputError: If a group has less than two episodes; when it is called, if groups do not divide the slots.

    Source: Shao et al., *DeepSeekMath*, 2024 (GRPO), §4.1.2.
    """
    if group_size < 2:
        raise InputError(f"expected groups of 2 or more for their standard deviation, got {group_size}")

    def scaled(advantage: jax.Array, trajectory: Trajectory) -> jax.Array:
        E = advantage.shape[1]
        if E % group_size:
            raise InputError(f"expected groups that divide {E} slots for their standard deviation, got {group_size}")
        returns = jnp.sum(trajectory.reward, axis=0).reshape(-1, group_size)
        deviation = jnp.std(returns, axis=1, ddof=1)
        return advantage / (jnp.repeat(deviation, group_size) + LEAST)[None]

    return scaled


def episode_length() -> Scale:
    """The scale A/n, with n the steps of an episode: the mean over its steps in place of their sum, one a slot.

    Source: Shao et al., *DeepSeekMath*, 2024 (GRPO), equation 3; for what it does to lengths, Liu et al.,
    *Understanding R1-Zero-like training*, 2025.
    """

    def scaled(advantage: jax.Array, trajectory: Trajectory) -> jax.Array:
        return advantage / jnp.maximum(jnp.sum(trajectory.mask, axis=0), 1)[None]

    return scaled


def combined(*scales: Scale) -> Scale:
    """The scale that is several, one after the other."""

    def scaled(advantage: jax.Array, trajectory: Trajectory) -> jax.Array:
        for scale in scales:
            advantage = scale(advantage, trajectory)
        return advantage

    return scaled
