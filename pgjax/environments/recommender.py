"""Recommendation: what to show to a user whose interests drift and who does not say what they are, but clicks."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_horizon
from pgjax.environments.base import Environment, Episode, Step
from pgjax.environments.drawings import BLUE, GREEN, ORANGE
from pgjax.environments.spaces import Box, Discrete
from pgjax.errors import InputError

SLATES = 5000  # the most that `clairvoyant_bound` enumerates


class Recommendation(NamedTuple):
    """A catalogue of N items and how users behave; the environment's `params`."""

    embedding: jax.Array  # v, [N, d], of length 1 each
    persistence: Any = 0.95  # ρ in [0, 1], the correlation of an interest with itself one step later
    affinity: Any = 4.0  # a, utility of an item for a unit of interest in it
    boredom: Any = 3.0  # b, utility that an item loses if it is the same as what was shown last
    outside: Any = 2.0  # c, utility of no click
    fading: Any = 0.8  # in [0, 1), what the observation keeps of its memory at each step


class State(NamedTuple):
    """A user, and what the recommender knows of them."""

    interest: jax.Array  # u_t, [d], hidden
    slate: jax.Array  # [K] int32, what was shown last; −1 before the first step
    clicked: jax.Array  # [] int32, the item of it that was clicked; −1 if none was
    liked: jax.Array  # [d], faded mean of the embeddings of what was clicked
    passed: jax.Array  # [d], faded mean of the embeddings of what was shown and not clicked
    last: jax.Array  # [d], mean embedding of the last slate; 0 before the first step


def drifted(interest: jax.Array, noise: jax.Array, params: Recommendation) -> jax.Array:
    """U_{t+1} = ρ u_t + √(1−ρ²) ε from u_t and ε, each [d]; N(0, I) is stationary."""
    return params.persistence * interest + jnp.sqrt(1 - params.persistence**2) * noise


def click_probabilities(interest: jax.Array, shown: jax.Array, last: jax.Array, params: Recommendation) -> jax.Array:
    """The probability of a click on each item of a slate, and at the end that of none, [K + 1].

    A conditional logit: Pr(i) = e^{η_i} / (e^c + Σ_j e^{η_j}), with η_i = a u·v_i − b max(0, v_i·m), where m is the
    mean embedding of the slate before.

    Args:
        interest: u, [d].
        shown: v of the slate's items, [K, d].
        last: m, [d]; 0 if nothing was shown before.
        params: a, b and c.

    Source: McFadden, *Conditional logit analysis of qualitative choice behavior*, 1974; as a model of clicks, Ie et
    al., *RecSim: a configurable simulation platform for recommender systems*, 2019.
    """
    similar = jnp.maximum(jnp.sum(shown * last[None], axis=-1), 0)
    utility = params.affinity * jnp.sum(shown * interest[None], axis=-1) - params.boredom * similar
    return jax.nn.softmax(jnp.append(utility, params.outside))


def observe(state: State) -> jax.Array:
    """What a recommender knows of a user, [3d + 1]; see `recommendation`."""
    clicked = (state.clicked >= 0).astype(state.last.dtype)
    return jnp.concatenate([state.liked, state.passed, state.last, clicked[None]])


