"""Looks at a sweep that runs: what its curves have come to so far, summarised over seeds."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pgjax.analysis.statistics import confidence_interval, interquartile_mean, shown
from pgjax.sweeps.checkpoints import Running
from pgjax.sweeps.grid import Runs
from pgjax.sweeps.store import Store, read


class Average(NamedTuple):
    """A metric over runs: its mean, its interquartile mean, and the 95% interval of that; NaN if there are no runs."""

    mean: float
    iqm: float
    low: float
    high: float


class Look(NamedTuple):
    """The runs at one point of a grid that have come to an iteration."""

    point: dict[str, float]  # hyper-parameters of the grid
    iteration: int  # from 1 on
    seeds: int  # how many runs there are, of this batch and of those before it
    failed: int  # how many of them have had numbers that are not finite: they are left out of the averages
    metrics: dict[str, Average]  # at this iteration
    finished: bool  # whether it is the last look at these runs

    @property
    def name(self) -> str:
        """What tells the looks at these runs from others, such as "learning_rate=0.1, seeds=32"."""
        return ", ".join(f"{name}={shown(value)}" for name, value in {**self.point, "seeds": self.seeds}.items())


Report = Callable[[Look], None]


def reported(batch: Iterator[Running], report: Report, runs: Runs, chosen: range, store: Store) -> Iterator[Running]:
    """A batch as it goes on, which after each segment is reported as `looks` sees it."""
    for running in batch:
        for look in looks(running, runs, chosen, store):
            report(look)
        yield running


def looks(running: Running, runs: Runs, chosen: range, store: Store) -> Iterator[Look]:
    """A look at each point of the grid that has runs in a batch, together with its runs that are completed.

    Where the batch's runs of a point are not equally far, it is at the iteration that all of them have done.

    Args:
        running: The batch.
        runs: All of the sweep's.
        chosen: Those of the batch.
        store: Where the others are.
    """
    for region, cut in runs.regions(chosen):
        iteration = int(running.done[cut].min())
        if iteration == 0:
            continue
        here = read(store).isel({name: place.start for name, place in region.items() if name != "seed"})
        others = here.completed.values.copy()
        others[region["seed"]] = False
        curves = []  # [metrics] of [seeds, iteration]
        for name, curve in running.curves.items():
            before = here[name].values[others, :iteration] if others.any() else np.empty((0, iteration))
            curves.append(np.concatenate([before, curve[cut, :iteration]]))
        good = np.isfinite(np.asarray(curves)).all((0, 2))
        yield Look(
            point={name: runs.labels[name][place.start] for name, place in region.items() if name != "seed"},
            iteration=iteration,
            seeds=len(good),
            failed=int((~good).sum()),
            metrics=averages(list(running.curves), np.asarray(curves)[:, good, -1]),
            finished=bool((running.done[cut] == running.iterations).all()),
        )


def averages(names: list[str], values: np.ndarray) -> dict[str, Average]:
    """The average of each metric over runs, of values [metrics, runs]."""
    if not values.shape[1]:
        return dict.fromkeys(names, Average(np.nan, np.nan, np.nan, np.nan))
    found = (values.mean(1, dtype=float), interquartile_mean(values, 1), *confidence_interval(values, 1))
    return {name: Average(*map(float, numbers)) for name, *numbers in zip(names, *found, strict=True)}
