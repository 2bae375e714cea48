import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

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
