"""Does a language model of real size fit? Updates of REINFORCE with a KL penalty, with their time and memory.

    uv run experiments/large_model.py --size 10m --texts 64 --tokens 128
    uv run experiments/large_model.py --size 124m --texts 8 --tokens 16 --bfloat16 --model results/random.safetensors

The model is of GPT-2's layout: 10m has 8 layers of width 320, 124m is GPT-2 itself. With --model it begins with the
weights in a file; if there is none, random ones are written there first, and read again. An update writes texts of
exactly --tokens tokens, scores them by how many of these are even, and makes a step of Adam on all parameters, or on
adapters of low rank. The compiler's account of memory is printed before anything runs.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import pgjax
from common import launch
from pgjax import text
from pgjax.devices import use_every_core
from pgjax.placement import by_model, run_mesh, spread
from pgjax.policies import frozen, low_rank
from pgjax.sweeps.closures import lowered

SIZES = {
    "tiny": text.TransformerConfig(100, context=32, width=16, layers=2, heads=2, layout=text.GPT2),
    "10m": text.TransformerConfig(2000, context=256, width=320, layers=8, heads=5, layout=text.GPT2),
    "124m": text.TransformerConfig(50257, context=1024, width=768, layers=12, heads=12, layout=text.GPT2),
}


@dataclass(frozen=True)
class Options:
    """The model, and what an update is."""

    size: Literal["tiny", "10m", "124m"] = "10m"
    model: Path | None = None
    """File of weights (.safetensors) of that size; by default none."""
    texts: int = 64
    """Texts of an update."""
    prompt: int = 8
    """Tokens of a prompt."""
    tokens: int = 128
    """Tokens of an output."""
    updates: int = 2
    bfloat16: bool = False
    """Whether products and the cache are in bfloat16; parameters are in float32."""
    remat: bool | None = True
    """Whether blocks are computed again for their gradient; None for where a text does not fit into memory."""
    rank: int = 0
    """Rank of adapters, which alone are trained; 0 to train all parameters."""
    run_devices: int = 1
    """Devices over which the texts are split; each core of a CPU is one."""
    model_devices: int = 1
    """Devices of these over which the parameters are split, too."""


def environment(options: Options, config: text.TransformerConfig) -> pgjax.Environment:
    """Texts to random prompts, better the more of their tokens are even; nobody ends one."""

    def judge(texts: text.Texts, params: Any) -> text.Judgement:
        return text.Judgement(jnp.mean(texts.tokens[:, options.prompt :] % 2 == 0, axis=1, dtype=jnp.float32))

    if min(options.texts, options.prompt, options.updates) < 1 or options.rank < 0:
        raise pgjax.InputError("expected 1 or more texts, tokens and updates, and a rank of 0 or more, got fewer")
    prompts = np.random.default_rng(0).integers(3, config.vocabulary, (16, options.prompt))
    return text.text_environment(prompts, config.vocabulary, options.tokens, judge, forbid=(text.EOS,))


def first_weights(options: Options, config: text.TransformerConfig, policy: pgjax.Policy) -> Any:
    """The weights that a model begins with."""
    if options.model is None:
        return jax.jit(policy.init)(jax.random.key(0))
    if not options.model.exists():
        text.save_gpt2(options.model, config, jax.jit(policy.init)(jax.random.key(0)))
    found, weights = text.load_gpt2(options.model, heads=config.heads)
    if found != config:
        raise pgjax.InputError(f"expected a model of the size {config[:5]} in {options.model}, got one of {found[:5]}")
    return weights


def learner(options: Options, config: text.TransformerConfig, weights: Any) -> pgjax.Algorithm:
    """The algorithm that goes on from some weights, which are the reference too."""
    policy = text.transformer(texts := environment(options, config), config)
    own = low_rank(policy, weights, options.rank) if options.rank else policy._replace(init=lambda key: weights)
    return pgjax.reinforce(pgjax.kl_penalty(texts, frozen(policy, weights), (), 0.05), own, slots=options.texts)


def split(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its results split over the devices that parameters are split over."""
    return lambda *arguments: by_model(function(*arguments))


def main(options: Options) -> None:
    """Compile, say what that takes, and run."""
    size, clock = SIZES[options.size], time.perf_counter()
    config = size._replace(remat=options.remat, compute=jnp.bfloat16 if options.bfloat16 else None)
    weights = first_weights(options, size, text.transformer(environment(options, size), size))
    algorithm = learner(options, config, weights)
    count = sum(leaf.size for leaf in jax.tree.leaves(weights))
    mesh = run_mesh(options.run_devices, options.model_devices)
    everywhere = NamedSharding(mesh, PartitionSpec())  # where the weights are, which are no constants
    first = jax.random.key(0), algorithm.hyperparameters(learning_rate=1e-5)
    state = lowered(spread(split(algorithm.init), mesh), first, everywhere).compile()(*first)
    update = lowered(spread(split(algorithm.update), mesh), (state,), everywhere, donated=(0,)).compile()
    own = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(f"{count:,} parameters, {own:,} are trained; begun and compiled in {time.perf_counter() - clock:.0f} s")
    account: Any = update.memory_analysis()
    held, beside = account.argument_size_in_bytes / 2**30, account.temp_size_in_bytes / 2**30
    print(f"the compiler's account: {held:.2f} GiB of state, {beside:.2f} GiB beside it", flush=True)
    for number in range(options.updates):
        clock = time.perf_counter()
        state, metrics = jax.block_until_ready(update(state))
        seconds = time.perf_counter() - clock
        print(
            f"update {number + 1}: {seconds:.1f} s, {options.texts * options.tokens / seconds:.0f} tokens/s", end=", "
        )
        print(f"return {metrics.episode_return:.4f}, KL {metrics.notes['kl']:.4f} nats a text", flush=True)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of memory in this process")


if __name__ == "__main__":
    use_every_core()
    launch.run(main, Options, __doc__)
