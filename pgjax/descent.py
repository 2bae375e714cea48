"""Steps of an optax transformation: the one place where gradients become changes of parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pgjax.errors import InputError, first_line
from pgjax.moments import Moments
from pgjax.trees import PyTree

# From the learning rate, a traced number, to an optax transformation.
Optimizer = Callable[[Any], optax.GradientTransformation]


def descend(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    state: PyTree,
    params: PyTree,
    value: Any,
    near: Any = None,
) -> tuple[PyTree, PyTree]:
    """The parameters after a step down a gradient, and the optimizer's next state; `Moments` among them stay.

    Args:
        optimizer: The transformation; one that wants the value of the objective (`optax.contrib.reduce_on_plateau`,
            `optax.polyak_sgd`) is given it.
        gradient: Of what is minimised, like params.
        state: The optimizer's.
        params: Where the gradient is taken.
        value: What is minimised, there, [].
        near: What a transformation that looks around may ask, see `pgjax.algorithms.natural`.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    change, state = optimizer.update(gradient, state, params, value=value, near=near)
    following = optax.apply_updates(params, change)

    def is_known(node: Any) -> bool:
        return isinstance(node, Moments)

    return jax.tree.map(lambda new, old: old if is_known(old) else new, following, params, is_leaf=is_known), state


def descend_minibatches(
    loss: Callable[[PyTree, jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    params: PyTree,
    state: PyTree,
    steps: int,
) -> tuple[PyTree, PyTree, jax.Array]:
    """The parameters after some steps down a loss, the optimizer's state, and the mean of the losses on the way.

    Args:
        loss: From parameters and a key, with which it draws its minibatch, to a number.
        optimizer: The transformation.
        key: Step i draws with fold_in(key, i).
        params: Where to begin.
        state: The optimizer's.
        steps: How many.
    """

    def one(i: jax.Array, carry: tuple[PyTree, PyTree, jax.Array]) -> tuple[PyTree, PyTree, jax.Array]:
        params, state, total = carry
        value, gradient = jax.value_and_grad(loss)(params, jax.random.fold_in(key, i))
        params, state = descend(optimizer, gradient, state, params, value)
        return params, state, total + value

    zero = jnp.zeros((), jnp.result_type(float))
    params, state, total = jax.lax.fori_loop(0, steps, one, (params, state, zero))
    return params, state, total / steps


def keep_best(
    best: tuple[PyTree, jax.Array], latest: PyTree, loss: jax.Array, judged: jax.Array
) -> tuple[PyTree, jax.Array]:
    """Parameters with the least held-out loss so far, and that loss; the latest ones, if nothing is held out.

    Args:
        best: Those of before, and their loss; infinite at first.
        latest: New parameters.
        loss: Theirs, []. One that is infinite for all says nothing of them, and the latest are kept.
        judged: Whether anything is held out, [] bool.
    """
    params, least = best
    better = ~judged | (loss < least) | (jnp.isinf(least) & ~jnp.isnan(loss))
    params = jax.tree.map(lambda new, old: jnp.where(better, new, old), latest, params)
    return params, jnp.where(judged & better, loss, least)


def check_optimizer(optimizer: Optimizer, init: Callable[[jax.Array], PyTree], near: Any = None) -> None:
    """Raise unless an optimizer can be used; only shapes are followed.

    Args:
        optimizer: From the learning rate to a transformation.
        init: From a key to the parameters that it is to change.
        near: What it may ask, see `descend`.

    Raises:
        InputError: If it needs more than the gradient, the parameters and the value: a line search, which evaluates the
            objective elsewhere, or a lookahead, which keeps parameters of its own.
    """
    params = jax.eval_shape(init, jax.random.key(0))

    def one_step(eta: jax.Array, params: PyTree) -> PyTree:
        chosen = optimizer(eta)
        return descend(chosen, params, chosen.init(params), params, eta, near)[0]

    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    try:
        jax.eval_shape(one_step, number, params)
    except InputError:
        raise
    except Exception as error:  # each transformation has exceptions of its own for what it misses
        raise InputError(
            "expected an optimizer whose step needs the gradient, the parameters and the value alone, as a line search "
            f"or a lookahead does not, it fails with: {first_line(error)}"
        ) from error
