"""Everything behind the page, without the page: what is asked, what is answered, and the file that it goes into."""

import asyncio
import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pgjax.errors import InputError
from pgjax.rlhf.formats import written_line
from pgjax.rlhf.people.desk import Desk, DeskSettings
from pgjax.rlhf.people.guard import Links
from pgjax.rlhf.people.store import Store
from pgjax.rlhf.people.tasks import Task


class Office:
    """Everything behind the page: the desk of the tasks that are asked now, and the file of all answers."""

    def __init__(self, store: Store, links: Links) -> None:
        self.store, self.links = store, links
        self.events: list[Mapping[str, Any]] = list(store.events)
        self.desk: Desk | None = None
        self.goal: int | None = None
        self.question = ""
        self.notes: dict[str, str] = {}  # what else the researcher is shown
        self.reached = threading.Event()
        self.last = False  # whether nothing will be asked after these tasks
        self._pending: list[tuple[Mapping[str, Any], asyncio.Future[None]]] = []
        self._writing = False

    async def ask(self, tasks: Sequence[Task], settings: DeskSettings, goal: int | None, last: bool) -> None:
        """Ask about these tasks from now on; after the last ones annotators are told that this was all."""
        while self._pending or self._writing:
            await asyncio.sleep(0.01)
        desk = Desk(tasks, settings, self.events)
        self.reached.clear()
        self.desk, self.goal, self.last, self.question = desk, goal, last, settings.question
        if self.enough:
            self.reached.set()

    @property
    def enough(self) -> bool:
        """Whether as much was ranked as was wanted."""
        return self.desk is not None and self.goal is not None and self.desk.made >= self.goal

    def done(self) -> bool:
        """Whether no annotator has anything left to answer."""
        desk = self.desk
        return desk is not None and (self.enough or not any(desk.progress(who)[1] for who in self.links.annotators))

    async def write(self, event: Mapping[str, Any]) -> None:
        """Store an event; those that come while the disk is busy are written together.

        Raises:
            OSError: If the disk does not take it.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((event, future))
        if not self._writing:
            self._writing = True
            self._writer = asyncio.ensure_future(self._write())
        await asyncio.shield(future)

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            error = None
            try:
                await asyncio.to_thread(self.store.append, [event for event, _ in batch])
                self.events += [event for event, _ in batch]
            except OSError as failed:
                error = failed
            for _, future in batch:
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
        self._writing = False

    def state(self, annotator: str) -> dict[str, Any]:
        """What the page of an annotator shows now."""
        if self.desk is None:
            return {"question": self.question, "done": 0, "left": 0, "view": None, "finished": False}
        done, left = self.desk.progress(annotator)
        if self.goal is not None:
            left = min(left, max(0, self.goal - self.desk.made))
        view = None if self.enough else self.desk.view(annotator, time.time())
        shown = None
        if view is not None:
            outputs = [{"text": view.task.outputs[i], "ended": view.task.ended[i]} for i in view.shown]
            shown = {"id": view.id, "task": view.task.id, "prompt": view.task.prompt, "outputs": outputs}
        finished = self.last and view is None and (self.enough or not left)
        return {"question": self.question, "done": done, "left": left, "view": shown, "finished": finished}

    async def answer(self, annotator: str, fields: Any) -> dict[str, Any]:
        """Take an answer, store it, and say what is next.

        Raises:
            InputError: If it is none, or not theirs.
            OSError: If it could not be stored, and does not count.
        """
        if self.desk is None:
            raise InputError("expected an answer while something is asked, got one after that")
        desk, (view, task, ranking, seconds) = self.desk, answer_of(fields)
        line = desk.answer(annotator, view, task, ranking, seconds, time.time())
        if line is not None:
            try:
                await self.write(json.loads(written_line(line)))
            except OSError:
                desk.withdraw(view)
                raise
            if self.enough:
                self.reached.set()
        return self.state(annotator)

    async def undo(self, annotator: str) -> dict[str, Any]:
        """Withdraw an annotator's last answer, and ask it again.

        Raises:
            OSError: If that could not be stored, and the answer counts still.
        """
        desk = self.desk
        taken = None if desk is None or self.enough else desk.undo(annotator, time.time())
        if desk is not None and taken is not None:
            name, line = taken
            try:
                await self.write({"withdraws": name})
            except OSError:
                desk.take(line, name)
                raise
        return self.state(annotator)


def answer_of(fields: Any) -> tuple[str, str, list[list[int]], float]:
    """The view, the task, the ranking and the seconds of an answer that came in.

    Raises:
        InputError: If it has others.
    """
    if not isinstance(fields, dict) or set(fields) != {"id", "task", "ranking", "seconds"}:
        raise InputError("expected an answer with id, task, ranking and seconds, got something else")
    view, task, ranking, seconds = (fields[name] for name in ("id", "task", "ranking", "seconds"))
    groups = isinstance(ranking, list) and all(isinstance(group, list) for group in ranking)
    if not groups or not all(type(place) is int for group in ranking for place in group):
        raise InputError("expected a ranking of lists of places, got something else")
    if not isinstance(view, str) or not isinstance(task, str) or type(seconds) not in (int, float):
        raise InputError("expected an id and a task that are texts, and a number of seconds, got something else")
    return view, task, ranking, float(seconds)
