"""Bodies on a real socket: caps, deadlines, inflation, clients that go away."""

from __future__ import annotations

import contextlib
import gzip
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.http.request_body import _inflate

from ....waiting import PATIENCE

Make = Callable[..., Any]

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = HEAD + b"Connection: close\r\n"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def zeros(blocks: int) -> bytes:
    """Raw deflate of so many times 16 MiB of zeros: one block that stands alone, repeated."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * blocks + zlib.compressobj(wbits=-15).flush()


def gzipped(deflated: bytes, size: int) -> bytes:
    """With gzip's head, and a size at its end."""
    return (
        gzip.compress(b"", mtime=0)[:10]
        + deflated
        + bytes(4)
        + (size % (1 << 32)).to_bytes(4, "little")
    )


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("data", [b"", b"abc", bytes(300_000) + b"end"])
def test_codings_are_inflated(gated: Make, coding: str, pack: Any, data: bytes) -> None:
    reply = gated().ask("POST", "/echo", pack(data), {"Content-Encoding": coding})
    assert (reply.status, reply.body) == (200, data)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "\xff"])
def test_other_codings_are_refused(gated: Make, coding: str) -> None:
    reply = gated().ask("POST", "/echo", b"abc", {"Content-Encoding": coding})
    assert reply.status == 415 and "gzip" in reply.error


PACKED = gzip.compress(b"abc" * 1000, mtime=0)


@pytest.mark.parametrize(
    "body",
    [
        b"no gzip at all, but rather long",
        PACKED[:-9],
        PACKED[:12],
        PACKED + b"more",
        PACKED + PACKED,
        PACKED[:-4] + (5).to_bytes(4, "little"),
        PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
        b"\x1f",
    ],
)
def test_bad_gzip_is_refused(gated: Make, body: bytes) -> None:
    reply = gated().ask("POST", "/echo", body, {"Content-Encoding": "gzip"})
    assert reply.status in (400, 413) and reply.error


def test_too_large_is_refused_before_it_is_read(gated: Make) -> None:
    gate = gated(limits={"body_bytes": 1000})
    reply = gate.send(CLOSE + b"Content-Length: 1001\r\n\r\n", half=True)
    assert reply.startswith(b"HTTP/1.1 413") and b"1000 bytes" in reply
    assert gate.ask("POST", "/echo", bytes(1000)).status == 200


def test_too_large_is_told_to_a_client_that_is_still_sending(gated: Make) -> None:
    """Else it would see a reset, and not why."""
    gate = gated(limits={"body_bytes": 1000})
    for _ in range(5):
        reply = gate.ask("POST", "/echo", bytes(5 << 20))
        assert reply.status == 413 and reply.headers["connection"] == "close"


def test_chunks_are_counted(gated: Make) -> None:
    gate = gated(limits={"body_bytes": 1000})
    chunk = b"190\r\n" + b"a" * 400 + b"\r\n"
    head = CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    assert gate.send(head + chunk * 2 + b"0\r\n\r\n").endswith(b"a" * 800)
    assert gate.send(head + chunk * 3, half=True).startswith(b"HTTP/1.1 413")


def test_expect_100_continue(gated: Make) -> None:
    gate = gated(limits={"body_bytes": 1000})
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        sock.sendall(CLOSE + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert gate.rest(sock).endswith(b"\r\n\r\nabc")
    refused = CLOSE + b"Expect: 100-continue\r\nContent-Length: 3000\r\n\r\n"
    assert gate.send(refused, half=True).startswith(b"HTTP/1.1 413")


def test_a_get_may_have_a_body(gated: Make) -> None:
    assert gated().ask("GET", "/", b"abc").status == 200


def test_a_body_that_drips_is_cut_off(gated: Make) -> None:
    gate = gated(limits={"body_seconds": 0.5})
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        sock.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.1):
                try:
                    sock.sendall(b"a")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        reply = gate.rest(sock)
        stop.set()
        dripping.join()
    assert reply.startswith(b"HTTP/1.1 408") and b"0.5 seconds" in reply
    assert gate.lines()[0]["status"] == 408


