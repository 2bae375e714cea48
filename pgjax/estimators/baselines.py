"""Baselines: what is subtracted from a return, so that only better than expected counts as good.

A baseline that does not depend on the action it judges leaves the expected gradient as it is, and can lower its
variance.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from pgjax.checks import check_shape
from pgjax.descent import Optimizer, check_optimizer, descend
from pgjax.errors import InputError
from pgjax.policies.base import ValueFunction
from pgjax.segments import map_over_rows, sum_over_steps
from pgjax.steps import dealt_steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class BaselineInit(Protocol):
    """The state of a baseline before the first update."""

    def __call__(self, key: jax.Array, hyperparameters: Any, /) -> PyTree: ...


class Values(Protocol):
    """What is subtracted from the returns of each step, [T, E]."""

    def __call__(self, state: PyTree, trajectory: Trajectory, returns: jax.Array, predictions: Any, /) -> jax.Array: ...


class Learn(Protocol):
    """The state of a baseline after the returns [T, E] of an update."""

    def __call__(self, state: PyTree, trajectory: Trajectory, returns: jax.Array, /) -> PyTree: ...


class Predict(Protocol):
    """v(X_t), [T, E], or Q(X_t, ·), [T, E, A], from the observations alone."""

    def __call__(self, state: PyTree, trajectory: Trajectory, /) -> jax.Array: ...


class OfPolicy(Protocol):
    """What a baseline makes of the policy's parameters, a trajectory and the returns [T, E] of its steps."""

    def __call__(self, params: PyTree, trajectory: Trajectory, returns: jax.Array, /) -> Any: ...


class Baseline(NamedTuple):
    """A baseline, as pure functions.

    `init(key, hyperparameters) -> state`; `values(state, trajectory, returns[T, E], predictions) -> [T, E]`, what to
    subtract from the returns; `update(state, trajectory, returns) -> state`, called once an update, after `values`.

    A baseline that predicts from the observations alone, before any return is known, does so by one of two more:
    `state_values(state, trajectory) -> [T, E]`, v(X_t), or `action_values(state, trajectory) -> [T, E, A]`, Q(X_t, ·),
    both for every row, those with final observations included. `values` is given what it says as `predictions`. A
    baseline that depends on the action it judges biases the estimate, unless Σ_a ∇f(X_t)_a Q(X_t, a) is added to it:
    where there are action values, that is done.

    A baseline that looks at the policy itself has `of_policy(params, trajectory, returns)`; what that returns is what
    `values` is given as predictions. One that knows how large returns are can say so by `spread(state) -> []`:
    advantages are divided by it.

    A baseline that learns from G_1 alone and is the same at every step needs no trajectory, and says so by `online`.
    """

    init: BaselineInit
    values: Values
    update: Learn
    state_values: Predict | None = None
    action_values: Predict | None = None
    online: bool = False
    of_policy: OfPolicy | None = None
    spread: Callable[[PyTree], jax.Array] | None = None


def _nothing(*_: Any) -> tuple[()]:
    return ()


def no_baseline() -> Baseline:
    """The baseline that is 0."""
    return Baseline(_nothing, lambda state, trajectory, returns, _: jnp.zeros_like(returns), _nothing, online=True)


class RunningAverage(NamedTuple):
    """The lecture's ρ̂, and how slowly it moves."""

    rho_hat: jax.Array  # []
    beta: jax.Array  # []


def running_average() -> Baseline:
    """The baseline that is the lecture's ρ̂: 0 at first, and ρ̂ ← β ρ̂ + (1 − β) G_1 after each update.

    β is the hyper-parameter `baseline_decay`. With several episodes an update, G_1 is their mean. An update uses the ρ̂
    of before it, which has not seen the actions it judges.
    """

    def init(key: jax.Array, hyperparameters: Any) -> RunningAverage:
        return RunningAverage(jnp.zeros(()), hyperparameters.baseline_decay)

    def values(state: RunningAverage, trajectory: Trajectory, returns: jax.Array, _: Any) -> jax.Array:
        return jnp.broadcast_to(state.rho_hat, returns.shape)

    def update(state: RunningAverage, trajectory: Trajectory, returns: jax.Array) -> RunningAverage:
        rho = jnp.sum(jnp.where(trajectory.first, returns, 0)) / trajectory.episodes
        return state._replace(rho_hat=state.beta * state.rho_hat + (1 - state.beta) * rho)

    return Baseline(init, values, update, online=True)


