"""Is what the pages say still so? All studies, one after the other, and which of their pages are older than the code.

Without options it runs the commands of every page (or of those named) one after the other; a study that was stopped
goes on, and one that has ended with today's code is left out. When a page has the new numbers, --publish NAME says so
in made.json; --stale lists what has changed since a page was made (see common/dependence.py for what it sees), and
writes a line at the foot of each page.

The tests do not ask that pages are fresh: then every change of the code would cost hours, or be waved through. They
ask that a page which is older than its code says so itself.
"""

import datetime as dt
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import tyro

from common.dependence import code_of

ROOT = Path(__file__).parents[1]
MADE = ROOT / "experiments" / "made.json"  # what pages were made with
FRESH, STALE = "*The code that this page depends on is", "*Code that this page depends on has changed"


class Study(NamedTuple):
    """A page, and the commands that print its numbers."""

    page: str
    commands: tuple[str, ...]


STUDIES = {
    "benchmark": Study("benchmark.md", ("benchmark.py",)),
    "compare": Study("compare.md", ("tune.py --env Acrobot-v1 --method ppo reinforce --out results/acrobot",)),
    "estimators": Study("estimators.md", ("estimators.py",)),
    "family": Study("family.md", ("family.py",)),
    "group_bias": Study("group_bias.md", ("group_bias.py",)),
    "imitation": Study("imitation.md", ("imitation.py",)),
    "language_models": Study("language_models.md", ("large_model.py --size 10m",)),
    "overoptimisation": Study("overoptimisation.md", ("overoptimisation.py",)),
    "people": Study("people.md", ("people_load.py",)),
    "reinforce": Study(
        "reinforce.md",
        (
            "reinforce.py --seeds 64 --min-steps-per-slot 128 --learning-rate 1e-3 3e-3 1e-2 3e-2 --out results/rates",
            "reinforce.py --env maze --slots 1 --credit whole-episode --baseline running-average --optimizer sgd "
            "--seeds 64 --iterations 3000 --learning-rate 1e-4 1e-3 1e-2 --out results/lecture",
            "reinforce.py --method ppo --seeds 64 --min-steps-per-slot 128 --learning-rate 3e-3 --out results/ppo",
        ),
    ),
    "rlhf": Study("rlhf.md", ("rlhf.py",)),
    "scores": Study("scores.md", ("scores.py",)),
    "step_size": Study("step_size.md", ("step_size.py",)),
    "verifiable": Study("verifiable.md", ("verifiable.py", "verifiable.py --method grpo --out results/grpo")),
} | {
    f"theory_{name}": Study(f"theory/{name}.md", (f"theory_{name}.py",))
    for name in (
        "any_step_size", "baselines_beyond_variance", "entropy_landscape", "episodes_or_updates", "plateaus",
    )
}  # fmt: skip


def code_now(name: str) -> dict[str, str]:
    """Digests of what a study's page depends on, by file."""
    return code_of(ROOT, ROOT / "experiments" / STUDIES[name].commands[0].split()[0])


def read_json(path: Path) -> dict[str, Any]:
    """What is in a file; nothing if there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def changed(made: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files whose digests differ."""
    return sorted(path for path in made.keys() | now.keys() if made.get(path) != now.get(path))


def foot_of(name: str) -> str:
    """The last line of a study's page: whether its code is still what it was made with."""
    made = read_json(MADE)[name]
    if not changed(made["code"], code_now(name)):
        return f"{FRESH} as it was at revision {made['revision']}.*"
    return f"{STALE} since revision {made['revision']}; `uv run experiments/all.py --stale` says where.*"


def write_foot(name: str) -> None:
    """Put the last line of a study's page right."""
    page = ROOT / "experiments" / STUDIES[name].page
    before = page.read_text()
    lines = [line for line in before.split("\n") if not line.startswith((FRESH, STALE))]
    after = "\n".join(lines).rstrip() + f"\n\n{foot_of(name)}\n"
    if after != before:
        page.write_text(after)


def refuse(sentence: str) -> NoReturn:
    """End with one sentence and status 2."""
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def run(name: str, done: Path) -> None:
    """Run the commands of a study, unless they have ended with today's code already."""
    code = code_now(name)
    if read_json(done).get("code") == code:
        print(f"{name}: done with today's code")
        return
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    revision = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    for command in STUDIES[name].commands:
        print(f"{name}: uv run experiments/{command}", flush=True)
        ended = subprocess.run([sys.executable, *shlex.split(f"experiments/{command}")], cwd=ROOT, check=False)
        if ended.returncode:  # it has said why
            raise SystemExit(ended.returncode)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps({"revision": revision, "date": f"{dt.date.today()}", "code": code}))


def publish(name: str, done: Path) -> None:
    """Take what a study was run with as what its page was made with."""
    made = read_json(MADE) | {name: read_json(done)}
    if not made[name]:
        refuse(f"expected a study that has been run, got {name}")
    lines = [f'"{study}": {json.dumps(made[study], sort_keys=True)}' for study in sorted(made)]
    MADE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@dataclass(frozen=True)
class Options:
    """What to do with which pages."""

    studies: tyro.conf.Positional[tuple[str, ...]] = tuple(STUDIES)
    """Names of studies."""
    stale: bool = False
    """Say what has changed since the pages were made, and put the line at the foot of each right; run nothing."""
    publish: bool = False
    """Say that the pages of these studies now have the numbers of the last run; run nothing."""


def main(options: Options) -> None:
    """Run studies, or publish them, or say what is stale."""
    if unknown := sorted(set(options.studies) - set(STUDIES)):
        refuse(f"expected studies among {', '.join(STUDIES)}, got {', '.join(unknown)}")
    for name in options.studies:
        done = ROOT / "results" / "made" / f"{name}.json"
        if not options.stale and not options.publish:
            run(name, done)
            continue
        if options.publish:
            publish(name, done)
        write_foot(name)
        made = read_json(MADE)[name]
        print(f"{name}, {made['revision']}: {', '.join(changed(made['code'], code_now(name))) or 'as it was'}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
