"""A learning rate that is chosen on some seeds, and what runs with other seeds do with it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import xarray as xr

import pgjax


def with_best_rate(
    runs: Callable[..., xr.Dataset],
    algorithm: pgjax.Algorithm,
    rates: Sequence[float],
    judge: Callable[[xr.Dataset], xr.DataArray],
    seeds: tuple[range, range],
    out: Path,
    fixed: Mapping[str, float] = MappingProxyType({}),
) -> tuple[float, xr.Dataset]:
    """The learning rate that is best, see `pgjax.sweeps.best_point`, and the results of other runs with it.

    Args:
        runs: `pgjax.sweep` of the algorithm, all but for what is said here.
        algorithm: What learns.
        rates: Learning rates; of a single one, there is nothing to choose.
        judge: What each run is judged by, from a sweep's results; more is better.
        seeds: Those to choose on, and those of the results.
        out: Directory; the sweeps are in `choosing` and `reported`.
        fixed: Other hyper-parameters.
    """
    eta = rates[0]
    if len(rates) > 1:
        numbers = algorithm.hyperparameters(**fixed)
        choosing = runs(seeds=seeds[0], grid={"learning_rate": rates}, hyperparameters=numbers, out=out / "choosing")
        eta = pgjax.sweeps.best_point(judge(choosing))["learning_rate"]
    numbers = algorithm.hyperparameters(learning_rate=eta, **fixed)
    return eta, runs(seeds=seeds[1], hyperparameters=numbers, out=out / "reported")
