import json
from typing import NamedTuple

import pytest

from common import dependence
from experiments import all as study

PAGES = sorted(path.relative_to(study.ROOT / "experiments").as_posix()
               for path in (study.ROOT / "experiments").glob("**/*.md"))  # fmt: skip
WITHOUT_NUMBERS = {"README.md", "scaling.md"}  # of one study: a list of all of them, and a guide


def test_every_page_is_of_a_study_whose_script_is_there():
    assert {row.page for row in study.STUDIES.values()} | WITHOUT_NUMBERS == set(PAGES)
    for name, row in study.STUDIES.items():
        for command in row.commands:
            assert (study.ROOT / "experiments" / command.split()[0]).is_file(), name


@pytest.mark.parametrize("name", study.STUDIES)
def test_a_page_that_is_older_than_its_code_says_so(name):
    page = study.ROOT / "experiments" / study.STUDIES[name].page
    wrong = f"{page.name} does not say whether its code has changed since it was made"
    assert page.read_text().rstrip().split("\n")[-1] == study.foot_of(name), (
        f"{wrong}: uv run experiments/all.py --stale"
    )


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A repository of one study."""
    room = tmp_path / "pgjax" / "room"
    room.mkdir(parents=True)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "one.py").write_text("import pgjax\n\nprint(pgjax.room.f(1))\n")
    (tmp_path / "experiments" / "one.md").write_text("# One\n\nIt is 2.\n")
    (tmp_path / "pgjax" / "__init__.py").write_text("from pgjax import room\n")
    (room / "__init__.py").write_text("from pgjax.room.desk import f, g\n")
    (room / "desk.py").write_text(
        "from pgjax.room import drawer\nSTEP = 1\n\ndef f(x):\n    return x + STEP\ndef g(x):\n    return drawer.h(x)\n"
    )
    (room / "drawer.py").write_text("def h(x):\n    return x\n")
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(study, "MADE", tmp_path / "made.json")
    monkeypatch.setattr(study, "STUDIES", {"one": study.Study("one.md", ("one.py",))})
    return tmp_path


def code_of(house):
    for cached in (dependence.source_of, dependence.place_of, dependence.reached_from):
        cached.cache_clear()
    return dependence.code_of(house, house / "experiments" / "one.py")


def replace(house, old, new, file="desk"):
    path = house / "pgjax" / "room" / f"{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_script_depends_on_what_it_reaches_and_not_on_its_neighbours(house):
    before = code_of(house)
    assert set(before) == {"experiments/one.py", "pgjax/room/desk.py"}
    replace(house, "return drawer.h(x)", "return drawer.h(x + 1)")
    assert code_of(house) == before
    replace(house, "STEP = 1", "STEP = 2")
    assert study.changed(before, code_of(house)) == ["pgjax/room/desk.py"]
    replace(house, "return x + STEP", "return g(x) + STEP")
    assert "pgjax/room/drawer.py" in code_of(house)


def test_words_types_and_blanks_change_nothing(house):
    before = code_of(house)
    replace(house, "def f(x):\n", 'def f(x: int) -> int:\n    """One more."""\n\n    # as it is\n')
    assert code_of(house) == before


def test_a_room_that_is_used_as_a_whole_counts_as_a_whole(house):
    (house / "experiments" / "one.py").write_text("import pgjax\n\nprint(getattr(pgjax.room, input()))\n")
    assert set(code_of(house)) == {"experiments/one.py", "pgjax/room/desk.py", "pgjax/room/drawer.py"}


def test_a_study_runs_once_is_published_and_grows_stale(house, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(study.subprocess, "run", lambda command, **_: ran.append(command) or Done())
    for _ in range(2):
        study.main(study.Options(("one",)))
    assert [command[1:] for command in ran if command[0] != "git"] == [["experiments/one.py"]]
    assert "done with today's code" in capsys.readouterr().out
    study.main(study.Options(("one",), publish=True))
    page = (house / "experiments" / "one.md").read_text()
    assert page.endswith(f"It is 2.\n\n{study.FRESH} as it was at revision abc1234.*\n")
    replace(house, "STEP = 1", "STEP = 2")
    code_of(house)
    study.main(study.Options(("one",), stale=True))
    assert capsys.readouterr().out.endswith("one, abc1234: pgjax/room/desk.py\n")
    assert (house / "experiments" / "one.md").read_text().split("\n")[-2].startswith(study.STALE)
    assert set(json.loads((house / "made.json").read_text())) == {"one"}


class Done(NamedTuple):
    """What a command leaves."""

    returncode: int = 0
    stdout: str = "abc1234\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (study.Options(("two",)), "error: expected studies among one, got two\n"),
        (study.Options(("one",), publish=True), "error: expected a study that has been run, got one\n"),
    ],
)
def test_what_is_no_study_and_what_has_not_been_run_is_refused(house, capsys, options, sentence):
    with pytest.raises(SystemExit) as ended:
        study.main(options)
    assert (ended.value.code, capsys.readouterr().err) == (2, sentence)


def test_a_study_that_fails_ends_all_with_its_status(house, monkeypatch):
    monkeypatch.setattr(study.subprocess, "run", lambda command, **_: Done(0 if command[0] == "git" else 3))
    with pytest.raises(SystemExit) as ended:
        study.main(study.Options(("one",)))
    assert ended.value.code == 3
    assert not (house / "results").exists()
