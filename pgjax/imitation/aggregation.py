"""DAgger: let the agent act, ask the expert there, and fit the agent to all the answers so far."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax.algorithms.base import Algorithm
from pgjax.batching import choose
from pgjax.checks import check_shape
from pgjax.descent import Optimizer
from pgjax.environments.base import Environment, strong
from pgjax.errors import InputError
from pgjax.hyperparameters import numbers_of
from pgjax.imitation.demonstrations import Demonstrations
from pgjax.imitation.distances import Distance, check_distance, negative_log_likelihood
from pgjax.imitation.experts import Expert
from pgjax.imitation.fitting import examples_of, fitting
from pgjax.imitation.labels import labelled
from pgjax.policies.base import Policy, check_fit, has_memory
from pgjax.policies.distributions import Distribution
from pgjax.rollout import collect
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Mixture(NamedTuple):
    """One of two distributions, chosen anew for each action."""

    beta: jax.Array  # [...], probability of the first
    first: Any  # Distribution [...]
    second: Any  # Distribution [...], of the same actions

    def sample(self, key: jax.Array) -> jax.Array:
        """Draw one action for each batch element."""
        which, one, other = jax.random.split(key, 3)
        return choose(jax.random.bernoulli(which, self.beta), self.first.sample(one), self.second.sample(other))

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Ln(β f(a) + (1 − β) g(a)), [...]; of one that is certain, β is 0 or 1, the other's say is nothing."""
        first, second = self.first.log_prob(action), self.second.log_prob(action)
        mixed = jnp.logaddexp(jnp.log(self.beta) + first, jnp.log1p(-self.beta) + second)
        return jnp.where(self.beta <= 0, second, jnp.where(self.beta >= 1, first, mixed))

    def entropy(self) -> jax.Array:
        """Raise an InputError, as it has no closed form."""
        raise InputError("expected a distribution with an entropy in closed form, got a mixture")


def mixture(expert: Policy, learner: Policy) -> Policy:
    """The policy that at each step acts as the expert with probability β, else as the learner.

    Its parameters are (β, the expert's, the learner's), β a scalar; it remembers what either of them does.
    """

    def step(params: PyTree, memory: PyTree, observation: Any) -> tuple[PyTree, Distribution]:
        beta, of_expert, of_learner = params
        ours, first = expert.step(of_expert, memory[0], observation)
        theirs, second = learner.step(of_learner, memory[1], observation)
        return (ours, theirs), mixed(beta, first, second)

    def unroll(params: PyTree, trajectory: Any) -> Distribution:
        beta, of_expert, of_learner = params
        return mixed(beta, expert.unroll(of_expert, trajectory), learner.unroll(of_learner, trajectory))

    def mixed(beta: jax.Array, first: Distribution, second: Distribution) -> Mixture:
        batch = jax.eval_shape(lambda key: second.log_prob(second.sample(key)), jax.random.key(0)).shape
        return Mixture(jnp.broadcast_to(beta, batch), first, second)

    def init(key: jax.Array) -> PyTree:
        first, second = jax.random.split(key)
        return jnp.ones(()), expert.init(first), learner.init(second)

    return Policy(
        init=init, memory=lambda episodes: (expert.memory(episodes), learner.memory(episodes)), step=step, unroll=unroll
    )


class Buffer(NamedTuple):
    """A uniform sample of the examples that were ever put in: all of them, until there are more than it holds.

    Each example gets a random priority, and those with the highest stay. Source: Vitter, *Random sampling with a
    reservoir*, 1985; by priorities: Efraimidis & Spirakis, *Weighted random sampling with a reservoir*, 2006.
    """

    examples: Demonstrations  # [T, C]
    priority: jax.Array  # [C], from highest to lowest; −1 where there is none

    @property
    def filled(self) -> jax.Array:
        """How many examples there are, the first ones; [] int32."""
        return jnp.sum(self.priority >= 0, dtype=jnp.int32)