def recommendation(
    items: int = 10, slate: int = 1, dimension: int = 4, horizon: int = 20, seed: int = 0
) -> Environment:
    """An environment that shows a user a slate of items at each step, and pays 1 for a click on one of them.

    The user's interest u_t [d] is hidden. It starts as N(0, I) and drifts by a stationary autoregression (`drifted`),
    whatever is shown. Whether the user clicks depends on it and on the slate shown one step before
    (`click_probabilities`). Episodes are truncated after `horizon` steps and never terminate.

    X_t, 3d + 1 numbers in [−1, 1], is what a recommender can know: the exponentially faded means of the embeddings that
    were clicked and of those that were shown and not clicked, the mean embedding of the last slate, and whether it was
    clicked (0 or 1).

    With slates of one item, A_t is its number. With K > 1, A_t is a query q in [−1, 1]^d, and the slate is the K items
    with the largest q·v_i, so that actions do not multiply with the catalogue.

    The interests depend on keys alone: with the same keys all policies meet the same users, and `State.interest` of an
    episode's states before each of its steps is what `clairvoyant_bound` needs.

    Args:
        items: N, at least 2.
        slate: K, from 1 to N − 1.
        dimension: d, at least 1, of embeddings and interests.
        horizon: T, at least 1.
        seed: Of the embeddings, which are uniform on the unit sphere.

    Raises:
        InputError: If a number is out of range.

    Source: our own, after Ie et al., *SlateQ: a tractable decomposition for reinforcement learning with recommendation
    sets*, 2019; the query is from Dulac-Arnold et al., *Deep reinforcement learning in large discrete action spaces*,
    2015.
    """
    for name, count, least in (
        ("a catalogue", items, 2),
        ("embeddings", dimension, 1),
        ("a horizon", horizon, 1),
        ("a seed", seed, 0),
    ):
        if count < least:
            raise InputError(f"expected {name} of {least} or more, got {count}")
    if not 1 <= slate < items:
        raise InputError(f"expected slates of 1 to {items - 1} items, got {slate}")
    dtype = jnp.result_type(float)
    embedding = np.random.default_rng(seed).normal(size=(items, dimension))
    embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
    params = Recommendation(jnp.asarray(embedding, dtype))
    params = Recommendation(*(jnp.asarray(value, dtype) for value in params))

    def reset(key: jax.Array, params: Recommendation) -> tuple[State, jax.Array]:
        nothing = jnp.zeros(dimension, dtype)
        interest = jax.random.normal(key, (dimension,), dtype)
        state = State(
            interest=interest,
            slate=jnp.full(slate, -1, jnp.int32),
            clicked=jnp.int32(-1),
            liked=nothing,
            passed=nothing,
            last=nothing,
        )
        return state, observe(state)

    def choose_slate(action: jax.Array, params: Recommendation) -> jax.Array:
        if slate == 1:
            return action[None].astype(jnp.int32)
        return jax.lax.top_k(jnp.sum(params.embedding * action[None], axis=-1), slate)[1].astype(jnp.int32)

    def step(key: jax.Array, state: State, action: jax.Array, params: Recommendation) -> tuple[State, Step]:
        chosen = choose_slate(action, params)
        shown = params.embedding[chosen]
        probabilities = click_probabilities(state.interest, shown, state.last, params)
        noise = jax.random.normal(key, (dimension + 1,), dtype)
        uniform = (1 + jax.lax.erf(noise[-1] / math.sqrt(2))) / 2  # Φ of a normal number
        place = jnp.sum(uniform >= jnp.cumsum(probabilities[:-1]))  # slate: no click
        click = (jnp.arange(slate) == place).astype(dtype)[:, None]
        clicked, mean = jnp.sum(click * shown, axis=0), jnp.mean(shown, axis=0)
        kept = params.fading
        following = State(
            interest=drifted(state.interest, noise[:-1], params),
            slate=chosen,
            clicked=jnp.where(place < slate, chosen[jnp.minimum(place, slate - 1)], -1),
            liked=kept * state.liked + (1 - kept) * clicked,
            passed=kept * state.passed + (1 - kept) * (mean - clicked / slate),
            last=mean,
        )
        return following, Step(observe(following), (place < slate).astype(jnp.float32))

    actions = Discrete(items) if slate == 1 else Box(low=-1.0, high=1.0, shape=(dimension,), dtype=dtype)
    seen = Box(low=-1.0, high=1.0, shape=(3 * dimension + 1,), dtype=dtype)
    return Environment(
        reset=reset,
        step=step,
        observation_space=seen,
        action_space=actions,
        horizon=horizon,
        params=params,
        name="recommendation" if slate == 1 else "recommendation of slates",
        draw=draw,
    )


