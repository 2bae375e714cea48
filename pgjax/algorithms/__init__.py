"""Algorithms: the contract, what trains with it, REINFORCE, and its family.

What is listed here is public; the rest may change.
"""

from pgjax.algorithms.base import Algorithm, pretrained, run_keys, train
from pgjax.algorithms.divergence import natural, natural_gradient, trust_region
from pgjax.algorithms.family import (
    a2c,
    actor_critic,
    dr_grpo,
    grpo,
    gspo,
    ppo,
    reinforce_plus_plus,
    remax,
    rloo,
    trpo,
)
from pgjax.algorithms.on_policy import reinforce

__all__ = [
    "Algorithm",
    "a2c",
    "actor_critic",
    "dr_grpo",
    "grpo",
    "gspo",
    "natural",
    "natural_gradient",
    "ppo",
    "pretrained",
    "reinforce",
    "reinforce_plus_plus",
    "remax",
    "rloo",
    "run_keys",
    "train",
    "trpo",
    "trust_region",
]
