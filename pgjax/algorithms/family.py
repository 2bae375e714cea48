"""The family: what papers call by different names, as choices of the parts of `reinforce`, to be read side by side.

| method | credit | baseline | scale | objective | use of a batch |
|---|---|---|---|---|---|
| `reinforce` | G_t | mean of the other slots, by step | | score function | once |
| `actor_critic` | G_t^λ | learned v | | score function | once |
| `a2c` | G_t, from v where it is cut off | learned v | | score function, entropy | once |
| `ppo` | G_t^λ | learned v | batch, standardized | clipped ratio | 4 epochs × 4 minibatches |
| `trpo` | G_t^λ | learned v | | ratio, within a trust region | once |
| `rloo` | G_1 | mean of the others of a group | | score function | once |
| `remax` | G_1 | a greedy episode of the same start | | score function | once |
| `grpo` | G_1 | mean of the group | its deviation, and length | clipped ratio | 4 minibatches |
| `dr_grpo` | G_1 | mean of the group | | clipped ratio | 4 minibatches |
| `gspo` | G_1 | mean of the group | its deviation, and length | clipped ratio of the episode | 4 minibatches |
| `reinforce_plus_plus` | G_t | none | batch, standardized | clipped ratio | 4 minibatches |

Each returns an `Algorithm` with `ReinforceHyperparameters`; those with a critic begin with a discount of 0.99. Where a
paper has the KL to a reference model in its loss, here it is in the reward (`pgjax.kl_penalty`). Errors are those of
`reinforce` and of the parts.
"""

from functools import partial
from typing import Any

import optax

from pgjax.algorithms.base import Algorithm
from pgjax.algorithms.divergence import trust_region
from pgjax.algorithms.on_policy import reinforce
from pgjax.descent import Optimizer
from pgjax.environments.base import Environment
from pgjax.estimators.baselines import learned_value, no_baseline
from pgjax.estimators.groups import greedy_of_group, group_mean, leave_one_out
from pgjax.estimators.objectives import Objective, clipped_ratio, importance_ratio, sequence_ratio
from pgjax.estimators.returns import lambda_return, reward_to_go, whole_episode
from pgjax.estimators.scales import Scale, batch_standardized, combined, episode_length, group_deviation
from pgjax.policies.base import Policy, ValueFunction
from pgjax.policies.sampling import greedy_in_groups


def beginning_with(algorithm: Algorithm, **defaults: Any) -> Algorithm:
    """The algorithm with other defaults of its hyper-parameters."""
    return algorithm._replace(hyperparameters=lambda **values: algorithm.hyperparameters(**{**defaults, **values}))


