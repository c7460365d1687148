"""``lloss serve`` as a process, with a real model."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ...waiting import PATIENCE
from .processes import Process

DOCUMENTED = [content_type_conformance, response_headers_conformance, response_schema_conformance,
              status_code_conformance]  # fmt: skip
TOKEN = "0123456789abcdef0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

Start = Callable[..., Process]


@pytest.fixture(scope="module")
def shared(
    artifact: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """A daemon that several tests use."""
    folder = tmp_path_factory.mktemp("shared")
    with contextlib.closing(
        Process(folder, f"--pool-root={photos}", model=artifact, token=TOKEN)
    ) as daemon:
        yield daemon.ready()


class Load:
    """Clients that send one image after the other until ``end``."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.answers: list[Any] = []
        self._port, self._stop = port, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        picture = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(picture, "PNG")
        with httpx.Client(headers=BEARER, timeout=PATIENCE) as client:
            while not self._stop.is_set():
                url = f"http://127.0.0.1:{self._port}/v1/score"
                try:
                    reply = client.post(url, files={"images": ("a.png", picture.getvalue())})
                    self.answers.append((reply.status_code, reply.headers["x-lloss-model"]))
                except Exception as error:
                    self.answers.append((repr(error), None))
                    return

    def after(self, sha256: str) -> bool:
        """Whether some requests were answered by a model."""
        return sum(model == sha256 for _, model in self.answers) > 20

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


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


def test_plain_routes_are_counted_by_name(shared: Process) -> None:
    daemon = shared
    assert daemon.ask("POST", "/v2/models/lloss/infer", {"inputs": []})[0] == 400
    assert daemon.ask("GET", "/v2/models/lloss/infer")[0] == 405
    assert daemon.ask("GET", "/openapi.json")[0] == 200
    for code, route in [(400, "/v2/models/lloss/infer"), (405, "/v2/models/lloss/infer"),
                        (200, "/openapi.json")]:  # fmt: skip
        series = f'lloss_requests_total{{code="{code}",route="{route}"}}'
        daemon.until(lambda series=series: daemon.metric(series) >= 1)
    assert b"unmatched" not in daemon.ask("GET", "/metrics")[1]


def test_models_are_replaced_under_load_without_a_failed_request(start: Start) -> None:
    daemon = start(token=TOKEN).ready()
    before = daemon.ask("GET", "/v1/model")[1]["sha256"]
    load = Load(daemon.port)
    daemon.until(lambda: load.after(before))
    daemon.model.write_bytes(b"damaged")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: "model_refused" in daemon.log_text())
    status, refused = daemon.ask("POST", "/v1/model/reload")
    assert status == 409 and before[:12] in refused["error"]
    shutil.copy(daemon.data / "models" / f"{before}.onnx", daemon.model)
    graph = onnx.load(daemon.model)
    graph.doc_string = "the same, and another file"
    onnx.save(graph, daemon.model)
    status, done = daemon.ask("POST", "/v1/model/reload")
    assert status == 200 and done["before"] == before != done["now"]
    assert [copy.stem for copy in (daemon.data / "models").glob("*.onnx")] == [done["now"]]
    daemon.until(lambda: load.after(done["now"]))
    load.end()
    assert {status for status, _ in load.answers} == {200}
    assert {sha256 for _, sha256 in load.answers} == {before, done["now"]}
    scored = 'lloss_requests_total{code="200",route="/v1/score"}'
    daemon.until(lambda: daemon.metric(scored) == len(load.answers))
    assert done["now"].encode() in daemon.ask("GET", "/metrics")[1]


def test_every_route_survives_what_its_schema_allows(shared: Process) -> None:
    """A few generated requests to each operation: every error is one line of JSON."""
    daemon = shared
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
