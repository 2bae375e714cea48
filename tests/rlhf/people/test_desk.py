import json

import pytest

import pgjax
from pgjax.rlhf.formats import checked_line, written_line
from pgjax.rlhf.people import Desk, DeskSettings, Task, load_tasks, save_tasks, tasks_of_tokens, tokens_of_tasks
from pgjax.text.tokens import BOS, EOS, PAD, Characters

TASKS = [Task(f"p{i}", ("a", "b"), (True, False), {"round": 1, "asked": "uniform"}) for i in range(20)]
ONCE = DeskSettings(again=0.0)


def choose(desk, annotator, place=0, now=0.0):
    """Answer what is shown: that place is best."""
    view = desk.view(annotator, now)
    ranking = [[place], [p for p in range(len(view.shown)) if p != place]]
    return view, desk.answer(annotator, view.id, view.task.id, ranking, 1.5, now)


def test_an_answer_is_stored_as_it_was_shown():
    desk = Desk(TASKS, ONCE)
    view, line = choose(desk, "ada", now=86400.0)
    assert line.ranking == ((view.shown[0],), (view.shown[1],))
    assert line[:2] == (view.task.prompt, ("a", "b"))
    assert line.annotator == "ada"
    assert line.ended == (True, False)
    assert line.more == {
        "round": 1, "asked": "uniform", "task": view.task.id, "shown": list(view.shown), "again": False, "seconds": 1.5,
        "time": "1970-01-02T00:00:00.000+00:00", "question": "Which text is better?", "id": view.id,
    }  # fmt: skip
    assert checked_line("", json.loads(written_line(line))) == line


def test_sides_are_shuffled_for_each_view():
    desk = Desk([Task(str(i), ("a", "b"), (True, True)) for i in range(400)], ONCE)
    first = sum(choose(desk, "ada")[0].shown == (0, 1) for _ in range(400))
    assert 150 < first < 250  # 5 standard deviations
    three = Desk([Task(str(i), ("a", "b", "c"), (True,) * 3) for i in range(200)], ONCE)
    assert len({choose(three, "ada")[0].shown for _ in range(200)}) == 6


def test_what_one_holds_open_is_given_to_nobody_else_until_it_is_answered_or_times_out():
    desk = Desk(TASKS[:2], ONCE._replace(lease=60.0, overlap=2))
    ada, bob = desk.view("ada", 0.0), desk.view("bob", 0.0)
    assert ada.task != bob.task
    assert desk.view("cid", 59.0) is None
    assert desk.view("ada", 50.0) == ada  # a page that is loaded again, and the lease begins anew
    assert desk.view("cid", 61.0).task == bob.task
    with pytest.raises(pgjax.InputError, match="got one after it was given to somebody else"):
        desk.answer("bob", bob.id, bob.task.id, [[0], [1]], 1.0, 62.0)
    assert desk.answer("ada", ada.id, ada.task.id, [[0], [1]], 1.0, 1e6)  # late, but nobody else had it
    assert desk.view("bob", 62.0).task == ada.task


@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_each_task_goes_to_as_many_as_were_asked_for(overlap):
    desk = Desk(TASKS, ONCE._replace(overlap=overlap))
    who, turn = {}, 0
    while any(desk.view(name, 0.0) for name in "abc"):
        name = "abc"[turn % 3]
        turn += 1
        if desk.view(name, 0.0):
            view, _ = choose(desk, name)
            who.setdefault(view.task.id, set()).add(name)
    assert {len(people) for people in who.values()} == {overlap}
    assert len(who) == len(TASKS)
    assert desk.made == turn == overlap * len(TASKS) or desk.made == overlap * len(TASKS)
    assert [desk.progress(name)[1] for name in "abc"] == [0, 0, 0]


def test_a_task_that_is_skipped_goes_to_another_and_does_not_come_back():
    desk = Desk(TASKS[:1], ONCE)
    view = desk.view("ada", 0.0)
    line = desk.answer("ada", view.id, view.task.id, [], 1.0, 0.0)
    assert line.ranking == ()
    assert desk.view("ada", 0.0) is None
    assert desk.made == 0
    assert desk.progress("ada") == (1, 0)
    assert choose(desk, "bob")[0].task == view.task
    assert desk.made == 1


