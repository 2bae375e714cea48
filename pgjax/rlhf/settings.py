"""What a run of the loop is given: counts, which are static, and numbers, which are traced; and what is refused."""

from typing import Any, NamedTuple

import jax
import numpy as np

from pgjax.errors import InputError
from pgjax.hyperparameters import is_number, numbers_of
from pgjax.policies.base import Policy
from pgjax.rlhf.gold import Gold
from pgjax.rlhf.preferences import Annotators, Rankings, check_annotators
from pgjax.rlhf.reward_models import RewardModel
from pgjax.text.decoder import context_of
from pgjax.text.tokens import check_tokens
from pgjax.trees import PyTree


class FeedbackSettings(NamedTuple):
    """The counts of a run; all are static."""

    vocabulary: int  # V
    length: int  # T, the most tokens of an output
    rounds: int = 1  # R, how often rankings are made
    updates: int = 100  # U of REINFORCE in a round; R · U are the iterations of the whole
    rankings: int = 1024  # N of a round by simulated annotators, at most: see the hyper-parameter `comparisons`
    outputs: int = 2  # K that are ranked together
    drawn: int = 16  # for each ranking, K or more, among which K are sought that differ
    test_rankings: int = 128  # more of them a round, that measure the reward model and nothing else
    annotators: int = 1  # who share the rankings
    members: int = 1  # reward models of an ensemble
    reward_updates: int = 25  # of `reward_modelling`, in a round
    reward_steps: int = 10  # gradient steps of each
    slots: int = 64  # E, texts of an update of REINFORCE
    group_size: int = 4  # so many of them have the same prompt
    evaluated: int = 1024  # texts of an `evaluate`
    candidates: int = 32  # so many of these have the same prompt, to choose the best of some of them


class FeedbackHyperparameters(NamedTuple):
    """The numbers of a run; all are traced, so any can be swept."""

    supervised: PyTree = ()  # θ_SL; () to let the policy's `init` draw it
    start: PyTree = ()  # θ that a run begins with; () for θ_SL
    reward_body: PyTree = ()  # weights of a language model that reward models begin with; () for new ones
    learning_rate: Any = 3e-4  # η of REINFORCE
    beta: Any = 0.1  # β of the KL penalty; where there is a target, its first value
    kl_target: Any = 0.0  # nats an episode that β is to bring about; 0 to leave β as it is
    kl_gain: Any = 0.1  # of the controller that does so
    baseline_decay: Any = 0.9  # of a running average, and of the scale of a learned value
    value_learning_rate: Any = 1e-3
    entropy_coefficient: Any = 0.0
    comparisons: Any = 1024.0  # rankings of a round that are fitted, at most as many as there is room for
    reward_learning_rate: Any = 1e-3  # η of the reward model
    reward_weight_decay: Any = 0.0
    uncertainty_penalty: Any = 0.0  # see `ensemble_score`
    annotators: Annotators = Annotators()


def hyperparameters(settings: FeedbackSettings, **values: Any) -> FeedbackHyperparameters:
    """The numbers of a run, see `FeedbackHyperparameters`; by default all rankings of a round are fitted.

    Raises:
        InputError: If one is out of range, β is 0 where a controller is to multiply it, or there is none of a name.
    """
    most = max(settings.rankings, 1)
    defaults = FeedbackHyperparameters(comparisons=float(most))
    numbers, chosen = numbers_of(defaults)(**values), defaults._replace(**values)
    check_annotators(chosen.annotators)
    steered = known(chosen.kl_target) and chosen.kl_target > 0
    if steered and known(chosen.beta) and not chosen.beta > 0:
        raise InputError(
            f"expected a first β above 0 for a KL target, as the controller multiplies it, got {chosen.beta}"
        )
    if known(chosen.comparisons) and not 1 <= chosen.comparisons <= most:
        raise InputError(f"expected 1 to {most} comparisons of a round, got {chosen.comparisons}")
    return numbers._replace(annotators=numbers_of(Annotators())(**chosen.annotators._asdict()))


def known(value: Any) -> bool:
    """Whether a value is a number, and not one that is traced."""
    return is_number(value) and not isinstance(value, jax.core.Tracer)


def check_settings(settings: FeedbackSettings, gold: Gold | None, external: Rankings | None) -> None:
    """Raise unless there is a loop with these counts.

    Raises:
        InputError: If a count is out of range, or there is nobody to rank.
    """
    counts = {"rounds": settings.rounds, "updates of a round": settings.updates}
    counts |= {"test rankings": settings.test_rankings, "annotators": settings.annotators}
    counts |= {"members of an ensemble": settings.members, "updates of the reward model": settings.reward_updates}
    counts |= {"evaluated outputs": settings.evaluated}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"expected 1 or more {name}, got {count}")
    least = 1 if external is None else 0
    if settings.rankings < least:
        raise InputError(f"expected {least} or more rankings, got {settings.rankings}")
    if gold is None and settings.rankings:
        raise InputError(f"expected no rankings by simulated annotators without a gold reward, got {settings.rankings}")
    K, drawn = settings.outputs, settings.drawn
    if K < 2:
        raise InputError(f"expected 2 or more outputs to rank together, got {K}")
    if drawn < K:
        raise InputError(f"expected {K} or more outputs drawn for a ranking of {K}, got {drawn}")


def check_parts(
    policy: Policy,
    model: RewardModel,
    W: int,
    settings: FeedbackSettings,
    external: Rankings | None,
    held_out: Rankings | None,
) -> None:
    """Raise unless a policy, a reward model and rankings are for the same prompts and outputs.

    Raises:
        InputError: If one is not.
    """
    V, T, K = settings.vocabulary, settings.length, settings.outputs
    for theirs in (external, held_out):
        if theirs is None:
            continue
        came = np.shape(theirs.tokens)[1:]
        if came != (K, W + T):
            raise InputError(f"expected rankings of {K} outputs in rows of {W + T} tokens, got {came}")
        check_tokens(theirs.tokens, V)
    context = context_of(policy)
    if context is not None and context < W + T - 1:
        raise InputError(
            f"expected prompts and outputs of at most {context + 1} tokens together, as the context allows, got "
            f"{W} and {T}"
        )
    config = model.config
    if config is not None and (config.vocabulary != V or config.context < W + T):
        raise InputError(
            f"expected a reward model for a vocabulary of {V} and texts of {W + T} tokens, got one for "
            f"{config.vocabulary} and {config.context}"
        )
