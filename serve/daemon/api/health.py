"""Probes for an orchestrator, and metrics for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from lloss.serve.daemon.dependencies import DaemonDep

router = APIRouter()

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_RETRY = {"Retry-After": "5"}


@router.get("/healthz", tags=["health"])
async def healthz() -> dict[str, str]:
    """200 as soon as the server listens; needs no token."""
    return {"status": "alive"}


@router.get("/v2/health/live", tags=["inference"])
async def live() -> dict[str, bool]:
    """The same as /healthz."""
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
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(daemon: DaemonDep) -> Response:
    """Metrics in Prometheus' text format."""
    body = await asyncio.to_thread(daemon.metrics.exposition)
    return Response(body, headers={"Content-Type": _METRICS_TYPE})
