import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import zarr

import pgjax
from experiments import reinforce as study
from pgjax import trees as leaves
from pgjax.sweeps import batches, runner
from pgjax.sweeps import store as results
from pgjax.sweeps.load import load_params
from pgjax.sweeps.store import Piece, create, partition, seeds_per_chunk
from tests.cases import run_experiment
from tests.sweeps.test_sweep import ALGORITHM, assert_same, swept

PARAMS = {
    "network": {"kernel": jnp.zeros((2, 3)), "count": jnp.int32(0)},
    "half": jnp.zeros(4, jnp.bfloat16),
    "key": jax.random.key(0, impl="rbg"),
    "flags": jnp.zeros(2, bool),
    "nothing": jnp.zeros((0, 3)),
}
NAMES = ["flags", "half", "key", "network.count", "network.kernel", "nothing"]


def made(key):
    """Parameters of as many runs as there are keys."""

    def one(key):
        return {
            "network": {"kernel": jax.random.normal(key, (2, 3)), "count": jax.random.randint(key, (), 0, 99)},
            "half": jax.random.normal(key, 4, jnp.bfloat16),
            "key": jax.random.wrap_key_data(jax.random.bits(key, 4), impl="rbg"),
            "flags": jax.random.bernoulli(key, shape=(2,)),
            "nothing": jnp.zeros((0, 3)),
        }

    return jax.vmap(one)(jax.random.split(key, 3))


def store(out, params=PARAMS, axes=None):
    return create(out, {}, {"a": [0.1, 0.2]} if axes is None else axes, [7, 8, 9], 2, ["x"], params)


def write(place, point, params, seeds=slice(0, 3)):
    plain = map(leaves.plain, jax.tree.leaves(params))
    rows = {name: leaf[seeds] for name, leaf in zip(leaves.names(params), plain, strict=True)}
    n = seeds.stop - seeds.start
    region = {"a": slice(point, point + 1), "seed": seeds}
    results.write(place, [Piece(region, {"x": np.ones((n, 2), np.float32)}, rows)], 1.0)


@pytest.mark.parametrize("on_disk", [True, False])
def test_parameters_come_back_as_they_were(tmp_path, on_disk):
    place = store(tmp_path if on_disk else None)
    params = made(jax.random.key(1))
    assert leaves.names(params) == NAMES
    write(place, 1, params)
    found = results.read(place).load()
    assert set(found.variables) == {"x", "seconds", "completed", "a", "seed", "iteration"}
    stacked = load_params(found, PARAMS, point={"a": 0.2})
    one = load_params(found, jax.eval_shape(lambda: PARAMS), seed=8, point={"a": 0.2})
    for all_runs, run, expected in zip(*map(jax.tree.leaves, (stacked, one, params)), strict=True):
        assert all_runs.dtype == run.dtype == expected.dtype
        assert (all_runs == expected).all()
        assert run.shape == expected.shape[1:]
        assert (run == expected[1]).all()


def test_parameters_that_are_not_there_are_refused_in_words(tmp_path):
    place = store(tmp_path / "some")
    write(place, 0, made(jax.random.key(1)), slice(0, 2))
    there = {"seed": 7, "point": {"a": 0.1}}
    for options, message in (
        ({"seed": 6}, "seed to be one of the results', got 6"),
        ({"point": {"a": 0.3}}, "a to be one of the results', got 0.3"),
        ({"point": None}, r"a value of each of \['a'\], got \[\]"),
        ({"point": {"a": 0.1, "b": 0.1}}, r"a value of each of \['a'\], got \['a', 'b'\]"),
        ({"seed": 9}, "completed runs, got 1 that are not yet"),
        ({"seed": None}, "completed runs, got 1 that are not yet"),
    ):
        with pytest.raises(pgjax.InputError, match=message):
            load_params(tmp_path / "some", PARAMS, **there | options)
    for like, message in (
        (PARAMS | {"half": jnp.zeros(5, jnp.bfloat16)}, r"half of shape \(4,\) and type uint16, got \(5,\)"),
        (PARAMS | {"flags": jnp.zeros(2)}, "flags of shape .* and type bool, got .* and float32"),
        ({"theta": jnp.zeros(3)}, "expected parameters flags, half, .* got theta"),
    ):
        with pytest.raises(pgjax.InputError, match=message):
            load_params(tmp_path / "some", like, **there)
    write(store(tmp_path / "none", params=None), 0, {})
    with pytest.raises(pgjax.InputError, match="where they were not kept"):
        load_params(tmp_path / "none", PARAMS, **there)
    cut(tmp_path / "some" / results.STORE / "params" / "network.kernel" / "c" / "0" / "0" / "0" / "0")
    with pytest.raises(pgjax.InputError, match=r"parameters that can be read, got network.kernel: "):
        load_params(tmp_path / "some", PARAMS, **there)
    with pytest.raises(pgjax.InputError, match="a dataset that a sweep or read returned"):
        load_params(xr.Dataset(), PARAMS)
    with pytest.raises(pgjax.InputError, match=r"a directory with results.zarr"):
        load_params(tmp_path / "nothing", PARAMS)