def given_values(table: jax.Array) -> Baseline:
    """The baseline v given by a table: [S], or [T, S] where it depends on the step of the episode.

    With the exact v of `pgjax.exact.solve` it is the ideal that a learned one comes near to. For a state that is not in
    the table it is NaN; steps beyond T have the last one's row.

    Raises:
        InputError: When it is called, if the table has neither one axis nor two.
    """

    def state_values(state: PyTree, trajectory: Trajectory) -> jax.Array:
        return _look_up(table, 1, trajectory)

    return Baseline(
        init=_nothing,
        values=lambda state, trajectory, returns, predictions: predictions,
        update=_nothing,
        state_values=state_values,
    )


def given_action_values(table: jax.Array) -> Baseline:
    """What makes the expected policy gradient Σ_a ∇f(X_t)_a Q(X_t, a), with Q given by a table, [S, A] or [T, S, A].

    Raises:
        InputError: When it is called, if the table has neither two axes nor three.

    Source: see `expected_policy_gradient`.
    """

    def action_values(state: PyTree, trajectory: Trajectory) -> jax.Array:
        return _look_up(table, 2, trajectory)

    return Baseline(_nothing, lambda state, trajectory, returns, _: returns, _nothing, action_values=action_values)


def _look_up(table: Any, axes: int, trajectory: Trajectory) -> jax.Array:
    """A row of the table for each observation, NaN where it has none."""
    values = jnp.asarray(table)
    if values.ndim not in (axes, axes + 1):
        raise InputError(f"expected a table of {axes} or, by time, {axes + 1} axes, got one of shape {values.shape}")
    if values.ndim == axes:
        return values.at[trajectory.observation].get(mode="fill", fill_value=jnp.nan)
    time = jnp.minimum(trajectory.time, values.shape[0] - 1)  # a final observation is one step beyond
    return values.at[time, trajectory.observation].get(mode="fill", fill_value=jnp.nan)


class Learned(NamedTuple):
    """A learned value function: μ + σ · network, with the mean μ and the spread σ of the returns so far."""

    params: PyTree
    optimizer: PyTree
    learning_rate: jax.Array  # []
    beta: jax.Array  # []
    moments: jax.Array  # [3], running averages of 1, the return and its square, from 0


def _scale(moments: jax.Array) -> tuple[jax.Array, jax.Array]:
    """μ and σ of the returns so far; 0 and 1 before there are any."""
    weight, total, square = moments
    known = weight > 0
    mean = jnp.where(known, total / jnp.where(known, weight, 1), 0)
    variance = jnp.where(known, square / jnp.where(known, weight, 1) - mean**2, 1)
    return mean, jnp.sqrt(jnp.maximum(variance, 1e-6 * (1 + mean**2)))


