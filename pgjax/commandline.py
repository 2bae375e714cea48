"""What the experiments share: options, names for what the library knows as functions, tables, and how they end.

Strings select things here and nowhere else.
"""

import contextlib
import difflib
import errno
import functools
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax
import pandas as pd
import tyro

from pgjax.algorithm import Algorithm, run_keys
from pgjax.baselines import (
    Baseline,
    all_actions,
    learned_action_value,
    learned_value,
    leave_one_out,
    leave_one_out_by_time,
    no_baseline,
    running_average,
)
from pgjax.environments.brax import from_brax
from pgjax.environments.cooling import cooling, pid_controller
from pgjax.environments.environment import Box, Discrete, Environment
from pgjax.environments.gymnax import from_gymnax
from pgjax.environments.maze import LAYOUTS, maze, partial_maze, t_maze
from pgjax.environments.navigation import navigation, navigation_controller
from pgjax.environments.recommendation import recommendation, recommendation_controller
from pgjax.errors import InputError
from pgjax.experts import (
    Expert,
    acrobot_controller,
    cartpole_controller,
    continuous_mountain_car_controller,
    dead_reckoning,
    mountain_car_controller,
    pendulum_controller,
    scripted,
    shortest_paths,
    sign_follower,
)
from pgjax.paths import full_path
from pgjax.policies.cnn import cnn, is_image
from pgjax.policies.mlp import mlp
from pgjax.policies.policy import Policy, policy_for
from pgjax.policies.recurrent import recurrent
from pgjax.policies.tabular import tabular
from pgjax.policies.transformer import Sizes, transformer_value
from pgjax.policies.value import action_value_for, value_for
from pgjax.reinforce import reinforce
from pgjax.returns import (
    Credit,
    discounted_lambda_return,
    discounted_reward_to_go,
    lambda_return,
    reward_to_go,
    whole_episode,
)
from pgjax.rlhf.corpora import Corpus, digest, grammar, grammar_corpus, python_docs, read_text, text_corpus
from pgjax.rlhf.gold import Gold, common_words, grammar_gold, length_gold, letter_share
from pgjax.statistics import confidence_interval, interquartile_mean, plain_interval, shown

Options = TypeVar("Options")

CREDITS: dict[str, Callable[[], Credit]] = {
    "whole-episode": whole_episode,
    "reward-to-go": reward_to_go,
    "discounted-reward-to-go": discounted_reward_to_go,
    "lambda-return": lambda_return,
    "discounted-lambda-return": discounted_lambda_return,
}
CreditName = Literal[
    "whole-episode", "reward-to-go", "discounted-reward-to-go", "lambda-return", "discounted-lambda-return"
]
BASELINES: dict[str, Callable[[], Baseline]] = {
    "none": no_baseline,
    "running-average": running_average,
    "leave-one-out": leave_one_out,
    "leave-one-out-by-time": leave_one_out_by_time,
}
LEARNED_BASELINES: dict[str, Callable[..., Baseline]] = {
    "learned-value": learned_value,
    "learned-action-value": learned_action_value,
    "all-actions": all_actions,
}
BaselineName = Literal[
    "none",
    "running-average",
    "leave-one-out",
    "leave-one-out-by-time",
    "learned-value",
    "learned-action-value",
    "all-actions",
]
PolicyName = Literal["auto", "tabular", "mlp", "cnn", "categorical", "gaussian", "recurrent"]
OptimizerName = Literal["adam", "sgd"]
TextBaselineName = Literal["running-average", "leave-one-out", "leave-one-out-by-time", "learned-value"]
OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {"adam": optax.adam, "sgd": optax.sgd}