def test_one_in_ten_comes_back_with_its_sides_swapped():
    desk = Desk([Task(str(i), ("a", "b", "c"), (True,) * 3) for i in range(1000)], DeskSettings(gap=5))
    seen, again = [], 0
    while desk.view("ada", 0.0):
        view, line = choose(desk, "ada")
        if view.again:
            before = next(i for i, earlier in enumerate(seen) if earlier.task == view.task)
            assert view.shown == seen[before].shown[::-1]
            assert line.more["again"] is True
            assert len(seen) - before > 5 or len(seen) > 1000
            again += 1
        seen.append(view)
    assert 60 < again < 140  # 4 standard deviations
    assert desk.made == 1000
    assert len(seen) == 1000 + again


def test_what_somebody_holds_open_comes_again_to_nobody_either():
    desk = Desk(TASKS[:1], DeskSettings(overlap=2, again=1.0))
    view, _ = choose(desk, "ada")
    bob = desk.view("bob", 0.0)
    assert bob.task == view.task
    assert desk.view("ada", 0.0) is None
    assert desk.answer("bob", bob.id, bob.task.id, [[0], [1]], 1.0, 0.0)
    assert desk.view("ada", 0.0).again


def test_undo_asks_the_same_again_at_once():
    desk = Desk(TASKS, ONCE)
    first, _ = choose(desk, "ada")
    second, _ = choose(desk, "ada")
    name, line = desk.undo("ada", 0.0)
    assert name == second.id
    assert line.more["task"] == second.task.id
    assert desk.made == 1
    view = desk.view("ada", 0.0)
    assert view.task == second.task
    assert view.id != second.id  # so an answer that was withdrawn does not come back by itself
    with pytest.raises(pgjax.InputError, match="expected an answer to what you were shown"):
        desk.answer("ada", second.id, second.task.id, [[0], [1]], 1.0, 0.0)
    desk.undo("ada", 0.0)
    assert desk.view("ada", 0.0).task == first.task
    assert desk.undo("ada", 0.0) is None
    assert desk.undo("nobody", 0.0) is None
    assert desk.made == 0


def test_what_is_asked_again_after_undo_is_shuffled_anew():
    desk, changed = Desk(TASKS, ONCE), 0
    for _ in range(100):  # the chance that fewer than 25 or more than 75 change is below 1e-6
        view, _ = choose(desk, "ada")
        desk.undo("ada", 0.0)
        changed += desk.view("ada", 0.0).shown != view.shown
    assert 25 <= changed <= 75


def test_after_a_restart_everything_is_as_it_was():
    settings = DeskSettings(overlap=2, again=0.5, gap=1)
    desk, events = Desk(TASKS, settings), []
    for turn in range(30):
        name = "ab"[turn % 2]
        events.append(json.loads(written_line(choose(desk, name)[1])))
        if turn % 7 == 3:
            events.append({"withdraws": desk.undo(name, 0.0)[0]})
    again = Desk(TASKS, settings, events)
    assert again.made == desk.made
    assert again.answers == desk.answers
    for name in "ab":
        assert again.progress(name) == desk.progress(name)
    view = desk.view("a", 0.0)
    assert again.answer("a", view.id, view.task.id, [[1], [0]], 1.0, 0.0)  # a page that was open all the time
    other = Desk(TASKS[:1], settings, events)  # answers to what is not asked any more are kept
    assert len(other.answers) == len(desk.answers)


def test_what_is_no_answer_of_theirs_is_refused_and_changes_nothing():
    desk = Desk(TASKS, ONCE)
    ada, bob = desk.view("ada", 0.0), desk.view("bob", 0.0)
    for view, task in ((ada.id, ada.task.id), (bob.id, ada.task.id), ("", bob.task.id), (bob.id, "nothing")):
        with pytest.raises(pgjax.InputError, match="expected an answer to what you were shown, got one to something"):
            desk.answer("bob", view, task, [[0], [1]], 1.0, 0.0)
    for ranking in ([[0]], [[0], [0]], [[0], [2]], [[0], [1], []], [[0, 1, 1]]):
        with pytest.raises(pgjax.InputError, match="expected each place from 0 to 1 once"):
            desk.answer("ada", ada.id, ada.task.id, ranking, 1.0, 0.0)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(pgjax.InputError, match="expected seconds from 0 to 86400"):
            desk.answer("ada", ada.id, ada.task.id, [[0], [1]], seconds, 0.0)
    assert desk.made == 0
    assert desk.answer("ada", ada.id, ada.task.id, [[1, 0]], 1.0, 0.0).ranking == ((0, 1),)
    assert desk.answer("ada", ada.id, ada.task.id, [[0], [1]], 1.0, 0.0) is None  # twice
    assert desk.made == 1
    assert desk.answers[ada.id].ranking == ((0, 1),)


