"""Settings under which every test runs."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Most of the time goes into compiling programs that run for a moment, so they are compiled with few optimisations, in
# the processes that tests start as well. JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= tests what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Nothing is taken from programs that were compiled before, unless JAX_COMPILATION_CACHE_DIR says where they are.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
# Programs are not split for the other core, which has tests of its own.
if version("jax").startswith("0.9."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false")
else:  # there is no such choice of fusion any more
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000, 50, 100)  # tracing makes many objects, of which few are garbage


def pytest_xdist_auto_num_workers(config):
    """Two processes; none for a single file, whose tests would only wait for them to start."""
    if len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file():
        config.option.dist = "no"
        return 0
    return 2


def pytest_collection_modifyitems(items):
    """Studies and notebooks are slow, each of their tests a program of its own; others say so by themselves."""
    for item in items:
        if item.path.suffix == ".ipynb" or "experiments" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """What the tests of one file compiled is of no use to those of the next, and takes gigabytes."""
    yield
    jax.clear_caches()
