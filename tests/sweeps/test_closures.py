import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import pgjax
from pgjax.sweeps.closures import LARGE, lowered
from pgjax.sweeps.program import by_block

MESH = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("run",))
RUNS, EVERYWHERE = PartitionSpec("run"), NamedSharding(MESH, PartitionSpec())
STATES = jnp.arange(6, dtype=jnp.float32)


def closure(n, first=0):
    """A function [6] -> [6], by blocks as a sweep's are, that looks into n numbers that it closes over."""
    numbers = jax.random.permutation(jax.random.key(first), n).astype(jnp.float32)

    def one(state):
        shared = jax.lax.optimization_barrier(numbers)
        return state + shared[state.astype(int)] + jax.lax.fori_loop(0, 3, lambda i, total: total + shared[i], 0.0)

    mapped = jax.shard_map(
        lambda states: by_block(one, states, 3), mesh=MESH, in_specs=RUNS, out_specs=RUNS, check_vma=False
    )
    return lowered(mapped, (STATES,), EVERYWHERE, donated=(0,)), numbers


@pytest.mark.parametrize("large", [False, True])
def test_large_arrays_are_arguments_and_small_ones_constants(large):
    n = LARGE // 4 + 10 * large
    function, numbers = closure(n)
    text = function.lowered.as_text()
    assert (len(text) < 20_000) == large
    assert [array.nbytes for array in function.arrays] == [4 * n] * large
    compiled = function.compile()
    assert len(compiled.input_shardings[0]) == 1
    assert (compiled.memory_analysis().argument_size_in_bytes > LARGE) == large
    expected = STATES + numbers[:6] + numbers[:3].sum()
    np.testing.assert_allclose(compiled(jnp.copy(STATES)), expected)


def test_other_arrays_are_another_function():
    n = LARGE // 4 + 1
    one, same, other = (closure(n, seed)[0] for seed in (0, 0, 1))
    assert one.digest == same.digest != other.digest
    assert one.lowered.as_text() == other.lowered.as_text()


def test_a_model_learns_from_a_large_corpus_that_all_runs_share():
    rng = np.random.default_rng(0)
    texts = np.concatenate([np.ones((40_000, 1), int), rng.integers(3, 5, (40_000, 8))], axis=1)
    bigram = pgjax.memoryless(
        lambda key: jnp.zeros((5, 5)), lambda theta, window: pgjax.policies.Categorical(theta[window[..., -1]])
    )
    algorithm = pgjax.text.pretraining(bigram, texts, batch=8, steps=3, held_out=0.01)
    found = pgjax.sweep(algorithm, iterations=2, seeds=range(2), hyperparameters=algorithm.hyperparameters())
    run = jax.jit(pgjax.train(algorithm, 2))
    for seed in range(2):
        _, alone = run(pgjax.run_keys(0, [seed])[0], algorithm.hyperparameters())
        np.testing.assert_allclose(found.loss.isel(seed=seed), alone.loss, rtol=1e-6)
