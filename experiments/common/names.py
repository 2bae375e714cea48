"""Names on the command line for what the library knows as functions. Strings select things here and nowhere else."""

import difflib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pgjax
from pgjax import (
    Baseline,
    Box,
    Discrete,
    Environment,
    Expert,
    InputError,
    Policy,
    ValueFunction,
    estimators,
    imitation,
    rlhf,
)
from pgjax.environments import LAYOUTS
from pgjax.policies.convolutional import is_image
from pgjax.text.json_lines import CHAT

# Credits and baselines have the names of the functions of `pgjax.estimators`, with hyphens.
CreditName = Literal[
    "whole-episode", "reward-to-go", "discounted-reward-to-go", "lambda-return", "discounted-lambda-return"
]
TextBaselineName = Literal["running-average", "leave-one-out", "leave-one-out-by-time", "learned-value"]
BaselineName = Literal[
    "none",
    TextBaselineName,
    "learned-value-by-time",
    "variance-optimal",
    "learned-action-value",
    "expected-policy-gradient",
]


def _trpo(
    environment: Environment, policy: Policy, value: pgjax.policies.ValueFunction, *, optimizer: Any, **counts: Any
) -> pgjax.Algorithm:
    """TRPO, which is an optimizer itself."""
    if optimizer is not optax.adam:
        raise InputError("expected no --optimizer beside --method trpo, whose learning rate is δ, got one")
    return pgjax.algorithms.trpo(environment, policy, value, **counts)


# Methods that choose their own credit and baseline: those with a critic, and those of groups of the same start.
CRITIC_METHODS: dict[str, Callable[..., pgjax.Algorithm]] = {
    "actor-critic": pgjax.algorithms.actor_critic,
    "a2c": pgjax.algorithms.a2c,
    "ppo": pgjax.algorithms.ppo,
    "trpo": _trpo,
}
GROUP_METHODS: dict[str, Callable[..., pgjax.Algorithm]] = {
    "rloo": pgjax.algorithms.rloo,
    "remax": pgjax.algorithms.remax,
    "grpo": pgjax.algorithms.grpo,
    "dr-grpo": pgjax.algorithms.dr_grpo,
    "gspo": pgjax.algorithms.gspo,
    "reinforce-plus-plus": pgjax.algorithms.reinforce_plus_plus,
}
# Those that may use a batch more than once, with clipped ratios.
CLIPPED_METHODS = ("ppo", "grpo", "dr-grpo", "gspo", "reinforce-plus-plus")
GroupMethodName = Literal["reinforce", "rloo", "remax", "grpo", "dr-grpo", "gspo", "reinforce-plus-plus"]
MethodName = Literal[GroupMethodName, "actor-critic", "a2c", "ppo", "trpo"]
TextMethodName = Literal[GroupMethodName, "dpo"]
PolicyName = Literal["auto", "tabular", "mlp", "cnn", "categorical", "gaussian", "recurrent"]
OptimizerName = Literal["adam", "sgd", "natural"]
OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "natural": pgjax.algorithms.natural_gradient,
}

# Environments of pgjax by name; all others are gymnax's or, after "brax:" and the like, of these libraries.
ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "maze": pgjax.maze,
    "partial-maze": pgjax.partial_maze,
    **{
        f"{kind}-{name}": functools.partial(make, layout)
        for kind, make in (("maze", pgjax.maze), ("partial-maze", pgjax.partial_maze))
        for name, layout in LAYOUTS.items()
        if name != "lecture"
    },
    "t-maze": pgjax.t_maze,
    "hidden-velocity-cartpole": lambda: pgjax.environments.partly_observed(pgjax.from_gymnax("CartPole-v1"), (0, 2)),
    "navigation": pgjax.navigation,
    "recommendation": pgjax.recommendation,
    "slate-recommendation": functools.partial(pgjax.recommendation, slate=3),
    "cooling": pgjax.cooling,
}


def brax_named(name: str) -> Environment:
    """A body of brax, such as "ant", simulated by brax's own choice of a backend or the one named: "ant:spring"."""
    body, _, backend = name.partition(":")
    options: dict[str, Any] = {"backend": backend} if backend else {}
    return pgjax.from_brax(body, **options)


