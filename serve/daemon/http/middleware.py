"""Everything between the HTTP server and the routes, in one pass.

::

    uvicorn ─▶ RequestMiddleware ─▶ routes
               ├ head: size, doubled headers, path, Host, Origin, token
               ├ body: size, deadline, JSON values (request_body)
               ├ the application, cancelled when its client goes away
               └ reply: id, headers, metrics, log line (reply)
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError, internal_error
from lloss.serve.daemon.http.authentication import PROBES, Headers
from lloss.serve.daemon.http.reply import ClientGoneError, Reply
from lloss.serve.daemon.http.request_body import RequestBodies, RequestBody
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD_BYTES = 64 << 10
_UNIQUE = frozenset(
    b"host origin authorization content-encoding content-length content-type "
    b"inference-header-content-length".split()
)
"""Headers that may occur once: of two we would read the last, and the framework the first."""

_STRANGE_PATH = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)\.\.?(?:/|$)|\\")
_RETRY_SECONDS = 5.0
_DRAIN_EXPIRED = "shutting down: the --drain grace period expired"
_WATCH_AFTER_SECONDS = 0.05

_LINK_HEADERS = (
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"access-control-allow-origin", b"*"),
)
"""For an image by a signed link: the signature is the permission, cookies have no part in it."""


class RequestMiddleware:
    """ASGI middleware around the whole application.

    Reads the whole body before it calls the application, and cancels the application when its
    client goes away.

    Attributes:
        cancelled: requests that the server cancelled because it ends.
    """

    def __init__(self, app: ASGIApp, daemon: Daemon) -> None:
        self.app, self.daemon = app, daemon
        self.bodies = RequestBodies(daemon.settings.limits)
        self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        reply = Reply(self.daemon, scope, headers, send)
        error: BaseException | None = None
        try:
            await self._answer(scope, headers, receive, reply)
        except ClientGoneError:
            pass
        except asyncio.CancelledError:
            self.cancelled += 1
            reply.lost = 503
            if not reply.status:
                await reply.refuse(RequestError(503, _DRAIN_EXPIRED, _RETRY_SECONDS))
            elif not reply.complete:
                raise
        except Exception as unexpected:
            error = unexpected
            if not reply.status:
                await reply.refuse(internal_error(reply.id))
            elif not reply.complete:
                raise  # half a reply: all that is left is to break the connection
        finally:
            reply.finish(error)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, reply: Reply) -> None:
        has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        with RequestBody(self.bodies) as body:
            try:
                self._check_head(scope, headers, has_body, reply)
                # In this list alone, so that the application can free it.
                parts = [b""]
                if has_body:
                    parts = [await body.read(receive, headers, scope["path"])]
            except RequestError as refused:
                unread = has_body and not body.complete
                reply.closing = reply.closing or unread
                sending = unread and refused.status != 408
                await reply.refuse(refused, receive if sending else None)
                return
            finally:
                reply.received = body.received
            await self._call_app(scope, parts, receive, reply)

    def _check_head(self, scope: Scope, headers: Headers, has_body: bool, reply: Reply) -> None:
        _check_headers(scope, headers)
        if _STRANGE_PATH.search(scope["path"]):
            raise RequestError(400, "the path has control characters, backslashes or dot segments")
        authentication = self.daemon.authentication
        authentication.check_origin(scope, headers)
        scope["state"]["admitted"] = admitted = authentication.admits(headers)
        if not admitted:  # Python takes seconds to parse 64 KiB of odd cookies
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        linked = authentication.links.valid(scope)
        if linked:
            reply.extra = _LINK_HEADERS
        if not admitted and (has_body or not (linked or authentication.open_to_all(scope))):
            raise _unauthorized(headers, reply)
        if self.daemon.draining and scope["path"] not in PROBES:
            raise RequestError(503, "shutting down", _RETRY_SECONDS)

    async def _call_app(
        self, scope: Scope, parts: list[bytes], receive: Receive, reply: Reply
    ) -> None:
        """Call the application; cancel it where the client goes away before its reply is complete.

        A thread that it runs goes on to its end and keeps its slot: otherwise clients that ask and
        go could start any number of threads.
        """
        working = anyio.CancelScope()

        async def read() -> Message:
            while not parts:
                await anyio.sleep_forever()
            return {"type": "http.request", "body": parts.pop(), "more_body": False}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not reply.complete:
                working.cancel()

        inner = scope
        if scope["method"] == "HEAD":
            # Answered as GET. Not in the server's own scope, by which it leaves the body out.
            inner = {**scope, "method": "GET"}
        with _beside(watch), working:
            await self.app(inner, read, reply.send)
        if "route" in inner:
            scope["route"] = inner["route"]


@contextlib.contextmanager
def _beside(work: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run a task during the block, but not from the start: short requests would pay for it."""
    tasks: list[asyncio.Task[None]] = []
    timer = asyncio.get_running_loop().call_later(
        _WATCH_AFTER_SECONDS, lambda: tasks.append(asyncio.create_task(work()))
    )
    try:
        yield
    finally:
        timer.cancel()
        for task in tasks:
            task.cancel()


def _check_headers(scope: Scope, headers: Headers) -> None:
    pairs = scope["headers"]
    size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    size += sum([len(name) + len(value) + 4 for name, value in pairs])
    if size > HEAD_BYTES:
        raise RequestError(431, f"the request's head is larger than {HEAD_BYTES} bytes")
    if len(headers) != len(pairs):
        names = [name for name, _ in pairs]
        for name in _UNIQUE:
            if names.count(name) > 1:
                raise RequestError(400, f"the header {name.decode('latin-1')} is given twice")


def _unauthorized(headers: Headers, reply: Reply) -> RequestError:
    # A browser asks for a user and a password, and sends them from then on.
    reply.extra = ((b"www-authenticate", b'Basic realm="lloss"'),)
    problem = "the token is wrong" if b"authorization" in headers else "a token is needed"
    message = "send Authorization: Bearer TOKEN; in a browser, the token is the password"
    return RequestError(401, f"{problem}: {message}")
