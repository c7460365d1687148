"""The reply to one request: its id, headers, metrics and log line."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time

from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError, retry_seconds
from lloss.serve.daemon.http.authentication import PROBES, Headers
from lloss.serve.daemon.observability import logs
from starlette.types import Message, Receive, Scope, Send

CLIENT_GONE = 499
"""Logged and counted where the client left before its reply; nginx's number."""


class ClientGoneError(Exception):
    """The client left before its request or its reply was complete."""


_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_ROUTINE = PROBES | {
    "/metrics",
    "/favicon.ico",
    "/static/{name}",
    "/page/status",
    "/pools/{name}/thumb",
}
"""Routes that are polled; logging them would hide everything else."""

_MAX_PATH = 256
_READ_ON_SECONDS = 2.0
_READ_ON_BYTES = 256 << 20

SECURITY_HEADERS = (
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
"""Added to every reply that does not set them itself."""


class Reply:
    """Sends the reply to one request; counts and logs it at the end."""

    def __init__(self, daemon: Daemon, scope: Scope, headers: Headers, send: Send) -> None:
        self._daemon, self._scope, self._send = daemon, scope, send
        self._begun = time.perf_counter()
        given = headers.get(b"x-request-id", b"")
        valid = _ID.fullmatch(given) is not None
        self.id = given.decode() if valid else f"{random.getrandbits(64):016x}"
        self.status = self._sent = 0  # status 0 before it begins
        self.received = 0  # bytes of the request's body
        self.complete = False  # whether all of it was sent
        self.closing = False  # whether the connection closes after it
        self.lost = CLIENT_GONE  # the status to log where no complete reply was sent
        self.extra: tuple[tuple[bytes, bytes], ...] = ()  # more headers
        scope.setdefault("state", {})["request_id"] = self.id
        daemon.metrics.in_flight.inc()

    async def send(self, message: Message) -> None:
        """Pass on an ASGI message of the reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._with_defaults(list(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            self._sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        try:
            await self._send(message)
        except RuntimeError as error:  # of uvloop: uvicorn did not notice that the client left
            if "closed" not in str(error):
                raise
            self.complete = False
            raise ClientGoneError from error

    def _with_defaults(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers += self.extra
        given = {name.lower() for name, _ in headers}
        headers += [header for header in SECURITY_HEADERS if header[0] not in given]
        headers.append((b"x-request-id", self.id.encode()))
        sha256 = self._daemon.models.sha256
        if sha256 and b"x-lloss-model" not in given:
            headers.append((b"x-lloss-model", sha256.encode()))
        if self.closing or self._daemon.draining:
            headers.append((b"connection", b"close"))
        return headers

    async def refuse(self, error: RequestError, receive: Receive | None = None) -> None:
        """Reply with an error, and discard what the client is still sending to ``receive``.

        A connection that closes on unread bytes is reset, and the client may never see why.
        """
        body = json.dumps({"error": str(error)}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if error.retry_after is not None:
            headers.append((b"retry-after", retry_seconds(error).encode()))
        more = receive is not None
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": more})
        if receive is not None:
            await _read_on(receive)
            await self.send({"type": "http.response.body", "body": b""})

    def finish(self, error: BaseException | None = None) -> None:
        """Count and log the request, with the traceback of what the application did not handle."""
        seconds = time.perf_counter() - self._begun
        status = self.status if self.complete or error is not None else self.lost
        route = route_of(self._scope)
        self._daemon.metrics.in_flight.dec()
        self._daemon.metrics.request(route, status, seconds)
        level = logging.INFO
        if status >= 500:
            level = logging.ERROR if status == 500 else logging.WARNING
        elif route in _ROUTINE and status < 400:
            level = logging.DEBUG
        if not logs.LOG.isEnabledFor(level):
            return
        client = self._scope.get("client")
        images = self._scope["state"].get("images")
        logs.event(
            "request",
            level,
            error,
            request_id=self.id,
            method=self._scope["method"],
            route=route,
            path=self._scope["path"][:_MAX_PATH],  # not the query, which may hold a signature
            status=status,
            seconds=round(seconds, 6),
            received=self.received,
            bytes=self._sent,
            client=client[0] if client else "",
            model=self._daemon.models.sha256[:12],
            **({} if images is None else {"images": images}),
        )


def route_of(scope: Scope) -> str:
    """Return the pattern of the route that matched, never the path; "unmatched" for none."""
    return getattr(scope.get("route"), "path", "unmatched")


async def _read_on(receive: Receive) -> None:
    """Discard what a refused client still sends, within limits."""
    left = _READ_ON_BYTES
    try:
        async with asyncio.timeout(_READ_ON_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
