# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "rejax==0.1.3",
#     "gymnax==0.0.9", # the interface rejax 0.1.3 is written for; pgjax uses a later one
#     "jax==0.9.2",    # what pgjax is tested with on Python 3.11
#     "flax==0.12.6",
#     "optax==0.2.8",
#     "chex==0.1.92",
#     "distrax==0.1.9",
#     "tfp-nightly==0.26.0.dev20261027", # distrax 0.1.9 asks for any nightly
#     "numpy==2.4.6",
# ]
# ///
"""How fast is rejax, the nearest peer of pgjax, on this machine? Steps a second, and seconds until CartPole is solved.

rejax (Liesen, Lu & Lange, 2024: "rejax", github.com/keraJLi/rejax) compiles whole runs and vmaps them over seeds, as
pgjax does. Two measurements of its PPO, both warm:

- steps_per_second, on CartPole and on Breakout-MinAtar: one epoch, one minibatch; the same work repeated. Networks have
  two hidden layers of 64 units, and for Breakout pgjax's convolution before them, which rejax has not by itself.
- to_solved: rejax's own published configuration, all of its training; a run is solved if its final policy, with actions
  sampled as in training, averages 475 or more over 100 fresh episodes.

Whatever is not training stays outside the timing: compilation, initialisation, every evaluation. Every step counted is
real, since an environment resets itself. The seeds are laid out over the cores in the way that is fastest for rejax,
of those that `layouts` in the result lists; `cores_busy` tells whether other work on the machine took cores away.

rejax needs an older gymnax than pgjax, so this script has an environment of its own:

    uv run --script experiments/benchmark_peer.py --out results/peer.json

With --plain it is run as its documentation has it, `jax.jit(jax.vmap(algorithm.train))`, and nothing is done for it.

On a GPU, with jax for it:

    uv run --with "jax[cuda12]==0.9.2" --script experiments/benchmark_peer.py --out results/peer.json
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rejax
from flax import linen
from jax.sharding import NamedSharding, PartitionSpec
from rejax.evaluate import evaluate
from rejax.networks import DiscretePolicy

# configs/gymnax/cartpole.yaml, `ppo`, in the source distribution of rejax 0.1.3 (the wheel does not carry it); its
# eval_freq, 1000, is left out, as nothing is evaluated during training here.
PUBLISHED = {
    "env": "CartPole-v1",
    "agent_kwargs": {"activation": "tanh"},
    "num_envs": 5,
    "num_steps": 100,
    "num_epochs": 5,
    "num_minibatches": 5,
    "learning_rate": 0.00075,
    "max_grad_norm": 0.5,
    "total_timesteps": 100_000,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
}
ONE_PASS = {"num_epochs": 1, "num_minibatches": 1, "num_steps": 128}  # when steps are counted
COUNTED: dict[str, dict[str, Any]] = {
    "CartPole": {
        "env": "CartPole-v1",
        "agent_kwargs": {"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        **ONE_PASS,
    },
    "Breakout": {"env": "Breakout-MinAtar", **ONE_PASS},
}
ITERATIONS = {"CartPole": 4, "Breakout": 1}  # of one timed call, when steps are counted, and of a trial of a layout
TRIALS = 3  # calls of a layout that is tried
SOLVED_AT, EPISODES = 475.0, 100

# Runs vmapped together on a core; a core goes through its blocks one after the other, and a block stays in its cache.
# On a CPU of two cores the two measurements gave, in million steps a second:
#   all seeds in one vmap: one device of two cores 0.65 and 0.22, two devices of one core 0.86 and 0.40;
#   blocks of 16: one device 0.83, two devices 1.2 and 0.45; blocks of 4 and of 1 were slower.
# So each core is a device, and blocks are tried: which is fastest is within what other work on the machine changes.
CPU_BLOCKS = (8, 16, 32)

Program = Callable[[Any], Any]


def program(function: Program, devices: int, block: int) -> Any:
    """Return, jitted, a function of one run for a batch [B]: over devices, block by block, vmapped within a block."""

    def share(batch: Any) -> Any:
        if jax.tree.leaves(batch)[0].shape[0] == block:
            return jax.vmap(function)(batch)
        blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, block, *leaf.shape[1:]), batch)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.lax.map(jax.vmap(function), blocks))

    if devices == 1:
        return jax.jit(share)
    runs = PartitionSpec("run")
    return jax.jit(jax.shard_map(share, mesh=mesh(devices), in_specs=runs, out_specs=runs, check_vma=False))


def mesh(devices: int) -> jax.sharding.Mesh:
    """The first few local devices in a row."""
    return jax.sharding.Mesh(np.asarray(jax.local_devices()[:devices]), ("run",))


def timed(function: Program, batch: Any) -> tuple[float, float, Any]:
    """Call a compiled function; return the seconds until its result is there, the cores kept busy, the result."""
    begun, busy = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(batch))
    seconds = time.perf_counter() - begun
    return seconds, (time.process_time() - busy) / seconds, result


class Pixels(linen.Module):
    """The network of pgjax.cnn up to its last layer: 8 filters of 3 × 3 pixels, and two hidden layers of 64 units."""

    @linen.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Map images [B, H, W, C] to features [B, 64]."""
        x = linen.relu(linen.Conv(8, (3, 3), padding="VALID")(image.astype(np.float32)))
        x = x.reshape(x.shape[0], -1)
        for width in (64, 64):
            x = linen.relu(linen.Dense(width)(x))
        return x


