"""Objectives: what is ascended, once each step of some episodes has its advantage A_t.

With f the policy at the present parameters θ and f_old the one that drew the actions, a step adds

| objective | its term |
|---|---|
| `score_function` | A_t ln f(X_t)_{A_t} |
| `importance_ratio` | A_t f/f_old |
| `clipped_ratio` | min(A_t f/f_old, A_t clip(f/f_old, 1 − ε, 1 + ε)) |
| `sequence_ratio` | the same of s, the geometric mean of an episode's ratios, in place of f/f_old |

At θ = θ_old all have the same gradient, the policy gradient. They differ once a batch is used for more than one step
(`reinforce(epochs=, minibatches=)`): a score function then goes on as if the actions had been drawn from the policy as
it is now, the ratio corrects for that, and clipping stops what would take an action further than ε from its old
probability.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from pgjax.errors import InputError
from pgjax.trajectory import Trajectory


class Terms(NamedTuple):
    """What each of some steps adds to an objective."""

    ascended: jax.Array  # [T, E], 0 in padding
    notes: Mapping[str, jax.Array] = {}  # what is worth knowing of each step, [T, E], by name; their mean is reported


class Weigh(Protocol):
    """Advantages [T, E] in place of advantages, from ln f/f_old [T, E] of whole episodes at the present parameters."""

    def __call__(self, log_ratio: jax.Array, trajectory: Trajectory, advantage: jax.Array, /) -> jax.Array: ...


class OfEpisodes(NamedTuple):
    """An objective that looks at whole episodes first.

    `weigh(log_ratio, trajectory, advantage) -> [T, E]` makes other advantages, which are then constants to `terms`.
    """

    weigh: Weigh
    terms: Any  # an objective of steps

    def __call__(self, f: Any, rows: Trajectory, advantage: jax.Array) -> Terms:
        return self.terms(f, rows, advantage)


class Objective(Protocol):
    """The terms of some steps, [T, E], from f(X_t, θ), the steps as they were played, and their advantages [T, E].

    Steps with `mask` false add nothing. A term depends on its own step alone, for the steps may come from anywhere in
    the episodes.
    """

    def __call__(self, f: Any, rows: Trajectory, advantage: jax.Array, /) -> Terms: ...


def _score(f: Any, rows: Trajectory, advantage: jax.Array) -> Terms:
    return Terms(advantage * jnp.where(rows.mask, f.log_prob(rows.action), 0))  # −∞ in padding, perhaps


def score_function() -> Objective:
    """The objective A_t ln f(X_t)_{A_t}, whose gradient is REINFORCE's.

    Source: Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement learning*, 1992.
    """
    return _score


def log_ratios(f: Any, rows: Trajectory) -> jax.Array:
    """The logarithms ln f/f_old of the actions, [T, E], 0 in padding; ln f_old was noted when they were drawn."""
    return jnp.where(rows.mask, f.log_prob(rows.action) - rows.log_prob, 0)


def _moved(log_ratio: jax.Array) -> jax.Array:
    """f/f_old − 1 − ln f/f_old: never negative, and KL(f_old ‖ f) in expectation over actions of f_old.

    Source: Schulman, *Approximating KL divergence*, 2020.
    """
    return jnp.expm1(log_ratio) - log_ratio


def importance_ratio() -> Objective:
    """The objective A_t f/f_old, whose gradient at any θ is one of actions that were drawn from f_old.

    States are still those that f_old came to. It notes `approx_kl`, an estimate of KL(f_old ‖ f) in nats a step.

    Source: Kakade & Langford, *Approximately optimal approximate reinforcement learning*, 2002.
    """

    def terms(f: Any, rows: Trajectory, advantage: jax.Array) -> Terms:
        log_ratio = log_ratios(f, rows)
        return Terms(advantage * jnp.exp(log_ratio), {"approx_kl": _moved(log_ratio)})

    return terms


def _clipped(ratio: jax.Array, advantage: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """The lesser of a ratio's and of the clipped ratio's gain, and where it is the latter."""
    gain, bounded = ratio * advantage, jnp.clip(ratio, 1 - epsilon, 1 + epsilon) * advantage
    return jnp.minimum(gain, bounded), bounded < gain


def clipped_ratio(epsilon: float = 0.2) -> Objective:
    """PPO's objective: A_t f/f_old, but no gain beyond a ratio from 1 − ε to 1 + ε.

    It notes `approx_kl` as `importance_ratio` does, and `clip_fraction`, how many steps gain nothing any more.

    Args:
        epsilon: ε, above 0.

    Raises:
        InputError: If ε is not above 0.

    Source: Schulman et al., *Proximal policy optimization algorithms*, 2017, equation 7.

    Example:
        >>> gain, clipped = _clipped(jnp.array([0.5, 1.1, 1.5]), jnp.array([-1.0, 1.0, 1.0]), 0.2)
        >>> [round(float(g), 1) for g in gain], clipped.tolist()
        ([-0.8, 1.1, 1.2], [True, False, True])
    """
    if not epsilon > 0:
        raise InputError(f"expected a clipping range ε above 0, got {epsilon}")

    def terms(f: Any, rows: Trajectory, advantage: jax.Array) -> Terms:
        log_ratio = log_ratios(f, rows)
        gain, clipped = _clipped(jnp.exp(log_ratio), advantage, epsilon)
        notes = {"approx_kl": _moved(log_ratio), "clip_fraction": clipped.astype(gain.dtype)}
        return Terms(gain, notes)

    return terms


def sequence_ratio(epsilon: float = 3e-4) -> Objective:
    """GSPO's objective: A_t s, with s = exp(1/n Σ_t ln f/f_old) of an episode of n steps, clipped to 1 ± ε.

    Its gradient is A_t s ∇ ln f, or 0 where the clipped s would gain less: an episode counts with all its steps, or not
    at all. It takes one episode a slot; the mean over steps that the source has before it is the scale
    `episode_length`. It notes `approx_kl` as `importance_ratio` does.

    Args:
        epsilon: ε, above 0; small, as s is a mean over steps.

    Raises:
        InputError: If ε is not above 0.

    Source: Zheng et al., *Group sequence policy optimization*, 2025, equations 5 and 7, and 14 where advantages differ
    from step to step.
    """
    if not epsilon > 0:
        raise InputError(f"expected a clipping range ε above 0, got {epsilon}")

    def weigh(log_ratio: jax.Array, trajectory: Trajectory, advantage: jax.Array) -> jax.Array:
        steps = jnp.maximum(jnp.sum(trajectory.mask, axis=0), 1)
        ratio = jnp.exp(jnp.sum(jnp.where(trajectory.mask, log_ratio, 0), axis=0) / steps)[None]
        _, clipped = _clipped(ratio, advantage, epsilon)
        return jnp.where(clipped, 0, ratio * advantage)

    def terms(f: Any, rows: Trajectory, advantage: jax.Array) -> Terms:
        return _score(f, rows, advantage)._replace(notes={"approx_kl": _moved(log_ratios(f, rows))})

    return OfEpisodes(weigh, terms)
