"""Routes that Label Studio calls: its ML-backend protocol, and its webhook."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from lloss.serve.daemon.api.pool_schemas import IDS_MOST
from lloss.serve.daemon.deps import Daemon, daemon_of, reject_unknown_parameters
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.coco_export import coco_of
from lloss.serve.daemon.labelstudio.predictions import Question, answers
from lloss.serve.daemon.labelstudio.score_lookup import version_of
from lloss.serve.daemon.labelstudio.webhook import DELETED, WRITTEN, hear
from starlette.concurrency import run_in_threadpool

router = APIRouter(prefix="/labelstudio", tags=["Label Studio"])

_LOADING = 5.0
"""Seconds; a model is loaded in fewer."""


def _body(schema: dict[str, Any], required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}


_OBJECT: dict[str, Any] = {"type": "object"}
_OBJECTS: dict[str, Any] = {"type": "array", "items": _OBJECT}
_OURS = [Depends(reject_unknown_parameters)]
"""Of routes whose addresses people write; Label Studio makes up the others."""

_TASKS = {**_OBJECT, "required": ["tasks"], "properties": {"tasks": {"type": "array"}}}


@router.get("", include_in_schema=False)
@router.get("/", include_in_schema=False)
@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Whether predictions can be had; Label Studio waits for one second."""
    reason = await asyncio.to_thread(daemon_of(request).not_ready)
    if reason:
        raise RequestError(503, reason, _LOADING)
    return {"status": "UP", "model_class": "lloss"}


@router.post("/setup", openapi_extra=_body(_OBJECT, required=False))
async def setup(request: Request) -> dict[str, str]:
    """Which version predictions will be of; asked before each of them, for at most 3 seconds.

    The body holds a key of Label Studio's administrator; it is not looked at.
    """
    return {"model_version": _version(daemon_of(request))}


@router.get("/versions")
async def versions(request: Request) -> dict[str, list[str]]:
    """The versions that predictions can be of."""
    return {"versions": [_version(daemon_of(request))]}


@router.post("/predict", openapi_extra=_body(_TASKS))
async def predict(request: Request) -> JSONResponse:
    """A prediction for each task, see :mod:`.answers`; Label Studio waits for 100 seconds."""
    fields = await _fields(request)
    tasks = fields.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError(422, "tasks: a list of Label Studio's tasks is needed")
    if len(tasks) > IDS_MOST:
        raise RequestError(422, f"{len(tasks)} tasks: give at most {IDS_MOST} in a request")
    results = await answers(daemon_of(request), Question.of(fields))
    # As JSON in a thread as well: of many tasks it takes so long that all others would wait.
    return await run_in_threadpool(JSONResponse, {"results": results})


@router.post("/webhook", openapi_extra=_body(_OBJECT), dependencies=_OURS)
async def webhook(request: Request, control: str | None = None) -> JSONResponse:
    """Mark what was annotated; Label Studio waits for one second and never sends it again.

    ``control`` names the Choices control whose choice is the label, where there are several. The
    work is done in a thread to its end, whether somebody waits for the answer or not.
    """
    fields = await _fields(request)
    action = fields.get("action")
    if action == "START_TRAINING":
        raise _untrained()
    if not isinstance(action, str) or action not in WRITTEN | DELETED:
        return JSONResponse({"ignored": "this event says nothing of annotations"})
    outcome = await run_in_threadpool(hear, daemon_of(request), fields, control)
    return JSONResponse(asdict(outcome), 201)


@router.post("/coco", openapi_extra=_body(_OBJECTS), dependencies=_OURS)
async def coco(request: Request, pool: str | None = None) -> JSONResponse:
    """The boxes of Label Studio's JSON export as COCO's JSON that names images by their ids."""
    document = await _json(request)
    return await run_in_threadpool(lambda: JSONResponse(coco_of(document, pool)))


@router.post("/train", include_in_schema=False)
async def train() -> None:
    """What older ones call to train."""
    raise _untrained()


def _untrained() -> RequestError:
    return RequestError(
        409,
        "this daemon scores, it does not train: train with lloss train on the labels, export, "
        "and reload the model",
    )


def _version(daemon: Daemon) -> str:
    sha256 = daemon.models.sha256
    if not sha256:
        raise RequestError(503, daemon.not_ready() or "no model is loaded yet", _LOADING)
    return version_of(sha256)


async def _json(request: Request) -> Any:
    body = await request.body()
    try:
        return await run_in_threadpool(json.loads, body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "the body is no JSON") from error


async def _fields(request: Request) -> dict[str, Any]:
    fields = await _json(request)
    if not isinstance(fields, dict):
        raise RequestError(400, "the body must be a JSON object")
    return fields
