"""Exact results for finite problems: values, gradients, covariances, and estimators that are held to them.

What is listed here is public; the rest may change.
"""

from pgjax.exact import compounding
from pgjax.exact.covariance import Moments, mean_and_covariance, moments, scores
from pgjax.exact.episodes import Episodes, every_episode
from pgjax.exact.estimators import (
    Estimator,
    action_value_estimator,
    expected_policy_gradient_estimator,
    lambda_return_estimator,
    reward_to_go_estimator,
    whole_episode_estimator,
)
from pgjax.exact.leave_one_out import (
    information,
    leave_one_out_by_time_covariance,
    leave_one_out_covariance,
    return_variances,
)
from pgjax.exact.solution import (
    Optimum,
    Solution,
    backward_induction,
    expected_return,
    gradient,
    log_probabilities,
    optimal,
    policy_gradient_theorem,
    probabilities,
    solve,
    state_distribution,
)
from pgjax.exact.verification import Candidate, Verdict, broken, largest_z_by_chance, unbiased, verify

__all__ = [
    "Candidate",
    "Episodes",
    "Estimator",
    "Moments",
    "Optimum",
    "Solution",
    "Verdict",
    "action_value_estimator",
    "backward_induction",
    "broken",
    "compounding",
    "every_episode",
    "expected_policy_gradient_estimator",
    "expected_return",
    "gradient",
    "information",
    "lambda_return_estimator",
    "largest_z_by_chance",
    "leave_one_out_by_time_covariance",
    "leave_one_out_covariance",
    "log_probabilities",
    "mean_and_covariance",
    "moments",
    "optimal",
    "policy_gradient_theorem",
    "probabilities",
    "return_variances",
    "reward_to_go_estimator",
    "scores",
    "solve",
    "state_distribution",
    "unbiased",
    "verify",
    "whole_episode_estimator",
]
