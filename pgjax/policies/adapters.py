"""Policies whose own parameters are few: adapters of low rank beside given ones, or none at all."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.checks import whole_number
from pgjax.errors import InputError
from pgjax.policies.base import Policy
from pgjax.policies.distributions import Distribution
from pgjax.trees import PyTree, names


class Adapter(NamedTuple):
    """What is added to a matrix [n, m], but for a factor: A B."""

    A: jax.Array  # [n, rank]
    B: jax.Array  # [rank, m]


def frozen(policy: Policy, params: PyTree) -> Policy:
    """The policy at given parameters, with none of its own: its parameters are ()."""
    return through(policy, lambda key: (), lambda own: params)


def low_rank(
    policy: Policy,
    params: PyTree,
    rank: int,
    alpha: float | None = None,
    chosen: Callable[[str], bool] = lambda name: True,
) -> Policy:
    """The policy at given parameters, some of whose matrices W are W + alpha/rank · A B; its own are A and B.

    An optimizer so keeps moments of the adapters alone. They begin with B = 0, where the policy is the given one. The
    sum takes the memory of the weights, and is made in every pass; a compiler may take it out of the loop that samples.

    What is given is a constant of a program that uses the policy, but where a sweep compiles it: there large arrays are
    arguments (`pgjax.sweeps.closures`).

    Args:
        policy: Any; what it observes for its own moments stays as it is given.
        params: Its parameters.
        rank: Of A B, at least 1.
        alpha: The rank, if not given: a factor of 1.
        chosen: Whether a matrix has an adapter, by its name (`pgjax.trees.names`); all arrays of two axes have one, if
            not given.

    Raises:
        InputError: If the rank is below 1, or no matrix is chosen.

    Source: Hu et al., *LoRA: low-rank adaptation of large language models*, 2021.
    """
    whole_number("rank", rank, 1)
    found = dict(zip(names(params), jax.tree.leaves(params), strict=True))
    shapes = {name: leaf.shape for name, leaf in found.items() if leaf.ndim == 2 and chosen(name)}
    if not shapes:
        raise InputError(f"expected one or more matrices to adapt, got none among {', '.join(found)}")

    def init(key: jax.Array) -> dict[str, Adapter]:
        keys = jax.random.split(key, len(shapes))
        return {
            name: Adapter(jax.random.normal(key, (n, rank)) / jnp.sqrt(n), jnp.zeros((rank, m)))
            for key, (name, (n, m)) in zip(keys, shapes.items(), strict=True)
        }

    return through(policy, init, lambda own: merged(params, own, alpha))


def merged(params: PyTree, adapters: dict[str, Adapter], alpha: float | None = None) -> PyTree:
    """The parameters that a policy of low rank acts with.

    Args:
        params: Those that it was given.
        adapters: Its own.
        alpha: As `low_rank` was given it.
    """
    leaves = []
    for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True):
        if name in adapters:
            A, B = adapters[name]
            product = A @ B if alpha is None else alpha / len(B) * (A @ B)
            leaf = leaf + product.astype(leaf.dtype)
        leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def through(policy: Policy, init: Callable[[jax.Array], PyTree], params_of: Callable[[PyTree], PyTree]) -> Policy:
    """The policy with other parameters, of which its own are made each time."""

    def step(own: PyTree, memory: PyTree, observation: Any) -> tuple[PyTree, Distribution]:
        return policy.step(params_of(own), memory, observation)

    def unroll(own: PyTree, trajectory: Any) -> Distribution:
        return policy.unroll(params_of(own), trajectory)

    def resume(own: PyTree, memory: PyTree, trajectory: Any) -> tuple[PyTree, Distribution]:
        return policy.resume(params_of(own), memory, trajectory)  # type: ignore[misc]

    return Policy(init, policy.memory, step, unroll, resume if policy.resume else None)
