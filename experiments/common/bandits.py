"""What the studies of bandits have in common: a softmax policy f over K arms, its gradients, and runs of many plays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp


def chosen(f: jax.Array, u: jax.Array) -> jax.Array:
    """Which arm uniform numbers u [...] from [0, 1) choose by the probabilities f [K, ...], [K, ...] bool."""
    arms = jnp.arange(len(f)).reshape(-1, *[1] * u.ndim)
    return arms == jnp.sum(u[None] >= jnp.cumsum(f, 0)[:-1], 0)[None]


def directions(f: jax.Array, natural: bool = False) -> jax.Array:
    """What each arm's advantage multiplies, [K, K]: ∇ ln f_a in row a, or F⁺ ∇ ln f_a with the Fisher information F."""
    one = jnp.eye(f.size)
    return (one - 1 / f.size) / jnp.maximum(f, 1e-100)[:, None] if natural else one - f[None]


def in_blocks(
    play: Callable[[Any, jax.Array], Any],
    begin: Any,
    draw: Callable[[jax.Array], jax.Array],
    blocks: jax.Array,
    look: Callable[[Any], Any] = lambda carry: None,
) -> tuple[Any, Any]:
    """A run whose randomness is drawn for many plays at once: how it ends, and what was seen after each block of plays.

    Args:
        play: (carry, numbers of one play) → carry.
        begin: The first carry.
        draw: What draws the numbers [plays, ...] of a block, from its entry of `blocks`.
        blocks: A key or a number for each block.
        look: What is seen of a carry.
    """

    def block(carry: Any, of: jax.Array) -> tuple[Any, Any]:
        carry, _ = jax.lax.scan(lambda carry, u: (play(carry, u), None), carry, draw(of))
        return carry, look(carry)

    return jax.lax.scan(block, begin, blocks)


def of_uniforms(
    play: Callable[[Any, jax.Array], Any],
    begin: Any,
    key: jax.Array,
    steps: int,
    block: int,
    look: Callable[[Any], Any] = lambda carry: None,
) -> tuple[Any, Any]:
    """`in_blocks`, where each of so many steps plays by one uniform number []."""
    blocks = jax.random.split(key, steps // block)
    return in_blocks(play, begin, lambda key: jax.random.uniform(key, (block,)), blocks, look)


def alone(move: Callable[[jax.Array, jax.Array], jax.Array], K: int, steps: int) -> jax.Array:
    """Ln Pr(the first t plays are all of one arm) for each arm, [steps, K], with rewards that are fixed: exact.

    Args:
        move: (θ [K], which arm was played [K] bool) → θ after the play.
        K: Number of arms, which are first played alike.
        steps: Plays.
    """

    def one(carry: Any, _: None) -> tuple[Any, jax.Array]:
        theta, log_probability = carry  # [K, K], a row for each arm that is played; [K]
        log_probability = log_probability + jnp.diag(jax.nn.log_softmax(theta))
        return (jax.vmap(move)(theta, jnp.eye(K, dtype=bool)), log_probability), log_probability

    return jax.lax.scan(one, (jnp.zeros((K, K)), jnp.zeros(K)), length=steps)[1]


def time_of_flow(velocity: Callable[[jax.Array], jax.Array], begin: np.ndarray, latest: float = 1e18) -> float | None:
    """The time at which θ [K], by dθ/dt = velocity(θ), gives the first arm half of the probability, if by the latest.

    By an integrator of relative error 1e-8, with numbers of 64 bits.
    """

    def behind(t: float, theta: np.ndarray) -> float:
        return theta[0] - np.logaddexp.reduce(theta[1:])  # 0 where the probability is a half

    behind.terminal = True  # type: ignore[attr-defined]
    tight = {"method": "LSODA", "rtol": 1e-8, "atol": 1e-9}
    with jax.enable_x64(True):
        flow = solve_ivp(lambda t, theta: np.asarray(velocity(theta)), (0, latest), begin, events=behind, **tight)
    return float(flow.t_events[0][0]) if len(flow.t_events[0]) else None