# Environments of pgjax by name; all others are gymnax's or, after "brax:", of brax.
ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "maze": maze,
    **{f"maze-{name}": functools.partial(maze, layout) for name, layout in LAYOUTS.items() if name != "lecture"},
    "partial-maze": partial_maze,
    **{
        f"partial-maze-{name}": functools.partial(partial_maze, layout)
        for name, layout in LAYOUTS.items()
        if name != "lecture"
    },
    "t-maze": t_maze,
    "navigation": navigation,
    "recommendation": recommendation,
    "slate-recommendation": functools.partial(recommendation, slate=3),
    "cooling": cooling,
}
CONTROLLERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "CartPole-v1": cartpole_controller,
    "Acrobot-v1": acrobot_controller,
    "Pendulum-v1": pendulum_controller,
    "MountainCar-v0": mountain_car_controller,
    "MountainCarContinuous-v0": continuous_mountain_car_controller,
    "navigation": navigation_controller,
}

# Mean return over 100 episodes from which gymnasium's registry calls the task solved.
SOLVED_AT = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "MountainCar-v0": -110.0, "MountainCarContinuous-v0": 90.0}


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
    try:
        try:
            chosen = tyro.cli(command, description=description, config=(tyro.conf.OmitArgPrefixes,))
            check_finite(chosen.study)
            connect(chosen.launch)
            main(with_full_paths(chosen.study))
        finally:
            sys.stdout.flush()  # what Python writes when it has ended, nobody can catch
    except BrokenPipeError:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # so that their last lines go nowhere instead
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        end(None, 128 + signal.SIGPIPE)
    except InputError as error:
        end(f"error: {error}", 2)
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


def end(sentence: str | None, status: int) -> NoReturn:
    """Print a sentence and end this process with a status; one of several at once, as JAX would wait for the others."""
    if sentence is not None:
        print(sentence, file=sys.stderr)
    if jax.distributed.is_initialized():
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


def leave_to_the_first_process() -> None:
    """End this process, unless it is the first or the only one: what several have computed is reported by one.

    JAX lets the others wait five minutes for the first to end, so what takes longer stands before.
    """
    if jax.process_index() != 0:
        raise SystemExit(0)


def use_every_core() -> None:
    """Let jax see each core of a CPU as a device of its own, over which a sweep then shares its runs out.

    That is faster than splitting every small operation between the cores. It must come before jax is used, and leaves a
    number of devices alone that was set by JAX_NUM_CPU_DEVICES or XLA_FLAGS.
    """
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not forced and "JAX_NUM_CPU_DEVICES" not in os.environ:
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        jax.config.update("jax_num_cpu_devices", len(allowed))


def environment_named(name: str) -> Environment:
    """Return an environment of pgjax, of gymnax, or of brax ("brax:ant").

    Raises:
        InputError: If there is none of that name.
    """
    if name.lower() in ENVIRONMENTS:
        return ENVIRONMENTS[name.lower()]()
    library, _, rest = name.partition(":")
    if library == "brax" and rest:
        return from_brax(rest)
    near = difflib.get_close_matches(name.lower(), ENVIRONMENTS, n=3)
    if near:
        raise InputError(f"expected the name of an environment, got {name!r}; did you mean {', '.join(near)}?")
    return from_gymnax(name)


def expert_named(name: str, environment: Environment) -> Expert | None:
    """Return what is written by hand or computed for an environment of that name, None if there is nothing.

    Raises:
        InputError: If the environment is another one, and its observations or actions do not fit.
    """
    if name in CONTROLLERS:
        return scripted(CONTROLLERS[name], environment)
    if name.endswith("recommendation"):
        return scripted(recommendation_controller(environment), environment)
    if name == "cooling":
        return pid_controller(environment)
    if name == "t-maze":
        return sign_follower(environment)
    kind, _, layout = name.rpartition("maze")
    if kind in ("", "partial-") and layout.removeprefix("-") in ("", *LAYOUTS):
        text = LAYOUTS[layout.removeprefix("-") or "lecture"]
        if kind == "":
            return shortest_paths(text)
        return dead_reckoning(text) if "S" in text else None
    return None


