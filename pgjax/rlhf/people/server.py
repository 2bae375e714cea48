"""A page that a thread serves, and functions that wait until enough was ranked there."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgjax.errors import InputError, needed
from pgjax.paths import full_path
from pgjax.rlhf.formats import RankingLine
from pgjax.rlhf.people.application import application
from pgjax.rlhf.people.desk import DeskSettings
from pgjax.rlhf.people.guard import check_host, links_of
from pgjax.rlhf.people.office import Office
from pgjax.rlhf.people.store import Store
from pgjax.rlhf.people.tasks import Task, task_of


class Page:
    """A page that is being served: its addresses, and `collect`."""

    def __init__(self, office: Office, base: str, loop: asyncio.AbstractEventLoop) -> None:
        self._office, self._loop = office, loop
        self.base = base
        self.addresses = {who: f"{base}/?token={token}" for who, token in office.links.annotators.items()}
        self.researcher = f"{base}/?token={office.links.researcher}"

    def _run(self, what: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def ask(self, tasks: Sequence[Task], settings: DeskSettings, goal: int | None = None, *, last: bool = True) -> None:
        """Ask about these tasks from now on, without waiting; `last` if nothing will be asked after them.

        Raises:
            InputError: If there is nothing to ask, or more rankings are wanted than tasks can have.
        """
        if goal is not None and not 1 <= goal <= len(tasks) * settings.overlap:
            raise InputError(
                f"expected 1 to {len(tasks) * settings.overlap} rankings, as {len(tasks)} tasks with an overlap of "
                f"{settings.overlap} have, got {goal}"
            )
        asking = self._office.ask(tasks, settings, goal, last)
        asyncio.run_coroutine_threadsafe(asking, self._loop).result()

    def collect(
        self, tasks: Sequence[Task], n: int, settings: DeskSettings | None = None, *, last: bool = True
    ) -> list[RankingLine]:
        """Ask about tasks, wait until there are n rankings of them, and return these, repetitions and skips included.

        What was ranked before, and is in the file, counts. Errors are those of `ask`.
        """
        self.ask(tasks, DeskSettings() if settings is None else settings, n, last=last)
        while not self._office.reached.wait(0.5):  # so that an interruption is heard
            pass
        asked = {task.id for task in tasks}
        return [line for line in self.lines() if line.more.get("task") in asked]

    def lines(self) -> list[RankingLine]:
        """All answers so far that count."""
        return self._run(lambda: [] if self._office.desk is None else list(self._office.desk.answers.values()))

    @property
    def made(self) -> int:
        """Rankings of the tasks that are asked now."""
        return self._run(lambda: 0 if self._office.desk is None else self._office.desk.made)

    def done(self) -> bool:
        """Whether nobody has anything left to answer."""
        return self._run(self._office.done)

    def note(self, what: str, value: str) -> None:
        """Show the researcher something more."""
        self._run(lambda: self._office.notes.update({what: value}))


@contextlib.contextmanager
def serve(
    path: str | Path, annotators: Sequence[str], *, host: str = "127.0.0.1", port: int = 0, i_know: bool = False
) -> Iterator[Page]:
    """A page for people to rank at, served by a thread while the context lasts.

    Args:
        path: The file of answers, which is made if there is none; beside it, the secret of the links.
        annotators: Their names; each has a link.
        host: Where it is reached; others than this machine's own need `i_know`.
        port: Which; 0 for one that is free.
        i_know: That others can try links, and that what passes is not encrypted.

    Raises:
        InputError: If another server has the file open, the port is taken, or what is asked for cannot be.
    """
    uvicorn = needed("uvicorn", "people")
    check_host(host, i_know)
    path = full_path(path)
    with Store(path) as store, contextlib.closing(listening(host, port)) as sock:
        office = Office(store, links_of(path.with_name(f".{path.name}.secret"), annotators))
        config = uvicorn.Config(
            application(office, host),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=512,
            timeout_graceful_shutdown=2,
        )
        server, loops = uvicorn.Server(config), []

        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[sock])

        thread = threading.Thread(target=lambda: asyncio.run(main()), name="page", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        address, number = sock.getsockname()[:2]
        if address in ("0.0.0.0", "::"):  # all of this machine's
            address = socket.gethostname()
        name = f"[{address}]" if ":" in address else address
        try:
            yield Page(office, f"http://{name}:{number}", loops[0])
        finally:
            server.should_exit = True
            thread.join()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: If it cannot.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"expected a port from 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(512)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise InputError(f"expected a host and a port that are free, got {host}:{port}: {error}") from error
    return made


def collect_rankings(
    outputs: Sequence[Task | Mapping[str, Any]],
    n: int,
    path: str | Path = "rankings.jsonl",
    annotators: Sequence[str] = ("annotator",),
    *,
    settings: DeskSettings | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    i_know: bool = False,
) -> list[RankingLine]:
    """Ask people, print their links, and wait until they made n rankings; in a script, or in a notebook's cell.

    A wait that is interrupted loses nothing: the same call goes on with what is in the file.

    Args:
        outputs: What is to be ranked, tasks or {"prompt": …, "outputs": […]} each.
        n: How many rankings, without skips and repetitions.
        path: The file of answers, see `serve`, as the others are.
        annotators: Who ranks.
        settings: How tasks are dealt out.
        host: Where the page is reached.
        port: Which; 0 for one that is free.
        i_know: See `serve`.

    Returns:
        The rankings of these tasks, which the file has too.

    Raises:
        InputError: See `serve` and `Page.collect`.
    """
    tasks = [task if isinstance(task, Task) else task_of(f"task {i}", task) for i, task in enumerate(outputs)]
    with serve(path, annotators, host=host, port=port, i_know=i_know) as page:
        print_links(page)
        return page.collect(tasks, n, settings)


def print_links(page: Page) -> None:
    """Print who is to open which address."""
    for who, address in page.addresses.items():
        print(f"{who}: {address}", flush=True)
    print(f"to watch: {page.researcher}", flush=True)
