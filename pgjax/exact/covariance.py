"""The covariance of an estimator, without sampling.

A single-episode estimator is Σ_t of a coefficient times a score ∇ ln f(X_t)_{A_t}, and the coefficients are linear in
what the rest of the episode brings, so their second moments obey a recursion backwards in time, as v does (`moments`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax.checks import check_horizon
from pgjax.environments.finite_mdp import FiniteMDP
from pgjax.errors import InputError
from pgjax.exact.estimators import Estimator
from pgjax.exact.solution import log_probabilities, probabilities, promoted
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


class _Step(NamedTuple):
    """What every step back has in common."""

    e: jax.Array  # [S, A, n], unit vectors of the pairs (s, a)
    f: jax.Array  # [S, A]
    reached: jax.Array  # [S, A, S], the probability that the action is taken and leads there
    going_on: jax.Array  # [S, A, S], that, and the episode is not over
    decay: jax.Array  # []
    whole: jax.Array  # []

    def at_pair(self, coefficient: jax.Array) -> jax.Array:
        """Σ_a coefficient[s, a] e, [S, n]."""
        return jnp.einsum("sa,san->sn", coefficient, self.e)

    def beside_pair(self, vector: jax.Array) -> jax.Array:
        """Σ_a e vector[s, a]ᵀ, [S, n, n]."""
        return jnp.einsum("san,sam->snm", self.e, vector)

    def ahead(self, x: jax.Array, factor: Any = 1.0) -> jax.Array:
        """E[factor · x'], split by action: [S, A, …] of x [S', …] and a factor [S, A, S']."""
        return jnp.einsum("sap,p...->sa...", self.going_on * factor, x)

    def total(self, x: jax.Array, factor: Any = 1.0) -> jax.Array:
        """The same summed over actions, [S, n, n] of x [S', n, n]."""
        return jnp.einsum("sp,pnm->snm", jnp.sum(self.going_on * factor, axis=1), x)


def moments(mdp: FiniteMDP, horizon: int, f: jax.Array, estimator: Estimator) -> Moments:
    """The exact first and second moments of an estimator on one episode, by dynamic programming.

    Let e be the unit vector of the pair (X_t, A_t), u = reward_t, h = Σ_a expected_t(X_t, a) e, and ' mark what follows
    in the next state. The rest of an episode has the credit C, the sum of scores Z and the estimator W, with

        C = u + decay · C'                                   (1)
        Z = e + Z'                                           (2)
        W = a e + r,  a = weight (u − b + decay · C'),       (3)
                      r = h + whole · u Z' + W'

    which is linear in (1, C', Z', W'); so their first and second moments are closed under a step backwards in time:

        E[C],  E[C²] = E[u²] + 2 decay E[u C'] + decay² E[C'²]                                 (4)
        E[Z] = E[e] + E[Z'],  E[W] = E[a e] + E[r]                                             (5)
        E[C Z] = E[C e] + E[C Z'],  E[C W] = E[C a e] + E[C r]                                 (6)
        E[Z Zᵀ] = E[e eᵀ] + E[e Z'ᵀ] + E[Z' eᵀ] + E[Z' Z'ᵀ]                                    (7)
        E[Z Wᵀ] = E[a e eᵀ] + E[e rᵀ] + E[a Z' eᵀ] + E[Z' rᵀ]                                  (8)
        E[W Wᵀ] = E[a² e eᵀ] + E[a e rᵀ] + E[a r eᵀ] + E[r rᵀ]                                 (9)

    It takes memory for 3 S (S A)² numbers and T times the work of S² (S A)² products.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        f: [S, A], the policy's table.
        estimator: Which, see `whole_episode_estimator` and those after it.

    Raises:
        InputError: If the horizon is below 1 or not the estimator's, or f is not of shape [S, A].

    Source: our own; for the return alone, Sobel, *The variance of discounted Markov decision processes*, 1982.
    """
    check_horizon(horizon)
    if estimator.reward.shape[0] != horizon:
        raise InputError(f"expected an estimator for the horizon {horizon}, got one for {estimator.reward.shape[0]}")
    mdp, f = promoted(mdp, f)
    S, A, _ = mdp.p.shape
    n, dtype = S * A, mdp.d0.dtype
    estimator = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), estimator)
    reached = f[..., None] * mdp.p
    step = _Step(
        e=jnp.eye(n, dtype=dtype).reshape(S, A, n),
        f=f,
        reached=reached,
        going_on=reached * ~mdp.terminal[None, None],
        decay=estimator.decay,
        whole=estimator.whole,
    )
    number, vector, matrix = jnp.zeros(S, dtype), jnp.zeros((S, n), dtype), jnp.zeros((S, n, n), dtype)
    nothing = _Remaining(C=number, CC=number, Z=vector, W=vector, CZ=vector, CW=vector, ZZ=matrix, ZW=matrix, WW=matrix)
    steps = (estimator.reward, estimator.weight, estimator.baseline, estimator.expected)
    first, _ = jax.lax.scan(lambda after, now: (_back(step, after, now), None), nothing, steps, reverse=True)
    return Moments(mdp.d0 @ first.W, jnp.einsum("s,snm->nm", mdp.d0, first.WW))


