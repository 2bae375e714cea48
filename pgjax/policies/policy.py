"""The contract of a policy, and which of them fits an environment."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.environment import Discrete, Environment, PyTree, Space
from pgjax.errors import InputError
from pgjax.policies.distributions import Categorical, Distribution


class Policy(NamedTuple):
    """A policy f(·, θ), as pure functions.

    `init(key) -> params` draws θ. To act: `memory(E)` is what E episodes start with (a pytree), and
    `step(params, memory, observation[E, ...]) -> (memory, Distribution[E])`. To differentiate: `unroll(params,
    trajectory) -> Distribution[T, E]`, the same distributions for whole episodes at once. It looks at nothing of the
    trajectory but its `observation`, which for a policy with memory starts at the beginning of one episode a slot.

    `step` and `unroll` give the same log-probabilities. A policy without memory has `memory(E) == ()`.
    """

    init: Callable[[jax.Array], PyTree]
    memory: Callable[[int], PyTree]
    step: Callable[[PyTree, PyTree, Any], tuple[PyTree, Distribution]]
    unroll: Callable[[PyTree, Any], Distribution]


def memoryless(init: Callable[[jax.Array], PyTree], apply: Callable[[PyTree, Any], Distribution]) -> Policy:
    """Return the policy whose action depends on the present observation alone.

    Args:
        init: key -> params.
        apply: (params, observation[..., *shape]) -> Distribution[...], for any leading axes.

    Example:
        >>> def apply(theta, x):  # the same two logits, whatever is observed
        ...     return Categorical(jnp.broadcast_to(theta, (*x.shape, 2)))
        >>> policy = memoryless(lambda key: jnp.zeros(2), apply)
        >>> memory, f = policy.step(jnp.zeros(2), policy.memory(3), jnp.arange(3))  # E = 3
        >>> memory, f.logits.shape
        ((), (3, 2))
    """
    return Policy(
        init,
        memory=lambda episodes: (),
        step=lambda params, memory, observation: (memory, apply(params, observation)),
        unroll=lambda params, trajectory: apply(params, trajectory.observation),
    )


def has_memory(policy: Policy) -> bool:
    """Return whether the policy remembers anything between steps."""
    return bool(jax.tree.leaves(jax.eval_shape(lambda: policy.memory(1))))


def describe(space: Space) -> str:
    """Return a space in words."""
    if isinstance(space, Discrete):
        return f"one of {space.n} integers"
    return f"an array of shape {tuple(space.shape)}"


def check_fit(environment: Environment, policy: Policy) -> None:
    """Raise unless the policy takes the environment's observations and returns its actions.

    Nothing is computed; only shapes are followed.

    Raises:
        InputError: If it does not fit.
    """
    space = environment.observation_space
    observation = jax.ShapeDtypeStruct((2, *space.shape), space.dtype)

    def act(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, Distribution]:
        _, distribution = policy.step(policy.init(key), policy.memory(2), observation)
        return distribution.sample(key), distribution

    try:
        action, distribution = jax.eval_shape(act, jax.random.key(0), observation)
    except InputError:
        raise
    except Exception as error:  # each network library has exceptions of its own for a shape that does not fit
        raise InputError(
            f"expected a policy that takes the observations of {environment.name}, {describe(space)}; "
            f"it fails with: {error}"
        ) from error
    expected = environment.action_space
    fits = action.shape == (2, *expected.shape)
    if isinstance(expected, Discrete):
        fits = fits and jnp.issubdtype(action.dtype, jnp.integer)
        if isinstance(distribution, Categorical):
            fits = fits and distribution.logits.shape[-1] == expected.n
            came = f"one of {distribution.logits.shape[-1]} integers"
        else:
            came = f"arrays of shape {action.shape[1:]} and dtype {action.dtype}"
    else:
        fits = fits and jnp.issubdtype(action.dtype, jnp.floating)
        came = f"arrays of shape {action.shape[1:]} and dtype {action.dtype}"
    if not fits:
        raise InputError(
            f"expected a policy whose actions fit {environment.name}, {describe(expected)}; this one's are {came}"
        )


def policy_for(environment: Environment) -> Policy:
    """Return a fitting default policy, see `pgjax.tabular`, `pgjax.cnn` and `pgjax.mlp`.

    A table over few discrete states; for images a convolution and two layers of 64; else a tanh network of two layers
    of 64. Actions are Categorical where they are discrete and diagonal Gaussian where they are continuous.

    Raises:
        InputError: If the actions are arrays of another shape than [d].

    Example:
        >>> from pgjax.environments.maze import maze
        >>> policy_for(maze()).init(jax.random.key(0)).shape  # a table of logits
        (23, 4)
    """
    from pgjax.policies.cnn import cnn, is_image
    from pgjax.policies.mlp import mlp
    from pgjax.policies.tabular import tabular

    states, actions = environment.observation_space, environment.action_space
    if isinstance(states, Discrete) and isinstance(actions, Discrete) and states.n <= 1024:
        return tabular(states.n, actions.n)
    return (cnn if is_image(states) else mlp)(states, actions)
