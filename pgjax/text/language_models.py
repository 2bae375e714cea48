"""Supervised pretraining: minimise the negative log-likelihood of the next token.

That is behaviour cloning of whoever wrote the texts: X_t is the text so far and A_t the token that follows. So it is
done by `pgjax.behaviour_cloning`, unchanged.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.algorithms.base import Algorithm
from pgjax.checks import check_truth
from pgjax.errors import InputError
from pgjax.imitation.cloning import behaviour_cloning
from pgjax.imitation.demonstrations import Demonstrations
from pgjax.policies.base import Policy
from pgjax.text.corpora import Corpus
from pgjax.text.decoder import TransformerConfig, context_of, transformer
from pgjax.text.environment import Judgement, Texts, text_environment
from pgjax.text.tokens import BOS, EOS, PAD


def next_tokens(texts: Any, learned: Any = None) -> Demonstrations:
    """What was written, step by step, [L − 1, N]: each token, and as the action there the one that follows.

    What is learned from is every token after the first, eos included and nothing after it. Observations are windows of
    one token, [L − 1, N, 1].

    Args:
        texts: [N, L] tokens: bos, a text, perhaps eos, pads to the right.
        learned: Those of them that are learned from, such as answers, [N, L] bool; all of them, if not given.

    Raises:
        InputError: If there is no text, one does not begin with bos and a token after it, or `learned` has another
            shape.

    Example:
        >>> examples = next_tokens([[BOS, 3, 4, EOS, PAD]])
        >>> examples.action[:, 0].tolist(), examples.mask[:, 0].tolist()
        ([3, 4, 2, 2], [True, True, True, False])
    """
    array = np.asarray(texts)
    if array.ndim != 2 or not array.size:
        raise InputError(f"expected one or more texts [N, L], got an array of shape {array.shape}")
    if array.shape[1] < 2 or (array[:, 0] != BOS).any() or (array[:, 1] == PAD).any():
        raise InputError("expected texts that begin with bos and have a token after it, got another")
    following = array[:, 1:].T
    ended = np.cumsum(array[:, :-1] == EOS, axis=1).T > 0
    mask = (following != PAD) & ~ended
    if learned is not None:
        check_truth("what is learned from", learned, array.shape)
        mask &= np.asarray(learned, bool)[:, 1:].T
    return Demonstrations(
        jnp.asarray(array[:, :-1].T[..., None], jnp.int32),
        jnp.asarray(np.where(mask, following, EOS), jnp.int32),
        jnp.asarray(mask),
    )


def pretraining(
    policy: Policy,
    texts: Any,
    *,
    learned: Any = None,
    batch: int = 64,
    steps: int = 50,
    held_out: float = 0.05,
) -> Algorithm:
    """Supervised pretraining of a language model as an algorithm: Adam, in minibatches of whole texts.

    Its metrics `loss` and `held_out_loss` are in nats a token; exp of it is the perplexity. Where answers alone are
    learned from, this is supervised fine-tuning; `pgjax.pretrained` makes it begin with a model that is there.

    Args:
        policy: f, such as `pgjax.text.transformer`; its context is at least L − 1 tokens.
        texts: [N, L], see `next_tokens`. All runs share them.
        learned: Which of their tokens are learned from, [N, L] bool, such as `Corpus.learned`; all, if not given.
        batch: Texts of a minibatch.
        steps: Gradient steps of an update.
        held_out: The fraction of the texts, the last ones, that decides which θ is kept.

    Raises:
        InputError: If the context is shorter; see `next_tokens` and `pgjax.behaviour_cloning`.

    Source: the lecture; clipping to a norm of 1 as in Brown et al., *Language models are few-shot learners*, 2020.
    """
    examples, context = next_tokens(texts, learned), context_of(policy)
    if context is not None and len(examples.mask) > context:
        raise InputError(
            f"expected texts of at most {context + 1} tokens, as the context allows, got {len(examples.mask) + 1}"
        )

    def clipped(learning_rate: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))

    return behaviour_cloning(policy, examples, batch=batch, steps=steps, held_out=held_out, optimizer=clipped)


def mean_log_prob(policy: Policy, texts: Any, learned: Any = None) -> Any:
    """A function of params: the mean of ln f over the tokens of texts [N, L] that are learned from, [], in nats.

    Arguments are those of `next_tokens`.

    Raises:
        InputError: See `next_tokens`.
    """
    examples = next_tokens(texts, learned)

    def mean(params: Any) -> jax.Array:
        log_prob = policy.unroll(params, examples).log_prob(examples.action)
        return jnp.sum(jnp.where(examples.mask, log_prob, 0)) / jnp.sum(examples.mask)

    return mean


def language_model(
    corpus: Corpus, length: int, width: int, layers: int, heads: int
) -> tuple[Policy, TransformerConfig]:
    """A transformer for a corpus, and its configuration; the context holds a text, or a prompt and an output.

    Args:
        corpus: Whose vocabulary and prompts.
        length: T, tokens of an output.
        width: Of the transformer.
        layers: Of it.
        heads: In each layer.

    Raises:
        InputError: See `transformer` and `text`.
    """
    V, W = corpus.tokenizer.vocabulary, corpus.prompts.shape[1]
    config = TransformerConfig(
        vocabulary=V, context=max(W + length, corpus.texts.shape[1]), width=width, layers=layers, heads=heads
    )
    return transformer(text_environment(corpus.prompts, V, length, unjudged), config), config


def unjudged(texts: Texts, params: Any) -> Judgement:
    """The judge to whom all texts are worth the same."""
    return Judgement(jnp.zeros(len(texts.tokens)))
