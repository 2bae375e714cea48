"""What the machine has: cores as devices, and memory."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import jax

ACTIVATIONS = 0.25  # of a device's memory budget, for what is kept of a function until its gradient is taken
GIVEN: ContextVar[int | None] = ContextVar("a memory budget", default=None)


def use_every_core() -> None:
    """Let jax see each core of a CPU as a device of its own, over which a sweep then shares its runs out.

    That is faster than splitting every small operation between the cores. It must come before jax is used, and leaves a
    number of devices alone that was set by JAX_NUM_CPU_DEVICES or XLA_FLAGS.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not forced and "JAX_NUM_CPU_DEVICES" not in os.environ:
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        jax.config.update("jax_num_cpu_devices", len(allowed))


def memory_budget() -> int:
    """The bytes a sweep may use on a device: 80% of an accelerator's, half of a host's shared by its devices.

    A sweep that is given another budget compiles with that (`within_memory`).
    """
    if (given := GIVEN.get()) is not None:
        return given
    device = jax.local_devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return int(0.8 * statistics["bytes_limit"])
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return host // 2 // jax.local_device_count()


@contextlib.contextmanager
def within_memory(budget: int | None) -> Iterator[None]:
    """A context in which `memory_budget` is this one, in bytes, if it is not None."""
    token = GIVEN.set(budget)
    try:
        yield
    finally:
        GIVEN.reset(token)
