"""Numbers that a study computes one after the other, and need not compute again; and what it tells of them."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from common import launch, tables
from pgjax.errors import InputError

Row = Mapping[str, Any]  # plain numbers
Rows = Mapping[str, Row]  # by name


def remembered(path: Path, asked: Row, rows: Mapping[str, Callable[[], Row]]) -> dict[str, dict[str, Any]]:
    """Rows of plain numbers by name: those that a file has, and the others, each written when it is known.

    Args:
        path: A file of JSON, which need not be there.
        asked: The options that the numbers depend on, as JSON has them.
        rows: What computes each row.

    Raises:
        InputError: If the file's rows are of other options.
    """
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"options": asked, "rows": {}}
    if known["options"] != asked:
        raise InputError(f"expected a new directory, or the options of {path}, got {asked}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, compute in rows.items():
        if name not in known["rows"]:
            known["rows"][name] = compute()
            tables.write_json(path, known)
            print(f"{name}: done", flush=True)
    return {name: known["rows"][name] for name in rows}


def report(
    options: launch.Runs,
    asked: Collection[str],
    rows: Mapping[str, Callable[[], Row]],
    draw: Callable[[Any, Rows], Figure],
    line: Callable[[Any, Row], Row],
    figure: str,
    only_drawn: Collection[str] = (),
) -> None:
    """Compute the rows of a study; write rows.json, summary.json and the figure into its directory; print a table.

    Args:
        options: The study's.
        asked: Names of the options, beside those of `Runs`, on which all rows depend.
        rows: What computes each row, see `remembered`.
        draw: What draws them, from the options and the rows.
        line: What the table says of a row, from the options and the row.
        figure: The figure's file.
        only_drawn: Entries of a row that are not in the summary.

    Raises:
        InputError: If the directory is another study's, or has rows of other options.
    """
    launch.check_directory_of_study(options.out, {"rows.json", "summary.json", figure})
    values = {name: getattr(options, name) for name in (*asked, "seeds", "first_seed", "study")}
    chosen = json.loads(json.dumps(values))  # as a file has them
    found = remembered(options.out / "rows.json", chosen, rows)
    kept = {name: {what: row[what] for what in row if what not in only_drawn} for name, row in found.items()}
    tables.write_json(options.out / "summary.json", {"options": chosen, "rows": kept})
    draw(options, found).savefig(options.out / figure, dpi=150)
    tables.print_lines([{"": name, **line(options, row)} for name, row in found.items()])
