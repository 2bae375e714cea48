import os
import subprocess
import sys
import time
import zipfile

import jax
import numpy as np
import pytest

import pgjax
from tests.sweeps.spread import POLICY, spread
from tests.sweeps.test_store import free_port


def begin(out, *how):
    """Both processes of `tests.sweeps.spread`."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    command, port = [sys.executable, "-m", "tests.sweeps.spread"], str(free_port())
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return [subprocess.Popen([*command, port, process, str(out), *how], **pipes) for process in "01"]


def saved(path):
    """How many iterations each run had done in a checkpoint."""
    try:
        with np.load(path) as arrays:
            return arrays["done"].tolist()
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, KeyError, EOFError):
        return []


@pytest.mark.slow
def test_runs_spread_over_processes_go_on_from_what_all_of_them_saved(tmp_path):
    out = tmp_path / "out"
    first, second = begin(out, "kill")
    second.communicate(timeout=300)
    begun = time.monotonic()
    while saved(out / "checkpoints" / "process-0.npz") != 6 * [3] and time.monotonic() - begun < 60:
        time.sleep(0.1)
    first.kill()
    first.communicate()
    files = {path.stem: saved(path) for path in (out / "checkpoints").glob("process-*.npz")}
    assert files == {
        "process-0": 6 * [3],
        "process-0-before": 6 * [2],
        "process-1": 6 * [2],
        "process-1-before": 6 * [1],
    }
    both = begin(out)
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [out.splitlines()[-1] for out, _ in said] == ["4", "4"]  # segments, of six
    assert not (out / "checkpoints").exists()

    joint, alone = pgjax.read(out), spread(None)
    assert joint.completed.all()
    np.testing.assert_allclose(joint.episode_return, alone.episode_return, rtol=1e-5, atol=1e-6)
    like = jax.eval_shape(POLICY.init, jax.random.key(0))
    ours, theirs = (pgjax.load_params(found, like, point={"learning_rate": 0.5}) for found in (joint, alone))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