LIBRARIES: dict[str, Callable[[str], Environment]] = {
    "brax": brax_named,
    "craftax": pgjax.environments.from_craftax,
    "jumanji": pgjax.environments.from_jumanji,
    "navix": pgjax.environments.from_navix,
    "pgx": pgjax.environments.from_pgx,
}
CONTROLLERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "CartPole-v1": imitation.cartpole_controller,
    "Acrobot-v1": imitation.acrobot_controller,
    "Pendulum-v1": imitation.pendulum_controller,
    "MountainCar-v0": imitation.mountain_car_controller,
    "MountainCarContinuous-v0": imitation.continuous_mountain_car_controller,
    "navigation": imitation.navigation_controller,
}


# Mean return over 100 episodes from which gymnasium's registry calls the task solved.
SOLVED_AT = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "MountainCar-v0": -110.0, "MountainCarContinuous-v0": 90.0}


def environment_named(name: str, frames: int = 1) -> Environment:
    """An environment of pgjax, gymnax or another library ("brax:ant"), which shows its last few observations.

    Raises:
        InputError: If there is none of that name, or its observations cannot be stacked.
    """
    if frames != 1:
        return pgjax.environments.frame_stack(environment_named(name), frames)
    if name.lower() in ENVIRONMENTS:
        return ENVIRONMENTS[name.lower()]()
    library, _, rest = name.partition(":")
    if library in LIBRARIES and rest:
        return LIBRARIES[library](rest)
    near = difflib.get_close_matches(name.lower(), ENVIRONMENTS, n=3)
    if near:
        raise InputError(f"expected the name of an environment, got {name!r}; did you mean {', '.join(near)}?")
    return pgjax.from_gymnax(name)


def expert_named(name: str, environment: Environment) -> Expert | None:
    """What is written by hand or computed for an environment of that name, None if there is nothing.

    Raises:
        InputError: If the environment is another one, and its observations or actions do not fit.
    """
    if name in CONTROLLERS:
        return imitation.scripted(CONTROLLERS[name], environment)
    if name.endswith("recommendation"):
        return imitation.scripted(imitation.recommendation_controller(environment), environment)
    if name == "cooling":
        return imitation.pid_controller(environment)
    if name == "t-maze":
        return imitation.sign_follower(environment)
    kind, _, layout = name.rpartition("maze")
    if kind in ("", "partial-") and layout.removeprefix("-") in ("", *LAYOUTS):
        drawn = LAYOUTS[layout.removeprefix("-") or "lecture"]
        if kind == "":
            return imitation.shortest_paths(drawn)
        return imitation.dead_reckoning(drawn) if "S" in drawn else None
    return None


def policy_named(
    name: PolicyName,
    environment: Environment,
    hidden: Sequence[int],
    bfloat16: bool = False,
    normalize_observations: bool = False,
) -> Policy:
    """A policy for an environment: auto, tabular, mlp, cnn, categorical or gaussian (an mlp), or recurrent.

    Hidden widths are those of the layers after the convolution of a cnn; of a recurrent one, the last is that of the
    hidden state, and the others are its encoder's.

    Raises:
        InputError: If it does not fit.
    """
    states, actions = environment.observation_space, environment.action_space
    if any(width < 1 for width in hidden):
        raise InputError(f"expected hidden layers of width 1 or more, got {min(hidden)}")
    if normalize_observations:
        return pgjax.policies.normalized(policy_named(name, environment, hidden, bfloat16), states)
    if name == "auto" and tuple(hidden) == (64, 64) and not bfloat16:
        return pgjax.policy_for(environment)
    if name == "tabular":
        if not isinstance(states, Discrete) or not isinstance(actions, Discrete):
            raise InputError(
                f"expected discrete observations and actions for a tabular policy, got {environment.name} with "
                f"observations of {type(states).__name__} and actions of {type(actions).__name__}"
            )
        return pgjax.tabular(states.n, actions)
    if name in ("recurrent", "cnn") and bfloat16:
        raise InputError(f"expected products in float32 for a {name} policy, got bfloat16")
    if name == "cnn" or (name == "auto" and is_image(states) and not bfloat16):
        return pgjax.cnn(states, actions, hidden=hidden)
    if name == "recurrent":
        if not hidden:
            raise InputError(
                "expected 1 or more hidden layers for a recurrent policy, whose last is its state, got none"
            )
        return pgjax.recurrent(states, actions, hidden[-1], hidden[:-1])
    wanted = {"categorical": Discrete, "gaussian": Box}.get(name)
    if wanted is not None and not isinstance(actions, wanted):
        raise InputError(
            f"expected a {wanted.__name__} action space for a {name} policy, got {environment.name} with actions of "
            f"{type(actions).__name__}"
        )
    return pgjax.mlp(states, actions, hidden, product_dtype=jnp.bfloat16 if bfloat16 else jnp.float32)