def _learned(
    value: ValueFunction,
    optimizer: Optimizer,
    steps: int,
    minibatches: int,
    judged: Callable[[jax.Array, Trajectory], jax.Array],
) -> tuple[Callable[..., Learned], Callable[..., jax.Array], Callable[..., Learned]]:
    """Init, predict and update of a value function; `judged` picks what the returns are compared with."""
    for name, number in {"gradient steps an update": steps, "minibatches": minibatches}.items():
        if number < 1:
            raise InputError(f"expected 1 or more {name} for a learned value, got {number}")
    check_optimizer(optimizer, value.init)

    def init(key: jax.Array, hyperparameters: Any) -> Learned:
        params, eta = value.init(key), hyperparameters.value_learning_rate
        return Learned(
            params=params,
            optimizer=optimizer(eta).init(params),
            learning_rate=eta,
            beta=hyperparameters.baseline_decay,
            moments=jnp.zeros(3),
        )

    def predict(state: Learned, trajectory: Trajectory) -> jax.Array:
        def unrolled(rows: Trajectory) -> jax.Array:
            return value.unroll(state.params, rows)

        mean, spread = _scale(state.moments)
        return mean + spread * (map_over_rows(unrolled, trajectory) if value.memoryless else unrolled(trajectory))

    def update(state: Learned, trajectory: Trajectory, returns: jax.Array) -> Learned:
        count = jnp.sum(trajectory.mask, dtype=returns.dtype)
        sums = jnp.stack([count, jnp.sum(returns), jnp.sum(returns**2)])
        moments = state.beta * state.moments + (1 - state.beta) * sums / count
        mean, spread = _scale(moments)

        targets = (returns - mean) / spread

        def loss(params: PyTree, rows: Trajectory, targets: jax.Array) -> jax.Array:
            values = judged(value.unroll(params, rows), rows)
            check_shape("the values of the states of a trajectory", values, targets.shape)
            return 0.5 * jnp.sum(jnp.where(rows.mask, (values - targets) ** 2, 0))

        part = dealt_steps(trajectory, minibatches) if value.memoryless and minibatches > 1 else None

        def one_step(i: jax.Array, learned: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            params, optimizer_state = learned

            def derivative(rows: Trajectory, targets: jax.Array) -> tuple[jax.Array, PyTree]:
                return jax.value_and_grad(loss)(params, rows, targets)

            some = None if part is None else part(i % minibatches)
            found = (
                sum_over_steps(derivative, trajectory, targets, steps=some)
                if value.memoryless
                else derivative(trajectory, targets)
            )
            number = count if some is None else some.number
            error, descent = jax.tree.map(lambda total: total / number, found)
            return descend(optimizer(state.learning_rate), descent, optimizer_state, params, error)

        known = state.params if value.observe is None else value.observe(state.params, trajectory)
        params, optimizer_state = jax.lax.fori_loop(0, steps, one_step, (known, state.optimizer))
        return Learned(
            params=params,
            optimizer=optimizer_state,
            learning_rate=state.learning_rate,
            beta=state.beta,
            moments=moments,
        )

    return init, predict, update


def _of_the_action(values: jax.Array, trajectory: Trajectory) -> jax.Array:
    """Q(X_t, A_t), [T, E], of Q(X_t, ·), [T, E, A]."""
    return jnp.take_along_axis(values, trajectory.action[..., None], axis=-1)[..., 0]


def learned_value(
    value: ValueFunction, *, optimizer: Optimizer = optax.adam, steps: int = 5, minibatches: int = 1
) -> Baseline:
    """The baseline v(X_t) that is learned, by regression on the returns that the credit gives.

    An update uses the v of before it, which has not seen the actions it judges; then it takes some gradient steps on
    the mean squared error over all steps of the trajectory, or each over one of some minibatches in turn: five on five
    of them cost little more than one over all. The network predicts in units of the returns' running mean
    and spread (which forget as fast as the hyper-parameter `baseline_decay` says), so that its learning rate, the
    hyper-parameter `value_learning_rate`, does not depend on the scale of rewards.

    With the credit `lambda_return` this is actor-critic with the generalised advantage estimate.

    Args:
        value: Its function, such as `pgjax.value_for(environment)`.
        optimizer: From the learning rate, a traced number, to an optax transformation.
        steps: Gradient steps an update, at least 1.
        minibatches: In how many parts they go through the steps of the trajectory, at least 1 (`dealt_steps`). A value
            function with memory sees episodes whole, and ignores it.

    Raises:
        InputError: If there are no steps or no minibatches.

    Source: the lecture's G_t − v(X_t); Sutton & Barto, *Reinforcement Learning*, 2018, §13.4 and §13.5.
    """
    init, predict, update = _learned(value, optimizer, steps, minibatches, lambda values, trajectory: values)
    return Baseline(init, lambda state, trajectory, returns, predictions: predictions, update, state_values=predict)


def learned_action_value(
    value: ValueFunction, *, optimizer: Optimizer = optax.adam, steps: int = 5, minibatches: int = 1
) -> Baseline:
    """The baseline Q(X_t, A_t) that is learned, with Σ_a ∇f(X_t)_a Q(X_t, a) added for what it takes away.

    It is as unbiased as the credit, whatever Q is, and if Q is exact the action itself brings no variance any more.
    Arguments, learning and errors are those of `learned_value`, with a value for each action (`action_value_for`).

    Source: Gu et al., *Q-Prop: sample-efficient policy gradient with an off-policy critic*, 2017.
    """
    init, predict, update = _learned(value, optimizer, steps, minibatches, _of_the_action)

    def values(state: Learned, trajectory: Trajectory, returns: jax.Array, predictions: jax.Array) -> jax.Array:
        return _of_the_action(predictions, trajectory)

    return Baseline(init, values, update, action_values=predict)


def expected_policy_gradient(
    value: ValueFunction, *, optimizer: Optimizer = optax.adam, steps: int = 5, minibatches: int = 1
) -> Baseline:
    """What makes the expected policy gradient: Σ_a ∇f(X_t)_a Q(X_t, a), with a Q that is learned.

    It subtracts all that was sampled, so that only the learned Q moves the policy; the returns of the credit are what Q
    is fitted to. Its bias is that of Q. Arguments, learning and errors are those of `learned_action_value`.

    Source: Sutton et al., *Policy gradient methods for reinforcement learning with function approximation*, 2000;
    Asadi et al., *Mean actor critic*, 2017.
    """
    init, predict, update = _learned(value, optimizer, steps, minibatches, _of_the_action)
    return Baseline(init, lambda state, trajectory, returns, _: returns, update, action_values=predict)
