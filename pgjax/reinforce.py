"""REINFORCE: make episodes more likely in proportion to how much better than expected they were."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax.algorithm import Algorithm
from pgjax.baselines import Baseline, leave_one_out_by_time
from pgjax.environments.environment import Environment, PyTree, strong
from pgjax.policies.policy import Policy, check_fit, has_memory
from pgjax.returns import Credit, reward_to_go
from pgjax.rollout import Trajectory, collect, part


class Hyperparameters(NamedTuple):
    """The numbers of a REINFORCE run; all are traced, so any can be swept. Each is a scalar but for `environment`."""

    learning_rate: Any  # η
    baseline_decay: Any  # β of the running average
    discount: Any  # γ
    entropy_coefficient: Any
    environment: PyTree  # the environment's params


class State(NamedTuple):
    """What a REINFORCE run carries."""

    key: jax.Array  # the run's own, never used up: iteration i draws from fold_in(key, i)
    iteration: jax.Array  # [] int32
    hyperparameters: Hyperparameters
    params: PyTree  # θ
    optimizer: PyTree
    baseline: PyTree


class Metrics(NamedTuple):
    """What one update of REINFORCE reports; each a float32 scalar."""

    episode_return: jax.Array  # mean of Σ_t R_{t+1} over the update's episodes, undiscounted
    episodes: jax.Array  # how many they were
    steps: jax.Array  # real environment steps in them
    entropy: jax.Array  # mean over those steps, in nats
    gradient_norm: jax.Array  # of the estimate, before the optimizer


def reinforce(
    environment: Environment,
    policy: Policy,
    *,
    episodes: int = 16,
    steps: int = 0,
    credit: Credit = reward_to_go,
    baseline: Baseline | None = None,
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
    chunk: int = 16,
) -> Algorithm:
    """Return the REINFORCE algorithm.

    An update collects episodes and gives the optimizer, as the gradient to ascend,

        1/E Σ_episodes Σ_t (credit_t − baseline_t) ∇ ln f(X_t, θ)_{A_t} + c ∇ H(f(X_t, θ)).

    With one episode a slot it is the mean over E episodes, and an unbiased estimate of ∇ρ(θ) (c = 0). With a budget of
    steps it is E[episodes of a slot] · ∇ρ(θ) in expectation: the direction is unbiased, and the length grows with the
    number of episodes; dividing by that random number instead would be a ratio estimator, with a bias.

    The lecture's REINFORCE(θ, η, β, max_iters) is `reinforce(environment, policy, episodes=1, credit=whole_episode,
    baseline=running_average(), optimizer=optax.sgd)`.

    Args:
        environment: Where episodes are played.
        policy: f; its actions must fit the environment.
        episodes: E, slots collected side by side, see `pgjax.collect`.
        steps: A slot starts another episode while it has used fewer rows than this; 0 for one episode a slot.
        credit: What each step is judged by.
        baseline: What is subtracted from it; `leave_one_out_by_time()` if not given.
        optimizer: From the learning rate, a traced number, to an optax transformation; it is given the gradient to
            *descend*, as usual, so `optax.sgd` is θ ← θ + η ∇̂.
        chunk: Rows collected, and differentiated, at a time.

    Raises:
        InputError: If the policy does not fit the environment or a count is out of range.

    Source: the lecture; Williams 1992.
    """
    check_fit(environment, policy)
    baseline = leave_one_out_by_time() if baseline is None else baseline
    rollout = collect(environment, policy, episodes, steps, chunk)
    chunk = min(chunk, environment.horizon)

    def hyperparameters(
        learning_rate: Any = 3e-3,
        baseline_decay: Any = 0.9,
        discount: Any = 1.0,
        entropy_coefficient: Any = 0.0,
        environment: PyTree = environment.params,
    ) -> Hyperparameters:
        return Hyperparameters(
            jnp.asarray(learning_rate, float),
            jnp.asarray(baseline_decay, float),
            jnp.asarray(discount, float),
            jnp.asarray(entropy_coefficient, float),
            strong(environment),
        )

    def init(key: jax.Array, hyperparameters: Hyperparameters) -> State:
        key, params_key, baseline_key = jax.random.split(key, 3)
        params = policy.init(params_key)
        return State(
            key,
            jnp.int32(0),
            hyperparameters,
            params,
            optimizer(hyperparameters.learning_rate).init(params),
            baseline.init(baseline_key, hyperparameters),
        )

    def objective(params: PyTree, trajectory: Trajectory, weight: jax.Array, coefficient: jax.Array) -> Any:
        """Return the sum whose gradient is the estimate, and the entropy summed over real steps."""
        distribution = policy.unroll(params, trajectory)
        entropy = jnp.sum(jnp.where(trajectory.mask, distribution.entropy(), 0))
        return jnp.sum(weight * distribution.log_prob(trajectory.action)) + coefficient * entropy, entropy

    def gradient(state: State, trajectory: Trajectory, weight: jax.Array) -> tuple[PyTree, jax.Array]:
        """Return the estimate of ∇ρ(θ), and the mean entropy."""
        derivative = jax.grad(objective, has_aux=True)
        coefficient = state.hyperparameters.entropy_coefficient
        if has_memory(policy):  # an episode is differentiated whole
            estimate, entropy = derivative(state.params, trajectory, weight, coefficient)
        else:  # the sum over steps is a sum over the chunks in use

            def add_chunk(i: jax.Array, total: PyTree) -> PyTree:
                rows, weights = part((trajectory, weight), i * chunk, chunk)
                return jax.tree.map(jnp.add, total, derivative(state.params, rows, weights, coefficient))

            zero = (jax.tree.map(jnp.zeros_like, state.params), jnp.zeros((), weight.dtype))
            estimate, entropy = jax.lax.fori_loop(0, trajectory.rows // chunk, add_chunk, zero)
        return jax.tree.map(lambda leaf: leaf / episodes, estimate), entropy / jnp.sum(trajectory.mask)

    def update(state: State) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.iteration)
        trajectory = rollout(key, state.params, state.hyperparameters.environment)
        returns = credit(trajectory, state.hyperparameters.discount)
        advantage = returns - baseline.values(state.baseline, trajectory, returns)
        estimate, entropy = gradient(state, trajectory, jnp.where(trajectory.mask, advantage, 0))

        descent = jax.tree.map(jnp.negative, estimate)
        optimize = optimizer(state.hyperparameters.learning_rate)
        step, optimizer_state = optimize.update(descent, state.optimizer, state.params)
        metrics = Metrics(
            jnp.sum(trajectory.reward) / trajectory.episodes,
            trajectory.episodes,
            jnp.sum(trajectory.mask, dtype=trajectory.reward.dtype),
            entropy,
            optax.tree.norm(estimate),
        )
        state = state._replace(
            iteration=state.iteration + 1,
            params=optax.apply_updates(state.params, step),
            optimizer=optimizer_state,
            baseline=baseline.update(state.baseline, trajectory, returns),
        )
        return state, metrics

    return Algorithm(init, update, hyperparameters)
