"""Policies as a sweep left them, as experts."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from pgjax.analysis.statistics import final_return
from pgjax.errors import InputError
from pgjax.imitation.experts import Expert
from pgjax.policies.base import Policy
from pgjax.sweeps.load import load_params, opened, where


def trained(
    results: xr.Dataset | str | Path,
    policy: Policy,
    *,
    seed: int | None = None,
    point: Mapping[str, float] | None = None,
) -> Expert:
    """A policy as a run of a sweep left it.

    Args:
        results: What `sweep` or `read` returned, or the directory that was given to a sweep as `out`.
        policy: The one that was trained.
        seed: The run; if not given, the one with the highest `final_return` among those of the point.
        point: A value of each hyper-parameter of the grid, {"learning_rate": 1e-3}.

    Raises:
        InputError: See `load_params`; if the best of the runs is asked for and no return is known, or none is finite.
    """
    if seed is None:
        seed = best_seed(opened(results), point or {})
    like = jax.eval_shape(policy.init, jax.random.key(0))
    return Expert(policy, load_params(results, like, seed=seed, point=point))


def best_seed(dataset: xr.Dataset, point: Mapping[str, float]) -> int:
    """The seed of the highest final return at a point of the grid, of those that are finite.

    Raises:
        InputError: If there is no such point, or no final return that is a finite number.
    """
    runs = dataset.isel(dict(zip(dataset.completed.dims, where(dataset, None, point), strict=True)))
    if not {"episode_return", "episodes"} <= set(runs.data_vars):
        raise InputError("expected a seed, or results with the returns of episodes to choose it by, got neither")
    finals = final_return(runs)
    if not np.isfinite(finals).any():
        raise InputError(f"expected a run with a finite return, got {finals.size} runs without one")
    return int(finals.seed[np.where(np.isfinite(finals), finals, -np.inf).argmax()])
