"""Reinforcement learning from human feedback: sample, rank, model the rankings, optimise; and again from the top.

The lecture's summary, as one algorithm. A round begins with outputs of the model as it is now; annotators rank them; a
reward model is fitted to all rankings so far; then REINFORCE, the one of CartPole, makes outputs more likely that score
better, and pays for straying from the supervised model. All of it is a pure function of a key and of numbers, so many
seeds and settings are one `vmap`, and a `sweep` can drive, save and resume it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.algorithms.base import Algorithm
from pgjax.algorithms.on_policy import ReinforceState, reinforce
from pgjax.batching import together
from pgjax.descent import Optimizer
from pgjax.environments.base import Environment
from pgjax.errors import InputError
from pgjax.estimators.baselines import Baseline
from pgjax.estimators.groups import leave_one_out
from pgjax.estimators.returns import Credit, reward_to_go
from pgjax.penalty import kl_penalty
from pgjax.policies.base import Policy
from pgjax.rlhf.annotation import Annotated, annotation, sampler
from pgjax.rlhf.direct import Direct, at_rest, fit_policy
from pgjax.rlhf.gold import Gold
from pgjax.rlhf.learned_reward import LearnedReward, fit_reward, learned_judge, unfitted
from pgjax.rlhf.likelihood import pair_accuracy
from pgjax.rlhf.preferences import Rankings, joined, no_rankings
from pgjax.rlhf.reward_models import RewardModel, ensemble_score
from pgjax.rlhf.settings import FeedbackHyperparameters, FeedbackSettings, check_parts, check_settings, hyperparameters
from pgjax.rollout import collect
from pgjax.text.environment import outputs, text_environment, written
from pgjax.trees import PyTree, zeros_like

FIRST_OUTPUTS = 512  # of the supervised model, to normalise scores


class Tuned(NamedTuple):
    """What a run ends with, and a sweep keeps."""

    policy: PyTree  # θ
    reward: LearnedReward  # r, of the last round


class FeedbackState(NamedTuple):
    """What a run carries."""

    key: jax.Array
    iteration: jax.Array  # [] int32
    hyperparameters: FeedbackHyperparameters
    policy: ReinforceState  # REINFORCE's; the reward model, β and θ_SL are in its environment's params
    rankings: Rankings | None  # by simulated annotators, of all rounds so far and room for more, [R · N, K]
    first_outputs: jax.Array  # [S, W + T], some of the supervised model's, under which scores are normalised
    measured: Mapping[str, jax.Array]  # each [], what rankings that it has not seen say of this round's reward model

    @property
    def params(self) -> Tuned:
        """The policy's θ, and the reward that it was optimised for."""
        return Tuned(self.policy.params, self.policy.hyperparameters.environment.environment.judge)


class Evaluation(NamedTuple):
    """What outputs of a model are worth, each [E]; so many beside each other have the same prompt."""

    tokens: jax.Array  # [E, W + T]
    gold: jax.Array | None  # None where it is not known
    proxy: jax.Array  # the learned reward, normalised
    length: jax.Array  # tokens, eos included
    kl: jax.Array  # Σ_t ln f/f_SL, an estimate of KL(f ‖ f_SL) without bias; one of them may be negative


class Feedback(NamedTuple):
    """The algorithm, and what it is made of."""

    algorithm: Algorithm
    environment: Environment  # of texts, with the learned reward and the KL penalty
    evaluate: Callable[..., Evaluation]  # of (key, θ, reward: LearnedReward, θ_SL), fresh outputs of θ
    sample: Callable[..., tuple[jax.Array, jax.Array]]  # of (key, θ, n): [n, K, W + T], and whether K differ


class Parts(NamedTuple):
    """What the steps of the loop have in common."""

    settings: FeedbackSettings
    policy: Policy
    model: RewardModel
    external: Rankings | None
    held_out: Rankings | None
    texts: Environment  # with the learned reward
    environment: Environment  # with the KL penalty too
    learner: Algorithm  # REINFORCE
    optimizer: Optimizer
    direct: Direct | None
    annotate: Callable[..., Annotated] | None  # None where no annotator is simulated
    write: Callable[[jax.Array, PyTree, PyTree], jax.Array]  # the supervised model's first outputs
    play: Callable[..., Any]  # the episodes of an evaluation


