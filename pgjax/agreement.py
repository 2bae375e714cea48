"""Whether a policy's `step` and its `unroll` say the same."""

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.checks import check_shape
from pgjax.environments.base import Environment
from pgjax.errors import InputError
from pgjax.policies.base import Policy, check_fit
from pgjax.rollout import collect
from pgjax.trees import PyTree


def check_policy(policy: Policy, environment: Environment, episodes: int = 3, steps: int = 16) -> None:
    """Raise unless a policy can be trained in an environment: it fits, its two ways agree, and gradients are finite.

    A few short episodes are played with parameters near its first ones, and looked at again by `unroll`. What only
    shapes tell, `reinforce` checks by itself.

    Args:
        policy: f.
        environment: Where.
        episodes: So many are played, 1 or more.
        steps: Of each, at most; 1 or more.

    Raises:
        InputError: If the policy does not fit; if the log-probabilities of `step` and of `unroll` differ by more than
            rounding; or if one of them, or their gradient, is not finite.

    Example:
        >>> import pgjax
        >>> environment = pgjax.maze("#S.E#", horizon=10)
        >>> check_policy(pgjax.policy_for(environment), environment)  # says what is wrong, if anything is
    """
    check_fit(environment, policy)
    short = environment._replace(horizon=min(environment.horizon, steps), score=None)
    init_key, move_key, play_key = jax.random.split(jax.random.key(0), 3)

    def near(leaf: jax.Array, key: jax.Array) -> jax.Array:
        moves = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf + 0.1 * jax.random.normal(key, leaf.shape, leaf.dtype) if moves else leaf

    # At its first parameters a policy may choose alike whatever it sees, so that no difference would show.
    leaves, structure = jax.tree.flatten(policy.init(init_key))
    params = jax.tree.unflatten(structure, map(near, leaves, jax.random.split(move_key, max(1, len(leaves)))))
    trajectory = jax.jit(collect(short, policy, episodes))(play_key, params, environment.params)

    @jax.jit
    def unrolled(params: PyTree) -> tuple[jax.Array, PyTree]:
        def log_probs(params: PyTree) -> jax.Array:
            log_prob = policy.unroll(params, trajectory).log_prob(trajectory.action)
            check_shape("log_prob of what unroll returns", log_prob, trajectory.mask.shape)
            return jnp.where(trajectory.mask, log_prob, 0)

        return log_probs(params), jax.grad(lambda params: jnp.sum(log_probs(params)), allow_int=True)(params)

    log_prob, gradient = unrolled(params)
    ours, theirs = np.asarray(trajectory.log_prob), np.asarray(log_prob)
    if not np.isfinite(ours).all():
        raise InputError(f"expected finite log-probabilities of what step samples, got {ours[~np.isfinite(ours)][0]}")
    for t, e in np.argwhere(~(np.abs(ours - theirs) <= 1e-3 * (1 + np.abs(ours))))[:1]:
        raise InputError(
            f"expected the same log-probabilities from step and unroll, got {ours[t, e]} and {theirs[t, e]} at step {t}"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        if leaf.dtype != jax.dtypes.float0 and not np.isfinite(leaf).all():
            name = f"params{jax.tree_util.keystr(path)}"
            raise InputError(f"expected a finite gradient of the log-probabilities, got another in {name}")
