"""Results that are there: curves, configurations, parameters."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
import zarr.storage

from pgjax import trees
from pgjax.errors import InputError, first_line
from pgjax.sweeps.store import PARAMS, read
from pgjax.trees import PyTree


def configuration_of(results: xr.Dataset) -> dict[str, Any]:
    """The `configuration` that a sweep was given for these results, as plain numbers, texts, lists and so on.

    Raises:
        InputError: If they are no sweep's.
    """
    try:
        return dict(json.loads(results.attrs["configuration"])["configuration"])
    except (KeyError, ValueError) as error:
        raise InputError("expected the results of a sweep, got a dataset that does not say how it was made") from error


def opened(results: xr.Dataset | str | Path) -> xr.Dataset:
    """The whole dataset that results are of.

    Args:
        results: What `sweep` or `read` returned, or the directory that was given to a sweep as `out`.

    Raises:
        InputError: If there are no results.
    """
    source = results.encoding.get("source") if isinstance(results, xr.Dataset) else results
    if source is None:
        raise InputError("expected a dataset that a sweep or read returned, or its directory, got another one")
    return read(source)


def load_params(
    results: xr.Dataset | str | Path,
    like: PyTree,
    *,
    seed: int | None = None,
    point: Mapping[str, float] | None = None,
) -> PyTree:
    """The final parameters θ of one run of a sweep, or of the runs of all its seeds, a tree like `like`.

    Args:
        results: What `sweep` or `read` returned, or the directory that was given to a sweep as `out`.
        like: A tree of the parameters' structure, shapes and types: `jax.eval_shape(policy.init, jax.random.key(0))`.
        seed: The run; if not given, all of them are stacked, [seeds, …] in the order of the dataset's `seed`.
        point: A value of each hyper-parameter of the grid, {"learning_rate": 1e-3}.

    Raises:
        InputError: If there is no such run, it is not completed, its parameters were not kept, or they do not fit.
    """
    dataset = opened(results)
    index = where(dataset, seed, point or {})
    missing = int((~dataset.completed.values[index]).sum())
    if missing:
        raise InputError(f"expected completed runs, got {missing} that are not yet")
    store = dataset.encoding["source"]
    try:
        group = zarr.open_group(store, path=PARAMS, mode="r")
    except FileNotFoundError as error:
        raise InputError(f"expected results with parameters, got {store}, where they were not kept") from error
    names = trees.names(like)
    if set(group.array_keys()) != set(names):
        there, here = (", ".join(map(trees.shown, sorted(keys))) for keys in (group.array_keys(), names))
        raise InputError(f"expected parameters {there}, got {here}")
    found = []
    for name, leaf in zip(names, jax.tree.leaves(like), strict=True):
        array = group[name]
        assert isinstance(array, zarr.Array)
        shape, dtype = trees.plain_like(leaf)
        stored = array.shape[len(dataset.completed.shape) :]
        if (stored, array.dtype) != (shape, dtype):
            raise InputError(
                f"expected {trees.shown(name)} of shape {stored} and type {array.dtype}, got {shape} and {dtype}"
            )
        try:
            found.append(trees.unplain(np.asarray(array[index]), leaf))
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"expected parameters that can be read, got {name}: {first_line(error)}") from error
    return jax.tree.unflatten(jax.tree.structure(like), found)


def where(dataset: xr.Dataset, seed: int | None, point: Mapping[str, float]) -> tuple[int | slice, ...]:
    """The index of a run, or of all runs of a point, among those of a dataset.

    Raises:
        InputError: If there is none.
    """
    axes = [str(name) for name in dataset.completed.dims[:-1]]
    if set(axes) != set(point):
        raise InputError(f"expected a value of each of {axes or 'no hyper-parameter'}, got {list(point)}")
    index: list[int | slice] = []
    for name, value in ({axis: point[axis] for axis in axes} | {"seed": seed}).items():
        if value is None and name == "seed":
            index.append(slice(None))
            continue
        labels, wanted = dataset[name].values, np.asarray(value)
        if wanted.ndim or wanted.dtype.kind not in "iuf":
            raise InputError(f"expected {name} to be one of the results', got {value!r}")
        found = np.flatnonzero(labels == wanted)
        if not len(found) and labels.dtype.kind == "f":  # as a number that has been a float32
            found = np.flatnonzero(labels.astype(np.float32) == wanted.astype(np.float32))
        if not len(found):
            raise InputError(f"expected {name} to be one of the results', got {value}")
        index.append(int(found[0]))
    return tuple(index)
