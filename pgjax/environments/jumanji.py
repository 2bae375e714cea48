"""Every environment of jumanji for one agent as an `Environment`: `pip install "pgjax[jumanji]"`.

They have no parameters to sweep.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Step, strong
from pgjax.environments.gymnax import like
from pgjax.environments.spaces import Box, Discrete, Masked, MultiDiscrete, Space, masks_of
from pgjax.errors import InputError, needed
from pgjax.trees import PyTree

MASK = "action_mask"  # where jumanji says which actions are legal


def from_jumanji(name: str, horizon: int = 1000, **options: Any) -> Environment:
    """An environment of jumanji, such as "Game2048-v1" or "Snake-v1".

    Observations are dictionaries of arrays, by jumanji's names, or a `Masked` of one where actions are discrete and it
    says which are legal. (A mask of combinations of several actions stays in the dictionary.)

    Args:
        name: Its jumanji name.
        horizon: T, at least 1, beside whatever time limit the environment has itself.
        **options: What jumanji's environment takes, for example `time_limit=100`.

    Raises:
        InputError: If jumanji is not installed, there is no such environment or option, its actions are of no kind
            known here, it is for several agents, or the horizon is below 1.

    Source: Bonnet et al., *Jumanji: a diverse suite of scalable reinforcement learning environments in JAX*, 2024.
    """
    jumanji = needed("jumanji", "jumanji")
    check_horizon(horizon)
    try:
        game: Any = jumanji.make(name, **options)
    except (ValueError, TypeError) as error:
        raise InputError(f"expected an environment of jumanji, got {name!r} {options}: {error}") from error
    actions = actions_of(name, game.action_spec)

    def seen(observation: Any) -> Any:
        named = getattr(observation, "_asdict", lambda: vars(observation))
        parts = strong(observation if isinstance(observation, jax.Array) else dict(named()))
        mask = parts.get(MASK) if isinstance(parts, dict) and not isinstance(actions, Box) else None
        if mask is None or mask.shape != masks_of(actions).shape:
            return parts
        return Masked({part: array for part, array in parts.items() if part != MASK}, mask)

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, Any]:
        state, first = game.reset(key)
        return strong(state), seen(first.observation)

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        following, played = game.step(state, action)
        over, dead = played.last(), jnp.all(played.discount == 0)
        return like(state, following), Step(seen(played.observation), played.reward, over & dead, over & ~dead)

    shown, reward = jax.eval_shape(lambda key: (reset(key, ())[1], game.reset(key)[1].reward), jax.random.key(0))
    if reward.shape:
        raise InputError(f"expected an environment of jumanji for one agent, got {name} with rewards {reward.shape}")
    return Environment(reset, step, jax.tree.map(space_of, shown), actions, horizon, name=name)


def space_of(shown: jax.ShapeDtypeStruct) -> Box:
    """A space of arrays like this one, without bounds, as jumanji does not know all of them."""
    low, high = (False, True) if shown.dtype == bool else (-float("inf"), float("inf"))
    return Box(low, high, shown.shape, shown.dtype)


def actions_of(name: str, spec: Any) -> Space:
    """The space of actions that a specification of jumanji describes.

    Raises:
        InputError: If it is of another kind.
    """
    if hasattr(spec, "num_values"):
        sizes = np.asarray(spec.num_values)
        if sizes.ndim == 0:
            return Discrete(int(sizes))
        if sizes.ndim == 1:
            return MultiDiscrete(tuple(int(n) for n in sizes))
    elif hasattr(spec, "minimum") and jnp.issubdtype(spec.dtype, jnp.floating):
        return Box(np.asarray(spec.minimum), np.asarray(spec.maximum), tuple(spec.shape), spec.dtype)
    raise InputError(f"expected {name} to have discrete actions, several at once or an array of reals, got {spec}")
