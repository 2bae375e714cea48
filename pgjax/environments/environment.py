"""The contract of an environment: two pure functions and the spaces they speak in."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError

PyTree = Any


class Discrete(NamedTuple):
    """The integers 0 … n − 1: actions to choose from, or states to be in."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        """One value is a scalar."""
        return ()

    @property
    def dtype(self) -> Any:
        """One value is an int32."""
        return jnp.int32

    def clip(self, value: jax.Array) -> jax.Array:
        """Return the value as it is: every integer a policy can choose is inside."""
        return value


class Box(NamedTuple):
    """Arrays of one shape, each number between `low` and `high` (scalars or arrays of that shape; may be infinite)."""

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = jnp.float32

    def clip(self, value: jax.Array) -> jax.Array:
        """Return the nearest values inside the box, for values [..., *shape]."""
        low, high = (jnp.broadcast_to(jnp.asarray(bound, self.dtype), value.shape) for bound in (self.low, self.high))
        return jnp.clip(value, low, high)

    def middle(self) -> tuple[jax.Array, jax.Array]:
        """Return its centre and its half-width, each [*shape]; where a side is infinite, 0 and 1."""
        low, high = np.broadcast_to(self.low, self.shape), np.broadcast_to(self.high, self.shape)
        finite = np.isfinite(low) & np.isfinite(high)
        low, high = np.where(finite, low, -1.0), np.where(finite, high, 1.0)
        dtype = jnp.result_type(float)
        return jnp.asarray((low + high) / 2, dtype), jnp.asarray((high - low) / 2, dtype)


Space = Discrete | Box


class Step(NamedTuple):
    """What one step of an environment brings.

    `terminated`: the episode is over, and nothing could follow. `truncated`: it is cut off here, though more could have
    followed; a bootstrap looks through it. Both may be true at once, and then termination counts.
    """

    observation: Any  # X_{t+1}, [*observation_space.shape]
    reward: jax.Array | float  # R_{t+1}, []
    terminated: jax.Array | bool = False  # []
    truncated: jax.Array | bool = False  # []


class Score(NamedTuple):
    """What is known of episodes when they are whole."""

    reward: Any  # [T, E], in place of the rewards of the steps
    notes: Mapping[str, Any] = {}  # more numbers [T, E]: a metric of that name is their sum over an episode


class Episode(NamedTuple):
    """One whole episode of n steps, to look at; its arrays are NumPy's."""

    state: PyTree  # [n + 1, ...], of the environment, before each step and after the last
    observation: Any  # [n + 1, ...], X_t likewise
    action: Any  # [n, ...], A_t as the environment got it
    reward: Any  # [n], R_{t+1}
    params: PyTree  # the environment's


class Environment(NamedTuple):
    """A sequential decision making problem, as pure functions of one episode.

    `reset(key, params) -> (state, observation)` draws X_1 ~ d_0;
    `step(key, state, action, params) -> (state, Step)` plays A_t. A state is any pytree. Nothing resets by itself: when
    an episode ends is the rollout's business, and after `horizon` steps T it ends in any case, truncated.
    An action of a `Box` arrives clipped to it.

    `score(trajectory, params) -> Score` is for rewards that are known only when the episode is whole; it replaces the
    rewards of the steps. What it says of padding is dropped.

    `draw(axes, episode, t)` draws onto matplotlib's axes how things stand after t steps of an `Episode`, 0 ≤ t ≤ n.

    Example:
        >>> def reset(key, params):
        ...     return jnp.int32(0), jnp.int32(0)
        >>> def step(key, place, action, params):  # stay or go on
        ...     place = place + action
        ...     return place, Step(place, reward=-1.0, terminated=place == 3)
        >>> line = Environment(reset, step, Discrete(4), Discrete(2), horizon=20, name="line")
        >>> check_environment(line)  # says what is wrong, if anything is
    """

    reset: Callable[[jax.Array, PyTree], tuple[PyTree, Any]]
    step: Callable[[jax.Array, PyTree, jax.Array, PyTree], tuple[PyTree, Step]]
    observation_space: Space
    action_space: Space
    horizon: int
    params: PyTree = ()  # numbers that may be swept by vmap: masses, tables, …
    score: Callable[[Any, PyTree], Score] | None = None
    name: str = "environment"
    draw: Callable[[Any, Episode, int], None] | None = None


def strong(tree: PyTree) -> PyTree:
    """Return the tree with every leaf an array of its own dtype, none weak, so that a loop can carry it."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


def check_environment(environment: Environment) -> None:
    """Raise unless `reset` and `step` bring what the contract says; only shapes are followed.

    Raises:
        InputError: If the horizon is below 1, an observation is not of its space, a reward or an end is not a scalar,
            or `step` changes the shape of the state.
    """
    if environment.horizon < 1:
        raise InputError(f"expected a horizon of 1 or more steps, got {environment.horizon}")
    key, space = jax.random.key(0), environment.action_space
    action = jax.ShapeDtypeStruct(tuple(space.shape), space.dtype)
    first, observation = jax.eval_shape(environment.reset, key, environment.params)
    state, step = jax.eval_shape(environment.step, key, first, action, environment.params)

    def form(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: (tuple(leaf.shape), jnp.dtype(leaf.dtype).name), tree)

    def expect(what: str, expected: Any, came: Any) -> None:
        if came != expected:
            raise InputError(f"expected {what} of {environment.name} to be of shape and type {expected}, got {came}")

    seen = (tuple(environment.observation_space.shape), jnp.dtype(environment.observation_space.dtype).name)
    expect("the first observation", seen, form(observation))
    expect("the observation after a step", seen, form(step.observation))
    expect("the state after a step", form(first), form(state))
    for name in ("reward", "terminated", "truncated"):
        expect(f"the {name}", (), tuple(getattr(step, name).shape))
