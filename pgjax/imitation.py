"""Imitation learning: copy an expert, from what it did or from what it answers.

The lecture's objective is E[Σ_t d(f(X_t), f*(X_t))] for the observations that the agent f meets. *Behaviour cloning*
minimises it over those that the expert f* meets, which are the ones it has. *DAgger* lets the agent act, and asks the
expert there.

Both fit a policy to *examples*. For a policy without memory an example is a step, for one with memory a whole episode;
either is a column of `Demonstrations` [T, M], with T = 1 for steps. Minibatches are columns drawn with replacement.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.algorithm import Algorithm
from pgjax.demonstrations import Demonstrations
from pgjax.descent import Optimizer, check_optimizer, descend
from pgjax.environments.environment import Environment, PyTree
from pgjax.errors import InputError
from pgjax.experts import Expert
from pgjax.hyperparameters import numbers_of
from pgjax.policies.distributions import Categorical, Distribution
from pgjax.policies.policy import Policy, check_fit, has_memory
from pgjax.rollout import Trajectory, choose, collect, together

# d(f(X_t), f*(X_t)): of the agent's distribution, of the action that the expert took, and of the expert's distribution,
# which is None where it is not known; each with any batch axes.
Distance = Callable[[Distribution, jax.Array, Any], jax.Array]


def negative_log_likelihood(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """Return −ln f(X_t)_{A_t}, the lecture's l_D, in nats, [...]: all that can be known from actions alone."""
    return -f.log_prob(action)


def cross_entropy(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """Return −E_{f*}[ln f(X_t)], in nats, [...]: the mean of −ln f over what the expert could have done.

    It has the gradient of KL(f* ‖ f), and is finite for a deterministic expert with continuous actions too.

    Raises:
        InputError: If the expert's distribution is not known, or of another kind than the agent's.
    """
    return of_one_kind(f, expert).cross_entropy(f)


def forward_kl(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """Return KL(f* ‖ f), in nats, [...], which makes f cover all that the expert does.

    It is infinite for an expert that is certain of a continuous action: there `cross_entropy` has the same gradient.

    Raises:
        InputError: See `cross_entropy`.
    """
    return of_one_kind(f, expert).kl(f)


def reverse_kl(f: Distribution, action: jax.Array, expert: Any) -> jax.Array:
    """Return KL(f ‖ f*), in nats, [...], which keeps f from doing what the expert never does; infinite where it does.

    Raises:
        InputError: See `cross_entropy`.
    """
    return f.kl(of_one_kind(f, expert))  # type: ignore[attr-defined]


def of_one_kind(f: Distribution, expert: Any) -> Any:
    """Return the expert's distribution.

    Raises:
        InputError: If it is not known, or of another kind than the agent's.
    """
    if type(expert) is not type(f):
        came = "none" if expert is None else f"a {type(expert).__name__}"
        raise InputError(f"expected the expert's distribution, a {type(f).__name__} as the agent's, got {came}")
    return expert


def labelled(
    expert: Expert, trajectory: Trajectory, action: jax.Array | None = None, key: Any = None
) -> Demonstrations:
    """Return what the expert says of the steps of a trajectory: Demonstrations [T, E], with its distribution.

    Args:
        expert: Who is asked.
        trajectory: [T, E], whoever played it, one episode a slot (`collect` with steps=0).
        action: [T, E, ...], what the expert did there; drawn with `key` from its distribution if not given.
        key: What to draw it with.

    Raises:
        InputError: If neither an action nor a key is given.
    """
    if action is None and key is None:
        raise InputError("expected the expert's actions or a key to draw them with, got neither")
    distribution = expert.policy.unroll(expert.params, trajectory)
    action = distribution.sample(key) if action is None else action
    return Demonstrations(trajectory.observation, action, trajectory.mask, distribution)


def demonstrate(
    environment: Environment, expert: Expert, episodes: int, chunk: int = 16
) -> Callable[..., Demonstrations]:
    """Return a function (key, environment params) -> Demonstrations [T, N] of N whole episodes that the expert plays.

    Without environment params it is in the environment as it was given.

    Args:
        environment: Where.
        expert: Who plays; its actions must fit the environment.
        episodes: N, at least 1.
        chunk: Rows collected at a time, at least 1.

    Raises:
        InputError: See `pgjax.collect`, and if the expert does not fit the environment.
    """
    check_fit(environment, expert.policy)
    run = collect(environment, expert.policy, episodes, chunk=chunk)

    def draw(key: jax.Array, env_params: PyTree = environment.params) -> Demonstrations:
        trajectory = run(key, expert.params, env_params)
        return labelled(expert, trajectory, trajectory.action)

    return draw


def examples_of(
    demonstrations: Demonstrations, policy: Policy, distance: Distance, labels: int, key: jax.Array
) -> tuple[Demonstrations, jax.Array]:
    """Return the examples [T, M] for a policy, and which of the episodes each is from, [M].

    Args:
        demonstrations: [T, N], whole episodes.
        policy: Whether it has a memory decides what an example is.
        distance: For the likelihood the expert's distribution is left out; it may be large.
        labels: Of each episode only so many labelled steps are kept, chosen at random; 0 for all.
        key: What to choose them with.
    """
    if distance is negative_log_likelihood:
        demonstrations = demonstrations._replace(expert=None)
    T, N = demonstrations.mask.shape
    kept = min(labels, T) if labels else T
    if kept < T:
        chance = jnp.where(demonstrations.mask, jax.random.uniform(key, (T, N)), -1)
        order = jnp.argsort(-chance, axis=0)  # [T, N]: of each episode, first the labelled steps, shuffled
    if has_memory(policy):
        demonstrations = with_finite_padding(demonstrations)
        if kept < T:
            rank = jnp.argsort(order, axis=0)
            demonstrations = demonstrations._replace(mask=demonstrations.mask & (rank < kept))
        return demonstrations, jnp.arange(N)

    def as_steps(leaf: jax.Array) -> jax.Array:
        if kept < T:
            leaf = leaf[order[:kept], jnp.arange(N)[None]]
        return leaf.reshape(1, kept * N, *leaf.shape[2:])

    return jax.tree.map(as_steps, demonstrations), jnp.tile(jnp.arange(N), kept)


def with_finite_padding(demonstrations: Demonstrations) -> Demonstrations:
    """Demonstrations [T, N] in which nothing that is not finite can reach a gradient.

    After an episode's last label its first observation is repeated; where the expert was not asked, what it would have
    done is 0. A mask alone does not do: in a backward pass 0 · NaN is NaN.
    """
    mask = demonstrations.mask
    before_the_end = jnp.cumsum(mask[::-1], axis=0)[::-1] > 0
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), demonstrations.observation)
    known = demonstrations.action, demonstrations.expert
    action, expert = choose(mask, known, jax.tree.map(jnp.zeros_like, known))
    observation = choose(before_the_end, demonstrations.observation, start)
    return Demonstrations(observation, action, mask, expert)


