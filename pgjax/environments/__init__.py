"""Environments: the contract, ready-made ones, adapters to other libraries, and how they are drawn.

What is listed here is public; the rest may change.
"""

from pgjax.environments.base import Environment, Episode, Score, Step, check_environment
from pgjax.environments.brax import from_brax
from pgjax.environments.craftax import from_craftax
from pgjax.environments.data_centre import Cooling, cooling
from pgjax.environments.finite_mdp import FiniteMDP, finite, tables
from pgjax.environments.frames import frame_stack
from pgjax.environments.gymnax import from_gymnax, frozen_lake_tables, gymnax_names
from pgjax.environments.jumanji import from_jumanji
from pgjax.environments.masks import masked_actions
from pgjax.environments.mazes import LAYOUTS, maze, maze_tables, partial_maze, t_maze
from pgjax.environments.navix import from_navix
from pgjax.environments.noise import noisy_actions
from pgjax.environments.pgx import from_pgx
from pgjax.environments.recommender import clairvoyant_bound, interests, recommendation
from pgjax.environments.rewards import scaled_rewards
from pgjax.environments.robot import navigation
from pgjax.environments.spaces import Box, Discrete, Masked, MultiDiscrete
from pgjax.environments.views import partly_observed

__all__ = [
    "LAYOUTS",
    "Box",
    "Cooling",
    "Discrete",
    "Environment",
    "Episode",
    "FiniteMDP",
    "Masked",
    "MultiDiscrete",
    "Score",
    "Step",
    "check_environment",
    "clairvoyant_bound",
    "cooling",
    "finite",
    "frame_stack",
    "from_brax",
    "from_craftax",
    "from_gymnax",
    "from_jumanji",
    "from_navix",
    "from_pgx",
    "frozen_lake_tables",
    "gymnax_names",
    "interests",
    "masked_actions",
    "maze",
    "maze_tables",
    "navigation",
    "noisy_actions",
    "partial_maze",
    "partly_observed",
    "recommendation",
    "scaled_rewards",
    "t_maze",
    "tables",
]
