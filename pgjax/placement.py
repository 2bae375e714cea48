"""One run over several devices: its slots, and if asked its parameters, are split along the axes of a mesh.

A run is written for one device. Where it is to be spread (`train(mesh=...)`, `sweep(run_devices=...)`), it is traced
under a mesh with the axes `slot` and `model`. The functions here then annotate arrays with how they are split, and the
compiler does the rest; without such a mesh they return what they are given. Slots are split over all of a run's
devices, and parameters over those of the axis `model` alone: each is gathered where it is needed.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from pgjax.errors import InputError
from pgjax.trees import PyTree

RUN, SLOT, MODEL = "run", "slot", "model"
LEAST_SPLIT = 2**12  # numbers of an array that is worth splitting among the devices of a run


def run_mesh(devices: int, model_devices: int = 1) -> Mesh:
    """A mesh for `train(mesh=...)` over the first of all processes' devices.

    Args:
        devices: How many; a run's slots are split over them.
        model_devices: Over how many of them its parameters are split, which divides them.

    Raises:
        InputError: If there are not so many devices, or one number does not divide the other.
    """
    if not 1 <= devices <= jax.device_count():
        raise InputError(f"expected a run on 1 to {jax.device_count()} devices, got {devices}")
    check_split(devices, model_devices)
    chosen = np.asarray(jax.devices()[:devices])
    return Mesh(chosen.reshape(devices // model_devices, model_devices), (SLOT, MODEL))


def sweep_mesh(runs: int, run_devices: int = 1, model_devices: int = 1) -> Mesh:
    """A mesh for the runs of a sweep: over this process's devices, or over all if a run needs more than it has.

    Arguments are those of `sweep`.

    Raises:
        InputError: If there are not so many devices, or one number does not divide the other.
    """
    check_split(run_devices, model_devices)
    devices = jax.local_devices()
    if run_devices <= len(devices):
        groups = max(1, min(runs, len(devices) // run_devices))
    else:
        groups, left = divmod(jax.device_count(), run_devices)
        if not groups:
            raise InputError(f"expected runs on at most the {jax.device_count()} devices that are, got {run_devices}")
        if left or run_devices % len(devices):
            raise InputError(
                f"expected runs on at most the {len(devices)} devices of a process, or on a multiple of them that "
                f"divides all {jax.device_count()}, got {run_devices}"
            )
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    chosen = np.asarray(devices[: groups * run_devices])
    if run_devices == 1:
        return Mesh(chosen, (RUN,))
    return Mesh(chosen.reshape(groups, -1, model_devices), (RUN, SLOT, MODEL))


def check_split(devices: int, model_devices: int) -> None:
    """Raise an InputError unless parameters can be split over so many of a run's devices."""
    if model_devices < 1 or devices % model_devices:
        raise InputError(
            f"expected to split parameters over a number of devices that divides the {devices} of a run, got "
            f"{model_devices}"
        )


def axes() -> dict[str, int]:
    """The axes over which the run that is being traced is split, and their sizes; none on a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return {}
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return {axis: mesh.shape[axis] for axis in (SLOT, MODEL) if kinds.get(axis) == AxisType.Auto}


def parts() -> int:
    """How many devices the run that is being traced is spread over."""
    return math.prod(axes().values())


def check_slots(slots: int) -> None:
    """Raise an InputError unless a run's slots can be split over its devices."""
    if slots % parts():
        raise InputError(f"expected slots that the {parts()} devices of a run divide, got {slots}")


def by_slot(tree: PyTree, axis: int = 0) -> PyTree:
    """A tree whose arrays are split over a run's devices along an axis, where it can be."""
    n = parts()
    if n == 1:
        return tree
    spec = PartitionSpec(*(None,) * axis, tuple(axes()))

    def split(leaf: jax.Array) -> jax.Array:
        fits = jnp.ndim(leaf) > axis and leaf.shape[axis] and leaf.shape[axis] % n == 0
        return jax.lax.with_sharding_constraint(leaf, spec) if fits else leaf

    return jax.tree.map(split, tree)


def by_model(tree: PyTree) -> PyTree:
    """A tree whose large arrays are split along their longest axis over the devices that parameters are split over."""
    size = axes().get(MODEL, 1)
    if size == 1:
        return tree

    def split(leaf: jax.Array) -> jax.Array:
        fitting = [axis for axis in range(jnp.ndim(leaf)) if leaf.shape[axis] % size == 0]
        if not fitting or leaf.size < LEAST_SPLIT:
            return leaf
        longest = max(fitting, key=lambda axis: leaf.shape[axis])
        return jax.lax.with_sharding_constraint(leaf, PartitionSpec(*(None,) * longest, MODEL))

    return jax.tree.map(split, tree)


def sum_over_parts(function: Callable[..., PyTree], *trees: PyTree) -> PyTree:
    """Function(*trees), a pytree of sums over slots, where each device sums over its own.

    Args:
        function: Of trees of arrays [T, E, ...].
        trees: Those; a scalar is the same of all slots.
    """
    n = parts()
    if n == 1:
        return function(*trees)

    def split(leaf: jax.Array) -> jax.Array:
        return by_slot(jnp.moveaxis(leaf.reshape(len(leaf), n, -1, *leaf.shape[2:]), 1, 0)) if leaf.ndim else leaf

    along = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, trees)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.vmap(function, along)(*jax.tree.map(split, trees)))


def spread(function: Callable[..., PyTree], mesh: Mesh) -> Callable[..., PyTree]:
    """The function of one run, spread over the devices of a mesh with the axis `slot` and perhaps `model`.

    Raises:
        InputError: If the mesh has other axes, or no axis `slot`.
    """
    if not {SLOT} <= set(mesh.axis_names) <= {SLOT, MODEL}:
        raise InputError(f"expected a mesh with an axis slot, and perhaps one called model, got {mesh.axis_names}")
    names = (RUN, *mesh.axis_names)
    whole = Mesh(mesh.devices[None], names, axis_types=(AxisType.Auto,) * len(names))  # its own stay the compiler's
    nothing = PartitionSpec()
    return jax.shard_map(function, mesh=whole, in_specs=nothing, out_specs=nothing, axis_names={RUN}, check_vma=False)


def put(tree: PyTree, shardings: PyTree) -> PyTree:
    """A tree on devices, perhaps of several processes, each of which has the whole of it."""

    def one(leaf: Any, sharding: Any) -> jax.Array:
        if sharding is None or sharding.is_fully_addressable:  # None: it is not used
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_callback(np.shape(leaf), sharding, lambda index: leaf[index])

    return jax.tree.map(one, tree, shardings)