def empty_buffer(examples: Demonstrations, capacity: int) -> Buffer:
    """A buffer for so many examples of the shapes of these, [T, M]."""

    def empty(leaf: Any) -> jax.Array:
        return jnp.zeros((leaf.shape[0], capacity, *leaf.shape[2:]), leaf.dtype)

    return Buffer(jax.tree.map(empty, examples), jnp.full(capacity, -1, jnp.result_type(float)))


def add(buffer: Buffer, examples: Demonstrations, key: jax.Array) -> Buffer:
    """The buffer after some examples [T, M] were put in; those without a known action are not."""
    known = jnp.any(examples.mask, axis=0)
    priority = jnp.where(known, jax.random.uniform(key, known.shape), -1.0)
    both = jnp.concatenate([buffer.priority, priority])
    capacity = len(buffer.priority)
    priority, places = jax.lax.top_k(both, capacity)

    def taken(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.concatenate([old, new], axis=1)[:, places]

    return Buffer(jax.tree.map(taken, buffer.examples, examples), priority)


# From the iteration i = 0, 1, … and the hyper-parameter `mixture_decay`, both [], to β_i, [] from 0 to 1.
Schedule = Callable[[jax.Array, jax.Array], jax.Array]


def exponential_mixture(iteration: jax.Array, decay: jax.Array) -> jax.Array:
    """β_i = p^i, []: with p = 0 the expert acts in the first iteration and never again, with p = 1 always.

    With p = 1 DAgger is behaviour cloning whose demonstrations are drawn little by little.

    Source: Ross, Gordon & Bagnell 2011, see `dagger`.
    """
    return jnp.power(decay, iteration)


def linear_mixture(iteration: jax.Array, decay: jax.Array) -> jax.Array:
    """β_i = max(0, 1 − p·i), [], which is 0 from iteration 1/p on."""
    return jnp.maximum(0, 1 - decay * iteration)


class DAggerHyperparameters(NamedTuple):
    """The numbers of a DAgger run; all are traced, so any can be swept. Each is a scalar but for `environment`."""

    learning_rate: Any = 1e-3  # η
    mixture_decay: Any = 0.0  # p of the schedule of β
    environment: PyTree = ()  # the environment's params


class DAggerState(NamedTuple):
    """What a DAgger run carries."""

    key: jax.Array  # the run's own, never used up
    iteration: jax.Array  # [] int32
    hyperparameters: DAggerHyperparameters
    params: PyTree  # θ
    optimizer: PyTree
    buffer: Buffer


class DAggerMetrics(NamedTuple):
    """What one update of DAgger reports; each a float scalar."""

    episode_return: jax.Array  # mean of Σ_t R_{t+1} over the update's episodes, which the mixture played
    episodes: jax.Array  # how many they were
    steps: jax.Array  # real environment steps in them
    labels: jax.Array  # steps of them at which the expert was asked
    beta: jax.Array  # how much of the expert the mixture had
    loss: jax.Array  # mean distance on the minibatches


def metrics_of(trajectory: Trajectory, answers: Demonstrations, beta: jax.Array, loss: jax.Array) -> DAggerMetrics:
    """What an update reports."""
    return DAggerMetrics(
        episode_return=jnp.sum(trajectory.reward) / trajectory.episodes,
        episodes=trajectory.episodes,
        steps=jnp.sum(trajectory.mask, dtype=trajectory.reward.dtype),
        labels=jnp.sum(answers.mask, dtype=trajectory.reward.dtype),
        beta=beta,
        loss=loss,
    )


def dagger(
    environment: Environment,
    policy: Policy,
    expert: Expert,
    *,
    slots: int = 1,
    labels: int = 0,
    capacity: int = 8192,
    schedule: Schedule = exponential_mixture,
    distance: Distance = negative_log_likelihood,
    batch: int = 128,
    steps: int = 100,
    optimizer: Optimizer = optax.adam,
    chunk: int = 16,
) -> Algorithm:
    """DAgger: an update plays episodes, asks the expert at what they met, and fits the policy to all answers.

    Episodes are played by the mixture β_i f* + (1 − β_i) f, whose returns are reported. The policy goes on from the
    parameters it had, and the latest are kept, not the best on held-out answers. Answers are kept in a buffer; once it
    is full, it holds a uniform sample of all of them. Its numbers are `DAggerHyperparameters`.

    Args:
        environment: Where episodes are played.
        policy: f, who learns; its actions must fit the environment.
        expert: f*, who is asked.
        slots: E, the episodes of an update, at least 1.
        labels: The expert is asked at so many steps of each, chosen at random; 0 for all.
        capacity: Steps that the buffer holds; for a policy with memory, as many whole episodes as that is, at least E.
        schedule: β_i, see `exponential_mixture`.
        distance: d(f, f*), see `pgjax.imitation`.
        batch: Examples of a minibatch, drawn with replacement: steps, or for a policy with memory whole episodes, at
            most as many as the buffer holds.
        steps: Gradient steps of an update.
        optimizer: From the learning rate, a traced number, to an optax transformation.
        chunk: Rows collected at a time.

    Raises:
        InputError: If the policy or the expert does not fit the environment, the distance needs more than is known, the
            schedule does not return one number, or a count is out of range.

    Source: Ross, Gordon & Bagnell, *A reduction of imitation learning and structured prediction to no-regret online
    learning*, 2011.
    """
    if labels < 0:
        raise InputError(f"expected 0 or more labels of an episode, got {labels}")
    if capacity < 1:
        raise InputError(f"expected a capacity of 1 or more steps, got {capacity}")
    check_fit(environment, policy)
    check_fit(environment, expert.policy)
    rollout = collect(environment, mixture(expert.policy, policy), slots, chunk=chunk)
    fitter = fitting(policy, distance, optimizer, batch, steps)

    def ask(key: jax.Array, beta: jax.Array, params: PyTree, env_params: PyTree) -> tuple[Trajectory, Demonstrations]:
        rollout_key, expert_key, label_key = jax.random.split(key, 3)
        trajectory = rollout(rollout_key, (beta, expert.params, params), env_params)
        demonstrations = labelled(expert, trajectory, key=expert_key)
        return trajectory, examples_of(demonstrations, policy, distance, labels, label_key)[0]

    start = jax.eval_shape(policy.init, jax.random.key(0))
    _, form = jax.eval_shape(ask, jax.random.key(0), jnp.ones(()), start, environment.params)
    check_distance(policy, distance, form)
    check_shape("what the schedule returns", jax.eval_shape(schedule, jnp.int32(0), jnp.ones(())), ())
    columns = max(slots, capacity // form.mask.shape[0]) if has_memory(policy) else capacity

    def init(key: jax.Array, hyperparameters: DAggerHyperparameters) -> DAggerState:
        key, params_key = jax.random.split(key)
        params = policy.init(params_key)
        return DAggerState(
            key=key,
            iteration=jnp.int32(0),
            hyperparameters=hyperparameters._replace(environment=strong(hyperparameters.environment)),
            params=params,
            optimizer=optimizer(hyperparameters.learning_rate).init(params),
            buffer=empty_buffer(form, columns),
        )

    def update(state: DAggerState) -> tuple[DAggerState, DAggerMetrics]:
        ask_key, buffer_key, fit_key = jax.random.split(jax.random.fold_in(state.key, state.iteration), 3)
        numbers = state.hyperparameters
        beta = jnp.clip(jnp.asarray(schedule(state.iteration, numbers.mixture_decay), float), 0, 1)
        trajectory, answers = ask(ask_key, beta, state.params, numbers.environment)
        buffer = add(state.buffer, answers, buffer_key)
        columns, eta = jnp.arange(len(buffer.priority)), numbers.learning_rate
        known = state.params if policy.observe is None else policy.observe(state.params, trajectory)
        params, optimizer_state, loss = fitter.fit(
            fit_key, known, state.optimizer, eta, buffer.examples, columns, buffer.filled
        )
        following = state._replace(
            iteration=state.iteration + 1, params=params, optimizer=optimizer_state, buffer=buffer
        )
        return following, metrics_of(trajectory, answers, beta, loss)

    numbers = DAggerHyperparameters(environment=strong(environment.params))
    return Algorithm(init, update, numbers_of(numbers))