def test_paths_at_home_relative_ones_and_the_store_itself_are_read(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    at_home = swept(out="~/home", seeds=range(2), iterations=1)
    monkeypatch.chdir(tmp_path)
    relative = swept(out="relative", seeds=range(2), iterations=1)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "home", "relative"]
    like = jax.eval_shape(lambda: jnp.zeros((3, 2)))
    for found in (at_home, relative):
        pgjax.load_params(found, like)
    store = tmp_path / "home" / "results.zarr"
    for path in (store, str(store), f"{store}/", "~/home", "~/home/results.zarr/", "../home/results.zarr"):
        np.testing.assert_array_equal(pgjax.read(path).seed, [0, 1])
        pgjax.load_params(path, like)


def test_a_sweep_keeps_the_parameters_that_a_run_ends_with():
    found = swept(grid={"learning_rate": [0.1, 0.5]}, seeds=[3, 4], iterations=2)
    like = jax.eval_shape(pgjax.tabular(3, 2).init, jax.random.key(0))
    state, _ = pgjax.train(ALGORITHM, 2)(pgjax.run_keys(0, [4])[0], ALGORITHM.hyperparameters(learning_rate=0.5))
    theta = load_params(found, like, seed=4, point={"learning_rate": 0.5})
    np.testing.assert_allclose(theta, state.params, rtol=1e-5, atol=1e-6)
    assert load_params(found.sel(seed=[3]), like, point={"learning_rate": 0.1}).shape == (2, *theta.shape)


def test_a_sweep_may_keep_no_parameters(tmp_path):
    swept(out=tmp_path, seeds=[3], iterations=1, keep_params=False)
    assert not (tmp_path / results.STORE / "params").exists()
    assert swept(out=tmp_path, seeds=[3], iterations=1).completed.all()  # as it was laid out


def test_large_parameters_share_no_chunk(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "BYTES_PER_CHUNK", 100)
    place = create(tmp_path, {}, {}, range(64), 1, ["x"], {"small": jnp.zeros(3), "large": jnp.zeros(99)})
    group = zarr.open_group(place, path="params")
    assert group["small"].chunks == (8, 3)
    assert group["large"].chunks == (1, 99)


