"""What the HTTP server does before the middleware sees a request, on a real socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lloss.serve.daemon.http.server import listening
from lloss.serve.daemon.settings import ServeSettings

from lloss.errors import SettingsError

from ..waiting import PATIENCE, until

Make = Callable[..., Any]

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


def test_a_used_port_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ServeSettings(model=tmp_path, data_dir=tmp_path, port=port)
        with pytest.raises(SettingsError, match=f"--port {port}: cannot listen: .*or port"):
            listening(settings).__enter__()
    unknown = ServeSettings(model=tmp_path, data_dir=tmp_path, host="no.such.host", token="a" * 16)
    with pytest.raises(SettingsError, match="cannot listen"):
        listening(unknown).__enter__()


def test_connections_over_the_limit_get_503(make_server: Make) -> None:
    server = make_server(limits={"connections": 3})
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    connections = server.running.server.server_state.connections
    until(lambda: len(connections) == 3)
    assert server.send(GET + b"\r\n").startswith(b"HTTP/1.1 503")
    idle.pop().close()
    until(lambda: len(connections) == 2)
    assert server.ask("GET", "/").status_code == 200
    for sock in idle:
        sock.close()


@pytest.mark.parametrize("line", [b"GET /a\x00b", b"GET /a b", b"GET a:80", b"\x16\x03\x01 hello"])
def test_malformed_requests_get_400(make_server: Make, line: bytes) -> None:
    reply = make_server().send(line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400") and reply.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
        b"Content-Length: +3\r\n\r\nabc",
        b"Content-Length: 3, 3\r\n\r\nabc",
        b"Content-Length: 99999999999999999999999\r\n\r\nabc",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
)
def test_requests_that_two_servers_would_read_differently(
    make_server: Make, headers: bytes
) -> None:
    """They are refused, and no bytes after them count as a request."""
    reply = make_server().send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\n" + headers)
    assert reply.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), reply
    assert reply.count(b"HTTP/1.1") == 1


def test_head_and_get_send_the_same_length(make_server: Make) -> None:
    head, get = GET.replace(b"GET", b"HEAD") + b"\r\n", GET + b"Connection: close\r\n\r\n"
    replies = make_server().send(head + get)
    first, rest = replies.split(b"\r\n\r\n", 1)
    assert first.startswith(b"HTTP/1.1 200") and rest.startswith(b"HTTP/1.1 200")
    body = rest.split(b"\r\n\r\n", 1)[1]
    assert body and b"content-length: %d" % len(body) in first


def test_a_client_that_is_still_sending_reads_why_it_is_refused(make_server: Make) -> None:
    server = make_server(limits={"body_bytes": 1000})
    for _ in range(3):
        reply = server.ask("POST", "/echo", bytes(5 << 20))
        assert reply.status_code == 413 and reply.headers["connection"] == "close"


def test_the_application_is_cancelled_when_its_client_goes_away(make_server: Make) -> None:
    server = make_server()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab")
        assert server.entered.wait(PATIENCE)
    assert server.cancelled.wait(PATIENCE)
    (line,) = server.lines()
    assert line["status"] == 499 and server.metrics.requests == [("/slow", 499)]


def test_pipelined_requests_of_a_client_that_left_log_no_error(make_server: Make) -> None:
    server = make_server()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /thread HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        assert server.entered.wait(PATIENCE)
    connections = server.running.server.server_state.connections
    until(lambda: not connections)
    server.free.set()
    assert set(server.counted()) == {("/thread", 499)} and "traceback" not in server.log.getvalue()


def test_clients_that_go_away_do_not_multiply_threads(make_server: Make) -> None:
    """A thread finishes what it began, as one of forty; requests that wait for one are dropped."""
    server = make_server()
    socks = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
    for sock in socks:
        sock.sendall(b"POST /thread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")

    def in_flight() -> float:
        return server.metrics.value("lloss_requests_in_flight")

    until(lambda: server.threads == 40 and in_flight() == 60)
    for sock in socks:
        sock.close()
    until(lambda: in_flight() == 40)
    assert server.threads == 40
    server.free.set()
    assert server.counted(60) == [("/thread", 499)] * 60
    assert server.threads == 40 and in_flight() == 0
