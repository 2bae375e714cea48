"""A decoder-only transformer: a language model that is a policy, and values of texts by the same architecture.

A text is a row of tokens (`pgjax.text.tokens`); pads may stand on either side of it and change nothing: nobody looks at
them, and positions are counted from the first token that is none. How it is built says `pgjax.text.Layout`.

Two ways lead through it. The *parallel pass* sees whole texts, to differentiate them. The *cached step* sees one token
and the keys and values of those before, to sample. It looks at all that their cache has room for, which is as long as
texts of the environment can be: to cut out the part in use would copy it, which costs more. A text is differentiated
over all its rows, those after eos too, and a batch is written for as long as its longest text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from pgjax.environments.base import Environment
from pgjax.environments.spaces import Discrete
from pgjax.errors import InputError
from pgjax.policies.base import Policy, ValueFunction, allowed
from pgjax.policies.distributions import Categorical
from pgjax.text.layouts import TransformerConfig, check_config
from pgjax.text.network import Cache, Transformer, empty_cache
from pgjax.text.tokens import BOS
from pgjax.trees import PyTree

COLUMNS = 64  # the room of a cache is a multiple of this, where the context is longer than texts can be


def over_rows(
    read: Callable[[jax.Array], jax.Array],
    say: Callable[[jax.Array], jax.Array],
    window: jax.Array,
    context: int,
) -> jax.Array:
    """What is said at the end of each window, [T, E, ...], by one pass over the texts.

    Args:
        read: From texts [E, L] to what they are at each token, [E, L, ...].
        say: And from that to what is said.
        window: [T, E, W]; the texts are the tokens of the first, and each later one's last.
        context: Tokens of a text at most; of rows beyond it nothing is computed, and NaN is said.
    """
    T, W = window.shape[0], window.shape[-1]
    tokens = jnp.concatenate([window[0], window[1:, :, -1].T], axis=1)[:, :context]
    said = say(jnp.moveaxis(read(tokens)[:, W - 1 :], 1, 0))
    missing = jnp.full((T - said.shape[0], *said.shape[1:]), jnp.nan, said.dtype)
    return jnp.concatenate([said, missing])


@dataclass(frozen=True)
class EmptyCache:
    """The cache that E texts begin with, as a function of E."""

    config: TransformerConfig
    columns: int

    def __call__(self, episodes: int) -> Cache:
        return empty_cache(self.config, self.columns, episodes)


def context_of(policy: Policy) -> int | None:
    """How many tokens a policy can read, or None if it is no transformer."""
    return policy.memory.config.context if isinstance(policy.memory, EmptyCache) else None


def transformer(environment: Environment, config: TransformerConfig) -> Policy:
    """A language model as a policy: its memory is the cache of keys and values, `unroll` the parallel pass.

    Its observation is the window of the last W tokens of a text, of which it reads all at the first step, and the last
    one alone at each later one. It takes one text a slot.

    Args:
        environment: Of texts, such as `pgjax.text.text_environment`.
        config: Its size.

    Raises:
        InputError: If the configuration makes no transformer, the vocabularies differ, or the context is shorter than
            prompts of W and outputs of T tokens together, less the last, which is never read: W + T − 1.

    Source: the lecture's f(X_{1:k}, θ); Vaswani et al., *Attention is all you need*, 2017.
    """
    check_config(config)
    actions, shape = environment.action_space, tuple(environment.observation_space.shape)
    if not isinstance(actions, Discrete) or actions.n != config.vocabulary or len(shape) != 1:
        raise InputError(
            f"expected texts of a vocabulary of {config.vocabulary} tokens, got {environment.name} with observations "
            f"of shape {shape} and actions of {actions}"
        )
    longest = shape[0] + environment.horizon - 1  # the last token of an output is never read
    if longest > config.context:
        raise InputError(
            f"expected a context of {longest} tokens or more for prompts of {shape[0]} and "
            f"outputs of {environment.horizon}, got {config.context}"
        )
    network = Transformer(config)
    memory = EmptyCache(config, columns=min(config.context, -(-longest // COLUMNS) * COLUMNS))

    def init(key: jax.Array) -> PyTree:
        return network.init(key, jnp.full((1, 1), BOS, jnp.int32))

    def say(params: PyTree, x: jax.Array) -> jax.Array:
        return allowed(actions, network.apply(params, x, method="logits"))

    def step(params: PyTree, cache: Cache, window: jax.Array) -> tuple[Cache, Categorical]:
        def prefill(cache: Cache) -> Cache:
            return network.apply(params, cache, window, method="prefill")

        if window.shape[1] > 1:
            # A loop of one round or none, for a loop writes in place what a branch would copy at every step.
            cache = jax.lax.while_loop(lambda cache: cache.used == 0, prefill, cache)
        cache, x = network.apply(params, cache, window[:, -1], method="decode_step")
        return cache, Categorical(say(params, x))

    def unroll(params: PyTree, trajectory: Any) -> Categorical:
        def read(tokens: jax.Array) -> jax.Array:
            return network.apply(params, tokens)

        def next_token(x: jax.Array) -> jax.Array:
            return say(params, x)

        return Categorical(over_rows(read, next_token, trajectory.observation, config.context))

    return Policy(init=init, memory=memory, step=step, unroll=unroll)


class TokenValues(linen.Module):
    """A number for each token of a text: what the text is worth as far as that."""

    config: TransformerConfig

    def setup(self) -> None:
        """Name the parts."""
        self.body = Transformer(self.config)
        self.head = linen.Dense(1)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """The value [N, L] at each token of texts [N, L]."""
        return self.head(self.body(tokens))[..., 0]


def token_values(
    config: TransformerConfig,
) -> tuple[Callable[[jax.Array], PyTree], Callable[[PyTree, jax.Array], jax.Array]]:
    """Init(key) -> params and values(params, texts [N, L]) -> [N, L], a number at each token of texts."""
    network = TokenValues(config)
    return lambda key: network.init(key, jnp.full((1, 1), BOS, jnp.int32)), network.apply


def transformer_value(config: TransformerConfig) -> ValueFunction:
    """V(X_t) of texts: a transformer of its own, with one number at each token.

    What it reads is what `transformer` reads; beyond the context it says NaN, so give it W + T − 1 tokens or more.

    Raises:
        InputError: If there is no transformer of this configuration.
    """
    check_config(config)
    init, values = token_values(config)

    def unroll(params: PyTree, trajectory: Any) -> jax.Array:
        def read(tokens: jax.Array) -> jax.Array:
            return values(params, tokens)

        return over_rows(read, lambda value: value, trajectory.observation, config.context)

    return ValueFunction(init, unroll, memoryless=False)