@pytest.mark.parametrize(
    ("tasks", "settings", "message"),
    [
        ([], {}, "expected one or more tasks, got none"),
        (TASKS[:1] * 2, {}, "expected tasks that differ, got one twice"),
        (TASKS, {"overlap": 0}, "expected an overlap of 1 or more annotators, got 0"),
        (TASKS, {"again": 1.5}, "expected a fraction from 0 to 1 of rankings to ask for again, got 1.5"),
        (TASKS, {"lease": float("nan")}, "expected a lease of more than 0 seconds, got nan"),
    ],
)
def test_a_desk_that_cannot_be_is_refused(tasks, settings, message):
    with pytest.raises(pgjax.InputError, match=message):
        Desk(tasks, DeskSettings(**settings))


def test_tasks_come_back_from_a_file(tmp_path):
    tasks = [Task("p\u2028", ("a", "<b>\0"), (True, False), {"mood": 1}), TASKS[0]]
    save_tasks(tmp_path / "tasks", tasks)
    assert load_tasks(tmp_path / "tasks") == tasks
    twice = (tmp_path / "tasks").read_text() * 2
    (tmp_path / "twice").write_text(twice)
    assert load_tasks(tmp_path / "twice") == tasks


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected one or more tasks in .*, got an empty file"),
        ("{", "line 1: expected JSON"),
        ('{"outputs": ["a", "b"]}', "line 1: expected a prompt that is a text, got NoneType"),
        ('{"prompt": "", "outputs": ["a"]}', "line 1: expected 2 to 9 outputs, got 1"),
        ('{"prompt": "", "outputs": ["a", 2]}', "line 1: expected outputs that are texts"),
        ('{"prompt": "", "outputs": ["a", "a"]}', "line 1: expected outputs that differ, got one twice"),
        ('{"prompt": "", "outputs": ["a", "b"], "ended": [1, 0]}', "line 1: expected true or false for each output"),
        ('{"prompt": "", "outputs": ["a", "\\ud800"]}', "line 1: expected texts of Unicode, got half a character"),
    ],
)
def test_a_file_that_holds_no_tasks_is_refused(tmp_path, line, message):
    (tmp_path / "tasks").write_text(line)
    with pytest.raises(pgjax.InputError, match=message):
        load_tasks(tmp_path / "tasks")
    with pytest.raises(pgjax.InputError, match=r"expected a file of tasks in UTF-8, got .*nowhere"):
        load_tasks(tmp_path / "nowhere")


def test_tasks_of_what_a_model_wrote():
    tokens = [
        [[BOS, 3, 4, EOS], [BOS, 3, 4, 4]],
        [[BOS, 3, 4, 4], [BOS, 3, 4, EOS]],  # the same ones the other way round
        [[BOS, 3, EOS, PAD], [BOS, 3, EOS, PAD]],
    ]
    tasks = tasks_of_tokens(tokens, [True, True, False], Characters("ab"), 2, {"round": 2})
    assert tasks == [Task("a", ("b", "bb"), (True, False), {"round": 2})]
    assert tokens_of_tasks(tasks, Characters("ab"), 2, 2).tolist() == [tokens[0]]


def test_outputs_whose_texts_are_the_same_or_do_not_come_back_are_in_no_task():
    tokenizer = pgjax.text.train_subwords("ab ab ab", 260)
    a, b, ab = (int(tokenizer.encode(text)[0]) for text in ("a", "b", "ab"))
    half = int(tokenizer.encode("é")[0])  # one byte of two, which is shown as U+FFFD, of three bytes
    tokens = [[[BOS, ab, EOS], [BOS, a, b]], [[BOS, a, b], [BOS, ab, PAD]], [[BOS, a, half], [BOS, a, EOS]]]
    tasks = tasks_of_tokens(tokens, [True] * 3, tokenizer, 1)
    assert [(task.outputs, task.ended) for task in tasks] == [(("ab", "ab"), (True, False))]