def feedback(
    policy: Policy,
    model: RewardModel,
    gold: Gold | None,
    prompts: Any,
    settings: FeedbackSettings,
    *,
    external: Rankings | None = None,
    held_out: Rankings | None = None,
    credit: Credit | None = None,
    baseline: Baseline | None = None,
    method: Callable[[Environment, Policy], Algorithm] | Direct | None = None,
    optimizer: Optimizer = optax.adam,
) -> Feedback:
    """Reinforcement learning from human feedback as an algorithm, with numbers `FeedbackHyperparameters`.

    An update is one of REINFORCE; the first of each round begins with all the rest of it:

    1. outputs are drawn from the model as it is now; of those to one prompt, K that differ are kept, and a ranking for
       which there are fewer is left out;
    2. annotators rank them: a Plackett–Luce choice by the gold reward (for two outputs: Bradley–Terry), with their
       biases, see `Annotators`;
    3. a reward model is fitted, from where it began, to the rankings of all rounds, and its scores are normalised;
    4. the following updates optimise θ: reward r(θ_r, ·) at the end, − β ln f/f_SL at each token.

    θ_SL, from which θ starts (where the hyper-parameters hold no other `start`) and from which it is kept, stays what
    it is. After R rounds nothing is ranked any more. Beside REINFORCE's metrics there are, as notes: gold, proxy
    (normalised), length, kl, distinct_2 and self_overlap of the outputs of the update, and kl_coefficient, β; of the
    round, where annotators are simulated: accuracy, of the reward model on pairs of different outputs that it has not
    seen, bayes_accuracy, the most that it can be, and identical_texts, the fraction of rankings for which there were no
    K different outputs; and where rankings are held out: held_out_accuracy on those.

    No annotator is simulated where the settings' `rankings` is 0. Then a round fits the external rankings once more. A
    loop whose annotators are asked between its rounds is a run a round: `sample` outputs of θ, have them ranked, and
    begin the next with all rankings so far and with θ as its `start`.

    Args:
        policy: f; its `init` draws θ_SL where the hyper-parameters hold none (`pgjax.pretrained` makes it do so).
        model: r.
        gold: The true reward, which simulated annotators know and nobody else does; what is reported of it serves to
            judge the method. None where it is not known, and no annotator can be simulated.
        prompts: X_{1:k}, see `pgjax.text.text_environment`.
        settings: How many of what.
        external: Rankings of K outputs by external annotators (`load_rankings`), which are fitted in every round.
        held_out: Such rankings that measure the reward model and are never fitted; see `split_by_prompt`.
        credit: `reward_to_go()` if not given.
        baseline: `leave_one_out(group_size)` if not given.
        method: What optimises θ in place of REINFORCE with this credit and baseline, such as `grpo`: a function of the
            environment of texts and the policy, with the same optimizer; or `Direct`, which fits θ to all rankings.
        optimizer: Of REINFORCE, from η to an optax transformation.

    Raises:
        InputError: If a count is out of range or parts do not fit together, a credit or a baseline is given beside a
            method, or annotators are to be simulated without a gold reward; from `hyperparameters`, if β or another
            number is.

    Source: the lecture; Christiano et al., *Deep reinforcement learning from human preferences*, 2017; Ouyang et al.,
    *Training language models to follow instructions with human feedback*, 2022; for REINFORCE with leave-one-out,
    Ahmadian et al., *Back to basics*, 2024.
    """
    W, V, T = np.shape(prompts)[-1], settings.vocabulary, settings.length
    check_settings(settings, gold, external)
    check_parts(policy, model, W, settings, external, held_out)
    like = jax.eval_shape(lambda key: unfitted(model, settings.members, key, jnp.zeros(())), jax.random.key(0))
    texts = text_environment(prompts, V, T, learned_judge(model, gold), zeros_like(like))
    environment = kl_penalty(texts, policy, zeros_like(jax.eval_shape(policy.init, jax.random.key(0))))
    direct = None
    if isinstance(method, Direct):  # its learner samples, for what is reported
        direct, method, optimizer = method, None, at_rest
    if method is None:
        method = partial(
            reinforce,
            slots=settings.slots,
            group_size=settings.group_size,
            credit=reward_to_go() if credit is None else credit,
            baseline=leave_one_out(group_size=settings.group_size) if baseline is None else baseline,
            optimizer=optimizer,
        )
    elif credit is not None or baseline is not None:
        raise InputError("expected no credit and no baseline beside a method, which has its own, got one")
    learner = method(environment, policy)
    parts = Parts(
        settings=settings,
        policy=policy,
        model=model,
        external=external,
        held_out=held_out,
        texts=texts,
        environment=environment,
        learner=learner,
        optimizer=optimizer,
        direct=direct,
        annotate=annotation(texts, policy, gold, settings) if gold is not None and settings.rankings else None,
        write=outputs(texts, policy, FIRST_OUTPUTS),
        play=collect(environment, policy, settings.evaluated, group_size=settings.candidates),
    )
    algorithm = Algorithm(partial(begin, parts), partial(update, parts), partial(hyperparameters, settings))
    return Feedback(algorithm, environment, partial(evaluate, parts), partial(sample, parts))


