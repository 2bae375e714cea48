"""Behaviour cloning: imitate an expert, from what it did.

The lecture's objective is E[Σ_t d(f(X_t), f*(X_t))] for the observations that the agent f meets. *Behaviour cloning*
minimises it over those that the expert f* meets, which are the ones it has. (*DAgger* lets the agent act, and asks the
expert there.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.algorithms.base import Algorithm
from pgjax.descent import Optimizer, keep_best
from pgjax.errors import InputError
from pgjax.hyperparameters import numbers_of
from pgjax.imitation.demonstrations import Demonstrations
from pgjax.imitation.distances import Distance, check_distance, negative_log_likelihood
from pgjax.imitation.fitting import examples_of, fitting
from pgjax.imitation.labels import check_labels
from pgjax.policies.base import Policy
from pgjax.trees import PyTree


class CloningHyperparameters(NamedTuple):
    """The numbers of a behaviour-cloning run; all are traced scalars, so any can be swept."""

    learning_rate: Any = 1e-3  # η
    episodes: Any = 1  # how many of the expert's episodes are used, the first ones; int32


class Split(NamedTuple):
    """Which examples a run fits, and which it holds out."""

    indices: jax.Array  # [M] int32, columns to fit, then held-out ones, then those that are not used
    fitted: jax.Array  # [] int32, how many are to fit
    held_out: jax.Array  # [] int32, how many are held out
    labels: jax.Array  # [], labelled steps among both


class CloningState(NamedTuple):
    """What a run of behaviour cloning carries."""

    key: jax.Array  # the run's own, never used up
    iteration: jax.Array  # [] int32
    hyperparameters: CloningHyperparameters
    params: PyTree  # θ with the least distance on held-out examples so far; the latest, if there are none
    latest: PyTree  # θ that is being fitted
    optimizer: PyTree
    best: jax.Array  # [], distance of `params` on held-out examples
    examples: Any  # [T, M] if each run has its own; () if all share theirs
    split: Split


class CloningMetrics(NamedTuple):
    """What one update of behaviour cloning reports; each a float scalar, distances a mean over steps."""

    loss: jax.Array  # distance on the minibatches
    held_out_loss: jax.Array  # distance on held-out examples after the update; the loss, if there are none
    labels: jax.Array  # labelled steps that the run has in all


def split(examples: Demonstrations, episode: jax.Array, count: jax.Array, held_out: np.ndarray) -> Split:
    """The first episodes cut into those to fit and, behind them, those to hold out.

    Args:
        examples: [T, M].
        episode: Which each is from, [M].
        count: How many episodes are used; at least 1 and at most all N are.
        held_out: Of 1, 2, …, N of them, how many are held out, [N].
    """
    n = jnp.clip(count, 1, len(held_out))
    known = jnp.any(examples.mask, axis=0) & (episode < n)
    fitted = known & (episode < n - jnp.asarray(held_out)[n - 1])
    return Split(
        indices=jnp.argsort(jnp.where(fitted, 0, jnp.where(known, 1, 2))).astype(jnp.int32),
        fitted=jnp.sum(fitted, dtype=jnp.int32),
        held_out=jnp.sum(known & ~fitted, dtype=jnp.int32),
        labels=jnp.sum(examples.mask & known[None], dtype=jnp.result_type(float)),
    )


def acquainted(policy: Policy, params: PyTree, examples: Demonstrations, split: Split) -> PyTree:
    """Parameters that have observed the examples to fit, see `Policy.observe`."""
    if policy.observe is None:
        return params
    places = jnp.arange(len(split.indices))
    fitted = jnp.zeros(len(places), bool).at[split.indices].set(places < split.fitted)
    return policy.observe(params, examples._replace(mask=examples.mask & fitted[None]))


def drawn_by(
    demonstrations: Demonstrations | Callable[[jax.Array], Demonstrations], policy: Policy, distance: Distance
) -> tuple[Callable[[jax.Array], Demonstrations], int]:
    """What draws the demonstrations of a run from its key, the same ones if all runs share them; and how many episodes.

    Raises:
        InputError: If they do not fit the policy, or the distance needs more than they say.
    """
    if callable(demonstrations):
        form = jax.eval_shape(demonstrations, jax.random.key(0))
        check_distance(policy, distance, form)
        return demonstrations, form.mask.shape[1]
    data = jax.tree.map(jnp.asarray, demonstrations)
    check_distance(policy, distance, jax.eval_shape(lambda: data))
    check_labels(policy, data)
    return lambda key: data, data.mask.shape[1]


def behaviour_cloning(
    policy: Policy,
    demonstrations: Demonstrations | Callable[[jax.Array], Demonstrations],
    *,
    distance: Distance = negative_log_likelihood,
    labels: int = 0,
    held_out: float = 0.1,
    batch: int = 128,
    steps: int = 100,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """Behaviour cloning: classification or regression of the expert's actions, by maximum likelihood.

    With the default distance it minimises the lecture's l_D(θ) = −Σ_i ln f(x_i, θ)_{a_i}, per step: cross-entropy for a
    Categorical policy, for a Gaussian one squared errors in units of the variance that it also learns. Of all θ that
    its updates end with, the state's `params` are those with the least distance on held-out episodes: to stop early is
    to keep them, and in a batch of runs none waits for another. Held out are the last of the episodes that are used.

    The hyper-parameter `episodes` says how many of them are: the first ones, at least 1 and at most all.

    Args:
        policy: f. One with memory is fitted to whole episodes.
        demonstrations: Arrays that all runs share, or a function of a run's key that draws its own, `demonstrate`.
        distance: d(f, f*), see `Distance`.
        labels: Of each episode only so many steps, chosen at random, have a known action; 0 for all. Each run then has
            its own copy of these.
        held_out: The fraction of the episodes, rounded down, that is not fitted but decides which θ to keep; of fewer
            than ten that is none by default, and then the latest θ is kept. All of them are looked at in each update.
        batch: Examples of a minibatch, drawn with replacement: steps, or for a policy with memory whole episodes, at
            most as many as there are.
        steps: Gradient steps of an update.
        optimizer: From the learning rate, a traced number, to an optax transformation.

    Raises:
        InputError: If a count is out of range, the fraction is not in [0, 1), the distance needs the expert's
            distribution and it is not known, or the demonstrations do not fit the policy.

    Source: the lecture; Pomerleau, *ALVINN: an autonomous land vehicle in a neural network*, 1989.

    Example:
        >>> import pgjax
        >>> environment, expert = pgjax.maze("#S.E#", horizon=10), pgjax.imitation.shortest_paths("#S.E#")
        >>> demonstrations = pgjax.demonstrate(environment, expert, episodes=4)(jax.random.key(0))
        >>> cloning = behaviour_cloning(pgjax.policy_for(environment), demonstrations, steps=10)
        >>> run = jax.jit(pgjax.train(cloning, iterations=5))
        >>> state, curves = run(jax.random.key(1), cloning.hyperparameters(learning_rate=0.3))
        >>> state.params.argmax(axis=-1)[:2].tolist()  # to the east, as the expert goes
        [1, 1]
    """
    if labels < 0:
        raise InputError(f"expected 0 or more labels of an episode, got {labels}")
    if not 0 <= held_out < 1:
        raise InputError(f"expected a fraction of held-out episodes from 0 to below 1, got {held_out}")
    fitter = fitting(policy, distance, optimizer, batch, steps)
    draw, N = drawn_by(demonstrations, policy, distance)
    held = np.asarray([min(int(held_out * n + 1e-9), n - 1) for n in range(1, N + 1)], np.int32)  # of n episodes
    own = callable(demonstrations) or labels > 0

    def drawn(key: jax.Array) -> tuple[Demonstrations, jax.Array]:
        draw_key, label_key = jax.random.split(key)
        return examples_of(draw(draw_key), policy, distance, labels, label_key)

    # What all runs share is made once, here, and is no constant to the compiler, which would compute with it, slowly.
    made = None if own else drawn(jax.random.key(0))

    def shared() -> tuple[Demonstrations, jax.Array]:
        return jax.lax.optimization_barrier(made)

    def init(key: jax.Array, hyperparameters: CloningHyperparameters) -> CloningState:
        key, params_key, data_key = jax.random.split(key, 3)
        examples, episode = drawn(data_key) if own else shared()
        chosen = split(examples, episode, hyperparameters.episodes, held)
        params = acquainted(policy, policy.init(params_key), examples, chosen)
        return CloningState(
            key=key,
            iteration=jnp.int32(0),
            hyperparameters=hyperparameters,
            params=params,
            latest=params,
            optimizer=optimizer(hyperparameters.learning_rate).init(params),
            best=jnp.asarray(jnp.inf, jnp.result_type(float)),
            examples=examples if own else (),
            split=chosen,
        )

    def update(state: CloningState) -> tuple[CloningState, CloningMetrics]:
        key = jax.random.fold_in(state.key, state.iteration)
        examples = state.examples if own else shared()[0]
        eta = state.hyperparameters.learning_rate
        indices, fitted, held_out, labels = state.split
        latest, optimizer_state, loss = fitter.fit(key, state.latest, state.optimizer, eta, examples, indices, fitted)
        found, judged = fitter.distance(latest, examples, indices, fitted, held_out), held_out > 0
        params, best = keep_best((state.params, state.best), latest, found, judged)
        following = state._replace(
            iteration=state.iteration + 1, params=params, latest=latest, optimizer=optimizer_state, best=best
        )
        return following, CloningMetrics(loss, jnp.where(judged, found, loss), labels)

    return Algorithm(init, update, numbers_of(CloningHyperparameters(episodes=N)))
