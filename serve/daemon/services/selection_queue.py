"""Selections run in threads of their own, so that they hold up no other request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from lloss.serve.daemon.services.selections import (
    HandedOut,
    Ranked,
    SelectionRequest,
    Selections,
)
from starlette.concurrency import run_in_threadpool

AT_ONCE = 16
"""Selections that run at once, each of another pool."""


class SelectionQueue:
    """Runs one selection of a pool at a time, and few of all pools together.

    A selection takes memory and cores. One that waits for another of its pool holds neither a
    thread nor one of the places that other pools need.
    """

    def __init__(self, selections: Selections) -> None:
        self._selections = selections
        self._limiter = anyio.CapacityLimiter(AT_ONCE)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def select(
        self,
        pool: str,
        request: SelectionRequest,
        key: str = "",
        check: Callable[[Sequence[Ranked]], None] | None = None,
    ) -> HandedOut:
        """See :meth:`Selections.select`."""
        arguments: tuple[Any, ...] = (pool, request, key, *([check] if check else []))
        earlier: HandedOut | None = None
        if key:
            earlier = await run_in_threadpool(self._selections.replayed, pool, request, key)
        if earlier is not None:
            return await run_in_threadpool(self._selections.select, *arguments)
        lock = self._locks.setdefault(pool, asyncio.Lock())
        async with lock:
            return await anyio.to_thread.run_sync(
                self._selections.select, *arguments, limiter=self._limiter
            )
