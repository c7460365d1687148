"""Bodies of requests: complete, in time, and within the limits.

JSON also counts by its values, before anybody parses it: ``[[],[],…`` takes two bytes a list, and
sixty in memory.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Self

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.http.reply import ClientGoneError
from lloss.serve.daemon.settings import Limits
from starlette.types import Receive

MAX_VALUES = 4_000_000
"""JSON values in a body; a million labels have three million."""

MAX_FIELDS = 100_000
"""Form fields in a body, empty ones included; the routes that read forms take far fewer."""

_BYTES_PER_VALUE = 64
_STEP = 1 << 20
_RETRY_SECONDS = 1.0
_JSON = re.compile(rb"[\s\x00\xef\xbb\xbf\xfe\xff]*[\[{]")
"""How JSON begins, in any encoding; no image and no multipart form does."""

_INFER = re.compile(r"/v2/models/.*/infer", re.DOTALL)


class RequestBodies:
    """Bounds the bytes that all bodies occupy together."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size = 0  # bytes occupied now


class RequestBody:
    """One body; its bytes count until the ``with`` block ends."""

    def __init__(self, bodies: RequestBodies) -> None:
        self._bodies, self._limits = bodies, bodies.limits
        self._size = self.received = 0
        self.complete = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.size -= self._size

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], path: str) -> bytes:
        """Receive the whole body.

        Raises:
            RequestError: 408 too slow; 413 too large, or too many values; 415 compressed; 503 all
                bodies together are too large.
            ClientGoneError: the client went away.
        """
        coding = headers.get(b"content-encoding", b"identity").decode("latin-1").strip()
        if coding.lower() != "identity":
            raise RequestError(415, f"Content-Encoding {coding!r}: send the body uncompressed")
        declared = int(headers.get(b"content-length", b"0"))
        if declared > self._limits.body_bytes:
            raise self._too_large(f"{declared} bytes")
        seconds = self._limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                raw = await self._receive_all(receive)
        except TimeoutError:
            message = f"the body did not arrive within {seconds:g} seconds"
            raise RequestError(408, message) from None
        self._occupy(parsed_bytes(raw, headers, path))
        return raw

    async def _receive_all(self, receive: Receive) -> bytes:
        chunks = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self.complete = not message.get("more_body", False)
            if chunk := message.get("body", b""):
                self.received += len(chunk)
                if self.received > self._limits.body_bytes:
                    raise self._too_large("more follows")
                self._occupy(len(chunk))
                chunks.append(chunk)
            if self.complete:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _occupy(self, count: int) -> None:
        if self._bodies.size + count > self._limits.in_flight_bytes:
            message = "the bodies of all requests together are too large; try again"
            raise RequestError(503, message, _RETRY_SECONDS)
        self._bodies.size += count
        self._size += count

    def _too_large(self, size: str) -> RequestError:
        most = self._limits.body_bytes
        return RequestError(413, f"the body is too large: {size}, at most {most} bytes are allowed")


def parsed_bytes(body: bytes, headers: Mapping[bytes, bytes], path: str) -> int:
    """Estimate the bytes that a body's JSON occupies once it is parsed; 0 for other bodies.

    Raises:
        RequestError: 413 too many JSON values or form fields.
    """
    kind = headers.get(b"content-type", b"").strip().lower()
    if kind.startswith(b"application/x-www-form-urlencoded"):
        _count(body, len(body), b"&", MAX_FIELDS, "form fields")
    if not _JSON.match(body):
        return 0
    end = len(body)
    # On an infer route, binary tensors follow the JSON.
    length = headers.get(b"inference-header-content-length", b"").strip()
    if _INFER.fullmatch(path) and length.isdigit() and len(length) < 20:
        end = min(int(length), end)
    return _BYTES_PER_VALUE * _count(body, end, b",[{", MAX_VALUES, "JSON values")


def _count(body: bytes, end: int, marks: bytes, most: int, what: str) -> int:
    count = 0
    for start in range(0, end, _STEP):
        count += sum(body.count(mark, start, min(start + _STEP, end)) for mark in marks)
        if count > most:
            raise RequestError(413, f"the body has more than {most:,} {what}; send fewer at a time")
    return count
