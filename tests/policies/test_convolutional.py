import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.policies.convolutional import Convolution, ImageNetwork, bands, is_image, patches

IMAGES = pgjax.Box(0.0, 1.0, (10, 10, 4))
DIGITS = pgjax.Box(0.0, 1.0, (10, 5))


def test_a_product_of_patches_is_a_convolution():
    image = jax.random.normal(jax.random.key(0), (3, 9, 7, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 5))  # [height, width, in, out]
    for stride in (1, 2):
        expected = jax.lax.conv_general_dilated(
            image, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        found = patches(image, 3, stride) @ kernel.reshape(-1, 5)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(bands(image, kernel.reshape(-1, 5), 3, stride), expected, atol=1e-5)


@pytest.mark.parametrize("width", [12, 13])  # 4 windows of 3 pixels are computed by bands, more by patches
def test_a_convolution_and_its_derivative_are_the_same_either_way(width):
    layer, image = Convolution(5, 3, 2), jax.random.normal(jax.random.key(0), (2, 7, width, 2))
    params = layer.init(jax.random.key(1), image)
    weights = jax.random.normal(jax.random.key(2), layer.apply(params, image).shape)

    def by_patches(params):
        kernel, bias = params["params"]["kernel"], params["params"]["bias"]
        return jnp.sum(weights * (patches(image, 3, 2) @ kernel + jnp.broadcast_to(bias, weights.shape)))

    found = jax.value_and_grad(lambda params: jnp.sum(weights * layer.apply(params, image)))(params)
    chex.assert_trees_all_close(found, jax.value_and_grad(by_patches)(params), rtol=1e-4, atol=1e-4)


def test_a_shifted_image_shifts_what_the_filters_see():
    image = jnp.zeros((8, 8, 1)).at[3, 4, 0].set(1)
    seen, moved = patches(image, 3), patches(jnp.roll(image, (1, -1), (0, 1)), 3)
    np.testing.assert_array_equal(np.roll(seen, (1, -1), (0, 1)), moved)


@pytest.mark.parametrize("space", [IMAGES, DIGITS, pgjax.Box(0.0, 1.0, (10, 10, 4), jnp.bool_)])
def test_policy_and_values_are_memoryless_networks_over_the_image(space):
    policy, value = pgjax.cnn(space, pgjax.Discrete(3)), pgjax.policies.cnn_value(space, 3)
    image = jax.random.bernoulli(jax.random.key(0), 0.3, (2, 4, *space.shape)).astype(space.dtype)
    params = policy.init(jax.random.key(1))
    _, acted = policy.step(params, policy.memory(4), image[0])
    trajectory = pgjax.Trajectory(image, *[jnp.zeros((2, 4))] * 6, rows=jnp.int32(2))
    np.testing.assert_allclose(policy.unroll(params, trajectory).logits[0], acted.logits, atol=1e-6)
    assert np.abs(acted.logits).max() < 0.3  # every run begins near the uniform policy
    assert value.unroll(value.init(jax.random.key(2)), trajectory).shape == (2, 4, 3)


def test_images_are_what_the_defaults_are_chosen_by():
    assert is_image(IMAGES)
    assert is_image(DIGITS)
    for space in (pgjax.Discrete(9), pgjax.Box(0.0, 1.0, (9,)), pgjax.Box(0.0, 1.0, (1, 1))):
        assert not is_image(space)
    pong = pgjax.from_gymnax("Pong-misc")
    params = jax.eval_shape(pgjax.policy_for(pong).init, jax.random.key(0))["network"]["params"]
    assert params["Dense_1"]["kernel"].shape == (10 * 13 * 8, 64)  # ⌊27 / 3⌋ + 1 by ⌊37 / 3⌋ + 1 places
    critic = jax.eval_shape(pgjax.value_for(pong).init, jax.random.key(0))["params"]
    assert critic["Readout_0"]["kernel"].shape == (1, 64)


def test_continuous_actions_have_a_spread():
    policy = pgjax.cnn(IMAGES, pgjax.Box(-2.0, 2.0, (2,)))
    distribution = policy.unroll(
        policy.init(jax.random.key(0)),
        pgjax.Trajectory(jnp.zeros((1, 1, 10, 10, 4)), *[jnp.zeros((1, 1))] * 6, rows=jnp.int32(1)),
    )
    np.testing.assert_allclose(jnp.exp(distribution.log_std), 1.2, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pgjax.cnn(pgjax.Box(0.0, 1.0, (4,)), pgjax.Discrete(2)), r"expected observations .* got \(4,\)"),
        (lambda: pgjax.cnn(IMAGES, pgjax.Discrete(2), window=11), "expected a window of 1 to 10 pixels, got 11"),
        (lambda: pgjax.cnn(IMAGES, pgjax.Discrete(2), filters=0), "expected 1 or more filters .* got 0 and 1"),
        (lambda: pgjax.policies.cnn_value(IMAGES, stride=0), "expected 1 or more filters .* got 8 and 0"),
    ],
)
def test_what_makes_no_network_is_refused(build, message):
    with pytest.raises(pgjax.InputError, match=message):
        build()


def test_under_vmap_every_run_has_filters_of_its_own():
    network = ImageNetwork(4, 3, 1, (8,), 2)
    image = jax.random.normal(jax.random.key(0), (3, 6, 6, 1))
    params = jax.vmap(network.init, (0, None))(jax.random.split(jax.random.key(1), 3), ([image[0]], []))
    together = jax.vmap(network.apply)(params, ([image], []))
    for i in range(3):
        alone = network.apply(jax.tree.map(lambda leaf, i=i: leaf[i], params), ([image[i]], []))
        np.testing.assert_allclose(together[i], alone, atol=1e-5)
