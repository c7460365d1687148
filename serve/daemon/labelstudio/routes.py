"""Routes for Label Studio: its webhook, and its export as COCO."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from lloss.serve.daemon.dependencies import daemon_of, reject_unknown_parameters
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.coco_export import coco_of
from lloss.serve.daemon.labelstudio.webhook import DELETED, WRITTEN, apply_event
from starlette.concurrency import run_in_threadpool

router = APIRouter(
    prefix="/labelstudio",
    tags=["Label Studio"],
    dependencies=[Depends(reject_unknown_parameters)],
)


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_OBJECT: dict[str, Any] = {"type": "object"}


@router.get("/health", include_in_schema=False)
async def health() -> None:
    """Label Studio asks for it when a user connects the daemon as a model."""
    raise RequestError(
        404, "this is not an ML backend: import tasks of select?format=label-studio, which carry "
        "predictions"
    )  # fmt: skip


@router.post("/webhook", openapi_extra=_body(_OBJECT))
async def webhook(request: Request, control: str | None = None) -> JSONResponse:
    """Mark annotated images; Label Studio waits for one second and never sends an event again.

    ``control`` names the Choices control that gives the label, when there are several. A thread
    finishes the work even when the client has left.
    """
    event = await _json(request)
    if not isinstance(event, dict):
        raise RequestError(422, "the body must be a JSON object")
    action = event.get("action")
    if not isinstance(action, str) or action not in WRITTEN | DELETED:
        return JSONResponse({"ignored": "this event is not about annotations"})
    outcome = await run_in_threadpool(apply_event, daemon_of(request), event, control)
    return JSONResponse(asdict(outcome), 201)


@router.post("/coco", openapi_extra=_body({"type": "array", "items": _OBJECT}))
async def coco(request: Request, pool: str | None = None) -> JSONResponse:
    """The boxes of Label Studio's JSON export as COCO's JSON that names images by their ids."""
    document = await _json(request)
    return await run_in_threadpool(lambda: JSONResponse(coco_of(document, pool)))


async def _json(request: Request) -> Any:
    body = await request.body()
    try:
        return await run_in_threadpool(json.loads, body)
    except (ValueError, RecursionError) as error:
        raise RequestError(422, "the body is not JSON") from error
