"""A convolutional network over an image."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from pgjax.environments.spaces import Box, Space, Spaces, spaces_in, without_mask
from pgjax.errors import InputError
from pgjax.policies.base import Policy, ValueFunction
from pgjax.policies.networks import Readout, as_reals, features_of, outputs_for, policy_of, value_of
from pgjax.trees import PyTree


def patches(image: jax.Array, window: int, stride: int = 1) -> jax.Array:
    """What a window sees at each place where it lies within the image.

    Args:
        image: [..., H, W, C].
        window: Its height and width.
        stride: From one place to the next.

    Returns:
        [..., ⌊(H − window) / stride⌋ + 1, ⌊(W − window) / stride⌋ + 1, window² · C], row by row of the window.
    """
    height, width = image.shape[-3] - window + 1, image.shape[-2] - window + 1
    corners = [(i, j) for i in range(window) for j in range(window)]
    shifted = [image[..., i : i + height : stride, j : j + width : stride, :] for i, j in corners]
    return jnp.concatenate(shifted, axis=-1)


def bands(image: jax.Array, kernel: jax.Array, window: int, stride: int = 1) -> jax.Array:
    """The products of `patches` with weights, computed for a whole row of places at once.

    A row of places sees `window` rows of pixels. Its weights [window · W · C, places · filters] are those of a window,
    once for each place, and zero elsewhere: more operations, in products of a shape at which they are fast.

    Args:
        image: [..., H, W, C].
        kernel: [window² · C, filters], row by row of the window.
        window: Its height and width.
        stride: From one place to the next.

    Returns:
        [..., ⌊(H − window) / stride⌋ + 1, ⌊(W − window) / stride⌋ + 1, filters].
    """
    *batch, H, W, C = image.shape
    height, places, filters = H - window + 1, (W - window) // stride + 1, kernel.shape[-1]
    rows = jnp.concatenate([image[..., i : i + height : stride, :, :] for i in range(window)], axis=-2)
    weights = kernel.reshape(window, window, C, filters)
    before = [place * stride for place in range(places)]
    placed = [jnp.pad(weights, ((0, 0), (skip, W - window - skip), (0, 0), (0, 0))) for skip in before]
    band = jnp.stack(placed, axis=-2).reshape(window * W * C, places * filters)
    return (rows.reshape(*batch, -1, window * W * C) @ band).reshape(*batch, -1, places, filters)


WIDEST_BAND = 4  # windows; a band of places makes this many times the operations at most


class Convolution(linen.Module):
    """A convolution without padding, as a product: by bands where images are narrow, else by patches."""

    filters: int
    window: int
    stride: int

    @linen.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Map images [..., H, W, C] to [..., places down, places across, filters]."""
        inputs = self.window**2 * image.shape[-1]
        kernel = self.param("kernel", linen.initializers.orthogonal(np.sqrt(2)), (inputs, self.filters))
        bias = self.param("bias", linen.initializers.zeros_init(), (self.filters,))
        if image.shape[-2] <= WIDEST_BAND * self.window:
            products = bands(image, kernel, self.window, self.stride)
        else:
            products = patches(image, self.window, self.stride) @ kernel
        return products + jnp.broadcast_to(bias, products.shape)


class ImageNetwork(linen.Module):
    """A convolution of each image without padding, hidden layers, and a last layer of gain 0.01.

    A convolution is a product of pixels and weights. Written like that, `vmap` over runs with weights of their own
    makes it a batched product, which is fast everywhere; of convolutions with weights of their own it makes a grouped
    convolution, which is slow on a CPU.
    """

    filters: int
    window: int
    stride: int
    hidden: Sequence[int]
    outputs: int

    @linen.compact
    def __call__(self, seen: tuple[list[jax.Array], list[jax.Array]]) -> jax.Array:
        """Map images, each [..., H, W, C], and what else is seen, [..., n], to [..., outputs]."""
        init = linen.initializers.orthogonal(np.sqrt(2))
        (images, others), parts = seen, []
        for i, image in enumerate(images):
            x = jax.nn.relu(Convolution(self.filters, self.window, self.stride, name=f"Dense_{i}")(image))
            parts.append(x.reshape(*x.shape[:-3], -1))
        parts += others
        x = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
        for i, width in enumerate(self.hidden, len(images)):
            x = jax.nn.relu(linen.Dense(width, kernel_init=init, name=f"Dense_{i}")(x))
        return Readout(self.outputs, jax.lax.dot_general)(x)


