"""How a study starts and ends: its options, other processes, one sentence where something cannot be used."""

import contextlib
import errno
import hashlib
import itertools
import logging
import math
import os
import platform
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import jax
import tyro
from filelock import FileLock, Timeout

from pgjax.algorithms.base import run_keys
from pgjax.errors import HostError, InputError, raised_on_host, say
from pgjax.paths import full_path

Options = TypeVar("Options")

RENAMED = {
    "--episodes": "--slots",
    "--steps": "--min-steps-per-slot",
    "--same-prompt": "--group-size",
    "all-actions": "expected-policy-gradient",
}


@dataclass(frozen=True)
class Launch:
    """Several processes share the runs, if all are started with the same command and see the same --out.

    On one machine without an accelerator, give each its cores: JAX_NUM_CPU_DEVICES.
    """

    distributed: bool = False
    """Whether JAX finds the other processes by itself, as it does under SLURM and on TPU pods."""
    coordinator: str | None = None
    """Elsewhere: HOST:PORT, where the others reach the first process."""
    processes: int | None = None
    """Elsewhere: number of processes."""
    process: int | None = None
    """Elsewhere: number of this process, from 0 on."""
    compilation_cache: Path | None = Path("~/.cache/pgjax")
    """Directory in which compiled programs are kept, 1 GiB at most, so that the same command compiles once a machine;
    None for none. It is JAX's own cache; JAX_COMPILATION_CACHE_DIR goes first."""


@dataclass(frozen=True)
class Command(Generic[Options]):
    """What the command line says."""

    study: Options
    launch: Launch


def run(main: Callable[[Options], None], options: type[Options], description: str | None) -> None:
    """Read the options and call `main`; end with one sentence and status 2 if they cannot be used.

    Every study also takes the options of `Launch`. Numbers are finite, and paths complete, before it sees them. Where
    nobody reads its output any more, as after `| head`, it ends without a word and with the status of SIGPIPE.

    Args:
        main: The study.
        options: Its frozen dataclass.
        description: Its docstring, shown by --help.
    """
    command: Any = Command[options]  # type: ignore[valid-type]
    logging.getLogger("jax._src.callback").addFilter(is_news)
    try:
        try:
            check_names(sys.argv[1:], {field.name for field in fields(options)})  # type: ignore[arg-type]
            chosen = tyro.cli(command, description=description, config=(tyro.conf.OmitArgPrefixes,))
            check_finite(chosen.study)
            connect(chosen.launch)
            keep_programs(chosen.launch.compilation_cache)
            main(with_full_paths(chosen.study))
        finally:
            sys.stdout.flush()  # what Python writes when it has ended, nobody can catch
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # so that their last lines go nowhere instead
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        end(None, 128 + signal.SIGPIPE)
    except InputError as error:
        end(f"error: {error}", 2, at_once=isinstance(error, HostError))
    except jax.errors.JaxRuntimeError as error:
        if (told := raised_on_host(error)) is None:
            raise
        end(f"error: {told}", 2, at_once=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        end(f"error: expected {error.filename or 'a file'} to be written, got {error.strerror}", 2)
    except KeyboardInterrupt:
        end("stopped; the same command goes on from what was saved", 130)
    except SystemExit as ended:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            end(None, 128 + signal.SIGPIPE)
        if isinstance(ended.code, int) and ended.code:
            end(None, ended.code)
        raise


def is_news(record: logging.LogRecord) -> bool:
    """Whether what JAX logs of functions on the host is more than what a sentence will say of it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HostError)


def check_names(arguments: Sequence[str], known: Collection[str]) -> None:
    """Raise if an option, or what is chosen by one, has a name of an earlier version that this study no longer knows.

    Raises:
        InputError: If one has; it says what the name is now.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    for option, word in itertools.pairwise(["", *words]):
        before = word if option in ("", "--baseline") or word.startswith("--") else ""
        now = RENAMED.get(before)
        if now is not None and before.removeprefix("--").replace("-", "_") not in known:
            raise InputError(f"expected {now}, which {before} is called now, got {before}")


def check_finite(options: Any) -> None:
    """Raise unless every number among the options is finite.

    Args:
        options: A study's dataclass, whose values may be tuples.

    Raises:
        InputError: If one is not.
    """
    for name, value in asdict(options).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"expected a finite --{name.replace('_', '-')}, got {number}")


