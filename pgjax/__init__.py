"""Policy gradients in JAX: whole REINFORCE runs, compiled and vmapped over seeds and hyper-parameters.

What is listed here is public; the rest may change.
"""

from pgjax.algorithm import Algorithm, run_keys, train
from pgjax.baselines import Baseline, leave_one_out, leave_one_out_by_time, no_baseline, running_average
from pgjax.environments.environment import Box, Discrete, Environment, Step
from pgjax.environments.finite import FiniteMDP, finite, tables
from pgjax.environments.gymnax import from_gymnax, gymnax_names
from pgjax.environments.maze import maze, maze_tables
from pgjax.errors import InputError
from pgjax.policies.distributions import Categorical, Distribution, Gaussian
from pgjax.policies.mlp import mlp
from pgjax.policies.policy import Policy, memoryless, policy_for
from pgjax.policies.tabular import tabular
from pgjax.reinforce import reinforce
from pgjax.returns import Credit, discounted_reward_to_go, reward_to_go, whole_episode
from pgjax.rollout import Trajectory, collect

__all__ = [
    "Algorithm",
    "Baseline",
    "Box",
    "Categorical",
    "Credit",
    "Discrete",
    "Distribution",
    "Environment",
    "FiniteMDP",
    "Gaussian",
    "InputError",
    "Policy",
    "Step",
    "Trajectory",
    "collect",
    "discounted_reward_to_go",
    "finite",
    "from_gymnax",
    "gymnax_names",
    "leave_one_out",
    "leave_one_out_by_time",
    "maze",
    "maze_tables",
    "memoryless",
    "mlp",
    "no_baseline",
    "policy_for",
    "reinforce",
    "reward_to_go",
    "run_keys",
    "running_average",
    "tables",
    "tabular",
    "train",
    "whole_episode",
]
