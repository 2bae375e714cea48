"""Policies and value functions: the contract, distributions, tables, networks, and ways of sampling.

What is listed here is public; the rest may change.
"""

from pgjax.policies.adapters import Adapter, frozen, low_rank, merged
from pgjax.policies.base import Policy, ValueFunction, memoryless
from pgjax.policies.convolutional import cnn, cnn_value
from pgjax.policies.defaults import action_value_for, policy_for, value_by_time_for, value_for
from pgjax.policies.distributions import Categorical, Distribution, Gaussian, MultiCategorical
from pgjax.policies.feedforward import mlp, mlp_value
from pgjax.policies.gru import recurrent
from pgjax.policies.normalization import Normalized, normalized, normalized_value
from pgjax.policies.sampling import at_temperature, greedy_in_groups, top_k, top_p
from pgjax.policies.tables import tabular, tabular_by_time, tabular_value, tabular_value_by_time
from pgjax.policies.uniform import random_policy

__all__ = [
    "Adapter",
    "Categorical",
    "Distribution",
    "Gaussian",
    "MultiCategorical",
    "Normalized",
    "Policy",
    "ValueFunction",
    "action_value_for",
    "at_temperature",
    "cnn",
    "cnn_value",
    "frozen",
    "greedy_in_groups",
    "low_rank",
    "memoryless",
    "merged",
    "mlp",
    "mlp_value",
    "normalized",
    "normalized_value",
    "policy_for",
    "random_policy",
    "recurrent",
    "tabular",
    "tabular_by_time",
    "tabular_value",
    "tabular_value_by_time",
    "top_k",
    "top_p",
    "value_by_time_for",
    "value_for",
]
