"""Estimators of the policy gradient: credits, baselines, and how they are put together.

What is listed here is public; the rest may change.
"""

from pgjax.estimators.baselines import (
    Baseline,
    expected_policy_gradient,
    given_action_values,
    given_values,
    learned_action_value,
    learned_value,
    no_baseline,
    running_average,
)
from pgjax.estimators.gradient import policy_gradient
from pgjax.estimators.groups import (
    greedy_of_group,
    group_mean,
    leave_one_out,
    leave_one_out_by_time,
    variance_optimal,
)
from pgjax.estimators.objectives import Objective, clipped_ratio, importance_ratio, score_function, sequence_ratio
from pgjax.estimators.return_scale import normalized_returns
from pgjax.estimators.returns import (
    Credit,
    discounted_lambda_return,
    discounted_reward_to_go,
    lambda_return,
    lambda_returns,
    reward_to_go,
    rewards_to_go,
    whole_episode,
    whole_returns,
)
from pgjax.estimators.scales import Scale, batch_standardized, combined, episode_length, group_deviation

__all__ = [
    "Baseline",
    "Credit",
    "Objective",
    "Scale",
    "batch_standardized",
    "clipped_ratio",
    "combined",
    "discounted_lambda_return",
    "discounted_reward_to_go",
    "episode_length",
    "expected_policy_gradient",
    "given_action_values",
    "given_values",
    "greedy_of_group",
    "group_deviation",
    "group_mean",
    "importance_ratio",
    "lambda_return",
    "lambda_returns",
    "learned_action_value",
    "learned_value",
    "leave_one_out",
    "leave_one_out_by_time",
    "no_baseline",
    "normalized_returns",
    "policy_gradient",
    "reward_to_go",
    "rewards_to_go",
    "running_average",
    "score_function",
    "sequence_ratio",
    "variance_optimal",
    "whole_episode",
    "whole_returns",
]
