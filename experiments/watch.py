"""What does a policy do? Play an episode, and make an animation of it.

Who plays is a trained run of experiments/reinforce.py or experiments/scores.py (its best seed, if none is named), the
policy that is written by hand for an environment, or the random one. Writes the file --out: a GIF, or a PNG of the
episode's end, as its name says; episodes of several environments become one PNG. It takes some seconds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

import pgjax
from common import launch, names
from pgjax.sweeps.load import configuration_of


@dataclass(frozen=True)
class Options:
    """Who plays where, and what is drawn."""

    results: Path = Path("results/reinforce")
    """Directory with the trained runs."""
    seed: int | None = None
    """Number of the run; by default the one with the best final return."""
    learning_rate: float | None = None
    """Learning rate η of the run, where there are several; by default the best."""
    policy: Literal["trained", "scripted", "random"] = "trained"
    """Who plays; scripted and random need --env, and no trained run."""
    env: tuple[str, ...] = ()
    """Environments where a policy that is not trained plays, named as in experiments/reinforce.py."""
    episode: int = 0
    """Number of the episode; another one is played with other randomness."""
    frames: int = 200
    """Frames at most; a longer episode is shown in steps of two or more."""
    frames_per_second: int = 15
    """Frames a second."""
    out: Path = Path("results/episode.gif")
    """File to write, which ends in .gif or .png."""


def trained(options: Options) -> tuple[str, pgjax.Environment, pgjax.Expert]:
    """Where a trained run played, and the policy that it ended with.

    Raises:
        InputError: If there are no such results, or not of REINFORCE with an environment and a policy that have names.
    """
    results = pgjax.read(options.results)
    made = configuration_of(results)
    absent = {"env", "policy", "hidden"} - made.keys()
    if absent:
        raise pgjax.InputError(
            f"expected results of experiments/reinforce.py or of scores.py in {options.results}, got some that "
            f"do not say their {min(absent)}"
        )
    environment = names.environment_named(made["env"], made.get("frames", 1))
    how = {name: made[name] for name in ("bfloat16", "normalize_observations") if name in made}
    policy = names.policy_named(made["policy"], environment, tuple(made["hidden"]), **how)
    axes = [str(name) for name in results.completed.dims if name != "seed"]
    if options.learning_rate is not None and axes != ["learning_rate"]:
        over = ", ".join(axes) or "seeds alone"
        raise pgjax.InputError(f"expected results at several learning rates for --learning-rate, got some over {over}")
    point: dict[str, float] | None = None
    if options.learning_rate is not None:
        point = {"learning_rate": options.learning_rate}
    elif axes:
        final = pgjax.analysis.final_return(results.load())
        means = final.fillna(-np.inf).quantile(0.5, "seed")
        best = means.where(means == means.max(), drop=True)
        point = {name: float(best[name][0]) for name in axes}
    expert = pgjax.trained(results, policy, seed=options.seed, point=point)
    return made["env"], environment, expert


def untrained(name: str, policy: str) -> tuple[str, pgjax.Environment, pgjax.Expert]:
    """Where a policy plays that nothing was learned for, and the policy.

    Raises:
        InputError: If there is no such environment, or nothing is written by hand for it.
    """
    environment = names.environment_named(name)
    if policy == "random":
        return name, environment, pgjax.Expert(pgjax.random_policy(environment), ())
    expert = names.expert_named(name, environment)
    if expert is None:
        raise pgjax.InputError(f"expected an environment with a policy written by hand, got {name}")
    return name, environment, expert


def main(options: Options) -> None:
    """Play the episode and draw it."""
    if options.out.suffix not in (".gif", ".png"):
        raise pgjax.InputError(f"expected a file that ends in .gif or .png, got {options.out}")
    if options.out.is_dir():
        raise pgjax.InputError(f"expected a file, got the directory {options.out}")
    launch.check_counts({"frames": options.frames, "frames a second": options.frames_per_second})
    if not 0 <= options.episode < 2**32:
        raise pgjax.InputError(f"expected an episode from 0 to 2**32 - 1, got {options.episode}")
    if options.policy == "trained" and options.env:
        raise pgjax.InputError(f"expected the environment of the trained run, got --env {options.env[0]}")
    if options.policy != "trained" and not options.env:
        raise pgjax.InputError(f"expected --env for a {options.policy} policy, got none")
    if len(options.env) > 1 and options.out.suffix != ".png":
        raise pgjax.InputError(f"expected a file that ends in .png for several environments, got {options.out}")
    players = [trained(options)] if not options.env else [untrained(name, options.policy) for name in options.env]
    key = jax.random.fold_in(jax.random.key(0), options.episode)
    played = []
    for name, environment, expert in players:
        episode = pgjax.play(environment, expert.policy, key, expert.params)
        played.append((environment, episode))
        print(f"{name}: {len(episode.reward)} steps, return {float(episode.reward.sum()):.4g}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if len(played) > 1:
        pgjax.analysis.save_frames(played, options.out)
    elif options.out.suffix == ".png":
        pgjax.analysis.save_frame(*played[0], options.out)
    else:
        pgjax.save_animation(*played[0], options.out, options.frames_per_second, options.frames)
    print(f"written to {options.out}")


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
