"""REINFORCE without a trajectory: the gradient is added up while an episode runs.

Σ_t credit_t ∇ln f_t needs the rewards that come after step t. But what a reward adds to all the steps before it is the
reward times a sum of their ∇ln f, Williams' *characteristic eligibility*: it is enough to carry that sum along, the
trace z, and the gradient so far, g. With rows a, …, a + C − 1 of the episode,

    g ← g + earlier · z + Σ_t (credit_t − weight_t baseline) ∇ln f_t,    z ← fading · z + Σ_t later_t ∇ln f_t,

where the rewards of these rows make the coefficients (`returns.Online`). When the episode is over, g is what the
stored trajectory would have given. It is exact because the parameters stay the same until then.

So an update needs no longer memory than its parameters, and a run no other's episode to end before it goes on: in a
batch, runs are asynchronous.

Source: Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement learning*, 1992, §5;
the same trace in continuing problems: Baxter & Bartlett, *Infinite-horizon policy-gradient estimation*, 2001.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.base import Environment
from pgjax.estimators.baselines import Baseline
from pgjax.estimators.returns import Credit, discounted_by_time
from pgjax.policies.base import Policy, has_memory
from pgjax.rollout import Slots, player
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Episode(NamedTuple):
    """What is known of an episode while it runs, in the one slot that there is."""

    slots: Slots
    row: jax.Array  # [] int32, rows so far; 0 before it starts
    gradient: PyTree  # g, like params
    trace: PyTree  # z, like params
    so_far: jax.Array  # [1], Σ γ^{t−1} R_{t+1}
    reward: jax.Array  # [], Σ R_{t+1}
    steps: jax.Array  # [] float
    entropy: jax.Array  # [], summed over steps, in nats
    computed: jax.Array  # [] float, rows computed since the last episode was over, idle ones included


class StreamingGradient(NamedTuple):
    """Plays an episode and adds up its gradient, some rows at a time.

    `before(key, params, environment params) -> Episode`, not started; `play(key, params, baseline state,
    hyperparameters, episode, going) -> (Episode, over)`: the next rows, if the episode runs or `going` [] says that
    it may start, and whether it is over. The key is the episode's own. `again(episode) -> Episode` is the next one.
    """

    before: Callable[[jax.Array, PyTree, PyTree], Episode]
    play: Callable[[jax.Array, PyTree, PyTree, Any, Episode, jax.Array], tuple[Episode, jax.Array]]
    again: Callable[[Episode], Episode]


def needs_no_trajectory(environment: Environment, policy: Policy, credit: Credit, baseline: Baseline) -> bool:
    """Whether the gradient can be added up while an episode runs."""
    whole = environment.score is not None or has_memory(policy) or policy.observe is not None
    return credit.online is not None and baseline.online and not whole


def streaming_gradient(
    environment: Environment, policy: Policy, credit: Credit, baseline: Baseline, chunk: int
) -> StreamingGradient:
    """What plays one episode and adds up its gradient; see `needs_no_trajectory`, which must hold.

    Args:
        environment: Where.
        policy: Who acts.
        credit: What each step is judged by.
        baseline: What is subtracted from it.
        chunk: Rows played, and then differentiated, together.
    """
    assert credit.online is not None
    online = credit.online
    idle, rollout = player(environment, policy, 1, min(chunk, environment.horizon), start_before=1)

    def nothing_of(slots: Slots, params: PyTree) -> Episode:
        zero, none = jax.tree.map(jnp.zeros_like, params), jnp.zeros(())
        return Episode(
            slots=slots,
            row=jnp.int32(0),
            gradient=zero,
            trace=zero,
            so_far=jnp.zeros(1),
            reward=none,
            steps=none,
            entropy=none,
            computed=none,
        )

    def before(key: jax.Array, params: PyTree, env_params: PyTree) -> Episode:
        return nothing_of(idle(key, env_params), params)

    def again(episode: Episode) -> Episode:
        over = jnp.zeros(1, bool)
        return nothing_of(episode.slots._replace(running=over, cut_off=over), episode.gradient)

    def play(
        key: jax.Array, params: PyTree, baseline_state: PyTree, hyperparameters: Any, episode: Episode, going: jax.Array
    ) -> tuple[Episode, jax.Array]:
        slots, rows = rollout(key, params, hyperparameters.environment, episode.slots, episode.row, going[None])
        known = online(rows, hyperparameters, episode.so_far)
        weight = jnp.where(rows.mask, credit.weight(rows, hyperparameters), 0)
        advantage = known.credit - weight * baseline.values(baseline_state, rows, known.credit, None)

        def objectives(params: PyTree) -> tuple[jax.Array, jax.Array]:
            distribution = policy.unroll(params, rows)
            log_prob = jnp.where(rows.mask, distribution.log_prob(rows.action), 0)  # −∞ in padding, perhaps
            entropy = jnp.sum(jnp.where(rows.mask, distribution.entropy(), 0))
            gained = jnp.sum(advantage * log_prob) + hyperparameters.entropy_coefficient * entropy
            return jnp.stack([gained, jnp.sum(known.later * log_prob)]), entropy

        _, pull, entropy = jax.vjp(objectives, params, has_aux=True)
        (new,) = jax.vmap(pull)(jnp.eye(2))
        return Episode(
            slots=slots,
            row=episode.row + jnp.where(jnp.any(rows.mask), rows.mask.shape[0], 0),
            gradient=jax.tree.map(
                lambda g, z, both: (g + known.earlier[0] * z + both[0]).astype(g.dtype),
                episode.gradient,
                episode.trace,
                new,
            ),
            trace=jax.tree.map(lambda z, both: (known.fading[0] * z + both[1]).astype(z.dtype), episode.trace, new),
            so_far=episode.so_far + jnp.sum(discounted_by_time(rows, hyperparameters) * rows.reward, axis=0),
            reward=episode.reward + jnp.sum(rows.reward),
            steps=episode.steps + jnp.sum(rows.mask),
            entropy=episode.entropy + entropy,
            computed=episode.computed + rows.mask.shape[0],
        ), jnp.any(rows.last)

    return StreamingGradient(before, play, again)


def as_trajectory(episode: Episode) -> Trajectory:
    """An episode that is over as the trajectory of one step, [1, 1], from which a baseline learns G_1."""
    one = jnp.ones((1, 1), bool)
    zero = jnp.zeros((1, 1), jnp.int32)
    slots = episode.slots
    return Trajectory(
        observation=jax.tree.map(lambda leaf: leaf[None], slots.observation),
        action=zero,
        reward=episode.so_far[None],
        terminated=one,
        truncated=~one,
        mask=one,
        time=zero,
        rows=jnp.int32(1),
    )
