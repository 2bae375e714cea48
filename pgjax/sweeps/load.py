"""Results that are there: curves, configurations, parameters; and those of several sweeps as of one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
import zarr.storage

from pgjax import trees
from pgjax.errors import InputError, first_line
from pgjax.sweeps.provenance import canonical, differences
from pgjax.sweeps.store import PARAMS, Store, read
from pgjax.trees import PyTree


def configuration_of(results: xr.Dataset) -> dict[str, Any]:
    """The `configuration` that a sweep was given for these results, as plain numbers, texts, lists and so on.

    Raises:
        InputError: If they are no sweep's.
    """
    return dict(whole_configuration(results)["configuration"])


def whole_configuration(results: xr.Dataset) -> dict[str, Any]:
    """All that tells the results of a sweep from others: study, seeds, grid and so on, see `pgjax.sweep`.

    Raises:
        InputError: If they are no sweep's.
    """
    try:
        whole = json.loads(results.attrs["configuration"])
        return whole | {"configuration": whole["configuration"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("expected the results of a sweep, got a dataset that does not say how it was made") from error


def opened(results: xr.Dataset | str | Path) -> xr.Dataset:
    """The whole dataset that results are of.

    Args:
        results: What `sweep`, `read` or `join` returned, or the directory that was given to a sweep as `out`.

    Raises:
        InputError: If there are no results.
    """
    if isinstance(results, xr.Dataset) and "parts" in results.encoding:
        return join([part.store for part in results.encoding["parts"]])
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
        results: What `sweep`, `read` or `join` returned, or the directory that was given to a sweep as `out`.
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
    if "parts" in dataset.encoding:
        return params_of_parts(dataset, like, seed, index)
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


class Part(NamedTuple):
    """One of the sweeps that results are joined of."""

    store: Store
    fixed: Mapping[str, float]  # hyper-parameters that are dimensions of the whole, and have one value here


def join(parts: Sequence[xr.Dataset | str | Path]) -> xr.Dataset:
    """The runs of several sweeps as those of one, such as of the jobs of an array, finished or not.

    The sweeps are of the same study, and differ in their seeds, their grids or both. A hyper-parameter that is the same
    in each of them and not in all becomes a dimension. What no part has is NaN and not `completed`. Parameters are
    loaded by `load_params`, as of any sweep.

    Args:
        parts: What `sweep` or `read` returned, or the directories that were given to the sweeps as `out`.

    Returns:
        A dataset like that of a sweep, in memory, with the values of the grid and the seeds in ascending order.

    Raises:
        InputError: If there are none, they are of different studies or settings, or a run is in two of them.

    Example:
        >>> import pgjax
        >>> algorithm = pgjax.reinforce(pgjax.maze("#SE#", horizon=8), pgjax.tabular(states=2, actions=4), slots=4)
        >>> jobs = [range(2), range(2, 5)]
        >>> parts = [pgjax.sweep(algorithm, iterations=2, seeds=seeds, progress=False) for seeds in jobs]
        >>> join(parts).seed.values.tolist()
        [0, 1, 2, 3, 4]
    """
    found = [opened(part) for part in parts]
    if not found:
        raise InputError("expected one or more sweeps to join, got none")
    wholes = [whole_configuration(dataset) for dataset in found]
    axes = axes_of(found, wholes)
    check_parts(found, wholes, axes)
    fixed = [
        {axis: short(whole["hyperparameters"][axis]) for axis in axes if axis not in dataset.completed.dims}
        for dataset, whole in zip(found, wholes, strict=True)
    ]
    whole_parts = [
        dataset.expand_dims({axis: [value] for axis, value in values.items()}).transpose(*axes, "seed", "iteration")
        for dataset, values in zip(found, fixed, strict=True)
    ]
    labels = {name: np.unique(np.concatenate([part[name] for part in whole_parts])) for name in (*axes, "seed")}
    joined = filled(whole_parts, labels)
    grid, seeds = {axis: labels[axis].tolist() for axis in axes}, labels["seed"].tolist()
    settings = wholes[0]["configuration"] | {name: grid[name] for name in grid if name in wholes[0]["configuration"]}
    joined.attrs = {name: "; ".join(dict.fromkeys(part.attrs[name] for part in found)) for name in found[0].attrs}
    joined.attrs["configuration"] = canonical(wholes[0] | {"grid": grid, "seeds": seeds, "configuration": settings})
    stores = [dataset.encoding["source"] for dataset in found]
    joined.encoding["parts"] = [Part(store, values) for store, values in zip(stores, fixed, strict=True)]
    return joined


def axes_of(found: Sequence[xr.Dataset], wholes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dimensions of parts beside the seed: those of their grids, and the numbers in which they differ."""
    axes = dict.fromkeys(str(axis) for dataset in found for axis in dataset.completed.dims[:-1])
    own = {name for whole in wholes for name in whole.get("by_seed", ())}
    for name, number in wholes[0]["hyperparameters"].items():
        others = [whole["hyperparameters"].get(name) for whole in wholes]
        numbers = all(isinstance(other, int | float) for other in others)
        if numbers and any(other != number for other in others) and name.split(".")[0] not in own:
            axes[name] = None
    return list(axes)


