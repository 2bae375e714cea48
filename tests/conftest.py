"""Settings under which every test runs."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Most of the time goes into compiling programs that run for a moment, so they are compiled with few optimisations, in
# the processes that tests start as well. JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= tests what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if version("jax").startswith("0.9."):  # later ones have no such choice
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000, 50, 100)  # tracing makes many objects, of which few are garbage


def pytest_xdist_auto_num_workers(config):
    """Two processes; none for a single file, whose tests would only wait for them to start."""
    if len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file():
        config.option.dist = "no"
        return 0
    return 2
