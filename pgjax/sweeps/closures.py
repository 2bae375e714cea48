"""Functions compiled apart from the large arrays that they close over, such as texts to learn from.

To JAX an array that a function closes over is a constant, and a part of the program: twenty megabytes of text become
eighty of program, which the compiler goes through, and computes with where it can. Here they are arguments, and on a
device once, whatever the number of runs.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from pgjax.placement import put
from pgjax.trees import PyTree, plain

LARGE = 2**20  # bytes of an array from which on it is no constant


class Closure(NamedTuple):
    """A function that was lowered, and the large arrays that it closes over."""

    lowered: jax.stages.Lowered  # of these arrays, if there are any, and its arguments
    arrays: tuple[jax.Array, ...]
    out_info: PyTree  # what stands for its results

    @property
    def digest(self) -> str:
        """The SHA-256 of what it computes, its constants and arrays included."""
        sha = hashlib.sha256(self.lowered.as_text().encode())
        for array in self.arrays:
            sha.update(plain(array).tobytes())
        return sha.hexdigest()

    def compile(self) -> "Compiled":
        """The function, ready to be called."""
        return Compiled(self.lowered.compile(), self.arrays)


@dataclass(frozen=True)
class Compiled:
    """A compiled function, with the large arrays that it closes over."""

    executable: jax.stages.Compiled
    arrays: tuple[jax.Array, ...]

    def __call__(self, *arguments: PyTree) -> PyTree:
        """What the function returns."""
        return self.executable(*((self.arrays, *arguments) if self.arrays else arguments))

    @property
    def input_shardings(self) -> tuple[Any, Any]:
        """Where its arguments are to be, those by place and those by name."""
        places, names = self.executable.input_shardings
        return (places[1:] if self.arrays else places), names

    @property
    def output_shardings(self) -> Any:
        """Where its results are."""
        return self.executable.output_shardings

    def memory_analysis(self) -> Any:
        """What it needs in memory, the arrays included."""
        return self.executable.memory_analysis()


def lowered(
    function: Callable[..., PyTree],
    examples: tuple[PyTree, ...],
    everywhere: jax.sharding.Sharding,
    donated: tuple[int, ...] = (),
    out_shardings: Any = None,
) -> Closure:
    """A function, lowered for arguments like these.

    Args:
        function: What to compile.
        examples: What stands for its arguments: shapes, types, shardings.
        everywhere: Where large arrays are to be: on all devices.
        donated: Which arguments may be overwritten.
        out_shardings: Where its results are to be, see `jax.jit`; the compiler decides if not given.
    """
    traced = jax.jit(function, donate_argnums=donated, out_shardings=out_shardings).trace(*examples)
    constants, form = traced.jaxpr.consts, jax.tree.structure(traced.out_info)
    large = [place for place, array in enumerate(constants) if getattr(array, "nbytes", 0) > LARGE]
    if not large:
        return Closure(traced.lower(), (), traced.out_info)

    def given(arrays: tuple[jax.Array, ...], *arguments: PyTree) -> PyTree:
        known = dict(zip(large, arrays, strict=True))
        values = [known.get(place, array) for place, array in enumerate(constants)]
        return jax.tree.unflatten(form, jax.core.eval_jaxpr(traced.jaxpr.jaxpr, values, *jax.tree.leaves(arguments)))

    arrays = tuple(put(constants[place], everywhere) for place in large)
    donated = tuple(place + 1 for place in donated)
    compiled = jax.jit(given, donate_argnums=donated, out_shardings=out_shardings)
    return Closure(compiled.lower(arrays, *examples), arrays, traced.out_info)