def _back(step: _Step, after: _Remaining, now: tuple[jax.Array, ...]) -> _Remaining:
    """Moments of the rest of an episode from a step on, from those after it: the equations of `moments`."""
    u, weight, baseline, expected = now
    e, f, reached, whole, decay = step.e, step.f, step.reached, step.whole, step.decay
    at_pair, beside_pair, ahead, total = step.at_pair, step.beside_pair, step.ahead, step.total
    h = at_pair(expected)  # [S, n], the same whatever the action
    own, passed_on = weight * (u - baseline[..., None]), weight * decay  # a = own + passed_on · C'

    # Expectations split by action: [S, A] or [S, A, n].
    C = jnp.sum(reached * u, -1) + decay * ahead(after.C)
    CC = jnp.sum(reached * u**2, -1) + 2 * decay * ahead(after.C, u) + decay**2 * ahead(after.CC)
    a = jnp.sum(reached * own, -1) + passed_on * ahead(after.C)
    aa = jnp.sum(reached * own**2, -1) + 2 * passed_on * ahead(after.C, own) + passed_on**2 * ahead(after.CC)
    Ca = (
        jnp.sum(reached * u * own, -1)
        + ahead(after.C, passed_on * u + decay * own)
        + passed_on * decay * ahead(after.CC)
    )
    following = whole * ahead(after.Z, u) + ahead(after.W)  # r less h
    r = f[..., None] * h[:, None] + following
    aZ = ahead(after.Z, own) + passed_on * ahead(after.CZ)
    ar = (
        a[..., None] * h[:, None]
        + whole * (ahead(after.Z, u * own) + passed_on * ahead(after.CZ, u))
        + ahead(after.W, own)
        + passed_on * ahead(after.CW)
    )
    Cr = (
        C[..., None] * h[:, None]
        + whole * (ahead(after.Z, u * u) + decay * ahead(after.CZ, u))
        + ahead(after.W, u)
        + decay * ahead(after.CW)
    )
    Z, h_follows = jnp.sum(ahead(after.Z), axis=1), h[..., None] * jnp.sum(following, axis=1)[:, None]
    return _Remaining(
        C=jnp.sum(C, -1),  # (4)
        CC=jnp.sum(CC, -1),
        Z=at_pair(f) + Z,  # (5)
        W=at_pair(a) + jnp.sum(r, axis=1),
        CZ=at_pair(C) + jnp.sum(ahead(after.Z, u) + decay * ahead(after.CZ), axis=1),  # (6)
        CW=at_pair(Ca) + jnp.sum(Cr, axis=1),
        ZZ=beside_pair(f[..., None] * e) + _and_transpose(beside_pair(ahead(after.Z))) + total(after.ZZ),  # (7)
        ZW=beside_pair(a[..., None] * e + r)  # (8)
        + jnp.swapaxes(beside_pair(aZ), -1, -2)
        + Z[..., None] * h[:, None]
        + whole * total(after.ZZ, u)
        + total(after.ZW),
        WW=beside_pair(aa[..., None] * e)  # (9)
        + _and_transpose(beside_pair(ar) + h_follows + whole * total(after.ZW, u))
        + h[..., None] * h[:, None]
        + whole**2 * total(after.ZZ, u * u)
        + total(after.WW),
    )


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
