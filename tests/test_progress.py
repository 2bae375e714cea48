import sys

import pytest

import pgjax
from pgjax import progress
from tests.cases import random_mdp

ALGORITHM = pgjax.reinforce(pgjax.finite(random_mdp(), horizon=5), pgjax.tabular(3, 2), slots=4)


def sweep(**options):
    return pgjax.sweep(ALGORITHM, iterations=4, seeds=range(3), segment=1, **options)


@pytest.mark.slow
def test_a_log_file_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch, capsys):
    sweep()
    said = capsys.readouterr().err
    assert said.count("\n") == 1  # it took less than 30 s
    assert said.startswith("12 of 12 iterations (100%) after ")
    assert said.endswith(", 3 runs done\n")

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    sweep()
    said = capsys.readouterr().err
    assert "\r" not in said
    assert [line.split(" after")[0] for line in said.splitlines()] == [
        "3 of 12 iterations (25%)",
        "6 of 12 iterations (50%)",
        "9 of 12 iterations (75%)",
        "12 of 12 iterations (100%)",
    ]


@pytest.mark.slow
def test_a_terminal_gets_a_bar_and_who_wants_none_gets_none(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    sweep()
    said = capsys.readouterr().err
    assert "\r" in said
    assert "12/12" in said
    sweep(progress=False)
    assert capsys.readouterr().err == ""


def test_what_was_done_is_said_also_when_it_is_stopped(capsys):
    def stopped():
        with progress.progress_of(10) as show:
            show(4, "so far")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert capsys.readouterr().err == "4 of 10 iterations (40%) after 0 s, so far\n"