def test_a_client_gone_in_the_middle_leaves_a_line_and_nothing_held(gated: Make) -> None:
    gate = gated()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", gate.port)) as sock:
            sock.sendall(HEAD + b"Content-Length: 1000\r\n\r\nabc")
            time.sleep(0.1)
    lines = gate.lines(3)
    assert {line["status"] for line in lines} == {499}
    assert {line["received"] for line in lines} == {3}
    assert gate.gate._bodies.held == 0


def test_all_bodies_together_are_bounded(gated: Make) -> None:
    gate = gated(limits={"in_flight_bytes": 1500})
    with socket.create_connection(("127.0.0.1", gate.port)) as sock:
        sock.sendall(HEAD + b"Content-Length: 1200\r\n\r\n" + bytes(1000))
        while gate.gate._bodies.held < 1000:
            time.sleep(0.01)
        reply = gate.ask("POST", "/echo", bytes(600))
        assert reply.status == 503 and reply.headers["retry-after"] == "1"
        assert gate.ask("POST", "/echo", bytes(400)).status == 200
    gate.lines(3)
    assert gate.ask("POST", "/echo", bytes(600)).status == 200
    gate.lines(4)  # written once the body is let go
    assert gate.gate._bodies.held == 0


BOMB = """
import resource, sys, threading, types, zlib
from lloss.serve.daemon.http.request_body import Bodies
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.settings import Limits
import asyncio
raw = sys.stdin.buffer.read()
coding = sys.argv[1].encode()
parts = [raw[i:i + 65536] for i in range(0, len(raw), 65536)]
async def receive():
    part = parts.pop(0)
    return {"type": "http.request", "body": part, "more_body": bool(parts)}
async def main():
    with Bodies(Limits()).reading() as body:
        try:
            await body.read(receive, {b"content-encoding": coding}, "/")
        except RequestError as error:
            print(error.status, end=" ")
before = resource.getrusage(resource.RUSAGE_SELF)
asyncio.run(main())
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime)
"""


BLOCKS = 600  # ten gigabytes in ten megabytes
BOMBS = {
    "honest": (b"gzip", lambda: gzipped(zeros(BLOCKS), BLOCKS << 24), b"413"),
    "lying": (b"gzip", lambda: gzipped(zeros(BLOCKS), 1000), b"400"),
    "lying large": (b"gzip", lambda: gzipped(zeros(BLOCKS), 255 << 20), b"400"),
    "without a size": (b"deflate", lambda: zeros(BLOCKS), b"413"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_neither_memory_nor_time(name: str) -> None:
    coding, make, expected = BOMBS[name]
    bomb = make()
    assert 9e6 < len(bomb) < 11e6
    done = subprocess.run(
        [sys.executable, "-c", BOMB, coding], input=bomb, capture_output=True, check=True
    )
    status, kilobytes, seconds = done.stdout.split()
    assert status == expected
    assert int(kilobytes) < 16_000  # the body as it came, and its join
    assert float(seconds) < 3


def test_a_bomb_over_the_network_is_told(gated: Make) -> None:
    gate = gated()
    reply = gate.ask("POST", "/echo", gzipped(zeros(60), 60 << 24), {"Content-Encoding": "gzip"})
    assert reply.status == 413 and "inflated" in reply.error


ZLIB, RAW, GZIP = 15, -15, 31


@given(data=st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_inflate_or_are_refused(data: bytes) -> None:
    """As zlib itself says."""
    assert _inflate(zlib.compress(data), ZLIB, len(data)) == data
    assert _inflate(raw_deflate(data), RAW, len(data)) == data
    for wbits in (ZLIB, RAW, GZIP):
        with contextlib.suppress(RequestError):
            made = _inflate(data, wbits, 4000)
            assert made == zlib.decompress(data, wbits)
    if data:
        with pytest.raises(RequestError) as refused:
            _inflate(raw_deflate(data), RAW, len(data) - 1)
        assert refused.value.status == 413
