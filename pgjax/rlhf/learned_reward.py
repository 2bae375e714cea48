"""The reward that a model learns from: what reward models say of texts, normalised under the supervised model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.algorithms.base import train
from pgjax.rlhf.diversity import distinct_n, self_overlap
from pgjax.rlhf.gold import Gold
from pgjax.rlhf.preferences import Rankings
from pgjax.rlhf.reward_models import RewardModel, ensemble_score, reward_modelling
from pgjax.text.environment import Judge, Judgement, Texts
from pgjax.trees import PyTree


class LearnedReward(NamedTuple):
    """Reward models, and how their score is normalised: mean 0 and deviation 1 under the supervised model."""

    params: PyTree  # θ_r, each leaf [members, ...]
    mean: jax.Array  # [], of the scores of the supervised model's outputs
    spread: jax.Array  # [], their standard deviation
    uncertainty_penalty: jax.Array  # [], what disagreement of an ensemble costs, see `ensemble_score`


def unfitted(model: RewardModel, members: int, key: jax.Array, uncertainty_penalty: jax.Array) -> LearnedReward:
    """The reward of an ensemble that has seen no ranking; its scores are as they are."""
    params = jax.vmap(lambda key: model.init(key, ()))(jax.random.split(key, members))
    return LearnedReward(params, mean=jnp.zeros(()), spread=jnp.ones(()), uncertainty_penalty=uncertainty_penalty)


def learned_judge(model: RewardModel, gold: Gold | None) -> Judge:
    """The judge of texts whose reward is a `LearnedReward`, its params.

    It notes proxy, that very reward, distinct_2 and self_overlap (`pgjax.rlhf.distinct_n`, `pgjax.rlhf.self_overlap`)
    and, where it is known, gold.
    """

    def judge(texts: Texts, reward: LearnedReward) -> Judgement:
        tokens, output = texts.tokens, texts.output
        scores = ensemble_score(model, reward.params, tokens, reward.uncertainty_penalty)
        proxy = (scores - reward.mean) / reward.spread
        distinct = jnp.broadcast_to(distinct_n(tokens, output, 2), proxy.shape)
        overlap = self_overlap(tokens, output)
        notes = {} if gold is None else {"gold": gold(tokens, output)}
        return Judgement(proxy, notes | {"proxy": proxy, "distinct_2": distinct, "self_overlap": overlap})

    return judge


def fit_reward(
    model: RewardModel,
    rankings: Rankings,
    usual: jax.Array,
    key: jax.Array,
    *,
    members: int,
    updates: int,
    steps: int,
    body: PyTree,
    learning_rate: Any,
    weight_decay: Any,
    uncertainty_penalty: Any,
) -> LearnedReward:
    """The reward of an ensemble that is fitted to rankings, each member from a start of its own.

    Args:
        model: r.
        rankings: [N, K], see `pgjax.rlhf.reward_modelling`.
        usual: Texts [S, W + T] of the supervised model, under which scores are normalised.
        key: What members are drawn and fitted with.
        members: How many there are.
        updates: Of `reward_modelling`.
        steps: Gradient steps of each.
        body: Weights to begin with, see `RewardModel`.
        learning_rate: η of the fit.
        weight_decay: Of the fit.
        uncertainty_penalty: See `ensemble_score`.
    """
    algorithm = reward_modelling(model, rankings, body=body, steps=steps)
    numbers = algorithm.hyperparameters(learning_rate=learning_rate, weight_decay=weight_decay)
    fit = train(algorithm, updates)
    params = jax.vmap(lambda key: fit(key, numbers)[0].params)(jax.random.split(key, members))
    scores = ensemble_score(model, params, usual, uncertainty_penalty)
    spread = jnp.maximum(jnp.std(scores), 1e-6)
    return LearnedReward(params, mean=jnp.mean(scores), spread=spread, uncertainty_penalty=uncertainty_penalty)
