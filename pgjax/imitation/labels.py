"""What an expert says of episodes: its own, or those of somebody else."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pgjax.environments.base import Environment
from pgjax.errors import InputError
from pgjax.imitation.demonstrations import Demonstrations
from pgjax.imitation.experts import Expert
from pgjax.policies.base import Policy, check_fit
from pgjax.policies.distributions import Categorical, MultiCategorical
from pgjax.rollout import collect
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def labelled(
    expert: Expert, trajectory: Trajectory, action: jax.Array | None = None, key: Any = None
) -> Demonstrations:
    """What the expert says of the steps of a trajectory: Demonstrations [T, E], with its distribution.

    Args:
        expert: Who is asked.
        trajectory: [T, E], whoever played it, one episode a slot.
        action: [T, E, ...], what the expert did there; drawn with `key` from its distribution if not given.
        key: What to draw it with.

    Raises:
        InputError: If neither an action nor a key is given.
    """
    if action is None and key is None:
        raise InputError("expected the expert's actions or a key to draw them with, got neither")
    distribution = expert.policy.unroll(expert.params, trajectory)
    action = distribution.sample(key) if action is None else action
    return Demonstrations(observation=trajectory.observation, action=action, mask=trajectory.mask, expert=distribution)


def demonstrate(
    environment: Environment, expert: Expert, episodes: int, chunk: int = 16
) -> Callable[..., Demonstrations]:
    """A function (key, environment params) -> Demonstrations [T, N] of N whole episodes that the expert plays.

    Without environment params it is in the environment as it was given.

    Args:
        environment: Where.
        expert: Who plays; its actions must fit the environment.
        episodes: N, at least 1.
        chunk: Rows collected at a time, at least 1.

    Raises:
        InputError: See `pgjax.collect`, and if the expert does not fit the environment.
    """
    check_fit(environment, expert.policy)
    run = collect(environment, expert.policy, episodes, chunk=chunk)

    def draw(key: jax.Array, env_params: PyTree = environment.params) -> Demonstrations:
        trajectory = run(key, expert.params, env_params)
        return labelled(expert, trajectory, trajectory.action)

    return draw


def check_labels(policy: Policy, demonstrations: Demonstrations) -> None:
    """Raise unless there is something to learn from demonstrations that are given as arrays.

    Raises:
        InputError: If no step is labelled, or an action is not one of the policy's.
    """
    mask, action = np.asarray(demonstrations.mask), np.asarray(demonstrations.action)
    if mask.dtype != bool or not mask.any():
        raise InputError(f"expected a mask of booleans with 1 or more labelled steps, got {mask.sum()} of {mask.dtype}")
    f = jax.eval_shape(lambda key: policy.unroll(policy.init(key), demonstrations), jax.random.key(0))
    if isinstance(f, Categorical | MultiCategorical):
        n, chosen = f.logits.shape[-1], action[mask]
        if chosen.min() < 0 or chosen.max() >= n:
            raise InputError(f"expected actions from 0 to {n - 1}, got {chosen.min()} to {chosen.max()}")
