"""Requests ahead of their replies, on a real socket: what is refused waits for its turn."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from lloss.serve.daemon.http.protocol import HEAD_BYTES

from ....waiting import PATIENCE

Make = Callable[..., Any]

THREAD = b"POST /thread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
LARGE = b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_BYTES


def test_the_end_of_a_large_body_is_no_large_head(gated: Make) -> None:
    body = b"a" * (3 * HEAD_BYTES)
    raw = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = POST + b"Connection: close\r\nContent-Length: 1\r\n\r\nb"
    gate = gated()
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        sock.sendall(raw + last[:1])
        reply = sock.recv(1 << 20)
        sock.sendall(last[1:])
        reply += gate.rest(sock)
    assert reply.count(b"HTTP/1.1 200") == 2 and reply.endswith(b"\r\n\r\nb")


@pytest.mark.parametrize(
    ("after", "status"),
    [
        (LARGE, 431),
        (b"no HTTP\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100, 400),
    ],
)
def test_a_refusal_comes_after_the_replies_before_it(
    gated: Make, after: bytes, status: int
) -> None:
    gate = gated()
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        sock.sendall(THREAD)
        assert gate.entered.wait(PATIENCE)
        sock.sendall(after + b"x")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        gate.free.set()
        sock.settimeout(PATIENCE)
        first, *others, refused = gate.rest(sock).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200") and first.endswith(b'"done"')
    assert all(other.startswith(b"200") for other in others)
    head, _, body = refused.partition(b"\r\n\r\n")
    assert head.startswith(b"%d" % status) and b"connection: close" in head
    assert json.loads(body)["error"]


def test_a_head_that_is_never_whole_is_bounded_behind_a_reply(gated: Make) -> None:
    gate = gated()
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        sock.sendall(THREAD)
        assert gate.entered.wait(PATIENCE)
        sock.sendall(LARGE)
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):  # it is not read any more
            for _ in range(100):
                sock.sendall(b"a" * (1 << 20))
        gate.free.set()
