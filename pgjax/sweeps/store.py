"""Labelled results on disk: an xarray dataset in a zarr store that belongs to one configuration.

A store is laid out whole before the first run, filled with NaN, and then written a region at a time. What is in it is
exactly what finished: a run counts once `completed` says so, which is written after its numbers. Final parameters are
in a group of their own, an array for each leaf of the tree.

Along the points of the grid and the seeds a store is made of chunks. Processes deal these out among themselves, so that
each writes files that no other touches, and lock the ones they write.
"""

import contextlib
import fcntl
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
import zarr.storage

from pgjax import trees
from pgjax.errors import InputError, first_line
from pgjax.paths import full_path
from pgjax.sweeps.provenance import canonical, differences, provenance
from pgjax.trees import PyTree

RESERVED = ("seconds", "completed", "seed", "iteration", "params")  # names in a store that no curve may have
STORE = "results.zarr"
LOCK = f".{STORE}.lock"
PARAMS = "params"  # the group of final parameters
SEEDS_PER_CHUNK = 256
BYTES_PER_CHUNK = 2**24  # of a leaf of the parameters, if a run's is not larger already
Store = str | zarr.storage.MemoryStore


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
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # `check_whole` says what is missing
            found = xr.open_zarr(str(store), consolidated=False).attrs["configuration"]
    except Exception as error:
        raise InputError(f"expected results of pgjax in {store}, got something unreadable: {error}") from error
    if found != text:
        raise InputError(
            f"expected a new directory or one with results of this configuration, got {out}: {differences(text, found)}"
        )


