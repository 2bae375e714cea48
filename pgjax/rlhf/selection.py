"""Best-of-n sampling: draw n outputs and keep the one that scores best, the other way to spend KL."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.errors import InputError


def best_of_n_kl(n: Any) -> Any:
    """KL(best of n ‖ one) = ln n − (n − 1)/n, in nats, exact where no two outputs score the same.

    Source: Stiennon et al., *Learning to summarize from human feedback*, 2020, appendix G.3.

    Example:
        >>> round(float(best_of_n_kl(16)), 2)
        1.84
    """
    return np.log(n) - (np.asarray(n) - 1) / np.asarray(n)


def best_of_n(proxy: jax.Array, values: jax.Array, n: Any) -> jax.Array:
    """The expected value of the output with the largest proxy among n of a pool of N, [...].

    All subsets of n are averaged over, exactly: of N outputs sorted by proxy, the i-th is the best of C(i − 1, n − 1)
    of the C(N, n) subsets. Among equal proxies, the later one of the pool counts as the larger. If a proxy is not
    finite, the order means nothing, and neither does the value: NaN.

    Args:
        proxy: What they are chosen by, [N].
        values: What is averaged, [N, ...]: the gold reward, or the proxy itself.
        n: From 1 to N; may be traced.

    Raises:
        InputError: If a plain n is out of range.
        AssertionError: If the proxy is not [N], or the values are not as many.

    Source: Nakano et al., *WebGPT*, 2021, appendix I.

    Example:
        >>> proxy, gold = jnp.array([0.0, 1.0, 2.0]), jnp.array([5.0, 7.0, 6.0])
        >>> float(best_of_n(proxy, gold, 1)), float(best_of_n(proxy, gold, 3))
        (6.0, 6.0)
    """
    chex.assert_rank(proxy, 1)
    chex.assert_equal_shape_prefix([proxy, values], 1)
    N = proxy.shape[0]
    if isinstance(n, int | np.integer) and not 1 <= n <= N:
        raise InputError(f"expected n from 1 to {N}, the outputs that there are, got {n}")
    i = jnp.arange(1, N + 1)
    # ln C(i − 1, n − 1) − ln C(i, n − 1), summed from N down: in float32, differences of ln Γ of a large N lose digits.
    step = jnp.where(i < N, jnp.log1p(-(jnp.minimum(n, i) - 1) / i), 0)
    weight = jnp.where(i >= n, jnp.exp(jax.lax.cumsum(step, reverse=True)), 0)
    weight = (weight / jnp.sum(weight)).reshape(N, *[1] * (values.ndim - 1))
    best = jnp.sum(weight * values[jnp.argsort(proxy)], axis=0)
    return jnp.where(jnp.all(jnp.isfinite(proxy)), best, jnp.nan)
