import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import pytest
import xarray as xr

import pgjax
from common import launch
from experiments import reinforce

PRINTING = """
from dataclasses import dataclass
from experiments.common import launch

@dataclass(frozen=True)
class Options:
    seeds: int = 1

launch.run(lambda options: print("a table"), Options, "A study.")
"""


@pytest.mark.parametrize("arguments", [[reinforce.__file__, "--help"], ["-c", PRINTING]])
def test_a_closed_pipe_ends_a_study_without_a_word(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([sys.executable, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert ended.stderr == ""
    assert ended.returncode == 141  # 128 + SIGPIPE, as a shell says of other tools


@dataclass(frozen=True)
class Options:
    rate: tuple[float, ...] = (0.1,)
    limit: float | None = None
    out: Path = Path("results")
    readme: Path | None = None


def test_a_study_sees_whole_paths(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ["--out=~/runs", "--readme", "notes.md"]):
        monkeypatch.setattr(sys, "argv", ["study.py", *arguments])
        launch.run(seen.append, Options, "A study.")
    assert [options.out for options in seen] == [tmp_path / "results", tmp_path / "home" / "runs"]
    assert [options.readme for options in seen] == [None, tmp_path / "notes.md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0.1", "nan"], "error: expected a finite --rate, got nan\n"),
        (["--limit=-inf"], "error: expected a finite --limit, got -inf\n"),
        (["--out=~nobody-at-all/runs"], "error: expected a path, got ~nobody-at-all/runs: Could not determine home"),
    ],
)
def test_a_study_sees_no_option_that_cannot_be_used(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["study.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        launch.run(pytest.fail, Options, "A study.")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(message)


SMALL = ["--env", "maze", "--seeds", "2", "--iterations", "2", "--slots", "2"]


def begin(cache, out):
    command = [sys.executable, reinforce.__file__, *SMALL, "--compilation-cache", str(cache), "--out", str(out)]
    given = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true"}
    return subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True)


def end(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def test_programs_are_compiled_once_a_machine_whatever_other_processes_do(tmp_path):
    cache = tmp_path / "cache"
    for process in [begin(cache, tmp_path / str(i)) for i in range(2)]:  # at the same time
        end(process)
    [directory] = cache.iterdir()
    assert directory.name == launch.processor()
    [entry] = directory.glob("jit_advance-*-cache")
    whole, when = entry.read_bytes(), entry.stat().st_mtime_ns
    said = end(begin(cache, tmp_path / "2"))
    assert "SIGILL" not in said  # of which one version of JAX warns without a reason
    assert entry.stat().st_mtime_ns == when

    # As if a process had been killed while it wrote.
    entry.write_bytes(whole[: len(whole) // 2])
    entry.with_name(entry.name.removesuffix("-cache") + "-atime").unlink()
    end(begin(cache, tmp_path / "3"))
    assert entry.stat().st_size > len(whole) / 2
    results = [pgjax.read(tmp_path / str(i)).load() for i in range(4)]
    for found in results[1:]:
        xr.testing.assert_equal(found.drop_vars("seconds"), results[0].drop_vars("seconds"))


def test_a_directory_that_cannot_hold_programs_is_named_and_the_study_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "file").write_text("")
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", True)
    try:
        launch.keep_programs(tmp_path / "file")
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
    said = capsys.readouterr().err
    assert said.startswith(f"programs are compiled anew, as {tmp_path / 'file' / launch.processor()} cannot be used: ")
    assert said.count("\n") == 1