def policy_named(name: PolicyName, environment: Environment, hidden: Sequence[int], bfloat16: bool = False) -> Policy:
    """Return a policy for an environment: auto, tabular, mlp, cnn, categorical or gaussian (an mlp), or recurrent.

    Hidden widths are those of the layers after the convolution of a cnn; of a recurrent one, the last is that of the
    hidden state, and the others are its encoder's.

    Raises:
        InputError: If it does not fit.
    """
    states, actions = environment.observation_space, environment.action_space
    if any(width < 1 for width in hidden):
        raise InputError(f"expected hidden layers of width 1 or more, got {min(hidden)}")
    if name == "auto" and tuple(hidden) == (64, 64) and not bfloat16:
        return policy_for(environment)
    if name == "tabular":
        if not isinstance(states, Discrete) or not isinstance(actions, Discrete):
            raise InputError(
                f"expected discrete observations and actions for a tabular policy, got {environment.name} with "
                f"observations of {type(states).__name__} and actions of {type(actions).__name__}"
            )
        return tabular(states.n, actions)
    if name in ("recurrent", "cnn") and bfloat16:
        raise InputError(f"expected products in float32 for a {name} policy, got bfloat16")
    if name == "cnn" or (name == "auto" and is_image(states) and not bfloat16):
        return cnn(states, actions, hidden=hidden)
    if name == "recurrent":
        if not hidden:
            raise InputError(
                "expected 1 or more hidden layers for a recurrent policy, whose last is its state, got none"
            )
        return recurrent(states, actions, hidden[-1], hidden[:-1])
    wanted = {"categorical": Discrete, "gaussian": Box}.get(name)
    if wanted is not None and not isinstance(actions, wanted):
        raise InputError(
            f"expected a {wanted.__name__} action space for a {name} policy, got {environment.name} with actions of "
            f"{type(actions).__name__}"
        )
    return mlp(states, actions, hidden, product_dtype=jnp.bfloat16 if bfloat16 else jnp.float32)


def text_baseline_named(name: TextBaselineName, same_start: int, sizes: Sizes) -> Baseline:
    """Return a baseline for texts: among outputs to the same prompt, or a learned one that is a transformer.

    Raises:
        InputError: If less than two outputs have the same prompt, or there is no transformer of these sizes.
    """
    if name == "learned-value":
        return learned_value(transformer_value(sizes), steps=2)
    if name == "running-average":
        return running_average()
    return (leave_one_out if name == "leave-one-out" else leave_one_out_by_time)(among=same_start)


def corpus_named(name: str, seed: int, sentences: int, length: int, prompt_words: int) -> Corpus:
    """Return a corpus: grammar (made from a seed), python-docs, or a file of text.

    Args:
        name: Which.
        seed: Of the grammar and its sentences.
        sentences: How many of them.
        length: Tokens of a text, where it is no sentence of the grammar.
        prompt_words: Words of a prompt.

    Raises:
        InputError: If there is no such file, or nothing in it.
    """
    if sentences < 1:
        raise InputError(f"expected 1 or more sentences, got {sentences}")
    if name == "grammar":
        return grammar_corpus(grammar(seed), jax.random.key(seed), sentences, prompt_words)
    text = python_docs() if name == "python-docs" else read_text(name)
    return text_corpus(text, f"{name} ({digest(text)})", length, prompt_words)


def gold_named(name: str, corpus: Corpus, seed: int) -> Gold:
    """Return a gold reward: words, length, or letters: followed by the letters that are wanted.

    For a grammar, its words have values drawn with a seed; for another corpus, its frequent words are worth 1 each.

    Raises:
        InputError: If there is none of that name.
    """
    kind, _, letters = name.partition(":")
    if name == "words":
        return common_words(corpus) if corpus.grammar is None else grammar_gold(corpus.grammar, seed)
    if name == "length":
        return length_gold()
    if kind == "letters" and letters:
        return letter_share(corpus.tokenizer, letters)
    raise InputError(f"expected a gold reward words, length or letters:LETTERS, got {name}")


