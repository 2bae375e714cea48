"""Imitation learning: experts, their demonstrations, behaviour cloning and DAgger.

What is listed here is public; the rest may change.
"""

from pgjax.imitation.aggregation import dagger, exponential_mixture, linear_mixture, mixture
from pgjax.imitation.cloning import behaviour_cloning
from pgjax.imitation.controllers import (
    acrobot_controller,
    cartpole_controller,
    continuous_mountain_car_controller,
    mountain_car_controller,
    navigation_controller,
    pendulum_controller,
    pid_controller,
    recommendation_controller,
)
from pgjax.imitation.demonstrations import Demonstrations, load_demonstrations, save_demonstrations
from pgjax.imitation.distances import cross_entropy, forward_kl, negative_log_likelihood, reverse_kl
from pgjax.imitation.experts import (
    Expert,
    dead_reckoning,
    optimal_expert,
    scripted,
    scripted_with_memory,
    shortest_paths,
    sign_follower,
)
from pgjax.imitation.labels import demonstrate, labelled

__all__ = [
    "Demonstrations",
    "Expert",
    "acrobot_controller",
    "behaviour_cloning",
    "cartpole_controller",
    "continuous_mountain_car_controller",
    "cross_entropy",
    "dagger",
    "dead_reckoning",
    "demonstrate",
    "exponential_mixture",
    "forward_kl",
    "labelled",
    "linear_mixture",
    "load_demonstrations",
    "mixture",
    "mountain_car_controller",
    "navigation_controller",
    "negative_log_likelihood",
    "optimal_expert",
    "pendulum_controller",
    "pid_controller",
    "recommendation_controller",
    "reverse_kl",
    "save_demonstrations",
    "scripted",
    "scripted_with_memory",
    "shortest_paths",
    "sign_follower",
]