class PixelPolicy(DiscretePolicy):
    """Rejax's policy, seeing images."""

    def setup(self) -> None:
        self.features = Pixels()
        self.action_logits = linen.Dense(self.action_dim)


class PixelValue(linen.Module):
    """A critic that sees images."""

    @linen.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Map images [B, H, W, C] to values [B]."""
        return linen.Dense(1)(Pixels()(image)).squeeze(1)


def ppo(configuration: dict[str, Any], iterations: int | None = None) -> Any:
    """Rejax's PPO, for all its training or some iterations, without evaluation."""
    size = configuration["num_envs"] * configuration["num_steps"]
    steps = configuration["total_timesteps"] if iterations is None else iterations * size
    algorithm = rejax.PPO.create(
        **{**configuration, "total_timesteps": steps}, eval_freq=steps, skip_initial_evaluation=True
    )
    if len(algorithm.env.observation_space(algorithm.env_params).shape) == 3:
        actor = PixelPolicy(algorithm.actor.action_dim, (), linen.relu)
        algorithm = algorithm.replace(actor=actor, critic=PixelValue())
    return algorithm.replace(eval_callback=lambda algorithm, state, rng: ())


def train(algorithm: Any) -> Program:
    """Rejax's own training of one run, from its first state to its last."""
    return lambda state: algorithm.train(train_state=state)[0]


def compiled_for(algorithm: Any, layout: dict[str, Any], states: Any) -> tuple[float, Any]:
    """Compile the training for a layout; return the seconds it took, tracing included, and the program."""
    begun = time.perf_counter()
    compiled = program(train(algorithm), layout["devices"], layout["block"]).lower(states).compile()
    return time.perf_counter() - begun, compiled


def fastest(
    configuration: dict[str, Any], seeds: int, block: int, iterations: int
) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    """Try the layouts on a few iterations; return the fastest, all of them, and the first states [seeds]."""
    local = jax.local_devices() if jax.default_backend() == "cpu" else jax.local_devices()[:1]
    devices = max(n for n in range(1, len(local) + 1) if seeds % (n * (block or 1)) == 0)
    share = seeds // devices
    blocks = [n for n in CPU_BLOCKS if share % n == 0 and n < share] if jax.default_backend() == "cpu" else []
    algorithm = ppo(configuration, iterations)
    keys = jax.device_put(
        jax.random.split(jax.random.PRNGKey(0), seeds), NamedSharding(mesh(devices), PartitionSpec("run"))
    )
    states = jax.block_until_ready(program(algorithm.init_state, devices, share)(keys))
    layouts = [{"devices": devices, "block": size} for size in ([block] if block else [*blocks, share])]
    compiled = [compiled_for(algorithm, layout, states)[1] for layout in layouts]
    # In turns, so that other work on the machine strikes all of them; the first turn warms up.
    turns = np.asarray([[timed(function, states)[0] for function in compiled] for _ in range(1 + TRIALS)])
    rates = seeds * algorithm.total_timesteps / turns[1:].min(axis=0)
    tried = [{**layout, "steps_per_second": float(rate)} for layout, rate in zip(layouts, rates, strict=True)]
    return max(tried, key=lambda layout: layout["steps_per_second"]), tried, states


def steps_per_second(task: str, seeds: int, environments: int, repetitions: int, block: int) -> dict[str, Any]:
    """Measure how many steps rejax does in a second, learning included."""
    configuration, iterations = {**COUNTED[task], "num_envs": environments}, ITERATIONS[task]
    layout, tried, states = fastest(configuration, seeds, block, iterations)
    algorithm = ppo(configuration, iterations)
    compile_seconds, compiled = compiled_for(algorithm, layout, states)
    timed(compiled, states)
    steps = seeds * algorithm.total_timesteps
    timings = [timed(compiled, states)[:2] for _ in range(repetitions)]
    rates = [steps / seconds for seconds, _ in timings]
    return {
        "median": statistics.median(rates),
        "rates": rates,
        "cores_busy": [cores for _, cores in timings],
        "steps": steps,
        "compile_seconds": compile_seconds,
        "seeds": seeds,
        "environments": environments,
        "iterations": iterations,
        "layout": layout,
        "layouts": tried,
        "configuration": configuration,
    }


