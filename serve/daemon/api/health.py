"""Health, metrics, and the model that is served."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.deps import DaemonDep
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability import logs

from lloss.errors import LlossError

router = APIRouter()

_RETRY = {"Retry-After": "5"}


@router.get("/healthz", tags=["health"])
async def healthz() -> dict[str, str]:
    """200 as soon as the server listens; needs no token."""
    return {"status": "alive"}


@router.get("/v2/health/live", tags=["inference"])
async def live() -> dict[str, bool]:
    """As /healthz."""
    return {"live": True}


@router.get("/v2/health/ready", tags=["inference"])
@router.get("/readyz", tags=["health"])
async def readyz(request: Request, daemon: DaemonDep) -> Response:
    """Whether requests should be sent here, 200 or 503; the reason only with the token."""
    reason = await asyncio.to_thread(daemon.not_ready)  # FastAPI's threads may be busy
    if not reason:
        return JSONResponse({"ready": True})
    shown = reason if request.scope.get("state", {}).get("admitted", True) else "not ready"
    return JSONResponse({"ready": False, "error": shown}, 503, _RETRY)


@router.get(
    "/metrics",
    tags=["health"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
)
async def metrics(daemon: DaemonDep, accept: Annotated[str, Header()] = "") -> Response:
    """Metrics in Prometheus' text format, or OpenMetrics when ``Accept`` names it."""
    body, kind = await asyncio.to_thread(daemon.metrics.exposition, accept)
    return Response(body, headers={"Content-Type": kind})


@router.get("/v1/model", tags=["model"])
def model(daemon: DaemonDep) -> dict[str, Any]:
    """The model: its sha256, its provider (``note``: why not a faster one), and its manifest."""
    current = daemon.models.current
    return {
        "sha256": current.sha256,
        "provider": current.provider,
        "note": current.note,
        "path": str(daemon.settings.model),
        "manifest": json.loads(current.manifest.to_json()),
    }


@router.post("/v1/model/reload", tags=["model"])
async def reload(request: Request, daemon: DaemonDep) -> dict[str, Any]:
    """Load the model's file again; 409 when it fails its check, and the old model stays."""
    state = request.app.state
    if not hasattr(state, "reloading"):
        state.reloading = anyio.CapacityLimiter(1)
    # Reloads that wait for each other must not hold the threads that other routes need.
    return await anyio.to_thread.run_sync(reload_model, daemon, limiter=state.reloading)


def reload_model(daemon: Daemon) -> dict[str, Any]:
    """Reload the model and log the result. Blocks.

    Raises:
        RequestError: 409 the new model was refused; 503 none is loaded yet.
    """
    before = daemon.models.sha256
    if not before:
        raise RequestError(503, "the first model is still being loaded; try again", 5)
    try:
        done = daemon.models.reload()
    except LlossError as error:
        daemon.jobs.prune()
        logs.event("model_refused", logging.ERROR, reason=str(error), now=before)
        raise RequestError(409, f"{error}; {before[:12]} goes on serving") from error
    daemon.jobs.prune()
    changed, note = done.before != done.now, daemon.models.current.note
    name = "model_reloaded" if changed else "model_unchanged"
    level = logging.WARNING if note else logging.INFO
    logs.event(name, level, before=done.before, now=done.now, note=note)
    return {"before": done.before, "now": done.now, "changed": changed}
