"""Texts that a language model writes to prompts: at a temperature, from its likeliest tokens, without some of them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.batching import together
from pgjax.errors import InputError
from pgjax.policies import sampling
from pgjax.policies.base import Policy, check_fit
from pgjax.text.decoder import context_of
from pgjax.text.environment import text_environment
from pgjax.text.language_models import unjudged
from pgjax.text.tokens import BOS, EOS, PAD, Tokenizer, left_padded
from pgjax.trees import PyTree


def generate(
    policy: Policy,
    params: PyTree,
    prompts: Sequence[str],
    tokenizer: Tokenizer,
    key: jax.Array,
    *,
    length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    forbid: Sequence[int] = (),
) -> list[str]:
    """An output to each prompt, as texts; the same key writes the same.

    A prompt that is there twice has two outputs of its own. What is compiled is kept for calls that differ in
    parameters, key and prompts of the same number and length alone.

    Args:
        policy: The language model.
        params: θ.
        prompts: Texts to go on from.
        tokenizer: Of the model.
        key: What is drawn with.
        length: T, tokens of an output at most, eos included.
        temperature: Tokens are drawn with probabilities ∝ f^{1/temperature}.
        top_k: Of these, only among so many likeliest; among all, if not given. Of 1 it is the likeliest text,
            token by token.
        top_p: And of these, among the fewest likeliest that have so much probability together.
        forbid: Tokens that are never written, such as `EOS`.

    Raises:
        InputError: If there is no prompt, one is no text of the tokenizer or too long for the model, the tokenizer is
            of another one, or an option is out of range.
    """
    if not len(prompts):
        raise InputError("expected one or more prompts, got none")
    rows = [np.append(BOS, tokenizer.encode(prompt)).astype(np.int32) for prompt in prompts]
    width = max(map(len, rows))
    write = _compiled(
        policy,
        tokenizer.vocabulary,
        width,
        length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        forbid=tuple(map(int, forbid)),
    )
    written = np.asarray(write(key, params, left_padded(rows, width)))
    return [tokenizer.decode(row) for row in written[:, width:]]


def writer(
    policy: Policy,
    vocabulary: int,
    width: int,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    forbid: Sequence[int] = (),
) -> Callable[[jax.Array, PyTree, jax.Array], jax.Array]:
    """A function (key, params, prompts [N, W]) -> texts [N, W + T]: each prompt, and what a model wrote to it.

    Args:
        policy: The language model.
        vocabulary: V.
        width: W, columns of the prompts, with pads to their left.
        length: T.
        temperature: See `generate`, and so the others.
        top_k: K.
        top_p: P.
        forbid: Tokens.

    Raises:
        InputError: See `generate`.
    """
    context = context_of(policy)
    if context is not None and width + length - 1 > context:
        raise InputError(
            f"expected prompts and outputs of at most {context + 1} tokens together, as the context allows, "
            f"got prompts of {width} and outputs of {length}"
        )
    start = np.full((1, width), BOS, np.int32)
    environment = text_environment(start, vocabulary, length, unjudged, forbid=forbid, name="texts of the tokenizer")
    check_fit(environment, policy)
    may = jnp.asarray([token not in forbid for token in range(vocabulary)])
    chosen = sampling.adjusted(policy, lambda logits: jnp.where(may, logits, -jnp.inf)) if len(forbid) else policy
    chosen = sampling.at_temperature(chosen, temperature) if temperature != 1 else chosen
    chosen = chosen if top_k is None else sampling.top_k(chosen, top_k)
    chosen = chosen if top_p == 1 else sampling.top_p(chosen, top_p)

    def write(key: jax.Array, params: PyTree, prompts: jax.Array) -> jax.Array:
        N = len(prompts)

        def goes_on(carry: tuple[Any, ...]) -> jax.Array:
            t, _, _, over = carry
            return together((t < length) & ~jnp.all(over))

        def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            t, memory, texts, over = carry
            window = jax.lax.dynamic_slice_in_dim(texts, t, width, axis=1)
            memory, f = chosen.step(params, memory, window)
            token = jnp.where(over, PAD, f.sample(jax.random.fold_in(key, t))).astype(texts.dtype)
            texts = jax.lax.dynamic_update_slice_in_dim(texts, token[:, None], width + t, axis=1)
            return t + 1, memory, texts, over | (token == EOS)

        room = jnp.full((N, length), PAD, prompts.dtype)
        start = jnp.int32(0), chosen.memory(N), jnp.concatenate([prompts, room], axis=1), jnp.zeros(N, bool)
        return jax.lax.while_loop(goes_on, one, start)[2]

    return write


@functools.lru_cache(maxsize=8)
def _compiled(policy: Policy, vocabulary: int, width: int, length: int, **options: object) -> Callable[..., jax.Array]:
    return jax.jit(writer(policy, vocabulary, width, length, **options))  # type: ignore[arg-type]