class Fitting(NamedTuple):
    """How a policy is fitted to examples.

    `fit(key, params, optimizer state, learning rate, examples, indices, count) -> (params, optimizer state, loss)`
    takes gradient steps on minibatches from columns indices[:count], and returns their mean loss. `distance(params,
    examples, indices, first, count) -> []` is the mean distance over the labelled steps of columns
    indices[first : first + count].
    """

    fit: Callable[..., tuple[PyTree, PyTree, jax.Array]]
    distance: Callable[..., jax.Array]


def fitting(
    policy: Policy,
    distance: Distance,
    optimizer: Optimizer,
    batch: int,
    steps: int,
) -> Fitting:
    """Return how a policy is fitted; arguments are those of `behaviour_cloning`.

    Raises:
        InputError: If a count is below 1, or the optimizer cannot be used (`check_optimizer`).
    """
    for name, count in (("examples in a batch", batch), ("gradient steps an update", steps)):
        if count < 1:
            raise InputError(f"expected 1 or more {name}, got {count}")
    check_optimizer(optimizer, policy.init)

    def examples_drawn(examples: Demonstrations) -> int:
        T, M = examples.mask.shape
        return batch if T == 1 else min(batch, M)

    def columns(examples: Demonstrations, indices: jax.Array) -> Demonstrations:
        return jax.tree.map(lambda leaf: leaf[:, indices], examples)

    def sums(params: PyTree, examples: Demonstrations) -> tuple[jax.Array, jax.Array]:
        d = distance(policy.unroll(params, examples), examples.action, examples.expert)
        return jnp.sum(jnp.where(examples.mask, d, 0)), jnp.sum(examples.mask, dtype=d.dtype)

    def loss(params: PyTree, examples: Demonstrations, expected: jax.Array) -> jax.Array:
        return sums(params, examples)[0] / expected

    def fit(
        key: jax.Array,
        params: PyTree,
        optimizer_state: PyTree,
        learning_rate: jax.Array,
        examples: Demonstrations,
        indices: jax.Array,
        count: jax.Array,
    ) -> tuple[PyTree, PyTree, jax.Array]:
        optimize = optimizer(learning_rate)
        size = examples_drawn(examples)
        # By the labels that a minibatch has on average: divided by those that it has, short episodes would count more.
        expected = jnp.asarray(size, jnp.result_type(float))
        if len(examples.mask) > 1:
            labels = jnp.sum(examples.mask, axis=0)[indices]
            expected *= jnp.sum(jnp.where(jnp.arange(len(indices)) < count, labels, 0)) / jnp.maximum(count, 1)
            expected = jnp.maximum(expected, 1)

        def one_step(i: jax.Array, carry: tuple[PyTree, PyTree, jax.Array]) -> tuple[PyTree, PyTree, jax.Array]:
            params, optimizer_state, total = carry
            drawn = indices[jax.random.randint(jax.random.fold_in(key, i), (size,), 0, count)]
            value, descent = jax.value_and_grad(loss)(params, columns(examples, drawn), expected)
            params, optimizer_state = descend(optimize, descent, optimizer_state, params, value)
            return params, optimizer_state, total + value

        zero = jnp.zeros((), jnp.result_type(float))
        params, optimizer_state, total = jax.lax.fori_loop(0, steps, one_step, (params, optimizer_state, zero))
        return params, optimizer_state, total / steps

    def mean_distance(
        params: PyTree, examples: Demonstrations, indices: jax.Array, first: jax.Array, count: jax.Array
    ) -> jax.Array:
        size = examples_drawn(examples)

        def add(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            done, total, labels = carry
            number = done + jnp.arange(size)
            chosen = columns(examples, indices[jnp.minimum(first + number, len(indices) - 1)])
            chosen = chosen._replace(mask=chosen.mask & (number < count)[None])
            more, of_labels = sums(params, chosen)
            return done + size, total + more, labels + of_labels

        zero = jnp.zeros((), jnp.result_type(float))
        start = (jnp.int32(0), zero, zero)
        _, total, labels = jax.lax.while_loop(lambda carry: together(carry[0] < count), add, start)
        return total / jnp.maximum(labels, 1)

    return Fitting(fit, mean_distance)


class CloningHyperparameters(NamedTuple):
    """The numbers of a behaviour-cloning run; all are traced scalars, so any can be swept."""

    learning_rate: Any = 1e-3  # η
    episodes: Any = 1  # how many of the expert's episodes are used, the first ones; int32


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
    indices: jax.Array  # [M] int32, columns to fit, then held-out ones, then those that are not used
    fitted: jax.Array  # [] int32, how many are to fit
    held_out: jax.Array  # [] int32, how many are held out
    labels: jax.Array  # [], labelled steps among both


class CloningMetrics(NamedTuple):
    """What one update of behaviour cloning reports; each a float scalar, distances a mean over steps."""

    loss: jax.Array  # distance on the minibatches
    held_out_loss: jax.Array  # distance on held-out examples after the update; the loss, if there are none
    labels: jax.Array  # labelled steps that the run has in all


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
    """Return behaviour cloning: classification or regression of the expert's actions, by maximum likelihood.

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
        >>> environment, expert = pgjax.maze("#S.E#", horizon=10), pgjax.shortest_paths("#S.E#")
        >>> demonstrations = demonstrate(environment, expert, episodes=4)(jax.random.key(0))
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
    if callable(demonstrations):
        draw = demonstrations
    else:
        data = jax.tree.map(jnp.asarray, demonstrations)

        def draw(key: jax.Array) -> Demonstrations:
            return data

    form = jax.eval_shape(draw, jax.random.key(0))
    check_distance(policy, distance, form)
    if not callable(demonstrations):
        check_labels(policy, data)
    N = form.mask.shape[1]
    held = np.asarray([min(int(held_out * n + 1e-9), n - 1) for n in range(1, N + 1)], np.int32)  # of n episodes
    own = callable(demonstrations) or labels > 0

    def all_examples(key: jax.Array) -> tuple[Demonstrations, jax.Array]:
        draw_key, label_key = jax.random.split(key)
        return examples_of(draw(draw_key), policy, distance, labels, label_key)

    def init(key: jax.Array, hyperparameters: CloningHyperparameters) -> CloningState:
        key, params_key, data_key = jax.random.split(key, 3)
        examples, episode = all_examples(data_key)
        n = jnp.clip(hyperparameters.episodes, 1, N)
        out = jnp.asarray(held)[n - 1]
        known = jnp.any(examples.mask, axis=0) & (episode < n)
        fitted = known & (episode < n - out)
        indices = jnp.argsort(jnp.where(fitted, 0, jnp.where(known, 1, 2))).astype(jnp.int32)
        params = policy.init(params_key)
        dtype = jnp.result_type(float)
        return CloningState(
            key,
            jnp.int32(0),
            hyperparameters,
            params,
            params,
            optimizer(hyperparameters.learning_rate).init(params),
            jnp.asarray(jnp.inf, dtype),
            examples if own else (),
            indices,
            jnp.sum(fitted, dtype=jnp.int32),
            jnp.sum(known & ~fitted, dtype=jnp.int32),
            jnp.sum(examples.mask & known[None], dtype=dtype),
        )

    def update(state: CloningState) -> tuple[CloningState, CloningMetrics]:
        key = jax.random.fold_in(state.key, state.iteration)
        examples = state.examples if own else all_examples(key)[0]
        eta = state.hyperparameters.learning_rate
        params, optimizer_state, loss = fitter.fit(
            key, state.latest, state.optimizer, eta, examples, state.indices, state.fitted
        )
        found = fitter.distance(params, examples, state.indices, state.fitted, state.held_out)
        judged = state.held_out > 0
        # A distance that is infinite for all θ says nothing of them.
        better = ~judged | (found < state.best) | (jnp.isinf(state.best) & ~jnp.isnan(found))
        following = state._replace(
            iteration=state.iteration + 1,
            params=jax.tree.map(lambda new, old: jnp.where(better, new, old), params, state.params),
            latest=params,
            optimizer=optimizer_state,
            best=jnp.where(judged & better, found, state.best),
        )
        return following, CloningMetrics(loss, jnp.where(judged, found, loss), state.labels)

    return Algorithm(init, update, numbers_of(CloningHyperparameters(episodes=N)))


def check_distance(policy: Policy, distance: Distance, demonstrations: Demonstrations) -> None:
    """Raise unless a policy can be compared with what is known of the expert; only shapes are followed.

    Raises:
        InputError: If arrays are not [T, N, ...], the policy does not take the observations, the actions are not like
            its own, or the distance needs the expert's distribution and it is not known.
    """
    mask = demonstrations.mask
    for leaf in jax.tree.leaves(demonstrations):
        if mask.ndim != 2 or leaf.shape[:2] != mask.shape or not mask.size:
            raise InputError(
                f"expected arrays [T, N, ...] and a mask [T, N], got {list(leaf.shape)} and {list(mask.shape)}"
            )

    def compare(key: jax.Array, demonstrations: Demonstrations) -> tuple[jax.Array, jax.Array]:
        f = policy.unroll(policy.init(key), demonstrations)
        return f.sample(key), distance(f, demonstrations.action, demonstrations.expert)

    try:
        action, d = jax.eval_shape(compare, jax.random.key(0), demonstrations)
    except InputError:
        raise
    except Exception as error:  # each network library has exceptions of its own for a shape that does not fit
        raise InputError(f"expected a policy that fits the demonstrations, it fails with: {error}") from error
    ours, theirs = ((action.shape, kind_of(action)) for action in (action, demonstrations.action))
    if ours != theirs:
        raise InputError(f"expected actions of shape and kind {ours}, as the policy's, got {theirs}")
    if d.shape != demonstrations.mask.shape:
        raise InputError(f"expected a distance of shape {demonstrations.mask.shape} for as many steps, got {d.shape}")


def kind_of(array: Any) -> str:
    """Return whether an array is of integers or of real numbers, in a word."""
    return "integer" if jnp.issubdtype(array.dtype, jnp.integer) else "real"


def check_labels(policy: Policy, demonstrations: Demonstrations) -> None:
    """Raise unless there is something to learn from demonstrations that are given as arrays.

    Raises:
        InputError: If no step is labelled, or an action is not one of the policy's.
    """
    mask, action = np.asarray(demonstrations.mask), np.asarray(demonstrations.action)
    if mask.dtype != bool or not mask.any():
        raise InputError(f"expected a mask of booleans with 1 or more labelled steps, got {mask.sum()} of {mask.dtype}")
    f = jax.eval_shape(lambda key: policy.unroll(policy.init(key), demonstrations), jax.random.key(0))
    if isinstance(f, Categorical):
        n, chosen = f.logits.shape[-1], action[mask]
        if chosen.min() < 0 or chosen.max() >= n:
            raise InputError(f"expected actions from 0 to {n - 1}, got {chosen.min()} to {chosen.max()}")
