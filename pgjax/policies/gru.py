"""A network that remembers: a gated recurrent unit over the observations of an episode.

It is differentiated through time over the rows in use (`segments.py`), and a slot may hold several episodes. No value
function remembers in this way.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from pgjax.environments.spaces import Space, Spaces, batch_of, zeros_of
from pgjax.errors import InputError
from pgjax.policies.base import Policy
from pgjax.policies.distributions import Distribution
from pgjax.policies.networks import Readout, distribution_of, features_of, outputs_for, with_spread
from pgjax.trees import PyTree


def orthogonal_gates(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Weights [hidden, 3·hidden] side by side, those of each gate orthogonal."""
    orthogonal, hidden = linen.initializers.orthogonal(), shape[0]
    return jnp.concatenate([orthogonal(gate, (hidden, hidden)) for gate in jax.random.split(key, 3)], axis=1)


class RecurrentNetwork(linen.Module):
    """Tanh layers, a gated recurrent unit, and a last layer of gain 0.01, in three parts.

    `inputs` and `outputs` see one row and can be computed of all rows at once; only `gru_step` has to go in order.
    """

    hidden: int
    encoder: Sequence[int]
    actions: int

    def setup(self) -> None:
        """Name the layers."""
        init = linen.initializers.orthogonal(np.sqrt(2))
        self.layers = [linen.Dense(width, kernel_init=init) for width in self.encoder]
        self.gates = linen.Dense(3 * self.hidden)
        self.recurrent = self.param("recurrent", orthogonal_gates, (self.hidden, 3 * self.hidden))
        self.candidate_bias = self.param("candidate_bias", linen.initializers.zeros_init(), (self.hidden,))
        self.readout = Readout(self.actions, jax.lax.dot_general)

    def inputs(self, x: jax.Array) -> jax.Array:
        """What features [..., n] say to the gates, [..., 3·hidden]."""
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.gates(x)

    def gru_step(self, h: jax.Array, inputs: jax.Array) -> jax.Array:
        """The next hidden state [E, hidden]: h' = (1 − z) n + z h.

        With r = σ(x_r + U_r h), z = σ(x_z + U_z h) and n = tanh(x_n + r (U_n h + b)); x is `inputs` [E, 3·hidden].

        Source: Cho et al., *Learning Phrase Representations using RNN Encoder–Decoder*, 2014. There r stands within the
        product, n = tanh(x_n + U_n (r h)); outside of it, as in cuDNN, the three products are one.
        """
        x_r, x_z, x_n = jnp.split(inputs, 3, axis=-1)
        u_r, u_z, u_n = jnp.split(h @ self.recurrent, 3, axis=-1)
        r, z = jax.nn.sigmoid(x_r + u_r), jax.nn.sigmoid(x_z + u_z)
        n = jnp.tanh(x_n + r * (u_n + jnp.broadcast_to(self.candidate_bias, u_n.shape)))
        return (1 - z) * n + z * h

    def outputs(self, h: jax.Array) -> jax.Array:
        """Map hidden states [..., hidden] to [..., actions]."""
        return self.readout(h)

    def __call__(self, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The next hidden state [E, hidden] and the outputs [E, actions] of features [E, n]."""
        h = self.gru_step(h, self.inputs(x))
        return h, self.outputs(h)


def recurrent(
    observation_space: Spaces,
    action_space: Space,
    hidden: int = 64,
    encoder: Sequence[int] = (64,),
    truncation: int | None = None,
) -> Policy:
    """A policy that remembers: a gated recurrent unit, whose hidden state is the memory and is zero at first.

    Observations enter, and actions are chosen, as in `pgjax.mlp`.

    Args:
        observation_space: What it sees.
        action_space: What it chooses from; a Box must have shape [d].
        hidden: Width of the hidden state.
        encoder: Widths of tanh layers between the observation and the recurrent unit; may be none.
        truncation: k, to differentiate through windows of k steps of an episode, each as if the memory that it begins
            with did not depend on θ. The gradient is then biased: it does not see what earlier steps should have
            remembered. All of an episode if not given.

    Raises:
        InputError: If the actions are arrays of another shape than [d], or the hidden state or a window has no width.

    Source: Cho et al., *Learning Phrase Representations using RNN Encoder–Decoder*, 2014; truncation: Williams & Peng,
    *An efficient gradient-based algorithm for on-line training of recurrent network trajectories*, 1990.
    """
    if hidden < 1:
        raise InputError(f"expected a hidden state of width 1 or more, got {hidden}")
    if truncation is not None and truncation < 1:
        raise InputError(f"expected a truncation to 1 step or more, got {truncation}")
    network = RecurrentNetwork(hidden, tuple(encoder), outputs_for(action_space))

    def memory(episodes: int) -> jax.Array:
        return jnp.zeros((episodes, hidden))

    def init(key: jax.Array) -> PyTree:
        observation = zeros_of(observation_space, 1)
        return with_spread(action_space, network.init(key, memory(1), features_of(observation_space, observation)))

    def step(params: PyTree, h: jax.Array, observation: PyTree) -> tuple[jax.Array, Distribution]:
        h, output = network.apply(params["network"], h, features_of(observation_space, observation))
        return h, distribution_of(action_space, output, params, observation)

    def read(params: PyTree, h: jax.Array, observation: PyTree, time: jax.Array, first: jax.Array) -> Any:
        def one(h: jax.Array, row: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            inputs, time, first = row
            if truncation is not None:
                h = jnp.where((time % truncation == 0)[:, None], jax.lax.stop_gradient(h), h)
            h = network.apply(params["network"], jnp.where(first[:, None], 0, h), inputs, method="gru_step")
            return h, h

        features = features_of(observation_space, observation)
        inputs = network.apply(params["network"], features, method="inputs")
        h, hidden_states = jax.lax.scan(one, h, (inputs, time, first))
        output = network.apply(params["network"], hidden_states, method="outputs")
        return h, distribution_of(action_space, output, params, observation)

    def resume(params: PyTree, h: jax.Array, trajectory: Any) -> tuple[jax.Array, Distribution]:
        return read(params, h, trajectory.observation, trajectory.time, trajectory.first)

    def unroll(params: PyTree, trajectory: Any) -> Distribution:
        T, E = batch_of(observation_space, trajectory.observation)
        time = jnp.broadcast_to(jnp.arange(T)[:, None], (T, E))
        return read(params, memory(E), trajectory.observation, time, time == 0)[1]

    return Policy(init=init, memory=memory, step=step, unroll=unroll, resume=resume)
