"""The desk that deals out tasks: who is asked what next, who holds what open, and whose answer counts.

Nothing here knows of a network or a clock. An answer is looked at, taken, and returned as the line to be stored.
"""

import hashlib
import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pgjax.errors import InputError
from pgjax.rlhf.formats import RankingLine, checked_line
from pgjax.rlhf.people.tasks import Task

LONGEST = 24 * 3600.0  # seconds of an answer


class DeskSettings(NamedTuple):
    """How tasks are dealt out."""

    overlap: int = 1  # annotators who rank each task
    again: float = 0.1  # the fraction of its rankings that an annotator is asked for again, sides swapped
    gap: int = 5  # answers at least between a ranking and its repetition, while there is anything else to ask
    lease: float = 600.0  # seconds that a task is held for who has it open
    question: str = "Which text is better?"
    seed: int = 0  # of orders and repetitions


class View(NamedTuple):
    """A task as an annotator sees it."""

    id: str  # of the answer to it
    task: Task
    shown: tuple[int, ...]  # outputs in the order of their places
    again: bool


def check_settings(settings: DeskSettings) -> None:
    """Raise unless tasks can be dealt out so.

    Raises:
        InputError: If a number is out of range.
    """
    if settings.overlap < 1:
        raise InputError(f"expected an overlap of 1 or more annotators, got {settings.overlap}")
    if not 0 <= settings.again <= 1:
        raise InputError(f"expected a fraction from 0 to 1 of rankings to ask for again, got {settings.again}")
    if not 0 < settings.lease < math.inf:
        raise InputError(f"expected a lease of more than 0 seconds, got {settings.lease}")


def check_desk(settings: DeskSettings, tasks: Sequence[Task]) -> None:
    """Raise unless there is something to deal out.

    Raises:
        InputError: If a number is out of range, there is no task, or one is there twice.
    """
    check_settings(settings)
    if not tasks:
        raise InputError("expected one or more tasks, got none")
    if len({task.id for task in tasks}) < len(tasks):
        raise InputError("expected tasks that differ, got one twice")


