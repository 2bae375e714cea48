"""Who may speak with the page: its own links, from its own address, in few and small requests.

Another page that is open in the annotator's browser can send requests here too, and can be given a name that leads here
(DNS rebinding). So besides a secret in the link, the name that was called and the page that calls are looked at.
"""

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pgjax.errors import InputError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 16_384  # of a body; an answer has some hundred
PER_SECOND, BURST = 40.0, 80.0  # requests of one link
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Links(NamedTuple):
    """Secrets in addresses: who holds which."""

    annotators: dict[str, str]  # {name: token}
    researcher: str

    def holder(self, token: str) -> tuple[str, bool] | None:
        """The annotator's name and False, or "" and True for the researcher; None of a token that is nobody's.

        All are compared, each in constant time, so that the time taken tells nothing.
        """
        found = None
        for holder, theirs in [((name, False), token) for name, token in self.annotators.items()] + [
            (("", True), self.researcher)
        ]:
            if hmac.compare_digest(theirs.encode(), token.encode()):
                found = holder
        return found


def links_of(path: Path, annotators: Sequence[str]) -> Links:
    """Links that stay the same while the file with their secret does, which nobody else can read.

    Raises:
        InputError: If nobody is to annotate, a name is there twice or cannot be one, or the file cannot be used.
    """
    if not annotators:
        raise InputError("expected one or more annotators, got none")
    for name in annotators:
        if not name.strip() or len(name) > 100 or not name.isprintable():
            raise InputError(f"expected names of annotators of 1 to 100 printable characters, got {name[:100]!r}")
        if annotators.count(name) > 1:
            raise InputError(f"expected annotators whose names differ, got {name} twice")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            unfinished.replace(path)
        secret = path.read_text().encode()
    except OSError as error:
        raise InputError(f"expected a file for the secret of the links, got {path}: {error.strerror}") from error
    if len(secret) < 64:
        raise InputError(f"expected a secret of 64 digits in {path}, got {len(secret)}")

    def token(what: str) -> str:
        return hmac.new(secret, what.encode(), hashlib.sha256).hexdigest()[:32]

    return Links({name: token(f"annotator {name}") for name in annotators}, token("researcher"))


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    return host in LOOPBACK


def check_host(host: str, i_know: bool) -> None:
    """Raise if the page is to be reached from other machines and nobody said that they know what that means.

    Raises:
        InputError: If so; it says what it means.
    """
    if not is_loopback(host) and not i_know:
        raise InputError(
            f"expected a host of this machine, 127.0.0.1, got {host}: everybody on that network could try links, and "
            "read what passes, as it is not encrypted; --i-know says that this is meant"
        )


def names_of(host: str) -> Callable[[str], bool]:
    """Whether a name in a request is one of ours: of this machine, or, where others may call, any plain address."""
    if is_loopback(host):
        return lambda name: name in LOOPBACK
    ours = {host, socket.gethostname(), socket.getfqdn(), *LOOPBACK}

    def known(name: str) -> bool:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in ours
        return True  # a name that leads elsewhere is what rebinding needs, and this is none

    return known


def name_in(host: str) -> str:
    """The name in a request's Host, without a port; "" if it is malformed."""
    try:
        return "" if "@" in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Bucket:
    """Room for some requests at once, and for so many more each second."""

    def __init__(self) -> None:
        self.room, self.last = BURST, 0.0

    def takes(self, now: float) -> bool:
        """Whether there is room for one more now."""
        self.room = min(BURST, self.room + PER_SECOND * (now - self.last))
        self.last = now
        if self.room < 1:
            return False
        self.room -= 1
        return True


def guarded(app: App, known: Callable[[str], bool], headers: dict[str, str]) -> App:
    """An application of HTTP that is reached by our names and from our pages alone, in small requests.

    Args:
        app: What answers the others.
        known: See `names_of`.
        headers: That every answer gets.
    """
    extra = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def refuse(send: Send, status: int, sentence: str) -> None:
        body = json.dumps({"error": sentence}).encode()
        sent = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *extra]
        await send({"type": "http.response.start", "status": status, "headers": [*sent, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return None
        sent: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            sent.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        hosts, origins = sent.get("host", []), sent.get("origin", [])
        host = hosts[0] if len(hosts) == 1 else ""
        if not known(name_in(host)):
            return await refuse(send, 421, f"expected the address of this page, got the host {host[:100]!r}")
        if any(origin not in (f"http://{host}", f"https://{host}") for origin in origins):
            return await refuse(send, 403, f"expected a request of this page, got one of {origins[0][:100]!r}")
        if scope["method"] not in ("GET", "HEAD") and sent.get("sec-fetch-site", ["same-origin"]) != ["same-origin"]:
            return await refuse(send, 403, "expected a request of this page, got one of another site")
        lengths = sent.get("content-length", ["0"])
        if any(not length.isdecimal() or int(length[:20]) > MOST_BYTES for length in lengths):
            return await refuse(send, 413, f"expected a body of at most {MOST_BYTES} bytes, got more")
        body, more = b"", True
        while more:  # before anything is done with it
            message = await receive()
            if message["type"] != "http.request":
                return None
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > MOST_BYTES:
                return await refuse(send, 413, f"expected a body of at most {MOST_BYTES} bytes, got more")

        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def whole() -> MutableMapping[str, Any]:
            return messages.pop() if messages else await receive()

        async def dressed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        return await app(scope, whole, dressed)

    return guard
