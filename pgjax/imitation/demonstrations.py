"""What an expert did, in memory and on disk.

*The file.* A NumPy .npz without pickled objects. Its arrays hold M steps, the episodes one after the other:

    observations     [M, ...]  X_t; of a dictionary, or another pytree, an array observations.NAME for each of its parts
    actions          [M, ...]  what the expert did there
    episode_ends     [M]       true at the last step of an episode; so it is, in any case, at the last step of all
    labelled         [M]       optional: false where the expert was not asked; actions and expert mean nothing there
    expert_logits    [M, A]    optional: f*(X_t), where the expert is known and Categorical; [M, d, n] for d actions
    expert_mean      [M, d]    optional: f*(X_t), where the expert is known and Gaussian,
    expert_log_std   [M, d]              together with this

*Files of others.* In place of `episode_ends` there may be `terminals` and `timeouts`, as in D4RL, or `terminations` and
`truncations`, as in Minari, or any of them: an episode ends where one says so. With the final observation of each
episode, which Minari keeps, `observations` are as many as steps and episodes together. Other arrays are not looked at.
Both keep HDF5, from which the arrays are taken like this:

    np.savez("d4rl.npz", **environment.get_dataset())
    names = ("observations", "actions", "terminations", "truncations")
    np.savez("minari.npz", **{name: np.concatenate([getattr(one, name) for one in dataset]) for name in names})

Sources: Fu et al., *D4RL: Datasets for deep data-driven reinforcement learning*, 2020; Younis et al., *Minari*, 2024.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.base import Environment
from pgjax.environments.spaces import Box, Discrete, MultiDiscrete, Space, spaces_in, values_like
from pgjax.errors import InputError, first_line
from pgjax.paths import full_path, replacing
from pgjax.policies.base import describe
from pgjax.policies.distributions import Categorical, Distribution, Gaussian, MultiCategorical
from pgjax.trees import PyTree, names

ENDS = ("episode_ends", "terminals", "timeouts", "terminations", "truncations")
EXPERT = ("expert_logits", "expert_mean", "expert_log_std")


class Demonstrations(NamedTuple):
    """What an expert did: whole episodes, time-major, side by side.

    A step within an episode may have `mask` false, where the expert was not asked: its observation is real still, as a
    policy with memory needs it. After an episode's last label nothing matters.
    """

    observation: Any  # X_t, [T, N, ...]
    action: jax.Array  # what the expert did there, [T, N, ...]
    mask: jax.Array  # [T, N] bool, a step whose action is known
    expert: Any = None  # f*(X_t), a Distribution [T, N], where it is known

    @property
    def labels(self) -> jax.Array:
        """The number of steps whose action is known, [] int32."""
        return jnp.sum(self.mask, dtype=jnp.int32)

    @property
    def episodes(self) -> int:
        """N, the number of episodes."""
        return self.mask.shape[1]


def save_demonstrations(path: str | Path, demonstrations: Demonstrations) -> None:
    """Write demonstrations into a file, in the format of this module; it is there as a whole or not at all.

    Steps after an episode's last label are not written, nor are episodes without one.

    Args:
        path: Where; the name is taken as it is, and a file that is there is replaced.
        demonstrations: [T, N]; if the expert is known, it is Categorical, MultiCategorical or Gaussian.

    Raises:
        InputError: If there is no label, arrays do not fit together, the expert is of another kind, or the file cannot
            be written.
    """
    path = full_path(path)
    mask, arrays = np.asarray(demonstrations.mask, bool), of_steps(demonstrations)
    for name, array in arrays.items():
        if mask.ndim != 2 or array.shape[:2] != mask.shape:
            raise InputError(
                f"expected {name} [T, N, ...] for a mask [T, N], got {list(array.shape)} and {list(mask.shape)}"
            )
    if not mask.any():
        raise InputError("expected demonstrations with 1 or more labelled steps, got none")
    T = len(mask)
    length = np.where(mask.any(0), T - mask[::-1].argmax(0), 0)
    time = np.arange(T)[:, None]
    arrays |= {"episode_ends": time == length - 1, "labelled": mask}
    flat = {name: array.swapaxes(0, 1)[(time < length).T] for name, array in arrays.items()}
    if flat["labelled"].all():
        del flat["labelled"]
    try:
        with replacing(path) as file:
            np.savez(file, **flat)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"expected a file that can be written, got {path}: {error.strerror or error}") from error


def of_steps(demonstrations: Demonstrations) -> dict[str, np.ndarray]:
    """Observations, actions and the expert [T, N, ...] by their names in the file.

    Raises:
        InputError: If the expert is neither Categorical, MultiCategorical nor Gaussian.
    """
    seen = demonstrations.observation
    arrays = dict(zip(names_of(seen), jax.tree.leaves(seen), strict=True)) | {"actions": demonstrations.action}
    match demonstrations.expert:
        case None:
            pass
        case Categorical(logits) | MultiCategorical(logits):
            arrays["expert_logits"] = logits
        case Gaussian(mean, log_std):
            arrays |= {"expert_mean": mean, "expert_log_std": log_std}
        case other:
            raise InputError(f"expected an expert that is Categorical or Gaussian, got a {type(other).__name__}")
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    # NumPy has no name for bfloat16: in a file it would be nothing but bytes.
    return {name: array.astype(np.float32) if array.dtype.kind == "V" else array for name, array in plain.items()}


def names_of(observation: PyTree) -> list[str]:
    """The names in a file of the arrays that an observation is made of."""
    single = jax.tree_util.all_leaves([observation])
    return ["observations"] if single else [f"observations.{name}" for name in names(observation)]


def load_demonstrations(path: str | Path, environment: Environment) -> Demonstrations:
    """Read demonstrations [T, N] from a file in the format of this module, or like those of D4RL and Minari.

    Observations and actions get the types of their spaces. Actions outside a `Box` are what they are: a Gaussian's are
    stored as drawn, before they are clipped. Episodes are padded to the longest, of T steps, with zeros, and so are
    actions and experts that are not labelled.

    Args:
        path: Where.
        environment: Whose spaces and horizon the data have to fit.

    Raises:
        InputError: If there is no such file, or what is in it is not whole, finite and of this environment.
    """
    path = full_path(path)
    actions, form = environment.action_space, values_like(environment.observation_space)
    seen = names_of(form)
    arrays = read(path, seen)
    M = len(np.atleast_1d(arrays["actions"]))
    check_shape(path, "actions", arrays["actions"], (M, *actions.shape))
    if not M:
        raise InputError(f"expected 1 or more steps in {path}, got none")
    ends = np.any([flags(path, name, arrays[name], M) for name in ENDS if name in arrays], axis=0)
    ends[-1] = True
    labelled = flags(path, "labelled", arrays["labelled"], M) if "labelled" in arrays else np.ones(M, bool)
    if not labelled.any():
        raise InputError(f"expected 1 or more labelled steps in {path}, got none")
    last = np.flatnonzero(ends)
    length = np.diff(last, prepend=-1)
    N, T = len(last), int(length.max())
    if environment.horizon < T:
        raise InputError(
            f"expected episodes of at most {environment.horizon} steps, the horizon of {environment.name}, in {path}, "
            f"got {T} in episode {length.argmax()} (the first is 0)"
        )

    def observed(name: str, space: Space) -> np.ndarray:
        check_shape(path, name, arrays[name], (M, *space.shape), (M + N, *space.shape))
        steps = of_space(path, name, arrays[name], space)
        return steps if len(steps) == M else np.delete(steps, last + np.arange(1, N + 1), axis=0)

    parts = [observed(*part) for part in zip(seen, spaces_in(environment.observation_space), strict=True)]
    observations = jax.tree.unflatten(jax.tree.structure(form), parts)
    arrays["actions"][~labelled] = 0
    flat = observations, of_space(path, "actions", arrays["actions"], actions), labelled
    expert = of_expert(path, arrays, actions, labelled)

    episode = np.repeat(np.arange(N), length)
    time = np.arange(M) - (last - length + 1)[episode]

    def side_by_side(steps: np.ndarray) -> jax.Array:
        padded = np.zeros((T, N, *steps.shape[1:]), steps.dtype)
        padded[time, episode] = steps
        return jnp.asarray(padded)

    return Demonstrations(*jax.tree.map(side_by_side, (*flat, expert)))


def read(path: Path, seen: Sequence[str]) -> dict[str, np.ndarray]:
    """Those arrays of a file that the format knows; they are of numbers, and no object is unpickled.

    Args:
        path: The file.
        seen: The names of what is observed.

    Raises:
        InputError: If it cannot be read, is no whole .npz, or an array is missing or not of numbers.
    """
    what, there, arrays = "an .npz", [], {}
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("another kind of file, or one cut short")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            there = loaded.files
            for what in (*seen, "actions", *ENDS, "labelled", *EXPERT):
                if what in there:
                    arrays[what] = np.asarray(loaded[what])
    except OSError as error:
        raise InputError(f"expected a file with demonstrations, got {path}: {error.strerror or error}") from error
    except Exception as error:  # damage in a zip archive or an array's header can raise nearly everything
        raise InputError(f"expected {what}, whole and not pickled, in {path}, got: {first_line(error)}") from error
    for either in (*([name] for name in seen), ["actions"], ENDS):
        if not any(name in arrays for name in either):
            raise InputError(f"expected {' or '.join(either)} in {path}, got {', '.join(there) or 'no array at all'}")
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"expected numbers as {name} in {path}, got type {array.dtype}")
    return arrays


def check_shape(path: Path, name: str, array: np.ndarray, *wanted: tuple[int, ...]) -> None:
    """Raise an InputError unless an array has one of the shapes wanted."""
    if array.shape not in wanted:
        either = " or ".join(str(list(shape)) for shape in wanted)
        raise InputError(f"expected {name} of shape {either} in {path}, got {list(array.shape)}")


def check_entries(path: Path, name: str, array: np.ndarray, good: np.ndarray, wanted: str) -> None:
    """Raise an InputError with the first entry of an array, or the first row, that is not good."""
    if not good.all():
        index = tuple(int(i) for i in np.unravel_index(good.argmin(), good.shape))
        raise InputError(f"expected {wanted} as {name} in {path}, got {array[index]!s} at {list(index)}")


def flags(path: Path, name: str, array: np.ndarray, M: int) -> np.ndarray:
    """An array of booleans, or of 0 and 1, as booleans [M]; raise an InputError if it is anything else."""
    check_shape(path, name, array, (M,))
    check_entries(path, name, array, (array == 0) | (array == 1), "booleans")
    return array.astype(bool)


def of_space(path: Path, name: str, array: np.ndarray, space: Space) -> np.ndarray:
    """An array in the type of a space; raise an InputError if an entry is not finite or no such integer."""
    dtype = np.dtype(space.dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        converted = as_floats(array, dtype)
        check_entries(path, name, array, np.isfinite(converted), f"finite numbers ({dtype})")
        return converted
    low: Any
    high: Any
    if isinstance(space, Discrete):
        low, high = 0, space.n - 1
    elif isinstance(space, MultiDiscrete):
        low, high = 0, np.asarray(space.sizes) - 1
    else:
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    whole = (array >= low) & (array <= high) & (np.floor(array) == array)
    check_entries(path, name, array, whole, f"whole numbers from {low} to {high}")
    return array.astype(dtype)


def of_expert(path: Path, arrays: dict[str, np.ndarray], space: Space, labelled: np.ndarray) -> Distribution | None:
    """F*(X_t) [M] if a file has it; raise an InputError if it is not of this action space or no distribution."""
    given = [name for name in EXPERT if name in arrays]
    if not given:
        return None
    wanted = ["expert_mean", "expert_log_std"] if isinstance(space, Box) else ["expert_logits"]
    if given != wanted:
        raise InputError(
            f"expected {' and '.join(wanted)} in {path}, as an action is {describe(space)}, got {' and '.join(given)}"
        )
    found: list[Any] = []
    for name in given:
        array = arrays[name]
        check_shape(path, name, array, (len(labelled), *(space if isinstance(space, Box) else space.allowed).shape))
        array[~labelled] = 0
        found.append(as_floats(array, np.float32))
        if name == "expert_mean":
            check_entries(path, name, array, np.isfinite(found[-1]), "finite numbers (float32)")
        else:
            check_entries(path, name, array, found[-1] < np.inf, "numbers below infinity (float32)")
    if isinstance(space, Box):
        return Gaussian(*found)
    check_entries(path, given[0], array, np.isfinite(found[0]).any(-1), "rows with a finite number")
    return MultiCategorical(*found) if space.shape else Categorical(*found)


def as_floats(array: np.ndarray, dtype: Any) -> np.ndarray:
    """An array in a type of floats; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(dtype)
