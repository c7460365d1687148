"""What stands before every route: access, caps, deadlines, request ids, logs, headers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import anyio
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.errors import RequestError, internal_error
from lloss.serve.daemon.http.authentication import PROBES, Headers
from lloss.serve.daemon.http.exchange import FOUND, LINKED, Exchange
from lloss.serve.daemon.http.protocol import GONE
from lloss.serve.daemon.http.request_body import Bodies, ClientGoneError
from lloss.serve.daemon.observability import logs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ONCE = frozenset(
    {
        b"host",
        b"origin",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"inference-header-content-length",
    }
)
"""Of one given twice we would read the last, and the framework the first."""

_COOKIE_BYTES = 4 << 10
"""Before who asks is known: the standard library takes seconds to read 64 KiB of odd ones."""

_WEIRD = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)\.\.?(?:/|$)|\\")
_AGAIN_SECONDS = 5.0
_TOO_LATE = "draining: the server ends, and no answer was found within --drain"
_NEXT_MOST = 2000
_READ_ON_BYTES = 32 << 10
"""Of a body up to which uvicorn never stops reading from its connection."""


class Gate:
    """ASGI middleware around the whole application.

    Reads the whole body before the application is called, and cancels the application where the
    client goes away while it works.
    """

    def __init__(self, app: ASGIApp, daemon: Daemon) -> None:
        self.app, self.daemon = app, daemon
        self._access = daemon.access
        self._bodies = Bodies(daemon.settings.limits)
        self._failed = logs.Quota()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        exchange = Exchange(self.daemon, scope, headers, send)
        error: BaseException | None = None
        try:
            await self._let_in(scope, headers, receive, exchange)
        except ClientGoneError:
            pass
        except asyncio.CancelledError:
            exchange.lost = 503
            if not exchange.status:
                exchange.closing = True
                await exchange.refuse(RequestError(503, _TOO_LATE, _AGAIN_SECONDS))
            elif not exchange.complete:
                raise
        except Exception as unexpected:
            error = unexpected
            if not exchange.status:
                await exchange.refuse(internal_error(exchange.id))
            elif not exchange.complete:
                raise  # half a reply: all that is left is to break the connection
        finally:
            self._tell(exchange, error)

    async def _let_in(
        self, scope: Scope, headers: Headers, receive: Receive, exchange: Exchange
    ) -> None:
        has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        try:
            self._check(scope, headers, exchange)
        except RequestError as refused:
            await exchange.refuse(refused, receive if has_body else None)
            return
        if not has_body:
            await self._serve(scope, [_message(b"")], receive, exchange)
            return
        with self._bodies.reading(scope["state"]["admitted"]) as body:
            try:
                # In this list alone, so that the application can let go of it.
                parts = [_message(await body.read(receive, headers, scope["path"]))]
            except RequestError as refused:
                exchange.closing = not body.whole
                sending = not body.whole and refused.status != 408
                await exchange.refuse(refused, receive if sending else None)
                return
            finally:
                exchange.received = body.received
            await self._serve(scope, parts, receive, exchange)

    def _check(self, scope: Scope, headers: Headers, exchange: Exchange) -> None:
        if len(headers) != len(scope["headers"]):
            _refuse_doubles(scope)
        if b"cookie" in headers:
            _check_cookies(scope)
        if _WEIRD.search(scope["path"]):
            raise RequestError(400, "the path has control characters, backslashes or dot segments")
        access = self._access
        access.check_origin(scope, headers)
        admitted = access.admits(scope, headers)
        scope["state"]["admitted"] = admitted
        if not admitted and access.link_is_good(scope):
            admitted = True
        if b"sig=" in scope["query_string"] and admitted and access.link_is_good(scope):
            exchange.extra = LINKED
        if not (admitted or access.open_to_all(scope)):
            raise self._unauthorised(scope, headers, exchange)
        if self.daemon.draining and scope["path"] not in PROBES:
            exchange.closing = True
            raise RequestError(503, "draining: the server was told to end", _AGAIN_SECONDS)

    def _unauthorised(self, scope: Scope, headers: Headers, exchange: Exchange) -> RequestError:
        exchange.extra = ((b"www-authenticate", b'Bearer realm="lloss"'),)
        if scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b""):
            exchange.extra = ((b"location", _login_for(scope)),)
            return RequestError(303, "log in at /login")
        given = "the token is wrong" if b"authorization" in headers else "a token is needed"
        return RequestError(401, f"{given}: send Authorization: Bearer TOKEN")

    async def _serve(
        self, scope: Scope, parts: list[Message], receive: Receive, exchange: Exchange
    ) -> None:
        """Call the application; cancel it where the client goes away before its reply is whole.

        What runs in a thread goes on to its end and holds its place there: else clients that ask
        and go would have any number of threads at work.
        """
        client = _Client(exchange, parts)
        inner = scope
        if scope["method"] == "HEAD":
            # Answered as GET is. Not in the server's own scope, by which it leaves the body out.
            inner = {**scope, "method": "GET"}
        with client.watched(scope["state"], receive):
            try:
                with client.working:
                    await self.app(inner, client.receive, exchange.send)
            finally:
                scope.update({name: inner[name] for name in FOUND if name in inner})

    def _tell(self, exchange: Exchange, error: BaseException | None) -> None:
        if exchange.status == 401:
            dropped = self._failed.take()
            exchange.end(error, quiet=dropped is None, dropped=dropped or 0)
        else:
            exchange.end(error)


class _Client:
    """Who waits for a reply: the application is told when it goes, and cancelled.

    Attributes:
        working: that is cancelled.
    """

    def __init__(self, exchange: Exchange, parts: list[Message]) -> None:
        self.working = anyio.CancelScope()
        self._exchange, self._parts = exchange, parts
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        """What the application receives: the whole body, and then the end."""
        if self._parts:
            return self._parts.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    @contextlib.contextmanager
    def watched(self, state: dict[str, Any], receive: Receive) -> Iterator[None]:
        """Notice when it goes.

        A task of its own takes a good part of a small request: there is one only where the
        connection does not tell by itself, or may have stopped to read in a large body.
        """
        if GONE in state and self._exchange.received <= _READ_ON_BYTES:
            state[GONE] = self._leave
            try:
                yield
            finally:
                state.pop(GONE, None)
            return
        watcher = asyncio.create_task(self._watch(receive))
        try:
            yield
        finally:
            watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._exchange.complete:
            self._gone.set()
            self.working.cancel()


def _message(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


def _login_for(scope: Scope) -> bytes:
    """The form's address, which leads back to where somebody wanted to go."""
    wanted: bytes = scope.get("raw_path") or b"/"
    if query := scope["query_string"]:
        wanted += b"?" + query
    plain = wanted == b"/" or len(wanted) > _NEXT_MOST
    return b"/login" if plain else b"/login?next=" + quote(wanted, safe="").encode()


def _refuse_doubles(scope: Scope) -> None:
    seen = set()
    for name, _ in scope["headers"]:
        if name in _ONCE and name in seen:
            raise RequestError(400, f"the header {name.decode('latin-1')} is given twice")
        seen.add(name)


def _check_cookies(scope: Scope) -> None:
    size = sum(len(value) for name, value in scope["headers"] if name == b"cookie")
    if size > _COOKIE_BYTES:
        raise RequestError(
            431, f"{size} bytes of cookies, allowed are {_COOKIE_BYTES}: clear those of this host"
        )
