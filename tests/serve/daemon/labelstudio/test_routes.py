from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi.responses import JSONResponse
from lloss.serve.daemon.labelstudio import routes
from lloss.serve.daemon.labelstudio.coco_export import coco_of
from starlette.testclient import TestClient

from .daemons import Daemon
from .messages import CONFIG, ask, recorded, task


def test_health_setup_and_versions(client: TestClient, daemon: Daemon) -> None:
    for path in ("", "/", "/health"):
        assert client.get(f"/labelstudio{path}").json()["status"] == "UP"
    body = {"project": "1.2", "schema": CONFIG, "access_token": "secret", "extra_params": None}
    assert client.post("/labelstudio/setup", json=body).json() == {"model_version": "ab" * 6}
    assert client.get("/labelstudio/versions").json() == {"versions": ["ab" * 6]}
    daemon.problem, daemon.models.sha256 = "the model is loading", ""
    for method, path in (("GET", "health"), ("POST", "setup"), ("GET", "versions")):
        reply = client.request(method, f"/labelstudio/{path}", json={})
        assert reply.status_code == 503 and reply.json() == {"error": "the model is loading"}


def test_training_is_refused_with_the_remedy(client: TestClient) -> None:
    body = {"action": "START_TRAINING", "project": {}}
    reply = client.post("/labelstudio/webhook", json=body)
    assert reply.status_code == 409 and "lloss train" in reply.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_not_an_object_is_refused(client: TestClient, body: bytes) -> None:
    for path in ("predict", "webhook"):
        reply = client.post(f"/labelstudio/{path}", content=body)
        assert reply.status_code == 400 and "\n" not in reply.json()["error"]


def test_tasks_are_a_list(client: TestClient) -> None:
    for tasks in (None, {}, "x", 3):
        reply = client.post("/labelstudio/predict", json={"tasks": tasks})
        assert reply.status_code == 422 and "tasks" in reply.json()["error"]


def test_long_replies_are_encoded_in_a_thread(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_threads = 0

    class Counted(JSONResponse):
        def render(self, content: Any) -> bytes:
            nonlocal in_threads
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            in_threads += 1
            return super().render(content)

    monkeypatch.setattr(routes, "JSONResponse", Counted)
    ask(client, task("0.png"))
    client.post("/labelstudio/coco?pool=wild", json=recorded("export.json"))
    assert in_threads == 2


def test_an_export_is_converted_to_coco(client: TestClient) -> None:
    document = recorded("export.json")
    reply = client.post("/labelstudio/coco?pool=wild", json=document)
    assert reply.json() == coco_of(document, "wild")
    for wrong, pool in ((document, "zoo"), ({}, "wild"), ([3], "wild")):
        reply = client.post(f"/labelstudio/coco?pool={pool}", json=wrong)
        assert reply.status_code == 422 and "\n" not in reply.json()["error"]