def text_baseline_named(name: TextBaselineName, group_size: int, config: pgjax.text.TransformerConfig) -> Baseline:
    """A baseline for texts: among outputs to the same prompt, or a learned one that is a transformer.

    Raises:
        InputError: If less than two outputs have the same prompt, or there is no transformer of these config.
    """
    if name == "learned-value":
        return pgjax.learned_value(pgjax.text.transformer_value(config), steps=2)
    if name == "running-average":
        return pgjax.running_average()
    return (pgjax.leave_one_out if name == "leave-one-out" else estimators.leave_one_out_by_time)(group_size=group_size)


def text_method_named(
    name: TextMethodName, slots: int, group_size: int
) -> Callable[[Environment, Policy], pgjax.Algorithm] | rlhf.Direct | None:
    """What makes a method for texts of an environment and a policy; None for REINFORCE, which is made of its parts."""
    if name == "dpo":
        return rlhf.Direct()
    return None if name == "reinforce" else functools.partial(GROUP_METHODS[name], slots=slots, group_size=group_size)


@dataclass(frozen=True)
class Texts:
    """Options of texts, and of what their tokens are."""

    corpus: str = "grammar"
    """Texts: grammar (seeded, its entropy is known), python-docs (the prose of Python's help), a file of text, or a
    .jsonl of {"prompt": …, "completion": …}, whose completions alone are learned from."""
    tokenizer: str = "characters"
    """Tokens: characters, bpe:V for byte-pair encoding trained on the corpus, V of them, or the tokenizer.json of a
    Hugging Face model."""
    context: int = 64
    """Tokens of a text of the corpus at most, where it is no grammar."""
    prompt_words: int = 1
    """Words of a prompt, which an output goes on from; 0 for none. A .jsonl has its own prompts."""
    prompt_tokens: int = 0
    """Tokens that a prompt may have, where those of --rankings are longer than those of the corpus; 0 if not."""
    sentences: int = 4096
    """Sentences of the grammar to pretrain on."""
    template: str = CHAT.replace("\n", r"\n")
    r"""How a message is written, where prompts are chats, [{"role": …, "content": …}, …]; \n is the end of a line."""
    skip_long: bool = False
    """Whether lines of a .jsonl, or of --rankings, that are too long are left out and counted; else they are refused.
    """

    @property
    def chat(self) -> str:
        """The template, with lines in it."""
        return self.template.replace(r"\n", "\n")


def corpus_named(options: Texts, seed: int, kept: Path | None = None) -> pgjax.text.Corpus:
    """A corpus: grammar (made from a seed), python-docs, a file of text or one of prompts with completions.

    Args:
        options: Which.
        seed: Of the grammar and its sentences.
        kept: Directory of the tokenizer, if it is there; else it is what the options say.

    Raises:
        InputError: If there is no such file, nothing in it, or something is too long.
    """
    if options.sentences < 1:
        raise InputError(f"expected 1 or more sentences, got {options.sentences}")
    name, words, length = options.corpus, options.prompt_words, options.context
    if name == "grammar":
        if options.tokenizer != Texts.tokenizer:
            raise InputError(f"expected --tokenizer characters for the grammar, got {options.tokenizer}")
        sentences, key = pgjax.text.grammar(seed), jax.random.key(seed)
        return widened(pgjax.text.grammar_corpus(sentences, key, options.sentences, words), options.prompt_tokens)
    pairs = pgjax.text.load_pairs(name, options.chat) if name.endswith(".jsonl") else None
    if pairs is not None:
        text = "\n".join(pair.prompt + pair.answer for pair in pairs)
    else:
        text = pgjax.text.python_docs() if name == "python-docs" else pgjax.text.read_text(name)
    title = f"{name} ({pgjax.text.digest(text)})"
    tokenizer = pgjax.text.load_subwords(kept) if kept and kept.exists() else tokenizer_named(options.tokenizer, text)
    if pairs is not None:
        corpus = pgjax.text.pairs_corpus(pairs, title, length, tokenizer, options.skip_long)
    else:
        corpus = pgjax.text.text_corpus(text, title, length, words, tokenizer=tokenizer)
    return widened(corpus, options.prompt_tokens)


