"""A small sweep in a process of its own that is killed, or told to stop: `python -m tests.sweeps.disturbed OUT HOW`.

It is killed by SIGKILL at a certain point: after a checkpoint, while one is being saved, while results are being
written, or when some of a batch's runs are marked as completed and others are not.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable

import numpy as np
import zarr.storage

import pgjax
from pgjax.sweeps import batches, checkpoints
from pgjax.sweeps import store as results
from tests.sweeps.test_sweep import ALGORITHM, ASYNCHRONOUS, GRID, swept
from tests.sweeps.test_tuning import tuned

OPTIONS = {"grid": GRID, "batch": 8, "segment": 1, "checkpoint_seconds": 0}  # 30 runs in 4 batches of 7 segments


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(n: int, act: Callable[[], None]) -> Callable[[], None]:
    """A function that acts when it is called for the n-th time."""
    calls = []

    def count() -> None:
        calls.append(None)
        if len(calls) == n:
            act()

    return count


def after(module, name: str, then: Callable[[], None]) -> None:
    """Do something whenever a function of a module has returned."""
    function = getattr(module, name)

    def followed(*arguments, **options):
        found = function(*arguments, **options)
        then()
        return found

    setattr(module, name, followed)


def on_file(beginning: str, then: Callable[[], None]) -> None:
    """Do something whenever a file of the results has been written whose name begins like this."""
    write = zarr.storage.LocalStore.set

    async def followed(self, key, value):
        await write(self, key, value)
        if self.root.name == results.STORE and key.startswith(beginning):
            then()

    zarr.storage.LocalStore.set = followed


def half_saved(n: int) -> None:
    """Be killed when half of the n-th checkpoint is written."""
    save, now = np.savez, at(n, kill)

    def half(file, **arrays):
        save(file, **arrays)
        file.flush()
        file.truncate(file.tell() // 2)
        now()
        file.seek(0)
        save(file, **arrays)

    np.savez = half


def full_disk() -> None:
    """Let no file grow beyond a few bytes, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))


DISTURBANCES = {
    "after a checkpoint": lambda: after(checkpoints, "save", at(9, kill)),
    "in a checkpoint": lambda: half_saved(9),
    "in results": lambda: on_file("episode_return/c/", at(4, kill)),
    "between marks": lambda: on_file("completed/c/", at(3, kill)),
    "SIGTERM": lambda: after(batches, "go_on", at(10, lambda: os.kill(os.getpid(), signal.SIGTERM))),
    "asynchronous": lambda: after(checkpoints, "save", at(2, kill)),
    "tuning": lambda: after(batches, "write", at(8 + 2, kill)),  # the second of four batches of the second rung
    "full disk": lambda: after(batches, "write", at(1, full_disk)),
}

if __name__ == "__main__":
    out, how = sys.argv[1:]
    DISTURBANCES[how]()
    try:
        if how == "tuning":
            tuned(out=out, batch=2)
        swept(ASYNCHRONOUS if how == "asynchronous" else ALGORITHM, out=out, **OPTIONS)
    except pgjax.InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
