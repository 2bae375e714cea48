"""How the gold reward goes with the distance from the supervised model, where a learned reward is optimised.

With d = √KL(f ‖ f_SL), and rewards relative to those of f_SL, Gao et al. found R(d) = d (α − β ln d) for reinforcement
learning and R(d) = d (α − β d) for best-of-n sampling: first the learned reward agrees with the gold one, then no more.

Source: Gao, Schulman & Hilton, *Scaling laws for reward model overoptimization*, 2022.
"""

from typing import Any, NamedTuple

import numpy as np

from pgjax.errors import InputError


class Fit(NamedTuple):
    """A law that was fitted."""

    alpha: float
    beta: float
    r_squared: float  # the fraction of the variance of rewards that it explains
    peak: float  # the d at which its reward is largest; infinite if it never falls


def _log(d: np.ndarray) -> np.ndarray:
    """Ln d, and 0 for d = 0, where it is multiplied with 0."""
    return np.log(np.where(d > 0, d, 1))


def _fit(d: Any, reward: Any, second: Any) -> tuple[float, float, float]:
    d, reward = np.asarray(d, float), np.asarray(reward, float)
    if d.ndim != 1 or d.shape != reward.shape or len(d) < 3:
        raise InputError(f"expected 3 or more distances, each with a reward, got shapes {d.shape} and {reward.shape}")
    if not (np.isfinite(d).all() and np.isfinite(reward).all() and (d >= 0).all()):
        raise InputError("expected distances of 0 or more and rewards, all finite, got others")
    terms = np.stack([d, -d * second(d)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(terms, reward, rcond=None)
    left = np.sum((reward - terms @ [alpha, beta]) ** 2)
    total = np.sum((reward - reward.mean()) ** 2)
    return float(alpha), float(beta), float(1 - left / total) if total > 0 else float(left == 0)


def fit_rl(d: Any, reward: Any) -> Fit:
    """Fit R(d) = d (α − β ln d) by least squares; its peak is at e^{α/β − 1}.

    Args:
        d: √KL, in √nats, [n], n ≥ 3.
        reward: Relative to that of the supervised model, [n].

    Raises:
        InputError: If there are fewer, a distance is below 0, or a number is not finite.
    """
    alpha, beta, r_squared = _fit(d, reward, _log)
    return Fit(
        alpha=alpha,
        beta=beta,
        r_squared=r_squared,
        peak=float(np.exp(min(alpha / beta - 1, 700))) if beta > 0 else np.inf,
    )


def fit_best_of_n(d: Any, reward: Any) -> Fit:
    """Fit R(d) = d (α − β d) by least squares; its peak is at α / 2β, or at 0 if it only falls.

    Arguments and errors are those of `fit_rl`.
    """
    alpha, beta, r_squared = _fit(d, reward, lambda d: d)
    return Fit(alpha=alpha, beta=beta, r_squared=r_squared, peak=max(alpha / (2 * beta), 0.0) if beta > 0 else np.inf)


def predict_rl(fit: Fit, d: Any) -> np.ndarray:
    """D (α − β ln d), [...], for distances d = √KL [...] of 0 or more, in √nats."""
    d = np.asarray(d, float)
    return d * (fit.alpha - fit.beta * _log(d))


def predict_best_of_n(fit: Fit, d: Any) -> np.ndarray:
    """D (α − β d), [...], for distances d = √KL [...], in √nats."""
    d = np.asarray(d, float)
    return d * (fit.alpha - fit.beta * d)
