import json
import threading
import time
import urllib.request

import pytest

from experiments import annotate as study
from pgjax import rlhf
from pgjax.rlhf import people
from tests.cases import assert_refused, run_experiment


def clicking(page, prefers):
    """Answer at a page, as every annotator, until nothing is left."""
    for address in page.addresses.values():
        base, token = address.split("/?token=")

        def ask(path, fields=None, base=base, token=token):
            data = None if fields is None else json.dumps(fields).encode()
            request = urllib.request.Request(f"{base}/{path}", data, {"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=120) as found:
                return json.load(found)

        state = ask("state")
        while state["view"]:
            view = state["view"]
            places = sorted(range(len(view["outputs"])), key=lambda i, view=view: -prefers(view["outputs"][i]["text"]))
            answer = {"id": view["id"], "task": view["task"], "ranking": [[i] for i in places], "seconds": 1.0}
            state = ask("answer", answer)


def run_clicked(monkeypatch, prefers, *arguments):
    """Run the study while somebody clicks, and return its exit status."""

    def print_links(page):
        def click():
            while page._office.desk is None:
                time.sleep(0.01)
            clicking(page, prefers)

        threading.Thread(target=click, daemon=True).start()

    monkeypatch.setattr(people, "print_links", print_links)
    monkeypatch.setattr(study, "GRACE", 0.0)
    return run_experiment(monkeypatch, study, *arguments)


def test_any_texts_are_ranked_and_written_as_both_formats(tmp_path, monkeypatch, capsys):
    lines = [{"prompt": f"p{i}", "outputs": ["x", "xx", "xxx"], "source": i} for i in range(4)]
    (tmp_path / "tasks").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["--file", tmp_path / "tasks", "--annotator", "ada", "bob", "--overlap", "2", "--again", "0"]
    arguments += ["--question", "Which is longer?", "--out", tmp_path / "out", "--export", tmp_path / "trl"]
    assert run_clicked(monkeypatch, len, *arguments) == 0
    found = rlhf.ranking_lines(tmp_path / "out" / "rankings.jsonl")
    assert [line.ranking for line in found] == [((2,), (1,), (0,))] * 8
    assert {(line.annotator, line.more["source"]) for line in found} == {
        (who, i) for who in ("ada", "bob") for i in range(4)
    }
    assert {line.more["question"] for line in found} == {"Which is longer?"}
    assert len((tmp_path / "trl").read_text().splitlines()) == 24
    assert "8 rankings in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either --results or --file, got none"),
        (["--file", "a", "--results", "b"], "expected either --results or --file, got both"),
        (["--file", "a", "--ask", "disagreement"], "expected --results, whose reward models disagree"),
        (["--file", "/nowhere"], "expected a file of tasks in UTF-8, got /nowhere"),
        (["--results", "/nowhere"], "expected a directory of experiments/rlhf.py with model.json"),
        (["--file", "a", "--overlap", "0"], "expected an overlap of 1 or more annotators, got 0"),
        (["--results", "a", "--tasks", "0"], "expected 1 or more tasks, got 0"),
        (["--results", "a", "--ranked", "10"], "expected 2 to 9 outputs to rank together, got 10"),
    ],
)
def test_what_cannot_be_is_refused(monkeypatch, tmp_path, capsys, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "out"], message)


def test_other_machines_are_not_let_in_by_mistake(monkeypatch, tmp_path, capsys):
    (tmp_path / "tasks").write_text('{"prompt": "", "outputs": ["a", "b"]}')
    arguments = ["--file", tmp_path / "tasks", "--out", tmp_path / "out", "--port", "99999"]
    assert_refused(monkeypatch, capsys, study, arguments, "expected a port from 0 to 65535, got 99999")
    arguments = ["--file", tmp_path / "tasks", "--host", "0.0.0.0", "--out", tmp_path / "out"]
    assert run_experiment(monkeypatch, study, *arguments) == 2
    assert (
        "expected a host of this machine, 127.0.0.1, got 0.0.0.0: everybody on that network" in capsys.readouterr().err
    )
