"""Any environment, and a price for straying from a policy that was there before."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.base import Environment, Score, whole_score
from pgjax.errors import InputError
from pgjax.policies.base import Policy, check_fit
from pgjax.policies.distributions import Distribution
from pgjax.segments import map_over_steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


def log_prob_of(f: Distribution, rows: Trajectory) -> jax.Array:
    """The log-probabilities of the actions of rows under distributions f."""
    return f.log_prob(rows.action)


class Penalized(NamedTuple):
    """The params of an environment with a KL penalty."""

    beta: Any  # [], β
    reference: PyTree  # the parameters of the policy to stay close to
    environment: PyTree  # the params of the environment itself


def kl_penalty(environment: Environment, reference: Policy, params: PyTree, beta: Any = 0.0) -> Environment:
    """An environment whose reward at each step is R_{t+1} − β ln f(X_t, θ)_{A_t} / f(X_t, θ_SL)_{A_t}.

    Its expected return is ρ(θ) − β KL(f ‖ f_SL), over whole episodes. ln f is that of the moment when the action was
    drawn, a number like any reward, and nothing is differentiated through it: the gradient of the expected KL is the
    policy gradient with this reward, as E[∇ ln f] = 0. It notes `kl`, the very Σ_t ln f/f_SL of the penalty, an
    estimate of the KL without bias. (Of e^{−x} − 1 + x with x = ln f/f_SL, which has the same mean and is never
    negative, rare values are so large beyond a few nats that it is the less accurate one there.)

    The lecture prints + β ln f/f_SL, which rewards straying; its words, "keep generated outputs close", want −.

    Args:
        environment: Of any kind. Where it has a score, the penalty comes on top of that.
        reference: f_SL, one that fits the environment, with a probability above 0 wherever f's is: not `top_k` or
            `top_p`, from which the KL would be infinite.
        params: θ_SL. It is never changed; a sweep can give each run its own, "environment.reference".
        beta: β, 0 or more; it can be swept, "environment.beta".

    Raises:
        InputError: If β is below 0, or the reference does not fit the environment.

    Source: the lecture; Stiennon et al., *Learning to summarize from human feedback*, 2020; for the estimate
    J. Schulman, *Approximating KL divergence*, 2020.
    """
    if isinstance(beta, int | float) and not beta >= 0:
        raise InputError(f"expected a KL coefficient β of 0 or more, got {beta}")
    check_fit(environment, reference)

    def score(trajectory: Trajectory, params: Penalized) -> Score:
        base = whole_score(environment, trajectory, params.environment)
        log_prob = map_over_steps(reference, log_prob_of, params.reference, trajectory)
        x = jnp.where(trajectory.mask, trajectory.log_prob - log_prob, 0)
        price = jnp.where(params.beta > 0, params.beta * x, 0)  # where x is infinite too
        return Score(base.reward - price, {**base.notes, "kl": x})

    def within(params: Penalized) -> PyTree:
        return params.environment

    return environment._replace(
        reset=lambda key, params: environment.reset(key, within(params)),
        step=lambda key, state, action, params: environment.step(key, state, action, within(params)),
        params=Penalized(jnp.asarray(beta, float), params, environment.params),
        score=score,
        name=f"{environment.name} with a KL penalty",
    )