def check_whole(store: Path, variables: Sequence[str]) -> None:
    """Raise unless every curve and label of a store is there and can be read.

    Raises:
        InputError: If not; for example because a file is cut short. A file that is gone is not missed.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            arrays = dict(zarr.open_group(store, mode="r").arrays())
        absent = {*map(trees.stored, variables), "seconds", "completed", "seed", "iteration"} - set(arrays)
        for array in arrays.values():
            for chunk in np.ndindex(array.cdata_shape):  # one after the other, as they may be large
                array.blocks[chunk]
    except Exception as error:
        raise InputError(
            f"expected results of pgjax in {store}, got something unreadable: {first_line(error)}"
        ) from error
    if absent:
        raise InputError(
            f"expected whole results of this version of pgjax in {store}, got some without {trees.shown(min(absent))}"
        )


def seeds_per_chunk(points: int, seeds: int, processes: int) -> int:
    """How many seeds share a chunk: a power of two, so that every process has its part of the chunks."""
    chunk = SEEDS_PER_CHUNK
    while chunk > 1:
        chunks = points * math.ceil(seeds / chunk)
        if chunks % processes == 0 or chunks >= 8 * processes:
            break
        chunk //= 2
    return min(chunk, seeds)


def create(
    out: Path | None,
    configuration: Mapping[str, Any],
    axes: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    iterations: int,
    variables: Sequence[str],
    params: PyTree = None,
    processes: int = 1,
) -> Store:
    """Lay out an empty store, or find the one that is there, and return it.

    Of several processes that do so at the same time, one lays it out and the others find it.

    Args:
        out: The directory it belongs into; None keeps it in memory.
        configuration: What tells these results from others.
        axes: Hyper-parameters and their values, the first dimensions.
        seeds: Numbers of the runs, the next dimension.
        iterations: Length of every curve, the last dimension.
        variables: Names of the curves.
        params: Arrays of the shapes and types of one run's final parameters, or what stands for them; an empty tree if
            they are not kept.
        processes: How many processes will share the runs.

    Raises:
        InputError: See `check_directory`; if the store that is there is damaged, or the disk is full.
    """
    if out is None:
        memory = zarr.storage.MemoryStore()
        lay_out(memory, configuration, axes, seeds, iterations, variables, params, processes)
        return memory
    check_directory(out, configuration)
    if not (out / STORE).is_dir():
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{STORE}", dir=out, ignore_cleanup_errors=True) as laid_out:
                lay_out(laid_out, configuration, axes, seeds, iterations, variables, params, processes)
                Path(laid_out).chmod(0o755)  # a temporary directory is private
                with contextlib.suppress(OSError):  # if another process was faster
                    Path(laid_out).rename(out / STORE)
        except OSError as error:
            raise InputError(f"expected a directory that can be written, got {out}: {error.strerror}") from error
        check_directory(out, configuration)
    check_whole(out / STORE, variables)
    return str(out / STORE)


def lay_out(
    store: Store,
    configuration: Mapping[str, Any],
    axes: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    iterations: int,
    variables: Sequence[str],
    params: PyTree,
    processes: int,
) -> None:
    """Write the labels of a store, and numbers that say that nothing is there yet; see `create`."""
    axes = {trees.stored(name): values for name, values in axes.items()}
    variables = [trees.stored(name) for name in variables]
    runs = (*axes, "seed")
    shape = (*(len(values) for values in axes.values()), len(seeds))
    chunk = seeds_per_chunk(math.prod(shape[:-1]), len(seeds), processes)
    chunks = (*(1 for _ in axes), chunk)
    nan = np.float32(np.nan)
    data: dict[str, Any] = {
        name: ((*runs, "iteration"), np.broadcast_to(nan, (*shape, iterations))) for name in variables
    }
    data["seconds"] = (runs, np.broadcast_to(nan, shape))
    data["completed"] = (runs, np.zeros(shape, bool))
    coordinates = {name: np.asarray(values) for name, values in axes.items()}
    coordinates |= {"seed": np.asarray(seeds, np.int64), "iteration": np.arange(1, iterations + 1)}
    dataset = xr.Dataset(data, coordinates, {"configuration": canonical(configuration), **provenance()})
    encoding: dict[str, Any] = {name: {"chunks": (*chunks, iterations)} for name in variables}
    encoding |= {name: {"chunks": chunks} for name in ("seconds", "completed")}
    dataset.to_zarr(store, mode="w", encoding=encoding, consolidated=False)
    if not jax.tree.leaves(params):
        return
    group = zarr.open_group(store, path=PARAMS, mode="w")
    for name, leaf in zip(trees.names(params), jax.tree.leaves(params), strict=True):
        inner, dtype = trees.plain_like(leaf)
        together = chunk
        while together > 1 and together * math.prod(inner) * dtype.itemsize > BYTES_PER_CHUNK:
            together //= 2
        group.create_array(
            name,
            shape=(*shape, *inner),
            chunks=(*(1 for _ in axes), together, *(max(size, 1) for size in inner)),
            dtype=dtype,
            dimension_names=[*runs, *(f"{name}.{i}" for i in range(len(inner)))],
            compressors=None,  # the mantissas of trained weights are noise
        )


class Share(NamedTuple):
    """What one of the processes of a sweep computes and writes."""

    chunks: range
    runs: range


def partition(points: int, seeds: int, chunk: int, process: int, processes: int) -> Share:
    """A process's part of the chunks and the runs in them.

    Args:
        points: Points of the grid.
        seeds: Runs at each.
        chunk: How many of these share a chunk.
        process: The number of the process.
        processes: How many there are.
    """
    per_point = math.ceil(seeds / chunk)
    first, last = (points * per_point * p // processes for p in (process, process + 1))
    begin, end = (k // per_point * seeds + k % per_point * chunk for k in (first, last))
    return Share(range(first, last), range(begin, end))


def share(store: Store, process: int = 0, processes: int = 1) -> Share:
    """A process's part of a store, see `partition`; errors are those of `read`."""
    completed = read(store).completed
    points, seeds = math.prod(completed.shape[:-1]), completed.shape[-1]
    return partition(points, seeds, completed.encoding["chunks"][-1], process, processes)


def completed(store: Store) -> np.ndarray:
    """Whether each run, in order, is completed, [runs] bool; errors are those of `read`."""
    return read(store).completed.values.reshape(-1)