def with_full_paths(options: Options) -> Options:
    """Options whose paths are complete, see `full_path`."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}  # type: ignore[arg-type]
    paths = {name: full_path(value) for name, value in values.items() if isinstance(value, Path)}
    return replace(options, **paths)  # type: ignore[type-var]


def end(sentence: str | None, status: int, at_once: bool = False) -> NoReturn:
    """Print a sentence and end this process with a status.

    One of several ends at once, as JAX would wait for the others; so does one whose program has failed in its midst, of
    which JAX would tell again.
    """
    if sentence is not None:
        print(sentence, file=sys.stderr)
    if at_once or jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status) from None


def connect(launch: Launch) -> None:
    """Make this process one of several, if it is; before JAX is used.

    Raises:
        InputError: If the options do not go together, or JAX does not find the others.
    """
    by_hand = {"coordinator": launch.coordinator, "processes": launch.processes, "process": launch.process}
    given = [f"--{name}" for name, value in by_hand.items() if value is not None]
    if launch.distributed and given:
        raise InputError(f"expected --distributed, or the others named by hand, got both: {', '.join(given)}")
    if given and len(given) < len(by_hand):
        raise InputError(f"expected --coordinator, --processes and --process together, got {', '.join(given)} alone")
    host, _, port = (launch.coordinator or "host:0").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"expected a coordinator HOST:PORT, got {launch.coordinator}")
    if launch.processes is not None and launch.processes < 1:
        raise InputError(f"expected 1 or more processes, got {launch.processes}")
    if launch.processes is not None and launch.process is not None and not 0 <= launch.process < launch.processes:
        raise InputError(f"expected a process from 0 to {launch.processes - 1}, got {launch.process}")
    if not launch.distributed and not given:
        return
    try:
        jax.distributed.initialize(launch.coordinator, launch.processes, launch.process)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"expected to be one of several processes, got no connection: {error}") from error


CACHE_BYTES = 2**30


def keep_programs(directory: Path | None) -> None:
    """Let JAX keep compiled programs in a directory and take them from there, unless the environment names another.

    Each kind of processor has a directory of its own, as programs are compiled for what it can do. What a process was
    writing when it was killed has no mark of when it was used yet, and goes.
    """
    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    if directory is None or not enabled or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = full_path(directory) / processor()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / ".lockfile", timeout=10):  # JAX's own
            for entry in directory.glob("*-cache"):
                if not entry.with_name(entry.name.removesuffix("-cache") + "-atime").exists():
                    entry.unlink()
    except (OSError, Timeout) as error:
        say(f"programs are compiled anew, as {directory} cannot be used: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    if jax.__version__.startswith("0.9."):  # it warns at length of what its compiler prefers, as if that were missing
        jax.config.update("jax_logging_level", "CRITICAL")


def processor() -> str:
    """A name for the kind of processor of this machine: its architecture, and a digest of what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        able = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:12]}"


def leave_to_the_first_process() -> None:
    """End this process, unless it is the first or the only one: what several have computed is reported by one.

    JAX lets the others wait five minutes for the first to end, so what takes longer stands before.
    """
    if jax.process_index() != 0:
        raise SystemExit(0)


@dataclass(frozen=True)
class Runs:
    """Options of every study that runs something for many seeds."""

    seeds: int
    """Runs of everything."""
    first_seed: int = 0
    """Number of the first run; the others follow it."""
    study: int = 0
    """Number of the study; runs of two studies have no randomness in common."""
    out: Path = Path("results")
    """Directory to write into: a new one, or one that the same study has written."""


def seeds_of(options: Runs) -> range:
    """The numbers of the runs that a study makes of everything."""
    return range(options.first_seed, options.first_seed + options.seeds)


def keys_after_training(options: Runs) -> jax.Array:
    """A key for each run of a study, for what is done with it when it has learned: no key of any training."""
    return run_keys(options.study + 2**30, seeds_of(options))


def study_of_pretraining(options: Runs) -> int:
    """Study of the runs that a study's own go on from: no key of theirs is one of its own.

    Raises:
        InputError: If the study's own number leaves no room for that.
    """
    if not 0 <= options.study < 2**30:
        raise InputError(f"expected a study from 0 to 2**30 - 1, got {options.study}")
    return options.study + 2**31


def configuration_of_options(options: Any, where_not_what: Collection[str] = ()) -> dict[str, Any]:
    """The options that say what a run computes: results with others are other results.

    Args:
        options: A study's frozen dataclass.
        where_not_what: Options of this study, beside those that most have, that say how many runs there are and how
            and where they are computed.
    """
    left_out = {"seeds", "first_seed", "study", "iterations", "batch", "out", *where_not_what}
    return {name: value for name, value in asdict(options).items() if name not in left_out}


def check_counts(counts: Mapping[str, int | Sequence[int] | None]) -> None:
    """Raise unless these counts are 1 or more, or None where a default stands for them.

    Args:
        counts: {what is counted: how many, or several such numbers}.

    Raises:
        InputError: If one is not.
    """
    for what, numbers in counts.items():
        for number in numbers if isinstance(numbers, Sequence) else (numbers,):
            if number is not None and number < 1:
                raise InputError(f"expected 1 or more {what}, got {number}")


def check_positive(numbers: Mapping[str, float | Sequence[float]]) -> None:
    """Raise an `InputError` unless these numbers, {what it is: one or several}, are above 0."""
    for what, some in numbers.items():
        for number in some if isinstance(some, Sequence) else (some,):
            if not number > 0:
                raise InputError(f"expected {what} above 0, got {number}")


def check_multiple(what: str, number: int, unit: int) -> None:
    """Raise an `InputError` unless a count is a positive multiple of another."""
    if number < unit or number % unit:
        raise InputError(f"expected {what} to be a multiple of {unit}, got {number}")


def check_directory_of_study(out: Path, ours: Collection[str]) -> None:
    """Raise unless the directory of a study with several sweeps is new or holds only what such a study writes there.

    Args:
        out: The directory.
        ours: Names of the files and directories that it may hold.

    Raises:
        InputError: If it is a file, or holds anything else.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a directory for the results, got the file {out}")
    # What is being written has a name with a dot before it, and perhaps something after it.
    unfinished = tuple(f".{name}" for name in ours)
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [name for name in names if name not in ours and not name.startswith(unfinished)]
    if foreign:
        raise InputError(f"expected a new directory or one of this study, got {out}, which holds {foreign[0]}")
