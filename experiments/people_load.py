"""How fast is the page when many people click at once? Fifty annotators for a minute, on this machine.

    uv run --extra people experiments/people_load.py

Each has a connection and answers what it is shown, then takes --think seconds for the next. The page is served by a
process of its own. Afterwards the file is looked at: every answer that was thanked has to be there, and once.
"""

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pgjax
from common import launch
from pgjax import rlhf
from pgjax.rlhf import people

ACCEPTED = 200


@dataclass(frozen=True)
class Options:
    """How many click, for how long."""

    annotators: int = 50
    seconds: float = 60.0
    think: float = 0.1
    """Seconds between an answer's end and the next click; nobody clicks more than ten times a second."""
    tasks: int = 40_000
    overlap: int = 1
    characters: int = 500
    """Of each output."""


def tasks_of(options: Options) -> list[people.Task]:
    """Pairs of texts of that many characters."""
    text = "word " * (options.characters // 5)
    return [people.Task(f"prompt {i}", (text + "a", text + "b"), (True, True)) for i in range(options.tasks)]


async def speak(reader: Any, writer: Any, path: str, token: str, fields: Any = None) -> tuple[int, Any]:
    """The status and the JSON of an answer to a request over an open connection."""
    body = b"" if fields is None else json.dumps(fields).encode()
    method = "GET" if fields is None else "POST"
    head = f"{method} /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:"))
    return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))


async def click(address: str, until: float, think: float, seed: int) -> tuple[list[str], list[float]]:
    """The answers of one annotator that were thanked, and the seconds that each took."""
    base, token = address.split("/?token=")
    host, port = base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        return await clicks(reader, writer, token, until, think, seed)
    finally:
        writer.close()
        await writer.wait_closed()


async def clicks(
    reader: Any, writer: Any, token: str, until: float, think: float, seed: int
) -> tuple[list[str], list[float]]:
    """`click`, over an open connection."""
    rng = np.random.default_rng(seed)
    thanked: list[str] = []
    took: list[float] = []
    await asyncio.sleep(float(rng.uniform(0, think)))
    _, state = await speak(reader, writer, "state", token)
    while state.get("view") and time.monotonic() < until:
        view = state["view"]
        answer = {
            "id": view["id"],
            "task": view["task"],
            "ranking": rng.permutation(2)[:, None].tolist(),
            "seconds": 1.0,
        }
        begun = time.perf_counter()
        status, state = await speak(reader, writer, "answer", token, answer)
        if status != ACCEPTED:
            raise pgjax.InputError(f"expected an answer that is taken, got {status}: {state}")
        took.append(time.perf_counter() - begun)
        thanked.append(view["id"])
        await asyncio.sleep(think)
    return thanked, took


def serving(path: Path, options: Options, pipe: Any) -> None:
    """Serve until something comes through the pipe."""
    with people.serve(path, [f"annotator {i}" for i in range(options.annotators)]) as page:
        page.ask(tasks_of(options), people.DeskSettings(overlap=options.overlap))
        pipe.send(list(page.addresses.values()))
        pipe.recv()


def measure(options: Options) -> tuple[list[float], int, int, int]:
    """The seconds of each answer; how many were thanked, are lost, and are there twice."""

    async def all_of_them(addresses: list[str]) -> list[tuple[list[str], list[float]]]:
        until = time.monotonic() + options.seconds
        clicks = [click(address, until, options.think, seed) for seed, address in enumerate(addresses)]
        return await asyncio.gather(*clicks)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rankings.jsonl"
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serving, args=(path, options, theirs))
        server.start()
        try:
            found = asyncio.run(all_of_them(ours.recv()))
        finally:
            ours.send(None)
            server.join()
        stored = Counter(str(line.more["id"]) for line in rlhf.ranking_lines(path))
        by = Counter((line.annotator, line.more["task"], line.more["again"]) for line in rlhf.ranking_lines(path))
    thanked = [name for names, _ in found for name in names]
    took = [seconds for _, each in found for seconds in each]
    double = sum(count > 1 for count in (*stored.values(), *by.values(), *Counter(thanked).values()))
    return took, len(thanked), sum(name not in stored for name in thanked), double


def main(options: Options) -> None:
    """Click, count, and print."""
    launch.check_counts({"annotators": options.annotators, "tasks": options.tasks, "overlap": options.overlap})
    took, thanked, lost, double = measure(options)
    median, late = np.percentile(np.asarray(took) * 1e3, [50, 99])
    print(f"{options.annotators} annotators, {options.seconds:g} s: {thanked} answers, {lost} lost, {double} double")
    print(f"an answer took {median:.1f} ms in the median, and {late:.0f} ms or less in 99 of 100")


if __name__ == "__main__":
    launch.run(main, Options, __doc__)
