"""Reward models: a score of texts, learned from rankings. They need about a thousand of these to say anything.

The lecture's r(θ_r, X_{1:k}, X̂_{k+1:t}): a transformer whose last token is worth a number, fitted so that outputs that
were ranked higher score higher.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax.algorithms.base import Algorithm
from pgjax.descent import descend_minibatches, keep_best
from pgjax.errors import InputError
from pgjax.hyperparameters import numbers_of
from pgjax.rlhf.likelihood import pair_accuracy, pairs_of, plackett_luce_loss
from pgjax.rlhf.preferences import Rankings
from pgjax.text.decoder import TransformerConfig, check_config, token_values
from pgjax.text.tokens import PAD
from pgjax.trees import PyTree

AT_ONCE = 4096  # texts that are scored together


class RewardModel(NamedTuple):
    """A score of texts with parameters of its own, as pure functions.

    `init(key, body) -> params`, which begins with the weights of a language model of the same configuration, or with
    new ones where the body is (); `score(params, tokens[N, L]) -> [N]`, one number for each text, whatever pads stand
    on either side of it. Only differences between outputs to the same prompt have a meaning. `config` is that of the
    transformer that it is, if it is one.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    score: Callable[[PyTree, jax.Array], jax.Array]
    config: TransformerConfig | None = None


