"""Bodies of Label Studio: recorded from label-studio 1.23.2 (``recorded/``), and made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text(encoding="utf-8"))


def event(number: int, id: str = "0.png", pool: str = "wild", **fields: Any) -> dict[str, Any]:
    choice = {"type": "choices", "value": {"choices": [fields.pop("choice", "cat")]}}
    annotation = {"id": number, "result": [choice], "was_cancelled": False, "updated_at": None}
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": annotation | fields,
        "task": {"id": 1, "data": {"lloss_pool": pool, "lloss_id": id}},
    }


def bulk(*events: dict[str, Any]) -> dict[str, Any]:
    """Several events as the one that Label Studio makes of a bulk action."""
    return {
        "action": "ANNOTATIONS_CREATED",
        "annotation": [one["annotation"] for one in events],
        "task": [one["task"] for one in events],
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
