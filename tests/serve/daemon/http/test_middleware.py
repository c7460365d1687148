"""The gate on a real socket: ids, headers, errors, deadlines, logs."""

from __future__ import annotations

import gzip
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Response

from ..waiting import PATIENCE, until

Make = Callable[..., Any]

EVERY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def test_a_reply_bears_id_model_and_security(gated: Make) -> None:
    gate = gated()
    reply = gate.ask("POST", "/echo", b"abc", {"X-Request-Id": "of-the.caller:7"})
    assert (reply.status, reply.body) == (200, b"abc")
    assert reply.headers["x-request-id"] == "of-the.caller:7"
    assert reply.headers["x-lloss-model"] == "ab" * 32
    assert EVERY.items() <= reply.headers.items()
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert "server" not in reply.headers
    (line,) = gate.lines()
    told = {"request_id": "of-the.caller:7", "status": 200, "received": 3, "bytes": 3}
    assert told.items() <= line.items()
    assert gate.counted() == [("/echo", 200)]


@pytest.mark.parametrize("given", ["a b", "x" * 129, 'a"b', "é", ""])
def test_an_id_that_is_not_sane_is_replaced(gated: Make, given: str) -> None:
    reply = gated().ask("GET", "/", headers={"X-Request-Id": given})
    assert len(reply.headers["x-request-id"]) == 16


def test_every_error_is_one_line_of_json(gated: Make) -> None:
    gate = gated()
    assert gate.ask("GET", "/fails/settings").error == "k=0: must be above 0"
    busy = gate.ask("GET", "/fails/busy")
    assert (busy.status, busy.headers["retry-after"]) == (429, "1")
    assert gate.ask("GET", "/fails/engine").status == 500
    missing = gate.ask("GET", "/nothing/here")
    assert missing.status == 404 and "/nothing/here" in missing.error
    wrong = gate.ask("DELETE", "/echo")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST") and wrong.error
    invalid = gate.ask("GET", "/number?k=many")
    assert invalid.status == 422 and "query.k" in invalid.error and "'many'" in invalid.error
    assert gate.ask("GET", "/number").error.startswith("query.k: Field required")
    assert all("x-request-id" in reply.headers for reply in (busy, missing, wrong, invalid))


def test_what_nobody_foresaw_is_told_to_the_log_alone(gated: Make) -> None:
    gate = gated()
    reply = gate.ask("GET", "/fails/unforeseen", headers={"X-Request-Id": "seen"})
    assert reply.status == 500
    assert reply.error == "internal error; see the log of request seen"
    (line,) = gate.lines()
    assert "KeyError: 'a secret'" in line["traceback"] and line["request_id"] == "seen"
    assert line["level"] == "error"


def test_routes_are_counted_by_pattern(gated: Make) -> None:
    gate = gated()
    gate.ask("POST", "/count/secret-name", b"x")
    gate.ask("GET", "/no/such")
    gate.ask("DELETE", "/count/other")
    gate.lines(3)
    assert gate.metrics.requests == [
        ("/count/{name}", 200),
        ("unmatched", 404),
        ("/count/{name}", 405),
    ]
    assert gate.lines(3)[0]["images"] == 3


def test_probes_are_counted_and_not_logged(gated: Make) -> None:
    gate = gated()
    assert gate.ask("GET", "/healthz").status == gate.ask("GET", "/metrics").status == 200
    gate.ask("GET", "/")
    assert [line["path"] for line in gate.lines()] == ["/"]
    assert len(gate.counted(3)) == 3


def test_head_is_answered_as_get_without_a_body(gated: Make) -> None:
    gate = gated()
    head, get = (
        b"%s / HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % pair
        for pair in ((b"HEAD", b""), (b"GET", b"Connection: close\r\n"))
    )
    replies = gate.send(head + get)  # by the bytes: clients leave out what should not be there
    first, rest = replies.split(b"\r\n\r\n", 1)
    assert first.startswith(b"HTTP/1.1 200") and rest.startswith(b"HTTP/1.1 200")
    body = rest.split(b"\r\n\r\n", 1)[1]
    assert body and b"content-length: %d" % len(body) in first


