"""What does a reward add that only says whether the answer is right? Additions, worked out in text and checked.

A transformer is pretrained on worked examples in which some sums of digits are mistaken, and imitates the mistakes.
Then the policy gradient sees nothing but a check of the final answer: 1 if it is right, 0 if not. Problems to learn
from, to practise on and to be measured on are different ones. Before and after, on fresh answers to the latter:
accuracy and pass@k, by the length of the problem; the accuracy of the likeliest answer; and which share of the right
answers is worked out right throughout.

Writes a directory of results for each of the two sweeps, summary.json, samples.txt and verifiable.png into the
directory --out, and prints a table. The same command again goes on where it was stopped. With the defaults it takes
about four minutes on two cores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import pgjax
from common import launch, names, pretraining, tables
from pgjax.analysis.plotting import COLOURS, band, dress
from pgjax.devices import use_every_core
from pgjax.text import arithmetic


@dataclass(frozen=True)
class Options(launch.Runs):
    """What is learned, practised and measured."""

    digits: tuple[int, ...] = (2, 3, 4)
    """Digits of the numbers to add."""
    noise: float = 0.25
    """Probability that a sum of digits in a worked example is mistaken."""
    on_host: bool = False
    """Whether the check is a function in Python that gets decoded texts, and not a part of the compiled program."""
    examples: int = 16384
    """Worked examples to pretrain on."""
    practice: int = 2048
    """Other problems, that the policy gradient practises on."""
    width: int = 32
    """Width of the transformer."""
    layers: int = 2
    """Its layers."""
    heads: int = 4
    """Heads in each layer."""
    pretraining: int = 2500
    """Gradient steps of supervised pretraining, rounded up to a multiple of 50."""
    pretraining_rate: float = 3e-3
    """Learning rate η of supervised pretraining."""
    method: Literal["rloo", "remax", "grpo", "dr-grpo", "gspo", "reinforce-plus-plus", "ppo"] = "rloo"
    """Method of the policy gradient; PPO's critic is a transformer of its own."""
    updates: int = 160
    """Its updates."""
    slots: int = 128
    """Answers of an update."""
    group_size: int = 8
    """Answers of an update to the same problem; PPO has no groups."""
    learning_rate: float = 5e-4
    """Learning rate η of the policy gradient."""
    beta: float = 0.0
    """Coefficient β of a KL penalty, which keeps the model near the pretrained one."""
    seeds: int = 8
    study: int = 1
    """Number of the study: its problems and its runs. The settings were chosen on those of study 0."""
    block: int = 2
    """Runs vmapped together on a device."""
    out: Path = Path("results/verifiable")


PROBLEMS, ANSWERS = 192, 16  # that are measured, and to each
SHOWN = 6  # samples
FILES = ["pretraining", "practice", "summary.json", "samples.txt", "verifiable.png"]
MARK = int(arithmetic.CHARACTERS.encode(arithmetic.MARK)[0])


class Task(NamedTuple):
    """Problems, cut into parts that have none in common, and who is to solve them."""

    examples: pgjax.text.Additions
    practice: pgjax.Environment
    test: pgjax.Environment
    policy: pgjax.Policy
    config: pgjax.text.TransformerConfig


def right_answers(problems: pgjax.text.Additions, texts: Sequence[pgjax.text.HostText]) -> list[bool]:
    """The check in Python: which texts end with the right answer after their first mark."""
    sums = problems.first + problems.second
    return [text.ended and text.output.partition(arithmetic.MARK)[2] == str(sums[text.number]) for text in texts]


def environment_of(problems: pgjax.text.Additions, on_host: bool) -> pgjax.Environment:
    """The environment whose reward is the check; it notes `right` and `flawless`, that the working is right too."""
    check, W = pgjax.text.answer_check(MARK), problems.prompts.shape[1]
    if on_host:
        check = pgjax.text.host_reward(partial(right_answers, problems), arithmetic.CHARACTERS.decode)

    def judge(texts: pgjax.text.Texts, params: Any) -> pgjax.text.Judgement:
        right = check(texts._replace(data=texts.data["answer"]), params).reward
        flawless = jnp.all(jnp.where(texts.output, texts.tokens, 0)[:, W:] == texts.data["worked"], axis=1)
        return pgjax.text.Judgement(right, {"right": right, "flawless": jnp.asarray(flawless, float)})

    rows = [[*arithmetic.CHARACTERS.encode(text), pgjax.text.EOS] for text in pgjax.text.worked(problems)]
    worked = pgjax.text.right_padded([np.asarray(row) for row in rows], problems.length)
    return pgjax.text.text_environment(
        problems.prompts,
        arithmetic.CHARACTERS.vocabulary,
        problems.length,
        judge,
        name="additions",
        data={"answer": problems.answers, "worked": worked},
    )


