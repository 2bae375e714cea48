"""Runs on one device, and spread over four, `python -m tests.spread`; what became of both, as JSON."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pgjax
from pgjax.algorithms.base import train
from pgjax.algorithms.family import ppo
from pgjax.placement import run_mesh
from pgjax.sweeps.program import bytes_used
from pgjax.text import Judgement, TransformerConfig, text_environment, transformer
from tests.cases import random_mdp
from tests.sweeps.spread import ENVIRONMENT, POLICY, spread

MESHES = {"one": None, "slots": (4, 1), "split": (4, 2)}  # devices of a run, and of its parameters
COMPARED = {"recurrent": ["one", "slots"], "transformer": [*MESHES]}  # others: one, split


def even_tokens(texts, params):
    return Judgement(jnp.sum(jnp.where(texts.output, texts.tokens % 2 == 0, 0), axis=1).astype(jnp.float32))


def algorithms():
    texts = text_environment(np.asarray([[1, 4], [1, 5]]), 64, 6, even_tokens)
    writer = transformer(texts, TransformerConfig(vocabulary=64, context=8, width=64, layers=1, heads=2))
    waiting = pgjax.finite(random_mdp(), horizon=20)
    memory = pgjax.recurrent(waiting.observation_space, waiting.action_space)
    value = pgjax.value_for(ENVIRONMENT)
    return {
        "with a critic": pgjax.reinforce(
            ENVIRONMENT,
            POLICY,
            slots=8,
            min_steps_per_slot=9,
            credit=pgjax.lambda_return(),
            baseline=pgjax.learned_value(value),
            optimizer=optax.sgd,
        ),
        "minibatches": ppo(ENVIRONMENT, POLICY, value, slots=8, minibatches=2, optimizer=optax.sgd),
        "recurrent": pgjax.reinforce(waiting, memory, slots=8, optimizer=optax.sgd),
        "transformer": pgjax.reinforce(texts, writer, slots=128, group_size=4, optimizer=optax.sgd),
    }


def compared(algorithm, meshes):
    """How far the parameters after two updates are from those on one device, and what the compiler says."""
    found, first = {}, []
    for name in meshes:
        devices = MESHES[name]
        mesh = None if devices is None else run_mesh(*devices)
        run = jax.jit(train(algorithm, 2, mesh))
        given = (jax.random.key(1), algorithm.hyperparameters(learning_rate=0.1))
        compiled = run.lower(*given).compile()
        state, curves = compiled(*given)
        leaves = jax.tree.leaves(jax.device_get(state.params))
        first = first or leaves
        found[name] = {
            "difference": float(max(np.abs(a - b).max() for a, b in zip(leaves, first, strict=True))),
            "moved": float(max(np.abs(leaf).max() for leaf in leaves)),
            "return": np.asarray(curves.episode_return).tolist(),
            "bytes": bytes_used(compiled),
            "params": sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state.params)),
            "exchanges": len(re.findall(r"(all-to-all|collective-permute)\(", compiled.as_text())),
        }
    return found


def swept():
    """How far the parameters of a sweep are from those on one device each, and its curves."""
    like = jax.eval_shape(POLICY.init, jax.random.key(0))
    found = [spread(None, run_devices=n, model_devices=m) for n, m in ((1, 1), (2, 2))]
    params = [pgjax.load_params(results, like, point={"learning_rate": 0.5}) for results in found]
    leaves = [jax.tree.leaves(tree) for tree in params]
    return float(max(np.abs(a - b).max() for a, b in zip(*leaves, strict=True)))


if __name__ == "__main__":
    assert jax.device_count() == 4
    found = {}
    for name, algorithm in algorithms().items():
        found[name] = compared(algorithm, COMPARED.get(name, ["one", "split"]))
    print(json.dumps({**found, "swept": swept()}))
