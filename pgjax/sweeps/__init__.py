"""Sweeps: an algorithm for many seeds and hyper-parameters, resumable, and its results.

What is listed here is public; the rest may change.
"""

from pgjax.sweeps.designs import Range, random_points, sobol_points
from pgjax.sweeps.experts import trained
from pgjax.sweeps.load import configuration_of, join, load_params
from pgjax.sweeps.program import over_runs
from pgjax.sweeps.runner import sweep
from pgjax.sweeps.store import read
from pgjax.sweeps.tuning import Tuning, best_point, tune

__all__ = [
    "Range",
    "Tuning",
    "best_point",
    "configuration_of",
    "join",
    "load_params",
    "over_runs",
    "random_points",
    "read",
    "sobol_points",
    "sweep",
    "trained",
    "tune",
]
