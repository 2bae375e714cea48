import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax
from pgjax.sweeps import batches, checkpoints, runner, tuning
from pgjax.sweeps.checkpoints import Running
from tests.sweeps.disturbed import OPTIONS
from tests.sweeps.test_sweep import ALGORITHM, ASYNCHRONOUS, assert_same, swept
from tests.sweeps.test_tuning import tuned

pytestmark = pytest.mark.slow

COMPILED = []  # what all sweeps that go on here have in common
LIKE = jax.eval_shape(pgjax.tabular(3, 2).init, jax.random.key(0))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return swept(out=tmp_path_factory.mktemp("undisturbed"), **OPTIONS).load()


def disturb(out, how):
    """Run `tests.sweeps.disturbed`, and return how the process ended."""
    command = [sys.executable, "-m", "tests.sweeps.disturbed", str(out), how]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def all_params(found):
    points = [{"learning_rate": a, "discount": b} for a in OPTIONS["grid"]["learning_rate"] for b in found.discount]
    return np.stack([pgjax.load_params(found, LIKE, point=point) for point in points])


def assert_goes_on(out, undisturbed, monkeypatch, segments):
    """Go on with a disturbed sweep, in so many segments, and come to the very same numbers."""
    calls, go_on, compile_program = [], batches.go_on, runner.compile_program

    def counted(*arguments):
        calls.append(None)
        return go_on(*arguments)

    def compiled_once(*arguments):
        if not COMPILED:
            COMPILED.append(compile_program(*arguments))
        return COMPILED[0]

    with monkeypatch.context() as patched:
        patched.setattr(batches, "go_on", counted)
        patched.setattr(runner, "compile_program", compiled_once)
        found = swept(out=out, **OPTIONS).load()
    assert len(calls) == segments
    assert found.completed.all()
    assert_same(found, undisturbed, exactly=True)
    np.testing.assert_array_equal(all_params(found), all_params(undisturbed))
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize(
    ("how", "segments"),
    [
        ("after a checkpoint", 7 - 3 + 7 + 7),  # the ninth is that of the second batch's third segment
        ("in a checkpoint", 7 - 2 + 7 + 7),
        ("in results", 1 + 7 + 7),  # the last segment of a batch is written at once
        ("between marks", 1 + 7 + 7),
    ],
)
def test_a_killed_process_comes_to_the_very_same_numbers(tmp_path, undisturbed, monkeypatch, how, segments):
    ended = disturb(tmp_path, how)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert 0 < int(pgjax.read(tmp_path).completed.sum()) < 16
    assert_goes_on(tmp_path, undisturbed, monkeypatch, segments)


def test_runs_with_clocks_of_their_own_come_to_the_very_same_numbers(tmp_path):
    ended = disturb(tmp_path / "killed", "asynchronous")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    saved = np.load(tmp_path / "killed" / "checkpoints" / "process-0.npz")
    assert len(np.unique(saved["done"])) > 1  # some runs are ahead of others
    found = swept(ASYNCHRONOUS, out=tmp_path / "killed", **OPTIONS).load()
    assert_same(found, swept(ASYNCHRONOUS, out=tmp_path / "whole", **OPTIONS).load(), exactly=True)


def test_tuning_that_was_killed_inside_a_rung_comes_to_the_very_same_record(tmp_path):
    ended = disturb(tmp_path / "killed", "tuning")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "killed" / "tuning.json").exists()
    rungs = [pgjax.read(tmp_path / "killed" / f"rung-{i}").completed for i in range(2)]
    assert [(int(rung.sum()), rung.size) for rung in rungs] == [(16, 16), (4, 8)]
    records = [tuning.record_of(tuned(out=tmp_path / name, batch=2)) for name in ("killed", "whole")]
    for record in records:
        record["budget"].pop("seconds")
    assert records[0] == records[1]


