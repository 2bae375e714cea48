"""Tuning: hyper-parameters chosen among points of a space on some seeds, and the choice judged on others.

All points are runs of one sweep. Successive halving then drops the worse half of them, and gives those that are left as
many seeds more as they had. It gives seeds and not iterations: chance is what makes points hard to tell apart, and
short runs favour learning rates that are too large for long ones. Every run is whole, none is computed twice, and a
point that is dropped costs no further batch.

The best of many scores is too high by chance. So the winner runs again, on seeds that come after all it was chosen on,
and these runs alone say what it is worth.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pgjax.algorithms.base import Algorithm
from pgjax.analysis.intervals import Estimate
from pgjax.analysis.statistics import confidence_interval, final_return, interquartile_mean, plain_interval
from pgjax.checks import whole_number
from pgjax.errors import InputError
from pgjax.hyperparameters import numbers_in, with_values
from pgjax.paths import full_path, replacing
from pgjax.sweeps.designs import Points, Space, check_space, sobol_points
from pgjax.sweeps.looks import Look, Report
from pgjax.sweeps.runner import sweep
from pgjax.trees import PyTree

RECORD = "tuning.json"


class Numbered(NamedTuple):
    """Hyper-parameters of which some are those of a point, by its number."""

    point: Any  # []
    table: Points
    others: PyTree


def numbered(algorithm: Algorithm, hyperparameters: PyTree, points: Points) -> Algorithm:
    """The algorithm with `point`, the number of one of these points, as a hyper-parameter for the grid of a sweep.

    A list of points is so a grid of one axis, and its runs are those of the algorithm at each point.

    Raises:
        InputError: See `numbers_in`.
    """
    table = numbers_in(hyperparameters, {name: numbers.tolist() for name, numbers in points.items()})

    def init(key: jax.Array, given: Numbered) -> PyTree:
        values = {name: jnp.asarray(numbers)[given.point] for name, numbers in given.table.items()}
        return algorithm.init(key, with_values(given.others, values))

    return algorithm._replace(init=init, hyperparameters=lambda: Numbered(jnp.int32(0), table, hyperparameters))


def judged(runs: Any) -> np.ndarray:
    """The interquartile mean of what runs [..., seeds] are judged by; one that is not finite is the worst, −∞.

    Example:
        >>> judged([[1.0, 2.0, 3.0, 9.0], [2.0, 2.5, 3.0, np.nan]]).tolist()
        [2.5, 2.25]
    """
    return interquartile_mean(np.where(np.isfinite(runs), runs, -np.inf), axis=-1)


def best_point(per_run: xr.DataArray) -> dict[str, float]:
    """The point of a grid with the highest interquartile mean over seeds, the first of several: {name: value}.

    A run whose number is not finite is the worst. What the point is worth, other seeds must say.

    Args:
        per_run: What each run of a sweep is judged by, more is better, such as `final_return`.
    """
    ordered = per_run.transpose(..., "seed")
    scores = judged(ordered.values)
    index = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return {str(name): float(ordered[name][at]) for name, at in zip(ordered.dims, index, strict=False)}


class Rung(NamedTuple):
    """A sweep of the points that are left, on new seeds."""

    points: list[int]  # by number
    seeds: range


def schedule(points: int, seeds: int, rungs: int, first_seed: int = 0) -> list[tuple[int, range]]:
    """How many points each rung has, and on which new seeds: half as many points, and twice the seeds in all.

    Arguments are those of `tune`. It ends early where one point is left, as then nothing is to be chosen.

    Example:
        >>> schedule(points=5, seeds=4, rungs=9)
        [(5, range(0, 4)), (3, range(4, 8)), (2, range(8, 16))]
        >>> sum(count * len(new) for count, new in schedule(points=5, seeds=4, rungs=9))  # runs
        48
    """
    found = [(points, range(first_seed, first_seed + seeds))]
    while len(found) < rungs and found[-1][0] > 2:
        begin = found[-1][1].stop
        found.append((-(-found[-1][0] // 2), range(begin, 2 * begin - first_seed)))
    return found


def successive_halving(
    run: Callable[[Rung], np.ndarray], plan: Sequence[tuple[int, range]]
) -> tuple[list[Rung], np.ndarray]:
    """The rungs of a schedule, and what every run was judged by [points, seeds], NaN where there was none.

    Args:
        run: What the runs of a rung are judged by, [points of the rung, new seeds], −∞ of one that failed.
        plan: From `schedule`.
    """
    begin, end = plan[0][1].start, plan[-1][1].stop
    scores = np.full((plan[0][0], end - begin), np.nan)
    left, rungs = np.arange(plan[0][0]), []
    for count, seeds in plan:
        so_far = scores[left, : seeds.start - begin]
        if so_far.size:
            left = np.sort(left[np.argsort(-judged(so_far), kind="stable")[:count]])
        rungs.append(Rung(left.tolist(), seeds))
        scores[left, seeds.start - begin : seeds.stop - begin] = run(rungs[-1])
    return rungs, scores


def named_report(report: Report | None, rung: int, points: Mapping[str, Any]) -> Report | None:
    """A report of looks at points by their number, which names the rung and the hyper-parameters {name: [points]}."""

    def named(look: Look) -> None:
        at = int(look.point.get("point", 0))
        values = {name: float(numbers[at]) for name, numbers in points.items()}
        report(look._replace(point={"rung": rung, **values}))  # type: ignore[misc]

    return None if report is None else named


class Tuning(NamedTuple):
    """What tuning found, and how."""

    space: Space
    points: Points
    rungs: list[Rung]
    scores: np.ndarray  # [points, choosing seeds], what runs are judged by: −∞ if one failed, NaN if there was none
    winner: dict[str, float]
    chosen_by: float  # the winner's interquartile mean over the seeds that it was chosen on: too high by chance
    estimate: Estimate  # its interquartile mean over fresh seeds, but for those that failed, with its 95% interval
    failed_seeds: list[int]  # of the fresh ones
    fresh: xr.Dataset  # its curves on fresh seeds, see `sweep`
    sensitivity: dict[str, list[float | None]]  # see `sensitivity_of`
    iterations: int  # of a run
    seconds: float  # of all runs together


def tune(
    algorithm: Algorithm,
    space: Space,
    *,
    iterations: int,
    points: int = 16,
    seeds: int = 8,
    rungs: int = 3,
    fresh_seeds: int = 64,
    first_seed: int = 0,
    score: Callable[[xr.Dataset], xr.DataArray] = final_return,
    design: Callable[[Space, int, int], Points] = sobol_points,
    hyperparameters: PyTree = None,
    study: int = 0,
    out: str | Path | None = None,
    configuration: Mapping[str, Any] | None = None,
    batch: int | None = None,
    progress: bool = True,
    report: Report | None = None,
) -> Tuning:
    """The best of some points of a space, chosen by successive halving, and what it is worth on fresh seeds.

    Args:
        algorithm: What to run.
        space: What hyper-parameters may be, {"learning_rate": Range(1e-4, 1e-1)}.
        iterations: Updates of every run.
        points: How many are tried.
        seeds: Runs of each of them on the first rung; see `schedule` for how many runs there are in all.
        rungs: On each but the first, half of the points are left, rounded up; 1 to choose without halving.
        fresh_seeds: Runs that say what the winner is worth.
        first_seed: The first to choose on; the others follow, and the fresh ones follow those.
        score: What each run of a sweep is judged by, more is better: of its dataset, an array over its runs.
        design: Points of a space by (space, points, seed): `sobol_points` or `random_points`. The seed is the study.
        hyperparameters: The others; `algorithm.hyperparameters()` if not given.
        study: See `run_keys`.
        out: Directory for a sweep of each rung, one of the fresh seeds, and tuning.json, see `record_of`. With the same
            arguments again, tuning goes on from what it finished.
        configuration: See `sweep`, and so `batch` and `progress`.
        batch: Runs computed together.
        progress: Whether to say how far it is.
        report: See `sweep`. A look's point is the rung's number and the hyper-parameters; the fresh runs are the last
            rung.

    Raises:
        InputError: If a range or a count cannot be used, or runs of every point fail; see also `sweep`.

    Sources: Karnin, Koren & Somekh, *Almost optimal exploration in multi-armed bandits*, 2013, where a pull of an arm
    is what a seed of a point is here; Jamieson & Talwalkar, *Non-stochastic best arm identification and hyperparameter
    optimization*, 2016.
    """
    counts = {"points": points, "seeds": seeds, "rungs": rungs, "fresh_seeds": fresh_seeds}
    for name, number in counts.items():
        whole_number(name, number, 1)
    others = algorithm.hyperparameters() if hyperparameters is None else hyperparameters
    check_space(space, others)
    plan = schedule(points, seeds, rungs, whole_number("first_seed", first_seed, 0))
    fresh = range(plan[-1][1].stop, plan[-1][1].stop + fresh_seeds)
    tried, out = design(space, points, study), None if out is None else full_path(out)
    several = numbered(algorithm, others, tried)
    found: list[xr.Dataset] = []
    shared: dict[str, Any] = {"study": study, "configuration": configuration, "batch": batch, "progress": progress}

    def run(algorithm: Algorithm, what: str, points: Mapping[str, Any], **which: Any) -> np.ndarray:
        told, place = named_report(report, len(found), points), None if out is None else out / what
        found.append(sweep(algorithm, iterations=iterations, out=place, report=told, **which, **shared).load())
        per_run = score(found[-1]).transpose(..., "seed").values
        return np.where(np.isfinite(per_run), per_run, -np.inf)

    def run_rung(rung: Rung) -> np.ndarray:
        grid = {"point": rung.points}
        return run(several, f"rung-{len(found)}", tried, seeds=rung.seeds, grid=grid, keep_params=False)

    done, scores = successive_halving(run_rung, plan)
    best = done[-1].points[int(np.argmax(judged(scores[done[-1].points])))]
    if not np.isfinite(chosen_by := float(judged(scores[best]))):
        raise InputError(f"expected a point at which most runs do not fail, got none among {points}")
    winner = {name: float(values[best]) for name, values in tried.items()}
    values = {name: [value] for name, value in winner.items()}
    final = run(algorithm, "fresh", values, seeds=fresh, hyperparameters=with_values(others, winner))
    tuning = Tuning(
        space=dict(space),
        points=tried,
        rungs=done,
        scores=scores,
        winner=winner,
        chosen_by=chosen_by,
        estimate=estimated(final[np.isfinite(final)]),
        failed_seeds=[seed for seed, number in zip(fresh, final, strict=True) if not np.isfinite(number)],
        fresh=found[-1],
        sensitivity=sensitivity_of(space, tried, judged(scores[:, :seeds])),
        iterations=iterations,
        seconds=sum(float(results.seconds.sum()) for results in found),
    )
    if out is not None and jax.process_index() == 0:
        with replacing(out / RECORD) as file:
            file.write((json.dumps(record_of(tuning), indent=1, allow_nan=False) + "\n").encode())
    return tuning


def estimated(runs: np.ndarray) -> Estimate:
    """The interquartile mean of runs [n] and its 95% interval; NaN of none."""
    if not len(runs):
        return Estimate(np.nan, np.nan, np.nan)
    return Estimate(float(interquartile_mean(runs)), *map(float, confidence_interval(runs)))


def sensitivity_of(space: Space, points: Points, scores: np.ndarray) -> dict[str, list[float | None]]:
    """The best score in the lowest, the middle and the highest third of each range, None where there is no point.

    That is how much is lost where one hyper-parameter is elsewhere and the others are at their best. Where a third at
    an end is the best one, the range should be wider there.

    Args:
        space: What hyper-parameters may be.
        points: Those that were tried.
        scores: What they were worth on the first rung, where all have the same seeds, [points].

    Example:
        >>> from pgjax.sweeps.designs import Range
        >>> points = {"learning_rate": np.array([1e-3, 2e-3, 1e-1])}
        >>> sensitivity_of({"learning_rate": Range(1e-3, 1e-1)}, points, np.array([5.0, 7.0, 6.0]))
        {'learning_rate': [7.0, None, 6.0]}
    """
    found = {}
    for name, numbers in space.items():
        third = np.minimum((3 * numbers.place(points[name])).astype(int), 2)
        best = [scores[third == k].max(initial=-np.inf) for k in range(3)]
        found[name] = [plain(number) for number in best]
    return found


def record_of(tuning: Tuning) -> dict[str, Any]:
    """What tuning found as plain numbers, as in tuning.json: space, budget, every score, winner, sensitivity.

    Instead of numbers that are not finite there is None: of runs that failed, and of an interval of a single run.
    """
    choosing = sum(len(rung.points) * len(rung.seeds) for rung in tuning.rungs)
    fresh = tuning.fresh.seed.values.tolist()
    trials = []
    for point, runs in enumerate(tuning.scores):
        seeds = max(rung.seeds.stop for rung in tuning.rungs if point in rung.points) - tuning.rungs[0].seeds.start
        values = {name: float(numbers[point]) for name, numbers in tuning.points.items()}
        trials.append({**values, "iqm": plain(judged(runs[:seeds])), "scores": [plain(run) for run in runs[:seeds]]})
    return {
        "space": {name: numbers._asdict() for name, numbers in tuning.space.items()},
        "budget": {
            "points": len(trials),
            "choosing_runs": choosing,
            "fresh_runs": len(fresh),
            "iterations": tuning.iterations,
            "seconds": tuning.seconds,
        },
        "rungs": [{"points": rung.points, "seeds": [rung.seeds.start, rung.seeds.stop - 1]} for rung in tuning.rungs],
        "trials": trials,
        "winner": {
            **tuning.winner,
            "chosen_by": tuning.chosen_by,
            "iqm": plain(tuning.estimate.value),
            "interval": plain_interval((tuning.estimate.low, tuning.estimate.high)),
            "seeds": [fresh[0], fresh[-1]],
            "failed_seeds": tuning.failed_seeds,
        },
        "sensitivity": tuning.sensitivity,
    }


def plain(number: Any) -> float | None:
    """A number for JSON, which has no word for one that is not finite."""
    return float(number) if np.isfinite(number) else None
