"""Which of these texts is better? A page on which people rank them, opened from a script.

    uv run --extra people experiments/annotate.py --results results/rlhf --annotator ada

samples outputs of a model that experiments/rlhf.py tuned, prints a link for each annotator and one to watch, and serves
one page until everything is ranked, or ctrl-C. `--file tasks.jsonl` ranks any texts instead: a line is {"prompt": …,
"outputs": […, …]}. What comes out, results/people/rankings.jsonl, is what experiments/rlhf.py --rankings reads;
--export also writes it as TRL's prompt/chosen/rejected. The same command again goes on where it was stopped.
"""

import json
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import jax

import pgjax
import rlhf as study
from common import asking, launch, names, rounds
from pgjax import rlhf
from pgjax.devices import use_every_core
from pgjax.rlhf import people

GRACE = 3.0  # seconds that the page stays when all is done, so that everybody's says so


@dataclass(frozen=True)
class Options(asking.Asking):
    """Which texts, and who ranks them."""

    results: Path | None = None
    """Directory of experiments/rlhf.py, whose first run's model writes the texts."""
    model: Literal["tuned", "supervised"] = "tuned"
    """Which of its models."""
    file: Path | None = None
    """Instead: a file of tasks."""
    tasks: int = 200
    """Tasks to draw from a model."""
    ranked: int = 2
    """Outputs of a model to rank together."""
    study: int = 0
    """Number of the draw."""
    out: Path = Path("results/people")
    """Directory of the rankings, and of what was asked."""
    export: Path | None = None
    """File to write TRL's preferences into at the end."""


def check(options: Options) -> None:
    """Raise unless there are texts, and a way to choose among them.

    Raises:
        InputError: If not.
    """
    if (options.results is None) == (options.file is None):
        raise pgjax.InputError("expected either --results or --file, got " + ("both", "none")[options.file is None])
    if options.file is not None and options.ask != "uniform":
        raise pgjax.InputError(
            "expected --results, whose reward models disagree, beside --ask disagreement, got --file"
        )
    asking.desk_of(options)
    launch.check_counts({"tasks": options.tasks})
    if not 2 <= options.ranked <= people.MOST_OUTPUTS:
        raise pgjax.InputError(f"expected 2 to {people.MOST_OUTPUTS} outputs to rank together, got {options.ranked}")


def options_of(results: Path) -> study.Options:
    """The options that a directory's models were made with.

    Raises:
        InputError: If it does not say.
    """
    try:
        saved = json.loads((results / "model.json").read_text())
    except (OSError, ValueError) as error:
        raise pgjax.InputError(
            f"expected a directory of experiments/rlhf.py with model.json, which the same command writes, got {results}"
        ) from error
    known = {field.name for field in fields(study.Options)}
    return study.Options(**{name: value for name, value in saved.items() if name in known})


def drawn(options: Options, results: Path) -> list[people.Task]:
    """Tasks of a stored model's outputs.

    Raises:
        InputError: If there is none, or no ensemble of reward models where they are to disagree.
    """
    made = options_of(results)
    corpus = names.corpus_named(made, seed=0, kept=results / study.TOKENIZER)
    made, policy, config = study.language_model(made, corpus)
    judge = rlhf.reward_model(config)
    external = rounds.nobody(options.ranked, corpus.prompts.shape[1] + made.length)
    settings = rlhf.FeedbackSettings(
        corpus.tokenizer.vocabulary, made.length, rankings=0, outputs=options.ranked, members=made.members
    )
    loop = rlhf.feedback(policy, judge, None, corpus.prompts, settings, external=external)
    key = pgjax.run_keys(options.study, range(1))[0]
    theta: Any = study.supervised_of(made, policy, results)
    reward = None
    if options.model == "tuned":
        numbers = loop.algorithm.hyperparameters()
        kept = jax.eval_shape(lambda key: loop.algorithm.init(key, numbers).params, jax.random.key(0))
        theta, reward = pgjax.load_params(last_round(results), kept)
    ensemble = None
    if options.ask == "disagreement":
        if reward is None or made.members < 2:
            raise pgjax.InputError(
                f"expected a tuned model of --members 2 or more for --ask disagreement, got {made.members} of {results}"
            )
        ensemble = judge, jax.tree.map(lambda leaf: leaf[0], reward.params)
    one = jax.tree.map(lambda leaf: leaf[0], theta)
    return asking.tasks_of(loop, corpus, made.length, one, key, options.tasks, {}, ensemble)


def last_round(results: Path) -> Path:
    """Where the tuned model of a directory is: of its last round, where people ranked at a page."""
    rounds_of_people = sorted((results / "people").glob("model-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return rounds_of_people[-1] if rounds_of_people else results / "feedback"


def main(options: Options) -> None:
    """Ask until all is ranked."""
    check(options)
    launch.check_directory_of_study(options.out, ["tasks.jsonl", "rankings.jsonl", ".rankings.jsonl.secret"])
    asked, answers = options.out / "tasks.jsonl", options.out / "rankings.jsonl"
    if options.file is not None:
        tasks = people.load_tasks(options.file)
    elif asked.exists():
        tasks = people.load_tasks(asked)
    else:
        assert options.results is not None
        tasks = drawn(options, options.results)
        options.out.mkdir(parents=True, exist_ok=True)
        people.save_tasks(asked, tasks)
    with asking.page_of(options, answers) as page:
        page.ask(tasks, asking.desk_of(options))
        print(f"{len(tasks)} tasks; answers are written to {answers}; ctrl-C ends", flush=True)
        try:
            while not page.done():
                time.sleep(0.5)
            time.sleep(GRACE)
        finally:
            lines = page.lines()
            finish(options, answers, lines)


def finish(options: Options, answers: Path, lines: list[rlhf.RankingLine]) -> None:
    """Say what was ranked, and write it as TRL reads it if that is asked for."""
    print(f"{sum(bool(line.ranking) for line in lines)} rankings in {answers}", flush=True)
    if options.export is not None and any(line.pairs() for line in lines):
        pairs = rlhf.save_preferences(options.export, lines)
        print(f"{pairs} preferences in {options.export}", flush=True)


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
