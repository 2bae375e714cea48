"""Direct preference optimization: a language model fitted to rankings, with no reward model between.

The best policy for a reward r and a price β of a nat of divergence from f_SL is f_SL e^{r/β}/Z. So a policy *is* a
reward model, r = β ln f/f_SL + β ln Z, and between outputs to one prompt the ln Z does not matter. Fitting it to
rankings as any reward model is fitted (`reward_modelling`) gives the policy at once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax.algorithms.base import train
from pgjax.errors import InputError
from pgjax.penalty import Penalized
from pgjax.policies.base import Policy
from pgjax.rlhf.gold import output_of
from pgjax.rlhf.preferences import Rankings
from pgjax.rlhf.reward_models import RewardModel, reward_modelling
from pgjax.text.tokens import EOS
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def replayed(tokens: jax.Array, width: int) -> Trajectory:
    """Texts [N, W + T] as the episodes that wrote them, [T, N]; a policy looks at the windows of W tokens alone.

    Args:
        tokens: Prompts with pads to their left, then outputs.
        width: W.
    """
    T = tokens.shape[1] - width
    mask = output_of(tokens, width)[:, width:].T
    windows = jnp.stack([tokens[:, t : t + width] for t in range(T)])
    none, nothing = jnp.zeros_like(mask), jnp.zeros(mask.shape)
    return Trajectory(
        observation=windows,
        action=jnp.where(mask, tokens[:, width:].T, EOS),
        reward=nothing,
        terminated=none,
        truncated=none,
        mask=mask,
        time=jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[:, None], mask.shape),
        rows=jnp.int32(T),
    )


def implicit_reward(policy: Policy, supervised: PyTree, width: int, beta: Any) -> RewardModel:
    """The reward model β ln f/f_SL of whole outputs, whose parameters are the policy's.

    `reward_modelling(implicit_reward(...), rankings)` is direct preference optimization: for pairs its loss is
    −ln σ(β ln f(X')/f_SL(X') − β ln f(X)/f_SL(X)) with X' the preferred one, for longer rankings that of Plackett–Luce.

    Args:
        policy: f.
        supervised: θ_SL, from which it starts, and which stays what it is.
        width: W, tokens of a prompt with its pads.
        beta: β, above 0.

    Raises:
        InputError: If β is a number that is not above 0; from `init`, if a body is given.

    Source: Rafailov et al., *Direct preference optimization: your language model is secretly a reward model*, 2023,
    equation 7, and appendix A.3 for rankings.
    """
    if isinstance(beta, int | float) and not beta > 0:
        raise InputError(f"expected a KL coefficient β above 0 for direct preference optimization, got {beta}")

    def init(key: jax.Array, body: PyTree = ()) -> PyTree:
        if jax.tree.leaves(body):
            raise InputError("expected no body for a policy that is its own reward model, got one")
        return supervised

    def score(params: PyTree, tokens: jax.Array) -> jax.Array:
        texts = replayed(tokens, width)

        def log_prob(theta: PyTree) -> jax.Array:
            return jnp.sum(jnp.where(texts.mask, policy.unroll(theta, texts).log_prob(texts.action), 0), axis=0)

        return beta * (log_prob(params) - log_prob(supervised))

    return RewardModel(init, score)


class Direct(NamedTuple):
    """How a round of the loop fits the policy to all rankings so far, from θ_SL, with no reward model between."""

    updates: int = 25  # of `reward_modelling`
    steps: int = 10  # gradient steps of each


def at_rest(learning_rate: Any) -> optax.GradientTransformation:
    """The optimizer that moves nothing."""
    return optax.set_to_zero()


def fit_policy(
    direct: Direct, policy: Policy, rankings: Rankings, params: Penalized, key: jax.Array, learning_rate: Any
) -> PyTree:
    """The policy's parameters after direct preference optimization.

    Args:
        direct: How long.
        policy: f.
        rankings: Of outputs to the prompts of the environment.
        params: Of the environment of texts, with β and θ_SL.
        key: What minibatches are drawn with.
        learning_rate: η.
    """
    W = params.environment.prompts.shape[1]
    model = implicit_reward(policy, params.reference, W, params.beta)
    algorithm = reward_modelling(model, rankings, steps=direct.steps)
    numbers = algorithm.hyperparameters(learning_rate=learning_rate)
    return train(algorithm, direct.updates)(jax.random.fold_in(key, 1), numbers)[0].params
