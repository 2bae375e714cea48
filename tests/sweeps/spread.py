"""A small sweep whose runs are spread over two processes: `python -m tests.sweeps.spread PORT PROCESS OUT [kill]`.

It prints how many segments it computed. With `kill`, the second process is killed by SIGKILL where it would save its
third checkpoint.
"""

import sys

import jax
import optax

if __name__ == "__main__":  # before anything is computed
    port, process, out, *how = sys.argv[1:]
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))

import pgjax
from pgjax.sweeps import batches, checkpoints
from tests.cases import random_mdp
from tests.sweeps.disturbed import after, at, kill

ENVIRONMENT = pgjax.finite(random_mdp(), horizon=5)
POLICY = pgjax.mlp(ENVIRONMENT.observation_space, ENVIRONMENT.action_space)  # one matrix is large enough to be split
ALGORITHM = pgjax.reinforce(ENVIRONMENT, POLICY, slots=8, optimizer=optax.sgd)
OPTIONS = {"iterations": 6, "seeds": range(3), "grid": {"learning_rate": [0.1, 0.5]}, "progress": False}


def spread(out, **options):
    options = {"segment": 1, "checkpoint_seconds": 0, "configuration": {}, **options}
    return pgjax.sweep(ALGORITHM, **OPTIONS, out=out, **options)


if __name__ == "__main__":
    segments: list[None] = []
    after(batches, "go_on", lambda: segments.append(None))
    if how and process == "1":
        save, now = checkpoints.save, at(3, kill)
        checkpoints.save = lambda *given: now() or save(*given)
    spread(out, run_devices=4, model_devices=2)
    print(len(segments))
