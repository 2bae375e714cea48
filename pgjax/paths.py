"""Paths that a user gives, completed once, where they come in; and files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pgjax.errors import InputError, first_line


def full_path(path: str | Path) -> Path:
    """The absolute path that is meant: ~ is the user's home, and a relative one begins where the process is now.

    Libraries differ in whether they know ~, and a process may go elsewhere before it writes.

    Raises:
        InputError: If there is no such user, or a null byte is in it.

    Example:
        >>> full_path("~/runs") == Path.home() / "runs"
        True
    """
    if "\0" in str(path):
        raise InputError(f"expected a path without a null byte, got {str(path)!r}")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"expected a path, got {path}: {first_line(error)}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of another at once when the context ends well.

    If it does not, the other is as it was, and nothing else is left. What is being written has a name with a dot before
    it, beside the other.

    Raises:
        OSError: If it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
