"""What entropy does to an objective and to steps from one episode, over all episodes that can happen: exact."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import exact
from pgjax.environments import FiniteMDP


def listed(mdp: FiniteMDP, T: int) -> exact.Episodes:
    """The episodes that can happen."""
    every = exact.every_episode(mdp, T)
    possible = np.flatnonzero(np.asarray(every.dynamics) > 0)
    return exact.Episodes(*(array[..., possible] for array in every))


def softened(mdp: FiniteMDP, theta: jax.Array, weight: Any) -> tuple[FiniteMDP, jax.Array]:
    """The problem in which an action also pays λ ln 1/f, and the policy f [S, A] with the logits θ."""
    log_f = jax.nn.log_softmax(theta)
    return mdp._replace(r=mdp.r - weight * log_f), jnp.exp(log_f)


def objective(mdp: FiniteMDP, T: int, theta: jax.Array, weight: Any) -> jax.Array:
    """ρ(θ) + λ E[Σ_t ln 1/f(X_t)_{A_t}], []."""
    soft, f = softened(mdp, theta, weight)
    return exact.expected_return(soft, T, f)


def estimates(mdp: FiniteMDP, episodes: exact.Episodes, theta: jax.Array, weight: Any) -> tuple[jax.Array, jax.Array]:
    """For each of N episodes its probability [N], and the gradient that is estimated from it, [N, S, A].

    It is Σ_t (G_t − v(X_t)) ∇ ln f(X_t)_{A_t}, of which G_t and v count what entropy pays.
    """
    soft, f = softened(mdp, theta, weight)
    values = exact.solve(soft, len(episodes.states), f).values
    x, a, on = episodes.states, episodes.actions, episodes.running
    to_go = jnp.cumsum(jnp.where(on, soft.r[x, a], 0)[::-1], 0)[::-1]
    advantage = jnp.where(on, to_go - jnp.take_along_axis(values, x, 1), 0)
    taken = jax.nn.one_hot(x, f.shape[0])[..., None] * (jax.nn.one_hot(a, f.shape[1]) - f[x])[:, :, None]
    return episodes.probability(f), jnp.einsum("tn,tnsa->nsa", advantage, taken)


def improving(mdp: FiniteMDP, episodes: exact.Episodes, theta: jax.Array, weight: Any, eta: Any) -> jax.Array:
    """The probabilities that a step from one episode improves the objective, and that it improves ρ, [2]."""
    T = len(episodes.states)
    probability, step = estimates(mdp, episodes, theta, weight)

    def improved(weight: Any) -> jax.Array:
        after = jax.vmap(lambda step: objective(mdp, T, theta + eta * step, weight))(step)
        return probability @ (after > objective(mdp, T, theta, weight) + 1e-14)

    return jnp.stack([improved(weight), improved(0.0)])
