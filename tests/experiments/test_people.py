"""People in the loop, from nothing to a tuned model: by a driven browser, and by a program that clicks."""

import contextlib
import json
import shutil
import threading
import time

import pytest

from experiments import annotate
from experiments import rlhf as study
from pgjax import rlhf
from pgjax.rlhf import people
from tests.cases import assert_refused, run_experiment
from tests.experiments.test_annotate import clicking
from tests.rlhf.people.browsing import browsing, path_of_browser

TINY = ["--seeds", "1", "--width", "8", "--layers", "1", "--heads", "2", "--sentences", "200", "--pretraining", "100"]
TINY += ["--slots", "16", "--best-of", "4", "--block", "1", "--learning-rate", "1e-2", "--length", "16"]


def run_tiny(out, *arguments):
    """Run a tiny study, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"CANDIDATES": 8, "PROMPTS": 4, "SHOWN": 3, "STORED": 5}.items():
            patch.setattr(study, name, size)
        return run_experiment(patch, study, *TINY, *arguments, "--out", out)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The directory of a study with a model."""
    out = tmp_path_factory.mktemp("rlhf")
    assert run_tiny(out, "--rounds", "1", "--updates", "1", "--comparisons", "16") == 0
    return out


def shorter(text):
    return -len(text)


def when_asked(page, what):
    """Do something in a thread as soon as the page asks."""

    def wait():
        while page._office.desk is None:
            time.sleep(0.01)
        what(page)

    threading.Thread(target=wait, daemon=True).start()


def test_two_lines_open_the_page_and_a_third_tunes_a_model_with_what_was_clicked(out, tmp_path, monkeypatch):
    def click(page):
        for browser in browsing():  # in its own thread
            tab = browser.new_page()
            tab.set_default_timeout(120_000)
            tab.goto(page.addresses["ada"])
            while True:
                tab.locator(".pane, #said:has-text('That is all')").first.wait_for()
                texts = tab.locator(".pane .text").all_text_contents()
                if not texts:
                    return
                before = tab.locator("#count").text_content()
                tab.keyboard.press(str(1 + texts.index(min(texts, key=len))) if len(set(map(len, texts))) > 1 else "0")
                tab.locator("#count", has_not_text=before).wait_for()

    path_of_browser()  # skips where there is none
    monkeypatch.setattr(people, "print_links", lambda page: when_asked(page, click))
    arguments = ["--results", out, "--annotator", "ada", "--tasks", "60", "--out", tmp_path / "people"]
    assert run_experiment(monkeypatch, annotate, *arguments) == 0
    rankings = tmp_path / "people" / "rankings.jsonl"
    lines = rlhf.ranking_lines(rankings)
    assert len(lines) >= 60
    assert all(len(line.outputs[better]) < len(line.outputs[worse]) for line in lines for better, worse in line.pairs())
    shutil.copytree(out / "pretraining", tmp_path / "tuned" / "pretraining")
    arguments = ["--rankings", rankings, "--gold", "none", "--rounds", "1", "--updates", "25"]
    assert run_tiny(tmp_path / "tuned", *arguments) == 0
    summary = json.loads((tmp_path / "tuned" / "summary.json").read_text())
    assert summary["length"]["rl"] < 0.8 * summary["length"]["sft"]
    assert summary["people"]["accuracy"] > 0.6


def test_the_loop_waits_for_people_and_goes_on_in_the_middle_of_a_round(out, tmp_path, monkeypatch, capsys):
    shutil.copytree(out / "pretraining", tmp_path / "pretraining")
    arguments = ["--people", "12", "--rounds", "2", "--updates", "3", "--overlap", "2", "--again", "0"]
    arguments += ["--annotator", "ada", "bob"]

    def click_on(page):
        with contextlib.suppress(OSError):  # until the server goes
            while True:
                clicking(page, shorter)
                time.sleep(0.05)

    class StoppedError(Exception):
        pass

    def stop(page, tasks, n, settings, last):
        page.ask(tasks, settings, 5, last=last)
        page._office.reached.wait(30)
        raise StoppedError

    monkeypatch.setattr(people, "print_links", lambda page: when_asked(page, click_on))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people.Page, "collect", stop)
        with pytest.raises(StoppedError):
            run_tiny(tmp_path, *arguments)
    before = rlhf.ranking_lines(tmp_path / "people" / "rankings.jsonl")
    assert 5 <= len(before) < 12
    assert run_tiny(tmp_path, *arguments) == 0
    rounds = [rlhf.ranking_lines(tmp_path / "people" / f"round-{turn}.jsonl") for turn in (1, 2)]
    assert [line for line in rounds[0] if line in before] == before  # none is asked twice
    assert [sum(bool(line.ranking) for line in lines) >= 12 for lines in rounds] == [True, True]
    for turn, lines in enumerate(rounds, 1):
        assert {line.more["round"] for line in lines} == {turn}
        assert {line.more["asked"] for line in lines} == {"uniform"}
        assert len({line.more["model"] for line in lines}) == 1
    assert rounds[0][0].more["model"] != rounds[1][0].more["model"]  # the second is about the tuned model
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["rounds"]) == 2
    assert summary["rounds"][0]["bound"] == 1  # both say the same
    assert summary["rounds"][0]["accuracy"].keys() <= {"ada", "bob"}
    capsys.readouterr()
    assert run_tiny(tmp_path, *arguments) == 0
    assert "waiting for" not in capsys.readouterr().out  # all is there
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--people", "-1"], "expected 0 or more rankings by people, got -1"),
        (["--people", "8", "--seeds", "2"], "expected --seeds 1 and no other rankings beside --people, got more"),
        (["--people", "8", "--seeds", "1", "--comparisons", "9"], "expected --seeds 1 and no other rankings"),
        (
            ["--people", "8", "--seeds", "1", "--ask", "disagreement"],
            "expected --members 2 or more for --ask disagreement",
        ),
    ],
)
def test_what_does_not_go_with_people_is_refused(monkeypatch, capsys, tmp_path, arguments, message):
    assert_refused(monkeypatch, capsys, study, [*arguments, "--out", tmp_path / "out"], message)
