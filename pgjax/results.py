"""Labelled results on disk: an xarray dataset in a zarr store that belongs to one configuration.

A store is laid out whole before the first run, filled with NaN, and then written a region at a time. What is in it is
exactly what finished: a run counts once `completed` says so, which is written after its numbers.
"""

import contextlib
import datetime as dt
import fcntl
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
import zarr.storage

from pgjax.errors import InputError

STORE = "results.zarr"
SEEDS_PER_CHUNK = 256
Store = str | zarr.storage.MemoryStore


def provenance() -> dict[str, str]:
    """Return where results come from: git revision, versions, device, time."""
    package = Path(__file__).parent
    git = ["git", "-C", str(package)]

    def ask(*words: str) -> str:
        return subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        inside = Path(ask("rev-parse", "--show-toplevel")) == package.parent  # and not installed in another project
        revision = ask("rev-parse", "HEAD") if inside else "unknown"
        revision += "-modified" if inside and ask("status", "--porcelain") else ""
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown"
    packages = ("pgjax", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
    devices = jax.devices()
    return {
        "git_revision": revision,
        "versions": json.dumps(versions),
        "device": f"{len(devices)} x {devices[0].device_kind}, {platform.machine()}, {os.cpu_count()} cores",
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def canonical(configuration: Mapping[str, Any]) -> str:
    """Return a configuration as JSON text in which equal configurations are equal.

    Raises:
        InputError: If it holds something JSON cannot.
    """
    try:
        return json.dumps(configuration, sort_keys=True)
    except TypeError as error:
        raise InputError(f"expected a configuration of plain numbers, texts, lists and mappings: {error}") from error


def differences(ours: str, theirs: str) -> str:
    """Return in words where two canonical configurations differ."""

    def flat(tree: dict[str, Any]) -> dict[str, Any]:
        inner = {f"{key}.{k}": v for key, value in tree.items() if isinstance(value, dict) for k, v in value.items()}
        return inner | {key: value for key, value in tree.items() if not isinstance(value, dict)}

    a, b = flat(json.loads(ours)), flat(json.loads(theirs))
    differing = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return ", ".join(f"{key} is {b.get(key)!r} there and {a.get(key)!r} here" for key in differing[:4])


def check_directory(out: Path, configuration: Mapping[str, Any]) -> None:
    """Raise unless results of this configuration may be written into this directory.

    It may be new, empty, or hold results of the very same configuration, finished or not. Nothing is changed.

    Raises:
        InputError: If it holds anything else or cannot be written.
    """
    text = canonical(configuration)
    try:
        existing = out
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise InputError(f"expected a directory for results, got the file {existing}")
        if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(f"expected a directory that can be written, got {out}: no permission in {existing}")
        if not out.exists() or not any(path for path in out.iterdir() if not path.name.startswith(f".{STORE}")):
            return
    except OSError as error:
        raise InputError(f"expected a directory that can be written, got {out}: {error.strerror}") from error
    store = out / STORE
    if not store.is_dir():
        raise InputError(f"expected a new directory or one with results of pgjax, got {out}, which holds other files")
    try:
        found = xr.open_zarr(str(store), consolidated=False).attrs["configuration"]
    except Exception as error:
        raise InputError(f"expected results of pgjax in {store}, got something unreadable: {error}") from error
    if found != text:
        raise InputError(
            f"expected a new directory or one with results of this configuration, got {out}: {differences(text, found)}"
        )


def create(
    out: Path | None,
    configuration: Mapping[str, Any],
    axes: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    iterations: int,
    variables: Sequence[str],
) -> Store:
    """Lay out an empty store, or find the one that is there, and return it.

    Args:
        out: The directory it belongs into; None keeps it in memory.
        configuration: What tells these results from others.
        axes: Hyper-parameters and their values, the first dimensions.
        seeds: Numbers of the runs, the next dimension.
        iterations: Length of every curve, the last dimension.
        variables: Names of the curves.

    Raises:
        InputError: See `check_directory`.
    """
    if out is not None:
        check_directory(out, configuration)
        if (out / STORE).is_dir():
            return str(out / STORE)
    runs = (*axes, "seed")
    shape = (*(len(values) for values in axes.values()), len(seeds))
    chunks = (*(1 for _ in axes), min(len(seeds), SEEDS_PER_CHUNK))
    nan = np.float32(np.nan)
    data: dict[str, Any] = {
        name: ((*runs, "iteration"), np.broadcast_to(nan, (*shape, iterations))) for name in variables
    }
    data["seconds"] = (runs, np.broadcast_to(nan, shape))
    data["completed"] = (runs, np.zeros(shape, bool))
    coordinates = {name: np.asarray(values, float) for name, values in axes.items()}
    coordinates |= {"seed": np.asarray(seeds, np.int64), "iteration": np.arange(1, iterations + 1)}
    dataset = xr.Dataset(data, coordinates, {"configuration": canonical(configuration), **provenance()})
    encoding: dict[str, Any] = {name: {"chunks": (*chunks, iterations)} for name in variables}
    encoding |= {name: {"chunks": chunks} for name in ("seconds", "completed")}
    if out is None:
        memory = zarr.storage.MemoryStore()
        dataset.to_zarr(memory, encoding=encoding, consolidated=False)
        return memory
    try:
        out.mkdir(parents=True, exist_ok=True)
        laid_out = tempfile.mkdtemp(prefix=f".{STORE}", dir=out)
    except OSError as error:
        raise InputError(f"expected a directory that can be written, got {out}: {error.strerror}") from error
    dataset.to_zarr(laid_out, mode="w", encoding=encoding, consolidated=False)
    Path(laid_out).chmod(0o755)  # a temporary directory is private
    Path(laid_out).rename(out / STORE)
    return str(out / STORE)


Piece = tuple[Mapping[str, slice], Mapping[str, np.ndarray]]


def write(store: Store, pieces: Sequence[Piece], seconds: float) -> None:
    """Write the runs of a batch, then mark them as completed.

    Args:
        store: From `create`.
        pieces: For each region, a slice for each dimension of the runs (one point of the grid, and some seeds), and its
            curves [seeds, iterations].
        seconds: What one run's share of the computation took.
    """
    marks = []
    for region, curves in pieces:
        runs = tuple(region)
        shape = tuple(cut.stop - cut.start for cut in region.values())
        data: dict[str, Any] = {
            name: ((*runs, "iteration"), curve.reshape(*shape, -1)) for name, curve in curves.items()
        }
        data["seconds"] = (runs, np.full(shape, seconds, np.float32))
        xr.Dataset(data).to_zarr(store, region=dict(region) | {"iteration": slice(None)}, consolidated=False)
        marks.append((xr.Dataset({"completed": (runs, np.ones(shape, bool))}), dict(region)))
    for done, where in marks:
        done.to_zarr(store, region=where, consolidated=False)


@contextlib.contextmanager
def alone(store: Store) -> Iterator[None]:
    """Hold a store on disk for this process, as long as the context lasts.

    Raises:
        InputError: If another process holds it.
    """
    if not isinstance(store, str):
        yield
        return
    handle = os.open(store, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"expected results that no other process writes, got {store}, which one does") from error
        yield
    finally:
        os.close(handle)


def read(store: Store | Path) -> xr.Dataset:
    """Return a store's dataset, loaded when it is used.

    Args:
        store: From `create`, or the directory that was given to a sweep as `out`.

    Raises:
        InputError: If there are no results.
    """
    if isinstance(store, str | Path):
        path = Path(store)
        path = path / STORE if path.name != STORE else path
        if not path.is_dir():
            raise InputError(f"expected a directory with {STORE}, got {store}")
        store = str(path)
    return xr.open_zarr(store, consolidated=False)
