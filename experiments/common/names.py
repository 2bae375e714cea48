"""Names on the command line for what the library knows as functions. Strings select things here and nowhere else."""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

import pgjax
from pgjax import Baseline, Box, Discrete, Environment, Expert, InputError, Policy, estimators, imitation, rlhf
from pgjax.environments import LAYOUTS
from pgjax.policies.convolutional import is_image

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

# Environments of pgjax by name; all others are gymnax's or, after "brax:", of brax.
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
    "navigation": pgjax.navigation,
    "recommendation": pgjax.recommendation,
    "slate-recommendation": functools.partial(pgjax.recommendation, slate=3),
    "cooling": pgjax.cooling,
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


def environment_named(name: str) -> Environment:
    """An environment of pgjax, of gymnax, or of brax ("brax:ant").

    Raises:
        InputError: If there is none of that name.
    """
    if name.lower() in ENVIRONMENTS:
        return ENVIRONMENTS[name.lower()]()
    library, _, rest = name.partition(":")
    if library == "brax" and rest:
        return pgjax.from_brax(rest)
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


def policy_named(name: PolicyName, environment: Environment, hidden: Sequence[int], bfloat16: bool = False) -> Policy:
    """A policy for an environment: auto, tabular, mlp, cnn, categorical or gaussian (an mlp), or recurrent.

    Hidden widths are those of the layers after the convolution of a cnn; of a recurrent one, the last is that of the
    hidden state, and the others are its encoder's.

    Raises:
        InputError: If it does not fit.
    """
    states, actions = environment.observation_space, environment.action_space
    if any(width < 1 for width in hidden):
        raise InputError(f"expected hidden layers of width 1 or more, got {min(hidden)}")
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


def corpus_named(name: str, seed: int, sentences: int, length: int, prompt_words: int) -> pgjax.text.Corpus:
    """A corpus: grammar (made from a seed), python-docs, or a file of text.

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
        return pgjax.text.grammar_corpus(pgjax.text.grammar(seed), jax.random.key(seed), sentences, prompt_words)
    text = pgjax.text.python_docs() if name == "python-docs" else pgjax.text.read_text(name)
    return pgjax.text.text_corpus(text, f"{name} ({pgjax.text.digest(text)})", length, prompt_words)


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


def baseline_named(
    name: BaselineName, environment: Environment, policy: Policy, hidden: Sequence[int], steps: int
) -> Baseline:
    """A baseline; a learned one is a table where states are few, else a network with these hidden layers.

    Raises:
        InputError: If it needs discrete actions and they are not, or learns in less than one gradient step an update.
    """
    if name == "none":
        return pgjax.no_baseline()
    if name == "variance-optimal":
        return estimators.variance_optimal(policy)
    if name == "learned-value-by-time":
        return pgjax.learned_value(pgjax.policies.value_by_time_for(environment, hidden), steps=steps)
    make = getattr(estimators, name.replace("-", "_"))
    if name in ("learned-value", "learned-action-value", "expected-policy-gradient"):
        value = pgjax.value_for if name == "learned-value" else pgjax.policies.action_value_for
        return make(value(environment, hidden), steps=steps)
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
) -> pgjax.Algorithm:
    """REINFORCE of these parts; see `policy_named`, `baseline_named` and `pgjax.reinforce`.

    Raises:
        InputError: If a part does not fit the environment or another one.
    """
    chosen = policy_named(policy, environment, hidden, bfloat16)
    return pgjax.reinforce(
        environment,
        chosen,
        slots=slots,
        min_steps_per_slot=min_steps_per_slot,
        credit=getattr(estimators, credit.replace("-", "_"))(),
        baseline=baseline_named(baseline, environment, chosen, hidden, value_steps),
        optimizer=OPTIMIZERS[optimizer],
    )


def method_named(
    name: MethodName,
    environment: Environment,
    *,
    policy: PolicyName,
    hidden: Sequence[int],
    slots: int,
    min_steps_per_slot: int,
    group_size: int | None,
    epochs: int | None,
    minibatches: int | None,
    value_steps: int,
    optimizer: OptimizerName,
    bfloat16: bool = False,
) -> pgjax.Algorithm:
    """A method of the family but `reinforce`, which `reinforce_named` makes of its parts.

    Raises:
        InputError: If it has no use for what is given, it is one of groups and slots are to hold several episodes, or
            the policy or the critic does not fit.
    """
    given = {"group_size": group_size, "epochs": epochs, "minibatches": minibatches}
    known = (["group_size"] if name in GROUP_METHODS else []) + (
        ["epochs", "minibatches"] if name in CLIPPED_METHODS else []
    )
    use = {option: value for option, value in given.items() if value is not None}
    for option, value in use.items():
        if option not in known:
            raise InputError(f"expected no --{option.replace('_', '-')} beside --method {name}, got {value}")
    chosen, step = policy_named(policy, environment, hidden, bfloat16), OPTIMIZERS[optimizer]
    if name in CRITIC_METHODS:
        return CRITIC_METHODS[name](
            environment,
            chosen,
            pgjax.value_for(environment, hidden),
            slots=slots,
            min_steps_per_slot=min_steps_per_slot,
            value_steps=value_steps,
            optimizer=step,
            **use,
        )
    if min_steps_per_slot:
        raise InputError(f"expected --min-steps-per-slot 0 for {name}, got {min_steps_per_slot}")
    return GROUP_METHODS[name](environment, chosen, slots=slots, optimizer=step, **use)
