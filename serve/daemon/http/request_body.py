"""Bodies of requests: whole, in time, inflated, and never more than was allowed."""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.http.body_limits import parsed_bytes
from lloss.serve.daemon.settings import Limits
from starlette.types import Receive

P = ParamSpec("P")
T = TypeVar("T")

_STEP = 1 << 20
_FEED = 1 << 16
_INLINE = 1 << 18
"""Bytes that are inflated in the event loop: a millisecond; more of them go to a thread."""

_DENSEST = 1032
"""Bytes that one byte of deflate can become."""

_DENSE = 16
"""Such bytes beyond which a size is not believed: images and numbers become less."""

_STRANGERS = 16 << 10
"""Bytes of a body of who has not shown the token: a token to log in with, and no more."""

_SHORTEST_GZIP = 18
_BUSY = 1.0


class ClientGoneError(Exception):
    """The client went away before its body was whole."""


class Bodies:
    """Reads bodies; counts the bytes of all that are held.

    Attributes:
        held: bytes just now.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._of_strangers = dataclasses.replace(
            limits,
            body_bytes=min(limits.body_bytes, _STRANGERS),
            inflated_bytes=min(limits.inflated_bytes, _STRANGERS),
        )
        self.held = 0

    @contextmanager
    def reading(self, admitted: bool = True) -> Iterator[Body]:
        """A body to be read, whose bytes count until the block ends.

        Args:
            admitted: whether the client has shown the token; of others little is read.
        """
        body = Body(self, self._limits if admitted else self._of_strangers)
        try:
            yield body
        finally:
            self.held -= body.held

    def hold(self, count: int) -> None:
        """Count bytes more (or fewer).

        Raises:
            RequestError: 503, they would be too many.
        """
        if self.held + count > self._limits.in_flight_bytes:
            raise RequestError(503, "too many bytes of requests are held; try again", _BUSY)
        self.held += count


class Body:
    """One body on its way in.

    Attributes:
        held: bytes that count for it.
        received: bytes that came.
        whole: whether all of it came.
    """

    def __init__(self, bodies: Bodies, limits: Limits) -> None:
        self._bodies, self._limits = bodies, limits
        self.held = self.received = 0
        self.whole = False

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], path: str) -> bytes:
        """All of it, inflated.

        What its JSON will take when it is parsed counts as held, too; that depends on the path.

        Raises:
            RequestError: 400 it is no gzip; 408 too slow; 413 too large, or too many values; 415 an
                unknown coding; 503 too much is held already.
            ClientGoneError: the client went away.
        """
        coding = headers.get(b"content-encoding", b"identity").strip().lower()
        if coding not in (b"", b"identity", b"gzip", b"x-gzip", b"deflate"):
            shown = coding.decode("latin-1")
            raise RequestError(415, f"Content-Encoding {shown!r}: send gzip, deflate or none")
        declared = headers.get(b"content-length")
        if declared is not None and int(declared) > self._limits.body_bytes:
            raise self._too_large(f"{int(declared)} bytes")
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                raw = await self._received(receive)
        except TimeoutError:
            raise RequestError(
                408, f"the body did not come within {self._limits.body_seconds:g} seconds"
            ) from None
        if coding not in (b"", b"identity"):
            raw = await self._inflated(raw, gzip=coding != b"deflate")
        self._hold(parsed_bytes(raw, headers, path))
        return raw

    async def _received(self, receive: Receive) -> bytes:
        chunks = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if chunk := message.get("body", b""):
                self.received += len(chunk)
                if self.received > self._limits.body_bytes:
                    raise self._too_large("it goes on")
                self._hold(len(chunk))
                chunks.append(chunk)
            if not message.get("more_body", False):
                self.whole = True
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _inflated(self, raw: bytes, gzip: bool) -> bytes:
        """Its size is known, and counts, before a byte of it is kept."""
        limit = self._limits.inflated_bytes
        size = _promised(raw, limit) if gzip else limit
        small = min(size, len(raw) * _DENSEST) <= _INLINE
        wbits = zlib.MAX_WBITS | 16 if gzip else _deflate_bits(raw)
        if not gzip or size > len(raw) * _DENSE:
            size = await _run(small, _inflated_size, raw, wbits, size)
        self._hold(size)
        return await _run(small, _inflate, raw, wbits, size)

    def _hold(self, count: int) -> None:
        self._bodies.hold(count)
        self.held += count

    def _too_large(self, what: str) -> RequestError:
        return RequestError(
            413, f"the body is too large: {what}, allowed are {self._limits.body_bytes} bytes"
        )


def _promised(raw: bytes, limit: int) -> int:
    """The bytes that a gzip file says it becomes (modulo 4 GiB).

    Raises:
        RequestError: 413, more than the limit.
    """
    if len(raw) < _SHORTEST_GZIP:
        raise RequestError(400, "the body's Content-Encoding is cut off")
    promised = int.from_bytes(raw[-4:], "little")
    if promised > limit:
        raise _more_than(limit)
    return promised


def _more_than(limit: int, wbits: int = 0) -> RequestError:
    if wbits > zlib.MAX_WBITS:
        return RequestError(400, f"the gzip body says it becomes {limit} bytes, and becomes more")
    return RequestError(413, f"the body is too large inflated: more than {limit} bytes")


async def _run(small: bool, what: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Here, or in a thread where it is worth one."""
    if small:
        return what(*given, **named)
    return await asyncio.to_thread(what, *given, **named)


def _inflate(raw: bytes, wbits: int, limit: int) -> bytes:
    return b"".join(_pieces(raw, wbits, limit))


def _inflated_size(raw: bytes, wbits: int, limit: int) -> int:
    return sum(map(len, _pieces(raw, wbits, limit)))


def _deflate_bits(raw: bytes) -> int:
    """Of "deflate", which is zlib's format; some clients send it without the two bytes ahead."""
    zlibs = len(raw) >= 2 and raw[0] & 15 == 8 and int.from_bytes(raw[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if zlibs else -zlib.MAX_WBITS


def _pieces(raw: bytes, wbits: int, limit: int) -> Iterator[bytes]:
    """What is inflated, at most ``limit`` bytes, piece by piece.

    Raises:
        RequestError: 400 it is damaged; 413 it is more.
    """
    inflater = zlib.decompressobj(wbits)
    view, at, count = memoryview(raw), 0, 0
    try:
        while at < len(raw) and not inflater.eof:
            # A slice at a time: what zlib leaves over of it is copied at every step.
            fed: bytes | memoryview = view[at : at + _FEED]
            at += len(fed)
            while True:
                room = min(_STEP, limit + 1 - count)
                piece = inflater.decompress(fed, room)
                count += len(piece)
                if count > limit:
                    raise _more_than(limit, wbits)
                yield piece
                fed = inflater.unconsumed_tail
                if inflater.eof or (not fed and len(piece) < room):
                    break
    except zlib.error as error:
        raise RequestError(400, f"the body is not what Content-Encoding says: {error}") from None
    if not inflater.eof:
        raise RequestError(400, "the body's Content-Encoding is cut off")
    if inflater.unused_data or at < len(raw):
        raise RequestError(400, "the body goes on after the end of its Content-Encoding")
