"""What is scored: methods, and the tasks on which they are, with all settings but the numbers that are chosen."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SETTINGS: dict[str, Any] = {
    "policy": "auto",
    "hidden": (64, 64),
    "slots": 16,
    "min_steps_per_slot": 0,
    "value_steps": 5,
    "optimizer": "adam",
    "discount": 0.99,
    "entropy_coefficient": 0.0,
    "value_learning_rate": 1e-2,
    "trace_decay": 0.95,
}
WITH_MEMORY: dict[str, Any] = {"policy": "recurrent", "hidden": (32, 32)}
LEAVE_ONE_OUT = {"credit": "reward-to-go", "baseline": "leave-one-out-by-time"}
ACTOR_CRITIC = {"credit": "lambda-return", "baseline": "learned-value"}
METHODS: dict[str, dict[str, Any]] = {
    "G_1 − ρ̂": {"credit": "whole-episode", "baseline": "running-average"},
    "G_t − leave-one-out mean per step": LEAVE_ONE_OUT,
    "G_t − v(X_t)": {"credit": "reward-to-go", "baseline": "learned-value"},
    "actor-critic: G_t^λ − v(X_t)": ACTOR_CRITIC,
    "PPO": {"method": "ppo"},
    "G_t − leave-one-out mean per step, with memory": LEAVE_ONE_OUT | WITH_MEMORY,
    "PPO with memory": {"method": "ppo"} | WITH_MEMORY,
}
VARIANTS = tuple(METHODS)[:4]
_, MEAN, _, CRITIC, PPO, MEAN_WITH_MEMORY, PPO_WITH_MEMORY = METHODS
NUMBERS = ("discount", "entropy_coefficient", "value_learning_rate", "trace_decay")  # the other settings are static
SHORT, LONG, PIXELS, TUNED, BODIES = 1024, 128, 32, 32, 16  # seeds


class Task(NamedTuple):
    """Where REINFORCE is scored, and how it is set up there."""

    seeds: int  # reported, of each variant
    iterations: int
    learning_rates: Sequence[float]  # to choose from; none where variants are tuned
    settings: Mapping[str, Any] = {}  # options of experiments/reinforce.py, other than `SETTINGS`
    published: str = "-"  # final return that others report
    solved_at: float | None = None
    methods: Sequence[str] = VARIANTS
    env: str = ""  # its environment, where the task has another name


TASKS: dict[str, Task] = {
    "CartPole-v1": Task(
        seeds=SHORT,
        iterations=30,
        learning_rates=(5e-3, 1e-2),
        settings={"value_steps": 2},
        published="500",
        solved_at=475.0,
    ),
    "Catch-bsuite": Task(
        seeds=SHORT,
        iterations=150,
        learning_rates=(3e-3, 6e-3),
        settings={"slots": 8, "discount": 1.0, "value_steps": 1},
        published="1",
        solved_at=0.95,
    ),
    "FourRooms-misc": Task(
        seeds=SHORT,
        iterations=40,
        learning_rates=(5e-3, 1e-2),
        settings={"value_steps": 2},
        published="1",
        solved_at=0.95,
    ),
    "FrozenLake-misc": Task(seeds=SHORT, iterations=200, learning_rates=(1e-1, 3e-1), settings={"value_steps": 2}),
    "maze": Task(
        seeds=SHORT, iterations=100, learning_rates=(1e-1, 3e-1), settings={"discount": 1.0, "value_steps": 2}
    ),
    "recommendation": Task(
        seeds=SHORT,
        iterations=200,
        learning_rates=(5e-3, 1e-2),
        settings={"discount": 0.5, "entropy_coefficient": 0.03, "value_steps": 2},
    ),
    "t-maze": Task(
        seeds=LONG,
        iterations=300,
        learning_rates=(3e-3, 1e-2),
        settings={**WITH_MEMORY, "entropy_coefficient": 0.03},
        solved_at=3.6,
    ),
    "partial-maze": Task(
        seeds=LONG, iterations=150, learning_rates=(3e-3, 1e-2), settings={**WITH_MEMORY, "discount": 0.98}
    ),
    "navigation": Task(LONG, 200, (1e-3, 3e-3)),
    "cooling": Task(
        seeds=LONG,
        iterations=500,
        learning_rates=(2e-3, 4e-3),
        settings={"slots": 8, "discount": 0.97, "trace_decay": 0.9},
    ),
    "Acrobot-v1": Task(seeds=LONG, iterations=250, learning_rates=(3e-3, 5e-3), published="−80", solved_at=-100.0),
    "Pendulum-v1": Task(
        seeds=LONG,
        iterations=400,
        learning_rates=(3e-3, 6e-3),
        settings={"slots": 8, "discount": 0.95},
        published="−130",
    ),
    "Swimmer-misc": Task(seeds=LONG, iterations=50, learning_rates=(3e-3, 6e-3), settings={"slots": 8}),
    "Reacher-misc": Task(
        seeds=LONG, iterations=250, learning_rates=(3e-3, 6e-3), settings={"slots": 8, "discount": 0.95}
    ),
    "Breakout-MinAtar": Task(
        seeds=PIXELS,
        iterations=1700,
        learning_rates=(1e-3, 3e-3),
        settings={
            "slots": 8,
            "min_steps_per_slot": 16,
            "entropy_coefficient": 0.05,
            "value_steps": 2,
            "value_learning_rate": 1e-3,
        },
        published="28 to 43",
    ),
    # What follows is tuned: every variant with the same budget.
    "hidden-velocity-cartpole": Task(
        seeds=8 * TUNED,
        iterations=40,
        learning_rates=(),
        solved_at=475.0,
        methods=(MEAN, MEAN_WITH_MEMORY),
    ),
    "recommendation, long": Task(
        seeds=TUNED,
        iterations=250,
        learning_rates=(),
        settings={"slots": 64, "discount": 0.5, "value_steps": 2},
        methods=(PPO, PPO_WITH_MEMORY),
        env="recommendation",
    ),
    "slate-recommendation": Task(
        seeds=TUNED,
        iterations=250,
        learning_rates=(),
        settings={"slots": 64, "discount": 0.5, "value_steps": 2},
        methods=(PPO,),
    ),
    "navigation, long": Task(seeds=TUNED, iterations=400, learning_rates=(), methods=(PPO,), env="navigation"),
    "Reacher-misc, long": Task(
        seeds=BODIES,
        iterations=600,
        learning_rates=(),
        settings={"discount": 0.95, "normalize_observations": True},
        methods=(PPO,),
        env="Reacher-misc",
    ),
    "brax:inverted_pendulum:spring": Task(
        seeds=BODIES, iterations=100, learning_rates=(), published="1000", solved_at=950.0, methods=(PPO,)
    ),
    "brax:inverted_double_pendulum:spring": Task(
        seeds=BODIES,
        iterations=150,
        learning_rates=(),
        settings={"normalize_observations": True},
        methods=(PPO,),
    ),
    "brax:hopper:spring": Task(
        seeds=BODIES,
        iterations=200,
        learning_rates=(),
        settings={"normalize_observations": True},
        methods=(PPO,),
    ),
}


def settings_of(task: Task, method: str) -> dict[str, Any]:
    """All options of experiments/reinforce.py that say what is run, but for the numbers that are chosen."""
    return {**SETTINGS, **task.settings, **METHODS[method]}
