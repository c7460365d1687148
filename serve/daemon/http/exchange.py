"""One request and its reply, as the gate sees them."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from typing import Any

from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.errors import RequestError, retry_seconds
from lloss.serve.daemon.http.authentication import PROBES, Headers
from lloss.serve.daemon.observability import logs
from starlette.types import Message, Receive, Scope, Send

CLIENT_GONE = 499
"""Logged and counted where nobody is left to be answered; nginx's number."""

_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_ROUTINE = PROBES | {
    "/metrics",
    "/favicon.ico",
    "/static/{name}",
    "/page/status",
    "/pools/{name}/thumb",
}
"""Routes that are asked again and again while nothing happens: a log of them hides all else."""

FOUND = ("route", "endpoint", "root_path")
"""What the application notes in the scope of a request, and :func:`route_of` reads."""

_PATH_SHOWN = 256
_DRAIN_SECONDS = 2.0
_DRAIN_BYTES = 256 << 20

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    # Stricter, and browsers send forms with "Origin: null", which looks like another site's.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-store"),
)
"""Of every reply that does not say otherwise itself."""

LINKED = (
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"access-control-allow-origin", b"*"),
)
"""Of an image by a signed link: the signature is the leave, no cookie has part in it."""


class Exchange:
    """Counts, names and logs one request; adds to its reply what every reply has.

    Attributes:
        id: of the request, also in ``scope["state"]["request_id"]``.
        status: of the reply; 0 before it begins.
        complete: whether the reply is whole.
        received: bytes of the body.
        extra: headers for this reply beside those of all.
        closing: whether the connection ends with the reply.
        lost: the status that is logged where no whole reply was sent.
    """

    def __init__(self, daemon: Daemon, scope: Scope, headers: Headers, send: Send) -> None:
        self._daemon, self._scope, self._send = daemon, scope, send
        self._begun = time.perf_counter()
        given = headers.get(b"x-request-id")
        sane = given is not None and _ID.fullmatch(given) is not None
        self.id = given.decode() if given is not None and sane else f"{random.getrandbits(64):016x}"
        self.status = self.received = self._sent = 0
        self.complete = self.closing = False
        self.lost = CLIENT_GONE
        self.extra: tuple[tuple[bytes, bytes], ...] = ()
        scope.setdefault("state", {})["request_id"] = self.id
        daemon.metrics.arrived()

    async def send(self, message: Message) -> None:
        """Pass a message of the reply on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._headed(list(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            self._sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)

    def _headed(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in headers}
        extra = self.extra
        given.update(name for name, _ in extra)
        headers += extra
        headers += [header for header in SECURITY if header[0] not in given]
        headers.append((b"x-request-id", self.id.encode()))
        sha256 = self._daemon.models.sha256
        if sha256 and b"x-lloss-model" not in given:
            headers.append((b"x-lloss-model", sha256.encode()))
        if self.closing:
            headers.append((b"connection", b"close"))
        return headers

    async def refuse(self, error: RequestError, receive: Receive | None = None) -> None:
        """Answer with an error; read on a little where the client may still be sending.

        A connection that is closed on unread bytes is reset, and the client may never see why.
        """
        body = json.dumps({"error": str(error)}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if error.retry_after is not None:
            headers.append((b"retry-after", retry_seconds(error).encode()))
        self.closing = self.closing or receive is not None
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send(
            {"type": "http.response.body", "body": body, "more_body": receive is not None}
        )
        if receive is not None:
            await drained(receive)
            await self.send({"type": "http.response.body", "body": b""})

    def end(
        self, error: BaseException | None = None, quiet: bool = False, dropped: int = 0
    ) -> None:
        """Count and log it.

        Args:
            error: what the application did not expect; its traceback goes to the log alone.
            quiet: count alone.
            dropped: lines like this that were left out before.
        """
        seconds = time.perf_counter() - self._begun
        status = self.status if self.complete or error is not None else self.lost
        route = route_of(self._scope)
        self._daemon.metrics.left()
        self._daemon.metrics.request(route, status, seconds)
        level = logging.INFO
        if status >= 500:
            level = logging.ERROR if status == 500 else logging.WARNING
        elif route in _ROUTINE and status < 400:
            level = logging.DEBUG
        if quiet or not logs.LOG.isEnabledFor(level):
            return
        told = self._told(route, status, seconds)
        if dropped:
            told["dropped"] = dropped
        logs.event("request", level, error, may_wait=error is None, **told)

    def _told(self, route: str, status: int, seconds: float) -> dict[str, Any]:
        scope = self._scope
        client = scope.get("client")
        told: dict[str, Any] = {
            "request_id": self.id,
            "method": scope["method"],
            "route": route,
            "path": scope["path"][:_PATH_SHOWN],  # never the query: it may bear a signature
            "status": status,
            "seconds": round(seconds, 6),
            "received": self.received,
            "bytes": self._sent,
            "client": client[0] if client else "",
        }
        if "images" in scope["state"]:
            told["images"] = scope["state"]["images"]
        told["model"] = self._daemon.models.sha256[:12]
        return told


def route_of(scope: Scope) -> str:
    """The pattern of the route that was found, never the path itself; "unmatched" for none."""
    route = scope.get("route")
    pattern = getattr(route, "path", None)
    if isinstance(pattern, str):
        return pattern
    mounted: str = scope.get("root_path", "")
    return f"{mounted}/{{path}}" if mounted and "endpoint" in scope else "unmatched"


async def drained(receive: Receive) -> None:
    """Take what a refused client still sends, for a moment and not for ever."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