def task_of(options: Options) -> Task:
    """The problems of a study, drawn with its number.

    Raises:
        InputError: If there are not so many, or there is no such transformer.
    """
    problems = pgjax.text.additions(options.study, options.examples + options.practice + PROBLEMS, options.digits)
    examples = problems.part(slice(options.examples))
    practice = environment_of(problems.part(slice(options.examples, -PROBLEMS)), options.on_host)
    config = pgjax.text.TransformerConfig(
        vocabulary=arithmetic.CHARACTERS.vocabulary,
        context=problems.prompts.shape[1] + problems.length,
        width=options.width,
        layers=options.layers,
        heads=options.heads,
    )
    policy = pgjax.text.transformer(practice, config)
    test = environment_of(problems.part(slice(-PROBLEMS, None)), options.on_host)
    return Task(examples, practice, test, policy, config)


def pretrain(options: Options, task: Task) -> xr.Dataset:
    """The sweep of supervised pretraining."""
    texts = pgjax.text.worked_examples(task.examples, options.study, options.noise)
    algorithm = pgjax.text.pretraining(task.policy, texts, steps=pretraining.STEPS)
    print(f"1. supervised pretraining on {len(texts)} worked examples", flush=True)
    chosen = ("digits", "noise", "examples", "practice", "width", "layers", "heads")
    return pretraining.pretrain(options, algorithm, {name: getattr(options, name) for name in chosen})


def method_of(options: Options, task: Task) -> pgjax.Algorithm:
    """The method on problems to practise on; its runs begin with θ_SL, the reference of the penalty.

    Raises:
        InputError: If counts do not fit together.
    """
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(task.policy.init, jax.random.key(0)))
    environment = pgjax.kl_penalty(task.practice, task.policy, like, options.beta)
    if options.method == "ppo":
        if options.group_size != Options.group_size:
            raise pgjax.InputError(f"expected no --group-size beside --method ppo, got {options.group_size}")
        value = pgjax.text.transformer_value(task.config)
        algorithm = pgjax.algorithms.ppo(environment, task.policy, value, slots=options.slots, min_steps_per_slot=0)
    else:
        make = names.GROUP_METHODS[options.method]
        algorithm = make(environment, task.policy, slots=options.slots, group_size=options.group_size)

    def init(key: jax.Array, numbers: Any) -> Any:
        return algorithm.init(key, numbers)._replace(params=numbers.environment.reference)

    return algorithm._replace(init=init)


def practise(options: Options, algorithm: pgjax.Algorithm, numbers: Any, supervised: Any) -> xr.Dataset:
    """The sweep of the policy gradient, each run from its own θ_SL."""
    print(f"2. {options.updates} updates of {options.method.upper()} on the check alone", flush=True)
    not_computed = {"block", "updates", "learning_rate", "beta"}  # which are other arguments
    return pgjax.sweep(
        algorithm,
        iterations=options.updates,
        seeds=launch.seeds_of(options),
        by_seed={"environment.reference": supervised},
        hyperparameters=numbers,
        study=options.study,
        out=options.out / "practice",
        configuration=launch.configuration_of_options(options, not_computed),
        block=options.block,
    )


def measurement(task: Task) -> Callable[[jax.Array, Any], dict[str, np.ndarray]]:
    """A function (keys, θ) of all runs: what fresh answers to problems that are new to them are worth, [seeds, …]."""
    sampled = pgjax.collect(task.test, task.policy, PROBLEMS * ANSWERS, group_size=ANSWERS)
    greedy = pgjax.collect(task.test, pgjax.policies.top_k(task.policy, 1), PROBLEMS * 2, group_size=2)

    def one(key: jax.Array, theta: Any) -> dict[str, jax.Array]:
        whole, likeliest = (play(key, theta, task.test.params) for play in (sampled, greedy))
        sums = {name: jnp.sum(note, axis=0).reshape(PROBLEMS, -1) for name, note in whole.notes.items()}
        right = jnp.sum(whole.reward, axis=0).reshape(PROBLEMS, -1)
        first = whole.observation[0][::ANSWERS]
        return {
            "digits": (jnp.sum(first != pgjax.text.PAD, axis=1) - 3) // 2,  # bos, "+" and "=" are the others
            "right": jnp.sum(right, axis=1).astype(int),
            "greedy": jnp.sum(likeliest.reward, axis=0)[::2],
            "flawless": jnp.sum(sums["flawless"] * right) / jnp.maximum(jnp.sum(right), 1),
            "length": jnp.mean(sums["length"]),
            "tokens": pgjax.text.written(whole, task.test.horizon)[::ANSWERS],
        }

    measure = pgjax.over_runs(one, block=1)
    return lambda keys, theta: jax.tree.map(np.asarray, measure(keys, theta))


def passes(found: Mapping[str, np.ndarray], digits: int | None, k: int) -> np.ndarray:
    """pass@k of each run, [seeds], over problems of so many digits or all."""
    chosen = np.ones_like(found["digits"], bool) if digits is None else found["digits"] == digits
    return (pgjax.analysis.pass_at_k(found["right"], ANSWERS, k) * chosen).sum(1) / np.maximum(chosen.sum(1), 1)


