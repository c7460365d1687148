"""Load on an HTTP server from a process of its own: python load.py < plan.json

The plan names address, path, headers and bodies; ``clients`` connections send one request after
another (a closed loop), or requests begin at a ``rate``, at random times or ``even`` ones, whatever
became of those before (an open loop: latency is counted from when a request was due). Prints a JSON
line: what was answered, and how long it took.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import re
import sys
import time
from collections import Counter
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_LAST = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """A kept-alive connection that sends prepared bytes and reads answers with a length.

    On a protocol and not on streams: the client shares the cores with the server, and what it
    takes of them the server lacks.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""
        self._whole = 0  # bytes of the answer with its head, once that is there

    async def ask(self, request: bytes) -> int:
        """Send a request; returns the status, 0 where the connection broke."""
        loop = asyncio.get_running_loop()
        try:
            if self._transport is None:
                await loop.create_connection(lambda: self, self.host, self.port)
        except OSError:
            return 0
        assert self._transport is not None
        self._answer = loop.create_future()
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: Any) -> None:
        """See ``asyncio.Protocol``."""
        self._transport, self._received, self._whole = transport, b"", 0

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._received = data if not self._received else self._received + data
        if not self._whole:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self._received, 0, end + 2)
            self._whole = end + 4 + (int(found[1]) if found else 0)
        if len(self._received) >= self._whole:
            received, self._received, self._whole = self._received, b"", 0
            if _LAST.search(received, 0, received.find(b"\r\n\r\n") + 2):
                self.close()
            self._count(int(received[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = None
        self._count(0)

    def _count(self, code: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(code)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self._transport = None


def requests_of(plan: dict[str, Any]) -> list[bytes]:
    made = []
    for body in map(base64.b64decode, plan["bodies"]):
        head = [
            f"POST {plan['path']} HTTP/1.1",
            f"Host: {plan['host']}:{plan['port']}",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in plan["headers"].items()),
        ]
        made.append("\r\n".join([*head, "", ""]).encode() + body)
    return made


async def closed(plan: dict[str, Any]) -> dict[str, Any]:
    requests = requests_of(plan)
    codes: Counter[int] = Counter()
    times: list[float] = []
    begin = time.perf_counter() + plan["warm_up"]
    end = begin + plan["seconds"]

    async def client(number: int) -> None:
        connection = Connection(plan["host"], plan["port"])
        step = number
        while (asked := time.perf_counter()) < end:
            code = await connection.ask(requests[step % len(requests)])
            step += 1
            now = time.perf_counter()
            if begin <= now < end:
                codes[code] += 1
                if code == 200:
                    times.append(now - asked)
            if code not in (200, 0):
                await asyncio.sleep(plan.get("back_off", 0.05))
        connection.close()

    await asyncio.gather(*(client(number) for number in range(plan["clients"])))
    return summary(codes, times, plan["seconds"])


async def opened(plan: dict[str, Any]) -> dict[str, Any]:
    requests = requests_of(plan)
    codes: Counter[int] = Counter()
    times: list[float] = []
    free: list[Connection] = []
    begin = time.perf_counter() + plan["warm_up"]
    end = begin + plan["seconds"]
    due, draw = time.perf_counter(), random.Random(0)
    under_way: set[asyncio.Task[None]] = set()

    async def one(due: float, request: bytes) -> None:
        connection = free.pop() if free else Connection(plan["host"], plan["port"])
        code = await connection.ask(request)
        now = time.perf_counter()
        if begin <= due < end:
            codes[code] += 1
            if code == 200:
                times.append(now - due)
        free.append(connection)

    while due < end:
        due += 1 / plan["rate"] if plan.get("even") else draw.expovariate(plan["rate"])
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.create_task(one(due, requests[draw.randrange(len(requests))]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    for connection in free:
        connection.close()
    return summary(codes, times, plan["seconds"])


def summary(codes: Counter[int], times: list[float], seconds: float) -> dict[str, Any]:
    times.sort()
    at = {
        f"p{share}": times[min(len(times) - 1, len(times) * share // 100)] if times else None
        for share in (50, 90, 99)
    }
    return {
        "codes": {str(code): count for code, count in sorted(codes.items())},
        "requests_a_second": codes[200] / seconds,
        **at,
    }


def main() -> None:
    plan = json.load(sys.stdin)
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    print(json.dumps(asyncio.run((opened if "rate" in plan else closed)(plan))))


if __name__ == "__main__":
    main()