def check_parts(found: Sequence[xr.Dataset], wholes: Sequence[dict[str, Any]], axes: Sequence[str]) -> None:
    """Raise unless parts are of one study, but for their seeds and what their dimensions are; see `join`."""

    def rest(dataset: xr.Dataset, whole: dict[str, Any]) -> str:
        left_out = (*axes, *(f"{name}{end}" for name in whole.get("by_seed", ()) for end in ("", ".", "[")))
        numbers = {
            name: number
            for name, number in whole["hyperparameters"].items()
            if name not in left_out and not name.startswith(tuple(one for one in left_out if one[-1] in ".["))
        }
        settings = {name: value for name, value in whole["configuration"].items() if name not in axes}
        changed = {"hyperparameters": numbers, "configuration": settings, "curves": sorted(map(str, dataset.data_vars))}
        return canonical({name: value for name, value in whole.items() if name not in ("seeds", "grid")} | changed)

    first = rest(found[0], wholes[0])
    for dataset, whole in zip(found[1:], wholes[1:], strict=True):
        if (other := rest(dataset, whole)) != first:
            where_it_is = dataset.encoding["source"]
            raise InputError(f"expected sweeps of one study to join, got {where_it_is}: {differences(first, other)}")


def short(number: float) -> float:
    """A number that has been a float32, as it was written.

    Example:
        >>> short(0.009999999776482582)
        0.01
    """
    return float(str(np.float32(number))) if isinstance(number, float) and np.float32(number) == number else number


def filled(parts: Sequence[xr.Dataset], labels: Mapping[str, np.ndarray]) -> xr.Dataset:
    """The runs of parts in their places among all, and NaN or False where there are none.

    Raises:
        InputError: If a run is in two of them.
    """
    shape = tuple(map(len, labels.values()))
    places = [np.ix_(*(np.searchsorted(labels[name], part[name]) for name in labels)) for part in parts]
    taken = np.zeros(shape, bool)
    for part, place in zip(parts, places, strict=True):
        if taken[place].any():
            seed = part.seed.values[np.argwhere(taken[place])[0][-1]]
            raise InputError(f"expected every run in one of the sweeps to join, got a run of seed {seed} in two")
        taken[place] = True
    data = {}
    for name, array in parts[0].data_vars.items():
        nothing = False if array.dtype == bool else np.nan
        values = np.full((*shape, *array.shape[len(shape) :]), nothing, array.dtype)
        for part, place in zip(parts, places, strict=True):
            values[place] = part[name].values
        data[name] = (array.dims, values)
    return xr.Dataset(data, {**labels, "iteration": parts[0].iteration.values})


def params_of_parts(dataset: xr.Dataset, like: PyTree, seed: int | None, index: tuple[int | slice, ...]) -> PyTree:
    """What `load_params` returns, of results that are joined.

    Args:
        dataset: What `join` returned.
        like: See `load_params`.
        seed: The run, or None for all of them.
        index: Of the run, or of all runs of a point, among those of the dataset; all are completed.
    """
    axes = [str(name) for name in dataset.completed.dims[:-1]]
    point = {axis: dataset[axis].values[i].item() for axis, i in zip(axes, index[:-1], strict=True)}
    found, seeds = [], []
    for part in dataset.encoding["parts"]:
        there = read(part.store)
        own = {axis: value for axis, value in point.items() if axis not in part.fixed}
        here = all(part.fixed[axis] == point[axis] for axis in part.fixed)
        here = here and all(own[axis] in there[axis].values for axis in own)
        if not here or (seed is not None and seed not in there.seed.values):
            continue
        params = load_params(part.store, like, seed=seed, point=own)
        if seed is not None:
            return params
        found.append(params)
        seeds.append(there.seed.values)
    order = np.argsort(np.concatenate(seeds))

    def together(*leaves: Any) -> Any:
        whole = (
            np.concatenate(leaves) if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp.concatenate(leaves)
        )
        return whole[order]

    return jax.tree.map(together, *found)