def test_head_is_counted_by_its_route_and_logged_by_its_name(gated: Make) -> None:
    gate = gated()
    assert gate.ask("HEAD", "/large").status == 200
    assert gate.counted() == [("/large", 200)]
    assert gate.lines()[0]["method"] == "HEAD"


def test_the_application_is_cancelled_when_its_client_goes_away(gated: Make) -> None:
    gate = gated()
    with socket.create_connection(("127.0.0.1", gate.port)) as sock:
        sock.sendall(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab")
        assert gate.entered.wait(PATIENCE)
    assert gate.cancelled.wait(PATIENCE)
    (line,) = gate.lines()
    assert line["status"] == 499 and gate.metrics.requests == [("/slow", 499)]


def test_all_requests_of_a_client_that_goes_away_are_cancelled(gated: Make) -> None:
    gate = gated()
    with socket.create_connection(("127.0.0.1", gate.port)) as sock:
        sock.sendall(b"POST /slow HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        assert gate.entered.wait(PATIENCE)
    assert gate.cancelled.wait(PATIENCE)
    assert gate.counted(1) == [("/slow", 499)]
    gate.lines()
    assert "traceback" not in gate.log.getvalue()


def test_clients_that_go_away_do_not_multiply_threads(gated: Make) -> None:
    """What a thread has begun it ends, in its place among the forty; what waits is dropped."""
    gate = gated()
    ask = b"POST /thread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    for asked in range(1, 61):
        with socket.create_connection(("127.0.0.1", gate.port)) as sock:
            sock.sendall(ask)
            until(lambda asked=asked: gate.threads == min(asked, 40))
            until(lambda asked=asked: gate.metrics.in_flight == min(asked, 41))
        until(lambda asked=asked: gate.metrics.in_flight == min(asked, 40))  # what waited is gone
    assert gate.threads == 40
    gate.free.set()
    assert gate.counted(60) == [("/thread", 499)] * 60
    assert gate.threads == 40 and gate.metrics.in_flight == 0


def test_a_connection_serves_many_requests_also_pipelined(gated: Make) -> None:
    gate = gated()
    one = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
    last = one.replace(b"Host", b"Connection: close\r\nHost")
    assert gate.send(one * 5 + last).count(b"HTTP/1.1 200 OK") == 6


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_body_is_the_applications_alone(gated: Make, coding: str) -> None:
    """Which can free it: what a body becomes counts as held beside it, another copy does not."""
    gate = gated()
    references = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        references.append(sys.getrefcount(body))
        await Response(str(len(body)))(scope, receive, send)

    gate.gate.app = app
    sent = bytes(1000) if coding == "identity" else gzip.compress(bytes(1000))
    assert gate.ask("POST", "/", sent, {"Content-Encoding": coding}).body == b"1000"
    assert references == [2]  # its own, and the call's


def test_draining_refuses_the_new_and_answers_probes(gated: Make) -> None:
    gate = gated()
    gate.daemon.draining = True
    refused = gate.ask("POST", "/echo", b"abc")
    assert refused.status == 503 and refused.headers["retry-after"] == "5"
    assert refused.headers["connection"] == "close"
    assert gate.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize(
    "path",
    ["/%2e%2e/", "/static/%2e%2e/v1/model", "/a/../b", "/a%00b", "/a%0ab", "/a%5c..%5cb", "/./a"],
)
def test_tricks_with_paths_are_refused(gated: Make, path: str) -> None:
    gate = gated()
    reply = gate.ask("GET", path)
    assert reply.status == 400 and "path" in reply.error
    assert gate.counted() == [("unmatched", 400)]


@pytest.mark.parametrize("path", ["//", "//evil.example/", "/%2f%2fetc", "/;x=1"])
def test_odd_paths_are_nowhere(gated: Make, path: str) -> None:
    raw = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    assert gated().send(raw).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("path", [b"/a\x00b", b"/a b", b"a:80"])
def test_a_path_that_is_no_path_is_no_http(gated: Make, path: bytes) -> None:
    reply = gated().send(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400") and json.loads(reply.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
        b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: +3\r\n\r\nabc",
        b"Content-Length: 3, 3\r\n\r\nabc",
        b"Content-Length: -1\r\n\r\nabc",
        b"Content-Length: 99999999999999999999999\r\n\r\nabc",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b" folded: yes\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
)
def test_requests_that_two_servers_would_read_differently(gated: Make, headers: bytes) -> None:
    """Refused, and nothing after them is taken for a request."""
    gate = gated()
    reply = gate.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\n" + headers)
    assert reply.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), reply
    assert reply.count(b"HTTP/1.1") == 1


def test_slow_heads_are_cut_off_however_steadily_they_drip(gated: Make) -> None:
    gate = gated(limits={"header_seconds": 0.5})
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 2000:
            try:
                sock.sendall(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("all of it was taken")
    assert ("unmatched", 408) in gate.counted()


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n\r\n"])
def test_a_connection_that_says_nothing_is_closed(gated: Make, sent: bytes) -> None:
    gate = gated(limits={"header_seconds": 0.3})
    gate.send(sent)  # which returns when the connection is closed


def test_empty_lines_between_requests_hold_no_connection(gated: Make) -> None:
    gate = gated(limits={"header_seconds": 0.3})
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.recv(1 << 16)
        sock.sendall(b"\r\n")
        while sock.recv(1 << 16):
            pass  # it ends when the connection is closed


def test_a_head_that_waits_for_the_reply_before_it_is_not_cut_off(gated: Make) -> None:
    gate = gated(limits={"header_seconds": 0.3})
    body = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gate.port), timeout=PATIENCE) as sock:
        sock.sendall(body)
        time.sleep(0.8)
        sock.sendall(b"abcGET ")
        reply = gate.rest(sock)  # the head that never ends is cut off once the reply is there
    assert reply.startswith(b"HTTP/1.1 200") and b"\r\n\r\nabc" in reply


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000,
        b"GET /?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    ],
)
def test_large_heads_are_refused(gated: Make, head: bytes) -> None:
    reply = gated().send(head)
    assert reply.startswith(b"HTTP/1.1 431") or not reply  # reset while still sending


