"""A round of rankings by simulated annotators: outputs are sampled, those that differ are chosen, and ranked."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.base import Environment
from pgjax.policies.base import Policy
from pgjax.rlhf.gold import Gold, output_of
from pgjax.rlhf.likelihood import bayes_accuracy
from pgjax.rlhf.preferences import Annotators, Rankings, first_different, rank, tastes, utilities
from pgjax.rlhf.settings import FeedbackSettings
from pgjax.text.environment import outputs
from pgjax.trees import PyTree


class Annotated(NamedTuple):
    """What a round of annotation brings."""

    rankings: Rankings  # [N, K], to be fitted; those that are not are masked
    test: Rankings  # [M, K], to measure a reward model
    bayes_accuracy: jax.Array  # [], on `test`
    identical_texts: jax.Array  # [], the fraction of rankings for which there were no K different outputs


def sampler(
    texts: Environment, policy: Policy, N: int, K: int, drawn: int
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """A function (key, policy params, environment params) -> outputs [N, K, W + T] and whether K differ, [N].

    As many texts are written at once as are ranked, and so many times that all are drawn.

    Args:
        texts: What is written.
        policy: Who writes.
        N: Prompts, each with outputs of its own.
        K: Outputs to each.
        drawn: Outputs among which K are sought that differ.

    Raises:
        InputError: See `pgjax.collect`.
    """
    parts = -(-drawn // K)
    write = outputs(texts, policy, -(-N // parts) * drawn, group_size=drawn)

    def sample(key: jax.Array, params: PyTree, env_params: PyTree) -> tuple[jax.Array, jax.Array]:
        def part(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            draw_key, place_key = jax.random.split(key)
            tokens = write(draw_key, params, env_params)
            tokens = tokens.reshape(-1, drawn, tokens.shape[-1])
            chosen, enough = first_different(tokens, K)
            # The first to be drawn is the likeliest text more often than the others: places are dealt out by chance.
            shown = jax.random.permutation(place_key, chosen, axis=1, independent=True)
            return jnp.take_along_axis(tokens, shown[:, :, None], axis=1), enough

        found = jax.lax.map(part, jax.random.split(key, parts))
        tokens, enough = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:N], found)
        return tokens, enough

    return sample


def annotation(texts: Environment, policy: Policy, gold: Gold, settings: FeedbackSettings) -> Callable[..., Annotated]:
    """A function (keys, policy params, environment params, annotators, comparisons) -> Annotated.

    Its keys are those of the outputs, of the rankings, of the test rankings, and of the tastes of the annotators, who
    are the same people where the last is the same. Of the N rankings the first `comparisons` count.

    Args:
        texts: What is written.
        policy: Who writes.
        gold: The true reward, which annotators know.
        settings: How many of what.

    Raises:
        InputError: See `pgjax.collect`.
    """
    N, M = settings.rankings, settings.test_rankings
    sample = sampler(texts, policy, N + M, settings.outputs, settings.drawn)
    W = texts.params.prompts.shape[1]

    def ranked(
        key: jax.Array, weights: jax.Array, tokens: jax.Array, numbers: Annotators
    ) -> tuple[Rankings, jax.Array]:
        """Rankings of outputs [n, K, L], and the utilities [n, K] that they were drawn with."""
        n, K, L = tokens.shape
        flat = tokens.reshape(n * K, L)
        output = output_of(flat, W)
        person_key, rank_key = jax.random.split(key)
        person = jax.random.randint(person_key, (n,), 0, settings.annotators, jnp.int32)
        taste = tastes(weights, tokens, output.reshape(n, K, L), person)
        length = jnp.sum(output, axis=1, dtype=taste.dtype).reshape(n, K)
        u = utilities(numbers, gold(flat, output).reshape(n, K), length, taste)
        return Rankings(tokens=tokens, order=rank(rank_key, u), mask=jnp.ones(n, bool), annotator=person), u

    def annotate(
        keys: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
        params: PyTree,
        env_params: PyTree,
        annotators: Annotators,
        comparisons: jax.Array,
    ) -> Annotated:
        sample_key, rank_key, test_key, taste_key = keys
        tokens, enough = sample(sample_key, params, env_params)
        weights = jax.random.normal(taste_key, (settings.annotators, settings.vocabulary))  # who the annotators are
        rankings, _ = ranked(rank_key, weights, tokens[:N], annotators)
        test, u = ranked(test_key, weights, tokens[N:], annotators)
        wanted = jnp.concatenate([jnp.arange(N) < comparisons, jnp.ones(M, bool)])
        real = wanted & enough
        test = test._replace(mask=real[N:])
        return Annotated(
            rankings=rankings._replace(mask=real[:N]),
            test=test,
            bayes_accuracy=bayes_accuracy(u, test.mask),
            identical_texts=jnp.sum(wanted & ~enough) / jnp.sum(wanted),
        )

    return annotate
