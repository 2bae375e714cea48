"""Finite Markov decision processes solved exactly: ρ(θ), ∇ρ(θ), v, Q, and the best that can be done.

Everything here is for a problem given by tables (`FiniteMDP`) with an episode of at most T = `horizon` steps, a
discount γ, and a policy given by its table f [S, A] of probabilities, one row for each state (`probabilities` makes it
of any policy without memory). Time counts from 0: entry t of an array belongs to the lecture's step t + 1. Functions
are pure and compute in the common dtype of tables and policy, float64 where the caller has enabled it; `horizon` is
static. The other files of this room keep to that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.checks import check_horizon
from pgjax.environments.finite_mdp import FiniteMDP
from pgjax.errors import InputError
from pgjax.policies.base import Policy, has_memory
from pgjax.policies.distributions import Categorical
from pgjax.trees import PyTree


class Solution(NamedTuple):
    """What dynamic programming knows of a policy in a finite MDP."""

    rho: jax.Array  # [], ρ(θ) = E[Σ_t γ^{t−1} R_{t+1}]
    states: jax.Array  # [T, S], Pr(X_t = s and the episode is not over)
    values: jax.Array  # [T, S], v_t(s) = E[G_t | X_t = s]
    action_values: jax.Array  # [T, S, A], Q_t(s, a) = E[G_t | X_t = s, A_t = a]

    @property
    def advantages(self) -> jax.Array:
        """Q_t(s, a) − v_t(s), [T, S, A]."""
        return self.action_values - self.values[..., None]

    @property
    def mean_values(self) -> jax.Array:
        """The best guess of G_t that does not know t: v_t(s) averaged over the times at which s is visited, [S].

        Times count alike, whatever γ is: it is what regression on the steps of many episodes comes to.
        """
        return jnp.einsum("ts,ts->s", self._when_visited, self.values)

    @property
    def mean_action_values(self) -> jax.Array:
        """The same of Q_t(s, a), [S, A]."""
        return jnp.einsum("ts,tsa->sa", self._when_visited, self.action_values)

    @property
    def _when_visited(self) -> jax.Array:
        """When a state is visited, as a distribution over times for each state, [T, S]; 0 if it never is."""
        visits = jnp.sum(self.states, axis=0, keepdims=True)
        return self.states / jnp.where(visits > 0, visits, 1)


def rewards_of(mdp: FiniteMDP) -> jax.Array:
    """The reward of every step (s, a, s'), [S, A, S]."""
    return jnp.broadcast_to(mdp.r if mdp.r.ndim == 3 else mdp.r[..., None], mdp.p.shape)


def promoted(mdp: FiniteMDP, f: jax.Array) -> tuple[FiniteMDP, jax.Array]:
    """Tables and policy in their common dtype.

    Raises:
        InputError: If the policy's table is not of shape [S, A].
    """
    if f.shape != mdp.p.shape[:2]:
        raise InputError(f"expected a policy's table of shape [S, A] = {mdp.p.shape[:2]}, got {f.shape}")
    dtype = jnp.result_type(f, mdp.p)
    tables = (mdp.d0.astype(dtype), mdp.p.astype(dtype), mdp.r.astype(dtype))
    return FiniteMDP(*tables, mdp.terminal), f.astype(dtype)


def log_probabilities(mdp: FiniteMDP, policy: Policy, params: PyTree) -> jax.Array:
    """Ln f(s, θ)_a for every state and action, [S, A]; differentiable in params.

    Raises:
        InputError: If the policy has a memory (its actions then depend on more than the state), or chooses from another
            number of actions.
    """
    if has_memory(policy):
        raise InputError("expected a policy without memory for an exact computation, got one with memory")
    S, A, _ = mdp.p.shape
    _, distribution = policy.step(params, policy.memory(S), jnp.arange(S))
    if isinstance(distribution, Categorical) and distribution.logits.shape != (S, A):
        raise InputError(f"expected a policy with {A} actions, got one with {distribution.logits.shape[-1]}")
    return jax.vmap(lambda a: distribution.log_prob(jnp.full(S, a, jnp.int32)), out_axes=1)(jnp.arange(A))


def probabilities(mdp: FiniteMDP, policy: Policy, params: PyTree) -> jax.Array:
    """F(s, θ)_a for every state and action, [S, A]; errors are those of `log_probabilities`."""
    return jnp.exp(log_probabilities(mdp, policy, params))


def state_distribution(mdp: FiniteMDP, horizon: int, f: jax.Array) -> jax.Array:
    """Pr(X_t = s and the episode is not over), [T, S]; arguments and errors are those of `solve`."""
    check_horizon(horizon)
    mdp, f = promoted(mdp, f)

    def forward(d: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return jnp.einsum("s,sa,sap->p", d, f, mdp.p) * ~mdp.terminal, d

    return jax.lax.scan(forward, mdp.d0, length=horizon)[1]


def expected_return(mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any = 1.0) -> jax.Array:
    """ρ(θ) = Σ_t γ^{t−1} Σ_s Pr(X_t = s) Σ_a f(s)_a r(s, a), []; differentiable in f.

    Arguments and errors are those of `solve`.

    Example:
        >>> from pgjax.environments.mazes import maze_tables
        >>> mdp = maze_tables("#SE#")
        >>> east = jnp.array([[0.0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]])
        >>> float(expected_return(mdp, 10, east))
        -1.0
    """
    mdp, f = promoted(mdp, f)
    reward = jnp.einsum("sa,sap,sap->s", f, mdp.p, rewards_of(mdp))
    return jnp.dot(_discounts(mdp, horizon, discount), state_distribution(mdp, horizon, f) @ reward)


def solve(mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any = 1.0) -> Solution:
    """ρ(θ), the distribution of states, v_t and Q_t, by dynamic programming.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        f: [S, A], the policy's table.
        discount: γ.

    Raises:
        InputError: If the horizon is below 1, or f is not of shape [S, A].

    Source: Bellman, *Dynamic Programming*, 1957.

    Example:
        >>> from pgjax.environments.mazes import maze_tables
        >>> mdp = maze_tables("#S.E#")
        >>> solution = solve(mdp, 2, jnp.full((3, 4), 0.25))  # two steps by chance
        >>> float(solution.rho), solution.values[0, :2].tolist()
        (-2.0, [-2.0, -1.75])
    """
    mdp, f = promoted(mdp, f)
    states = state_distribution(mdp, horizon, f)
    values, action_values = backward_induction(mdp, horizon, lambda Q: jnp.sum(f * Q, axis=-1), discount)
    return Solution(rho=mdp.d0 @ values[0], states=states, values=values, action_values=action_values)


class Optimum(NamedTuple):
    """What the best that can be done in a finite MDP is worth."""

    rho: jax.Array  # [], ρ* = max over all policies, also those that know t, of E[Σ_t γ^{t−1} R_{t+1}]
    values: jax.Array  # [T, S], v*_t(s), of doing the best from X_t = s on
    action_values: jax.Array  # [T, S, A], Q*_t(s, a), of doing it after A_t = a


def optimal(mdp: FiniteMDP, horizon: int, discount: Any = 1.0) -> Optimum:
    """ρ*, v*_t and Q*_t, by v*_t(s) = max_a Q*_t(s, a); arguments are those of `solve`.

    Raises:
        InputError: If the horizon is below 1.

    Source: Bellman, *Dynamic Programming*, 1957.
    """
    values, action_values = backward_induction(mdp, horizon, lambda Q: jnp.max(Q, axis=-1), discount)
    return Optimum(mdp.d0 @ values[0], values, action_values)


def backward_induction(
    mdp: FiniteMDP, horizon: int, value: Callable[[jax.Array], jax.Array], discount: Any = 1.0
) -> tuple[jax.Array, jax.Array]:
    """V_t [T, S] and Q_t [T, S, A] by Q_t(s, a) = r(s, a) + γ Σ_s' p(s, a, s') v_{t+1}(s').

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1; nothing is worth anything after it.
        value: Q_t [S, A] -> v_t [S].
        discount: γ.

    Raises:
        InputError: If the horizon is below 1.
    """
    check_horizon(horizon)
    expected_reward = jnp.sum(mdp.p * rewards_of(mdp), axis=-1)

    def backward(following: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        Q = expected_reward + discount * mdp.p @ jnp.where(mdp.terminal, 0, following)
        v = value(Q)
        return v, (v, Q)

    return jax.lax.scan(backward, jnp.zeros_like(mdp.d0), length=horizon, reverse=True)[1]


def gradient(mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, discount: Any = 1.0) -> PyTree:
    """∇ρ(θ), a pytree like params, by automatic differentiation of ρ(θ).

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        policy: f, without memory.
        params: θ, where the gradient is taken.
        discount: γ.

    Raises:
        InputError: If the horizon is below 1; see `log_probabilities`.
    """
    return jax.grad(lambda params: expected_return(mdp, horizon, probabilities(mdp, policy, params), discount))(params)


def policy_gradient_theorem(
    mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, discount: Any = 1.0
) -> PyTree:
    """∇ρ(θ) = Σ_t γ^{t−1} Σ_s Pr(X_t = s) Σ_a ∇f(s)_a Q_t(s, a), a pytree like params.

    Arguments and errors are those of `gradient`.

    Source: Sutton, McAllester, Singh & Mansour, *Policy gradient methods for reinforcement learning with function
    approximation*, 2000.
    """
    f, pull_back = jax.vjp(lambda params: probabilities(mdp, policy, params), params)
    solution = solve(mdp, horizon, f, discount)
    weight = _discounts(mdp, horizon, discount)
    return pull_back(jnp.einsum("t,ts,tsa->sa", weight, solution.states, solution.action_values))[0]


def _discounts(mdp: FiniteMDP, horizon: int, discount: Any) -> jax.Array:
    """γ^{t−1}, [T]."""
    return discount ** jnp.arange(horizon, dtype=mdp.d0.dtype)
