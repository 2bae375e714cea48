"""The running batch of a sweep on disk, so that what a killed process had computed is not lost.

A checkpoint is one file, which is replaced as a whole: at any moment it is the old one or the new one. Every process
has its own and waits for no other. It holds plain arrays and their SHA-256, and says which batch of which program it
belongs to; for any other batch it is as if there were none.

Where several processes compute a batch together, each saves the parts that are on its devices, and none holds it
whole. They may be killed while some have saved and others have not: so each keeps the file before the last one too, and
they go on from the newest that all have.

Orbax is not used here: among several processes it writes numpy arrays in the first one only and refuses arrays that
are whole in one of them, it removes the old checkpoint before the new one is in place, and checks no sums.
"""

import contextlib
import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from pgjax import trees
from pgjax.errors import say
from pgjax.paths import replacing
from pgjax.trees import PyTree


class Running(NamedTuple):
    """A batch between two segments; each of its runs may have come as far as it has."""

    states: PyTree  # [B, ...], on the devices
    curves: dict[str, np.ndarray]  # [B, iterations], NaN where a run has not come yet
    done: np.ndarray  # [B], iterations
    seconds: float

    @property
    def iterations(self) -> int:
        """How many iterations a run has."""
        return next(iter(self.curves.values())).shape[1]

    @property
    def finished(self) -> bool:
        """Whether every run has done all of them."""
        return bool((self.done == self.iterations).all())


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays, in order, with their names, types and shapes."""
    sha = hashlib.sha256()
    for name, array in arrays.items():
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def place(out: Path, process: int) -> Path:
    """The file of a process in a directory of results."""
    return out / "checkpoints" / f"process-{process}.npz"


def remove(out: Path) -> None:
    """Remove the checkpoints of all processes from a directory of results, and nothing else."""
    directory = place(out, 0).parent
    for file in (*directory.glob("process-*.npz"), *directory.glob(".process-*.npz")):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # if there never was one, or something else is in it
        directory.rmdir()


def save(path: Path, identity: str, running: Running) -> bool:
    """Replace the checkpoint in a file; if that fails, say so and keep the one that was there.

    Args:
        path: Where; its directory is made if need be.
        identity: What tells this batch, computed by this program, from any other.
        running: The batch.

    Returns:
        Whether it is saved.
    """
    leaves = jax.tree.leaves(running.states)
    joint = not all(leaf.is_fully_addressable for leaf in leaves)
    arrays = {f"state {i}": own_parts(leaf) if joint else trees.plain(leaf) for i, leaf in enumerate(leaves)}
    arrays |= {f"curve {name}": curve for name, curve in running.curves.items()} | {"done": running.done}
    header = json.dumps({"identity": identity, "seconds": running.seconds, "sha256": digest(arrays)})
    try:
        path.parent.mkdir(exist_ok=True)
        if joint and path.exists():
            path.replace(before(path))
        with replacing(path) as file:
            np.savez(file, header=np.asarray(header), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        say(f"the running batch could not be saved in {path}: {error.strerror or error}; the sweep goes on without")
        return False
    return True


def before(path: Path) -> Path:
    """Where the checkpoint before the one in a file is kept, by processes that compute together."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def places_of(like: Any) -> dict[jax.Device, str]:
    """Which part of an array each of this process's devices has; several may have the same."""
    indices = like.sharding.addressable_devices_indices_map(like.shape)
    return {device: str(index) for device, index in indices.items()}


def own_parts(leaf: jax.Array) -> np.ndarray:
    """The parts of an array that are on this process's devices, each once, [parts, ...], as plain numbers."""
    data = {shard.device: shard.data for shard in leaf.addressable_shards}
    first = {place: device for device, place in reversed(places_of(leaf).items())}
    return np.stack([trees.plain(data[first[place]]) for place in sorted(first)])


def from_parts(parts: np.ndarray, like: Any) -> jax.Array:
    """The array whose parts `own_parts` gave; of what stands for it: shape, type and sharding."""
    places = places_of(like)
    own = dict(zip(sorted(set(places.values())), parts, strict=True))
    pieces = [jax.device_put(trees.unplain(own[place], like), device) for device, place in places.items()]
    return jax.make_array_from_single_device_arrays(like.shape, like.sharding, pieces)


def restore(path: Path, identity: str, states: PyTree) -> Running | None:
    """The batch in a file; None if there is none or, saying so, if it is another one or damaged.

    Args:
        path: Where.
        identity: See `save`.
        states: Shapes, types and shardings of the states [B, ...], which are put back onto the devices.
    """
    likes, structure = jax.tree.flatten(states)
    joint = not all(like.sharding.is_fully_addressable for like in likes)
    saved = [read_saved(file, identity) for file in ((path, before(path)) if joint else (path,))]
    if joint:
        own = np.asarray([-1 if found is None else found[1]["done"].sum() for found in saved])
        everyone = multihost_utils.process_allgather(own)
        common = [done for done in own if done >= 0 and (everyone == done).any(axis=1).all()]
        saved = [saved[own.tolist().index(max(common))]] if common else [None]
    if saved[0] is None:
        return None
    header, arrays = saved[0]
    restored = [
        from_parts(arrays[f"state {i}"], like)
        if joint
        else jax.device_put(trees.unplain(arrays[f"state {i}"], like), like.sharding)
        for i, like in enumerate(likes)
    ]
    curves = {name.removeprefix("curve "): array for name, array in arrays.items() if name.startswith("curve ")}
    return Running(
        states=jax.tree.unflatten(structure, restored), curves=curves, done=arrays["done"], seconds=header["seconds"]
    )


def read_saved(path: Path, identity: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The header and the arrays of a file, see `restore`."""
    try:
        with path.open("rb") as file, np.load(file) as saved:
            header = json.loads(str(saved["header"]))
            if header["identity"] != identity:
                say(f"the checkpoint in {path} is of another batch or program, so this batch begins anew")
                return None
            arrays = {name: saved[name] for name in saved.files if name != "header"}
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error):
        header, arrays = {}, {}
    if not arrays or digest(arrays) != header["sha256"]:
        say(f"the checkpoint in {path} is damaged, so its batch begins anew; what is finished is not touched")
        return None
    return header, arrays
