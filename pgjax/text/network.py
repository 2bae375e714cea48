"""The network of a decoder-only transformer: blocks, the cache of keys and values, and the two ways through them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from pgjax.devices import ACTIVATIONS, memory_budget
from pgjax.placement import by_slot
from pgjax.segments import bytes_kept
from pgjax.text.layouts import TransformerConfig
from pgjax.text.tokens import PAD
from pgjax.trees import PyTree

MASK_VALUE = -1e9  # the score of a token that nobody may look at; finite, as a pad looks at nothing at all


class Cache(NamedTuple):
    """What a transformer remembers of E texts that it is reading."""

    keys: tuple[jax.Array, ...]  # of each layer, [E, heads of keys and values, context, features]
    values: tuple[jax.Array, ...]  # likewise
    pads: jax.Array  # [E] int32, pads to the left of each text
    used: jax.Array  # [] int32, columns that were read, the same of all texts


def empty_cache(config: TransformerConfig, columns: int, episodes: int) -> Cache:
    """The cache of texts of so many columns before anything is read."""
    room = (episodes, config.shared_heads, columns, config.features)
    nothing = tuple(jnp.zeros(room, config.compute) for _ in range(config.layers))
    return Cache(keys=nothing, values=nothing, pads=jnp.zeros(episodes, jnp.int32), used=jnp.int32(0))


def wide(dtype: Any) -> Any:
    """The type in which products of a type are added up: float32, if it is narrower."""
    return jnp.promote_types(dtype, jnp.float32)


def turned(x: jax.Array, position: jax.Array) -> jax.Array:
    """Vectors [..., heads, features] at positions [...], their i-th pair turned by position · 10000^(−2i/features).

    A pair is a feature of the first half and the one at its place in the second.

    Source: Su et al., *RoFormer: enhanced transformer with rotary position embedding*, 2021.
    """
    half = x.shape[-1] // 2
    frequency = np.expand_dims(10000.0 ** (-np.arange(half) / half), tuple(range(position.ndim + 1)))
    angle = position[..., None, None] * frequency
    first, second = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1).astype(x.dtype)


class Block(linen.Module):
    """Attention and a layer of its own for each token, both added to what comes in."""

    config: TransformerConfig

    def setup(self) -> None:
        """Name the layers."""
        config = self.config
        norm, biases, width = config.layout.norm, config.layout.biases, config.width

        def dense(size: int, name: str) -> linen.Module:
            return linen.Dense(size, use_bias=name in biases, dtype=config.compute)

        self.before_attention = norm()
        self.attention = dense((config.heads + 2 * config.shared_heads) * config.features, "attention")
        self.attended = dense(width, "attended")
        self.before_layer = norm()
        self.up = dense((1 + config.layout.gated) * config.hidden, "up")
        # [outputs, inputs]: its gradient is a fifth faster on a CPU.
        init = linen.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.down = self.param("down", init, (width, config.hidden))
        if "down" in biases:
            self.down_bias = self.param("down_bias", linen.initializers.zeros, (width,))

    def qkv(self, x: jax.Array, position: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values of tokens [..., width] at positions [...]; queries are scaled.

        Queries are [..., kv, heads/kv, features] for kv heads of keys and values, which are [..., kv, features].

        Source: Ainslie et al., *GQA: training generalized multi-query transformer models*, 2023.
        """
        heads, kv, features = self.config.heads, self.config.shared_heads, self.config.features
        parts = by_slot(self.attention(self.before_attention(x))).reshape(*x.shape[:-1], heads + 2 * kv, features)
        q, k, v = jnp.split(parts, [heads, heads + kv], axis=-2)
        if self.config.layout.rotary:
            q, k = turned(q, position), turned(k, position)
        return (q / np.sqrt(features)).reshape(*x.shape[:-1], kv, heads // kv, features), k, v

    def residual_mlp(self, x: jax.Array, seen: jax.Array) -> jax.Array:
        """Tokens [..., width] after a block, for what attention saw [..., width]."""
        layout = self.config.layout
        x = by_slot(x + self.attended(seen))
        hidden = by_slot(self.up(self.before_layer(x)))
        if layout.gated:
            gate, hidden = jnp.split(hidden, 2, axis=-1)
            hidden = layout.activation(gate) * hidden
        else:
            hidden = layout.activation(hidden)
        added = jnp.einsum("...i,oi->...o", hidden, self.down.astype(hidden.dtype))
        x = by_slot(x + added)
        return x + jnp.broadcast_to(self.down_bias, x.shape) if "down" in layout.biases else x

    def read(
        self, x: jax.Array, position: jax.Array, hidden_from: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """All tokens [N·L, width] of texts after the block, and their keys and values [N, L, kv, features].

        Args:
            x: The tokens. All layers but attention are faster over a single axis.
            position: [N·L].
            hidden_from: What is added to the scores of attention, [N, 1, L, L].
        """
        N, L = hidden_from.shape[0], hidden_from.shape[-1]
        q, k, v = (part.reshape(N, L, *part.shape[1:]) for part in self.qkv(x, position))
        q = q.reshape(N, L, self.config.heads, self.config.features)
        own_k, own_v = (jnp.repeat(part, self.config.heads // self.config.shared_heads, axis=2) for part in (k, v))
        score = jnp.einsum("nihd,njhd->nhij", q, own_k, preferred_element_type=wide(q.dtype))
        weight = jax.nn.softmax(score + hidden_from).astype(v.dtype)
        return self.residual_mlp(x, jnp.einsum("nhij,njhd->nihd", weight, own_v).reshape(x.shape)), (k, v)


class Transformer(linen.Module):
    """The body of the network: from tokens to what a text is at each of them, [width]."""

    config: TransformerConfig

    def setup(self) -> None:
        """Name the parts."""
        init = linen.initializers.normal(0.02)
        self.embedding = self.param("embedding", init, (self.config.rows, self.config.width))
        if not self.config.layout.rotary:
            self.positions = self.param("positions", init, (self.config.context, self.config.width))
        self.blocks = [Block(self.config) for _ in range(self.config.layers)]
        self.norm = self.config.layout.norm()

    def embed(self, tokens: jax.Array, position: jax.Array) -> jax.Array:
        """Tokens [...] at positions [...] as vectors [..., width]."""
        x = self.embedding[tokens]
        return x if self.config.layout.rotary else x + self.positions[jnp.clip(position, 0, self.config.context - 1)]

    def read(self, tokens: jax.Array) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
        """Return, of texts [N, L], each token [N, L, width], and keys and values [N, L, kv, features] by layer."""
        N, L = tokens.shape
        real = tokens != PAD
        visible = jnp.tril(jnp.ones((L, L), bool))[None] & real[:, None, :]
        hidden_from = jnp.where(visible, 0.0, MASK_VALUE)[:, None]
        position = jnp.arange(L)[None] - jnp.argmax(real, axis=1)[:, None]
        x = self.embed(tokens, position).reshape(N * L, self.config.width)
        x, remembered = self.through_blocks(x, position.reshape(N * L), hidden_from)
        return self.norm(x).reshape(N, L, -1), remembered

    def through_blocks(
        self, x: jax.Array, position: jax.Array, hidden_from: jax.Array
    ) -> tuple[jax.Array, list[tuple[jax.Array, jax.Array]]]:
        """What all blocks make of tokens, and the keys and values of each, see `Block.read`."""
        if self.is_initializing() or not self.computed_again(hidden_from.shape[-1]):
            remembered = []
            for block in self.blocks:
                x, new = block.read(x, position, hidden_from)
                remembered.append(new)
            return x, remembered
        block = Block(self.config, parent=None)

        @jax.checkpoint
        def one(x: jax.Array, params: PyTree) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            return block.apply({"params": params}, x, position, hidden_from, method="read")

        # A loop: of blocks one after the other, a compiler for CPUs may merge the second computation with the first.
        layers = [layer.variables["params"] for layer in self.blocks]
        x, (keys, values) = jax.lax.scan(one, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers))
        return x, list(zip(keys, values, strict=True))

    def computed_again(self, L: int) -> bool:
        """Whether blocks are computed again for their gradient: where it is so configured, or a text needs it."""
        if self.config.remat is not None:
            return self.config.remat
        block = Block(self.config, parent=None)

        def one_text(given: tuple[PyTree, jax.Array]) -> tuple[jax.Array, tuple[()]]:
            params, x = given
            place = jnp.arange(L), jnp.zeros((1, 1, L, L))
            return jnp.sum(block.apply({"params": params}, x, *place, method="read")[0]), ()

        x = jnp.zeros((L, self.config.width))
        kept = self.config.layers * bytes_kept(one_text, (self.blocks[0].variables["params"], x))
        return kept > ACTIVATIONS * memory_budget()

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Each token of texts [N, L] as [N, L, width]: the parallel pass."""
        return self.read(tokens)[0]

    def prefill(self, cache: Cache, window: jax.Array) -> Cache:
        """The cache after all but the last of the first columns [E, W] of texts, W above 1."""
        keys, values = zip(*self.read(window[:, :-1])[1], strict=True)

        def written(into: tuple[jax.Array, ...], new: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            parts = (part.transpose(0, 2, 1, 3) for part in new)
            return tuple(jax.lax.dynamic_update_slice_in_dim(a, b, 0, axis=2) for a, b in zip(into, parts, strict=True))

        pads = jnp.sum(window == PAD, axis=1, dtype=jnp.int32)
        used = jnp.int32(window.shape[1] - 1)
        return Cache(keys=written(cache.keys, keys), values=written(cache.values, values), pads=pads, used=used)

    def decode_step(self, cache: Cache, tokens: jax.Array) -> tuple[Cache, jax.Array]:
        """Read one more column [E] of texts; return it as [E, width]: the cached step."""
        row = cache.used
        position = row - cache.pads
        x = self.embed(tokens, position)
        keys, values = list(cache.keys), list(cache.values)
        for layer, block in enumerate(self.blocks):
            q, k, v = block.qkv(x, position)
            keys[layer] = jax.lax.dynamic_update_slice_in_dim(keys[layer], k[:, :, None], row, axis=2)
            values[layer] = jax.lax.dynamic_update_slice_in_dim(values[layer], v[:, :, None], row, axis=2)
            seen = attend(q, keys[layer], values[layer], cache.pads, row)
            x = block.residual_mlp(x, seen.reshape(x.shape))
        # Beyond what there is room for nothing can be said, and nothing is made up.
        x = jnp.where(row < keys[0].shape[2], self.norm(x), jnp.nan)
        return Cache(keys=tuple(keys), values=tuple(values), pads=cache.pads, used=row + 1), x

    def logits(self, x: jax.Array) -> jax.Array:
        """The logits [..., vocabulary] of the next token."""
        compute = x.dtype if self.config.compute is None else self.config.compute
        x, embedding = x.astype(compute), self.embedding.astype(compute)
        return jnp.matmul(x, embedding.T, preferred_element_type=wide(compute))[..., : self.config.vocabulary]


def attend(q: jax.Array, keys: jax.Array, values: jax.Array, pads: jax.Array, row: jax.Array) -> jax.Array:
    """What a column of tokens [E, kv, heads/kv, features] sees of the cache, rows pads … row of it, of that shape."""
    place = jnp.arange(keys.shape[2])[None]
    visible = (place >= pads[:, None]) & (place <= row)  # [E, context]
    score = jnp.einsum("ekgd,ekcd->ekgc", q, keys, preferred_element_type=wide(q.dtype))
    weight = jax.nn.softmax(jnp.where(visible[:, None, None], score, MASK_VALUE)).astype(values.dtype)
    return jnp.einsum("ekgc,ekcd->ekgd", weight, values)