def to_solved(seeds: int, block: int) -> dict[str, Any]:
    """Measure how long rejax trains by its own configuration, and how many of the runs end solved."""
    layout, tried, states = fastest(PUBLISHED, seeds, block, ITERATIONS["CartPole"])
    algorithm = ppo(PUBLISHED)
    compile_seconds, compiled = compiled_for(algorithm, layout, states)
    seconds, cores, states = timed(compiled, states)

    def mean_return(state: Any) -> jax.Array:
        # rejax's evaluate plays whole episodes, one for each key, and its act samples the actions.
        key = jax.random.fold_in(state.rng, 475)
        params = algorithm.env_params
        limit = params.max_steps_in_episode
        _, returns = evaluate(algorithm.make_act(state), key, algorithm.env, params, EPISODES, limit)
        return returns.mean()

    returns = np.asarray(program(mean_return, layout["devices"], layout["block"])(states))
    return {
        "seconds": seconds,
        "cores_busy": cores,
        "compile_seconds": compile_seconds,
        "solved_fraction": float((returns >= SOLVED_AT).mean()),
        "solved_at": SOLVED_AT,
        "episodes": EPISODES,
        "median_return": float(np.median(returns)),
        "seeds": seeds,
        "steps_per_seed": int(states.global_step[0]),
        "steps_per_second": int(states.global_step.sum()) / seconds,
        "layout": layout,
        "layouts": tried,
        "configuration": PUBLISHED,
    }


def fail(message: str) -> None:
    """End with one sentence and status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_options() -> argparse.Namespace:
    """Read the options; end with one sentence and status 2 if they cannot be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=lambda path: Path(path).expanduser(),
        help="file for the result, one JSON object; it is printed in any case",
    )
    parser.add_argument("--seeds", type=int, default=256, help="runs when steps of CartPole are counted; 256")
    parser.add_argument("--pixel-seeds", type=int, default=32, help="runs when steps of Breakout are counted; 32")
    parser.add_argument("--environments", type=int, default=16, help="of each run when steps are counted; 16")
    parser.add_argument("--repetitions", type=int, default=5, help="of the timed call when steps are counted; 5")
    parser.add_argument("--solve-seeds", type=int, default=128, help="runs of the published configuration; 128")
    parser.add_argument(
        "--devices", type=int, default=cores, help="into which a CPU is divided, at most; one for each core"
    )
    parser.add_argument("--block", type=int, help="runs vmapped together on a device; the fastest of some")
    parser.add_argument(
        "--plain", action="store_true", help="as rejax's documentation has it: all seeds in one vmap, on one device"
    )
    options = parser.parse_args()
    for name in ("seeds", "pixel_seeds", "environments", "repetitions", "solve_seeds", "devices", "block"):
        if (number := getattr(options, name)) is not None and number < 1:
            fail(f"expected --{name.replace('_', '-')} to be 1 or more, got {number}")
    if options.out is not None:
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"expected a file in a directory that can be made for --out, got {options.out}: {error.strerror}")
        if options.out.is_dir():
            fail(f"expected a file for --out, got the directory {options.out}")
    return options


def main() -> None:
    """Measure, then write and print what was found."""
    options = read_options()
    jax.config.update("jax_num_cpu_devices", 1 if options.plain else options.devices)
    for name in ("seeds", "pixel_seeds", "solve_seeds"):
        seeds = getattr(options, name)
        if options.block is not None and seeds % options.block:
            fail(f"expected --{name.replace('_', '-')} to be a multiple of --block, got {seeds} and {options.block}")
    device = jax.local_devices()[0]
    result = {
        "library": "rejax",
        "versions": {name: version(name) for name in ("rejax", "gymnax", "jax", "jaxlib", "flax", "optax", "numpy")},
        "python": platform.python_version(),
        "device": device.device_kind,
        "steps_per_second": {
            task: steps_per_second(
                task, seeds, options.environments, options.repetitions, seeds if options.plain else options.block or 0
            )
            for task, seeds in (("CartPole", options.seeds), ("Breakout", options.pixel_seeds))
        },
        "to_solved": to_solved(options.solve_seeds, options.solve_seeds if options.plain else options.block or 0),
    }
    text = json.dumps(result, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
