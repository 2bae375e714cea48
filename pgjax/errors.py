"""What a person is told: the one exception that a wrong input raises, and sentences beside a progress bar."""

import re
import sys
from typing import Any

from tqdm import tqdm


class InputError(ValueError):
    """Something the caller gave cannot be used; the message says what was expected and what came.

    The library raises it before anything is compiled or written, but for what only computing or writing shows: a run
    that does not fit into memory, a disk that is full. The experiments print the message and end with exit status 2.
    """


class HostError(InputError):
    """What a function on the host did, or did not do, in the midst of a compiled program."""


def say(sentence: str) -> None:
    """Print a sentence to the standard error stream, above a progress bar if there is one."""
    tqdm.write(sentence, file=sys.stderr)


def needed(module: str, extra: str | None = None) -> Any:
    """A package that is imported only where it is used, with this module of it, or itself.

    Raises:
        InputError: If it is not installed; it says which extra of pgjax has it, if one has.
    """
    try:
        return __import__(module)
    except ImportError as error:
        name = module.partition(".")[0]
        wanted = name if extra is None else f'"pgjax[{extra}]"'
        raise InputError(f"expected {name} to be installed (pip install {wanted}), got: {error}") from error


def raised_on_host(error: Exception) -> HostError | None:
    """The `HostError` that JAX quotes when a compiled program ends with it; None if it is another error."""
    raised = re.findall(rf"^ *(?:{HostError.__module__}\.)?{HostError.__name__}: (.*)$", str(error), re.MULTILINE)
    return HostError(raised[-1]) if raised else None


def first_line(error: Exception) -> str:
    """The beginning of what an error says."""
    return (str(error) or type(error).__name__).splitlines()[0]
