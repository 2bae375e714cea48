"""What networks share: layers near zero at first, observations as their input, distributions as their output."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from pgjax.environments.spaces import (
    Box,
    Discrete,
    MultiDiscrete,
    Space,
    Spaces,
    batch_of,
    map_spaces,
    mask_of,
    without_mask,
    zeros_of,
)
from pgjax.errors import InputError
from pgjax.policies.base import Policy, ValueFunction, allowed, memoryless
from pgjax.policies.distributions import Categorical, Distribution, Gaussian, MultiCategorical
from pgjax.trees import PyTree


def rounded_to(dtype: Any) -> Callable[..., jax.Array]:
    """The product of [..., n] and [n, m], operands rounded to a type, and so in its derivative.

    Sums are float32. It takes the place of `lax.dot_general` in a layer.
    """

    def multiply(a: jax.Array, b: jax.Array, axes: tuple[Sequence[int], Sequence[int]]) -> jax.Array:
        return jax.lax.dot_general(
            a.astype(dtype), b.astype(dtype), (axes, ((), ())), preferred_element_type=jnp.float32
        )

    @jax.custom_vjp
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return multiply(a, b, ([a.ndim - 1], [0]))

    def forward(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return product(a, b), (a, b)

    def backward(operands: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
        a, b = operands
        rows = range(a.ndim - 1)
        da, db = multiply(cotangent, b, ([a.ndim - 1], [1])), multiply(a, cotangent, (rows, rows))
        return da.astype(a.dtype), db.astype(b.dtype)

    product.defvjp(forward, backward)
    return lambda a, b, dimensions, precision=None: product(a, b)


class Readout(linen.Module):
    """The last layer. With weights [outputs, inputs] a gradient for few outputs is a third faster on a CPU."""

    outputs: int
    dot_general: Callable[..., jax.Array]

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., inputs] to [..., outputs]."""
        kernel = self.param("kernel", linen.initializers.orthogonal(0.01), (self.outputs, x.shape[-1]))
        bias = self.param("bias", linen.initializers.zeros_init(), (self.outputs,))
        products = self.dot_general(x, kernel.T, (((x.ndim - 1,), (0,)), ((), ())))
        return products + jnp.broadcast_to(bias, products.shape)


