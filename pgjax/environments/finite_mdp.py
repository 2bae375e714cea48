"""A finite Markov decision process given by tables."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Step
from pgjax.environments.spaces import Discrete
from pgjax.errors import InputError


class FiniteMDP(NamedTuple):
    """The tables of a finite Markov decision process with S states and A actions.

    They are the environment's `params`, so that they can be swept by vmap and read by exact computations.
    """

    d0: jax.Array  # [S], probability of each first state
    p: jax.Array  # [S, A, S], probability of the next state
    r: jax.Array  # [S, A] or [S, A, S], reward of the step
    terminal: jax.Array  # [S] bool, states that end the episode on arrival


class State(NamedTuple):
    """Where the process is, and how many steps it has made."""

    s: jax.Array  # [] int32
    t: jax.Array  # [] int32


def check_distribution(table: np.ndarray, name: str) -> None:
    """Raise an InputError unless the last axis of the table holds probabilities that sum to one (to 1e-5)."""
    sums = table.sum(-1)
    if not np.all(np.isfinite(table)) or table.min() < 0 or np.abs(sums - 1).max() > 1e-5:
        worst = sums.flat[np.abs(sums - 1).argmax()]
        raise InputError(
            f"expected {name} to hold probabilities that sum to 1 over its last axis, "
            f"got a least entry of {table.min()} and a sum of {worst}"
        )


def tables(d0: Any, p: Any, r: Any, terminal: Any = None) -> FiniteMDP:
    """Check the tables and return them as a `FiniteMDP` of float32 arrays (float64 where jax has it enabled).

    Args:
        d0: [S], probability of each first state.
        p: [S, A, S], probability of the next state.
        r: [S, A], or [S, A, S] for a reward that depends on where the step led.
        terminal: [S] bool, states that end the episode on arrival; none if not given.

    Raises:
        InputError: If shapes do not fit together, rows are not probabilities, or episodes may start in a terminal
            state.

    Example:
        >>> mdp = tables([1, 0], p=[[[1, 0], [0, 1]], [[0, 1], [0, 1]]], r=[[0, 1], [0, 0]])  # wait, or go
        >>> mdp.p.shape
        (2, 2, 2)
    """
    d0, p, r = np.asarray(d0, float), np.asarray(p, float), np.asarray(r, float)
    if p.ndim != 3 or p.shape[0] != p.shape[2]:
        raise InputError(f"expected p of shape [S, A, S], got {p.shape}")
    S, A, _ = p.shape
    if d0.shape != (S,):
        raise InputError(f"expected d0 of shape [S] = ({S},), got {d0.shape}")
    if r.shape not in ((S, A), (S, A, S)):
        raise InputError(f"expected r of shape [S, A] = {(S, A)} or [S, A, S] = {(S, A, S)}, got {r.shape}")
    ends = np.zeros(S, bool) if terminal is None else np.asarray(terminal, bool)
    if ends.shape != (S,):
        raise InputError(f"expected terminal of shape [S] = ({S},), got {ends.shape}")
    check_distribution(d0, "d0")
    check_distribution(p, "p")
    if d0[ends].any():
        raise InputError("expected episodes to start in states that are not terminal, got d0 > 0 in a terminal one")
    dtype = jnp.result_type(float)
    return FiniteMDP(
        d0=jnp.asarray(d0, dtype), p=jnp.asarray(p, dtype), r=jnp.asarray(r, dtype), terminal=jnp.asarray(ends)
    )


def finite(mdp: FiniteMDP, horizon: int, name: str = "finite") -> Environment:
    """The environment of a finite MDP: X_t is the state's index, and an episode is at most `horizon` steps.

    The horizon T is part of the problem (ρ(θ) = E[Σ_{t ≤ T} R_{t+1}]; nothing is worth anything after it), so
    reaching it *terminates* an episode: a bootstrap must not look beyond.

    Args:
        mdp: Its tables, see `tables`.
        horizon: T, at least 1.
        name: What to call it.

    Raises:
        InputError: If the horizon is below 1.
    """
    check_horizon(horizon)
    S, A, _ = mdp.p.shape

    def reset(key: jax.Array, mdp: FiniteMDP) -> tuple[State, jax.Array]:
        s = jax.random.categorical(key, jnp.log(mdp.d0)).astype(jnp.int32)
        return State(s, jnp.int32(0)), s

    def step(key: jax.Array, state: State, action: jax.Array, mdp: FiniteMDP) -> tuple[State, Step]:
        s = jax.random.categorical(key, jnp.log(mdp.p[state.s, action])).astype(jnp.int32)
        reward = mdp.r[state.s, action]
        if mdp.r.ndim == 3:
            reward = reward[s]
        t = state.t + 1
        return State(s, t), Step(observation=s, reward=reward, terminated=mdp.terminal[s] | (t >= horizon))

    return Environment(
        reset=reset,
        step=step,
        observation_space=Discrete(S),
        action_space=Discrete(A),
        horizon=horizon,
        params=mdp,
        name=name,
    )
