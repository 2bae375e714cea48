"""REINFORCE: make episodes more likely in proportion to how much better than expected they were.

A method is a choice of credit and baseline:

- the lecture's REINFORCE(θ, η, β, max_iters): `whole_episode()` and `running_average()`, with `slots=1` and
  `optimizer=optax.sgd`;
- its "more common gradient estimate", G_t − v(X_t): `reward_to_go()` and
  `learned_value(value_for(environment))`;
- actor-critic with GAE(λ): `lambda_return()` and `learned_value(value_for(environment))`;
- the expected policy gradient Σ_a ∇f(X_t)_a Q(X_t, a): `lambda_return()`, which Q is fitted to, and
  `expected_policy_gradient(action_value_for(environment))`.

What else there is to choose, an objective, a scale and how often a batch is used, leads from here to PPO and GRPO: see
`algorithms/family.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.algorithms.base import Algorithm, by_name
from pgjax.algorithms.divergence import NOWHERE, Nearby
from pgjax.algorithms.reuse import Reuse, Told, check_reuse, reusing
from pgjax.batching import together
from pgjax.descent import Optimizer, check_optimizer, descend
from pgjax.environments.base import Environment, strong
from pgjax.estimators.baselines import Baseline
from pgjax.estimators.gradient import differentiating, judging
from pgjax.estimators.groups import leave_one_out_by_time
from pgjax.estimators.objectives import Objective, score_function
from pgjax.estimators.returns import Credit, reward_to_go
from pgjax.estimators.scales import Scale
from pgjax.estimators.streaming import StreamingGradient, as_trajectory, needs_no_trajectory, streaming_gradient
from pgjax.hyperparameters import numbers_of
from pgjax.policies.base import Policy, check_fit
from pgjax.rollout import collect
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree

UNUSED, SHUFFLING = np.uint32(2**32 - 1), np.uint32(2**32 - 2)  # folded into a run's key: the numbers of no iteration


class ReinforceHyperparameters(NamedTuple):
    """The numbers of a REINFORCE run; all are traced, so any can be swept. Each is a scalar but for `environment`."""

    learning_rate: Any = 3e-3  # η
    baseline_decay: Any = 0.9  # β of the running average, and of the scale of a learned value
    discount: Any = 1.0  # γ
    trace_decay: Any = 0.95  # λ of the λ-returns
    value_learning_rate: Any = 1e-2  # η of a learned value
    entropy_coefficient: Any = 0.0
    environment: PyTree = ()  # the environment's params


class ReinforceState(NamedTuple):
    """What a REINFORCE run carries."""

    key: jax.Array  # the run's own, never used up: iteration i draws from fold_in(key, i)
    iteration: jax.Array  # [] int32
    hyperparameters: ReinforceHyperparameters
    params: PyTree  # θ
    optimizer: PyTree
    baseline: PyTree
    episode: PyTree = ()  # the one that is running, where its gradient is added up meanwhile


class ReinforceMetrics(NamedTuple):
    """What one update of REINFORCE reports; each a float scalar."""

    episode_return: jax.Array  # mean of Σ_t R_{t+1} over the update's episodes, undiscounted
    episodes: jax.Array  # how many they were
    steps: jax.Array  # real environment steps in them
    computed: jax.Array  # environment steps computed for them, padding included, which other runs of a batch may cause
    entropy: jax.Array  # mean over those steps, in nats
    gradient_norm: jax.Array  # of the estimate, before the optimizer
    # Of a score, by name: the sum over an episode, their mean. Of an objective: the mean over steps.
    notes: Mapping[str, jax.Array] = {}


def metrics_of(trajectory: Trajectory, told: Told) -> ReinforceMetrics:
    """What an update reports of a trajectory and of the optimizer steps that it led to.

    Raises:
        InputError: If a score notes something under the name of a metric.
    """
    dtype = trajectory.reward.dtype
    metrics = ReinforceMetrics(
        episode_return=jnp.sum(trajectory.reward) / trajectory.episodes,
        episodes=trajectory.episodes,
        steps=jnp.sum(trajectory.mask, dtype=dtype),
        computed=jnp.asarray(trajectory.rows * trajectory.mask.shape[1], dtype),
        entropy=told.entropy,
        gradient_norm=told.gradient_norm,
        notes={name: jnp.sum(note) / trajectory.episodes for name, note in trajectory.notes.items()} | dict(told.notes),
    )
    by_name(metrics)  # which refuses a note with the name of a metric
    return metrics


def beginning(
    policy: Policy, baseline: Baseline, optimizer: Optimizer
) -> Callable[[jax.Array, ReinforceHyperparameters], ReinforceState]:
    """A function of a key and hyper-parameters: the state before the first update."""

    def init(key: jax.Array, hyperparameters: ReinforceHyperparameters) -> ReinforceState:
        key, params_key, baseline_key = jax.random.split(key, 3)
        params = policy.init(params_key)
        return ReinforceState(
            key=key,
            iteration=jnp.int32(0),
            hyperparameters=hyperparameters._replace(environment=strong(hyperparameters.environment)),
            params=params,
            optimizer=optimizer(hyperparameters.learning_rate).init(params),
            baseline=baseline.init(baseline_key, hyperparameters),
        )

    return init


def ascending(optimizer: Optimizer) -> Callable[..., ReinforceState]:
    """A function of a state, a gradient, a mean return and what is near: the state after an optimizer step."""

    def ascend(
        state: ReinforceState, gradient: PyTree, mean_return: jax.Array, near: Nearby | None = None
    ) -> ReinforceState:
        chosen = optimizer(state.hyperparameters.learning_rate)
        descent = jax.tree.map(jnp.negative, gradient)
        params, optimizer_state = descend(chosen, descent, state.optimizer, state.params, -mean_return, near)
        return state._replace(params=params, optimizer=optimizer_state)

    return ascend


def reinforce(
    environment: Environment,
    policy: Policy,
    *,
    slots: int = 16,
    min_steps_per_slot: int = 0,
    group_size: int = 1,
    credit: Credit | None = None,
    baseline: Baseline | None = None,
    objective: Objective | None = None,
    scale: Scale | None = None,
    epochs: int = 1,
    minibatches: int = 1,
    max_kl: float | None = None,
    kl_coefficient: float = 0.0,
    optimizer: Optimizer = optax.adam,
    chunk: int = 16,
) -> Algorithm:
    """The REINFORCE algorithm.

    Its numbers are `ReinforceHyperparameters`, it carries a `ReinforceState`, and reports `ReinforceMetrics`.

    An update collects episodes, estimates ∇ρ(θ) from them (`policy_gradient`), and gives that to the optimizer. With
    one episode a slot the estimate is the mean over E episodes. With more, it is, in expectation,
    E[episodes of a slot] times as long: the direction stays, and the length grows with the number of episodes; dividing
    by that random number instead would be a ratio estimator, with a bias.

    With several epochs or minibatches, episodes are collected and judged once, and lead to an optimizer step for each
    minibatch, see `algorithms/reuse.py`; metrics of the gradient and the objective are the mean over these steps.

    With one episode an update, a policy without memory, a Monte-Carlo credit, no baseline or the running average, and
    the score function used once and without a scale, no trajectory is stored: the gradient is added up as the episode
    goes on (`estimators/streaming.py`), and in a batch of runs each goes on as soon as its own episode is over.

    What an environment's score notes of episodes is among the metrics' `notes`, under the names that it has there.

    Args:
        environment: Where episodes are played.
        policy: f; its actions must fit the environment.
        slots: E, in which episodes are collected side by side, see `pgjax.collect`.
        min_steps_per_slot: A slot starts another episode while it has used fewer rows than this; 0 for one each.
        group_size: So many slots beside each other begin with the same X_1, see `leave_one_out`.
        credit: What each step is judged by; `reward_to_go()` if not given.
        baseline: What is subtracted from it; `leave_one_out_by_time()` if not given.
        objective: What is ascended, given the advantages; `score_function()` if not given.
        scale: What is made of all advantages together before, such as `batch_standardized()`; nothing if not given.
        epochs: How often an update goes through what it has collected.
        minibatches: In how many parts it does so: of real steps, or of slots for a policy with memory.
        max_kl: Mean KL(f_old(X_t) ‖ f(X_t)) of a step, in nats, beyond which no epoch begins; noted as `policy_kl`.
        kl_coefficient: Of its sum over an episode, which is taken off the objective.
        optimizer: From the learning rate, a traced number, to an optax transformation; it is given the gradient to
            *descend*, as usual, so `optax.sgd` is θ ← θ + η ∇̂, and as value, if it wants one, minus the mean return.
        chunk: Rows collected at a time.

    Raises:
        InputError: If the policy does not fit the environment, a credit, a baseline and a scale make no estimator
            together, minibatches of whole episodes do not divide the slots, the optimizer cannot be used
            (`check_optimizer`), or a count is out of range; from the first update, what the baseline raises (the
            default one, if there is only one slot), or if a score notes something under the name of a metric.

    Source: the lecture; Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement
    learning*, 1992.
    """
    check_fit(environment, policy)
    check_optimizer(optimizer, policy.init, NOWHERE)
    check_reuse(policy, slots, reuse := Reuse(epochs, minibatches, max_kl, kl_coefficient))
    baseline = leave_one_out_by_time() if baseline is None else baseline
    credit = reward_to_go() if credit is None else credit
    objective = score_function() if objective is None else objective
    judge = judging(environment, policy, credit, baseline, scale)
    init, ascend = beginning(policy, baseline, optimizer), ascending(optimizer)

    def end(state: ReinforceState, trajectory: Trajectory, returns: jax.Array) -> ReinforceState:
        params = state.params if policy.observe is None else policy.observe(state.params, trajectory)
        learned = baseline.update(state.baseline, trajectory, returns)
        return state._replace(iteration=state.iteration + 1, params=params, baseline=learned)

    improve = reusing(policy, objective, differentiating(policy, objective), ascend, reuse)

    def learn(trajectory: Trajectory, state: ReinforceState) -> tuple[ReinforceState, ReinforceMetrics]:
        judged = judge(state.params, state.baseline, trajectory, state.hyperparameters)
        shuffling = jax.random.fold_in(jax.random.fold_in(state.key, SHUFFLING), state.iteration)
        mean_return = jnp.sum(trajectory.reward) / trajectory.episodes
        improved, told = improve(shuffling, state, trajectory, judged, mean_return)
        return end(improved, trajectory, judged.returns), metrics_of(trajectory, told)

    rollout = collect(environment, policy, slots, min_steps_per_slot, chunk, group_size, then=learn)

    def update(state: ReinforceState) -> tuple[ReinforceState, ReinforceMetrics]:
        key = jax.random.fold_in(state.key, state.iteration)
        return rollout(key, state.params, state.hyperparameters.environment, state)

    hyperparameters = numbers_of(ReinforceHyperparameters(environment=strong(environment.params)))
    algorithm = Algorithm(init, update, hyperparameters)
    once = epochs == minibatches == 1 and scale is None and objective is score_function()
    one_episode = slots == 1 and not min_steps_per_slot
    if once and one_episode and needs_no_trajectory(environment, policy, credit, baseline):
        return streaming(algorithm, streaming_gradient(environment, policy, credit, baseline, chunk), ascend, end)
    return algorithm


def streaming(
    algorithm: Algorithm,
    running: StreamingGradient,
    ascend: Callable[[ReinforceState, PyTree, jax.Array], ReinforceState],
    end: Callable[[ReinforceState, Trajectory, jax.Array], ReinforceState],
) -> Algorithm:
    """REINFORCE of one episode an update with its updates cut into steps of some rows each.

    Args:
        algorithm: The same, that stores a trajectory.
        running: What plays the episode.
        ascend: From a state, an estimated gradient and a mean return to the state after an optimizer step.
        end: From that, and a trajectory and its returns for the baseline, to the state of the next update.
    """

    def init(key: jax.Array, hyperparameters: ReinforceHyperparameters) -> ReinforceState:
        state = algorithm.init(key, hyperparameters)
        unused = jax.random.fold_in(state.key, UNUSED)
        return state._replace(episode=running.before(unused, state.params, hyperparameters.environment))

    def step(state: ReinforceState, going: jax.Array) -> tuple[ReinforceState, ReinforceMetrics, jax.Array]:
        key = jax.random.fold_in(state.key, state.iteration)
        episode, over = running.play(key, state.params, state.baseline, state.hyperparameters, state.episode, going)
        played = state._replace(episode=episode)
        metrics = ReinforceMetrics(
            episode_return=episode.reward,
            episodes=jnp.ones_like(episode.reward),
            steps=episode.steps,
            computed=episode.computed,
            entropy=episode.entropy / episode.steps,
            gradient_norm=optax.tree.norm(episode.gradient),
        )

        def updated() -> ReinforceState:
            ascended = ascend(played, episode.gradient, episode.reward)
            following = end(ascended, as_trajectory(episode), episode.so_far[None])
            following = following._replace(episode=running.again(episode))
            return jax.tree.map(lambda new, old: old if new is old else jnp.where(over, new, old), following, played)

        return jax.lax.cond(together(over), updated, lambda: played), metrics, over

    def update(state: ReinforceState) -> tuple[ReinforceState, ReinforceMetrics]:
        def one(
            carry: tuple[ReinforceState, ReinforceMetrics, jax.Array],
        ) -> tuple[ReinforceState, ReinforceMetrics, jax.Array]:
            return step(carry[0], jnp.bool_(True))

        state, metrics, _ = jax.lax.while_loop(lambda carry: ~carry[2], one, step(state, jnp.bool_(True)))
        return state, metrics

    return Algorithm(init=init, update=update, hyperparameters=algorithm.hyperparameters, step=step)
