"""The family: every method is `reinforce` with its parts, and improves on where it began."""

import jax
import numpy as np
import pytest

import pgjax
from pgjax import algorithms

MAZE = pgjax.maze("#####\n#S..#\n#.#.#\n#..E#\n#####", horizon=50)
POLICY = pgjax.policy_for(MAZE)
CRITIC = {name: getattr(algorithms, name) for name in ("actor_critic", "a2c", "ppo", "trpo")}
GROUPS = {
    name: getattr(algorithms, name) for name in ("rloo", "remax", "grpo", "dr_grpo", "gspo", "reinforce_plus_plus")
}


@pytest.mark.parametrize("name", [*CRITIC, *GROUPS])
def test_each_learns_the_maze(name):
    if name in CRITIC:
        algorithm = CRITIC[name](MAZE, POLICY, pgjax.value_for(MAZE), slots=16)
    else:
        algorithm = GROUPS[name](MAZE, POLICY, slots=16)
    rate = {"a2c": 0.05, "trpo": 0.02}.get(name, 0.1)  # of TRPO it is δ
    run = jax.jit(jax.vmap(pgjax.train(algorithm, 60), (0, None)))
    _, curves = run(pgjax.run_keys(0, range(4)), algorithm.hyperparameters(learning_rate=rate))
    assert np.all(np.isfinite(curves.episode_return))
    start, end = curves.episode_return[:, 0].mean(), curves.episode_return[:, -1].mean()
    assert end > max(start / 2, -10)  # the shortest way is 4 steps


def test_critics_begin_with_a_discount_below_1_and_every_number_can_be_given():
    value = pgjax.value_for(MAZE)
    for make in CRITIC.values():
        numbers = make(MAZE, POLICY, value).hyperparameters
        assert round(float(numbers().discount), 6) == 0.99
        assert round(float(numbers(discount=0.5).discount), 6) == 0.5
    numbers = algorithms.a2c(MAZE, POLICY, value).hyperparameters()
    assert (round(float(numbers.trace_decay), 6), round(float(numbers.entropy_coefficient), 6)) == (1.0, 0.01)
    assert float(algorithms.grpo(MAZE, POLICY).hyperparameters().discount) == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(pgjax.InputError, match="groups of the same start that divide 6 slots, got 4"):
        algorithms.rloo(MAZE, POLICY, slots=6)
    with pytest.raises(pgjax.InputError, match=r"groups of 2 or more .*, got 1"):
        algorithms.grpo(MAZE, POLICY, group_size=1)
    with pytest.raises(pgjax.InputError, match="clipping range ε above 0, got 0"):
        algorithms.ppo(MAZE, POLICY, pgjax.value_for(MAZE), epsilon=0)
