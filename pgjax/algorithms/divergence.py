"""How far the policy moves: exact divergences over a batch, and steps that are measured by them.

The divergence of a batch is KL(f_old(X_t) ‖ f(X_t, θ)), summed over all actions rather than estimated from those that
were drawn. Its second derivative at θ = θ_old is the Fisher information F, with which a gradient becomes the *natural*
gradient F⁻¹ ∇ρ, the same whatever coordinates θ has. Tables have F exactly (`pgjax.exact.information`); here it is only
ever multiplied with, so networks have it too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax.errors import InputError
from pgjax.estimators.gradient import Judged
from pgjax.estimators.objectives import Objective
from pgjax.policies.base import Policy, has_memory
from pgjax.segments import sum_over_slots, sum_over_steps
from pgjax.steps import Steps
from pgjax.trajectory import Trajectory
from pgjax.trees import PyTree


class Nearby(NamedTuple):
    """What an optimizer may ask of a batch: functions of a direction, and of other parameters."""

    fisher: Callable[[PyTree], PyTree]  # F v, with F the Fisher information of an episode
    tried: Callable[[PyTree], tuple[Any, Any]]  # the objective gained, and the mean KL of a step in nats
    steps: Any  # of an episode, the mean, []


# What stands for it where only shapes are followed.
NOWHERE = Nearby(lambda v: v, lambda params: (0.0, 0.0), 1.0)


def _sum(policy: Policy, function: Callable[..., PyTree], trajectory: Trajectory, *arrays: jax.Array) -> PyTree:
    return (sum_over_slots if has_memory(policy) else sum_over_steps)(function, trajectory, *arrays)


def _total_kl(policy: Policy, old: PyTree, new: PyTree, rows: Trajectory) -> jax.Array:
    """Σ_t KL(f_old(X_t) ‖ f_new(X_t)) over real steps, []."""
    f = jax.lax.stop_gradient(policy.unroll(old, rows))
    if not hasattr(f, "kl"):
        raise InputError(f"expected a policy whose distributions have a kl, got {type(f).__name__}")
    return jnp.sum(jnp.where(rows.mask, f.kl(policy.unroll(new, rows)), 0))


def mean_kl(policy: Policy, old: PyTree, new: PyTree, trajectory: Trajectory) -> jax.Array:
    """The mean over real steps of KL(f_old(X_t) ‖ f_new(X_t)), in nats, [], with every action counted.

    Raises:
        InputError: If the policy's distributions have no `kl`.
    """
    total = _sum(policy, lambda rows: _total_kl(policy, old, new, rows), trajectory)
    return total / jnp.sum(trajectory.mask)


def kl_gradient(policy: Policy, old: PyTree, new: PyTree, trajectory: Trajectory, steps: Steps | None = None) -> PyTree:
    """The gradient by the new parameters of an episode's Σ_t KL(f_old(X_t) ‖ f_new(X_t)), of which `mean_kl` is a part.

    With some `Steps`, the sum over them stands for that over all, as in `differentiating`.
    """

    def derivative(rows: Trajectory) -> PyTree:
        return jax.grad(lambda params: _total_kl(policy, old, params, rows))(new)

    divisor: Any = trajectory.reward.shape[1]
    if steps is None:
        total = _sum(policy, derivative, trajectory)
    else:
        total = sum_over_steps(derivative, trajectory, steps=steps)
        divisor = divisor * jnp.maximum(steps.number, 1) / jnp.sum(trajectory.mask)
    return jax.tree.map(lambda leaf: leaf / divisor, total)


def nearby(policy: Policy, objective: Objective, params: PyTree, trajectory: Trajectory, judged: Judged) -> Nearby:
    """What a batch says of the parameters near θ = params; nothing of it is computed before it is asked for."""
    E, count = trajectory.reward.shape[1], jnp.sum(trajectory.mask)

    def fisher(v: PyTree) -> PyTree:
        def product(rows: Trajectory) -> PyTree:
            def slope(new: PyTree) -> jax.Array:
                return optax.tree.vdot(jax.grad(lambda new: _total_kl(policy, params, new, rows))(new), v)

            return jax.grad(slope)(params)

        return jax.tree.map(lambda leaf: leaf / E, _sum(policy, product, trajectory))

    def tried(new: PyTree) -> tuple[jax.Array, jax.Array]:
        def sums(rows: Trajectory, advantage: jax.Array) -> tuple[jax.Array, jax.Array]:
            after, before = (objective(policy.unroll(theta, rows), rows, advantage) for theta in (new, params))
            return jnp.sum(after.ascended - before.ascended), _total_kl(policy, params, new, rows)

        gained, moved = _sum(policy, sums, trajectory, judged.advantage)
        return gained / E, moved / count

    return Nearby(fisher, tried, count / E)


def _natural(descent: PyTree, near: Nearby | None, iterations: int, damping: float) -> PyTree:
    """(F + damping)⁻¹ times a gradient, by conjugate gradients."""
    if near is None:
        raise InputError("expected a stored batch of a policy's episodes for a natural gradient, got none")

    def damped(v: PyTree) -> PyTree:
        return optax.tree.add_scale(near.fisher(v), damping, v)

    return jax.scipy.sparse.linalg.cg(damped, descent, maxiter=iterations)[0]


def natural(iterations: int = 10, damping: float = 1e-3) -> optax.GradientTransformationExtraArgs:
    """The natural gradient as an optax transformation: (F + damping)⁻¹ times the gradient, by conjugate gradients.

    F is the Fisher information of the batch's episodes, which `reinforce` gives to its optimizer as the argument
    `near`. What comes after it may be anything, such as `optax.scale`.

    Args:
        iterations: Of conjugate gradients at most, each with one product with F; as many as parameters solve exactly.
        damping: Added to F, which is singular where a policy has more parameters than it needs; above 0.

    Raises:
        InputError: If a number is out of range; where no batch is stored, as for a critic or an episode that is
            learned from as it goes on (`reinforce(slots=1)`).

    Source: Kakade, *A natural policy gradient*, 2001; for conjugate gradients, Schulman et al., *Trust region policy
    optimization*, 2015, appendix C.
    """
    _check(iterations, damping)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, near: Nearby | None = None, **_: Any
    ) -> tuple[PyTree, Any]:
        return _natural(updates, near, iterations, damping), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def natural_gradient(learning_rate: Any) -> optax.GradientTransformation:
    """Natural gradient ascent, θ ← θ + η F⁻¹ ∇̂, as an optimizer for `reinforce`; see `natural`."""
    return optax.chain(natural(), optax.scale(-learning_rate))


HALVINGS = 10  # of a step that went too far


def trust_region(delta: Any, iterations: int = 10, damping: float = 1e-3) -> optax.GradientTransformationExtraArgs:
    """A step along the natural gradient that moves the policy by δ nats, or less where that gains nothing.

    Its length is that at which the divergence is δ to second order. It is halved, ten times at most, until the exact
    mean divergence of a step is at most δ and the objective is gained; if it never is, nothing moves.

    Args:
        delta: δ, in nats a step, above 0. It stands where optimizers have a learning rate, so it can be swept.
        iterations: See `natural`.
        damping: See `natural`.

    Raises:
        InputError: See `natural`.

    Source: Schulman et al., *Trust region policy optimization*, 2015, appendix C.
    """
    _check(iterations, damping)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, near: Nearby | None = None, **_: Any
    ) -> tuple[PyTree, Any]:
        direction = optax.tree.scale(-1, _natural(updates, near, iterations, damping))
        assert near is not None
        quadratic = 0.5 * optax.tree.vdot(direction, near.fisher(direction)) / near.steps
        length = jnp.sqrt(delta / jnp.maximum(quadratic, jnp.finfo(quadratic.dtype).tiny))
        whole = optax.tree.scale(jnp.where(quadratic > 0, length, 0), direction)

        def accepted(halvings: jax.Array) -> jax.Array:
            gained, moved = near.tried(optax.tree.add_scale(params, 0.5**halvings, whole))
            return (gained > 0) & (moved <= delta)

        def shorter(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return carry[0] + 1, accepted(carry[0] + 1)

        begun = (jnp.int32(0), accepted(jnp.int32(0)))
        halvings, good = jax.lax.while_loop(lambda carry: ~carry[1] & (carry[0] < HALVINGS), shorter, begun)
        return optax.tree.scale(jnp.where(good, 0.5**halvings, 0), whole), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _check(iterations: int, damping: float) -> None:
    if iterations < 1:
        raise InputError(f"expected 1 or more iterations of conjugate gradients, got {iterations}")
    if not damping > 0:
        raise InputError(f"expected a damping above 0, got {damping}")
