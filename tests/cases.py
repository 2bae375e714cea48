"""Lists that parametrised tests loop over: a new environment, policy, credit or baseline is tested by being listed."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import pgjax
from pgjax.algorithms.on_policy import ReinforceHyperparameters
from pgjax.sweeps import runner

CREDITS = {
    "whole_episode": pgjax.whole_episode,
    "reward_to_go": pgjax.reward_to_go,
    "discounted_reward_to_go": pgjax.estimators.discounted_reward_to_go,
    "lambda_return": pgjax.lambda_return,
    "discounted_lambda_return": pgjax.estimators.discounted_lambda_return,
}
BASELINES = {
    "none": pgjax.no_baseline,
    "running_average": pgjax.running_average,
    "leave_one_out": pgjax.leave_one_out,
    "leave_one_out_by_time": pgjax.estimators.leave_one_out_by_time,
    "variance_optimal": lambda: pgjax.estimators.variance_optimal(pgjax.tabular(3, 2)),
    "greedy_of_group": lambda: pgjax.estimators.greedy_of_group(2),
    "learned_value": lambda: pgjax.learned_value(pgjax.policies.tabular_value(3)),
    "learned_value_by_time": lambda: pgjax.learned_value(pgjax.policies.tabular_value_by_time(4, 3)),
    "learned_action_value": lambda: pgjax.learned_action_value(pgjax.policies.tabular_value(3, 2)),
    "expected_policy_gradient": lambda: pgjax.estimators.expected_policy_gradient(pgjax.policies.tabular_value(3, 2)),
}


def numbers(**values: float) -> ReinforceHyperparameters:
    """Hyper-parameters with these values, and those of `reinforce` for the rest."""
    environment = pgjax.finite(random_mdp(), 2)
    return pgjax.reinforce(environment, pgjax.tabular(3, 2)).hyperparameters(**values)


PREDICTING = {
    "learned_value",
    "learned_value_by_time",
    "learned_action_value",
    "expected_policy_gradient",
}  # what a credit can bootstrap from


def run_experiment(monkeypatch, study, *arguments):
    """Run an experiment's module as from the command line, with these arguments, and return its exit status."""
    monkeypatch.setattr(sys, "argv", [f"{study.__name__}.py", *map(str, arguments)])
    try:
        study.launch.run(study.main, study.Options, study.__doc__)
    except SystemExit as ended:
        return ended.code
    return 0