class Desk:
    """Tasks, and what has been said of them; `events` are the stored lines, from before a restart too."""

    def __init__(self, tasks: Sequence[Task], settings: DeskSettings, events: Sequence[Mapping[str, Any]] = ()) -> None:
        check_desk(settings, tasks)
        self.settings = settings
        self.tasks = {task.id: task for task in tasks}
        self.answers: dict[str, RankingLine] = {}  # by id, all that count, the latest last
        self._said: dict[tuple[str, str], list[str]] = {}  # ids, by annotator and task
        self._by: dict[str, list[str]] = {}  # ids, by annotator, of these tasks
        self._rankings: Counter[str] = Counter()  # of each task, by how many annotators
        self._open = dict.fromkeys(self.tasks)  # tasks of which more rankings are wanted, in order
        self._begun: dict[str, None] = {}  # those of them that somebody has ranked
        self._withdrawn: Counter[tuple[str, str]] = Counter()
        self._leases: dict[str, tuple[str, float]] = {}  # who holds a task, and until when
        self._held: dict[str, str] = {}  # the view that an annotator was given last: its task
        for number, event in enumerate(events, 1):
            if "withdraws" in event:
                self.withdraw(str(event["withdraws"]))
            else:
                line = checked_line(f"answer {number}", event)
                self.take(line, str(event.get("id", f"line {number}")))

    def take(self, line: RankingLine, name: str) -> None:
        """Count an answer; it is known by this name."""
        self.answers[name] = line
        task = str(line.more.get("task", ""))
        if task not in self.tasks:
            return  # of another round
        said = self._said.setdefault((line.annotator, task), [])
        self._by.setdefault(line.annotator, []).append(name)
        said.append(name)
        if len(said) == 1 and line.ranking:
            self._count(task, 1)
        if self._held.get(line.annotator) == task:
            del self._held[line.annotator]
            self._leases.pop(task, None)

    def withdraw(self, name: str) -> None:
        """Count an answer no longer."""
        line = self.answers.pop(name, None)
        if line is None:
            return
        task = str(line.more.get("task", ""))
        if task in self.tasks:
            said = self._said[line.annotator, task]
            said.remove(name)
            self._by[line.annotator].remove(name)
            self._withdrawn[line.annotator, task] += 1
            if not said and line.ranking:
                self._count(task, -1)

    def _count(self, task: str, more: int) -> None:
        self._rankings[task] += more
        count = self._rankings[task]
        for which, belongs in ((self._open, count < self.settings.overlap), (self._begun, count > 0)):
            if belongs:
                which.setdefault(task)
            else:
                which.pop(task, None)
        if count >= self.settings.overlap:
            self._begun.pop(task, None)

    def view(self, annotator: str, now: float) -> View | None:
        """What an annotator is asked next, and holds from now on; None where there is nothing (yet).

        What they hold comes first, so that a page that is loaded again shows the same; then a ranking that is due
        again, then a task that others have ranked already, then the next one.
        """
        task = self._held.get(annotator)
        if task is None or not self._free(annotator, task, now) or not self._wanted(annotator, task):
            task = self._next(annotator, now)
        if task is None:
            return None
        if self._held.get(annotator, task) != task:
            self._leases.pop(self._held[annotator], None)
        self._held[annotator] = task
        self._leases[task] = annotator, now + self.settings.lease
        return self._view(annotator, task)

    def _next(self, annotator: str, now: float) -> str | None:
        due = self._due(annotator, now)
        if due is not None and due[1] >= self.settings.gap:
            return due[0]
        for task in itertools.chain(self._begun, self._open):
            if not self._said.get((annotator, task)) and self._free(annotator, task, now):
                return task
        return None if due is None else due[0]

    def _free(self, annotator: str, task: str, now: float) -> bool:
        """Whether nobody else holds a task open."""
        holder, until = self._leases.get(task, (annotator, 0.0))
        return holder == annotator or now >= until

    def _wanted(self, annotator: str, task: str) -> bool:
        """Whether an annotator's answer to a task would count: the first of a task that is open, or one that is due."""
        said = self._said.get((annotator, task), [])
        return task in self._open if not said else self._comes_again(annotator, task)

    def _comes_again(self, annotator: str, task: str) -> bool:
        """Whether an annotator has ranked a task once, and is to do so again."""
        said = self._said.get((annotator, task), [])
        if len(said) != 1 or not self.answers[said[0]].ranking:
            return False
        return int(self._digest("again", annotator, task)[:8], 16) < self.settings.again * 2**32

    def _due(self, annotator: str, now: float) -> tuple[str, int] | None:
        """The oldest task that an annotator is to rank again, and how many answers ago they did; None without one."""
        names = self._by.get(annotator, [])
        for ago, name in zip(range(len(names) - 1, -1, -1), names, strict=True):
            task = str(self.answers[name].more["task"])
            if self._comes_again(annotator, task) and self._free(annotator, task, now):
                return task, ago
        return None

    def _digest(self, *what: str) -> str:
        return hashlib.sha256("\0".join((str(self.settings.seed), *what)).encode()).hexdigest()

    def _view(self, annotator: str, task: str) -> View:
        said, withdrawn = self._said.get((annotator, task), []), str(self._withdrawn[annotator, task])
        order = list(range(len(self.tasks[task].outputs)))
        if said:
            shown = tuple(self.answers[said[0]].more.get("shown", order)[::-1])
        else:
            random.Random(self._digest("order", annotator, task, withdrawn)).shuffle(order)
            shown = tuple(order)
        count = f"{len(said)} {withdrawn}"
        return View(self._digest("view", annotator, task, count)[:24], self.tasks[task], shown, bool(said))

    def answer(
        self, annotator: str, view: str, task: str, ranking: Sequence[Sequence[int]], seconds: float, now: float
    ) -> RankingLine | None:
        """The line to store of an answer, which counts from now on; None if it counts already.

        Args:
            annotator: Who answers.
            view: The view's id.
            task: The task's.
            ranking: Places, best first, in groups of equally good ones, each once; none to skip it.
            seconds: How long it took.
            now: Seconds since 1970.

        Raises:
            InputError: If it is not theirs to answer, or no ranking of all the outputs.
        """
        if view in self.answers and self.answers[view].annotator == annotator:
            return None
        if task not in self.tasks or self._view(annotator, task).id != view:
            raise InputError("expected an answer to what you were shown, got one to something else")
        if not self._free(annotator, task, now) or not self._wanted(annotator, task):
            raise InputError("expected an answer while the task was yours, got one after it was given to somebody else")
        asked = self._view(annotator, task)
        places = sorted(place for group in ranking for place in group)
        if places and (places != list(range(len(asked.shown))) or not all(ranking)):
            raise InputError(f"expected each place from 0 to {len(asked.shown) - 1} once, got {str(ranking)[:60]}")
        if not 0 <= seconds <= LONGEST:
            raise InputError(f"expected seconds from 0 to {LONGEST:.0f}, got {seconds}")
        more = {
            **asked.task.more,
            "task": task,
            "shown": list(asked.shown),
            "again": asked.again,
            "seconds": round(seconds, 3),
            "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
            "question": self.settings.question,
            "id": view,
        }
        groups = tuple(tuple(sorted(asked.shown[place] for place in group)) for group in ranking)
        line = RankingLine(asked.task.prompt, asked.task.outputs, groups, annotator, asked.task.ended, more)
        self.take(line, view)
        return line

    def undo(self, annotator: str, now: float) -> tuple[str, RankingLine] | None:
        """An annotator's last answer, which counts no longer and is asked again at once; None if there is none.

        It is returned with the name that it was known by, so that it can be taken again if it is not withdrawn after
        all.
        """
        names = self._by.get(annotator)
        if not names:
            return None
        name = names[-1]
        line, task = self.answers[name], str(self.answers[name].more["task"])
        self.withdraw(name)
        if self._free(annotator, task, now):
            if annotator in self._held:
                self._leases.pop(self._held[annotator], None)
            self._held[annotator] = task
            self._leases[task] = annotator, now + self.settings.lease
        return name, line

    @property
    def made(self) -> int:
        """Rankings of these tasks so far, without skips and repetitions."""
        return self._rankings.total()

    def progress(self, annotator: str) -> tuple[int, int]:
        """How many answers an annotator has given, and how many may still be asked of them."""
        mine = self._by.get(annotator, [])
        ranked = {str(self.answers[name].more["task"]) for name in mine}
        again = sum(self._comes_again(annotator, task) for task in ranked)
        return len(mine), len(self._open) - sum(task in self._open for task in ranked) + again
