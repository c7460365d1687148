"""Bodies that are small on the wire and large when they are parsed."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.http import body_limits as weighing
from lloss.serve.daemon.http import request_body as bodies
from lloss.serve.daemon.http.body_limits import parsed_bytes

Make = Callable[..., Any]
TOKEN = "0123456789abcdef"
INFER = "/v2/models/lloss/infer"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


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
def test_values_are_counted(body: bytes, values: int) -> None:
    assert parsed_bytes(body, {}, "/") == parsed_bytes(body, {}, INFER) == 64 * values


def test_of_binary_tensors_the_json_alone_is_counted() -> None:
    body = b'{"inputs": []}' + b"," * 1000

    def counted(length: bytes, path: str = INFER) -> int:
        return parsed_bytes(body, {b"inference-header-content-length": length}, path)

    for path in (INFER, "/v2/models/lloss/versions/1/infer"):
        assert counted(b" 14 ", path) == 128
    for odd in (b"-1", b"1e3", b"9" * 30, b""):
        assert counted(odd) == 64 * 1002
    assert counted(b"99999") == 64 * 1002
    for path in ("/v1/pools/p/select", "/v1/pools/infer", "/v2/models/lloss"):
        assert counted(b"14", path) == counted(b"0", path) == 64 * 1002


@pytest.mark.parametrize("header", ["Inference-Header-Content-Length", "Content-Type"])
def test_what_a_body_is_can_be_told_once(gated: Make, header: str) -> None:
    raw = f"POST /echo HTTP/1.1\r\nHost: localhost\r\n{header}: 14\r\n{header}: 0\r\n"
    reply = gated().send(f"{raw}Connection: close\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 400") and b"given twice" in reply


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1"])
def test_more_than_anybody_needs_is_refused(value: bytes) -> None:
    with pytest.raises(RequestError, match="more than 4,000,000 values of JSON") as error:
        parsed_bytes(b"[" + (value + b",") * 4_000_000 + b"1]", {}, INFER)
    assert error.value.status == 413


def test_a_million_labels_are_not_too_many() -> None:
    one = b'{"id":"%07d.png","label":"cat"}'
    body = b'{"labels":[' + b",".join(one % n for n in range(1_000_000)) + b"]}"
    assert parsed_bytes(body, {}, "/v1/pools/p/labels") < 64 * weighing.MAX_VALUES


def test_what_is_parsed_counts_as_held(gated: Make) -> None:
    gate = gated(limits={"in_flight_bytes": 100_000})
    body = b"[" + b"1," * 1000 + b"1]"
    assert gate.ask("POST", "/echo", body).status == 200
    assert gate.ask("POST", "/echo", body * 2).status == 503
    packed = gate.ask("POST", "/echo", gzip.compress(body * 2), {"Content-Encoding": "gzip"})
    assert packed.status == 503 and "try again" in packed.error
    for _ in range(20):  # at once: nothing is waited for of a body that came
        time.sleep(0.01)
        if not gate.gate._bodies.held:
            return
    raise AssertionError(gate.gate._bodies.held)


def test_a_form_of_empty_fields_is_refused(gated: Make) -> None:
    gate = gated()
    assert gate.ask("POST", "/form", b"&" * 100_001, FORM).status == 413
    assert gate.ask("POST", "/form", b"a=b&" * 5, FORM).body == b"1"


def test_of_strangers_little_is_read(gated: Make) -> None:
    gate = gated(token=TOKEN)
    small, large = b"token=" + b"x" * 1000, b"token=" + b"x" * bodies._STRANGERS
    assert gate.ask("POST", "/login", small, FORM).status == 404
    assert gate.ask("POST", "/login", large, FORM).status == 413
    packed = {**FORM, "Content-Encoding": "gzip"}
    assert gate.ask("POST", "/login", gzip.compress(large), packed).status == 413
    assert gate.ask("GET", "/healthz", large).status == 413
    assert gate.ask("POST", "/echo", large).status == 401
    known = {"Authorization": f"Bearer {TOKEN}"}
    assert gate.ask("POST", "/echo", large, known).status == 200