def test_sigterm_saves_and_ends_with_143(tmp_path, undisturbed, monkeypatch, capsys):
    out, damaged = tmp_path / "out", tmp_path / "damaged"
    ended = disturb(out, "SIGTERM")
    assert ended.returncode == 143
    assert ended.stderr == "stopped by SIGTERM; the same command goes on from here\n"
    shutil.copytree(out, damaged)
    assert_goes_on(out, undisturbed, monkeypatch, 7 - 3 + 7 + 7)
    assert capsys.readouterr().err == ""

    [file] = (damaged / "checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert_goes_on(damaged, undisturbed, monkeypatch, 7 + 7 + 7)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is damaged, so its batch begins anew" in said


def test_sigterm_is_as_it_was_after_a_sweep(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    swept(out=tmp_path, seeds=[0])
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_full_disk_ends_in_a_sentence_and_loses_nothing_that_is_finished(tmp_path, undisturbed, monkeypatch):
    ended = disturb(tmp_path, "full disk")
    assert ended.returncode == 2
    *checkpoints_failed, last = ended.stderr.splitlines()
    assert len(checkpoints_failed) == 6
    assert all("could not be saved" in line and "the sweep goes on without" in line for line in checkpoints_failed)
    assert last.startswith("expected results that can be written")
    assert last.endswith("what is finished is kept, and the same command goes on from there")
    assert int(pgjax.read(tmp_path).completed.sum()) == 8
    assert_goes_on(tmp_path, undisturbed, monkeypatch, 7 + 7 + 7)


def running():
    states = {
        "params": jnp.arange(12.0).reshape(4, 3),
        "key": jax.random.split(jax.random.key(0), 4),
        "half": jnp.arange(4, dtype=jnp.bfloat16),
        "count": jnp.int32([1, 2, 3, 4]),
        "nothing": jnp.zeros((4, 0)),
        "flag": jnp.array([True, False, True, True]),
    }
    states = jax.device_put(states, jax.devices()[0])
    return Running(states, {"a": np.full((4, 5), np.nan, np.float32)}, np.int32([3, 2, 5, 0]), 1.5)


def stands_for(states):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), states)


def assert_equal(found, expected):
    for ours, theirs in zip(jax.tree.leaves(found.states), jax.tree.leaves(expected.states), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert (ours == theirs).all()
    np.testing.assert_array_equal(found.curves["a"], expected.curves["a"])
    np.testing.assert_array_equal(found.done, expected.done)
    assert found.seconds == expected.seconds


def test_what_is_saved_is_restored(tmp_path):
    batch = running()
    path = tmp_path / "checkpoints" / "batch.npz"
    assert checkpoints.restore(path, "this", stands_for(batch.states)) is None
    assert checkpoints.save(path, "this", batch)
    assert_equal(checkpoints.restore(path, "this", stands_for(batch.states)), batch)
    assert checkpoints.restore(path, "that", stands_for(batch.states)) is None
    assert [file.name for file in path.parent.iterdir()] == ["batch.npz"]


def test_only_checkpoints_are_removed(tmp_path):
    for process in (0, 1):
        assert checkpoints.save(checkpoints.place(tmp_path, process), "this", running())
    checkpoints.remove(tmp_path)
    assert not list(tmp_path.iterdir())
    checkpoints.remove(tmp_path)
    assert checkpoints.save(checkpoints.place(tmp_path, 0), "this", running())
    (tmp_path / "checkpoints" / "preprocess-1.npz").write_text("precious")
    checkpoints.remove(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["preprocess-1.npz"]


def test_no_damage_goes_unnoticed(tmp_path, capsys):
    batch = running()
    path = tmp_path / "batch.npz"
    assert checkpoints.save(path, "this", batch)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    said = 0
    for position in rng.choice(len(whole), 200, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        found = checkpoints.restore(path, "this", stands_for(batch.states))
        if found is None:
            said += 1
        else:  # a bit that means nothing
            assert_equal(found, batch)
    for length in rng.choice(len(whole), 50, replace=False):
        path.write_bytes(whole[:length])
        assert checkpoints.restore(path, "this", stands_for(batch.states)) is None
        said += 1
    assert capsys.readouterr().err.count("is damaged, so its batch begins anew") == said
    assert said > 100


def test_a_failing_save_keeps_the_checkpoint_before(tmp_path, monkeypatch, capsys):
    batch = running()
    path = tmp_path / "batch.npz"
    assert checkpoints.save(path, "this", batch)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert not checkpoints.save(path, "this", batch._replace(seconds=9.0))
    assert "No space left on device; the sweep goes on without" in capsys.readouterr().err
    assert_equal(checkpoints.restore(path, "this", stands_for(batch.states)), batch)
    assert [file.name for file in tmp_path.iterdir()] == ["batch.npz"]


@pytest.mark.parametrize("options", [{"batch": 7}, {"block": 3}])
def test_a_checkpoint_of_another_batch_is_passed_over(tmp_path, monkeypatch, undisturbed, options):
    save, calls = checkpoints.save, []

    class StoppedError(Exception):
        pass

    def stopping(*arguments):
        save(*arguments)
        calls.append(None)
        raise StoppedError

    monkeypatch.setattr(checkpoints, "save", stopping)
    with pytest.raises(StoppedError):
        swept(out=tmp_path, **OPTIONS)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    monkeypatch.setattr(checkpoints, "save", save)
    assert_same(swept(out=tmp_path, **OPTIONS | options), undisturbed)


def test_an_algorithm_without_params_says_so():
    bare = ALGORITHM._replace(init=lambda key, numbers: (key,), update=lambda state: (state, state))
    with pytest.raises(pgjax.InputError, match="whose state has params, or keep_params=False"):
        pgjax.sweep(bare, iterations=1, seeds=[0], progress=False)