def actor_critic(
    environment: Environment,
    policy: Policy,
    value: ValueFunction,
    *,
    slots: int = 16,
    min_steps_per_slot: int = 0,
    value_steps: int = 5,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """Actor-critic: λ-returns, less a learned v, which makes the generalised advantage estimate.

    Source: Sutton & Barto, *Reinforcement Learning*, 2018, §13.5; Schulman et al., *High-dimensional continuous control
    using generalized advantage estimation*, 2016.
    """
    algorithm = reinforce(
        environment,
        policy,
        slots=slots,
        min_steps_per_slot=min_steps_per_slot,
        credit=lambda_return(),
        baseline=learned_value(value, steps=value_steps),
        optimizer=optimizer,
    )
    return beginning_with(algorithm, discount=0.99)


def a2c(
    environment: Environment,
    policy: Policy,
    value: ValueFunction,
    *,
    slots: int = 16,
    min_steps_per_slot: int = 0,
    value_steps: int = 5,
    optimizer: Optimizer = optax.rmsprop,
) -> Algorithm:
    """Advantage actor-critic: G_t − v(X_t), with v for what is cut off (λ = 1), an entropy bonus, and RMSProp.

    Whole episodes are collected, where the paper's workers stop every few steps and let v stand for the rest.

    Source: Mnih et al., *Asynchronous methods for deep reinforcement learning*, 2016.
    """
    algorithm = actor_critic(
        environment,
        policy,
        value,
        slots=slots,
        min_steps_per_slot=min_steps_per_slot,
        value_steps=value_steps,
        optimizer=optimizer,
    )
    return beginning_with(algorithm, trace_decay=1.0, entropy_coefficient=0.01)


def ppo(
    environment: Environment,
    policy: Policy,
    value: ValueFunction,
    *,
    slots: int = 16,
    min_steps_per_slot: int = 128,
    epsilon: float = 0.2,
    epochs: int = 4,
    minibatches: int = 4,
    value_steps: int = 5,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """Proximal policy optimization: standardized λ-advantages, used often, with their ratios clipped to 1 ± ε.

    The critic is fitted by `value_steps` gradient steps on the whole batch, with an optimizer of its own.

    Source: Schulman et al., *Proximal policy optimization algorithms*, 2017.
    """
    algorithm = reinforce(
        environment,
        policy,
        slots=slots,
        min_steps_per_slot=min_steps_per_slot,
        credit=lambda_return(),
        baseline=learned_value(value, steps=value_steps),
        objective=clipped_ratio(epsilon),
        scale=batch_standardized(),
        epochs=epochs,
        minibatches=minibatches,
        optimizer=optimizer,
    )
    return beginning_with(algorithm, discount=0.99)


def trpo(
    environment: Environment,
    policy: Policy,
    value: ValueFunction,
    *,
    slots: int = 16,
    min_steps_per_slot: int = 128,
    iterations: int = 10,
    damping: float = 1e-2,
    value_steps: int = 5,
) -> Algorithm:
    """Trust region policy optimization: λ-advantages, and along the natural gradient as far as δ nats a step.

    The learning rate is δ, 0.01 at first; see `trust_region` for the other numbers.

    Source: Schulman et al., *Trust region policy optimization*, 2015.
    """
    algorithm = reinforce(
        environment,
        policy,
        slots=slots,
        min_steps_per_slot=min_steps_per_slot,
        credit=lambda_return(),
        baseline=learned_value(value, steps=value_steps),
        objective=importance_ratio(),
        optimizer=partial(trust_region, iterations=iterations, damping=damping),
    )
    return beginning_with(algorithm, discount=0.99, learning_rate=0.01)


def rloo(
    environment: Environment,
    policy: Policy,
    *,
    slots: int = 64,
    group_size: int = 4,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """REINFORCE leave-one-out: whole returns, less the mean of the others that began alike.

    Source: Ahmadian et al., *Back to basics: revisiting REINFORCE style optimization for learning from human feedback
    in LLMs*, 2024.
    """
    return reinforce(
        environment,
        policy,
        slots=slots,
        group_size=group_size,
        credit=whole_episode(),
        baseline=leave_one_out(group_size),
        optimizer=optimizer,
    )


def remax(
    environment: Environment,
    policy: Policy,
    *,
    slots: int = 64,
    group_size: int = 2,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """ReMax: whole returns, less that of a greedy episode that began alike, one in each group.

    Greedy episodes are among those that the metrics are of.

    Source: Li et al., *ReMax: a simple, effective, and efficient reinforcement learning method for aligning large
    language models*, 2024.
    """
    return reinforce(
        environment,
        greedy_in_groups(policy, group_size),
        slots=slots,
        group_size=group_size,
        credit=whole_episode(),
        baseline=greedy_of_group(group_size),
        optimizer=optimizer,
    )


def group_relative(
    environment: Environment,
    policy: Policy,
    slots: int,
    group_size: int,
    objective: Objective,
    scale: Scale | None,
    reuse: tuple[int, int],
    optimizer: Optimizer,
) -> Algorithm:
    """G_1 less the mean of its group, and what is made of it; `reuse` is epochs and minibatches."""
    return reinforce(
        environment,
        policy,
        slots=slots,
        group_size=group_size,
        credit=whole_episode(),
        baseline=group_mean(group_size),
        objective=objective,
        scale=scale,
        epochs=reuse[0],
        minibatches=reuse[1],
        optimizer=optimizer,
    )


def grpo(
    environment: Environment,
    policy: Policy,
    *,
    slots: int = 64,
    group_size: int = 4,
    epsilon: float = 0.2,
    epochs: int = 1,
    minibatches: int = 4,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """Group relative policy optimization: (G_1 − mean)/deviation of its group, the mean over each episode's steps.

    Both divisions change what is followed: groups that agree count more, and so do short episodes.

    Source: Shao et al., *DeepSeekMath: pushing the limits of mathematical reasoning in open language models*, 2024.
    """
    scale, reuse = combined(group_deviation(group_size), episode_length()), (epochs, minibatches)
    return group_relative(environment, policy, slots, group_size, clipped_ratio(epsilon), scale, reuse, optimizer)


def dr_grpo(
    environment: Environment,
    policy: Policy,
    *,
    slots: int = 64,
    group_size: int = 4,
    epsilon: float = 0.2,
    epochs: int = 1,
    minibatches: int = 4,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """GRPO done right: without the two divisions, which leaves (K − 1)/K of the gradient for groups of K.

    Source: Liu et al., *Understanding R1-Zero-like training: a critical perspective*, 2025.
    """
    reuse = (epochs, minibatches)
    return group_relative(environment, policy, slots, group_size, clipped_ratio(epsilon), None, reuse, optimizer)


def gspo(
    environment: Environment,
    policy: Policy,
    *,
    slots: int = 64,
    group_size: int = 4,
    epsilon: float = 3e-4,
    epochs: int = 1,
    minibatches: int = 4,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """Group sequence policy optimization: GRPO with the ratio of whole episodes, clipped as one.

    Source: Zheng et al., *Group sequence policy optimization*, 2025.
    """
    scale, reuse = combined(group_deviation(group_size), episode_length()), (epochs, minibatches)
    return group_relative(environment, policy, slots, group_size, sequence_ratio(epsilon), scale, reuse, optimizer)


def reinforce_plus_plus(
    environment: Environment,
    policy: Policy,
    *,
    slots: int = 64,
    group_size: int = 1,
    epsilon: float = 0.2,
    epochs: int = 1,
    minibatches: int = 4,
    optimizer: Optimizer = optax.adam,
) -> Algorithm:
    """REINFORCE++: rewards to go, standardized over the batch in place of a baseline, with clipped ratios.

    Source: Hu et al., *REINFORCE++: an efficient RLHF algorithm with robustness to both prompt and reward models*,
    2025.
    """
    return reinforce(
        environment,
        policy,
        slots=slots,
        group_size=group_size,
        credit=reward_to_go(),
        baseline=no_baseline(),
        objective=clipped_ratio(epsilon),
        scale=batch_standardized(),
        epochs=epochs,
        minibatches=minibatches,
        optimizer=optimizer,
    )