@pytest.mark.parametrize("then", [b"keep-alive", b"close"])
def test_a_client_that_does_not_read_its_reply_is_cut_off(gated: Make, then: bytes) -> None:
    gate = gated(limits={"body_seconds": 0.5})
    with socket.create_connection(("127.0.0.1", gate.port)) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\n\r\n" % then)
        for there in (True, False):
            until(lambda there=there: bool(gate.server.server_state.connections) is there)
    slow = gate.send(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert len(slow) > 50 << 20


def test_connections_over_the_limit_are_told(gated: Make) -> None:
    gate = gated(limits={"connections": 3})
    held = [socket.create_connection(("127.0.0.1", gate.port)) for _ in range(3)]
    until(lambda: len(gate.server.server_state.connections) == 3)
    reply = gate.send(b"")
    assert reply.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in reply
    held.pop().close()
    until(lambda: len(gate.server.server_state.connections) == 2)
    assert gate.ask("GET", "/").status == 200
    for sock in held:
        sock.close()


def test_a_flood_of_pipelined_requests_is_refused(gated: Make) -> None:
    gate = gated()
    reply = gate.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000)
    assert reply.count(b"HTTP/1.1 200") <= 64
    until(lambda: ("unmatched", 400) in gate.metrics.requests)


def test_what_is_no_http_is_logged_within_a_quota(gated: Make) -> None:
    gate = gated()
    for _ in range(40):
        assert gate.send(b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert len(gate.lines(20, "refused")) == 20


def test_upgrades_are_not_taken(gated: Make) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    for kind in (b"websocket", b"h2c"):
        reply = gated().send(raw % kind)
        assert reply.startswith(b"HTTP/1.1 200") and b"connection: close" in reply.lower()
