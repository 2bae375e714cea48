"""The covariance of the leave-one-out estimators, whose episodes depend on each other."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax.environments.finite_mdp import FiniteMDP
from pgjax.errors import InputError
from pgjax.exact.covariance import mean_and_covariance, scores
from pgjax.exact.estimators import Estimator, reward_to_go_estimator, whole_episode_estimator
from pgjax.exact.solution import _discounts, probabilities, promoted, rewards_of, solve, state_distribution
from pgjax.policies.base import Policy
from pgjax.trees import PyTree


def _second_moment(mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, estimator: Estimator) -> jax.Array:
    mean, covariance = mean_and_covariance(mdp, horizon, policy, params, estimator)
    return covariance + jnp.outer(mean, mean)


def information(mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree) -> jax.Array:
    """E[∇ ln f(X_t)_{A_t} ∇ ln f(X_t)_{A_t}ᵀ] for each step, 0 where the episode is over, [T, d, d].

    Their sum is the Fisher information of an episode. Arguments and errors are those of `gradient`.
    """
    psi, f = scores(mdp, policy, params), probabilities(mdp, policy, params)
    visits = (state_distribution(mdp, horizon, f)[..., None] * f[None]).reshape(horizon, -1)
    return jnp.einsum("tn,nd,ne->tde", visits, psi, psi)


def return_variances(mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any = 1.0) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of G_t over episodes, where an episode that is over by t has G_t = 0; [T] each.

    Entry 0 is E[G_1] = ρ(θ) and Var[G_1]. Arguments and errors are those of `solve`.

    Source: Sobel, *The variance of discounted Markov decision processes*, 1982.
    """
    mdp, f = promoted(mdp, f)
    solution, reward = solve(mdp, horizon, f, discount), rewards_of(mdp)
    reached = f[..., None] * mdp.p

    def backward(after: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        first, second = (jnp.where(mdp.terminal, 0, moment)[None, None] for moment in after)
        squares = reward**2 + 2 * discount * reward * first + discount**2 * second
        now = (jnp.sum(reached * (reward + discount * first), (1, 2)), jnp.sum(reached * squares, (1, 2)))
        return now, now[1]

    nothing = jnp.zeros_like(mdp.d0)
    _, squares = jax.lax.scan(backward, (nothing, nothing), length=horizon, reverse=True)
    mean = jnp.sum(solution.states * solution.values, axis=1)
    return mean, jnp.sum(solution.states * squares, axis=1) - mean**2


def leave_one_out_covariance(
    mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, episodes: int, discount: Any = 1.0
) -> jax.Array:
    """The covariance [d, d] of 1/E Σ_i (G_1^i − mean of the others') Σ_t ∇ ln f(X_t^i)_{A_t^i}, for E episodes.

    The mean of the E − 1 others is independent of episode i, and scores have mean zero; what is left between two
    episodes is that each is in the other's baseline. Other arguments are those of `gradient`.

    Raises:
        InputError: If there are less than two episodes; see `gradient`.
    """
    check_pair(episodes)
    f = probabilities(mdp, policy, params)
    mean, variance = return_variances(mdp, horizon, f, discount)
    judged = whole_episode_estimator(mdp, horizon, discount, mean[0])
    gradient, _ = mean_and_covariance(mdp, horizon, policy, params, judged)
    fisher = jnp.sum(information(mdp, horizon, policy, params), axis=0)
    one = _second_moment(mdp, horizon, policy, params, judged) + variance[0] / (episodes - 1) * fisher
    two = (1 + 1 / (episodes - 1) ** 2) * jnp.outer(gradient, gradient)
    return one / episodes + (episodes - 1) / episodes * two - jnp.outer(gradient, gradient)


def leave_one_out_by_time_covariance(
    mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, episodes: int, discount: Any = 1.0
) -> jax.Array:
    """The covariance [d, d] of 1/E Σ_i Σ_t γ^{t−1} (G_t^i − mean of the others' G_t) ∇ ln f(X_t^i)_{A_t^i}.

    An episode that is over by t has G_t = 0. Arguments and errors are those of `leave_one_out_covariance`.
    """
    check_pair(episodes)
    f = probabilities(mdp, policy, params)
    psi = scores(mdp, policy, params)
    solution = solve(mdp, horizon, f, discount)
    mean, variance = return_variances(mdp, horizon, f, discount)
    weight = _discounts(mdp, horizon, discount)
    judged = reward_to_go_estimator(mdp, horizon, discount)._replace(
        baseline=jnp.broadcast_to(mean.reshape(-1, 1, 1), (horizon, *f.shape))
    )
    gradient, _ = mean_and_covariance(mdp, horizon, policy, params, judged)
    fisher = jnp.einsum("t,tde->de", weight**2 * variance, information(mdp, horizon, policy, params))
    one = _second_moment(mdp, horizon, policy, params, judged) + fisher / (episodes - 1)

    def backward(following: jax.Array, now: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        """E[G_u ∇ ln f(X_t)_{A_t}] for all u, [T, d], from E[G_u | X_{t+1}] [T, S] for u > t."""
        t, states, values, action_values = now
        u = jnp.arange(horizon)[:, None]
        later = jnp.einsum("sap,up->usa", mdp.p, jnp.where(mdp.terminal[None], 0, following))
        earlier = discount ** jnp.maximum(t - u, 0)[..., None] * action_values[None]  # what came before t has no part
        expected = jnp.where(u[..., None] > t, later, earlier)
        towards = jnp.einsum("s,sa,usa,sad->ud", states, f, expected, psi.reshape(*f.shape, -1))
        return jnp.where(u > t, jnp.einsum("sa,usa->us", f, later), jnp.where(u == t, values[None], 0)), towards

    steps = (jnp.arange(horizon), solution.states, solution.values, solution.action_values)
    _, K = jax.lax.scan(backward, jnp.zeros_like(solution.values), steps, reverse=True)  # [t, u, d]
    K = weight[:, None, None] * K
    swapped = jnp.einsum("tud,ute->de", K, K) / (episodes - 1) ** 2
    two = jnp.outer(gradient, gradient) + swapped
    return one / episodes + (episodes - 1) / episodes * two - jnp.outer(gradient, gradient)


def check_pair(episodes: int) -> None:
    """Raise an InputError unless there are two episodes or more."""
    if episodes < 2:
        raise InputError(f"expected 2 or more episodes an update for a leave-one-out baseline, got {episodes}")
