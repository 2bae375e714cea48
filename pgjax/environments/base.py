"""The contract of an environment: two pure functions and the spaces they speak in."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_shape, check_truth, traced
from pgjax.environments.spaces import Space, Spaces, check_observations, check_space, values_like
from pgjax.errors import InputError
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Step(NamedTuple):
    """What one step of an environment brings.

    `terminated`: the episode is over, and nothing could follow. `truncated`: it is cut off here, though more could have
    followed; a bootstrap looks through it. Both may be true at once, and then termination counts.
    """

    observation: Any  # X_{t+1}, of the observation space: an array, or a pytree of arrays
    reward: jax.Array | float  # R_{t+1}, []
    terminated: jax.Array | bool = False  # [], bool or an integer 0 or 1
    truncated: jax.Array | bool = False  # [], likewise
    notes: Mapping[str, Any] = {}  # more numbers, each [], that a `score` finds in the trajectory; nobody else does


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


class Reset(Protocol):
    """X_1 ~ d_0: the state that an episode begins in, and what is observed of it."""

    def __call__(self, key: jax.Array, params: PyTree, /) -> tuple[PyTree, Any]: ...


class Transition(Protocol):
    """What an action leads to."""

    def __call__(self, key: jax.Array, state: PyTree, action: jax.Array, params: PyTree, /) -> tuple[PyTree, Step]: ...


class EpisodeScore(Protocol):
    """What whole episodes are worth."""

    def __call__(self, trajectory: Trajectory, params: PyTree, /) -> Score: ...


class Draw(Protocol):
    """How things stand after t steps of an episode, drawn onto matplotlib's axes."""

    def __call__(self, axes: Any, episode: Episode, t: int, /) -> None: ...


class Environment(NamedTuple):
    """A sequential decision making problem, as pure functions of one episode.

    `reset(key, params) -> (state, observation)` draws X_1 ~ d_0;
    `step(key, state, action, params) -> (state, Step)` plays A_t. A state is any pytree. Nothing resets by itself: when
    an episode ends is the rollout's business, and after `horizon` steps T it ends in any case, truncated. Where T is
    part of the problem, so that nothing is worth anything after it, step T says `terminated` itself, as those of
    `finite` and of texts do: else a bootstrap looks through it. An action of a `Box` arrives clipped to it.

    `score(trajectory, params) -> Score` is for rewards that are known only when the episode is whole; it replaces the
    rewards of the steps. What it says of padding is dropped.

    `draw(axes, episode, t)` draws onto matplotlib's axes how things stand after t steps of an `Episode`, 0 ≤ t ≤ n.

    Example:
        >>> from pgjax.environments.spaces import Discrete
        >>> def reset(key, params):
        ...     return jnp.int32(0), jnp.int32(0)
        >>> def step(key, place, action, params):  # stay or go on
        ...     place = place + action
        ...     return place, Step(place, reward=-1.0, terminated=place == 3)
        >>> line = Environment(reset, step, Discrete(4), Discrete(2), horizon=20, name="line")
        >>> check_environment(line)  # says what is wrong, if anything is
    """

    reset: Reset
    step: Transition
    observation_space: Spaces
    action_space: Space
    horizon: int
    params: PyTree = ()  # numbers that may be swept by vmap: masses, tables, …
    score: EpisodeScore | None = None
    name: str = "environment"
    draw: Draw | None = None


