"""Every game of pgx for one player as an `Environment`, where pgx is installed: `pip install "pgjax[pgx]"`.

They have no parameters to sweep.
"""

from typing import Any

import jax

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Step, strong
from pgjax.environments.gymnax import like
from pgjax.environments.spaces import Box, Discrete, Masked, masks_of
from pgjax.errors import InputError, needed
from pgjax.trees import PyTree


def from_pgx(name: str, horizon: int = 1000) -> Environment:
    """A game of pgx for one player, such as "2048" or "minatar-breakout".

    Observations are a `Masked`: what is seen, and which actions are legal.

    Args:
        name: Its pgx name.
        horizon: T, at least 1; pgx leaves a time limit to others.

    Raises:
        InputError: If pgx is not installed, there is no such game, it is for several players, or the horizon is below
            1.

    Source: Koyamada et al., *Pgx: hardware-accelerated parallel game simulators for reinforcement learning*, 2023.
    """
    pgx = needed("pgx", "pgx")
    check_horizon(horizon)
    if name not in pgx.available_envs():
        raise InputError(f"expected a game of pgx, got {name!r}; there are {', '.join(pgx.available_envs())}")
    game: Any = pgx.make(name)
    if game.num_players != 1:
        raise InputError(f"expected a game of pgx for one player, got {name}, which is for {game.num_players}")

    def seen(state: Any) -> Masked:
        return Masked(state.observation, state.legal_action_mask)

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, Masked]:
        state = strong(game.init(key))
        return state, seen(state)

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        following = like(state, game.step(state, action, key))
        return following, Step(seen(following), following.rewards[0], following.terminated, following.truncated)

    shown, actions = jax.eval_shape(reset, jax.random.key(0), ())[1].observation, Discrete(int(game.num_actions))
    low, high = (False, True) if shown.dtype == bool else (-float("inf"), float("inf"))
    observations = Masked(Box(low, high, tuple(shown.shape), shown.dtype), masks_of(actions))
    return Environment(reset, step, observations, actions, horizon, name=name)
