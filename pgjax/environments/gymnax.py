"""Every environment of gymnax as an `Environment`, but MNISTBandit-bsuite, which wants a download.

`max_steps_in_episode` can be swept downwards only, as the horizon is fixed. CartPole keeps the product of the pole's
mass and length beside its length: sweep neither alone.
"""

import dataclasses
import difflib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Environment, Step, strong
from pgjax.environments.drawings import GYMNAX
from pgjax.environments.finite_mdp import FiniteMDP, tables
from pgjax.environments.spaces import Box, Discrete, Space
from pgjax.errors import InputError
from pgjax.trees import PyTree


def gymnax_names() -> list[str]:
    """The names that `from_gymnax` takes: all registered with gymnax, but for the one that wants a download."""
    import gymnax  # pulls in plotting libraries, so only when it is used

    return [name for name in gymnax.registered_envs if name != "MNISTBandit-bsuite"]


def in_32_bits(tree: PyTree) -> PyTree:
    """A tree with its integers and real numbers in 32 bits."""
    narrower = {"float64": jnp.float32, "int64": jnp.int32, "uint64": jnp.uint32}

    def narrow(leaf: Any) -> Any:
        name = str(getattr(leaf, "dtype", ""))
        return leaf.astype(narrower[name]) if name in narrower else leaf

    return jax.tree.map(narrow, tree)


def like(first: PyTree, tree: PyTree) -> PyTree:
    """A tree with leaves of the types of another's."""
    return jax.tree.map(lambda a, b: jnp.asarray(b, a.dtype), first, tree)


def space_of(declared: Any, discrete: bool, like: Any) -> Space:
    """A space of gymnax's as one of ours, with the shape and type of what is like its elements."""
    if discrete:
        return Discrete(int(declared.n))
    return Box(np.asarray(declared.low), np.asarray(declared.high), tuple(like.shape), like.dtype)


def from_gymnax(name: str, **env_params: Any) -> Environment:
    """A gymnax environment, without its automatic reset.

    Args:
        name: Its gymnax name, for example "CartPole-v1".
        **env_params: Fields of its parameters to set, for example `length=1.0`.

    The horizon is read from `max_steps_in_episode` here, where it is a number; a sweep over the parameters may shorten
    episodes but not lengthen them.

    Raises:
        InputError: If there is no such environment or parameter, or the horizon is below 1.

    Source: Lange, *gymnax: A JAX-based reinforcement learning environment library*, 2022.

    Example:
        >>> environment = from_gymnax("CartPole-v1", length=1.0)
        >>> environment.horizon, environment.action_space.n
        (500, 2)
    """
    import gymnax

    names = gymnax_names()
    if name not in names:
        lowered = {candidate.lower(): candidate for candidate in names}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.4)]
        hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(names)}"
        raise InputError(f"expected the name of a gymnax environment, got {name!r}; {hint}")
    with jax.enable_x64(False):  # see `step`
        environment, params = gymnax.make(name)
    known = [field.name for field in dataclasses.fields(params)]
    for field in env_params:
        if field not in known:
            raise InputError(f"{name} has no parameter {field!r}; it has {', '.join(known)}")
    params = params.replace(**env_params)
    horizon = int(params.max_steps_in_episode)
    if horizon < 1:
        raise InputError(f"expected max_steps_in_episode of 1 or more, got {horizon}")

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, jax.Array]:
        with jax.enable_x64(False):
            observation, state = environment.reset_env(key, in_32_bits(params))
            return strong(state), strong(observation)

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        # Written for 32 bits, gymnax fails or changes its state's types in 64: it computes in 32, whatever else does.
        with jax.enable_x64(False):
            action, params = in_32_bits((action, params))
            observation, following, reward, terminated, _ = environment.step_env(key, state, action, params)
            truncated = environment.is_truncated(following, params)
            following, observation = like(state, following), strong(observation)
            ends = jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
            return following, Step(observation, jnp.asarray(reward, jnp.float32), *ends)

    # Some declared observation spaces have another dtype than the observations: believe the observations.
    observation = jax.eval_shape(lambda key: reset(key, params)[1], jax.random.key(0))
    whole = observation.shape == () and jnp.issubdtype(observation.dtype, jnp.integer)
    actions = environment.action_space(params)
    return Environment(
        reset=reset,
        step=step,
        observation_space=space_of(environment.observation_space(params), whole, observation),
        action_space=space_of(actions, hasattr(actions, "n"), actions),
        horizon=horizon,
        params=params,
        name=name,
        draw=GYMNAX.get(name),
    )


def frozen_lake_tables() -> FiniteMDP:
    """FrozenLake-misc of gymnax as a finite MDP, for what is computed exactly: 16 states, four directions.

    Where each direction leads is asked of the same lake without its slipperiness. On ice a step goes where it was meant
    to with probability 1/3, and to each side likewise.

    Source: gymnasium's `FrozenLake-v1`, whose map and rules gymnax has.
    """
    from gymnax.environments.misc.frozen_lake import EnvState, FrozenLake

    icy, dry = FrozenLake(), FrozenLake(is_slippery=False)
    params, S, A = dry.default_params, dry.n_states, dry.num_actions

    def moved(position: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        _, state, reward, ends, _ = dry.step_env(jax.random.key(0), EnvState(position=position, time=0), action, params)
        return state.position, reward, ends

    led_to, rewards, ends = jax.vmap(jax.vmap(moved, (None, 0)), (0, None))(jnp.arange(S), jnp.arange(A))
    straight = np.eye(S)[np.asarray(led_to)]  # [S, A, S]
    aside = (np.roll(straight, 1, axis=1) + np.roll(straight, -1, axis=1)) / 2
    terminal, worth = np.zeros(S, bool), np.zeros(S)
    terminal[np.asarray(led_to)], worth[np.asarray(led_to)] = np.asarray(ends), np.asarray(rewards)
    start = np.asarray(icy.desc).reshape(-1) == 0
    p = icy.success_rate * straight + (1 - icy.success_rate) * aside
    return tables(start, p, np.broadcast_to(worth, p.shape), terminal)