def strong(tree: PyTree) -> PyTree:
    """The tree with every leaf an array of its own dtype, none weak, so that a loop can carry it."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)


def whole_score(environment: Environment, trajectory: Trajectory, params: PyTree) -> Score:
    """The score of whole episodes, or their steps' rewards where there is none, all float [T, E] and 0 in padding.

    Raises:
        InputError: If the score is no `Score`, or a part of it is not [T, E].
    """
    if environment.score is None:
        return Score(trajectory.reward)
    score, what = environment.score(trajectory, params), f"the score of {environment.name}"
    if not isinstance(score, Score):
        raise InputError(f"expected {what} to return a Score, got a {type(score).__name__}")
    for name, array in {
        "reward": score.reward,
        **{f"note {name!r}": note for name, note in score.notes.items()},
    }.items():
        check_shape(f"the {name} that {what} returns", array, trajectory.mask.shape)
    return jax.tree.map(lambda leaf: jnp.where(trajectory.mask, jnp.asarray(leaf, float), 0), score)


def check_environment(environment: Environment) -> None:
    """Raise unless an environment is what the contract says; functions are only traced, and nothing is computed.

    Raises:
        InputError: If the horizon is no integer of 1 or more, the bounds of a space make no sense, actions of a `Box`
            are integers, a function cannot be traced or returns something else than the contract says, an observation
            is not of its space, a reward, an end or a note is not a scalar, `step` changes the shape of the state, or a
            score is not [T, E].
    """
    name, actions = environment.name, environment.action_space
    if not isinstance(environment.horizon, int | np.integer) or environment.horizon < 1:
        raise InputError(f"expected a horizon of 1 or more steps for {name}, an integer, got {environment.horizon}")
    check_space(f"actions of {name}", actions)
    check_observations(f"observations of {name}", environment.observation_space, actions)
    key, action = jax.random.key(0), jax.ShapeDtypeStruct(tuple(actions.shape), actions.dtype)
    begun = traced(f"a reset of {name}", environment.reset, key, environment.params)
    first, observation = pair(f"reset of {name}", "(state, observation)", begun)
    played = traced(f"a step of {name}", environment.step, key, first, action, environment.params)
    state, step = pair(f"step of {name}", "(state, Step)", played)
    if not isinstance(step, Step):
        raise InputError(
            f"expected step of {name} to return (state, Step), got a {type(step).__name__} in second place"
        )

    def expect(what: str, expected: Any, came: Any) -> None:
        if jax.tree.flatten(came) != jax.tree.flatten(expected):  # some nodes of others say themselves what is equal
            raise InputError(f"expected {what} of {name} to be of shape and type {expected}, got {came}")

    seen = form(values_like(environment.observation_space))
    expect("the first observation", seen, form(observation))
    expect("the observation after a step", seen, form(step.observation))
    expect("the state after a step", form(first), form(state))
    check_shape(f"the reward of {name}", step.reward, ())
    check_truth(f"terminated of {name}", step.terminated, ())
    check_truth(f"truncated of {name}", step.truncated, ())
    for noted, number in step.notes.items():
        check_shape(f"the note {noted!r} of a step of {name}", number, ())
    if environment.score is not None:
        T, E = int(environment.horizon) + 1, 2

        def rows(shape: tuple[int, ...] = (), dtype: Any = float) -> Any:
            return jax.ShapeDtypeStruct((T, E, *shape), jnp.result_type(dtype))

        count: Any = jax.ShapeDtypeStruct((), jnp.int32)

        episodes = Trajectory(
            observation=values_like(environment.observation_space, T, E),
            action=rows(action.shape, action.dtype),
            reward=rows(),
            terminated=rows(dtype=bool),
            truncated=rows(dtype=bool),
            mask=rows(dtype=bool),
            time=rows(dtype=jnp.int32),
            rows=count,
            log_prob=rows(),
            notes={noted: rows(dtype=jnp.result_type(number)) for noted, number in step.notes.items()},
        )
        traced(
            f"a score of {name}",
            lambda episodes, params: whole_score(environment, episodes, params),
            episodes,
            environment.params,
        )


def form(tree: PyTree) -> PyTree:
    """The shape and type of each leaf of a tree, in words that can be compared."""
    return jax.tree.map(lambda leaf: (tuple(leaf.shape), str(leaf.dtype)), tree)


def pair(what: str, parts: str, returned: Any) -> tuple[Any, Any]:
    """The two things that a function is to return.

    Raises:
        InputError: If they are not two.
    """
    if not isinstance(returned, tuple) or hasattr(returned, "_fields") or len(returned) != 2:
        came = f"{len(returned)} things" if type(returned) in (tuple, list) else f"a {type(returned).__name__}"
        raise InputError(f"expected {what} to return {parts}, got {came}")
    return returned