def reward_model(config: TransformerConfig) -> RewardModel:
    """A transformer with a scalar head at the last token that is no pad.

    Raises:
        InputError: If there is no transformer of this configuration; from `init`, if the body has another one; from
            `score`, if texts are longer than the context.

    Source: the lecture's r(θ_r, ·); Stiennon et al., *Learning to summarize from human feedback*, 2020.
    """
    check_config(config)
    fresh, values = token_values(config)

    def init(key: jax.Array, body: PyTree = ()) -> PyTree:
        params = fresh(key)
        if not jax.tree.leaves(body):
            return params
        weights = {**params["params"], "body": body["params"]}
        ours, theirs = (
            [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
            for tree in (params, {"params": weights})
        )
        if ours != theirs:
            raise InputError(
                f"expected the weights of a language model of the configuration {tuple(config)}, got those of another"
            )
        return {"params": weights}

    def score(params: PyTree, tokens: jax.Array) -> jax.Array:
        L = tokens.shape[1]
        if config.context < L:
            raise InputError(f"expected texts of at most {config.context} tokens for a reward model, got {L}")
        last = L - 1 - jnp.argmax((tokens != PAD)[:, ::-1], axis=1)
        return jnp.take_along_axis(values(params, tokens), last[:, None], axis=1)[:, 0]

    return RewardModel(init, score, config)


def scores_of(model: RewardModel, params: PyTree, tokens: jax.Array) -> jax.Array:
    """The scores [N, K] of K outputs to each of N prompts, [N, K, L]."""
    N, K, L = tokens.shape
    return scored(model, params, tokens.reshape(N * K, L)).reshape(N, K)


def scored(model: RewardModel, params: PyTree, tokens: jax.Array) -> jax.Array:
    """The scores [N] of texts [N, L]; of many texts, a part after another, as all their attention takes gigabytes."""
    if len(tokens) <= AT_ONCE:
        return model.score(params, tokens)
    return jax.lax.map(lambda text: model.score(params, text[None])[0], tokens, batch_size=AT_ONCE // 16)


def ensemble_score(model: RewardModel, params: PyTree, tokens: jax.Array, uncertainty_penalty: Any = 0.0) -> jax.Array:
    """What several models say of texts [N, L] together, [N]: their mean less `uncertainty_penalty` standard deviations.

    Args:
        model: Of which architecture.
        params: Theirs, each leaf [members, ...].
        tokens: The texts.
        uncertainty_penalty: How much disagreement costs; 0 for the plain mean.

    Source: Coste et al., *Reward model ensembles help mitigate overoptimization*, 2023.
    """
    scores = jax.vmap(lambda member: scored(model, member, tokens))(params)
    return jnp.mean(scores, axis=0) - uncertainty_penalty * jnp.std(scores, axis=0)


def preference_disagreement(model: RewardModel, params: PyTree, tokens: jax.Array) -> jax.Array:
    """How far the members of an ensemble differ about outputs to a prompt, [N] from texts [N, K, L].

    The standard deviation over members of σ(r_i − r_j), the probability that i is preferred, averaged over pairs.

    Args:
        model: Of which architecture.
        params: Theirs, each leaf [members, ...].
        tokens: K outputs to each of N prompts.

    Source: Christiano et al., *Deep reinforcement learning from human preferences*, 2017, §2.2.4.
    """
    scores = jax.vmap(lambda member: scores_of(model, member, tokens))(params)  # [members, N, K]
    first, second = pairs_of(tokens.shape[1])
    return jnp.mean(jnp.std(jax.nn.sigmoid(scores[..., first] - scores[..., second]), axis=0), axis=-1)


class RewardHyperparameters(NamedTuple):
    """The numbers of a run that fits a reward model; all are traced scalars."""

    learning_rate: Any = 1e-3  # η
    weight_decay: Any = 0.0


class RewardState(NamedTuple):
    """What such a run carries."""

    key: jax.Array
    iteration: jax.Array  # [] int32
    hyperparameters: RewardHyperparameters
    params: PyTree  # θ_r with the least loss on held-out rankings so far; the latest, if there are none
    latest: PyTree
    optimizer: PyTree
    best: jax.Array  # [], loss of `params` on held-out rankings
    fitted: jax.Array  # [N] bool, which rankings are fitted; the other real ones are held out


class RewardMetrics(NamedTuple):
    """What one update reports; each a float scalar."""

    loss: jax.Array  # mean over minibatches, nats a ranking
    held_out_loss: jax.Array  # nats a ranking, after the update; the loss, if nothing is held out
    accuracy: jax.Array  # fraction of held-out pairs in the order of the rankings


def reward_modelling(
    model: RewardModel,
    rankings: Rankings,
    *,
    body: PyTree = (),
    batch: int = 32,
    steps: int = 20,
    held_out: float = 0.1,
) -> Algorithm:
    """The fit of a reward model to rankings as an algorithm: AdamW on the negative log-likelihood.

    For pairs the loss is −ln σ(r(X') − r(X)) with X' the preferred one (Bradley–Terry), for longer rankings that of
    Plackett–Luce. Of all θ_r that updates end with, the state's `params` are those with the least loss on held-out
    rankings; which are held out is chosen at random. Its numbers are `RewardHyperparameters`.

    Args:
        model: r.
        rankings: [N, K]; arrays that all runs share, or, inside of a run, its own.
        body: Weights of a language model to begin with, see `RewardModel`.
        batch: Rankings of a minibatch, drawn with replacement.
        steps: Gradient steps of an update.
        held_out: The fraction of the rankings that is not fitted, rounded down.

    Raises:
        InputError: If a count is below 1, there is no ranking, or the fraction is not in [0, 1).

    Source: the lecture's l(θ_r); Bradley & Terry, *Rank analysis of incomplete block designs*, 1952; Plackett, *The
    analysis of permutations*, 1975.
    """
    for name, count in (("rankings in a batch", batch), ("gradient steps an update", steps)):
        if count < 1:
            raise InputError(f"expected 1 or more {name}, got {count}")
    if not 0 <= held_out < 1:
        raise InputError(f"expected a fraction of held-out rankings from 0 to below 1, got {held_out}")
    if rankings.tokens.ndim != 3 or not rankings.tokens.shape[0]:
        raise InputError(f"expected rankings of tokens [N, K, L], got an array of shape {rankings.tokens.shape}")
    rankings = jax.tree.map(jnp.asarray, rankings)

    def optimizer(numbers: RewardHyperparameters) -> optax.GradientTransformation:
        return optax.adamw(numbers.learning_rate, weight_decay=numbers.weight_decay)

    def init(key: jax.Array, hyperparameters: RewardHyperparameters) -> RewardState:
        key, params_key, choice_key = jax.random.split(key, 3)
        params = model.init(params_key, body)
        chance = jnp.where(rankings.mask, jax.random.uniform(choice_key, rankings.mask.shape), 2)
        rank = jnp.argsort(jnp.argsort(chance))  # the real ones first, in random order
        real = jnp.sum(rankings.mask)
        fitted = rankings.mask & (rank < real - jnp.floor(held_out * real + 1e-4))
        state = optimizer(hyperparameters).init(params)
        infinite = jnp.asarray(jnp.inf, jnp.result_type(float))
        return RewardState(
            key=key,
            iteration=jnp.int32(0),
            hyperparameters=hyperparameters,
            params=params,
            latest=params,
            optimizer=state,
            best=infinite,
            fitted=fitted,
        )

    def negative_log_likelihood(params: PyTree, rankings: Rankings) -> jax.Array:
        return plackett_luce_loss(
            scores_of(model, params, rankings.tokens), rankings.order, rankings.mask, rankings.tied
        )

    def update(state: RewardState) -> tuple[RewardState, RewardMetrics]:
        key = jax.random.fold_in(state.key, state.iteration)
        first = jnp.argsort(~state.fitted)  # where those to fit are
        count = jnp.sum(state.fitted)

        def loss(params: PyTree, key: jax.Array) -> jax.Array:
            drawn = first[jax.random.randint(key, (batch,), 0, count)]
            return negative_log_likelihood(params, jax.tree.map(lambda leaf: leaf[drawn], rankings))

        optimize = optimizer(state.hyperparameters)
        latest, optimizer_state, mean = descend_minibatches(loss, optimize, key, state.latest, state.optimizer, steps)
        aside = rankings.mask & ~state.fitted
        judged, found, accuracy = jnp.any(aside), mean, jnp.zeros_like(mean)
        if held_out:
            # No more than these can be held out, and nobody needs scores of the others.
            kept = jnp.argsort(~aside)[: int(held_out * len(aside)) + 1]
            those = jax.tree.map(lambda leaf: leaf[kept], rankings._replace(mask=aside))
            scores = scores_of(model, latest, those.tokens)
            found = jnp.where(judged, plackett_luce_loss(scores, those.order, those.mask, those.tied), mean)
            accuracy = pair_accuracy(scores, those.order, those.mask, those.tied)
        params, best = keep_best((state.params, state.best), latest, found, judged)
        following = state._replace(
            iteration=state.iteration + 1, params=params, latest=latest, optimizer=optimizer_state, best=best
        )
        return following, RewardMetrics(mean, found, accuracy)

    return Algorithm(init, update, numbers_of(RewardHyperparameters()))
