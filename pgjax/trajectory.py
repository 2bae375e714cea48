"""Whole episodes as arrays: what a rollout collects, a score judges, and an estimator learns from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Trajectory(NamedTuple):
    """Whole episodes, time-major: row t of slot e is one step. Rows with `mask` false are padding.

    What padding observes is some observation of the slot, never something made up, so a policy can look at it.
    The row after an episode's last step holds, if that step truncated and did not terminate it, its final observation.
    The last of all rows is there for that alone.
    """

    observation: Any  # X_t, [T, E, ...]
    action: jax.Array  # A_t as the policy drew it, [T, E, ...]
    reward: jax.Array  # R_{t+1}, [T, E] float; 0 in padding
    terminated: jax.Array  # [T, E] bool, the step after which the episode was over
    truncated: jax.Array  # [T, E] bool, the step after which it was cut off
    mask: jax.Array  # [T, E] bool, a real step
    time: jax.Array  # [T, E] int32, steps since the episode began, 0 at its first
    rows: jax.Array  # [] int32, rows in use; all later ones are padding (row `rows` may hold final observations)
    log_prob: Any = None  # ln f(X_t)_{A_t} when A_t was drawn, [T, E]; 0 in padding; None if no policy drew it
    notes: Mapping[str, jax.Array] = {}  # what a score noted (and before it: what steps did), [T, E]; 0 in padding

    @property
    def last(self) -> jax.Array:
        """[T, E] bool, the last step of an episode."""
        return self.terminated | self.truncated

    @property
    def first(self) -> jax.Array:
        """[T, E] bool, the first step of an episode."""
        return self.mask & (self.time == 0)

    @property
    def episodes(self) -> jax.Array:
        """The number of episodes, [] float."""
        return jnp.sum(self.first, dtype=self.reward.dtype)
