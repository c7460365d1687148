"""The head of a reply goes out together with what follows it."""

from __future__ import annotations

import asyncio

_WORTH_COPYING = 64 << 10
"""Bytes of a body up to which joining costs less than a second write."""


class Joined:
    """What a reply is written to: its first write waits for the second.

    uvicorn writes head and body by themselves; for a small reply the second write, and the client
    that wakes twice, cost as much as all the rest of the reply.

    Args:
        transport: of the connection.
        loop: in whose next turn the head goes out by itself, if nothing follows it in this.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""
        self._begun = False

    def write(self, data: bytes) -> None:
        """See ``asyncio.Transport``."""
        if not self._begun:
            self._begun = True
            self._held = data
            self._loop.call_soon(self._flush)
            return
        if self._held and len(data) <= _WORTH_COPYING:
            data, self._held = self._held + data, b""
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        """See ``asyncio.Transport``."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """See ``asyncio.Transport``."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
