"""Numbers as tables and files have them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pgjax.analysis.comparisons import compare_methods
from pgjax.analysis.speed import Reached, median_steps
from pgjax.analysis.statistics import (
    confidence_interval,
    interquartile_mean,
    plain_interval,
    proportion_interval,
    shown,
)
from pgjax.paths import replacing


def average_of(runs: Any) -> dict[str, Any]:
    """The interquartile mean of runs [n], iqm, and its 95% interval (None of a single run), as plain numbers."""
    return {"iqm": float(interquartile_mean(runs)), "interval": plain_interval(confidence_interval(runs))}


def average_of_finite(runs: np.ndarray) -> dict[str, Any]:
    """`average_of` those runs [n] whose number is finite; None if there are none."""
    good = runs[np.isfinite(runs)]
    return average_of(good) if len(good) else {"iqm": None, "interval": None}


def share_of(name: str, of: np.ndarray) -> dict[str, Any]:
    """The share of runs [n] of which something is true, and its 95% interval, as two entries of a row."""
    return {name: int(of.sum()) / len(of), f"{name}_interval": proportion_interval(int(of.sum()), len(of))}


def median_of(runs: Reached, scale: float = 1.0) -> dict[str, Any]:
    """The median of when runs reached something, times a scale, and its 95% interval; None where it was not seen."""
    half = [scale * float(number) for number in median_steps(runs)]
    return {"median": half[0] if np.isfinite(half[0]) else None, "interval": plain_interval(half[1:])}


def written(number: float | None, form: str = ".4g") -> str:
    """A number as tables have it, "-" if there is none."""
    return "-" if number is None else f"{number:{form}}"


def written_interval(bounds: Sequence[float] | None) -> str:
    """An interval as tables have it, "-" if there is none."""
    return "-" if bounds is None else f"[{written(bounds[0])}, {written(bounds[1])}]"


def written_median(found: Mapping[str, Any], form: str = ".4g") -> str:
    """What `median_of` found, as tables have it."""
    return f"{written(found['median'], form)} {written_interval(found['interval'])}"


def comparison_table(finals: Mapping[str, Any], paired: bool) -> pd.DataFrame:
    """How the final returns [seeds] of each pair of methods differ, see `pgjax.analysis.compare_methods`."""
    lines = []
    for row in compare_methods(finals, paired=paired):
        line = {"A": row["a"], "B": row["b"], "runs": " and ".join(map(str, row["runs"]))}
        line["IQM of A less B"] = written(row["difference"])
        line["95% interval"] = written_interval(row["interval"])
        if paired:
            line["gain of pairing"] = written(row["gain"], ".2g")
        line["P(A better)"] = written(row["improvement"], ".1%")
        line["95% interval of P"] = written_interval(row["improvement_interval"])
        line["p (Holm)"] = written(row["p_holm"], ".2g")
        lines.append(line)
    return pd.DataFrame(lines)


def print_lines(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print the lines of a table, {column: what it says}, with "-" where one lacks a column."""
    print(pd.DataFrame(lines).fillna("-").to_string(index=False))


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of `pgjax.summarize` as a table, and below it the seeds that failed, if any did."""
    print(table_of(rows).to_string(index=False))
    for sentence in failures_of(rows):
        print(sentence)


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of `pgjax.summarize` as a table."""
    lines = []
    for row in rows:
        line = {name: shown(value) for name, value in hyperparameters_of(row).items()}
        line["runs"] = str(row["seeds"])
        line["failed"] = str(len(row["failed_seeds"]))
        line["final return (IQM)"] = written(row["iqm"])
        line["IQM, 95% interval"] = written_interval(row["interval"])
        line["90% of runs"] = written_interval(row["tolerance_interval"])
        line["solved"] = written(row["solved_fraction"], ".1%")
        line["solved, 95% interval"] = written_interval(row["solved_interval"])
        line["steps"] = f"{row['environment_steps']:.3g}"
        lines.append(line)
    return pd.DataFrame(lines)


def failures_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each of the rows of `pgjax.summarize` with seeds that failed."""
    sentences = []
    for row in rows:
        if row["failed_seeds"]:
            where = ", ".join(f"{name} {shown(value)}" for name, value in hyperparameters_of(row).items())
            at = f" at {where}" if where else ""
            sentences.append(f"numbers that are not finite{at} in seeds: {some(row['failed_seeds'])}")
    return sentences


def some(numbers: Sequence[int], most: int = 20) -> str:
    """The first of some numbers as a sentence has them."""
    return ", ".join(map(str, numbers[:most])) + (", …" if len(numbers) > most else "")


def hyperparameters_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The hyper-parameters of a row of `pgjax.summarize`: what stands before its results."""
    names = list(row)
    return {name: row[name] for name in names[: names.index("seeds")]}


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, never half of it."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a summary, as `write_text` does."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
