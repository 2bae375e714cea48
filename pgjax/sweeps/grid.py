"""The runs of a sweep: every seed at every point of a grid."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.algorithms.base import check_seeds, run_keys
from pgjax.errors import InputError
from pgjax.hyperparameters import is_number, numbers_in, value_at
from pgjax.sweeps.store import RESERVED
from pgjax.trees import PyTree


class Runs(NamedTuple):
    """All runs of a sweep, in order: every seed at the first point of the grid, then at the second, and so on."""

    study: int
    seeds: Sequence[int]
    grid: Mapping[str, np.ndarray]  # values of each hyper-parameter, in its own type
    labels: Mapping[str, list[float]]  # the same as results show them, as they were given
    by_seed: Mapping[str, PyTree]  # trees of arrays [seeds, ...]

    def inputs(self, chosen: Sequence[int]) -> tuple[jax.Array, dict[str, PyTree]]:
        """The keys [B] and the hyper-parameters {name: [B, ...]} of some runs."""
        n, shape = len(self.seeds), tuple(len(values) for values in self.grid.values())
        keys = run_keys(self.study, [self.seeds[run % n] for run in chosen])
        points = np.unravel_index([run // n for run in chosen], shape) if shape else ()
        numbers = {name: values[at] for (name, values), at in zip(self.grid.items(), points, strict=True)}
        own = jax.tree.map(lambda leaf: leaf[[run % n for run in chosen]], dict(self.by_seed))
        return keys, numbers | own

    def regions(self, chosen: Sequence[int]) -> Iterator[tuple[dict[str, slice], slice]]:
        """Cut some runs, in order, where they leave a gap or a point of the grid; say where in results and batch."""
        shape, n = tuple(len(values) for values in self.grid.values()), len(self.seeds)
        cuts = [i for i in range(1, len(chosen)) if chosen[i] != chosen[i - 1] + 1 or chosen[i] % n == 0]
        for first, last in itertools.pairwise([0, *cuts, len(chosen)]):
            point, seed = divmod(int(chosen[first]), n)
            index = np.unravel_index(point, shape) if shape else ()
            region = {name: slice(int(i), int(i) + 1) for name, i in zip(self.grid, index, strict=True)}
            region["seed"] = slice(seed, seed + last - first)
            yield region, slice(first, last)


def runs_of(study: int, seeds: Sequence[int], grid: Any, by_seed: Any, hyperparameters: PyTree) -> Runs:
    """The runs of a sweep; arguments are those of `pgjax.sweep`.

    Raises:
        InputError: If there is no seed or one twice, or a value is none that its hyper-parameter can have.
    """
    seeds = check_seeds(seeds)
    if not seeds:
        raise InputError("expected 1 or more seeds, got none")
    if len(set(seeds)) != len(seeds):
        raise InputError("expected every seed once, got some twice")
    for what, given in (("grid", grid), ("by_seed", by_seed)):
        if given is not None and not (isinstance(given, Mapping) and all(isinstance(name, str) for name in given)):
            raise InputError(f"expected {what} to be a mapping from names to values, got {given!r}")
    grid = dict(grid or {})
    values = check_grid(grid, hyperparameters)
    labels = {
        name: array.tolist() if array.dtype.kind in "iu" else list(map(float, grid[name]))
        for name, array in values.items()
    }
    own = check_by_seed(by_seed or {}, len(seeds), grid, hyperparameters)
    return Runs(study=study, seeds=seeds, grid=values, labels=labels, by_seed=own)


def check_grid(grid: Any, hyperparameters: PyTree) -> dict[str, np.ndarray]:
    """The values of a grid in the types of their hyper-parameters, {name: [n]}, each there exactly.

    Raises:
        InputError: If there are no values of a name, they are none that it can have (`numbers_in`), or two are equal.
    """
    for name, values in grid.items():
        if name in RESERVED:
            raise InputError(f"expected hyper-parameters with names that results do not use otherwise, got {name}")
        if isinstance(values, str | bytes) or not hasattr(values, "__len__") or getattr(values, "ndim", 1) != 1:
            raise InputError(f"expected several values of {name}, such as [{values}], got {values!r}")
        if not len(values):
            raise InputError(f"expected one or more values of {name}, got none")
    arrays = numbers_in(hyperparameters, grid)
    for name, array in arrays.items():
        if len(set(array.tolist())) != len(array):
            raise InputError(f"expected every value of {name} once, got some twice")
    return arrays


def check_by_seed(
    by_seed: Mapping[str, PyTree], seeds: int, grid: Mapping[str, Any], hyperparameters: PyTree
) -> dict[str, PyTree]:
    """What each of the seeds has of its own, as arrays [seeds, ...]; of one number, in the type of that.

    Raises:
        InputError: If there is not something for each of the seeds, a number is none that it can be (`numbers_in`), or
            something is given twice.
    """
    arrays: dict[str, PyTree] = {}
    for name, tree in by_seed.items():
        if not jax.tree.leaves(tree):
            raise InputError(f"expected {name} of each seed, got no arrays")
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if np.shape(leaf)[:1] != (seeds,):
                leaf_name = name + jax.tree_util.keystr(path)
                raise InputError(f"expected {leaf_name} of {seeds} seeds, [{seeds}, ...], got shape {np.shape(leaf)}")
        for other in (*grid, *(other for other in by_seed if other != name)):
            if f"{other}.".startswith(f"{name}.") or f"{name}.".startswith(f"{other}."):
                raise InputError(f"expected every hyper-parameter once, got {name} of each seed and {other}")
        if is_number(value_at(hyperparameters, name)) and jax.tree_util.all_leaves([tree]) and np.ndim(tree) == 1:
            arrays |= numbers_in(hyperparameters, {name: tree})
        else:
            arrays[name] = jax.tree.map(lambda leaf: np.asarray(leaf, jnp.result_type(leaf)), tree)
            for before, after in zip(jax.tree.leaves(tree), jax.tree.leaves(arrays[name]), strict=True):
                if after.dtype.kind in "iu" and not np.array_equal(before, after):
                    raise InputError(f"expected integers of {name} that an {after.dtype} can hold, got others")
            if isinstance(arrays[name], np.ndarray) and not np.isfinite(arrays[name]).all():
                bad = arrays[name][~np.isfinite(arrays[name])][0]
                raise InputError(f"expected finite values of {name}, got {bad}")
    return arrays