def widened(corpus: pgjax.text.Corpus, tokens: int) -> pgjax.text.Corpus:
    """A corpus whose prompts have room for so many tokens, bos included; of 0 tokens, as it is.

    Raises:
        InputError: If its own prompts have more.
    """
    width = corpus.prompts.shape[1]
    if tokens and tokens < width:
        raise InputError(f"expected --prompt-tokens of {width} or more, as the corpus has them, got {tokens}")
    room = max(tokens - width, 0)
    return corpus._replace(prompts=np.pad(corpus.prompts, ((0, 0), (room, 0)), constant_values=pgjax.text.PAD))


def tokenizer_named(name: str, text: str) -> pgjax.text.Subwords | None:
    """A tokenizer: bpe:V, trained on a text, or that of a file; None for characters.

    Raises:
        InputError: If there is no such file, or it is no tokenizer.
    """
    kind, _, count = name.partition(":")
    if name == Texts.tokenizer:
        return None
    if kind == "bpe":
        if not count.isdecimal():
            raise InputError(f"expected --tokenizer bpe: with a number of tokens, as in bpe:2000, got {name}")
        return pgjax.text.train_subwords(text, int(count))
    return pgjax.text.load_subwords(name)


def gold_named(name: str, corpus: pgjax.text.Corpus, seed: int) -> rlhf.Gold:
    """A gold reward: words, length, or letters: followed by the letters that are wanted.

    For a grammar, its words have values drawn with a seed; for another corpus, its frequent words are worth 1 each.

    Raises:
        InputError: If there is none of that name.
    """
    kind, _, letters = name.partition(":")
    if name == "words":
        return rlhf.common_words(corpus) if corpus.grammar is None else rlhf.grammar_gold(corpus.grammar, seed)
    if name == "length":
        return rlhf.length_gold()
    if kind == "letters" and letters:
        return rlhf.letter_share(corpus.tokenizer, letters)
    raise InputError(f"expected a gold reward words, length or letters:LETTERS, got {name}")


def value_named(
    environment: Environment,
    hidden: Sequence[int],
    normalize_observations: bool,
    make: Callable[..., ValueFunction] = pgjax.value_for,
) -> ValueFunction:
    """A fitting value, of normalized observations if wanted; errors are those of what makes it and of `normalized`."""
    value = make(environment, hidden)
    if not normalize_observations:
        return value
    return pgjax.policies.normalized_value(value, environment.observation_space)


def baseline_named(
    name: BaselineName,
    environment: Environment,
    policy: Policy,
    hidden: Sequence[int],
    steps: int,
    minibatches: int = 1,
    normalize_observations: bool = False,
) -> Baseline:
    """A baseline; a learned one is a table where states are few, else a network with these hidden layers.

    Raises:
        InputError: If it needs discrete actions and they are not, or learns in less than one gradient step an update.
    """
    if name == "none":
        return pgjax.no_baseline()
    if name == "variance-optimal":
        return estimators.variance_optimal(policy)
    values = {
        "learned-value": pgjax.value_for,
        "learned-value-by-time": pgjax.policies.value_by_time_for,
        "learned-action-value": pgjax.policies.action_value_for,
        "expected-policy-gradient": pgjax.policies.action_value_for,
    }
    make = getattr(estimators, name.removesuffix("-by-time" if name in values else "").replace("-", "_"))
    if name in values:
        value = value_named(environment, hidden, normalize_observations, values[name])
        return make(value, steps=steps, minibatches=minibatches)
    return make()


def reinforce_named(
    environment: Environment,
    *,
    policy: PolicyName,
    hidden: Sequence[int],
    credit: CreditName,
    baseline: BaselineName,
    slots: int,
    min_steps_per_slot: int,
    value_steps: int,
    optimizer: OptimizerName,
    bfloat16: bool = False,
    normalize_observations: bool = False,
    normalize_returns: bool = False,
    value_minibatches: int = 1,
) -> pgjax.Algorithm:
    """REINFORCE of these parts; see `policy_named`, `baseline_named` and `pgjax.reinforce`.

    Raises:
        InputError: If a part does not fit the environment or another one.
    """
    chosen = policy_named(policy, environment, hidden, bfloat16, normalize_observations)
    steps = (value_steps, value_minibatches)
    subtracted = baseline_named(baseline, environment, chosen, hidden, *steps, normalize_observations)
    return pgjax.reinforce(
        environment,
        chosen,
        slots=slots,
        min_steps_per_slot=min_steps_per_slot,
        credit=getattr(estimators, credit.replace("-", "_"))(),
        baseline=estimators.normalized_returns(subtracted) if normalize_returns else subtracted,
        optimizer=OPTIMIZERS[optimizer],
    )


