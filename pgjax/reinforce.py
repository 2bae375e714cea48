"""REINFORCE: make episodes more likely in proportion to how much better than expected they were."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.algorithm import Algorithm, by_name
from pgjax.baselines import Baseline, leave_one_out_by_time
from pgjax.checks import check_shape
from pgjax.descent import Optimizer, check_optimizer, descend
from pgjax.eligibility import Eligibility, as_trajectory, eligibility, needs_no_trajectory
from pgjax.environments.environment import Discrete, Environment, PyTree, strong
from pgjax.errors import InputError
from pgjax.hyperparameters import numbers_of
from pgjax.policies.policy import Policy, check_fit, has_memory
from pgjax.returns import Credit, reward_to_go
from pgjax.rollout import Trajectory, collect, map_over_rows, sum_over_steps, together


class Hyperparameters(NamedTuple):
    """The numbers of a REINFORCE run; all are traced, so any can be swept. Each is a scalar but for `environment`."""

    learning_rate: Any = 3e-3  # η
    baseline_decay: Any = 0.9  # β of the running average, and of the scale of a learned value
    discount: Any = 1.0  # γ
    trace_decay: Any = 0.95  # λ of the λ-returns
    value_learning_rate: Any = 1e-2  # η of a learned value
    entropy_coefficient: Any = 0.0
    environment: PyTree = ()  # the environment's params


class State(NamedTuple):
    """What a REINFORCE run carries."""

    key: jax.Array  # the run's own, never used up: iteration i draws from fold_in(key, i)
    iteration: jax.Array  # [] int32
    hyperparameters: Hyperparameters
    params: PyTree  # θ
    optimizer: PyTree
    baseline: PyTree
    episode: PyTree = ()  # the one that is running, where its gradient is added up meanwhile (`pgjax.eligibility`)


class Metrics(NamedTuple):
    """What one update of REINFORCE reports; each a float scalar."""

    episode_return: jax.Array  # mean of Σ_t R_{t+1} over the update's episodes, undiscounted
    episodes: jax.Array  # how many they were
    steps: jax.Array  # real environment steps in them
    computed: jax.Array  # environment steps computed for them, padding included, which other runs of a batch may cause
    entropy: jax.Array  # mean over those steps, in nats
    gradient_norm: jax.Array  # of the estimate, before the optimizer
    notes: Mapping[str, jax.Array] = {}  # what a score noted, by name: the sum over an episode, their mean


class Estimate(NamedTuple):
    """What one trajectory says of ∇ρ(θ)."""

    gradient: PyTree  # like params
    returns: jax.Array  # [T, E], the credit of each step, which a baseline learns from
    entropy: jax.Array  # [], mean over real steps, in nats


def check_baseline(environment: Environment, credit: Credit, baseline: Baseline) -> None:
    """Raise if a credit and a baseline make no estimator together.

    Raises:
        InputError: If the credit bootstraps and the baseline predicts nothing to bootstrap from, if the baseline has a
            value for each action where actions are continuous, or if it predicts in both ways.
    """
    if credit.bootstraps and baseline.state_values is None and baseline.action_values is None:
        raise InputError(
            "expected a baseline that predicts v(X_t) or Q(X_t, ·) (such as learned_value) for a credit that "
            "bootstraps, got one that predicts nothing"
        )
    if baseline.state_values is not None and baseline.action_values is not None:
        raise InputError("expected a baseline that predicts v(X_t) or Q(X_t, ·), got one that predicts both")
    if baseline.action_values is not None and not isinstance(environment.action_space, Discrete):
        raise InputError(
            f"expected discrete actions for a baseline with a value for each, got {environment.name} with actions of "
            f"{type(environment.action_space).__name__}"
        )


def policy_gradient(
    environment: Environment, policy: Policy, credit: Credit, baseline: Baseline
) -> Callable[[PyTree, PyTree, Trajectory, Hyperparameters], Estimate]:
    """Return a function (params, baseline state, trajectory, hyperparameters) -> Estimate of ∇ρ(θ).

    The estimate, to ascend, is

        1/E Σ_episodes Σ_t weight_t (credit_t − baseline_t) ∇ ln f(X_t, θ)_{A_t} + c ∇ H(f(X_t, θ))

    and, for a baseline with action values Q, + weight_t Σ_a ∇f(X_t, θ)_a Q(X_t, a).

    Raises:
        InputError: See `check_baseline`; when it is called, if what the credit or the baseline returns has another
            shape than [T, E] (of action values, [T, E, A]).

    Source: the lecture; Sutton, McAllester, Singh & Mansour, *Policy gradient methods for reinforcement learning with
    function approximation*, 2000.
    """
    check_baseline(environment, credit, baseline)
    per_action: tuple[int, ...] = ()
    if baseline.action_values is not None and isinstance(environment.action_space, Discrete):
        per_action = (environment.action_space.n,)

    def state_values(params: PyTree, trajectory: Trajectory, predictions: Any) -> jax.Array:
        """Return v(X_t) [T, E], for every row: what is predicted of it, or of its actions under the policy."""
        if baseline.state_values is not None:
            return predictions

        def expected(rows: Trajectory, Q: jax.Array) -> jax.Array:
            return policy.unroll(params, rows).expectation(Q)  # type: ignore[attr-defined]

        if has_memory(policy):
            return expected(trajectory, predictions)
        return map_over_rows(expected, trajectory, predictions)

    def objective(
        params: PyTree, coefficient: jax.Array, trajectory: Trajectory, advantage: jax.Array, weight: jax.Array, Q: Any
    ) -> Any:
        """Return the sum whose gradient is the estimate, and the entropy summed over real steps."""
        distribution = policy.unroll(params, trajectory)
        entropy = jnp.sum(jnp.where(trajectory.mask, distribution.entropy(), 0))
        log_prob = jnp.where(trajectory.mask, distribution.log_prob(trajectory.action), 0)  # −∞ in padding, perhaps
        total = jnp.sum(weight * advantage * log_prob) + coefficient * entropy
        if Q is not None:
            total += jnp.sum(weight * distribution.expectation(Q))  # type: ignore[attr-defined]
        return total, entropy

    def estimate(
        params: PyTree, baseline_state: PyTree, trajectory: Trajectory, hyperparameters: Hyperparameters
    ) -> Estimate:
        shape, predict = trajectory.reward.shape, baseline.state_values or baseline.action_values
        predictions = None if predict is None else predict(baseline_state, trajectory)
        if predictions is not None:
            kind = "action" if per_action else "state"
            check_shape(f"the {kind} values that the baseline predicts", predictions, shape + per_action)
        next_values = None
        if credit.bootstraps:
            values = state_values(params, trajectory, predictions)
            next_values = jnp.where(trajectory.terminated, 0, jnp.roll(values, -1, axis=0))
        returns = credit.returns(trajectory, hyperparameters, next_values)
        check_shape("the returns of the credit", returns, shape)
        subtracted = baseline.values(baseline_state, trajectory, returns, predictions)
        check_shape("the values of the baseline", subtracted, shape)
        weight = credit.weight(trajectory, hyperparameters)
        check_shape("the weights of the credit", weight, shape)
        advantage = jnp.where(trajectory.mask, returns - subtracted, 0)
        weight = jnp.where(trajectory.mask, weight, 0)
        Q = () if baseline.action_values is None else (predictions,)

        def derivative(rows: Trajectory, advantage: jax.Array, weight: jax.Array, *Q: jax.Array) -> Any:
            coefficient = hyperparameters.entropy_coefficient
            return jax.grad(objective, has_aux=True)(params, coefficient, rows, advantage, weight, *(Q or (None,)))

        if has_memory(policy):  # an episode is differentiated whole
            total, entropy = derivative(trajectory, advantage, weight, *Q)
        else:
            total, entropy = sum_over_steps(derivative, trajectory, advantage, weight, *Q)
        E = trajectory.reward.shape[1]
        return Estimate(jax.tree.map(lambda leaf: leaf / E, total), returns, entropy / jnp.sum(trajectory.mask))

    return estimate


def reinforce(
    environment: Environment,
    policy: Policy,
    *,
    episodes: int = 16,
    steps: int = 0,
    same_start: int = 1,
    credit: Credit | None = None,
    baseline: Baseline | None = None,
    optimizer: Optimizer = optax.adam,
    chunk: int = 16,
) -> Algorithm:
    """Return the REINFORCE algorithm: its numbers are `Hyperparameters`, it carries a `State`, and reports `Metrics`.

    An update collects episodes, estimates ∇ρ(θ) from them (`policy_gradient`), and gives that to the optimizer. With
    one episode a slot the estimate is the mean over E episodes. With a budget of steps it is, in expectation,
    E[episodes of a slot] times as long: the direction stays, and the length grows with the number of episodes; dividing
    by that random number instead would be a ratio estimator, with a bias.

    With one episode an update, a policy without memory, a Monte-Carlo credit and no baseline or the running average, no
    trajectory is stored: the gradient is added up as the episode goes on (`pgjax.eligibility`), and in a batch of runs
    each goes on as soon as its own episode is over.

    What an environment's score notes of episodes is among the metrics' `notes`, under the names that it has there.

    A method is a choice of credit and baseline:

    - the lecture's REINFORCE(θ, η, β, max_iters): `whole_episode()` and `running_average()`, with `episodes=1` and
      `optimizer=optax.sgd`;
    - its "more common gradient estimate", G_t − v(X_t): `reward_to_go()` and
      `learned_value(value_for(environment))`;
    - actor-critic with GAE(λ): `lambda_return()` and `learned_value(value_for(environment))`;
    - the all-action estimator Σ_a ∇f(X_t)_a Q(X_t, a): `lambda_return()`, which Q is fitted to, and
      `all_actions(action_value_for(environment))`.

    Args:
        environment: Where episodes are played.
        policy: f; its actions must fit the environment.
        episodes: E, slots collected side by side, see `pgjax.collect`.
        steps: A slot starts another episode while it has used fewer rows than this; 0 for one episode a slot.
        same_start: So many slots beside each other begin with the same X_1, see `leave_one_out`.
        credit: What each step is judged by; `reward_to_go()` if not given.
        baseline: What is subtracted from it; `leave_one_out_by_time()` if not given.
        optimizer: From the learning rate, a traced number, to an optax transformation; it is given the gradient to
            *descend*, as usual, so `optax.sgd` is θ ← θ + η ∇̂, and as value, if it wants one, minus the mean return.
        chunk: Rows collected at a time.

    Raises:
        InputError: If the policy does not fit the environment, a credit and a baseline make no estimator together, the
            optimizer cannot be used (`check_optimizer`), or a count is out of range; from the first update, what the
            baseline raises (the default one, if there is only one slot), or if a score notes something under the name
            of a metric.

    Source: the lecture; Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement
    learning*, 1992.
    """
    check_fit(environment, policy)
    check_optimizer(optimizer, policy.init)
    baseline = leave_one_out_by_time() if baseline is None else baseline
    credit = reward_to_go() if credit is None else credit
    estimator = policy_gradient(environment, policy, credit, baseline)

    def init(key: jax.Array, hyperparameters: Hyperparameters) -> State:
        key, params_key, baseline_key = jax.random.split(key, 3)
        params = policy.init(params_key)
        return State(
            key,
            jnp.int32(0),
            hyperparameters._replace(environment=strong(hyperparameters.environment)),
            params,
            optimizer(hyperparameters.learning_rate).init(params),
            baseline.init(baseline_key, hyperparameters),
        )

    def ascend(
        state: State, gradient: PyTree, mean_return: jax.Array, trajectory: Trajectory, returns: jax.Array
    ) -> State:
        chosen = optimizer(state.hyperparameters.learning_rate)
        descent = jax.tree.map(jnp.negative, gradient)
        params, optimizer_state = descend(chosen, descent, state.optimizer, state.params, value=-mean_return)
        return state._replace(
            iteration=state.iteration + 1,
            params=params,
            optimizer=optimizer_state,
            baseline=baseline.update(state.baseline, trajectory, returns),
        )

    def learn(trajectory: Trajectory, state: State) -> tuple[State, Metrics]:
        estimate = estimator(state.params, state.baseline, trajectory, state.hyperparameters)
        dtype = trajectory.reward.dtype
        metrics = Metrics(
            episode_return=jnp.sum(trajectory.reward) / trajectory.episodes,
            episodes=trajectory.episodes,
            steps=jnp.sum(trajectory.mask, dtype=dtype),
            computed=jnp.asarray(trajectory.rows * episodes, dtype),
            entropy=estimate.entropy,
            gradient_norm=optax.tree.norm(estimate.gradient),
            notes={name: jnp.sum(note) / trajectory.episodes for name, note in trajectory.notes.items()},
        )
        by_name(metrics)  # which refuses a note with the name of a metric
        following = ascend(state, estimate.gradient, metrics.episode_return, trajectory, estimate.returns)
        return following, metrics

    rollout = collect(environment, policy, episodes, steps, chunk, same_start, then=learn)

    def update(state: State) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.iteration)
        return rollout(key, state.params, state.hyperparameters.environment, state)

    hyperparameters = numbers_of(Hyperparameters(environment=strong(environment.params)))
    algorithm = Algorithm(init, update, hyperparameters)
    if episodes == 1 and not steps and needs_no_trajectory(environment, policy, credit, baseline):
        return by_eligibility(algorithm, eligibility(environment, policy, credit, baseline, chunk), ascend)
    return algorithm


def by_eligibility(
    algorithm: Algorithm,
    running: Eligibility,
    ascend: Callable[[State, PyTree, jax.Array, Trajectory, jax.Array], State],
) -> Algorithm:
    """Return REINFORCE of one episode an update with its updates cut into steps of some rows each.

    Args:
        algorithm: The same, that stores a trajectory.
        running: What plays the episode.
        ascend: From a state, an estimated gradient, a mean return, and a trajectory and its returns for the baseline,
            to the next state.
    """

    def init(key: jax.Array, hyperparameters: Hyperparameters) -> State:
        state = algorithm.init(key, hyperparameters)
        unused = jax.random.fold_in(state.key, np.uint32(2**32 - 1))  # that of no iteration
        return state._replace(episode=running.before(unused, state.params, hyperparameters.environment))

    def step(state: State, going: jax.Array) -> tuple[State, Metrics, jax.Array]:
        key = jax.random.fold_in(state.key, state.iteration)
        episode, over = running.play(key, state.params, state.baseline, state.hyperparameters, state.episode, going)
        played = state._replace(episode=episode)
        metrics = Metrics(
            episode.reward,
            jnp.ones_like(episode.reward),
            episode.steps,
            episode.computed,
            episode.entropy / episode.steps,
            optax.tree.norm(episode.gradient),
        )

        def updated() -> State:
            following = ascend(played, episode.gradient, episode.reward, as_trajectory(episode), episode.so_far[None])
            following = following._replace(episode=running.again(episode))
            return jax.tree.map(lambda new, old: old if new is old else jnp.where(over, new, old), following, played)

        return jax.lax.cond(together(over), updated, lambda: played), metrics, over

    def update(state: State) -> tuple[State, Metrics]:
        def one(carry: tuple[State, Metrics, jax.Array]) -> tuple[State, Metrics, jax.Array]:
            return step(carry[0], jnp.bool_(True))

        state, metrics, _ = jax.lax.while_loop(lambda carry: ~carry[2], one, step(state, jnp.bool_(True)))
        return state, metrics

    return Algorithm(init, update, algorithm.hyperparameters, step)
