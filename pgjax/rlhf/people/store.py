"""The file that people's answers go into: JSON lines that are only ever added to, on the disk before they are thanked.

It is a file of rankings itself (`pgjax.rlhf.ranking_lines` reads it at any time), so nothing has to be taken out of a
database. A write and an fsync a batch of answers make it survive `kill -9` at any moment: what was acknowledged is
there, and a last line that was cut off was not acknowledged, and goes when the file is opened again. SQLite's journal
would do as well, beside a second format.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pgjax.errors import InputError
from pgjax.paths import full_path
from pgjax.rlhf.formats import parsed


class Store:
    """A file of answers that one process at a time adds to."""

    path: Path
    events: list[dict[str, Any]]  # the fields of each line that it had when it was opened

    def __init__(self, path: str | Path) -> None:
        """Open the file, or make it.

        Raises:
            InputError: If it cannot be written, another process has it open, or a line is no object of JSON.
        """
        self.path = full_path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise InputError(f"expected a file that can be written, got {self.path}: {error.strerror}") from error
        try:
            self._lock()
            self.events = self._read()
        except BaseException:
            os.close(self._file)
            raise
        directory = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(directory)  # the name of a new file too
        os.close(directory)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"expected a file of answers that no other server has open, got {self.path}, which one has"
            ) from error

    def _read(self) -> list[dict[str, Any]]:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        rest = content[whole:]
        if rest.strip():
            try:
                json.loads(rest)
                os.write(self._file, b"\n")  # of an editor that ends the last line with nothing
            except ValueError:
                os.ftruncate(self._file, whole)
                content = content[:whole]
            os.fsync(self._file)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"expected answers in UTF-8 in {self.path}, got a byte that is none") from error
        lines = text.rstrip(" \t\r\n").split("\n") if text.strip() else []
        return [parsed(f"{self.path}, line {number}", line) for number, line in enumerate(lines, 1)]

    def append(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Add lines; they are on the disk when this returns, and none of them is there if it raises.

        Raises:
            OSError: If the disk does not take them.
        """
        data = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events).encode()
        before = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, before)
            raise

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._file)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
