import asyncio
from collections.abc import Callable
from typing import Any

from lloss.serve.daemon.http.joined import Joined


class Transport:
    """Stands for a connection's."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def written(work: Callable[[Joined], None], turns: int = 0) -> Transport:
    transport: Any = Transport()

    async def run() -> None:
        work(Joined(transport, asyncio.get_running_loop()))
        for _ in range(turns):
            await asyncio.sleep(0)

    asyncio.run(run())
    return transport  # type: ignore[no-any-return]


def test_a_head_goes_out_with_what_follows_it() -> None:
    def work(joined: Joined) -> None:
        for data in (b"head ", b"body", b"more"):
            joined.write(data)

    assert written(work, turns=2).writes == [b"head body", b"more"]


def test_a_head_that_nothing_follows_goes_out_in_the_next_turn() -> None:
    async def run() -> None:
        transport: Any = Transport()
        Joined(transport, asyncio.get_running_loop()).write(b"head")
        assert transport.writes == []
        await asyncio.sleep(0)
        assert transport.writes == [b"head"]

    asyncio.run(run())


def test_a_large_body_is_not_copied() -> None:
    body = bytes(1 << 20)

    def work(joined: Joined) -> None:
        joined.write(b"head")
        joined.write(body)

    writes = written(work, turns=1).writes
    assert writes == [b"head", body] and writes[1] is body


def test_nothing_is_lost_at_the_end() -> None:
    def work(joined: Joined) -> None:
        joined.write(b"head")
        joined.close()
        assert joined.is_closing()

    transport = written(work, turns=2)
    assert transport.writes == [b"head"] and transport.closed
