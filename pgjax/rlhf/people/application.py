"""The page and what it speaks with, as an application that any server can run."""

import asyncio
import base64
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

from pgjax.errors import InputError, needed
from pgjax.rlhf.people.guard import App, Bucket, guarded, names_of
from pgjax.rlhf.people.office import Office
from pgjax.rlhf.people.report import report

PAGE = Path(__file__).with_name("page.html")


def security_headers(html: str) -> dict[str, str]:
    """What tells a browser that nothing but this very page's own script and style may run in it."""

    def source(tag: str) -> str:
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in inside
        )

    policy = f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; connect-src 'self'; "
    return {
        "Content-Security-Policy": policy + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def application(office: Office, host: str) -> App:
    """The page and its four requests as an ASGI application: `/`, `state`, `answer` and `undo`.

    Raises:
        InputError: If starlette is not installed.
    """
    needed("starlette", "people")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    html = PAGE.read_text(encoding="utf-8")
    buckets: dict[tuple[str, bool], Bucket] = {}

    def refuse(status: int, sentence: str) -> Response:
        return JSONResponse({"error": sentence}, status)

    async def page(request: Request) -> Response:
        if office.links.holder(request.query_params.get("token", "")) is None:
            return refuse(403, "expected the link that you were given, got one without its token")
        return Response(html, media_type="text/html; charset=utf-8")

    async def speak(request: Request) -> Response:
        holder = office.links.holder(request.headers.get("authorization", "").removeprefix("Bearer "))
        if holder is None:
            return refuse(403, "expected the link that you were given, got one without its token")
        if not buckets.setdefault(holder, Bucket()).takes(time.monotonic()):
            return refuse(429, "expected fewer requests a second, got too many")
        annotator, researcher = holder
        path = request.url.path
        try:
            if path == "/state":
                return JSONResponse(await watched() if researcher else office.state(annotator))
            if researcher:
                return refuse(403, "expected an annotator's link, got the researcher's")
            if path == "/undo":
                return JSONResponse(await office.undo(annotator))
            try:
                fields = json.loads(await request.body())
            except (ValueError, RecursionError):
                return refuse(400, "expected an answer in JSON, got something else")
            return JSONResponse(await office.answer(annotator, fields))
        except InputError as error:
            return refuse(409, str(error))
        except OSError as error:
            return refuse(507, f"expected a disk that takes the answer, got {error.strerror}")

    async def watched() -> dict[str, Any]:
        desk = office.desk
        lines = [] if desk is None else list(desk.answers.values())
        made = 0 if desk is None else desk.made
        found = await asyncio.to_thread(report, lines, time.time(), made, office.goal)
        return {"report": found, "question": office.question, "notes": office.notes}

    routes = [Route("/", page), Route("/state", speak)]
    routes += [Route(path, speak, methods=["POST"]) for path in ("/answer", "/undo")]
    return guarded(Starlette(routes=routes), names_of(host), security_headers(html))
