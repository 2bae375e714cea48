import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.algorithms.base import train
from pgjax.placement import axes, by_model, by_slot, check_slots, parts, run_mesh, sum_over_parts, sweep_mesh
from pgjax.sweeps import runner
from tests.cases import random_mdp


class Mesh(NamedTuple):
    """What stands for a mesh of devices that are not there."""

    abstract_mesh: jax.sharding.AbstractMesh


TWO = jax.sharding.AbstractMesh((2, 1), ("slot", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


@pytest.fixture(scope="module")
def found():
    """What `tests.spread` says of runs on four devices."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.spread"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["with a critic", "minibatches", "recurrent", "transformer"])
def test_a_run_over_four_devices_is_that_on_one(found, name):
    for mesh, run in found[name].items():
        assert run["difference"] <= 2e-6, mesh  # of parameters of up to 0.6 and more
        assert run["moved"] > 0.5
        np.testing.assert_allclose(run["return"], found[name]["one"]["return"], rtol=1e-5)
        assert mesh == "one" or not run["exchanges"]  # nothing but sums and what is gathered


@pytest.mark.slow
def test_what_a_device_holds_falls(found):
    recurrent, transformer = found["recurrent"], found["transformer"]
    assert recurrent["slots"]["bytes"] < 0.5 * recurrent["one"]["bytes"]
    assert transformer["slots"]["params"] == transformer["one"]["params"]
    assert 0.5 < transformer["split"]["params"] / transformer["one"]["params"] < 0.53  # small arrays stay whole


@pytest.mark.slow
def test_runs_of_a_sweep_that_are_spread_are_those_on_a_device_each(found):
    assert found["swept"] < 2e-6


def test_a_run_on_one_device_is_left_as_it_is():
    x = jnp.arange(6.0).reshape(2, 3)
    assert parts() == 1
    assert axes() == {}
    assert by_slot(x) is x
    assert by_model(x) is x
    assert sum_over_parts(jnp.sum, x) == 15


def test_a_mesh_of_one_device_changes_nothing():
    environment = pgjax.finite(random_mdp(), horizon=5)
    algorithm = pgjax.reinforce(environment, pgjax.tabular(3, 2), slots=4)
    given = jax.random.key(0), algorithm.hyperparameters()
    (one, curves), (other, same) = (jax.jit(train(algorithm, 2, mesh))(*given) for mesh in (None, run_mesh(1)))
    np.testing.assert_array_equal(one.params, other.params)
    np.testing.assert_array_equal(curves.steps, same.steps)


def test_slots_that_devices_do_not_divide_are_refused():
    with jax.sharding.use_abstract_mesh(TWO):
        assert parts() == 2
        check_slots(4)
        with pytest.raises(pgjax.InputError, match="slots that the 2 devices of a run divide, got 3"):
            check_slots(3)


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(pgjax.InputError, match="a run on 1 to 1 devices, got 2"):
        run_mesh(2)
    with pytest.raises(pgjax.InputError, match="at most the 1 devices that are, got 2"):
        sweep_mesh(3, run_devices=2)
    with pytest.raises(pgjax.InputError, match="divides the 1 of a run, got 2"):
        sweep_mesh(3, model_devices=2)
    with pytest.raises(pgjax.InputError, match=r"an axis slot, and perhaps one called model, got \('seed',\)"):
        train(None, 1, jax.sharding.Mesh(np.asarray(jax.devices()), ("seed",)))


def test_a_sweep_that_cannot_be_spread_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "sweep_mesh", lambda *_, **__: Mesh(TWO))
    algorithm = pgjax.reinforce(pgjax.maze(), pgjax.tabular(25, 4), slots=3)
    with pytest.raises(pgjax.InputError, match="slots that the 2 devices of a run divide, got 3"):
        pgjax.sweep(algorithm, iterations=1, seeds=[0], out=tmp_path / "out", configuration={}, run_devices=2)
    assert not (tmp_path / "out").exists()
