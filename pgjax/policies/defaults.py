"""The policy and the values that fit an environment when nothing else is asked for."""

from collections.abc import Sequence

from pgjax.environments.base import Environment
from pgjax.environments.spaces import Discrete, Spaces, without_mask
from pgjax.errors import InputError
from pgjax.policies.base import Policy, ValueFunction
from pgjax.policies.convolutional import cnn, cnn_value, is_image
from pgjax.policies.feedforward import mlp, mlp_value
from pgjax.policies.tables import tabular, tabular_value


def policy_for(environment: Environment) -> Policy:
    """A fitting default policy, see `pgjax.tabular`, `pgjax.cnn` and `pgjax.mlp`.

    A table over few discrete states; for images a convolution and two layers of 64; else a tanh network of two layers
    of 64. Of a dictionary, or another pytree, all parts are seen at once. Actions are Categorical where they are
    discrete, several such where there are several at once, and diagonal Gaussian where they are continuous. What a
    `Masked` observation does not allow is never chosen.

    Raises:
        InputError: If the actions are arrays of another shape than [d].

    Example:
        >>> from pgjax.environments.mazes import maze
        >>> import jax
        >>> policy_for(maze()).init(jax.random.key(0)).shape  # a table of logits
        (23, 4)
    """
    states, actions = environment.observation_space, environment.action_space
    seen = without_mask(states)
    if isinstance(seen, Discrete) and isinstance(actions, Discrete) and seen.n <= 1024:
        return tabular(seen.n, actions)
    return (cnn if is_image(states) else mlp)(states, actions)


def value_for(environment: Environment, hidden: Sequence[int] = (64, 64)) -> ValueFunction:
    """A fitting v [T, E]: a table over few discrete states, else a network with these hidden layers.

    For images it is that of `pgjax.policies.cnn_value`, else that of `pgjax.policies.mlp_value`.
    """
    return _fitting(environment.observation_space, None, hidden)


def action_value_for(environment: Environment, hidden: Sequence[int] = (64, 64)) -> ValueFunction:
    """A fitting Q [T, E, A], as `value_for`.

    Raises:
        InputError: If the actions are not discrete.
    """
    actions = environment.action_space
    if not isinstance(actions, Discrete):
        raise InputError(
            f"expected discrete actions for values of each action, got {environment.name} with actions of "
            f"{type(actions).__name__}"
        )
    return _fitting(environment.observation_space, actions.n, hidden)


def _fitting(states: Spaces, actions: int | None, hidden: Sequence[int]) -> ValueFunction:
    seen = without_mask(states)
    if isinstance(seen, Discrete) and seen.n <= 1024:
        return tabular_value(seen.n, actions)
    return (cnn_value if is_image(states) else mlp_value)(states, actions, hidden=hidden)
