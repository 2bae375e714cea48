"""Sweeps: an algorithm for many seeds and hyper-parameters, resumable, and its results.

What is listed here is public; the rest may change.
"""

from pgjax.sweeps.designs import Range, random_points, sobol_points
from pgjax.sweeps.experts import trained
from pgjax.sweeps.load import configuration_of, join, load_params
from pgjax.sweeps.looks import Average, Look
from pgjax.sweeps.program import over_runs
from pgjax.sweeps.reports import csv_report, tensorboard_report, wandb_report
from pgjax.sweeps.runner import sweep
from pgjax.sweeps.store import read
from pgjax.sweeps.tuning import Tuning, best_point, tune

__all__ = [
    "Average",
    "Look",
    "Range",
    "Tuning",
    "best_point",
    "configuration_of",
    "csv_report",
    "join",
    "load_params",
    "over_runs",
    "random_points",
    "read",
    "sobol_points",
    "sweep",
    "tensorboard_report",
    "trained",
    "tune",
    "wandb_report",
]
