"""How far a computation has come, on standard error: a bar on a terminal, a line now and then in a log file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

LINE_SECONDS = 30.0  # from one line to the next, where standard error is no terminal


@contextlib.contextmanager
def progress_of(total: int, shown: bool = True) -> Iterator[Callable[[int, str], None]]:
    """What to call with how much of a whole is done, and a text that stands beside it, as long as the context lasts.

    Args:
        total: The whole, in iterations of all runs.
        shown: False to say nothing.
    """
    if not shown:
        yield lambda done, text: None
    elif sys.stderr.isatty():
        with tqdm(total=total, unit="it", mininterval=0.5) as bar:

            def move(done: int, text: str) -> None:
                bar.set_postfix_str(text, refresh=False)
                bar.update(done - bar.n)

            yield move
    else:
        begun = said = time.monotonic()
        unsaid = ""

        def note(done: int, text: str) -> None:
            nonlocal said, unsaid
            now = time.monotonic()
            unsaid = f"{done} of {total} iterations ({done / total:.0%}) after {now - begun:.0f} s, {text}"
            if now - said >= LINE_SECONDS:
                print(unsaid, file=sys.stderr, flush=True)
                said, unsaid = now, ""

        try:
            yield note
        finally:
            if unsaid:
                print(unsaid, file=sys.stderr, flush=True)