def begin(parts: Parts, key: jax.Array, hyperparameters: FeedbackHyperparameters) -> FeedbackState:
    """The state of a run before its first round; θ is θ_SL."""
    settings, texts = parts.settings, parts.texts
    key, policy_key, learner_key, judge_key, first_key = jax.random.split(key, 5)
    theta = hyperparameters.supervised
    if not jax.tree.leaves(theta):
        theta = parts.policy.init(policy_key)
    first = hyperparameters.start if jax.tree.leaves(hyperparameters.start) else theta
    reward = unfitted(parts.model, settings.members, judge_key, hyperparameters.uncertainty_penalty)
    start = parts.environment.params._replace(
        beta=hyperparameters.beta, reference=theta, environment=texts.params._replace(judge=reward)
    )
    numbers = parts.learner.hyperparameters(
        learning_rate=hyperparameters.learning_rate,
        baseline_decay=hyperparameters.baseline_decay,
        value_learning_rate=hyperparameters.value_learning_rate,
        entropy_coefficient=hyperparameters.entropy_coefficient,
        environment=start,
    )
    learned = parts.learner.init(learner_key, numbers)
    optimizer = parts.optimizer(hyperparameters.learning_rate).init(first)
    room, columns = settings.rounds * settings.rankings, texts.params.prompts.shape[1] + settings.length
    names = [] if parts.annotate is None else ["accuracy", "bayes_accuracy", "identical_texts"]
    names += [] if parts.held_out is None else ["held_out_accuracy"]
    return FeedbackState(
        key=key,
        iteration=jnp.int32(0),
        hyperparameters=hyperparameters,
        policy=learned._replace(params=first, optimizer=optimizer),
        rankings=None if parts.annotate is None else no_rankings(room, settings.outputs, columns),
        first_outputs=parts.write(first_key, theta, start.environment),
        measured=dict.fromkeys(names, jnp.zeros(())),
    )


def next_round(parts: Parts, state: FeedbackState) -> FeedbackState:
    """The state after a round has begun: outputs are sampled and ranked, and the rankings are modelled."""
    settings, numbers, learned = parts.settings, state.hyperparameters, state.policy
    turn = state.iteration // settings.updates
    sample_key, rank_key, fit_key, test_key = jax.random.split(jax.random.fold_in(state.key, turn), 4)
    params, rankings, annotated = learned.hyperparameters.environment, state.rankings, None
    if parts.annotate is not None:
        keys = (sample_key, rank_key, test_key, jax.random.fold_in(state.key, settings.rounds))
        annotated = parts.annotate(keys, learned.params, params.environment, numbers.annotators, numbers.comparisons)
        first = turn * settings.rankings
        rankings = jax.tree.map(
            lambda rows, new: jax.lax.dynamic_update_slice_in_dim(rows, new, first, axis=0),
            rankings,
            annotated.rankings,
        )
    ranked = joined(rankings, parts.external)
    reward = fit_reward(
        parts.model,
        ranked,
        state.first_outputs,
        fit_key,
        members=settings.members,
        updates=settings.reward_updates,
        steps=settings.reward_steps,
        body=numbers.reward_body,
        learning_rate=numbers.reward_learning_rate,
        weight_decay=numbers.reward_weight_decay,
        uncertainty_penalty=numbers.uncertainty_penalty,
    )
    params = params._replace(environment=params.environment._replace(judge=reward))
    if parts.direct is not None:
        theta = fit_policy(parts.direct, parts.policy, ranked, params, fit_key, numbers.learning_rate)
        learned = learned._replace(params=theta)
    return state._replace(
        policy=learned._replace(hyperparameters=learned.hyperparameters._replace(environment=params)),
        rankings=rankings,
        measured=measured(parts, reward, annotated),
    )


