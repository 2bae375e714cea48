"""Algorithms: the contract, what trains with it, and REINFORCE.

What is listed here is public; the rest may change.
"""

from pgjax.algorithms.base import Algorithm, pretrained, run_keys, train
from pgjax.algorithms.on_policy import reinforce

__all__ = [
    "Algorithm",
    "pretrained",
    "reinforce",
    "run_keys",
    "train",
]
