"""Request ids, headers, errors, paths, draining and log lines, without a socket."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from lloss.serve.daemon.http.middleware import HEAD_BYTES

Make = Callable[..., Any]

EVERY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def test_a_reply_has_id_model_and_security_headers(make_server: Make) -> None:
    server = make_server()
    reply = server.client().post(
        "/echo", content=b"abc", headers={"X-Request-Id": "of-the.caller:7"}
    )
    assert (reply.status_code, reply.content) == (200, b"abc")
    assert reply.headers["x-request-id"] == "of-the.caller:7"
    assert reply.headers["x-lloss-model"] == "ab" * 32
    assert EVERY.items() <= reply.headers.items()
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert "server" not in reply.headers
    (line,) = server.lines()
    logged = {"request_id": "of-the.caller:7", "status": 200, "received": 3, "bytes": 3}
    assert logged.items() <= line.items()
    assert server.counted() == [("/echo", 200)]
    assert server.metrics.value("lloss_requests_in_flight") == 0


def test_an_invalid_request_id_is_replaced(make_server: Make) -> None:
    client = make_server().client()
    for given in ("a b", "x" * 129, 'a"b', b"\xc3\xa9", ""):
        reply = client.get("/", headers={"X-Request-Id": given})
        assert len(reply.headers["x-request-id"]) == 16


def test_every_error_is_one_line_of_json(make_server: Make) -> None:
    client = make_server().client()

    def ask(method: str, path: str, status: int) -> tuple[str, Any]:
        reply = client.request(method, path)
        (error,) = reply.json().values()
        assert reply.status_code == status and "\n" not in error
        assert "x-request-id" in reply.headers
        return error, reply.headers

    assert ask("GET", "/fails/settings", 422)[0] == "k=0: must be above 0"
    assert ask("GET", "/fails/busy", 429)[1]["retry-after"] == "1"
    ask("GET", "/fails/engine", 500)
    assert "/nothing/here" in ask("GET", "/nothing/here", 404)[0]
    assert ask("DELETE", "/echo", 405)[1]["allow"] == "POST"
    invalid = ask("GET", "/number?k=many", 422)[0]
    assert "query.k" in invalid and "'many'" in invalid
    assert ask("GET", "/number", 422)[0].startswith("query.k: Field required")


def test_an_unexpected_error_is_in_the_log_only(make_server: Make) -> None:
    server = make_server()
    reply = server.client().get("/fails/unforeseen", headers={"X-Request-Id": "seen"})
    assert reply.status_code == 500
    assert reply.json() == {"error": "internal error; see the log of request seen"}
    (line,) = server.lines()
    assert "KeyError: 'a secret'" in line["traceback"] and line["request_id"] == "seen"
    assert line["level"] == "error"


def test_routes_are_counted_by_pattern_and_probes_not_logged(make_server: Make) -> None:
    server = make_server()
    client = server.client()
    client.get("/healthz")
    client.get("/metrics")
    client.post("/count/secret-name", content=b"x")
    client.get("/no/such")
    client.delete("/count/other")
    assert client.head("/large").status_code == 200
    assert server.metrics.requests == [
        ("/healthz", 200),
        ("/metrics", 200),
        ("/count/{name}", 200),
        ("unmatched", 404),
        ("/count/{name}", 405),
        ("/large", 200),
    ]
    lines = server.lines(4)
    assert [line["method"] for line in lines] == ["POST", "GET", "DELETE", "HEAD"]
    assert lines[0]["images"] == 3 and "images" not in lines[1]


def test_while_draining_only_probes_are_answered(make_server: Make) -> None:
    server = make_server()
    server.daemon.draining = True
    refused = server.client().post("/echo", content=b"abc")
    assert refused.status_code == 503 and refused.headers["retry-after"] == "5"
    assert refused.headers["connection"] == "close"
    assert server.client().get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/%2e%2e/", "/static/%2e%2e/v1/model", "/a/../b", "/a%00b", "/a%0ab", "/a%5c..%5cb", "/./a"],
)
def test_paths_that_could_mean_two_things_are_refused(make_server: Make, path: str) -> None:
    server = make_server()
    reply = server.ask("GET", path)
    assert reply.status_code == 400 and "path" in reply.json()["error"]
    assert server.counted() == [("unmatched", 400)]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"X: " + b"a" * HEAD_BYTES], 431),
        ([b"X: y"] * 20_000, 431),
        ([b"Content-Type: 14", b"Content-Type: 0"], 400),
        ([b"Inference-Header-Content-Length: 14", b"Inference-Header-Content-Length: 0"], 400),
        ([b"Authorization: Bearer a", b"Authorization: Bearer b"], 400),
        ([b"Host: localhost"], 400),
        ([b"X: y", b"X: z"], 200),
    ],
)
def test_large_heads_and_doubled_headers_are_refused(
    make_server: Make, lines: list[bytes], status: int
) -> None:
    head = b"\r\n".join([b"GET / HTTP/1.1", b"Host: localhost", b"Connection: close", *lines])
    reply = make_server().send(head + b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 %d" % status)
    assert status == 200 or json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
