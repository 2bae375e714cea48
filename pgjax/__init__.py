"""Policy gradients in JAX: whole REINFORCE runs, compiled and vmapped over seeds and hyper-parameters.

What is listed here is public; the rest may change.
"""

from pgjax import compounding, exact, rlhf
from pgjax.algorithm import Algorithm, pretrained, run_keys, train
from pgjax.baselines import (
    Baseline,
    all_actions,
    given_action_values,
    given_values,
    learned_action_value,
    learned_value,
    leave_one_out,
    leave_one_out_by_time,
    no_baseline,
    running_average,
)
from pgjax.dagger import dagger, exponential_mixture, linear_mixture, mixture
from pgjax.demonstrations import Demonstrations, load_demonstrations, save_demonstrations
from pgjax.environments.brax import from_brax
from pgjax.environments.cooling import Cooling, cooling, pid_controller
from pgjax.environments.environment import Box, Discrete, Environment, Episode, Score, Step, check_environment
from pgjax.environments.finite import FiniteMDP, finite, tables
from pgjax.environments.gymnax import from_gymnax, gymnax_names
from pgjax.environments.kl_penalty import kl_penalty
from pgjax.environments.maze import maze, maze_tables, partial_maze, t_maze
from pgjax.environments.navigation import navigation, navigation_controller
from pgjax.environments.noise import noisy_actions
from pgjax.environments.recommendation import (
    hindsight,
    importance_sampling,
    interests,
    recommendation,
    recommendation_controller,
)
from pgjax.errors import InputError
from pgjax.experts import (
    Expert,
    acrobot_controller,
    cartpole_controller,
    continuous_mountain_car_controller,
    dead_reckoning,
    mountain_car_controller,
    optimal_expert,
    pendulum_controller,
    scripted,
    scripted_with_memory,
    shortest_paths,
    sign_follower,
    trained,
)
from pgjax.imitation import (
    behaviour_cloning,
    cross_entropy,
    demonstrate,
    forward_kl,
    labelled,
    negative_log_likelihood,
    reverse_kl,
)
from pgjax.plotting import compare_learning_curves, learning_curves
from pgjax.policies.cnn import cnn, cnn_value
from pgjax.policies.distributions import Categorical, Distribution, Gaussian
from pgjax.policies.mlp import mlp
from pgjax.policies.policy import Policy, memoryless, policy_for
from pgjax.policies.recurrent import recurrent
from pgjax.policies.sampling import at_temperature, top_k, top_p
from pgjax.policies.tabular import tabular, tabular_by_time
from pgjax.policies.uniform import random_policy
from pgjax.policies.value import ValueFunction, action_value_for, mlp_value, tabular_value, value_for
from pgjax.program import over_runs
from pgjax.reinforce import policy_gradient, reinforce
from pgjax.rendering import play, save_film, save_picture, save_pictures
from pgjax.results import load_params, read
from pgjax.returns import (
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
from pgjax.rollout import Trajectory, collect, evaluate
from pgjax.statistics import (
    confidence_interval,
    failed,
    final_return,
    interquartile_mean,
    mean_interval,
    proportion_interval,
    summarize,
    tolerance_interval,
)
from pgjax.sweep import sweep
from pgjax.verification import Candidate, Verdict, check_policy, largest_z_by_chance, verify

__all__ = [
    "Algorithm",
    "Baseline",
    "Box",
    "Candidate",
    "Categorical",
    "Cooling",
    "Credit",
    "Demonstrations",
    "Discrete",
    "Distribution",
    "Environment",
    "Episode",
    "Expert",
    "FiniteMDP",
    "Gaussian",
    "InputError",
    "Policy",
    "Score",
    "Step",
    "Trajectory",
    "ValueFunction",
    "Verdict",
    "acrobot_controller",
    "action_value_for",
    "all_actions",
    "at_temperature",
    "behaviour_cloning",
    "cartpole_controller",
    "check_environment",
    "check_policy",
    "cnn",
    "cnn_value",
    "collect",
    "compare_learning_curves",
    "compounding",
    "confidence_interval",
    "continuous_mountain_car_controller",
    "cooling",
    "cross_entropy",
    "dagger",
    "dead_reckoning",
    "demonstrate",
    "discounted_lambda_return",
    "discounted_reward_to_go",
    "evaluate",
    "exact",
    "exponential_mixture",
    "failed",
    "final_return",
    "finite",
    "forward_kl",
    "from_brax",
    "from_gymnax",
    "given_action_values",
    "given_values",
    "gymnax_names",
    "hindsight",
    "importance_sampling",
    "interests",
    "interquartile_mean",
    "kl_penalty",
    "labelled",
    "lambda_return",
    "lambda_returns",
    "largest_z_by_chance",
    "learned_action_value",
    "learned_value",
    "learning_curves",
    "leave_one_out",
    "leave_one_out_by_time",
    "linear_mixture",
    "load_demonstrations",
    "load_params",
    "maze",
    "maze_tables",
    "mean_interval",
    "memoryless",
    "mixture",
    "mlp",
    "mlp_value",
    "mountain_car_controller",
    "navigation",
    "navigation_controller",
    "negative_log_likelihood",
    "no_baseline",
    "noisy_actions",
    "optimal_expert",
    "over_runs",
    "partial_maze",
    "pendulum_controller",
    "pid_controller",
    "play",
    "policy_for",
    "policy_gradient",
    "pretrained",
    "proportion_interval",
    "random_policy",
    "read",
    "recommendation",
    "recommendation_controller",
    "recurrent",
    "reinforce",
    "reverse_kl",
    "reward_to_go",
    "rewards_to_go",
    "rlhf",
    "run_keys",
    "running_average",
    "save_demonstrations",
    "save_film",
    "save_picture",
    "save_pictures",
    "scripted",
    "scripted_with_memory",
    "shortest_paths",
    "sign_follower",
    "summarize",
    "sweep",
    "t_maze",
    "tables",
    "tabular",
    "tabular_by_time",
    "tabular_value",
    "tolerance_interval",
    "top_k",
    "top_p",
    "train",
    "trained",
    "value_for",
    "verify",
    "whole_episode",
    "whole_returns",
]
