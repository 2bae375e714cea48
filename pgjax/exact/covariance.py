"""The covariance of an estimator, without sampling."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax.environments.finite_mdp import FiniteMDP
from pgjax.errors import InputError
from pgjax.exact.estimators import Estimator
from pgjax.exact.solution import check_horizon, log_probabilities, probabilities, promoted
from pgjax.policies.base import Policy
from pgjax.trees import PyTree


class Moments(NamedTuple):
    """First and second moments of a single-episode estimator, written as coefficients of the S · A scores.

    The estimator is Σ_{s,a} c_{s,a} ∇ ln f(s)_a with random coefficients c; entry s · A + a belongs to (s, a).
    """

    mean: jax.Array  # [S A], E[c]
    second: jax.Array  # [S A, S A], E[c cᵀ]


class _Remaining(NamedTuple):
    """Moments, given the state, of the rest of an episode: credit C, sum of scores Z, estimator W (both [S A])."""

    C: jax.Array  # [S]
    CC: jax.Array  # [S]
    Z: jax.Array  # [S, n]
    W: jax.Array  # [S, n]
    CZ: jax.Array  # [S, n]
    CW: jax.Array  # [S, n]
    ZZ: jax.Array  # [S, n, n]
    ZW: jax.Array  # [S, n, n]
    WW: jax.Array  # [S, n, n]


def moments(mdp: FiniteMDP, horizon: int, f: jax.Array, estimator: Estimator) -> Moments:
    """The exact first and second moments of an estimator on one episode, by dynamic programming.

    With e the unit vector of the pair (X_t, A_t), u = reward_t and ' for what follows in the next state, the rest of
    an episode brings

        C = u + decay · C',  Z = e + Z',  W = (weight (u − b) + weight · decay · C') e + expected + whole · u Z' + W',

    which is linear in (1, C', Z', W'); so their second moments are closed under a step backwards in time. It takes
    memory for 3 S (S A)² numbers and T times the work of S² (S A)² products.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        f: [S, A], the policy's table.
        estimator: Which, see `whole_episode_estimator` and those after it.

    Raises:
        InputError: If the horizon is below 1 or not the estimator's, or f is not of shape [S, A].
    """
    check_horizon(horizon)
    if estimator.reward.shape[0] != horizon:
        raise InputError(f"expected an estimator for the horizon {horizon}, got one for {estimator.reward.shape[0]}")
    mdp, f = promoted(mdp, f)
    S, A, _ = mdp.p.shape
    n = S * A
    dtype = mdp.d0.dtype
    estimator = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), estimator)
    whole, decay = estimator.whole, estimator.decay
    e = jnp.eye(n, dtype=dtype).reshape(S, A, n)
    reached = f[..., None] * mdp.p  # [S, A, S]: the action is taken and leads there
    goes_on = reached * ~mdp.terminal[None, None]

    def at_pair(coefficient: jax.Array) -> jax.Array:
        """Σ_a coefficient[s, a] e, [S, n]."""
        return jnp.einsum("sa,san->sn", coefficient, e)

    def beside_pair(vector: jax.Array) -> jax.Array:
        """Σ_a e vector[s, a]ᵀ, [S, n, n]."""
        return jnp.einsum("san,sam->snm", e, vector)

    def ahead(x: jax.Array, given: jax.Array = goes_on) -> jax.Array:
        """The expectation of what follows, split by action: [S, A, …] of x [S', …]."""
        return jnp.einsum("sap,p...->sa...", given, x)

    def backward(after: _Remaining, now: tuple[jax.Array, ...]) -> tuple[_Remaining, None]:
        u, weight, baseline, h = now
        h = at_pair(h)  # [S, n], added whatever the action
        own, passed_on = weight * (u - baseline[..., None]), weight * decay  # of e, and of C' e
        going_u = goes_on * u

        C = jnp.sum(reached * u, -1) + decay * ahead(after.C)  # [S, A], as all that follows
        CC = jnp.sum(reached * u**2, -1) + 2 * decay * ahead(after.C, going_u) + decay**2 * ahead(after.CC)
        factor = jnp.sum(reached * own, -1) + passed_on * ahead(after.C)  # E of the coefficient of e
        squared = (
            jnp.sum(reached * own**2, -1)
            + 2 * passed_on * ahead(after.C, goes_on * own)
            + passed_on**2 * ahead(after.CC)
        )
        with_C = (
            jnp.sum(reached * u * own, -1)
            + ahead(after.C, goes_on * (passed_on * u + decay * own))
            + passed_on * decay * ahead(after.CC)
        )
        # W is (a coefficient) e + rest, rest = h + whole · u Z' + W'; the next are expectations, split by action.
        rest = f[..., None] * h[:, None] + whole * ahead(after.Z, going_u) + ahead(after.W)
        factor_rest = (
            factor[..., None] * h[:, None]
            + whole * ahead(after.Z, going_u * own)
            + whole * passed_on * ahead(after.CZ, going_u)
            + ahead(after.W, goes_on * own)
            + passed_on * ahead(after.CW)
        )
        factor_Z = ahead(after.Z, goes_on * own) + passed_on * ahead(after.CZ)
        h_follows = jnp.sum(whole * ahead(after.Z, going_u) + ahead(after.W), axis=1)  # [S, n]

        def total(x: jax.Array, given: jax.Array = goes_on) -> jax.Array:
            return jnp.einsum("sp,pnm->snm", jnp.sum(given, axis=1), x)

        Z_following = jnp.sum(ahead(after.Z), axis=1)
        ZZ = beside_pair(f[..., None] * e) + _and_transpose(beside_pair(ahead(after.Z))) + total(after.ZZ)
        ZW = (
            beside_pair(factor[..., None] * e)
            + beside_pair(rest)
            + jnp.swapaxes(beside_pair(factor_Z), -1, -2)
            + Z_following[..., None] * h[:, None]
            + whole * total(after.ZZ, going_u)
            + total(after.ZW)
        )
        WW = (
            beside_pair(squared[..., None] * e)
            + _and_transpose(beside_pair(factor_rest))
            + h[..., None] * h[:, None]
            + _and_transpose(h[..., None] * h_follows[:, None])
            + whole**2 * total(after.ZZ, going_u * u)
            + whole * _and_transpose(total(after.ZW, going_u))
            + total(after.WW)
        )
        remaining = _Remaining(
            C=jnp.sum(C, -1),
            CC=jnp.sum(CC, -1),
            Z=at_pair(f) + Z_following,
            W=at_pair(factor) + jnp.sum(rest, axis=1),
            CZ=at_pair(C) + jnp.sum(ahead(after.Z, going_u) + decay * ahead(after.CZ), axis=1),
            CW=at_pair(with_C)
            + h * jnp.sum(C, -1)[:, None]
            + jnp.sum(
                whole * (ahead(after.Z, going_u * u) + decay * ahead(after.CZ, going_u))
                + ahead(after.W, going_u)
                + decay * ahead(after.CW),
                axis=1,
            ),
            ZZ=ZZ,
            ZW=ZW,
            WW=WW,
        )
        return remaining, None

    vector, matrix = jnp.zeros((S, n), dtype), jnp.zeros((S, n, n), dtype)
    nothing = _Remaining(mdp.d0 * 0, mdp.d0 * 0, vector, vector, vector, vector, matrix, matrix, matrix)
    steps = (estimator.reward, estimator.weight, estimator.baseline, estimator.expected)
    first, _ = jax.lax.scan(backward, nothing, steps, reverse=True)
    return Moments(mdp.d0 @ first.W, jnp.einsum("s,snm->nm", mdp.d0, first.WW))


def _and_transpose(matrices: jax.Array) -> jax.Array:
    return matrices + jnp.swapaxes(matrices, -1, -2)


def scores(mdp: FiniteMDP, policy: Policy, params: PyTree) -> jax.Array:
    """∇ ln f(s, θ)_a for every state and action, [S A, d], with the d parameters in a row.

    The order of the parameters is that of `jax.flatten_util.ravel_pytree`. Errors are those of `log_probabilities`.
    """
    theta, unravel = ravel_pytree(params)
    return jax.jacobian(lambda theta: log_probabilities(mdp, policy, unravel(theta)).reshape(-1))(theta)


def mean_and_covariance(
    mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, estimator: Estimator
) -> tuple[jax.Array, jax.Array]:
    """The expectation [d] and the covariance [d, d] of an estimator of ∇ρ(θ) on one episode; exact.

    The mean over E independent episodes has the same expectation and 1/E of the covariance. The parameters are in a
    row, see `scores`.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        policy: f, without memory.
        params: θ, where it is taken.
        estimator: Which, see `whole_episode_estimator` and those after it.

    Raises:
        InputError: See `log_probabilities` and `moments`.
    """
    psi = scores(mdp, policy, params)
    found = moments(mdp, horizon, probabilities(mdp, policy, params), estimator)
    mean = found.mean @ psi
    return mean, psi.T @ found.second @ psi - jnp.outer(mean, mean)