def draw(axes: Any, episode: Episode, t: int) -> None:
    """Draw the interest in each item as bars, with what was shown at step t, and the clicks of the steps so far.

    Bars are u·v_i of the user who was shown the slate, which the recommender does not see. Below them is a row of all
    steps: filled where the user clicked, empty where not, a dot where it is still to come.
    """
    state, embedding = episode.state, np.asarray(episode.params.embedding)
    N, steps = len(embedding), len(episode.reward)
    values = state.interest @ embedding.T  # [n + 1, N]
    colours = ["0.8"] * N
    for item in state.slate[t]:
        if item >= 0:
            colours[item] = GREEN if item == state.clicked[t] else ORANGE
            axes.axvspan(item - 0.5, item + 0.5, color="0.95", zorder=0, linewidth=0)
    high = max(1.0, float(np.abs(values).max()))
    row = -1.7 * high
    axes.bar(np.arange(N), values[max(t - 1, 0)], color=colours, width=0.8)
    axes.axhline(0, color="0.3", linewidth=0.8)
    place = np.linspace(0, N - 1, max(steps, 2))[:steps]
    click = np.asarray(episode.reward[:t]) > 0
    axes.scatter(place[t:], np.full(steps - t, row), s=4, color="0.6")
    axes.scatter(place[:t][~click], np.full(int((~click).sum()), row), s=40, facecolors="none", edgecolors="0.5")
    axes.scatter(place[:t][click], np.full(int(click.sum()), row), s=40, color=BLUE)
    for name, colour, x, y in (
        ("clicked", GREEN, 0.02, 0.98),
        ("shown, not clicked", ORANGE, 0.2, 0.98),
        ("steps with a click", BLUE, 0.02, 0.14),
    ):
        axes.text(x, y, name, color=colour, transform=axes.transAxes, va="top")
    axes.set(xlim=(-0.7, N - 0.3), ylim=(-1.9 * high, 1.3 * high), xlabel="item", ylabel="interest (hidden)")
    axes.set(xticks=np.arange(0, N, -(-N // 20)), yticks=[-np.floor(high), 0, np.floor(high)])
    axes.spines[["top", "right"]].set_visible(False)


def interests(key: jax.Array, params: Recommendation, horizon: int) -> jax.Array:
    """Draw the interests u_1, …, u_T of a user, [T, d], of the distribution that episodes have.

    Raises:
        InputError: If the horizon is below 1.
    """
    check_horizon(horizon)
    noise = jax.random.normal(key, (horizon, params.embedding.shape[1]), params.embedding.dtype)

    def one(interest: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        interest = drifted(interest, noise, params)
        return interest, interest

    return jnp.concatenate([noise[:1], jax.lax.scan(one, noise[0], noise[1:])[1]])


def clairvoyant_bound(params: Recommendation, interests: jax.Array, slate: int = 1) -> jax.Array:
    """The most clicks to expect, [], of any recommender that knows a user's interests, past and future.

    Nothing that is shown changes them, and of the past only the last slate matters, so that it is the best of all
    sequences of slates: max Σ_t Pr(click_t), by dynamic programming from the last step back. On the same interests no
    policy is worth more. With K > 1 all slates are considered, also those that are not the answer to any query.

    It takes T·C² numbers for C = N! / (K! (N − K)!) slates; `vmap` spreads it over users.

    Args:
        params: The catalogue and the behaviour.
        interests: u_1, …, u_T, [T, d].
        slate: K.

    Raises:
        InputError: If the interests are not [T, d] with T ≥ 1, the slates have not 1 to N − 1 items, or there are more
            than 5000 of them.

    Source: Bellman, *Dynamic programming*, 1957.
    """
    N, d = params.embedding.shape
    if interests.ndim != 2 or interests.shape[1] != d or not len(interests):
        raise InputError(f"expected interests of shape [T, {d}] with 1 or more steps, got {list(interests.shape)}")
    if not 1 <= slate < N:
        raise InputError(f"expected slates of 1 to {N - 1} items, got {slate}")
    C = math.comb(N, slate)
    if C > SLATES:
        raise InputError(f"expected at most {SLATES} slates to choose from, got {C} of {slate} of {N} items")
    slates = np.array(list(itertools.combinations(range(N), slate)))
    holds = jnp.asarray(np.any(slates[:, :, None] == np.arange(N), axis=1), params.embedding.dtype)  # [C, N]
    means = jnp.concatenate([jnp.mean(params.embedding[slates], axis=1), jnp.zeros((1, d), params.embedding.dtype)])
    exactly = jax.lax.Precision.HIGHEST
    similar = jnp.maximum(jnp.matmul(means, params.embedding.T, precision=exactly), 0)
    bored = jnp.exp(-params.boredom * similar)  # [C + 1, N], after each slate and, at the end, after none

    def back(value: jax.Array, interest: jax.Array) -> tuple[jax.Array, None]:
        utility = params.affinity * jnp.matmul(params.embedding, interest, precision=exactly)
        most = jnp.maximum(jnp.max(utility), params.outside)
        weight = jnp.matmul(bored * jnp.exp(utility - most)[None], holds.T, precision=exactly)  # [C + 1, C]
        click = weight / (weight + jnp.exp(params.outside - most))
        return jnp.max(click + value[None, :C], axis=1), None

    value, _ = jax.lax.scan(back, jnp.zeros(C + 1, params.embedding.dtype), interests, reverse=True)
    return value[C]