def keeps_params(store: Store) -> bool:
    """Whether a store has a place for final parameters."""
    return PARAMS in set(zarr.open_group(store, mode="r").group_keys())


class Piece(NamedTuple):
    """Some runs of one point of the grid, side by side in a store."""

    region: Mapping[str, slice]  # for each dimension of the runs
    curves: Mapping[str, np.ndarray]  # [seeds, iterations]
    params: Mapping[str, np.ndarray]  # [seeds, ...] by the names of the leaves; empty if they are not kept


def write(store: Store, pieces: Sequence[Piece], seconds: float) -> None:
    """Write the runs of a batch, then mark them as completed.

    Args:
        store: From `create`.
        pieces: The runs.
        seconds: What one run's share of the computation took.

    Raises:
        InputError: If the disk is full, or what is there is damaged.
    """
    try:
        for piece in pieces:
            write_piece(store, piece, seconds)
        for piece in pieces:
            region = {trees.stored(name): cut for name, cut in piece.region.items()}
            shape = tuple(cut.stop - cut.start for cut in region.values())
            mark = xr.Dataset({"completed": (tuple(region), np.ones(shape, bool))})
            mark.to_zarr(store, region=region, consolidated=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"expected results that can be written, got {store}: {first_line(error)}; what is finished is kept, and "
            "the same command goes on from there"
        ) from error


def write_piece(store: Store, piece: Piece, seconds: float) -> None:
    """Write the numbers of some runs, but not that they are completed."""
    region = {trees.stored(name): cut for name, cut in piece.region.items()}
    runs, shape = tuple(region), tuple(cut.stop - cut.start for cut in region.values())
    data: dict[str, Any] = {
        trees.stored(name): ((*runs, "iteration"), curve.reshape(*shape, -1)) for name, curve in piece.curves.items()
    }
    data["seconds"] = (runs, np.full(shape, seconds, np.float32))
    xr.Dataset(data).to_zarr(store, region=region | {"iteration": slice(None)}, consolidated=False)
    for name, leaf in piece.params.items():
        array = zarr.open_array(store, path=f"{PARAMS}/{name}", mode="r+")
        array[tuple(piece.region.values())] = leaf.reshape(*shape, *leaf.shape[1:])


@contextlib.contextmanager
def locked(store: Store, chunks: range) -> Iterator[None]:
    """Hold some chunks of a store on disk for this process, as long as the context lasts.

    A process may hold chunks of a store once at a time.

    Raises:
        InputError: If another process holds one of them.
    """
    if not isinstance(store, str) or not chunks:
        yield
        return
    try:
        handle = os.open(Path(store).with_name(LOCK), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"expected a directory that can be written, got {store}: {error.strerror}") from error
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, len(chunks), chunks.start)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(f"expected results that no other process writes, got {store}, which one does") from error
        except OSError as error:
            raise InputError(
                f"expected a directory whose files can be locked, got {store}: {error.strerror}"
            ) from error
        yield
    finally:
        os.close(handle)


def read(store: Store | Path) -> xr.Dataset:
    """A store's dataset, such as `sweep` returns, also of one that goes on; numbers are loaded when used.

    Args:
        store: From `create`, or the directory that was given to a sweep as `out`, or results.zarr in it.

    Raises:
        InputError: If there are no results.
    """
    if isinstance(store, str | Path):
        path = full_path(store)
        path = path / STORE if path.name != STORE else path
        if not path.is_dir():
            raise InputError(f"expected a directory with {STORE}, got {store}")
        store = str(path)
    dataset = xr.open_zarr(store, consolidated=False)
    stored = {str(name): trees.shown(str(name)) for name in (*dataset.variables, *dataset.dims)}
    dataset = dataset.rename({name: shown for name, shown in stored.items() if name != shown})
    dataset = dataset[sorted(map(str, dataset.data_vars))]  # which come in any order
    dataset.encoding["source"] = store  # where `load_params` finds the rest
    return dataset
