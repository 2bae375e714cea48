"""Sweeps: an algorithm for many seeds and hyper-parameters, resumable, and its results.

What is listed here is public; the rest may change.
"""

from pgjax.sweeps.experts import trained
from pgjax.sweeps.load import configuration_of, join, load_params
from pgjax.sweeps.program import over_runs
from pgjax.sweeps.runner import sweep
from pgjax.sweeps.store import read

__all__ = [
    "configuration_of",
    "join",
    "load_params",
    "over_runs",
    "read",
    "sweep",
    "trained",
]
