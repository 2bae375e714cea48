"""Distances between what the agent would do and what the expert does."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.errors import InputError
from pgjax.imitation.demonstrations import Demonstrations
from pgjax.policies.base import Policy
from pgjax.policies.distributions import Distribution

# d(f(X_t), f*(X_t)): of the agent's distribution, of the action that the expert took, and of the expert's distribution,
# which is None where it is not known; each with any batch axes.
Distance = Callable[[Distribution, jax.Array, Any], jax.Array]


def negative_log_likelihood(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """−ln f(X_t)_{A_t}, the lecture's l_D, in nats, [...]: all that can be known from actions alone."""
    return -f.log_prob(action)


def cross_entropy(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """−E_{f*}[ln f(X_t)], in nats, [...]: the mean of −ln f over what the expert could have done.

    It has the gradient of KL(f* ‖ f), and is finite for a deterministic expert with continuous actions too.

    Raises:
        InputError: If the expert's distribution is not known, or of another kind than the agent's.
    """
    return of_one_kind(f, expert).cross_entropy(f)


def forward_kl(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """KL(f* ‖ f), in nats, [...], which makes f cover all that the expert does.

    It is infinite for an expert that is certain of a continuous action: there `cross_entropy` has the same gradient.

    Raises:
        InputError: See `cross_entropy`.
    """
    return of_one_kind(f, expert).kl(f)


def reverse_kl(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """KL(f ‖ f*), in nats, [...], which keeps f from doing what the expert never does; infinite where it does.

    Raises:
        InputError: See `cross_entropy`.
    """
    return f.kl(of_one_kind(f, expert))  # type: ignore[attr-defined]


def of_one_kind(f: Distribution, expert: Any) -> Any:
    """The expert's distribution.

    Raises:
        InputError: If it is not known, or of another kind than the agent's.
    """
    if type(expert) is not type(f):
        came = "none" if expert is None else f"a {type(expert).__name__}"
        raise InputError(f"expected the expert's distribution, a {type(f).__name__} as the agent's, got {came}")
    return expert


def check_distance(policy: Policy, distance: Distance, demonstrations: Demonstrations) -> None:
    """Raise unless a policy can be compared with what is known of the expert; only shapes are followed.

    Raises:
        InputError: If arrays are not [T, N, ...], the policy does not take the observations, the actions are not like
            its own, or the distance needs the expert's distribution and it is not known.
    """
    mask = demonstrations.mask
    for leaf in jax.tree.leaves(demonstrations):
        if mask.ndim != 2 or leaf.shape[:2] != mask.shape or not mask.size:
            raise InputError(
                f"expected arrays [T, N, ...] and a mask [T, N], got {list(leaf.shape)} and {list(mask.shape)}"
            )

    def compare(key: jax.Array, demonstrations: Demonstrations) -> tuple[jax.Array, jax.Array]:
        f = policy.unroll(policy.init(key), demonstrations)
        return f.sample(key), distance(f, demonstrations.action, demonstrations.expert)

    try:
        action, d = jax.eval_shape(compare, jax.random.key(0), demonstrations)
    except InputError:
        raise
    except Exception as error:  # each network library has exceptions of its own for a shape that does not fit
        raise InputError(f"expected a policy that fits the demonstrations, it fails with: {error}") from error
    ours, theirs = ((action.shape, kind_of(action)) for action in (action, demonstrations.action))
    if ours != theirs:
        raise InputError(f"expected actions of shape and kind {ours}, as the policy's, got {theirs}")
    if d.shape != demonstrations.mask.shape:
        raise InputError(f"expected a distance of shape {demonstrations.mask.shape} for as many steps, got {d.shape}")


def kind_of(array: Any) -> str:
    """Whether an array is of integers or of real numbers, in a word."""
    return "integer" if jnp.issubdtype(array.dtype, jnp.integer) else "real"
