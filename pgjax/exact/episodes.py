"""Every episode that a small finite problem can have, with its probability."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_horizon
from pgjax.environments.finite_mdp import FiniteMDP
from pgjax.errors import InputError
from pgjax.exact.solution import rewards_of
from pgjax.trajectory import Trajectory

MOST_EPISODES = 10**6  # that `every_episode` lists


class Episodes(NamedTuple):
    """Every episode τ that a finite MDP of this size can have, N in all; impossible ones have the probability 0."""

    states: jax.Array  # [T, N] int32, x_t
    actions: jax.Array  # [T, N] int32, a_t
    rewards: jax.Array  # [T, N], r_{t+1}, 0 where the episode is over
    running: jax.Array  # [T, N] bool, whether it is not
    dynamics: jax.Array  # [N], d_0(x_1) Π_t p(x_t, a_t, x_{t+1}): the part of Pr(τ) that no policy changes

    def probability(self, f: jax.Array) -> jax.Array:
        """Pr(τ), [N], under a policy's table f [S, A]; differentiable in f."""
        chosen = jnp.where(self.running, f[self.states, self.actions], 1)
        return self.dynamics * jnp.prod(chosen, axis=0)

    def trajectory(self) -> Trajectory:
        """All of them as a trajectory [T + 1, N], one episode a slot, with the row for final observations."""
        T, N = self.states.shape

        def and_padding(rows: jax.Array) -> jax.Array:
            return jnp.concatenate([rows, jnp.zeros((1, N), rows.dtype)])

        running = and_padding(self.running)
        last = running & ~jnp.roll(running, -1, axis=0)
        return Trajectory(
            and_padding(self.states),
            and_padding(self.actions),
            and_padding(self.rewards),
            terminated=last,
            truncated=jnp.zeros_like(last),
            mask=running,
            time=jnp.broadcast_to(jnp.arange(T + 1, dtype=jnp.int32)[:, None], (T + 1, N)),
            rows=jnp.int32(T),
        )


def every_episode(mdp: FiniteMDP, horizon: int) -> Episodes:
    """Every episode, for the lecture's Σ_τ Pr(τ) G_1 as it stands.

    Raises:
        InputError: If the horizon is below 1, or there are more than a million: S · (A · S)^T is the number of paths of
            T steps.
    """
    check_horizon(horizon)
    S, A, _ = mdp.p.shape
    magnitude = math.log10(S) + horizon * math.log10(A * S)
    if magnitude > math.log10(MOST_EPISODES) + 1e-9:
        raise InputError(
            f"expected at most {MOST_EPISODES} episodes to list, got {S} · ({A} · {S})^{horizon}, about "
            f"10^{magnitude:.1f}; solve() needs no list"
        )
    N = S * (A * S) ** int(horizon)
    number = np.arange(N)
    x, number = number % S, number // S
    states, actions, rewards, running = [], [], [], []
    dynamics, alive = mdp.d0[x], jnp.ones(N, bool)
    for _ in range(horizon):
        a, number = number % A, number // A
        following, number = number % S, number // S
        first_of_them = (a == 0) & (following == 0)  # an episode that is over has one continuation, not A · S
        dynamics = dynamics * jnp.where(alive, mdp.p[x, a, following], first_of_them)
        states.append(x)
        actions.append(a)
        rewards.append(jnp.where(alive, rewards_of(mdp)[x, a, following], 0))
        running.append(alive)
        alive = alive & ~mdp.terminal[following]
        x = following
    as_int = [jnp.asarray(np.stack(numbers), jnp.int32) for numbers in (states, actions)]
    return Episodes(
        states=as_int[0], actions=as_int[1], rewards=jnp.stack(rewards), running=jnp.stack(running), dynamics=dynamics
    )