def measured(parts: Parts, reward: LearnedReward, annotated: Annotated | None) -> dict[str, jax.Array]:
    """What rankings that a reward model has not seen say of it, each []."""

    def accuracy(rankings: Rankings) -> jax.Array:
        tokens, order, mask, _, tied = jax.tree.map(jnp.asarray, rankings)
        flat = tokens.reshape(-1, tokens.shape[-1])
        scores = ensemble_score(parts.model, reward.params, flat, reward.uncertainty_penalty)
        return pair_accuracy(scores.reshape(order.shape), order, mask, tied)

    found = {}
    if annotated is not None:
        found["accuracy"] = accuracy(annotated.test)
        found["bayes_accuracy"] = annotated.bayes_accuracy
        found["identical_texts"] = annotated.identical_texts
    if parts.held_out is not None:
        found["held_out_accuracy"] = accuracy(parts.held_out)
    return {name: jnp.asarray(number, float) for name, number in found.items()}


def update(parts: Parts, state: FeedbackState) -> tuple[FeedbackState, Any]:
    """An update of REINFORCE, and before the first of a round what comes before it."""
    settings = parts.settings
    # All runs of a batch are at the same iteration, so a `cond` can stay one under `vmap`.
    begins = (state.iteration % settings.updates == 0) & (state.iteration < settings.rounds * settings.updates)
    state = jax.lax.cond(together(begins), partial(next_round, parts), lambda state: state, state)
    learned, metrics = parts.learner.update(state.policy)
    numbers, params = state.hyperparameters, learned.hyperparameters.environment
    beta = controlled_beta(params.beta, metrics.notes["kl"], numbers.kl_target, numbers.kl_gain)
    learned = learned._replace(hyperparameters=learned.hyperparameters._replace(environment=params._replace(beta=beta)))
    reported = metrics._replace(notes={**metrics.notes, **state.measured, "kl_coefficient": params.beta})
    return state._replace(iteration=state.iteration + 1, policy=learned), reported


def controlled_beta(beta: jax.Array, kl: jax.Array, target: jax.Array, gain: jax.Array) -> jax.Array:
    """The next β, β · (1 + gain · e) with e = KL/target − 1 cut to [−0.2, 0.2]; β as it is if the target is 0.

    Source: Ziegler et al., *Fine-tuning language models from human preferences*, 2019, §2.2.
    """
    error = jnp.clip(kl / jnp.where(target > 0, target, 1) - 1, -0.2, 0.2)
    return jnp.where(target > 0, beta * (1 + gain * error), beta)


def sample(parts: Parts, key: jax.Array, params: PyTree, n: int) -> tuple[jax.Array, jax.Array]:
    """K outputs of θ = params to each of n prompts, [n, K, W + T], and whether K differ, [n]; n is static."""
    draw = sampler(parts.texts, parts.policy, n, parts.settings.outputs, parts.settings.drawn)
    return draw(key, params, parts.texts.params)


def evaluate(parts: Parts, key: jax.Array, params: PyTree, reward: LearnedReward, supervised: PyTree) -> Evaluation:
    """What fresh outputs of θ = params are worth."""
    numbers = parts.environment.params._replace(
        beta=jnp.zeros(()), reference=supervised, environment=parts.texts.params._replace(judge=reward)
    )
    trajectory = parts.play(key, params, numbers)
    sums = {name: jnp.sum(note, axis=0) for name, note in trajectory.notes.items()}
    return Evaluation(
        tokens=written(trajectory, parts.settings.length),
        gold=sums.get("gold"),
        proxy=sums["proxy"],
        length=sums["length"],
        kl=sums["kl"],
    )
