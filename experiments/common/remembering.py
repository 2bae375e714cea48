"""Numbers that a study computes one after the other, and need not compute again."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common import tables
from pgjax.errors import InputError


def remembered(
    path: Path, asked: Mapping[str, Any], rows: Mapping[str, Callable[[], Mapping[str, Any]]]
) -> dict[str, dict[str, Any]]:
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
