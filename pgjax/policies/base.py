"""The contracts of a policy and of a value function, and whether a policy fits an environment."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from pgjax.checks import check_shape, traced
from pgjax.environments.base import Environment
from pgjax.environments.spaces import Box, Discrete, MultiDiscrete, Spaces, is_space, values_like
from pgjax.errors import InputError
from pgjax.policies.distributions import Categorical, Distribution, MultiCategorical
from pgjax.trees import PyTree


class Act(Protocol):
    """What a policy remembers after an observation [E, ...], and f(X_t, θ), from which it acts."""

    def __call__(self, params: PyTree, memory: PyTree, observation: Any, /) -> tuple[PyTree, Distribution]: ...


class Unroll(Protocol):
    """f(X_t, θ) at every step of whole episodes, [T, E]."""

    def __call__(self, params: PyTree, trajectory: Any, /) -> Distribution: ...


class Resume(Protocol):
    """What a policy remembers after some rows of episodes, and f(X_t, θ) at each of them, [T, E]."""

    def __call__(self, params: PyTree, memory: PyTree, trajectory: Any, /) -> tuple[PyTree, Distribution]: ...


class Policy(NamedTuple):
    """A policy f(·, θ), as pure functions.

    `init(key) -> params` draws θ. To act: `memory(E)` is what E episodes start with (a pytree), and
    `step(params, memory, observation[E, ...]) -> (memory, Distribution[E])`. To differentiate: `unroll(params,
    trajectory) -> Distribution[T, E]`, the same distributions for whole episodes at once. It looks at nothing of the
    trajectory but its `observation`, which for a policy with memory starts at the beginning of one episode a slot.

    `step` and `unroll` give the same log-probabilities. A policy without memory has `memory(E) == ()`.

    A policy whose memory is floats [E, ...] can offer one more, so that a slot may hold several episodes and only the
    rows in use are differentiated: `resume(params, memory, trajectory) -> (memory, Distribution[T, E])`, the same
    distributions for rows from anywhere in the episodes, and the memory after them. It starts afresh where
    `trajectory.first` [T, E] says that an episode begins.

    A policy that knows something beside what it learns by gradients, such as running moments of observations, has
    `observe(params, trajectory) -> params`: what it knows after these episodes, given once all else is learned from
    them. Of the trajectory it looks at `observation` and `mask`.
    """

    init: Callable[[jax.Array], PyTree]
    memory: Callable[[int], PyTree]
    step: Act
    unroll: Unroll
    resume: Resume | None = None
    observe: Callable[[PyTree, Any], PyTree] | None = None


def memoryless(init: Callable[[jax.Array], PyTree], apply: Callable[[PyTree, Any], Distribution]) -> Policy:
    """The policy whose action depends on the present observation alone.

    Args:
        init: key -> params.
        apply: (params, observation[..., *shape]) -> Distribution[...], for any leading axes; the observation is a
            pytree where its space is one.

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


def stepwise(init: Callable[..., PyTree], memory: Callable[..., PyTree], step: Callable[..., Any]) -> Policy:
    """The policy with a memory whose `unroll` makes its steps one after the other; arguments are its other parts."""

    def unroll(params: PyTree, trajectory: Any) -> Distribution:
        begun = memory(jax.tree.leaves(trajectory.observation)[0].shape[1])
        return jax.lax.scan(lambda carry, row: step(params, carry, row), begun, trajectory.observation)[1]

    return Policy(init, memory, step, unroll)


