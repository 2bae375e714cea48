"""Paths that a user gives, completed once, where they come in."""

from pathlib import Path

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