@pytest.mark.parametrize("points", [1, 3, 16])
@pytest.mark.parametrize("seeds", [1, 5, 100, 256, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3, 7, 64])
def test_every_run_is_dealt_to_one_process(points, seeds, processes):
    chunk = seeds_per_chunk(points, seeds, processes)
    shares = [partition(points, seeds, chunk, process, processes) for process in range(processes)]
    assert [run for share in shares for run in share.runs] == list(range(points * seeds))
    sizes = [len(share.chunks) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for share in shares:
        for run in (share.runs.start, share.runs.stop):
            assert run % seeds % chunk == 0
    if points * seeds >= 8 * processes:
        assert max(len(share.runs) for share in shares) <= 1.5 * points * seeds / processes


def test_a_store_that_another_process_laid_out_meanwhile_is_used(tmp_path, monkeypatch):
    lay_out, calls = results.lay_out, []

    def meanwhile(place, *arguments):
        lay_out(place, *arguments)
        if not calls:
            calls.append(place)
            write(store(tmp_path), 0, made(jax.random.key(1)))

    monkeypatch.setattr(results, "lay_out", meanwhile)
    assert results.completed(store(tmp_path)).sum() == 3
    assert [path.name for path in tmp_path.iterdir()] == [results.STORE]
    monkeypatch.undo()
    with pytest.raises(pgjax.InputError, match="configuration"):
        create(tmp_path, {"other": 1}, {"a": [0.1, 0.2]}, [7, 8, 9], 2, ["x"])


COMPILED = {}
compile_program = runner.compile_program


def compiled_once(*arguments):
    plan = arguments[4]
    if plan not in COMPILED:
        COMPILED[plan] = compile_program(*arguments)
    return COMPILED[plan]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("zarr.json", lambda path: path.unlink()),
        ("zarr.json", cut),
        ("steps/zarr.json", lambda path: path.unlink()),
        ("steps/zarr.json", cut),
        ("seed/zarr.json", lambda path: path.unlink()),
        ("completed/c/0/0", cut),
        ("episode_return/c/0/0/0", cut),
        ("params/zarr.json", cut),
    ],
)
def test_a_damaged_store_is_refused_and_left_alone(tmp_path, monkeypatch, name, damage):
    options = {"out": tmp_path, "grid": {"learning_rate": [0.1, 0.5]}, "iterations": 1, "segment": 1, "batch": 5}
    write, calls = results.write, []

    def once(*arguments):
        if calls:
            raise pgjax.InputError("enough")
        calls.append(write(*arguments))

    monkeypatch.setattr(runner, "compile_program", compiled_once)
    monkeypatch.setattr(batches, "write", once)
    with pytest.raises(pgjax.InputError, match="enough"):
        swept(**options)
    monkeypatch.setattr(batches, "write", write)
    path = tmp_path / results.STORE / name
    damage(path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(pgjax.InputError, match=r"^expected .*results"):
        swept(**options, checkpoint_seconds=1e9)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


# --- Several processes ------------------------------------------------------------------------------------------------

SMALL = ["--env", "maze", "--seeds", "10", "--iterations", "3", "--slots", "2", "--learning-rate", "0.01", "0.1"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_share_the_runs(tmp_path, monkeypatch, capsys):
    out, launch = tmp_path / "two", ["--coordinator", f"localhost:{free_port()}", "--processes", "2", "--process"]
    command = [sys.executable, study.__file__, *SMALL, "--out", str(out), *launch]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([*command, str(process)], **pipes) for process in range(2)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "final return (IQM)" in said[0][0]
    assert said[1] == ("", "")
    assert json.loads((out / "summary.json").read_text())["chosen_from"] == 2
    names = {".results.zarr.lock", "results.zarr", "summary.json", "learning_curves.png"}
    assert {path.name for path in out.iterdir()} == names

    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path / "one") == 0
    assert capsys.readouterr().out.splitlines()[:3] == said[0][0].splitlines()[:3]
    two, one = pgjax.read(out), pgjax.read(tmp_path / "one")
    assert two.attrs["device"].startswith("2 x")
    assert two.completed.all()
    assert_same(two, one)
    for rate in (0.01, 0.1):
        like = jax.eval_shape(pgjax.policy_for(pgjax.maze()).init, jax.random.key(0))
        ours, theirs = (pgjax.load_params(found, like, point={"learning_rate": rate}) for found in (two, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_processes_without_a_directory_are_refused(monkeypatch):
    monkeypatch.setattr(runner.jax, "process_count", lambda: 2)
    with pytest.raises(pgjax.InputError, match="a directory that all 2 processes share, got none"):
        swept()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "2"], "--coordinator, --processes and --process together, got --processes alone"),
        (["--coordinator", "localhost:1", "--process", "0"], "together, got --coordinator, --process alone"),
        (["--distributed", "--process", "0"], "got both: --process"),
        (["--coordinator", "host", "--processes", "2", "--process", "0"], "HOST:PORT, got host"),
        (["--coordinator", "host:1", "--processes", "2", "--process", "2"], "a process from 0 to 1, got 2"),
    ],
)
def test_a_launch_that_makes_no_sense_is_refused(monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.setattr(jax.distributed, "initialize", None)
    assert run_experiment(monkeypatch, study, *SMALL, *arguments, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: expected")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_for_the_summary_is_named(monkeypatch, tmp_path, capsys):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(study.tables, "write_json", full)
    assert run_experiment(monkeypatch, study, *SMALL, "--out", tmp_path) == 2
    assert f"expected {tmp_path / 'summary.json'} to be written, got No space left" in capsys.readouterr().err


def test_jax_is_asked_to_find_the_other_processes(monkeypatch, tmp_path, capsys):
    asked = []

    def initialize(*arguments):
        asked.append(arguments)
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    assert run_experiment(monkeypatch, study, *SMALL, "--distributed", "--out", tmp_path / "out") == 2
    assert "expected to be one of several processes, got no connection" in capsys.readouterr().err
    assert asked == [(None, None, None)]


# --- Memory -----------------------------------------------------------------------------------------------------------


def short_of_memory(share):
    """`compile_program` for a device whose memory holds no more runs, as only running them shows."""

    class Advance:
        def __init__(self, compiled):
            self.input_shardings = compiled.input_shardings

        def __call__(self, *arguments):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 byte.")

    def compiled(*arguments):
        program = compiled_once(*arguments)
        return program if program.plan.share <= share else program._replace(advance=Advance(program.advance))

    return compiled


def test_a_batch_is_halved_when_memory_runs_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "compile_program", compiled_once)
    options = {"grid": {"learning_rate": [0.1, 0.5]}, "iterations": 1, "segment": 1}
    whole = swept(**options, batch=5).load()
    monkeypatch.setattr(runner, "compile_program", short_of_memory(5))
    found = swept(**options, out=tmp_path, batch=10)
    assert found.completed.all()
    assert_same(found, whole)
    assert capsys.readouterr().err == ("10 runs do not fit into the memory of a device; going on with 5 at a time\n")
    monkeypatch.setattr(runner, "compile_program", short_of_memory(0))
    with pytest.raises(
        pgjax.InputError, match="expected a run to fit into the memory of a device, got RESOURCE_EXHAUS"
    ):
        swept(**options, batch=1)