def allowed(action_space: Discrete | MultiDiscrete, logits: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Logits [..., n], or [..., d, n], with −∞ for the actions that may not be chosen.

    Args:
        action_space: Which ones it never has.
        logits: Of all.
        mask: Which may be chosen here, bool like logits; all if not given. Where it leaves none, it counts for nothing.
    """
    always = action_space.allowed
    if mask is None and always.all():
        return logits
    may = jnp.broadcast_to(always, logits.shape)
    if mask is not None:
        some = may & mask
        may = jnp.where(jnp.any(some, axis=-1, keepdims=True), some, may)
    return jnp.where(may, logits, -jnp.inf)


def has_memory(policy: Policy) -> bool:
    """Whether the policy remembers anything between steps."""
    return bool(jax.tree.leaves(jax.eval_shape(lambda: policy.memory(1))))


def describe(spaces: Spaces) -> str:
    """A space in words, or a pytree of them."""
    if isinstance(spaces, Discrete):
        return f"one of {spaces.n} integers"
    if isinstance(spaces, MultiDiscrete):
        return f"integers below {tuple(spaces.sizes)}"
    if isinstance(spaces, Box):
        return f"an array of shape {tuple(spaces.shape)}"
    parts = jax.tree_util.tree_leaves_with_path(spaces, is_leaf=is_space)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): describe(part) for path, part in parts}
    return f"{{{', '.join(f'{name}: {part}' for name, part in named.items())}}}"


def check_fit(environment: Environment, policy: Policy) -> None:
    """Raise unless the policy takes the environment's observations and returns its actions.

    Nothing is computed; only shapes are followed. What can be seen only by computing, `pgjax.check_policy` looks at.

    Raises:
        InputError: If it does not fit, or its distribution's log_prob, entropy, kl or cross_entropy are not a number
            for each episode: [E, 1] would be broadcast to [E, E].
    """
    states, actions, E = environment.observation_space, environment.action_space, 2
    observation = values_like(states, E)

    def act(key: jax.Array, observation: PyTree) -> tuple[Distribution, jax.Array]:
        _, f = policy.step(policy.init(key), policy.memory(E), observation)
        return f, f.sample(key)

    try:
        f, action = jax.eval_shape(act, jax.random.key(0), observation)
    except InputError:
        raise
    except Exception as error:  # each network library has exceptions of its own for a shape that does not fit
        raise InputError(
            f"expected a policy that takes the observations of {environment.name}, {describe(states)}; "
            f"it fails with: {error}"
        ) from error
    if isinstance(f, Categorical) and f.logits.shape[:-1] != (E,):
        raise InputError(
            f"expected a policy that takes the observations of {environment.name}, {describe(states)}; of {E} of them "
            f"this one makes logits of shape {f.logits.shape}, where [{E}, n] are expected"
        )
    kind = jnp.floating if isinstance(actions, Box) else jnp.integer
    fits = action.shape == (E, *actions.shape) and jnp.issubdtype(action.dtype, kind)
    came = f"arrays of shape {action.shape[1:]} and dtype {action.dtype}"
    if isinstance(actions, Discrete) and isinstance(f, Categorical):
        fits = fits and f.logits.shape[-1] == actions.n
        came = f"one of {f.logits.shape[-1]} integers"
    if isinstance(actions, MultiDiscrete) and isinstance(f, MultiCategorical):
        fits = fits and f.logits.shape == (E, *actions.allowed.shape)
        came = f"{f.logits.shape[-2]} integers of {f.logits.shape[-1]} at most"
    if not fits:
        raise InputError(
            f"expected a policy whose actions fit {environment.name}, {describe(actions)}; this one's are {came}"
        )
    what = f"a {type(f).__name__} of {E} actions for {environment.name}"
    for name, others in {"log_prob": (action,), "entropy": (), "kl": (f,), "cross_entropy": (f,)}.items():
        if hasattr(f, name):
            number = traced(f"{name} of {what}", lambda f, *of, name=name: getattr(f, name)(*of), f, *others)
            check_shape(f"{name} of {what}", number, (E,))


class ValueFunction(NamedTuple):
    """A function with parameters of its own, from observations to expected returns, as pure functions.

    `init(key) -> params`; `unroll(params, trajectory) -> [T, E]` for v(X_t), `[T, E, A]` for Q(X_t, ·); it sees the
    trajectory's observations, as a policy does, and the time. If it is `memoryless`, a row's value depends on that row
    alone; if not, it starts afresh at each `trajectory.first`. `observe` is like a policy's.
    """

    init: Callable[[jax.Array], PyTree]
    unroll: Callable[[PyTree, Any], jax.Array]
    memoryless: bool = True
    observe: Callable[[PyTree, Any], PyTree] | None = None
