"""How a transformer is built: its sizes, and the layouts that published ones have.

Every layout normalises before each half of a block and once at the end, attends causally, and has one matrix for the
embedding of tokens and their logits.

Products can be computed in bfloat16; parameters, normalisation, attention's weights before they are used, and logits
stay in float32. Log-probabilities then differ between the sampler and the parallel pass, by 0.006 to 0.01 nats a token
on average and 0.06 at most with 8 layers of width 320 and entropies of 3 nats, and from those in float32 about twice as
much: enough that a ratio of the two, or a KL of a few hundredths of a nat a text, says little.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from pgjax.checks import whole_number
from pgjax.errors import InputError


class Layout(NamedTuple):
    """Of which parts a transformer is made."""

    norm: Callable[[], linen.Module]  # before each half of a block, and at the end
    activation: Callable[[jax.Array], jax.Array]  # of the hidden numbers of a token
    biases: frozenset[str]  # which have one: attention (queries, keys, values), attended, up, down
    gated: bool = False  # whether the activation is a gate to as many more hidden numbers
    rotary: bool = False  # whether queries and keys are turned by their position; else positions are learned vectors


# Small and fast. Normalisation comes before each block, as in GPT-2.
PLAIN = Layout(linen.LayerNorm, jax.nn.relu, frozenset({"attention", "attended", "up"}))

# Radford et al., *Language models are unsupervised multitask learners*, 2019; Hendrycks & Gimpel, *Gaussian error
# linear units*, 2016, in the form with tanh.
GPT2 = Layout(
    norm=partial(linen.LayerNorm, epsilon=1e-5),
    activation=partial(jax.nn.gelu, approximate=True),
    biases=frozenset({"attention", "attended", "up", "down"}),
)

# Zhang & Sennrich, *Root mean square layer normalization*, 2019; Su et al., *RoFormer*, 2021, for positions; Shazeer,
# *GLU variants improve transformer*, 2020; all of them in Touvron et al., *LLaMA*, 2023, with a matrix of its own for
# logits.
LLAMA = Layout(
    norm=partial(linen.RMSNorm, epsilon=1e-5), activation=jax.nn.silu, biases=frozenset(), gated=True, rotary=True
)


class TransformerConfig(NamedTuple):
    """How large a transformer is, how it is built, and how it is computed."""

    vocabulary: int  # tokens that there are
    context: int  # tokens of a text at most, those of the prompt and of the output
    width: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int | None = None  # heads of keys and values, each shared by as many queries; as many as heads if None
    layout: Layout = PLAIN
    multiple: int = 1  # the embedding has rows to a multiple of this, which accelerators like; they are no tokens
    compute: Any = None  # type of products and of the cache, such as jnp.bfloat16; that of the parameters if None
    remat: bool | None = None  # whether a block is computed again for its gradient; if None, where a text needs it

    @property
    def features(self) -> int:
        """Numbers in a head."""
        return self.width // self.heads

    @property
    def shared_heads(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def hidden(self) -> int:
        """Hidden numbers of a token in a block; gated ones are fewer, so that there are as many parameters."""
        return -(-8 * self.width // 24) * 8 if self.layout.gated else 4 * self.width

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return -(-self.vocabulary // self.multiple) * self.multiple


def check_config(config: TransformerConfig) -> None:
    """Raise unless there is a transformer of this configuration.

    Raises:
        InputError: If a size is below 1, the heads do not divide the width, those of keys and values do not divide the
            heads, positions turn pairs of an odd number of features, or the type of products is no float.
    """
    sizes = {name: getattr(config, name) for name in ("vocabulary", "context", "width", "layers", "heads", "multiple")}
    for name, size in (sizes | {"kv_heads": config.shared_heads}).items():
        if whole_number(name, size, -(2**31)) < 1:
            raise InputError(f"expected a transformer whose {name} is 1 or more, got {size}")
    if config.width % config.heads:
        raise InputError(f"expected heads that divide the width {config.width}, got {config.heads}")
    if config.heads % config.shared_heads:
        raise InputError(f"expected heads of keys and values that divide {config.heads}, got {config.kv_heads}")
    if config.layout.rotary and config.features % 2:
        raise InputError(f"expected an even number of features in a head to turn in pairs, got {config.features}")
    if config.compute is not None and not jnp.issubdtype(config.compute, jnp.floating):
        raise InputError(f"expected a type of floats for products, got {config.compute}")
