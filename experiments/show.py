"""What did these sweeps find, and which is better? Tables, curves and one report, also while they run.

Prints a table for each directory DIR of results, and for several of them how each pair differs in the final returns of
its best points. Writes all of that, with the configurations, where the results come from, the figures and what failed,
as one HTML file that needs no other. Of sweeps that go on, the runs that are completed are shown. It takes some
seconds.
"""

import base64
import html
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import tyro
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

import pgjax
from common import launch, names, tables
from pgjax.analysis.plotting import STEPS, add_legend, draw_curve, dress_curves, literal
from pgjax.analysis.statistics import common_steps, failed, final_return, interquartile_mean, shown
from pgjax.environments.drawings import COLOURS
from pgjax.sweeps.load import configuration_of

STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 85% } th, td { padding: .2em .7em; text-align: right }
tr:nth-child(even) { background: #f2f2f2 } img { max-width: 100% } pre { white-space: pre-wrap; font-size: 80% }
"""


@dataclass(frozen=True)
class Options:
    """Which results, and where the report goes."""

    directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of results."""
    join: bool = False
    """Whether they are parts of one sweep, to be put together."""
    paired: bool = False
    """Whether runs of the same seed share randomness, and are compared in pairs."""
    equal_steps: bool = False
    """Whether runs are compared after equally many environment steps: as many as every run had."""
    variable: str = "episode_return"
    """Which curves are drawn."""
    solved_at: float | None = None
    """Final return from which a run counts as solved; by default gymnasium's, if the environment has one."""
    out: Path = Path("results/report.html")
    """File to write."""


class Sweep(NamedTuple):
    """What is shown of a sweep."""

    name: str
    results: xr.Dataset
    points: dict[str, xr.Dataset]  # completed runs [seed] of each point of the grid, by its values
    rows: list[dict[str, Any]]  # of `pgjax.summarize`, where there are returns of episodes
    best: str  # the point with the highest interquartile mean


def shown_sweep(name: str, results: xr.Dataset, options: Options) -> Sweep:
    """What is shown of results, of which some runs may be missing.

    Raises:
        InputError: If they are no sweep's or have no such curves.
    """
    made = configuration_of(results)
    if options.variable not in results:
        curves = ", ".join(str(name) for name, array in results.data_vars.items() if "iteration" in array.dims)
        raise pgjax.InputError(f"expected --variable among {curves}, got {options.variable}")
    solved_at = names.SOLVED_AT.get(made.get("env", "")) if options.solved_at is None else options.solved_at
    axes = [str(axis) for axis in results.completed.dims if axis != "seed"]
    points, rows, best = {}, [], ("", -np.inf)
    for index in np.ndindex(*(results.sizes[axis] for axis in axes)):
        here = results.isel(dict(zip(axes, index, strict=True)))
        here = here.isel(seed=here.completed.values).load()
        if not here.sizes["seed"]:
            continue
        values = {axis: here[axis].item() for axis in axes}
        label = ", ".join(f"{axis.replace('_', ' ')} {shown(value)}" for axis, value in values.items())
        points[label] = here
        if {"episode_return", "episodes", "steps"} <= set(here.data_vars):
            [row] = pgjax.summarize(here, solved_at)
            rows.append(values | row)
            finals = final_return(here).fillna(-np.inf).values
            best = max(best, (label, float(interquartile_mean(finals))), key=lambda one: one[1])
    return Sweep(name=name, results=results, points=points, rows=rows, best=best[0])


def comparison(sweeps: list[Sweep], options: Options) -> tuple[pd.DataFrame, str]:
    """How the final returns of each pair of sweeps differ, at the best point of each, and where they are taken."""
    best = {sweep.name: sweep.points[sweep.best] for sweep in sweeps}
    steps = common_steps(best.values()) if options.equal_steps else np.inf
    finals = {name: final_return(runs, steps=steps) for name, runs in best.items()}
    if options.paired:
        common = sorted(set.intersection(*(set(runs.seed.values.tolist()) for runs in finals.values())))
        finals = {name: runs.sel(seed=common) for name, runs in finals.items()}
    ends = f"within the first {steps:.3g} steps of each run" if options.equal_steps else "at the end of each run"
    return tables.comparison_table(finals, options.paired), f"Final returns are those {ends}."


def curves_of(points: dict[str, xr.Dataset], title: str, variable: str, path: Path) -> None:
    """Draw the curves of points, of each those of the runs that did not fail."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    many = len(points)
    colours = COLOURS if many <= len(COLOURS) else [colormaps["viridis"](x) for x in np.linspace(0, 0.9, many)]
    for (label, runs), colour in zip(points.items(), colours, strict=False):
        good = ~failed(runs).values
        counted = "" if good.all() else f" ({(~good).sum()} failed)"
        if good.any():
            draw_curve(axes, runs.isel(seed=good), variable, colour, literal(label) + counted, alone=many == 1)
    against = STEPS if all("steps" in runs for runs in points.values()) else "iteration"
    what = literal(variable.replace("_", " ")) + ("" if many == 1 else " (interquartile mean, 95% interval)")
    dress_curves(axes, literal(title), against, what)
    if axes.get_legend_handles_labels()[1]:
        add_legend(axes)
    figure.savefig(path, dpi=150)


def figures_of(sweeps: list[Sweep], options: Options, directory: Path) -> dict[str, list[Path]]:
    """Draw the figures of each sweep, by its name, and of several together, by ""."""
    drawn: dict[str, list[Path]] = {"": []}

    def place(name: str = "") -> Path:
        drawn.setdefault(name, []).append(directory / f"{len(drawn)}-{len(drawn.get(name, []))}.png")
        return drawn[name][-1]

    ready = [sweep for sweep in sweeps if sweep.points]
    for sweep in ready:
        curves_of(sweep.points, sweep.name, options.variable, place(sweep.name))
        axes = [axis for axis in sweep.results.completed.dims if axis != "seed"]
        if axes and sweep.rows and bool(sweep.results.completed.all()):
            pgjax.analysis.sensitivity_curves({sweep.name: sweep.results}, place(sweep.name), sweep.name)
            if len(axes) == 2:
                pgjax.analysis.grid_map(sweep.results, place(sweep.name), sweep.name)
    if len(ready) > 1 and all(sweep.rows for sweep in ready):
        best = {
            f"{sweep.name}: {sweep.best}" if sweep.best else sweep.name: sweep.points[sweep.best] for sweep in ready
        }
        if len(ready) == 2 and not (options.paired and len({tuple(runs.seed.values) for runs in best.values()}) > 1):
            title = "the two and their difference"
            pgjax.analysis.difference_curves(best, place(), title, options.paired, options.variable)
        else:
            curves_of(best, "the best point of each", options.variable, place())
    return drawn


def report(sweeps: list[Sweep], compared: pd.DataFrame | None, figures: dict[str, list[Path]], notes: list[str]) -> str:
    """The HTML text of the report."""

    def pictures(name: str) -> list[str]:
        files = [base64.b64encode(path.read_bytes()).decode() for path in figures.get(name, [])]
        return [f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{file}"></p>' for file in files]

    title = html.escape(", ".join(sweep.name for sweep in sweeps))
    parts = [f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>']
    parts.append(f"<h1>{title}</h1>")
    if compared is not None:
        parts += ["<h2>Compared</h2>", compared.to_html(index=False, border=0), *pictures("")]
    parts += [f"<p>{html.escape(note)}</p>" for note in notes]
    for sweep in sweeps:
        parts += [f"<h2>{html.escape(sweep.name)}</h2>", f"<p>{progress_of(sweep)}</p>"]
        if sweep.rows:
            parts.append(tables.table_of(sweep.rows).to_html(index=False, border=0))
        parts += pictures(sweep.name)
        failures = tables.failures_of(sweep.rows) or ["No completed run failed."]
        parts += ["<h3>Failures</h3>", *(f"<p>{html.escape(sentence)}</p>" for sentence in failures)]
        for heading, text in {"Configuration": settings_of(sweep), "Provenance": provenance_of(sweep)}.items():
            parts += [f"<h3>{heading}</h3>", f"<pre>{html.escape(text)}</pre>"]
    return "\n".join(parts) + "\n</html>\n"


def progress_of(sweep: Sweep) -> str:
    """How many runs of a sweep are completed, in words."""
    done, total = int(sweep.results.completed.sum()), sweep.results.completed.size
    return f"{done} of {total} runs completed"


def settings_of(sweep: Sweep) -> str:
    """What a sweep was given, as text, with its seeds in short."""
    whole = json.loads(sweep.results.attrs["configuration"])
    seeds = whole["seeds"]
    whole["seeds"] = f"{len(seeds)}, from {min(seeds)} to {max(seeds)}"
    return json.dumps(whole, indent=1)


def provenance_of(sweep: Sweep) -> str:
    """Where the results of a sweep come from, as text."""
    return "\n".join(f"{name}: {text}" for name, text in sweep.results.attrs.items() if name != "configuration")


def told_apart(paths: Sequence[Path]) -> list[str]:
    """Names of directories: their own, or if those are alike, what is between the first and the last part that differ.

    Example:
        >>> told_apart([Path("tune/ppo/fresh"), Path("tune/reinforce/fresh")])
        ['ppo', 'reinforce']
    """
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    parts = [path.resolve().parts for path in paths]
    shortest = min(map(len, parts))
    differ = [len({part[i] for part in parts}) > 1 for i in range(shortest)]
    begin = differ.index(True) if True in differ else 0
    alike = next((i for i in range(shortest - begin) if len({part[-1 - i] for part in parts}) > 1), 0)
    return ["/".join(part[begin : len(part) - alike]) for part in parts]


def main(options: Options) -> None:
    """Print what the sweeps found, and write the report."""
    if not options.directories:
        raise pgjax.InputError("expected one or more directories of results, got none")
    if options.out.suffix != ".html":
        raise pgjax.InputError(f"expected a file that ends in .html, got {options.out}")
    paths = [path.expanduser() for path in options.directories]
    if options.join:
        found = {paths[0].name: pgjax.join(paths)}
    else:
        found = {name: pgjax.read(path) for name, path in zip(told_apart(paths), paths, strict=True)}
    sweeps = [shown_sweep(name, results, options) for name, results in found.items()]
    for sweep in sweeps:
        print(f"{sweep.name}: {progress_of(sweep)}")
        if sweep.rows:
            tables.print_table(sweep.rows)
        print()
    compared, notes = None, []
    ready = [sweep for sweep in sweeps if sweep.rows]
    if len(ready) > 1:
        compared, where = comparison(ready, options)
        print(f"{compared.to_string(index=False)}\n{where}")
        notes = [where]
        chosen = [f"{sweep.name} at {sweep.best}, of {len(sweep.rows)}" for sweep in ready if len(sweep.rows) > 1]
        if chosen:
            notes += [
                f"Points chosen on the very runs that are compared: {'; '.join(chosen)}. Run new seeds to report."
            ]
            print(notes[-1])
    with tempfile.TemporaryDirectory() as directory:
        figures = figures_of(sweeps, options, Path(directory))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        tables.write_text(options.out, report(sweeps, compared, figures, notes))
    print(f"written to {options.out}")


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