def assert_refused(monkeypatch, capsys, study, arguments, message):
    """Assert that an experiment ends with one sentence that holds the message and status 2, and compiles nothing."""
    monkeypatch.setattr(runner, "compile_program", None)
    assert run_experiment(monkeypatch, study, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: expected")
    assert error.count("\n") == 1


def random_mdp(seed: int = 0, S: int = 3, A: int = 2, stochastic_reward: bool = False) -> pgjax.FiniteMDP:
    """A random MDP in which every episode starts, moves and ends by chance; its last state is terminal."""
    rng = np.random.default_rng(seed)
    d0 = np.append(rng.dirichlet(np.ones(S - 1)), 0)
    p = rng.dirichlet(np.ones(S), (S, A))
    r = rng.normal(size=(S, A, S) if stochastic_reward else (S, A))
    return pgjax.environments.tables(d0, p, r, np.arange(S) == S - 1)


def counting(limit: int = 5, horizon: int = 8) -> pgjax.Environment:
    """An environment that says how many steps it has made, pays that number, and ends after `limit`."""

    def reset(key, params):
        return jnp.int32(0), jnp.zeros(1)

    def step(key, state, action, params):
        state = state + 1
        return state, pgjax.Step(jnp.full(1, state, float), state.astype(float), state >= limit)

    return pgjax.Environment(reset, step, pgjax.Box(0.0, 100.0, (1,)), pgjax.Discrete(2), horizon, name="counting")


def ending_in(after: float, limit: int = 3, horizon: int = 5) -> pgjax.Environment:
    """An environment that says at its end what is given, such as NaN: 0/0, where a goal has been reached."""
    environment = counting(limit, horizon)

    def step(key, state, action, params):
        state, step = environment.step(key, state, action, params)
        seen = jnp.where(step.terminated, after, 0.1 * step.observation)
        return state, step._replace(observation=seen, reward=step.reward * (2.0 * action - 1))

    return environment._replace(step=step, name="ending")


def remembering() -> pgjax.Policy:
    """A policy with memory: its logits depend on a decaying sum of all observations so far."""

    def memory(episodes):
        return jnp.zeros((episodes, 1))

    def step(params, memory, observation):
        memory = 0.9 * memory + observation
        return memory, pgjax.policies.Categorical(memory * params)

    def unroll(params, trajectory):
        def one(memory, observation):
            memory = 0.9 * memory + observation
            return memory, memory

        _, memories = jax.lax.scan(one, memory(trajectory.observation.shape[1]), trajectory.observation)
        return pgjax.policies.Categorical(memories * params[None])

    return pgjax.Policy(lambda key: jax.random.normal(key, (1, 2)), memory, step, unroll)


def recall(horizon: int = 4) -> pgjax.Environment:
    """An environment that shows a bit once, as ±1 and then 0, and pays 1 for naming it at the last step.

    Without memory the last action knows nothing of the bit, so that no such policy is worth more than 1/2.
    """

    def reset(key, params):
        bit = jax.random.bernoulli(key).astype(jnp.int32)
        return (bit, jnp.int32(0)), jnp.full(1, 2 * bit - 1, float)

    def step(key, state, action, params):
        bit, t = state[0], state[1] + 1
        return (bit, t), pgjax.Step(jnp.zeros(1), ((t == horizon) & (action == bit)).astype(float), t == horizon)

    return pgjax.Environment(reset, step, pgjax.Box(-1.0, 1.0, (1,)), pgjax.Discrete(2), horizon, name="recall")


def in_parts(limit: int = 3, horizon: int = 5) -> pgjax.Environment:
    """An environment whose observations are a dictionary, and whose actions are two integers at once.

    It pays what the second action is, and 10 more where the first is the number of steps made, modulo 2.
    """
    space = {
        "image": pgjax.Box(0, 255, (3, 3), jnp.uint8),
        "pair": (pgjax.environments.MultiDiscrete((2, 3)), pgjax.Box(-1.0, 9.0, (2,))),
        "turn": pgjax.Discrete(4),
    }

    def seen(t):
        pair = jnp.stack([t % 2, t % 3]), jnp.stack([t, -1]).astype(float)
        return {"image": jnp.full((3, 3), 50 * t, jnp.uint8), "pair": pair, "turn": t}

    def reset(key, params):
        return jnp.int32(0), seen(jnp.int32(0))

    def step(key, t, action, params):
        reward = 10.0 * (action[0] == t % 2) + action[1]
        return t + 1, pgjax.Step(seen(t + 1), reward, t + 1 >= limit)

    return pgjax.Environment(reset, step, space, pgjax.environments.MultiDiscrete((2, 3)), horizon, name="in parts")


def masked_finite(horizon: int = 3) -> tuple[pgjax.Environment, pgjax.FiniteMDP, jax.Array]:
    """A random MDP of four actions, its tables, and which actions may be chosen in each state, [S, A].

    In the last state, which is terminal, none may.
    """
    rng = np.random.default_rng(1)
    p, r = rng.dirichlet(np.ones(4), (4, 4)), rng.normal(size=(4, 4))
    mdp = pgjax.environments.tables(np.array([0.5, 0.3, 0.2, 0.0]), p, r, np.arange(4) == 3)
    may = jnp.array([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]], bool)
    environment = pgjax.finite(mdp, horizon)
    return pgjax.environments.masked_actions(environment, lambda state, params: may[state[0]]), mdp, may


ENVIRONMENTS = {
    "counting": counting,
    "recall": recall,
    "finite": lambda: pgjax.finite(random_mdp(), 6),
    "maze": lambda: pgjax.maze(horizon=20),
    "partially observed maze": lambda: pgjax.partial_maze(horizon=20),
    "T-maze": lambda: pgjax.t_maze(3, 9),
    "navigation": lambda: pgjax.navigation(horizon=9),
    "recommendation": lambda: pgjax.recommendation(horizon=9),
    "recommendation of slates": lambda: pgjax.recommendation(slate=3, horizon=9),
    "data centre cooling": lambda: pgjax.cooling(horizon=9),
    "in parts": in_parts,
    "masked finite": lambda: masked_finite()[0]._replace(name="masked finite"),
    "CartPole-v1": lambda: pgjax.from_gymnax("CartPole-v1"),
    "maze with noisy actions": lambda: pgjax.noisy_actions(pgjax.maze(horizon=20), 0.5),
    "Pendulum-v1 with noisy actions": lambda: pgjax.noisy_actions(
        pgjax.from_gymnax("Pendulum-v1", max_steps_in_episode=9), 0.5
    ),
}
