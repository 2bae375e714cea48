"""How fast a language model writes, is scored and learns."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import pgjax
from common.measuring import Case, compiled, median, throughput, timed
from pgjax.policies.sampling import adjusted

LENGTHS = (32, 64, 128, 256)  # of texts that are written; it learns from the shortest


def language_models(seeds: Sequence[int], repetitions: int, gflops: float, block: int | None) -> dict[str, Any]:
    """The rate at which texts are written, scored and learned from, and at which they are written alone.

    An update writes 64 texts of 32 tokens, to prompts of 4, with a transformer of about 106 thousand parameters, scores
    them by a function, with and without the KL penalty, for which the supervised model reads them too, and makes a step
    of Adam. Beside the rate at which texts are written alone stands its ratio to that at which the same model reads
    them in one pass, in the same process, in which a version of jax that writes slowly is seen on any machine. A single
    run is also spread over all devices.
    """
    slots, width, V = 64, 4, 50

    def model(length: int) -> tuple[pgjax.Environment, pgjax.Policy]:
        def judge(texts: pgjax.text.Texts, params: Any) -> pgjax.text.Judgement:
            return pgjax.text.Judgement(jnp.sum((texts.tokens == V - 1) & texts.output, axis=1).astype(jnp.float32))

        texts = pgjax.text.text_environment(np.full((1, width), pgjax.text.BOS), V, length, judge)
        policy = pgjax.text.transformer(
            texts, pgjax.text.TransformerConfig(V, width + length, width=64, layers=2, heads=4)
        )
        # Nobody ends a text, so that all have the same length.
        return texts, adjusted(policy, lambda logits: logits.at[..., pgjax.text.EOS].set(-jnp.inf))

    texts, policy = model(LENGTHS[0])
    params = policy.init(jax.random.key(0))
    penalized = pgjax.kl_penalty(texts, policy, params, 0.05)
    # To write and to differentiate 2 and 6 operations a parameter and token; to read as the supervised model 2 more.
    products = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    rows = []
    for penalty, environment, flop in ((True, penalized, 10 * products), (False, texts, 8 * products)):
        algorithm = pgjax.reinforce(
            environment, policy, slots=slots, group_size=4, baseline=pgjax.leave_one_out(group_size=4)
        )
        cores = jax.local_device_count()
        case = Case("text", environment, policy, algorithm, flop, 1e-4, {})
        for n, spread in [*((n, 1) for n in seeds), *([(1, cores)] if 1 in seeds and cores > 1 else [])]:
            program = compiled(case, n, 4, block, spread)
            row = throughput(program, None, 4, repetitions, flop, gflops)
            rate = row.pop("real_steps_per_second")
            told = {"seeds": n, "devices_a_run": spread, "kl_penalty": penalty, "tokens_per_second": rate}
            rows.append({**told, **row})
    sampling = []
    for length in LENGTHS:
        texts, policy = model(length)
        write = jax.jit(pgjax.collect(texts._replace(score=None), policy, slots))
        read = jax.jit(lambda params, whole, policy=policy: policy.unroll(params, whole).log_prob(whole.action))
        first = policy.init(jax.random.key(0))
        writing, reading = [], []
        for _ in range(1 + repetitions):
            timing, whole = timed(write, jax.random.key(0), first, texts.params)
            writing.append(timing)
            reading.append(timed(read, first, whole)[0])
        written, again = (slots * length / median(timings[1:]).seconds for timings in (writing, reading))
        sampling.append({"length": length, "tokens_per_second": written, "written_per_read": written / again})
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"parameters": parameters, "rows": rows, "sampling": sampling}


def report_language_models(found: dict[str, Any]) -> None:
    """Print what `language_models` found, as tables."""
    rows = pd.DataFrame(found["rows"])[
        ["seeds", "devices_a_run", "kl_penalty", "tokens_per_second", "roofline_share", "cores_busy"]
    ]
    rows["tokens_per_second"] = (rows["tokens_per_second"] / 1e3).map("{:.1f} k".format)
    rows["roofline_share"] = rows["roofline_share"].map("{:.0%}".format)
    rows["cores_busy"] = rows["cores_busy"].map("{:.1f}".format)
    sampling = pd.DataFrame(found["sampling"])
    sampling["tokens_per_second"] = (sampling["tokens_per_second"] / 1e3).map("{:.1f} k".format)
    sampling["written_per_read"] = sampling["written_per_read"].map("{:.3f}".format)
    print(f"language model of {found['parameters']} parameters, 64 texts of 32 tokens an update")
    print(rows.to_string(index=False))
    print("writing alone, by the length of texts")
    print(sampling.to_string(index=False))
