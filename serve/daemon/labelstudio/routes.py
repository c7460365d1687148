"""Routes that Label Studio calls: its ML-backend protocol, and its webhook."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.deps import daemon_of, reject_unknown_parameters
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.coco_export import coco_of
from lloss.serve.daemon.labelstudio.predictions import predictions
from lloss.serve.daemon.labelstudio.score_lookup import version_of
from lloss.serve.daemon.labelstudio.webhook import DELETED, WRITTEN, apply_event
from starlette.concurrency import run_in_threadpool

router = APIRouter(prefix="/labelstudio", tags=["Label Studio"])

_LOADING_SECONDS = 5.0
"""A model is loaded in fewer."""

_NO_TRAINING = (
    "this daemon scores, it does not train: train with lloss train on the labels, export, and "
    "reload the model"
)


def _body(schema: dict[str, Any], required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


_OBJECT: dict[str, Any] = {"type": "object"}
_TASKS = {**_OBJECT, "required": ["tasks"], "properties": {"tasks": {"type": "array"}}}
_CHECKED = [Depends(reject_unknown_parameters)]
"""For routes whose addresses people write; Label Studio makes the others."""


@router.get("", include_in_schema=False)
@router.get("/", include_in_schema=False)
@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Whether predictions can be had; Label Studio waits for one second."""
    reason = await asyncio.to_thread(daemon_of(request).not_ready)
    if reason:
        raise RequestError(503, reason, _LOADING_SECONDS)
    return {"status": "UP", "model_class": "lloss"}


@router.post("/setup", openapi_extra=_body(_OBJECT, required=False))
async def setup(request: Request) -> dict[str, str]:
    """The version of predictions; Label Studio asks before each, and waits for 3 seconds.

    The body holds a key of Label Studio's administrator; the daemon does not read it.
    """
    return {"model_version": _version(daemon_of(request))}


@router.get("/versions")
async def versions(request: Request) -> dict[str, list[str]]:
    """The versions that predictions can have."""
    return {"versions": [_version(daemon_of(request))]}


@router.post("/predict", openapi_extra=_body(_TASKS))
async def predict(request: Request) -> JSONResponse:
    """A prediction for each task; Label Studio waits for 100 seconds."""
    fields = await _object(request)
    tasks = fields.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError(422, "tasks: a list of Label Studio's tasks is needed")
    daemon = daemon_of(request)
    # Encoded in the thread as well: many tasks would block the event loop.
    return await run_in_threadpool(lambda: JSONResponse({"results": predictions(daemon, fields)}))


@router.post("/webhook", openapi_extra=_body(_OBJECT), dependencies=_CHECKED)
async def webhook(request: Request, control: str | None = None) -> JSONResponse:
    """Mark annotated images; Label Studio waits for one second and never sends an event again.

    ``control`` names the Choices control that gives the label, when there are several. A thread
    finishes the work even when the client has left.
    """
    fields = await _object(request)
    action = fields.get("action")
    if action == "START_TRAINING":
        raise RequestError(409, _NO_TRAINING)
    if not isinstance(action, str) or action not in WRITTEN | DELETED:
        return JSONResponse({"ignored": "this event is not about annotations"})
    outcome = await run_in_threadpool(apply_event, daemon_of(request), fields, control)
    return JSONResponse(asdict(outcome), 201)


@router.post(
    "/coco", openapi_extra=_body({"type": "array", "items": _OBJECT}), dependencies=_CHECKED
)
async def coco(request: Request, pool: str | None = None) -> JSONResponse:
    """The boxes of Label Studio's JSON export as COCO's JSON that names images by their ids."""
    document = await _json(request)
    return await run_in_threadpool(lambda: JSONResponse(coco_of(document, pool)))


def _version(daemon: Daemon) -> str:
    sha256 = daemon.models.sha256
    if not sha256:
        reason = daemon.not_ready() or "no model is loaded yet"
        raise RequestError(503, reason, _LOADING_SECONDS)
    return version_of(sha256)


async def _json(request: Request) -> Any:
    body = await request.body()
    try:
        return await run_in_threadpool(json.loads, body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "the body is not JSON") from error


async def _object(request: Request) -> dict[str, Any]:
    fields = await _json(request)
    if not isinstance(fields, dict):
        raise RequestError(400, "the body must be a JSON object")
    return fields