def is_image(spaces: Spaces) -> bool:
    """Whether an observation is an image, an array [H, W, C] or [H, W] of 3 pixels or more each way, or has one."""
    return any(map(_is_image, spaces_in(without_mask(spaces))))


def _is_image(space: Space) -> bool:
    return isinstance(space, Box) and len(space.shape) in (2, 3) and min(space.shape[:2]) >= 3


def image_of(space: Box, observation: jax.Array) -> jax.Array:
    """Observations [..., H, W, C] or [..., H, W] as real-valued images [..., H, W, C], see `as_reals`."""
    image = as_reals(space, observation)
    return image if len(space.shape) == 3 else image[..., None]


def images_and_others(spaces: Spaces, observation: PyTree) -> tuple[list[jax.Array], list[jax.Array]]:
    """The images of observations, each [..., H, W, C], and the features [..., n] of what else there is, if anything."""
    parts = list(zip(spaces_in(without_mask(spaces)), jax.tree.leaves(without_mask(observation)), strict=True))
    others = [features_of(space, part) for space, part in parts if not _is_image(space)]
    return [image_of(space, part) for space, part in parts if _is_image(space)], others


def image_network(
    spaces: Spaces, filters: int, window: int, stride: int | None, hidden: Sequence[int], outputs: int
) -> ImageNetwork:
    """The network for images of a space; arguments are those of `cnn`.

    Raises:
        InputError: If there are no images, the window does not fit into them, or there is no filter or stride.
    """
    if not is_image(spaces):
        shapes = ", ".join(str(tuple(space.shape)) for space in spaces_in(spaces))
        raise InputError(f"expected observations [H, W, C] or [H, W] for a convolution, got {shapes}")
    shorter = min(min(space.shape[:2]) for space in spaces_in(without_mask(spaces)) if _is_image(space))
    if not 1 <= window <= shorter:
        raise InputError(f"expected a window of 1 to {shorter} pixels, got {window}")
    stride = max(1, shorter // 10) if stride is None else stride
    if filters < 1 or stride < 1:
        raise InputError(f"expected 1 or more filters and a stride of 1 or more, got {filters} and {stride}")
    return ImageNetwork(filters, window, stride, tuple(hidden), outputs)


def cnn(
    observation_space: Spaces,
    action_space: Space,
    filters: int = 8,
    window: int = 3,
    stride: int | None = None,
    hidden: Sequence[int] = (64, 64),
) -> Policy:
    """A convolutional policy: actions are chosen, from images, as `pgjax.mlp` chooses them.

    Args:
        observation_space: What it sees, images [H, W, C] or [H, W]; of a pytree, such parts go through a convolution
            each, and the others beside them.
        action_space: What it chooses from; a Box must have shape [d].
        filters: Of the convolution.
        window: Its height and width in pixels.
        stride: Pixels from one place of the window to the next; if not given, such that there are about ten.
        hidden: Widths of the layers between the convolution and the output.

    Raises:
        InputError: If the observations are no images, the window does not fit into them, there is no filter or
            stride, or the actions are arrays of another shape than [d].

    Source: the network of Young & Tian, *MinAtar: an Atari-inspired testbed for thorough and reproducible reinforcement
    learning experiments*, 2019, with a smaller hidden layer.
    """
    network = image_network(observation_space, filters, window, stride, hidden, outputs_for(action_space))

    return policy_of(network, partial(images_and_others, observation_space), observation_space, action_space)


def cnn_value(
    observation_space: Spaces,
    actions: int | None = None,
    filters: int = 8,
    window: int = 3,
    stride: int | None = None,
    hidden: Sequence[int] = (64, 64),
) -> ValueFunction:
    """A network like that of `pgjax.cnn`, near zero at first: v [T, E], or Q [T, E, A] for A = `actions`.

    Other arguments are those of `pgjax.cnn`.

    Raises:
        InputError: If the observations are no images, the window does not fit into them, or there is no filter or
            stride.
    """
    network = image_network(observation_space, filters, window, stride, hidden, 1 if actions is None else actions)
    return value_of(network, partial(images_and_others, observation_space), observation_space, actions)
