"""A decoder-only transformer: a language model that is a policy, and values of texts by the same architecture.

A text is a row of tokens (`pgjax.text.tokens`); pads may stand on either side of it and change nothing: nobody looks at
them, and positions are counted from the first token that is none. Learned positions, causal attention, normalisation
before each block (Radford et al., *Language models are unsupervised multitask learners*, 2019).

Two ways lead through it. The *parallel pass* sees whole texts, to differentiate them. The *cached step* sees one token
and the keys and values of those before, to sample. It looks at all that their cache has room for, so a context longer
than texts can be costs time: to cut out the part in use would copy it, which costs more. A text is
differentiated over all its rows, those after eos too, and a batch is written for as long as its longest text.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from pgjax.environments.base import Environment
from pgjax.environments.spaces import Discrete
from pgjax.errors import InputError
from pgjax.placement import by_slot
from pgjax.policies.base import Policy, ValueFunction, allowed
from pgjax.policies.distributions import Categorical
from pgjax.text.tokens import BOS, PAD
from pgjax.trees import PyTree

MASK_VALUE = -1e9  # the score of a token that nobody may look at; finite, as a pad looks at nothing at all


class TransformerConfig(NamedTuple):
    """How large a transformer is."""

    vocabulary: int  # tokens that there are
    context: int  # tokens of a text at most, those of the prompt and of the output
    width: int = 64
    layers: int = 2
    heads: int = 4


def check_config(config: TransformerConfig) -> None:
    """Raise unless there is a transformer of this configuration.

    Raises:
        InputError: If a size is below 1, or the heads do not divide the width.
    """
    for name, size in config._asdict().items():
        if size < 1:
            raise InputError(f"expected a transformer whose {name} is 1 or more, got {size}")
    if config.width % config.heads:
        raise InputError(f"expected heads that divide the width {config.width}, got {config.heads}")


class Cache(NamedTuple):
    """What a transformer remembers of E texts that it is reading."""

    keys: tuple[jax.Array, ...]  # of each layer, [E, heads, context, features]
    values: tuple[jax.Array, ...]  # likewise
    pads: jax.Array  # [E] int32, pads to the left of each text
    used: jax.Array  # [] int32, columns that were read, the same of all texts


class Block(linen.Module):
    """Attention and a layer of its own for each token, both added to what comes in."""

    width: int
    heads: int

    def setup(self) -> None:
        """Name the layers."""
        self.before_attention = linen.LayerNorm()
        self.attention = linen.Dense(3 * self.width)
        self.attended = linen.Dense(self.width)
        self.before_layer = linen.LayerNorm()
        self.up = linen.Dense(4 * self.width)
        # [outputs, inputs]: its gradient is a fifth faster on a CPU.
        init = linen.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.down = self.param("down", init, (self.width, 4 * self.width))

    def qkv(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values [..., heads, features] of tokens [..., width]; queries are scaled."""
        features = self.width // self.heads
        parts = by_slot(self.attention(self.before_attention(x))).reshape(*x.shape[:-1], 3, self.heads, features)
        q, k, v = jnp.moveaxis(parts, -3, 0)
        return q / np.sqrt(features), k, v

    def residual_mlp(self, x: jax.Array, seen: jax.Array) -> jax.Array:
        """Tokens [..., width] after a block, for what attention saw [..., width]."""
        x = by_slot(x + self.attended(seen))
        up = by_slot(self.up(self.before_layer(x)))
        return by_slot(x + jnp.einsum("...i,oi->...o", jax.nn.relu(up), self.down))


