"""HTTP on one connection: uvicorn's, with deadlines and limits that it lacks."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from lloss.serve.daemon.http.joined import Joined
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.settings import Limits
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

HEAD_BYTES = 64 << 10
PIPELINED = 32
"""Requests that a connection may send ahead of the replies."""

_TOO_LARGE = (431, f"the request's head is larger than {HEAD_BYTES} bytes")


GONE = "lloss_gone"
"""In a scope's state while its connection lasts: what to call when that is lost, or None."""


class _RefusedError(Exception):
    """Raised through the parser, which then reads no further."""


class Protocol(HttpToolsProtocol):
    """A connection whose heads are bounded in time and bytes.

    Attributes:
        head_since: when it began to owe a whole head, by the loop's clock; None while it does not.
        stuck_since: when what is sent to it began to pile up; None while it flows.
    """

    limits: Limits
    metrics: DaemonMetrics
    malformed: logs.Quota

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.head_since: float | None = None
        self.stuck_since: float | None = None
        self._parsed = self._unparsed = 0
        self._ended = False
        self._cycles: list[RequestResponseCycle] = []
        self._why = (400, "this is no HTTP")
        self._refusal: tuple[int, str] | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if len(self.connections) > self.limits.connections:
            self.refuse(503, "too many connections; try again", (b"retry-after: 1\r\n",))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all requests that wait for replies; uvicorn's own tells the one that came last."""
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                if (tell := cycle.scope["state"].pop(GONE, None)) is not None:
                    tell()
        self._cycles.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; what has not become a whole head yet counts against its cap."""
        if self.transport.is_closing() or self._refusal is not None:
            return
        self._ended = False
        super().data_received(data)
        if self.head_since is None and not self.busy and self._idle():
            self.head_since = self.loop.time()  # empty lines between requests
        if self._refusal is not None or self.transport.is_closing():
            return
        if self.head_since is not None:
            # The parser gathers what is no whole header yet. Of bytes that ended a request it is
            # not told how many began the next.
            self._unparsed += 1 if self._ended else len(data)
            if self._unparsed > HEAD_BYTES:
                self.refuse(*_TOO_LARGE)

    def _idle(self) -> bool:
        return self.timeout_keep_alive_task is None and not self.transport.is_closing()

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self._parsed = 0
        if self.head_since is None:
            self.head_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self.head_since = None
        self._unparsed = 0
        super().on_headers_complete()
        self._cycles = self._pending()
        self._cycles.append(self.cycle)
        self.cycle.transport = Joined(self.transport, self.loop)  # type: ignore[assignment]
        self.cycle.scope["state"][GONE] = None
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows is no HTTP that we speak
        if self.pipeline:
            self.flow.resume_reading()  # else nobody notices that the client goes
        if len(self.pipeline) > PIPELINED:
            self._why = (400, f"more than {PIPELINED} requests ahead of their replies")
            raise _RefusedError

    def on_message_complete(self) -> None:
        """See httptools."""
        self._ended = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the next reply, or refuse what came after the last."""
        super().on_response_complete()
        if self._refusal is not None and not self._pending():
            self._end_with(*self._refusal)

    def _pending(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]

    def _count(self, more: int) -> None:
        self._parsed += more
        if self._parsed > HEAD_BYTES:
            self._why = _TOO_LARGE
            raise _RefusedError

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser could not read, or what stopped it."""
        self.refuse(*self._why)

    def refuse(self, status: int, message: str, headers: tuple[bytes, ...] = ()) -> None:
        """Answer without a request to answer, and close; whole requests before it come first."""
        pending = self._pending()
        if pending and pending[-1].more_body:  # it is the one that cannot be read
            broken = pending.pop()
            self._cycles.remove(broken)
            self.pipeline = deque(one for one in self.pipeline if one[0] is not broken)
            if broken.response_started:
                self.transport.close()
                return
        if pending:
            self._refusal = status, message
            self.head_since = None
            self.flow.pause_reading()
        else:
            self._end_with(status, message, headers)

    def _end_with(self, status: int, message: str, headers: tuple[bytes, ...] = ()) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": message}).encode()
        self.transport.write(
            b"".join(
                (
                    STATUS_LINE[status],
                    b"content-type: application/json\r\nconnection: close\r\n",
                    b"x-content-type-options: nosniff\r\ncache-control: no-store\r\n",
                    *headers,
                    b"content-length: %d\r\n\r\n" % len(body),
                    body,
                )
            )
        )
        self.transport.close()
        self.metrics.request("unmatched", status, 0.0)
        dropped = self.malformed.take()
        if dropped is not None:
            client = self.client[0] if self.client else ""
            logs.event("refused", status=status, reason=message, client=client, dropped=dropped)

    def pause_writing(self) -> None:
        """See asyncio."""
        super().pause_writing()
        self.stuck_since = self.loop.time()

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        self.stuck_since = None

    def check(self, now: float) -> None:
        """End it where its time is over; called every second or so."""
        if self.stuck_since is not None and now - self.stuck_since > self.limits.body_seconds:
            self.transport.abort()
            return
        if self.transport.is_closing() or self.head_since is None:
            return
        if now - self.head_since <= self.limits.header_seconds:
            return
        if not self.busy:  # a head that follows a request under way waits for its reply
            if self._unparsed:
                seconds = f"{self.limits.header_seconds:g}"
                self.refuse(408, f"the request's head did not come within {seconds} seconds")
            else:
                self.transport.close()


def protocol_of(limits: Limits, metrics: DaemonMetrics) -> type[Protocol]:
    """The class of a daemon's connections; uvicorn makes them itself."""
    own = {"limits": limits, "metrics": metrics, "malformed": logs.Quota()}
    return type("DaemonProtocol", (Protocol,), own)
