"""Distributions over actions. Each is a small pytree whose leading axes are a batch."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Distribution(Protocol):
    """What a policy returns: f(X_t), a distribution over actions.

    With batch axes [...] and one action of shape [*action], `sample` gives [..., *action] and the others give [...].
    """

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw one action for each batch element, independently."""
        ...

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Ln f(X_t)_{A_t}, in nats (for a continuous action, of the density)."""
        ...

    def entropy(self) -> jax.Array:
        """−E[ln f], in nats."""
        ...


class Categorical(NamedTuple):
    """One of n actions, with probabilities softmax(logits).

    Example:
        >>> f = Categorical(jnp.log(jnp.array([0.5, 0.25, 0.25])))
        >>> round(float(f.log_prob(jnp.int32(1))), 4), round(float(f.entropy()), 4)
        (-1.3863, 1.0397)
    """

    logits: jax.Array  # [..., n], any real numbers; −inf excludes an action

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw actions [...] int32."""
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> jax.Array:
        """The likeliest actions [...] int32, of several the first."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """The log-probability [...] of actions [...]."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """The entropy [...] in nats, between 0 and ln n."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(_times(jnp.exp(log_probs), log_probs), axis=-1)

    def cross_entropy(self, other: "Categorical") -> jax.Array:
        """−Σ_a self_a ln other_a [...] in nats; +inf if an action that is possible here is excluded there."""
        return -self.expectation(jax.nn.log_softmax(other.logits))

    def expectation(self, values: jax.Array) -> jax.Array:
        """Σ_a f(X_t)_a values_a [...], for a value of each action [..., n]."""
        return jnp.sum(_times(jax.nn.softmax(self.logits), values), axis=-1)

    def kl(self, other: "Categorical") -> jax.Array:
        """KL(self ‖ other) [...] in nats; +inf if an action that is possible here is excluded there."""
        log_probs = jax.nn.log_softmax(self.logits)
        difference = log_probs - jax.nn.log_softmax(other.logits)
        return jnp.sum(_times(jnp.exp(log_probs), difference), axis=-1)


def _times(probability: jax.Array, value: jax.Array) -> jax.Array:
    """P·x with 0·(±inf) = 0, in value and in gradient."""
    possible = ~(probability <= 0)  # what is not a number stays so
    return jnp.where(possible, probability, 0) * jnp.where(possible, value, 0)


class MultiCategorical(NamedTuple):
    """Several integers at once, each with probabilities of its own: d independent `Categorical`s.

    Log-probabilities, entropies and divergences are the sums of theirs.

    Example:
        >>> f = MultiCategorical(jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]])))
        >>> round(float(f.log_prob(jnp.array([1, 0]))), 4), round(float(f.entropy()), 4)
        (-2.0794, 1.7329)
    """

    logits: jax.Array  # [..., d, n], n the most choices that one of them has; −inf excludes one

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw actions [..., d] int32."""
        return Categorical(self.logits).sample(key)

    def mode(self) -> jax.Array:
        """The likeliest actions [..., d] int32."""
        return Categorical(self.logits).mode()

    def log_prob(self, action: jax.Array) -> jax.Array:
        """The log-probability [...] of actions [..., d]."""
        return jnp.sum(Categorical(self.logits).log_prob(action), axis=-1)

    def entropy(self) -> jax.Array:
        """The entropy [...] in nats."""
        return jnp.sum(Categorical(self.logits).entropy(), axis=-1)

    def cross_entropy(self, other: "MultiCategorical") -> jax.Array:
        """−E[ln other] [...] in nats, see `Categorical.cross_entropy`."""
        return jnp.sum(Categorical(self.logits).cross_entropy(Categorical(other.logits)), axis=-1)

    def kl(self, other: "MultiCategorical") -> jax.Array:
        """KL(self ‖ other) [...] in nats, see `Categorical.kl`."""
        return jnp.sum(Categorical(self.logits).kl(Categorical(other.logits)), axis=-1)


class Gaussian(NamedTuple):
    """Independent normal distributions, one for each of d numbers.

    Where the action space is bounded, an action is still drawn from, and judged under, this distribution; the rollout
    clips what the environment gets. Clipping is then part of the environment, and ∇ ln f stays exact.
    """

    mean: jax.Array  # [..., d]
    log_std: jax.Array  # [..., d]

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw actions [..., d]."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        """The likeliest actions [..., d]."""
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """The log-density [...] of actions [..., d]."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - 0.5 * np.log(2 * np.pi), axis=-1)

    def entropy(self) -> jax.Array:
        """The differential entropy [...] in nats."""
        return jnp.sum(self.log_std + 0.5 * np.log(2 * np.pi * np.e), axis=-1)

    def cross_entropy(self, other: "Gaussian") -> jax.Array:
        """−E[ln other] [...] in nats; finite also where this one always takes its mean, log_std = −inf."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) * jnp.exp(-other.log_std)) ** 2
        return jnp.sum(0.5 * (ratio + distance) + other.log_std + 0.5 * np.log(2 * np.pi), axis=-1)

    def kl(self, other: "Gaussian") -> jax.Array:
        """KL(self ‖ other) [...] in nats; +inf where this one always takes its mean and the other does not."""
        ratio = jnp.exp(2 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) * jnp.exp(-other.log_std)) ** 2
        return jnp.sum(0.5 * (ratio + distance - 1) + other.log_std - self.log_std, axis=-1)
