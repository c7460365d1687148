"""Bodies of Label Studio: recorded from label-studio 1.23.2 (``recorded/``), and made here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

RECORDED = Path(__file__).parent / "recorded"
CONFIG = (
    '<View><Image name="img" value="$image"/><Choices name="kind" toName="img">'
    '<Choice value="cat"/><Choice value="hund" alias="dog"/></Choices></View>'
)


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text(encoding="utf-8"))


def task(id: str | None = None, pool: str = "wild", **fields: Any) -> dict[str, Any]:
    data = {"image": "http://127.0.0.1/x"} | ({"lloss_pool": pool, "lloss_id": id} if id else {})
    return {"id": 1, "data": data, "predictions": [], **fields}


def ask(client: TestClient, *tasks: Any, config: Any = CONFIG, **fields: Any) -> list[Any]:
    body = {"tasks": list(tasks), "label_config": config, "params": {"context": None}} | fields
    reply = client.post("/labelstudio/predict", json=body)
    assert reply.status_code == 200, reply.text
    results: list[Any] = reply.json()["results"]
    assert len(results) == len(tasks)
    return results


def send(client: TestClient, event: Mapping[str, Any], code: int = 201) -> Any:
    reply = client.post("/labelstudio/webhook", content=json.dumps(event))
    assert reply.status_code == code, reply.text
    return reply.json()


def event(number: int, id: str = "0.png", **fields: Any) -> dict[str, Any]:
    choice = {"type": "choices", "value": {"choices": [fields.pop("choice", "cat")]}}
    annotation = {"id": number, "result": [choice], "was_cancelled": False, "updated_at": None}
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": annotation | fields,
        "task": task(id),
        "project": {"id": 1, "created_at": "2026-01-01T00:00:00Z"},
    }


def deleted(*numbers: Any, project: int = 1) -> dict[str, Any]:
    return {
        "action": "ANNOTATIONS_DELETED",
        "annotations": [{"id": number} for number in numbers],
        "project": {"id": project, "created_at": "2026-01-01T00:00:00Z"},
    }


def exported(id: str, *annotations: tuple[str, str | None, bool]) -> dict[str, Any]:
    made = [
        {
            "id": number,
            "result": [{"type": "choices", "value": {"choices": [choice]}}],
            "updated_at": changed,
            "was_cancelled": cancelled,
        }
        for number, (choice, changed, cancelled) in enumerate(annotations)
    ]
    return {"id": 1, "data": {"lloss_pool": "p", "lloss_id": id}, "annotations": made}


def bulk(*events: dict[str, Any]) -> dict[str, Any]:
    """Several events of ``event`` as the one that Label Studio makes of a bulk action."""
    return {
        **events[0],
        "action": "ANNOTATIONS_CREATED",
        "annotation": [one["annotation"] for one in events],
        "task": [one["task"] for one in events],
    }