class Transformer(linen.Module):
    """The body of the network: from tokens to what a text is at each of them, [width]."""

    config: TransformerConfig

    def setup(self) -> None:
        """Name the parts."""
        init = linen.initializers.normal(0.02)
        self.embedding = self.param("embedding", init, (self.config.vocabulary, self.config.width))
        self.positions = self.param("positions", init, (self.config.context, self.config.width))
        self.blocks = [Block(self.config.width, self.config.heads) for _ in range(self.config.layers)]
        self.norm = linen.LayerNorm()

    def embed(self, tokens: jax.Array, position: jax.Array) -> jax.Array:
        """Tokens [...] at positions [...] as vectors [..., width]."""
        return self.embedding[tokens] + self.positions[jnp.clip(position, 0, self.config.context - 1)]

    def read(self, tokens: jax.Array) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        """Return, of texts [N, L], each token [N, L, width], and keys and values [N, L, heads, features] by layer."""
        N, L = tokens.shape
        real = tokens != PAD
        visible = jnp.tril(jnp.ones((L, L), bool))[None] & real[:, None, :]
        hidden_from = jnp.where(visible, 0.0, MASK_VALUE)[:, None]  # [N, 1, L, L]
        x = self.embed(tokens, jnp.arange(L)[None] - jnp.argmax(real, axis=1)[:, None])
        x = x.reshape(N * L, self.config.width)  # all layers but attention are faster over a single axis
        keys, values = [], []
        for block in self.blocks:
            q, k, v = (part.reshape(N, L, *part.shape[1:]) for part in block.qkv(x))
            weight = jax.nn.softmax(jnp.einsum("nihd,njhd->nhij", q, k) + hidden_from)
            x = block.residual_mlp(x, jnp.einsum("nhij,njhd->nihd", weight, v).reshape(x.shape))
            keys.append(k)
            values.append(v)
        return self.norm(x).reshape(N, L, -1), keys, values

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Each token of texts [N, L] as [N, L, width]: the parallel pass."""
        return self.read(tokens)[0]

    def prefill(self, cache: Cache, window: jax.Array) -> Cache:
        """The cache after all but the last of the first columns [E, W] of texts, W above 1."""
        _, keys, values = self.read(window[:, :-1])

        def written(into: tuple[jax.Array, ...], new: list[jax.Array]) -> tuple[jax.Array, ...]:
            parts = (part.transpose(0, 2, 1, 3) for part in new)
            return tuple(jax.lax.dynamic_update_slice_in_dim(a, b, 0, axis=2) for a, b in zip(into, parts, strict=True))

        pads = jnp.sum(window == PAD, axis=1, dtype=jnp.int32)
        used = jnp.int32(window.shape[1] - 1)
        return Cache(keys=written(cache.keys, keys), values=written(cache.values, values), pads=pads, used=used)

    def decode_step(self, cache: Cache, tokens: jax.Array) -> tuple[Cache, jax.Array]:
        """Read one more column [E] of texts; return it as [E, width]: the cached step."""
        row = cache.used
        x = self.embed(tokens, row - cache.pads)
        keys, values = list(cache.keys), list(cache.values)
        for layer, block in enumerate(self.blocks):
            q, k, v = block.qkv(x)  # [E, heads, features]
            keys[layer] = jax.lax.dynamic_update_slice_in_dim(keys[layer], k[:, :, None], row, axis=2)
            values[layer] = jax.lax.dynamic_update_slice_in_dim(values[layer], v[:, :, None], row, axis=2)
            seen = attend(q, keys[layer], values[layer], cache.pads, row)
            x = block.residual_mlp(x, seen.reshape(x.shape))
        # Beyond the context nothing can be said, and nothing is made up.
        x = jnp.where(row < self.config.context, self.norm(x), jnp.nan)
        return Cache(keys=tuple(keys), values=tuple(values), pads=cache.pads, used=row + 1), x

    def logits(self, x: jax.Array) -> jax.Array:
        """The logits [..., vocabulary] of the next token."""
        return x @ self.embedding.T


def attend(q: jax.Array, keys: jax.Array, values: jax.Array, pads: jax.Array, row: jax.Array) -> jax.Array:
    """What a column of tokens [E, heads, features] sees of the cache, rows pads … row of it, of the same shape."""
    place = jnp.arange(keys.shape[2])[None]
    visible = (place >= pads[:, None]) & (place <= row)  # [E, context]
    score = jnp.einsum("ehd,ehcd->ehc", q, keys)
    weight = jax.nn.softmax(jnp.where(visible[:, None], score, MASK_VALUE))
    return jnp.einsum("ehc,ehcd->ehd", weight, values)


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


def context_of(policy: Policy) -> int | None:
    """How many tokens a policy can read, or None if it is no transformer."""
    memory = jax.eval_shape(lambda: policy.memory(1))
    return memory.keys[0].shape[2] if isinstance(memory, Cache) else None


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
    # The last token of an output is never read.
    if shape[0] + environment.horizon - 1 > config.context:
        raise InputError(
            f"expected a context of {shape[0] + environment.horizon - 1} tokens or more for prompts of {shape[0]} and "
            f"outputs of {environment.horizon}, got {config.context}"
        )
    network = Transformer(config)

    def memory(episodes: int) -> Cache:
        room = (episodes, config.heads, config.context, config.width // config.heads)
        nothing = tuple(jnp.zeros(room) for _ in range(config.layers))
        return Cache(keys=nothing, values=nothing, pads=jnp.zeros(episodes, jnp.int32), used=jnp.int32(0))

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
