"""Weights in files: those of GPT-2's family in their published naming, and any parameters, in the format safetensors.

The published arrays are those of the layout `GPT2`: a kernel is [inputs, outputs], that of attention has queries, keys
and values beside each other, each head by head; only that of `down` is stored the other way round here. The file has a
row for each token of its tokenizer, by the ids that this gives them. Here tokens 0, 1 and 2 are pad, bos and eos: a
table `ids`, the file's id of each of our tokens, leads from one to the other.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError, first_line, needed
from pgjax.paths import full_path, replacing
from pgjax.text.layouts import GPT2, TransformerConfig, check_config
from pgjax.text.network import Transformer
from pgjax.text.tokens import BOS, EOS, SPECIAL
from pgjax.trees import PyTree, names, plain, plain_like, unplain

# What the names of parameters are in the files, those of a block after "h.N.".
PUBLISHED = {
    "embedding": "wte.weight",
    "positions": "wpe.weight",
    "norm": "ln_f",
    "before_attention": "ln_1",
    "attention": "attn.c_attn",
    "attended": "attn.c_proj",
    "before_layer": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj.weight",
    "down_bias": "mlp.c_proj.bias",
    "scale": "weight",
    "kernel": "weight",
}
HEAD = "lm_head.weight"
BUFFERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias")  # masks, which are no parameters
FEATURES = 64  # numbers in a head, in every size that was published


def published(name: str) -> str:
    """The name in a file of what `pgjax.trees.names` calls so.

    Example:
        >>> published("params.blocks_3.attention.kernel"), published("params.norm.bias")
        ('h.3.attn.c_attn.weight', 'ln_f.bias')
    """
    parts = [PUBLISHED.get(part, re.sub(r"^blocks_", "h.", part)) for part in name.split(".")[1:]]
    return ".".join(parts)


def load_gpt2(
    path: str | Path, *, heads: int | None = None, ids: Sequence[int] | np.ndarray | None = None
) -> tuple[TransformerConfig, PyTree]:
    """The configuration and the parameters, in float32, of a model of GPT-2's family.

    The sizes are read from the shapes. Names may begin with "transformer."; masks are passed over, and so is a matrix
    for logits that is the embedding.

    Args:
        path: A .safetensors file.
        heads: Of each layer; width / 64 if not given, as in every size that was published.
        ids: [V], the file's id of each of our tokens, whose rows the embedding then has; those of pad, bos and eos may
            be the same. If not given, the rows of the file are our tokens.

    Raises:
        InputError: If safetensors is not installed, the file cannot be read, a name is missing, unknown or has another
            shape, or the ids are none of its rows.

    Source: Radford et al., *Language models are unsupervised multitask learners*, 2019, for the model.
    """
    tensors = {name.removeprefix("transformer."): array for name, array in read_tensors(path).items()}
    tensors = {name: array for name, array in tensors.items() if not BUFFERS.fullmatch(name)}
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors or tensors[name].ndim != 2:
            raise InputError(f"expected weights of GPT-2's family in {path}, got no matrix {name}")
    head = tensors.pop(HEAD, None)
    if head is not None and not np.array_equal(head, tensors["wte.weight"]):
        raise InputError(f"expected {HEAD} in {path} to be the embedding wte.weight, got another matrix")
    (rows, width), context = tensors["wte.weight"].shape, len(tensors["wpe.weight"])
    layers = len({match[1] for name in tensors if (match := re.match(r"h\.(\d+)\.", name))})
    if heads is None and width % FEATURES:
        raise InputError(f"expected the number of heads for a width of {width} in {path}, got none")
    config = TransformerConfig(
        vocabulary=rows, context=context, width=width, layers=layers, heads=heads or width // FEATURES, layout=GPT2
    )
    check_config(config)
    like = parameters_of(config)
    found = {published(name): leaf for name, leaf in zip(names(like), jax.tree.leaves(like), strict=True)}
    shapes = {name: leaf.shape[::-1] if "mlp.c_proj" in name else leaf.shape for name, leaf in found.items()}
    check_tensors(path, tensors, shapes)
    for name, array in tensors.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise InputError(f"expected floats as {name} in {path}, got {array.dtype}")
    if ids is not None:
        chosen = checked_ids(ids, rows, str(path))
        config, tensors["wte.weight"] = config._replace(vocabulary=len(chosen)), tensors["wte.weight"][chosen]
    leaves = [jnp.asarray(tensors[name].T if "mlp.c_proj" in name else tensors[name], jnp.float32) for name in found]
    return config, jax.tree.unflatten(jax.tree.structure(like), leaves)


def save_gpt2(
    path: str | Path, config: TransformerConfig, params: PyTree, *, ids: Sequence[int] | np.ndarray | None = None
) -> None:
    """Write the parameters of a model of GPT-2's family as `load_gpt2` reads them; a file that is there is replaced.

    Args:
        path: Where.
        config: Of the layout `GPT2`.
        params: Of `transformer`.
        ids: As in `load_gpt2`; where pad, bos and eos share a row, it is that of eos. Rows of no token are zero.

    Raises:
        InputError: If safetensors is not installed, the file cannot be written, or the parameters are not of this
            configuration.
    """
    like = parameters_of(config)
    if config.layout is not GPT2 or jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, like):
        raise InputError("expected a configuration of GPT-2's layout and its parameters, got others")
    tensors = {published(name): plain(leaf) for name, leaf in zip(names(params), jax.tree.leaves(params), strict=True)}
    embedding = tensors["wte.weight"][: config.vocabulary]
    if ids is not None:
        chosen = checked_ids(ids, 2**31, "a file")
        if len(chosen) != config.vocabulary:
            raise InputError(f"expected an id for each of {config.vocabulary} tokens, got {len(chosen)}")
        rows = np.zeros((chosen.max() + 1, config.width), embedding.dtype)
        rows[chosen] = embedding
        rows[chosen[EOS]] = embedding[EOS]
        embedding = rows
    tensors["wte.weight"] = embedding
    write_tensors(path, {name: array.T if "mlp.c_proj" in name else array for name, array in tensors.items()})


def save_weights(path: str | Path, params: PyTree) -> None:
    """Write any parameters, each array under its name (`pgjax.trees.names`); a file that is there is replaced.

    Raises:
        InputError: If safetensors is not installed, or the file cannot be written.
    """
    write_tensors(path, dict(zip(names(params), map(plain, jax.tree.leaves(params)), strict=True)))


def load_weights(path: str | Path, like: PyTree) -> PyTree:
    """The parameters that `save_weights` wrote, bit for bit.

    Args:
        path: Where.
        like: Parameters of the same shapes and types, or what stands for them.

    Raises:
        InputError: If safetensors is not installed, the file cannot be read, or has other names, shapes or types.
    """
    tensors, leaves, known = read_tensors(path), jax.tree.leaves(like), names(like)
    kinds = {name: plain_like(leaf) for name, leaf in zip(known, leaves, strict=True)}
    check_tensors(path, tensors, {name: shape for name, (shape, _) in kinds.items()})
    for name, (_, dtype) in kinds.items():
        if tensors[name].dtype != dtype:
            raise InputError(f"expected {dtype} as {name} in {path}, got {tensors[name].dtype}")
    loaded = [jnp.asarray(unplain(tensors[name], leaf)) for name, leaf in zip(known, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), loaded)


def parameters_of(config: TransformerConfig) -> PyTree:
    """What stands for the parameters of a transformer."""
    return jax.eval_shape(Transformer(config).init, jax.random.key(0), jnp.full((1, 1), BOS, jnp.int32))


def checked_ids(ids: Sequence[int] | np.ndarray, rows: int, where: str) -> np.ndarray:
    """A table of ids [V] as an array.

    Raises:
        InputError: If it is none of a vocabulary, a token beside pad, bos and eos shares its row, or there is none.
    """
    chosen = np.asarray(ids)
    if chosen.ndim != 1 or len(chosen) <= SPECIAL or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(f"expected an id for each of {SPECIAL + 1} or more tokens, got an array of {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= rows:
        raise InputError(f"expected ids of the {rows} rows in {where}, got {chosen.max()}: a larger vocabulary")
    if len(np.unique(chosen[SPECIAL:])) < len(chosen) - SPECIAL or np.isin(chosen[:SPECIAL], chosen[SPECIAL:]).any():
        raise InputError("expected ids of which pad, bos and eos alone may be the same, got others that are")
    return chosen


def check_tensors(path: str | Path, tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless a file has arrays of these names and shapes, and no others.

    Raises:
        InputError: If not; it names the file and the array.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise InputError(f"expected an array {name} in {path}, got none")
        if tensors[name].shape != shape:
            raise InputError(f"expected {name} of shape {shape} in {path}, got {tensors[name].shape}")
    for name in sorted(tensors.keys() - shapes.keys())[:1]:
        raise InputError(f"expected {len(shapes)} arrays in {path}, got one more: {name}")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name.

    Raises:
        InputError: If it cannot be read.
    """
    safetensors = needed("safetensors.numpy", "text")
    try:
        return safetensors.numpy.load_file(full_path(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"expected a file of weights (.safetensors) at {path}, got: {first_line(error)}") from error


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, all or nothing.

    Raises:
        InputError: If the file cannot be written.
    """
    # The library writes an array as it lies in memory, whichever way round that is.
    in_order = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    content = needed("safetensors.numpy", "text").numpy.save(in_order, metadata={"format": "pt"})
    path = full_path(path)
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"expected a file that can be written, got {path}: {error.strerror or error}") from error
