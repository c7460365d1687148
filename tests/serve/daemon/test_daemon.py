"""``lloss serve`` as a process, with a real model."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .processes import Process

DOCUMENTED = [content_type_conformance, response_headers_conformance, response_schema_conformance,
              status_code_conformance]  # fmt: skip
TOKEN = "0123456789abcdef0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

Start = Callable[..., Process]


def test_a_pool_is_scored_and_chosen_from_across_a_restart(start: Start, folder: Path) -> None:
    daemon = start(token=TOKEN).ready()
    assert daemon.scored("p", folder / "photos")["state"] == "done"
    key = {"Idempotency-Key": "one"}
    status, first = daemon.ask("POST", "/v1/pools/p/select", {"k": 3}, **key)
    assert status == 200 and len(first["images"]) == 3
    assert daemon.ask("GET", "/")[0] == daemon.ask("GET", "/pools/p")[0] == 200
    assert daemon.end() == 0
    again = start(token=TOKEN).ready()
    assert again.ask("POST", "/v1/pools/p/select", {"k": 3}, **key)[1]["images"] == first["images"]
    second = again.ask("POST", "/v1/pools/p/select", {"k": 3})[1]
    chosen = {image["id"] for image in first["images"] + second["images"]}
    assert len(chosen) == 6
    assert again.ask("PUT", "/v1/pools/q", {"uri": "/etc"})[0] == 403


def test_models_are_replaced_under_load_without_a_failed_request(start: Start) -> None:
    daemon = start(token=TOKEN).ready()
    before = daemon.ask("GET", "/v1/model")[1]["sha256"]
    answers: list[int] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            answers.append(daemon.infer()[0])

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        daemon.until(lambda: len(answers) > 20)
        daemon.model.write_bytes(b"damaged")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: "model_refused" in daemon.log_text())
        status, refused = daemon.ask("POST", "/v1/model/reload")
        assert status == 409 and before[:12] in refused["error"]
        graph = onnx.load(daemon.data / "models" / f"{before}.onnx")
        graph.doc_string = "the same, and another file"
        onnx.save(graph, daemon.model)
        status, done = daemon.ask("POST", "/v1/model/reload")
        assert status == 200 and done["before"] == before != done["now"]
        answered = len(answers)
        daemon.until(lambda: len(answers) > answered + 20)
        enough.set()
    assert set(answers) == {200} and not any(each.exception() for each in asking)
    assert [copy.stem for copy in (daemon.data / "models").glob("*.onnx")] == [done["now"]]
    counted = 'lloss_requests_total{code="200",route="/v2/models/lloss/infer"}'
    daemon.until(lambda: daemon.metric(counted) == len(answers))
    assert done["now"].encode() in daemon.ask("GET", "/metrics")[1]


def test_every_route_survives_what_its_schema_allows(start: Start) -> None:
    """A few generated requests to each operation: every error is one line of JSON."""
    daemon = start(token=TOKEN).ready()
    schema = schemathesis.openapi.from_url(f"{daemon.url}/openapi.json", headers=BEARER)
    asked = 0
    for found in schema.get_all_operations():

        @given(case=found.ok().as_strategy())
        @settings(max_examples=4, deadline=None, database=None, suppress_health_check=HealthCheck)
        def check(case: Any) -> None:
            nonlocal asked
            asked += 1
            reply = case.call(headers=BEARER)
            assert reply.status_code not in (500, 501, 502), (case, reply.text)
            case.validate_response(reply, checks=DOCUMENTED)
            if reply.status_code >= 400:
                assert "\n" not in reply.json()["error"]

        check()
    assert asked > 60
    daemon.ask("GET", "/v1/model", **{"X-Request-Id": "the-last"})
    daemon.until(lambda: "the-last" in daemon.log_text())
    assert '"status": 500' not in daemon.log_text()
    daemon.until(lambda: daemon.metric('lloss_requests_total{code="200",route="/openapi.json"}'))