def baseline_named(name: str, environment: Environment, hidden: Sequence[int], steps: int) -> Baseline:
    """Return a baseline; a learned one is a table where states are few, else a network with these hidden layers.

    Raises:
        InputError: If it needs discrete actions and they are not, or learns in less than one gradient step an update.
    """
    if name in BASELINES:
        return BASELINES[name]()
    value = value_for if name == "learned-value" else action_value_for
    return LEARNED_BASELINES[name](value(environment, hidden), steps=steps)


def reinforce_named(
    environment: Environment,
    *,
    policy: PolicyName,
    hidden: Sequence[int],
    credit: CreditName,
    baseline: BaselineName,
    episodes: int,
    steps: int,
    value_steps: int,
    optimizer: OptimizerName,
    bfloat16: bool = False,
) -> Algorithm:
    """Return REINFORCE of these parts; see `policy_named`, `baseline_named` and `pgjax.reinforce`.

    Raises:
        InputError: If a part does not fit the environment or another one.
    """
    return reinforce(
        environment,
        policy_named(policy, environment, hidden, bfloat16),
        episodes=episodes,
        steps=steps,
        credit=CREDITS[credit](),
        baseline=baseline_named(baseline, environment, hidden, value_steps),
        optimizer=OPTIMIZERS[optimizer],
    )


class Runs(Protocol):
    """Options that say which runs a study makes of everything."""

    @property
    def seeds(self) -> int:
        """How many."""

    @property
    def first_seed(self) -> int:
        """The number of the first of them."""

    @property
    def study(self) -> int:
        """Number of the study."""


def seeds_of(options: Runs) -> range:
    """Return the numbers of the runs that a study makes of everything."""
    return range(options.first_seed, options.first_seed + options.seeds)


def keys_after_training(options: Runs) -> jax.Array:
    """Return a key for each run of a study, for what is done with it when it has learned: no key of any training."""
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
    """Return the options that say what a run computes: results with others are other results.

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


def average_of(runs: Any) -> dict[str, Any]:
    """The interquartile mean of runs [n], iqm, and its 95% interval (None of a single run), as plain numbers."""
    return {"iqm": float(interquartile_mean(runs)), "interval": plain_interval(confidence_interval(runs))}


def written(number: float | None, form: str = ".4g") -> str:
    """Return a number as tables have it, "-" if there is none."""
    return "-" if number is None else f"{number:{form}}"


def written_interval(bounds: Sequence[float] | None) -> str:
    """Return an interval as tables have it, "-" if there is none."""
    return "-" if bounds is None else f"[{written(bounds[0])}, {written(bounds[1])}]"


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of `pgjax.summarize` as a table, and below it the seeds that failed, if any did."""
    lines = []
    for row in rows:
        line = {name: shown(value) for name, value in hyperparameters_of(row).items()}
        line["runs"] = str(row["seeds"])
        line["failed"] = str(len(row["failed_seeds"]))
        line["final return (IQM)"] = written(row["iqm"])
        line["IQM, 95% interval"] = written_interval(row["interval"])
        line["90% of runs"] = written_interval(row["tolerance_interval"])
        line["solved"] = written(row["solved_fraction"], ".1%")
        line["solved, 95% interval"] = written_interval(row["solved_interval"])
        line["steps"] = f"{row['environment_steps']:.3g}"
        lines.append(line)
    print(pd.DataFrame(lines).to_string(index=False))
    for row in rows:
        if row["failed_seeds"]:
            where = ", ".join(f"{name} {shown(value)}" for name, value in hyperparameters_of(row).items())
            print(f"numbers that are not finite{' at ' + where if where else ''} in seeds: {some(row['failed_seeds'])}")


def some(numbers: Sequence[int], most: int = 20) -> str:
    """Return the first of some numbers as a sentence has them."""
    return ", ".join(map(str, numbers[:most])) + (", …" if len(numbers) > most else "")


def hyperparameters_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the hyper-parameters of a row of `pgjax.summarize`: what stands before its results."""
    names = list(row)
    return {name: row[name] for name in names[: names.index("seeds")]}


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, never half of it."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a summary, as `write_text` does."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
