import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import pgjax
from pgjax import rlhf
from pgjax.rlhf.people import Store

ANSWER = {"prompt": "p\u2028\0", "outputs": ["a", "b\n"], "ranking": [0, 1], "id": "x"}


def test_answers_come_back_and_are_a_file_of_rankings(tmp_path):
    path = tmp_path / "new" / "rankings.jsonl"
    with Store(path) as store:
        store.append([ANSWER, {**ANSWER, "id": "y"}])
        store.append([{"withdraws": "x"}])
    with Store(path) as store:
        assert store.events == [ANSWER, {**ANSWER, "id": "y"}, {"withdraws": "x"}]
    assert [line.more["id"] for line in rlhf.ranking_lines(path)] == ["y"]
    assert path.stat().st_mode & 0o077 == 0  # nobody else reads what people answered


def test_a_line_that_was_cut_off_anywhere_goes_and_the_others_stay(tmp_path):
    path = tmp_path / "rankings.jsonl"
    with Store(path) as store:
        store.append([ANSWER, {**ANSWER, "prompt": "é🙂"}])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        with Store(path) as store:
            # All but its last byte, the end of the line, is a whole answer, which may stay.
            assert len(store.events) == (2 if end == len(whole) - 1 else 1)
            store.append([ANSWER])
        assert path.read_bytes().startswith(whole[:first])
        assert json.loads(path.read_bytes().splitlines()[-1]) == ANSWER


def test_a_second_one_is_refused_in_a_sentence(tmp_path):
    with (
        Store(tmp_path / "a"),
        pytest.raises(pgjax.InputError, match=r"that no other server has open, got .*/a"),
    ):
        Store(tmp_path / "a")
    Store(tmp_path / "a").close()
    (tmp_path / "b").write_text('{"prompt": "p"}\nrubbish\n')
    with pytest.raises(pgjax.InputError, match="b, line 2: expected JSON, got 'rubbish'"):
        Store(tmp_path / "b")
    with pytest.raises(pgjax.InputError, match="expected a file that can be written, got"):
        Store(tmp_path)


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    with Store(tmp_path / "a") as store:
        store.append([ANSWER])

        def full(file):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.append([ANSWER])
        monkeypatch.undo()
    assert (tmp_path / "a").read_text().count("\n") == 1


WRITER = """
import sys
from pgjax.rlhf.people.store import Store
store = Store(sys.argv[1])
print("began with", len(store.events), flush=True)
for i in range(10**9):
    store.append([{"id": f"{sys.argv[2]} {i}", "text": "x" * (i % 5000)} for _ in range(1 + i % 3)])
    print(i, flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_has_all_that_was_acknowledged(tmp_path):
    path, acknowledged = tmp_path / "rankings.jsonl", []
    for run, wait in enumerate((0.0, 0.013, 0.05, 0.11)):
        command = [sys.executable, "-c", WRITER, str(path), str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            began = process.stdout.readline()  # the lock of the one that was killed is gone
            assert re.fullmatch(r"began with \d+\n", began)
            assert int(began.split()[-1]) >= len(acknowledged)
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
            said = process.stdout.read().split("\n")[:-1]  # the last one may have been cut off
        acknowledged += [f"{run} {i}" for i in said]
    assert len(acknowledged) > 10
    with Store(path) as store:
        found = [event["id"] for event in store.events]
    assert list(dict.fromkeys(name for name in found if name in set(acknowledged))) == acknowledged
    for name in acknowledged:
        assert found.count(name) == 1 + int(name.split()[1]) % 3  # a whole batch
