"""Figures: learning curves with their uncertainty, and the runs behind them; and what all figures have in common."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from pgjax.analysis.statistics import confidence_interval, failed, interquartile_mean, shown, tolerance_interval
from pgjax.environments.drawings import COLOURS
from pgjax.errors import InputError
from pgjax.paths import full_path

RUNS_SHOWN = 50


# Estimators of the gradient have the same colours in all figures; of other methods, each study has its own.
ESTIMATOR_COLOURS = {
    "G_1": COLOURS[0],
    "G_1 − ρ̂": COLOURS[1],
    "G_t": COLOURS[2],
    "G_t − leave-one-out mean per step": COLOURS[3],
    "G_t − v(X_t)": COLOURS[4],
    "G_t − v(X_t), learned": COLOURS[4],
    "actor-critic: G_t^λ − v(X_t)": COLOURS[5],
    "actor-critic: G_t^0.95 − v(X_t)": COLOURS[5],
    "expected policy gradient, learned Q": COLOURS[6],
    "G_t − Q control variate, learned": COLOURS[7],
}


ON_PAPER = {  # the longer ones first
    "G_t^0.95": "$G_t^{λ=0.95}$",
    "G_t^0": "$G_t^{λ=0}$",
    "G_t^λ": "$G_t^λ$",
    "γ^{t−1}": "$γ^{t-1}$",
    "G_1": "$G_1$",
    "G_t": "$G_t$",
    "v_t(X_t)": "$v_t(X_t)$",
    "v̄(X_t)": r"$\bar v(X_t)$",
    "v(X_t)": "$v(X_t)$",
    "Q_t(X_t, A_t)": "$Q_t(X_t, A_t)$",
    "Q̄(X_t, A_t)": r"$\bar Q(X_t, A_t)$",
    "Q(X_t, A_t)": "$Q(X_t, A_t)$",
    "Q_t": "$Q_t$",
    "Q̄": r"$\bar Q$",
    "ρ̂": r"$\hatρ$",
}


STEPS = "environment steps of a run (mean over runs)"
AVERAGES = "interquartile means over runs, 95% intervals"
STYLES = ("--", ":", "-.")
POINTS = 200  # of a curve; where there are more iterations, each point is the mean over some of them


def learning_curves(results: xr.Dataset, path: str | Path, title: str, variable: str = "episode_return") -> Figure:
    """Draw a curve for each point of a sweep's grid, save it as PNG, and return the figure.

    A curve is the interquartile mean over seeds against the mean number of real environment steps that the runs had
    made (against iterations, where there are no steps), with its 95% interval (a single run has none); of a long curve
    each point is the mean over several iterations. With a single point, also 50 of the runs behind it and the interval
    that 90% of runs lie in with 95% confidence. Runs with numbers that are not finite are left out, and counted in the
    legend.

    Args:
        results: The dataset of a sweep.
        path: Where to save it.
        title: What it says above.
        variable: Which curves.
    """
    path, figure = full_path(path), Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    dims = [name for name in results.completed.dims if name != "seed"]
    sizes = [results.sizes[name] for name in dims]
    many = int(np.prod(sizes))
    colours = [colormaps["viridis"](x) for x in np.linspace(0, 0.9, many)] if many > 1 else [COLOURS[0]]
    broken = failed(results)
    for index, colour in zip(np.ndindex(*sizes), colours, strict=True):
        point = dict(zip(dims, index, strict=True))
        here, good = results.isel(point), ~broken.isel(point).values
        label = ", ".join(f"{literal(str(name)).replace('_', ' ')} {shown(here[name].item())}" for name in dims)
        if not good.all():
            label += f" ({(~good).sum()} failed)"
        if good.any():
            draw_curve(axes, here.isel(seed=good), variable, colour, label, alone=many == 1)
    what = literal(variable.replace("_", " ")) + ("" if many == 1 else " (interquartile mean, 95% interval)")
    dress_curves(axes, literal(title), STEPS if "steps" in results else "iteration", what)
    if axes.get_legend_handles_labels()[1]:
        add_legend(axes)
    figure.savefig(path, dpi=150)
    return figure


def compare_learning_curves(
    panels: Mapping[str, Mapping[str, xr.Dataset]],
    path: str | Path,
    levels: Mapping[str, Mapping[str, float]] | None = None,
    columns: int | None = None,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Draw the learning curves of several methods in a panel for each task, save them as PNG, and return the figure.

    A curve is that of `learning_curves`; a method has the same colour in every panel. Estimators are written as on
    paper, see `on_paper`.

    Args:
        panels: {title: {method: a sweep's dataset without a grid}}; at most eight methods.
        path: Where to save it.
        levels: {title: {name: a return to compare with}}, drawn as horizontal lines in grey.
        columns: Panels side by side; all of them, if not given.
        colours: {method: its colour}; for those that have none here, `COLOURS` in their order.

    Raises:
        InputError: If there is no panel, there are more methods, a sweep has a grid, or there is no column.
    """
    names = list(dict.fromkeys(label for methods in panels.values() for label in methods))
    if not panels or len(names) > len(COLOURS):
        raise InputError(f"expected a panel or more, of at most {len(COLOURS)} methods, got {len(names)} methods")
    if columns is not None and columns < 1:
        raise InputError(f"expected 1 or more columns, got {columns}")
    for methods in panels.values():
        for label, results in methods.items():
            over = [str(name) for name in results.completed.dims if name != "seed"]
            if over:
                raise InputError(
                    f"expected sweeps at one point each, got {label} over {', '.join(over)}; choose one: "
                    f"results.sel({over[0]}={float(results[over[0]][0]):g})"
                )
    path, columns = full_path(path), min(columns or len(panels), len(panels))
    levels = levels or {}
    colour_of = dict(zip(names, COLOURS, strict=False)) | dict(colours or {})
    compared = list(dict.fromkeys(name for lines in levels.values() for name in lines))
    rows = -(-len(panels) // columns)
    # Panels in rows are smaller, so that their letters are as large as those of one row where the page is as wide.
    figure = Figure(figsize=(4.6 * columns, 4.6) if rows == 1 else (3.3 * columns, 2.8 * rows), layout="constrained")
    lost = dict.fromkeys(names, 0)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    empty = grid[len(panels) :]
    for axes in empty:
        axes.set_axis_off()
    for i, (axes, (title, methods)) in enumerate(zip(grid, panels.items(), strict=False)):
        for label, results in methods.items():
            good = ~failed(results).values
            lost[label] += int((~good).sum())
            if good.any():
                draw_curve(axes, results.isel(seed=good), "episode_return", colour_of[label], label, alone=False)
        for name, level in levels.get(title, {}).items():
            axes.axhline(level, color="0.35", linestyle=STYLES[compared.index(name) % len(STYLES)], linewidth=1.2)
        lowest = i + columns >= len(panels)
        dress_curves(axes, literal(title), STEPS if rows == 1 else "environment steps" if lowest else "", "")
        if i % columns == 0:
            axes.set_ylabel("episode return")
    lines = [Line2D([], [], color=colour_of[name], linewidth=1.8) for name in names]
    lines += [Line2D([], [], color="0.35", linestyle=STYLES[i % len(STYLES)]) for i in range(len(compared))]
    labels = [on_paper(name) + (f" ({lost[name]} failed)" if lost[name] else "") for name in names]
    labels += map(literal, compared)
    if empty:
        empty[0].legend(lines, labels, loc="center", title=AVERAGES.replace(", ", ",\n"), frameon=False)
    else:
        figure.legend(lines, labels, loc="outside lower center", ncols=3, title=AVERAGES, frameon=False)
    figure.savefig(path, dpi=150 if rows == 1 else 110)
    return figure


def literal(text: str) -> str:
    """A text of a user for a figure, in which a $ is a dollar and begins no mathematics."""
    return text.replace("$", r"\$")


def on_paper(name: str) -> str:
    """An estimator's name as it is written on paper; a $ of a user stays one, see `literal`."""
    known = "|".join(map(re.escape, ON_PAPER))
    return re.sub(known, lambda found: ON_PAPER[found[0]], literal(name))


def dress(axes: Axes, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """Give a panel its title, labels and grid, as all panels have them."""
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def dress_curves(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Give a panel of learning curves what all panels have, and axes that begin at 0 and count in k and M."""
    dress(axes, title, xlabel, ylabel)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def add_legend(axes: Axes, loc: str = "best") -> None:
    """Put a legend into a panel, as all panels have it; what lies behind shines through."""
    axes.legend(loc=loc, fontsize="small", framealpha=0.85, edgecolor="none")


def band(
    axes: Axes, x: Any, middle: Any, interval: tuple[Any, Any], colour: object, label: str, style: str = "-"
) -> None:
    """Draw averages and around them their interval (low, high), where there is one, as all figures have it."""
    axes.plot(x, middle, style, color=colour, linewidth=1.8, markersize=3.5, label=label, zorder=4)
    low, high = (np.asarray(bound, float) for bound in interval)
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        axes.fill_between(x, low, high, where=known, color=colour, alpha=0.25, linewidth=0, zorder=3)


def curve_points(results: xr.Dataset, variable: str) -> tuple[np.ndarray, np.ndarray]:
    """The points of a curve: mean environment steps [k] (or iterations), and the runs' values there [n, k]."""
    runs = results[variable].transpose("seed", "iteration").values
    if "steps" in results:
        steps = np.cumsum(results.steps.transpose("seed", "iteration").values, axis=1, dtype=float).mean(0)
    else:
        steps = results.iteration.values.astype(float)
    together = -(-len(steps) // POINTS)
    kept = len(steps) // together * together
    runs = runs[:, -kept:].reshape(len(runs), -1, together).mean(-1)
    return steps[-kept:].reshape(-1, together).mean(-1), runs


def draw_curve(axes: Axes, results: xr.Dataset, variable: str, colour: object, label: str, alone: bool) -> None:
    """Draw the interquartile mean over seeds, its interval, and if it is alone the runs behind it."""
    steps, runs = curve_points(results, variable)
    interval = confidence_interval(runs)
    if alone:
        for run in runs[:: max(1, len(runs) // RUNS_SHOWN)][:RUNS_SHOWN]:
            axes.plot(steps, run, color="0.5", linewidth=0.4, alpha=0.35, zorder=1)
        axes.plot([], [], color="0.5", linewidth=0.8, label=f"{min(len(runs), RUNS_SHOWN)} of {len(runs)} runs")
        least, most = tolerance_interval(runs)
        if np.isfinite(least).all():
            axes.fill_between(
                steps,
                least,
                most,
                color=colour,
                alpha=0.12,
                linewidth=0,
                label="90% of runs (95% confidence)",
                zorder=2,
            )
        label = ("interquartile mean, 95% interval" if np.isfinite(interval).all() else "interquartile mean") + label
    band(axes, steps, interquartile_mean(runs), interval, colour, label)
