"""Figures that compare: two methods and their difference, profiles over tasks, grids of hyper-parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter

from pgjax.analysis.comparisons import difference
from pgjax.analysis.plotting import (
    AVERAGES,
    STEPS,
    STYLES,
    add_legend,
    band,
    curve_points,
    dress,
    dress_curves,
    on_paper,
)
from pgjax.analysis.statistics import confidence_interval, failed, final_return, interquartile_mean, shown
from pgjax.analysis.tasks import performance_profile
from pgjax.environments.drawings import COLOURS
from pgjax.errors import InputError
from pgjax.paths import full_path

NUMBERED = 120  # cells of a grid, up to which each has its number written in it


def difference_curves(
    methods: Mapping[str, xr.Dataset],
    path: str | Path,
    title: str,
    paired: bool = False,
    variable: str = "episode_return",
) -> Figure:
    """Draw the learning curves of two methods and below them their difference, save it as PNG, and return the figure.

    A curve is that of `learning_curves`. The difference is that of the interquartile means at equal steps, with its
    95% interval, see `difference`; the interval holds at each point, and not at all of them together.

    Args:
        methods: {method: a sweep's dataset without a grid}, two of them; the first less the second is drawn.
        path: Where to save it.
        title: What it says above.
        paired: Whether runs of the same seeds share randomness; seeds at which either failed are left out.
        variable: Which curves.

    Raises:
        InputError: If there are not two methods, a sweep has a grid, or pairs have other seeds.
    """
    check_methods(methods, most=2)
    if len(methods) != 2:
        raise InputError(f"expected two methods, got {len(methods)}")
    good = {name: ~failed(results).values for name, results in methods.items()}
    if paired:
        first, second = methods.values()
        if not np.array_equal(first.seed, second.seed):
            raise InputError("expected runs of the same seeds to pair, got runs of others")
        good = dict.fromkeys(good, np.logical_and(*good.values()))
    path, figure = full_path(path), Figure(figsize=(7, 5.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    curves = []
    for (name, results), colour, style in zip(methods.items(), COLOURS, ("-", "--"), strict=False):
        kept = good[name]
        if not kept.any():
            raise InputError(f"expected runs with finite numbers, got none of {name}")
        label = on_paper(name) + ("" if kept.all() else f" ({(~kept).sum()} left out)")
        steps, runs = curve_points(results.isel(seed=kept), variable)
        band(upper, steps, interquartile_mean(runs), confidence_interval(runs), colour, label, style)
        curves.append((steps, runs))
    steps = np.union1d(curves[0][0], curves[1][0])
    steps = steps[(steps >= max(x[0] for x, _ in curves)) & (steps <= min(x[-1] for x, _ in curves))]
    if not len(steps):
        raise InputError("expected two methods with as many steps at some point, got two without")
    a, b = (np.stack([np.interp(steps, x, run) for run in runs]) for x, runs in curves)
    found = difference(a, b, paired=paired)
    lower.axhline(0, color="0.35", linewidth=1)
    band(lower, steps, found.value, (found.low, found.high), COLOURS[2], "")
    dress_curves(upper, on_paper(title), "", variable.replace("_", " ") + " (IQM)")
    names = [on_paper(name) for name in methods]
    against = STEPS if all("steps" in results for results in methods.values()) else "iteration"
    dress_curves(lower, f"{names[0]} less {names[1]}", against, "difference of IQMs")
    add_legend(upper)
    figure.savefig(path, dpi=150)
    return figure


def profile_curves(scores: Mapping[str, Any], path: str | Path, title: str, levels: Any = None) -> Figure:
    """Draw the performance profiles of methods, save them as PNG, and return the figure; see `performance_profile`.

    Args:
        scores: {method: normalized scores [n, tasks]}; at most eight methods.
        path: Where to save it.
        title: What it says above.
        levels: τ; if not given, 101 from the least score to the largest.

    Raises:
        InputError: If there are no methods, or more, or scores of another shape.
    """
    check_methods(scores)
    if levels is None:
        together = np.concatenate([np.ravel(np.asarray(each, float)) for each in scores.values()])
        levels = np.linspace(np.nanmin(together), np.nanmax(together), 101)
    path, figure = full_path(path), Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, (name, each) in enumerate(scores.items()):
        found = performance_profile(each, levels)
        style = ("-", *STYLES)[i % (1 + len(STYLES))]
        band(axes, levels, found.value, (found.low, found.high), COLOURS[i], on_paper(name), style)
    dress(axes, on_paper(title), "normalized score τ", "share of runs above τ (95% band)")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    add_legend(axes)
    figure.savefig(path, dpi=150)
    return figure


def grid_map(results: xr.Dataset, path: str | Path, title: str, score: xr.DataArray | None = None) -> Figure:
    """Draw a two-dimensional grid as a map, save it as PNG, and return the figure.

    On the left the interquartile mean of the runs at each point that did not fail, on the right the share that failed.

    Args:
        results: A sweep's dataset over two hyper-parameters.
        path: Where to save it.
        title: What it says above.
        score: Of each run, with the dimensions of the runs; `final_return` if not given.

    Raises:
        InputError: If the grid is another one.
    """
    axes = [str(name) for name in results.completed.dims if name != "seed"]
    if len(axes) != 2:
        raise InputError(f"expected a grid of two hyper-parameters, got {', '.join(axes) or 'none'}")
    runs = (final_return(results.load()) if score is None else score).transpose(*axes, "seed").values
    lost = ~np.isfinite(runs)
    means = np.full(runs.shape[:2], np.nan)
    for point in np.ndindex(means.shape):
        if not lost[point].all():
            means[point] = interquartile_mean(runs[point][~lost[point]])
    path, figure = full_path(path), Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(on_paper(title))
    left, right = figure.subplots(1, 2)
    draw_map(left, means, results, axes, "interquartile mean over runs", "viridis", {}, "{:.3g}")
    draw_map(
        right, lost.mean(-1), results, axes, "share of runs that failed", "Greys", {"vmin": 0, "vmax": 1}, "{:.0%}"
    )
    figure.savefig(path, dpi=150)
    return figure


def draw_map(
    axes: Axes,
    cells: np.ndarray,
    results: xr.Dataset,
    names: list[str],
    title: str,
    colours: str,
    limits: Any,
    form: str,
) -> None:
    """Draw a map of cells [x, y] with the values of two hyper-parameters at its sides, and numbers in it."""
    image = axes.imshow(cells.T, origin="lower", aspect="auto", cmap=colours, interpolation="nearest", **limits)
    axes.set_title(title)
    for name, side in zip(names, (axes.xaxis, axes.yaxis), strict=True):
        values = results[name].values
        kept = list(range(0, len(values), -(-len(values) // 10)))
        side.set_ticks(kept, [shown(values[i].item()) for i in kept])
        side.set_label_text(on_paper(name.replace("_", " ")))
    axes.tick_params("x", rotation=30)
    axes.figure.colorbar(image, ax=axes)
    if cells.size > NUMBERED:
        return
    for (x, y), cell in np.ndenumerate(cells):
        red, green, blue, _ = image.cmap(image.norm(cell)) if np.isfinite(cell) else (1, 1, 1, 1)
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        text = form.format(cell) if np.isfinite(cell) else "-"
        axes.text(x, y, text, ha="center", va="center", color=ink)


def sensitivity_curves(
    methods: Mapping[str, xr.Dataset], path: str | Path, title: str, scores: Mapping[str, xr.DataArray] | None = None
) -> Figure:
    """Draw the score of methods against each of their hyper-parameters, save it as PNG, and return the figure.

    At each value of one, the others have those of the highest interquartile mean over all runs, where what failed is
    the worst. Drawn are the interquartile mean of the runs that did not fail, and its 95% interval (of chosen points,
    it is a little too high); an open circle is where some failed.

    Args:
        methods: {method: a sweep's dataset over one or more hyper-parameters}; at most eight methods.
        path: Where to save it.
        title: What it says above.
        scores: {method: of each of its runs}; `final_return` if not given.

    Raises:
        InputError: If there are no methods, or more, or one has no grid.
    """
    check_methods(methods, grid=True)
    each = {name: final_return(results.load()) if scores is None else scores[name] for name, results in methods.items()}
    axes_of = list(dict.fromkeys(str(axis) for score in each.values() for axis in score.dims if axis != "seed"))
    path, figure = full_path(path), Figure(figsize=(max(6, 4.4 * len(axes_of)), 4.4), layout="constrained")
    for panel, axis in zip(figure.subplots(1, len(axes_of), squeeze=False, sharey=True)[0], axes_of, strict=True):
        values = np.concatenate([score[axis].values for score in each.values() if axis in score.dims])
        above = values[values > 0]
        if values.min() >= 0 and len(above) and above.max() >= 10 * above.min():
            if values.min() > 0:
                panel.set_xscale("log")
            else:  # 0 has a place of its own
                panel.set_xscale("symlog", linthresh=above.min(), linscale=0.5)
            panel.xaxis.set_minor_formatter(NullFormatter())
        for i, (name, score) in enumerate(each.items()):
            if axis in score.dims:
                draw_sensitivity(panel, score, axis, i, name)
        dress(panel, "", axis.replace("_", " "), "" if panel.get_subplotspec().colspan.start else "score")
    figure.suptitle(on_paper(title))
    found = dict(entry[::-1] for panel in figure.axes for entry in zip(*panel.get_legend_handles_labels(), strict=True))
    lines, labels = list(found.values()), list(found)
    if any(not np.isfinite(score).all() for score in each.values()):
        lines.append(Line2D([], [], color="0.3", marker="o", markerfacecolor="white", markersize=7, linestyle=""))
        labels.append("some runs failed")
    figure.legend(lines, labels, loc="outside lower center", ncols=3, title=AVERAGES, frameon=False)
    figure.savefig(path, dpi=150)
    return figure


def draw_sensitivity(axes: Axes, score: xr.DataArray, axis: str, number: int, name: str) -> None:
    """Draw the score of one method against a hyper-parameter, the others at their best for each of its values."""
    runs = score.transpose(axis, ..., "seed").values
    runs = runs.reshape(len(runs), -1, runs.shape[-1])  # [values, other points, seeds]
    best = interquartile_mean(np.where(np.isfinite(runs), runs, -np.inf), axis=-1).argmax(1)
    chosen = runs[np.arange(len(runs)), best]
    middle, low, high = np.full((3, len(runs)), np.nan)
    for i, each in enumerate(chosen):
        if len(good := each[np.isfinite(each)]):
            middle[i], (low[i], high[i]) = interquartile_mean(good), confidence_interval(good)
    x, colour = score[axis].values, COLOURS[number]
    band(axes, x, middle, (low, high), colour, on_paper(name), ("o-", "s--", "^:", "D-.")[number % 4])
    some = ~np.isfinite(chosen).all(-1)
    axes.plot(x[some], middle[some], "o", color=colour, markerfacecolor="white", markersize=7, zorder=5)


def check_methods(methods: Mapping[str, Any], most: int = len(COLOURS), grid: bool | None = None) -> None:
    """Raise unless there are some methods and no more than colours, and their sweeps have a grid or none, if it says.

    Raises:
        InputError: If not.
    """
    if not 0 < len(methods) <= most:
        raise InputError(f"expected 1 to {most} methods, got {len(methods)}")
    for name, results in methods.items():
        if isinstance(results, xr.Dataset):
            over = [str(axis) for axis in results.completed.dims if axis != "seed"]
            if bool(over) != bool(grid):
                wanted = "over a grid" if grid else "at one point each"
                raise InputError(f"expected sweeps {wanted}, got {name} over {', '.join(over) or 'seeds alone'}")