def summary_of(options: Options, found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What was measured of models, each with its interval over runs."""
    average = pgjax.analysis.mean_interval

    def share(runs: np.ndarray) -> dict[str, float | None]:
        found = average(runs)
        return {name: None if value is None else float(np.clip(value, 0, 1)) for name, value in found.items()}

    ks = [2**i for i in range(ANSWERS.bit_length())]
    lengths: dict[str, int | None] = {"all": None, **{str(digits): digits for digits in sorted(options.digits)}}
    return {
        "pass": {name: {str(k): share(passes(found, digits, k)) for k in ks} for name, digits in lengths.items()},
        "greedy": share(found["greedy"].mean(1)),
        "flawless": share(found["flawless"]),
        "length": average(found["length"]),
    }


def draw(results: xr.Dataset, summaries: Mapping[str, Any], method: str, path: Path) -> None:
    """Draw accuracy and entropy over updates, and pass@k before and after."""
    figure = Figure(figsize=(12.5, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    curves = {"accuracy on problems of practice": "right", "entropy, nats a token": "entropy"}
    for axes, (title, name), colour in zip(panels, curves.items(), COLOURS, strict=False):
        runs = results[name].transpose("seed", "iteration").values
        interval = pgjax.confidence_interval(runs)
        dress(axes, title, f"update of {method}")
        band(axes, np.arange(1, runs.shape[1] + 1), pgjax.interquartile_mean(runs), interval, colour, method)
    dress(panels[2], "pass@k on unseen problems", "k answers")
    for (label, found), style in zip(summaries.items(), ("o--", "o-"), strict=True):
        for colour, (digits, values) in zip(COLOURS[2:], list(found["pass"].items())[1:], strict=False):
            middle, low, high = ([value[of] for value in values.values()] for of in ("mean", "low", "high"))
            band(panels[2], list(map(int, values)), middle, (low, high), colour, f"{digits} digits, {label}", style)
    panels[2].set_xscale("log", base=2)
    panels[2].xaxis.set_major_formatter("{x:.0f}")
    handles, labels = panels[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", handlelength=3.5, frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main(options: Options) -> None:
    """Pretrain, practise and measure; then write, draw and print what was found."""
    launch.check_counts({name: getattr(options, name) for name in ("examples", "practice", "pretraining", "updates")})
    if options.seeds < 2:
        raise pgjax.InputError(f"expected 2 or more seeds for an interval, got {options.seeds}")
    launch.check_directory_of_study(options.out, FILES)
    task = task_of(options)
    algorithm = method_of(options, task)
    numbers = algorithm.hyperparameters(learning_rate=options.learning_rate, discount=1.0)
    pretrained, like = pretrain(options, task), jax.eval_shape(task.policy.init, jax.random.key(0))
    supervised = pgjax.load_params(pretrained, like)
    results = practise(options, algorithm, numbers, supervised).load()
    launch.leave_to_the_first_process()
    good = ~(pgjax.analysis.failed(pretrained).values | pgjax.analysis.failed(results).values)
    failed = np.asarray(launch.seeds_of(options))[~good].tolist()
    if good.sum() < 2:
        raise pgjax.InputError(f"expected 2 or more runs whose numbers are finite, got others in seeds {failed}")
    print(f"3. {ANSWERS} fresh answers to each of {PROBLEMS} other problems", flush=True)
    models = {"pretrained": supervised, options.method.upper(): pgjax.load_params(results, like)}
    keys, results = launch.keys_after_training(options)[good], results.isel(seed=good)
    measure = measurement(task)
    found = {name: measure(keys, jax.tree.map(lambda leaf: leaf[good], theta)) for name, theta in models.items()}
    summaries = {name: summary_of(options, of) for name, of in found.items()}
    ends = {
        name: pgjax.analysis.mean_interval(results[name].isel(iteration=slice(-10, None)).mean("iteration"))
        for name in ("right", "entropy", "length", "kl")
    }
    seconds = {"pretraining": float(pretrained.seconds.sum()), "practice": float(results.seconds.sum())}
    tables.write_json(
        options.out / "summary.json",
        {"models": summaries, "practice": ends, "failed_seeds": failed, "seconds": seconds},
    )
    columns = {name: map(arithmetic.CHARACTERS.decode, of["tokens"][0, :SHOWN]) for name, of in found.items()}
    samples = pd.DataFrame(columns).to_string(index=False, justify="left")
    tables.write_text(options.out / "samples.txt", samples + "\n")
    draw(results, summaries, options.method.upper(), options.out / "verifiable.png")
    print(samples)
    print(table_of(summaries).to_string(index=False))
    print(f"{sum(seconds.values()):.0f} s of training; written to {options.out}")


def table_of(summaries: Mapping[str, Any]) -> pd.DataFrame:
    """What was measured as a table, a line for each model and length of problems."""

    def shown(value: Mapping[str, float]) -> str:
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

    lines = []
    for name, found in summaries.items():
        for digits, values in found["pass"].items():
            line = {"model": name, "digits": digits, **{f"pass@{k}": shown(value) for k, value in values.items()}}
            whole = {of: shown(found[of]) for of in ("greedy", "flawless", "length")}
            lines.append(line | (whole if digits == "all" else dict.fromkeys(whole, "")))
    return pd.DataFrame(lines)


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