@dataclass(frozen=True)
class Parts:
    """Options of what learns: an environment, a policy, and the parts of a method."""

    env: str = "CartPole-v1"
    """Environment: one of gymnax, brax:NAME (or craftax:, jumanji:, navix:, pgx:), or maze, partial-maze, t-maze,
    navigation, cooling, …"""
    slots: int = 16
    """Episode slots of an update."""
    min_steps_per_slot: int = 0
    """Steps until which a slot begins another episode; 0 for one episode a slot."""
    group_size: int | None = None
    """Slots beside each other that begin alike, for methods of groups; by default theirs."""
    epochs: int | None = None
    """How often an update goes through what it has collected, where ratios are clipped; by default the method's."""
    minibatches: int | None = None
    """In how many parts it does so, each with an optimizer step; by default the method's."""
    value_steps: int = 5
    """Gradient steps of a learned baseline in an update."""
    value_minibatches: int = 1
    """Disjoint parts of the steps that these go through in turn; as many as they are is the fastest. For reinforce."""
    credit: CreditName = "reward-to-go"
    """What an action is judged by."""
    baseline: BaselineName = "leave-one-out-by-time"
    """What is subtracted from that; one that is learned is a table where states are few, else a network."""
    optimizer: OptimizerName = "adam"
    """How a step is made of the gradient; sgd is plain gradient ascent, natural its natural gradient."""
    policy: PolicyName = "auto"
    """Kind of policy; auto chooses what fits the environment."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of a cnn those after its convolution; a recurrent network's last is its state."""
    bfloat16: bool = False
    """Whether the operands of matrix products are rounded to bfloat16; all else is float32."""
    frames: int = 1
    """Observations that are seen at once, the last ones."""
    normalize_observations: bool = False
    """Whether observations are seen less their running mean, in units of their running deviation."""
    normalize_returns: bool = False
    """Whether advantages are in units of the running deviation of returns; for reinforce."""


# Options which the other methods decide themselves, and those which only some of them have a use for.
OF_REINFORCE = ("credit", "baseline", "normalize_returns", "value_minibatches")
OF_METHODS = ("group_size", "epochs", "minibatches")


def parts_used(method: MethodName) -> tuple[str, ...]:
    """Those options of `Parts` that a method uses and others do not."""
    if method == "reinforce":
        return OF_REINFORCE
    return OF_METHODS[: method in GROUP_METHODS] + (OF_METHODS[1:] if method in CLIPPED_METHODS else ())


def check_parts(options: Parts, methods: Sequence[MethodName]) -> None:
    """Raise if an option is given that none of these methods uses.

    Raises:
        InputError: If so.
    """
    used = {name for method in methods for name in parts_used(method)}
    for name in OF_REINFORCE + OF_METHODS:
        given = getattr(options, name)
        if name not in used and given != getattr(Parts, name):
            flag = name.replace("_", "-")
            raise InputError(f"expected no --{flag} beside --method {' '.join(methods)}, got {given}")


def method_named(method: MethodName, environment: Environment, options: Parts) -> pgjax.Algorithm:
    """A method made of those options that it uses.

    Raises:
        InputError: If the parts do not fit the environment or each other.
    """
    shared = {name: getattr(options, name) for name in ("slots", "min_steps_per_slot", "value_steps")}
    if method == "reinforce":
        chosen = ("policy", "hidden", "bfloat16", "optimizer", "normalize_observations", *OF_REINFORCE)
        return reinforce_named(environment, **shared, **{name: getattr(options, name) for name in chosen})
    normalize = options.normalize_observations
    policy = policy_named(options.policy, environment, options.hidden, options.bfloat16, normalize)
    used = {name: getattr(options, name) for name in parts_used(method)}
    given: dict[str, Any] = {name: value for name, value in used.items() if value is not None}
    given["optimizer"] = OPTIMIZERS[options.optimizer]
    if method in CRITIC_METHODS:
        value = value_named(environment, options.hidden, normalize)
        return CRITIC_METHODS[method](environment, policy, value, **shared, **given)
    if options.min_steps_per_slot:
        raise InputError(f"expected --min-steps-per-slot 0 for {method}, got {options.min_steps_per_slot}")
    return GROUP_METHODS[method](environment, policy, slots=options.slots, **given)
