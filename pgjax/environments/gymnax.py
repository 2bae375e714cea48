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
