"""Bodies: limits, deadlines, and what they occupy."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.http.request_body import parsed_bytes

from ..waiting import PATIENCE, until

Make = Callable[..., Any]

POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
INFER = "/v2/models/lloss/infer"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("coding", "status"),
    [("identity", 200), ("gzip", 415), ("deflate", 415), ("gzip, identity", 415), ("\xff", 415)],
)
def test_compressed_bodies_are_refused(make_server: Make, coding: str, status: int) -> None:
    headers = {"Content-Encoding": coding.encode("latin-1")}
    reply = make_server().client().post("/echo", content=b"a", headers=headers)
    assert reply.status_code == status and (
        status == 200 or "uncompressed" in reply.json()["error"]
    )


def test_a_large_body_is_refused_before_it_is_read(make_server: Make) -> None:
    server = make_server(limits={"body_bytes": 1000})
    reply = server.send(POST + b"Content-Length: 1001\r\n\r\n", half=True)
    assert reply.startswith(b"HTTP/1.1 413") and b"1000 bytes" in reply
    assert server.ask("POST", "/echo", bytes(1000)).status_code == 200
    chunk = b"190\r\n" + b"a" * 400 + b"\r\n"
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert server.send(head + chunk * 2 + b"0\r\n\r\n").endswith(b"a" * 800)
    assert server.send(head + chunk * 3, half=True).startswith(b"HTTP/1.1 413")


def test_a_body_that_takes_too_long_gets_408(make_server: Make) -> None:
    server = make_server(limits={"body_seconds": 0.1})
    reply = server.send(POST + b"Content-Length: 1000\r\n\r\na")
    assert reply.startswith(b"HTTP/1.1 408") and b"0.1 seconds" in reply
    assert server.lines()[0]["status"] == 408


def test_a_client_that_leaves_before_its_body_is_complete_is_logged(make_server: Make) -> None:
    server = make_server()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(POST + b"Content-Length: 1000\r\n\r\nabc")
        until(lambda: server.middleware.bodies.size == 3)
    (line,) = server.lines()
    assert (line["status"], line["received"]) == (499, 3)
    assert server.middleware.bodies.size == 0


def test_all_bodies_together_are_bounded(make_server: Make) -> None:
    server = make_server(limits={"in_flight_bytes": 1500})
    bodies, client = server.middleware.bodies, server.client()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
        sock.sendall(POST + b"Content-Length: 1200\r\n\r\n" + bytes(1000))
        until(lambda: bodies.size == 1000)
        reply = client.post("/echo", content=bytes(600))
        assert reply.status_code == 503 and reply.headers["retry-after"] == "1"
        assert client.post("/echo", content=bytes(400)).status_code == 200
    until(lambda: bodies.size == 0)
    assert client.post("/echo", content=bytes(600)).status_code == 200


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"", 0),
        (b"[1, 2, 3]", 3),
        (b' \n{"a": [], "b": {}}', 4),
        (json.dumps([[1, 2], [3]]).encode("utf-16"), 5),
        (b"\xef\xbb\xbf[1,2]", 2),
        (b"\x89PNG,,,,", 0),
        (b"--xx\r\n[,,,", 0),
    ],
)
def test_json_values_are_counted(body: bytes, values: int) -> None:
    assert parsed_bytes(body, {}, "/") == parsed_bytes(body, {}, INFER) == 64 * values


def test_binary_tensors_do_not_count_as_json() -> None:
    body = b'{"inputs": []}' + b"," * 1000

    def counted(length: bytes, path: str = INFER) -> int:
        return parsed_bytes(body, {b"inference-header-content-length": length}, path) // 64

    for path in (INFER, "/v2/models/lloss/versions/1/infer"):
        assert counted(b" 14 ", path) == 2
    for invalid in (b"-1", b"1e3", b"9" * 30, b"", b"99999"):
        assert counted(invalid) == 1002
    for path in ("/v1/pools/p/select", "/v1/pools/infer", "/v2/models/lloss"):
        assert counted(b"14", path) == counted(b"0", path) == 1002


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1"])
def test_too_many_json_values_are_refused(value: bytes) -> None:
    with pytest.raises(RequestError, match="more than 4,000,000 JSON values") as error:
        parsed_bytes(b"[" + (value + b",") * 4_000_000 + b"1]", {}, INFER)
    assert error.value.status == 413


def test_parsed_json_counts_among_all_bodies(make_server: Make) -> None:
    server = make_server(limits={"in_flight_bytes": 100_000})
    client, body = server.client(), b"[" + b"1," * 1000 + b"1]"
    assert client.post("/echo", content=body).status_code == 200
    assert client.post("/echo", content=body * 2).status_code == 503
    assert server.middleware.bodies.size == 0


def test_too_many_form_fields_are_refused(make_server: Make) -> None:
    client = make_server().client()
    assert client.post("/form", content=b"&" * 100_001, headers=FORM).status_code == 413
    assert client.post("/form", content=b"a=b&" * 5, headers=FORM).content == b"1"
