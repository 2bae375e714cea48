"""Finite Markov decision processes solved exactly: ρ(θ), ∇ρ(θ), v, Q, and the covariance of an estimator of ∇ρ(θ).

Everything here is for a problem given by tables (`FiniteMDP`) with an episode of at most T = `horizon` steps, a
discount γ, and a policy given by its table f [S, A] of probabilities, one row for each state (`probabilities` makes it
of any policy without memory). Time counts from 0: entry t of an array belongs to the lecture's step t + 1. Functions
are pure and compute in the common dtype of tables and policy, float64 where the caller has enabled it; `horizon` is
static.

The covariance of an estimator is computed without sampling. A single-episode estimator is Σ_t of a coefficient times a
score ∇ ln f(X_t)_{A_t}, and the coefficients are linear in what the rest of the episode brings, so their second
moments obey a recursion backwards in time, as v does (`moments`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax.environments.environment import PyTree
from pgjax.environments.finite import FiniteMDP
from pgjax.errors import InputError
from pgjax.policies.distributions import Categorical
from pgjax.policies.policy import Policy, has_memory
from pgjax.rollout import Trajectory

MOST_EPISODES = 10**6  # that `every_episode` lists


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
    """Return the reward of every step (s, a, s'), [S, A, S]."""
    return jnp.broadcast_to(mdp.r if mdp.r.ndim == 3 else mdp.r[..., None], mdp.p.shape)


def promoted(mdp: FiniteMDP, f: jax.Array) -> tuple[FiniteMDP, jax.Array]:
    """Return tables and policy in their common dtype.

    Raises:
        InputError: If the policy's table is not of shape [S, A].
    """
    if f.shape != mdp.p.shape[:2]:
        raise InputError(f"expected a policy's table of shape [S, A] = {mdp.p.shape[:2]}, got {f.shape}")
    dtype = jnp.result_type(f, mdp.p)
    tables = (mdp.d0.astype(dtype), mdp.p.astype(dtype), mdp.r.astype(dtype))
    return FiniteMDP(*tables, mdp.terminal), f.astype(dtype)


def check_horizon(horizon: int) -> None:
    """Raise an InputError unless the horizon is 1 or more."""
    if horizon < 1:
        raise InputError(f"expected a horizon of 1 or more steps, got {horizon}")


def log_probabilities(mdp: FiniteMDP, policy: Policy, params: PyTree) -> jax.Array:
    """Return ln f(s, θ)_a for every state and action, [S, A]; differentiable in params.

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
    """Return f(s, θ)_a for every state and action, [S, A]; errors are those of `log_probabilities`."""
    return jnp.exp(log_probabilities(mdp, policy, params))


def state_distribution(mdp: FiniteMDP, horizon: int, f: jax.Array) -> jax.Array:
    """Return Pr(X_t = s and the episode is not over), [T, S]; arguments and errors are those of `solve`."""
    check_horizon(horizon)
    mdp, f = promoted(mdp, f)

    def forward(d: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return jnp.einsum("s,sa,sap->p", d, f, mdp.p) * ~mdp.terminal, d

    return jax.lax.scan(forward, mdp.d0, length=horizon)[1]


def expected_return(mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any = 1.0) -> jax.Array:
    """Return ρ(θ) = Σ_t γ^{t−1} Σ_s Pr(X_t = s) Σ_a f(s)_a r(s, a), []; differentiable in f.

    Arguments and errors are those of `solve`.

    Example:
        >>> from pgjax.environments.maze import maze_tables
        >>> mdp = maze_tables("#SE#")
        >>> east = jnp.array([[0.0, 1, 0, 0], [0.25, 0.25, 0.25, 0.25]])
        >>> float(expected_return(mdp, 10, east))
        -1.0
    """
    mdp, f = promoted(mdp, f)
    reward = jnp.einsum("sa,sap,sap->s", f, mdp.p, rewards_of(mdp))
    return jnp.dot(_discounts(mdp, horizon, discount), state_distribution(mdp, horizon, f) @ reward)


def solve(mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any = 1.0) -> Solution:
    """Return ρ(θ), the distribution of states, v_t and Q_t, by dynamic programming.

    Args:
        mdp: The problem's tables.
        horizon: T, at least 1.
        f: [S, A], the policy's table.
        discount: γ.

    Raises:
        InputError: If the horizon is below 1, or f is not of shape [S, A].

    Source: Bellman, *Dynamic Programming*, 1957.

    Example:
        >>> from pgjax.environments.maze import maze_tables
        >>> mdp = maze_tables("#S.E#")
        >>> solution = solve(mdp, 2, jnp.full((3, 4), 0.25))  # two steps by chance
        >>> float(solution.rho), solution.values[0, :2].tolist()
        (-2.0, [-2.0, -1.75])
    """
    mdp, f = promoted(mdp, f)
    states = state_distribution(mdp, horizon, f)
    values, action_values = backward_induction(mdp, horizon, lambda Q: jnp.sum(f * Q, axis=-1), discount)
    return Solution(mdp.d0 @ values[0], states, values, action_values)


class Optimum(NamedTuple):
    """What the best that can be done in a finite MDP is worth."""

    rho: jax.Array  # [], ρ* = max over all policies, also those that know t, of E[Σ_t γ^{t−1} R_{t+1}]
    values: jax.Array  # [T, S], v*_t(s), of doing the best from X_t = s on
    action_values: jax.Array  # [T, S, A], Q*_t(s, a), of doing it after A_t = a


def optimal(mdp: FiniteMDP, horizon: int, discount: Any = 1.0) -> Optimum:
    """Return ρ*, v*_t and Q*_t, by v*_t(s) = max_a Q*_t(s, a); arguments are those of `solve`.

    Raises:
        InputError: If the horizon is below 1.

    Source: Bellman, *Dynamic Programming*, 1957.
    """
    values, action_values = backward_induction(mdp, horizon, lambda Q: jnp.max(Q, axis=-1), discount)
    return Optimum(mdp.d0 @ values[0], values, action_values)


def backward_induction(
    mdp: FiniteMDP, horizon: int, value: Callable[[jax.Array], jax.Array], discount: Any = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Return v_t [T, S] and Q_t [T, S, A] by Q_t(s, a) = r(s, a) + γ Σ_s' p(s, a, s') v_{t+1}(s').

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
    """Return ∇ρ(θ), a pytree like params, by automatic differentiation of ρ(θ).

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
    """Return ∇ρ(θ) = Σ_t γ^{t−1} Σ_s Pr(X_t = s) Σ_a ∇f(s)_a Q_t(s, a), a pytree like params.

    Arguments and errors are those of `gradient`.

    Source: Sutton, McAllester, Singh & Mansour, *Policy gradient methods for reinforcement learning with function
    approximation*, 2000.
    """
    f, pull_back = jax.vjp(lambda params: probabilities(mdp, policy, params), params)
    solution = solve(mdp, horizon, f, discount)
    weight = _discounts(mdp, horizon, discount)
    return pull_back(jnp.einsum("t,ts,tsa->sa", weight, solution.states, solution.action_values))[0]


class Episodes(NamedTuple):
    """Every episode τ that a finite MDP of this size can have, N in all; impossible ones have the probability 0."""

    states: jax.Array  # [T, N] int32, x_t
    actions: jax.Array  # [T, N] int32, a_t
    rewards: jax.Array  # [T, N], r_{t+1}, 0 where the episode is over
    running: jax.Array  # [T, N] bool, whether it is not
    dynamics: jax.Array  # [N], d_0(x_1) Π_t p(x_t, a_t, x_{t+1}): the part of Pr(τ) that no policy changes

    def probability(self, f: jax.Array) -> jax.Array:
        """Return Pr(τ), [N], under a policy's table f [S, A]; differentiable in f."""
        chosen = jnp.where(self.running, f[self.states, self.actions], 1)
        return self.dynamics * jnp.prod(chosen, axis=0)

    def trajectory(self) -> Trajectory:
        """Return all of them as a trajectory [T + 1, N], one episode a slot, with the row for final observations."""
        T, N = self.states.shape

        def and_padding(rows: jax.Array) -> jax.Array:
            return jnp.concatenate([rows, jnp.zeros((1, N), rows.dtype)])

        running = and_padding(self.running)
        last = running & ~jnp.roll(running, -1, axis=0)
        return Trajectory(
            and_padding(self.states),
            and_padding(self.actions),
            and_padding(self.rewards),
            terminated=last,
            truncated=jnp.zeros_like(last),
            mask=running,
            time=jnp.broadcast_to(jnp.arange(T + 1, dtype=jnp.int32)[:, None], (T + 1, N)),
            rows=jnp.int32(T),
        )


def every_episode(mdp: FiniteMDP, horizon: int) -> Episodes:
    """Return every episode, for the lecture's Σ_τ Pr(τ) G_1 as it stands.

    Raises:
        InputError: If the horizon is below 1, or there are more than a million: S · (A · S)^T is the number of paths of
            T steps.
    """
    check_horizon(horizon)
    S, A, _ = mdp.p.shape
    magnitude = math.log10(S) + horizon * math.log10(A * S)
    if magnitude > math.log10(MOST_EPISODES) + 1e-9:
        raise InputError(
            f"expected at most {MOST_EPISODES} episodes to list, got {S} · ({A} · {S})^{horizon}, about "
            f"10^{magnitude:.1f}; solve() needs no list"
        )
    N = S * (A * S) ** int(horizon)
    number = np.arange(N)
    x, number = number % S, number // S
    states, actions, rewards, running = [], [], [], []
    dynamics, alive = mdp.d0[x], jnp.ones(N, bool)
    for _ in range(horizon):
        a, number = number % A, number // A
        following, number = number % S, number // S
        first_of_them = (a == 0) & (following == 0)  # an episode that is over has one continuation, not A · S
        dynamics = dynamics * jnp.where(alive, mdp.p[x, a, following], first_of_them)
        states.append(x)
        actions.append(a)
        rewards.append(jnp.where(alive, rewards_of(mdp)[x, a, following], 0))
        running.append(alive)
        alive = alive & ~mdp.terminal[following]
        x = following
    as_int = [jnp.asarray(np.stack(numbers), jnp.int32) for numbers in (states, actions)]
    return Episodes(as_int[0], as_int[1], jnp.stack(rewards), jnp.stack(running), dynamics)


class Estimator(NamedTuple):
    """A single-episode estimator of ∇ρ(θ), by what it multiplies each score with.

    With C_t = reward_t(X_t, A_t, X_{t+1}) + decay · C_{t+1} the credit (0 when the episode is over), the estimator is

        Σ_t [ weight_t (C_t + past_t − baseline_t(X_t, A_t)) ∇ ln f(X_t)_{A_t} + Σ_a expected_t(X_t, a) ∇ ln f(X_t)_a ],

    where past_t is, if `whole`, the sum of the reward_k of the steps before t, else 0.
    """

    reward: jax.Array  # [T, S, A, S]
    decay: Any  # []
    weight: jax.Array  # [T]
    baseline: jax.Array  # [T, S, A]
    expected: jax.Array  # [T, S, A]
    whole: Any = 0.0  # [], 1 if every step is judged by the whole episode


def _estimator(
    mdp: FiniteMDP,
    horizon: int,
    reward: jax.Array,
    baseline: Any,
    *,
    decay: Any = 1.0,
    weight: jax.Array | None = None,
    expected: jax.Array | None = None,
    whole: float = 0.0,
) -> Estimator:
    """Check the horizon and the baseline, and fill in what most estimators have in common."""
    check_horizon(horizon)
    S, A, _ = mdp.p.shape
    dtype = mdp.d0.dtype
    b = jnp.asarray(baseline, dtype)
    if b.shape not in ((), (S,), (horizon, S)):
        raise InputError(f"expected a baseline of shape [], [S] = ({S},) or [T, S] = ({horizon}, {S}), got {b.shape}")
    b = b.reshape((1,) * (2 - b.ndim) + b.shape)[..., None]
    return Estimator(
        jnp.broadcast_to(reward, (horizon, S, A, S)),
        decay,
        jnp.ones(horizon, dtype) if weight is None else weight,
        jnp.broadcast_to(b, (horizon, S, A)),
        jnp.zeros((horizon, S, A), dtype) if expected is None else expected,
        whole,
    )


def _discounts(mdp: FiniteMDP, horizon: int, discount: Any) -> jax.Array:
    """Return γ^{t−1}, [T]."""
    return discount ** jnp.arange(horizon, dtype=mdp.d0.dtype)


def whole_episode_estimator(mdp: FiniteMDP, horizon: int, discount: Any = 1.0, baseline: Any = 0.0) -> Estimator:
    """Return Σ_t (G_1 − b_t(X_t)) ∇ ln f(X_t)_{A_t}, with a baseline b of shape [], [S] or [T, S].

    Raises:
        InputError: If the horizon is below 1, or the baseline of another shape.
    """
    scale = _discounts(mdp, horizon, discount).reshape(-1, 1, 1, 1)
    return _estimator(mdp, horizon, scale * rewards_of(mdp)[None], baseline, whole=1.0)


def reward_to_go_estimator(mdp: FiniteMDP, horizon: int, discount: Any = 1.0, baseline: Any = 0.0) -> Estimator:
    """Return Σ_t γ^{t−1} (G_t − b_t(X_t)) ∇ ln f(X_t)_{A_t}, with a baseline b of shape [], [S] or [T, S].

    Raises:
        InputError: If the horizon is below 1, or the baseline of another shape.
    """
    weight = _discounts(mdp, horizon, discount)
    return _estimator(mdp, horizon, rewards_of(mdp)[None], baseline, decay=discount, weight=weight)


def lambda_return_estimator(
    mdp: FiniteMDP, horizon: int, discount: Any, trace_decay: Any, values: jax.Array
) -> Estimator:
    """Return Σ_t γ^{t−1} (G_t^λ − v_t(X_t)) ∇ ln f(X_t)_{A_t}, with the critic's values v of shape [S] or [T, S].

    G_t^λ = R_{t+1} + γ ((1 − λ) v_{t+1}(X_{t+1}) + λ G_{t+1}^λ), and nothing is to come when the episode is over.

    Raises:
        InputError: If the horizon is below 1.

    Source: see `pgjax.lambda_returns`.
    """
    S = mdp.d0.size
    v = jnp.broadcast_to(values if values.ndim == 2 else values[None], (horizon, S))
    following = jnp.concatenate([v[1:], jnp.zeros((1, S), v.dtype)]) * ~mdp.terminal[None]
    reward = rewards_of(mdp)[None] + discount * (1 - trace_decay) * following[:, None, None, :]
    weight = _discounts(mdp, horizon, discount)
    return _estimator(mdp, horizon, reward, v, decay=discount * trace_decay, weight=weight)


def all_actions_estimator(
    mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any, action_values: jax.Array
) -> Estimator:
    """Return Σ_t γ^{t−1} Σ_a ∇f(X_t)_a Q_t(X_t, a), with the critic's values Q of shape [S, A] or [T, S, A].

    It is for the policy whose table is f, [S, A].

    Raises:
        InputError: If the horizon is below 1.

    Source: see `pgjax.all_actions`.
    """
    weight, Q = _discounts(mdp, horizon, discount), _by_time(mdp, horizon, action_values)
    expected = weight.reshape(-1, 1, 1) * f[None] * Q
    nothing = jnp.zeros((1, 1, 1, 1), mdp.d0.dtype)
    return _estimator(mdp, horizon, nothing, 0.0, weight=jnp.zeros_like(weight), expected=expected)


def action_value_estimator(
    mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any, action_values: jax.Array
) -> Estimator:
    """Return Σ_t γ^{t−1} [(G_t − Q_t(X_t, A_t)) ∇ ln f(X_t)_{A_t} + Σ_a ∇f(X_t)_a Q_t(X_t, a)].

    Arguments and errors are those of `all_actions_estimator`.

    Source: see `pgjax.learned_action_value`.
    """
    expected = all_actions_estimator(mdp, horizon, f, discount, action_values).expected
    return reward_to_go_estimator(mdp, horizon, discount)._replace(
        baseline=_by_time(mdp, horizon, action_values), expected=expected
    )


def _by_time(mdp: FiniteMDP, horizon: int, action_values: jax.Array) -> jax.Array:
    """Return Q [T, S, A] of Q [S, A] or [T, S, A]."""
    Q = action_values if action_values.ndim == 3 else action_values[None]
    return jnp.broadcast_to(Q, (horizon, *mdp.p.shape[:2]))


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
    """Return the exact first and second moments of an estimator on one episode, by dynamic programming.

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
        """Return Σ_a coefficient[s, a] e, [S, n]."""
        return jnp.einsum("sa,san->sn", coefficient, e)

    def beside_pair(vector: jax.Array) -> jax.Array:
        """Return Σ_a e vector[s, a]ᵀ, [S, n, n]."""
        return jnp.einsum("san,sam->snm", e, vector)

    def ahead(x: jax.Array, given: jax.Array = goes_on) -> jax.Array:
        """Return the expectation of what follows, split by action: [S, A, …] of x [S', …]."""
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
    """Return ∇ ln f(s, θ)_a for every state and action, [S A, d], with the d parameters in a row.

    The order of the parameters is that of `jax.flatten_util.ravel_pytree`. Errors are those of `log_probabilities`.
    """
    theta, unravel = ravel_pytree(params)
    return jax.jacobian(lambda theta: log_probabilities(mdp, policy, unravel(theta)).reshape(-1))(theta)


def mean_and_covariance(
    mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, estimator: Estimator
) -> tuple[jax.Array, jax.Array]:
    """Return the expectation [d] and the covariance [d, d] of an estimator of ∇ρ(θ) on one episode; exact.

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


def _second_moment(mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree, estimator: Estimator) -> jax.Array:
    mean, covariance = mean_and_covariance(mdp, horizon, policy, params, estimator)
    return covariance + jnp.outer(mean, mean)


def information(mdp: FiniteMDP, horizon: int, policy: Policy, params: PyTree) -> jax.Array:
    """Return E[∇ ln f(X_t)_{A_t} ∇ ln f(X_t)_{A_t}ᵀ] for each step, 0 where the episode is over, [T, d, d].

    Their sum is the Fisher information of an episode. Arguments and errors are those of `gradient`.
    """
    psi, f = scores(mdp, policy, params), probabilities(mdp, policy, params)
    visits = (state_distribution(mdp, horizon, f)[..., None] * f[None]).reshape(horizon, -1)
    return jnp.einsum("tn,nd,ne->tde", visits, psi, psi)


def return_variances(mdp: FiniteMDP, horizon: int, f: jax.Array, discount: Any = 1.0) -> tuple[jax.Array, jax.Array]:
    """Return the mean and the variance of G_t over episodes, where an episode that is over by t has G_t = 0; [T] each.

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
    """Return the covariance [d, d] of 1/E Σ_i (G_1^i − mean of the others') Σ_t ∇ ln f(X_t^i)_{A_t^i}, for E episodes.

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
    """Return the covariance [d, d] of 1/E Σ_i Σ_t γ^{t−1} (G_t^i − mean of the others' G_t) ∇ ln f(X_t^i)_{A_t^i}.

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
        """Return E[G_u ∇ ln f(X_t)_{A_t}] for all u, [T, d], from E[G_u | X_{t+1}] [T, S] for u > t."""
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