class Network(linen.Module):
    """Hidden layers with orthogonal weights of gain √2, and a last layer of gain 0.01.

    The small last layer starts every policy near the uniform one (or near its mean), so that a run begins by exploring.
    Source: Andrychowicz et al., *What Matters in On-Policy Reinforcement Learning?*, 2020, §3.2.
    """

    hidden: Sequence[int]
    outputs: int
    activation: Callable[[jax.Array], jax.Array]
    product_dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., inputs] to [..., outputs]."""
        dot_general = jax.lax.dot_general if self.product_dtype == jnp.float32 else rounded_to(self.product_dtype)
        for width in self.hidden:
            init = linen.initializers.orthogonal(np.sqrt(2))
            x = self.activation(linen.Dense(width, kernel_init=init, dot_general=dot_general)(x))
        return Readout(self.outputs, dot_general)(x)


def features_of(spaces: Spaces, observation: PyTree) -> jax.Array:
    """What a network sees of observations, [..., n]: integers one-hot, other arrays flattened, one after the other.

    A mask of actions is not among it.
    """

    def flat(space: Space, part: jax.Array) -> jax.Array:
        batch = batch_of(space, part)
        if isinstance(space, Discrete):
            return jax.nn.one_hot(part, space.n)
        if isinstance(space, MultiDiscrete):
            return jax.nn.one_hot(part, max(space.sizes)).reshape(*batch, -1)[..., space.allowed.reshape(-1)]
        return as_reals(space, part).reshape(*batch, -1)

    parts = jax.tree.leaves(map_spaces(flat, without_mask(spaces), without_mask(observation)))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def as_reals(space: Box, observation: jax.Array) -> jax.Array:
    """Observations [..., *shape] as real numbers; the pixels of an image of integers, from its low to its high, as 0…1.

    An image is what has two axes or more, such as a screen of uint8: taken as they are, numbers of 0…255 make the first
    policy far from uniform and learning slow.
    """
    reals = observation.astype(jnp.result_type(float))
    low, high = (np.broadcast_to(np.asarray(bound, float), space.shape) for bound in (space.low, space.high))
    whole = jnp.issubdtype(jnp.dtype(space.dtype), jnp.integer)
    if len(space.shape) < 2 or not whole or not np.isfinite(low).all() or not np.isfinite(high).all():
        return reals
    bounds = (jnp.asarray(bound, reals.dtype) for bound in (low, np.where(high > low, high - low, 1)))
    least, width = (jnp.broadcast_to(bound, reals.shape) for bound in bounds)
    return (reals - least) / width


def outputs_for(action_space: Space) -> int:
    """How many numbers a network says of an action: n of n integers, Σ n of several, d of an array [d].

    Raises:
        InputError: If actions are arrays of another shape than [d].
    """
    if isinstance(action_space, Discrete):
        return action_space.n
    if isinstance(action_space, MultiDiscrete):
        return sum(action_space.sizes)
    if len(action_space.shape) != 1:
        raise InputError(f"expected continuous actions of shape [d], got {tuple(action_space.shape)}")
    return action_space.shape[0]


def with_spread(action_space: Space, network: PyTree) -> dict[str, PyTree]:
    """A policy's first parameters: a network's, and for a `Box` the logarithms [d] of standard deviations.

    They are in units of the box's half-width (of 1 where a side is infinite), and 0.6 whatever the observation.
    """
    params = {"network": network}
    if isinstance(action_space, Box):
        params["log_std"] = jnp.full(action_space.shape, np.log(0.6), jnp.result_type(float))
    return params


def distribution_of(
    action_space: Space, output: jax.Array, params: dict[str, PyTree], observation: PyTree
) -> Distribution:
    """What a network's output [..., n] means: logits, or for a `Box` a mean in its units around its centre.

    Of discrete actions those are excluded that the observations [...] do not allow.
    """
    mask = mask_of(observation)
    if isinstance(action_space, Discrete):
        return Categorical(allowed(action_space, output, mask))
    if isinstance(action_space, MultiDiscrete):
        sizes = np.asarray(action_space.sizes)
        place = np.minimum(np.arange(sizes.max()), sizes[:, None] - 1) + (np.cumsum(sizes) - sizes)[:, None]
        return MultiCategorical(allowed(action_space, output[..., place], mask))
    centre, unit = (jnp.broadcast_to(x, output.shape) for x in action_space.middle())
    return Gaussian(centre + unit * output, jnp.broadcast_to(params["log_std"], output.shape) + jnp.log(unit))


def policy_of(network: linen.Module, seen: Callable[[PyTree], PyTree], states: Spaces, actions: Space) -> Policy:
    """The policy of a network without memory: what it sees of observations [..., *shape] decides what it says."""

    def init(key: jax.Array) -> PyTree:
        return with_spread(actions, network.init(key, seen(zeros_of(states))))

    def apply(params: PyTree, observation: PyTree) -> Distribution:
        return distribution_of(actions, network.apply(params["network"], seen(observation)), params, observation)

    return memoryless(init, apply)


def value_of(
    network: linen.Module, seen: Callable[[PyTree], PyTree], states: Spaces, actions: int | None
) -> ValueFunction:
    """The value function of a network, see `policy_of`: v, its only output, or a Q for each of some actions."""

    def init(key: jax.Array) -> PyTree:
        return network.init(key, seen(zeros_of(states)))

    def unroll(params: PyTree, trajectory: Any) -> jax.Array:
        values = network.apply(params, seen(trajectory.observation))
        return values[..., 0] if actions is None else values

    return ValueFunction(init, unroll)
