"""``/v1/model``: the served model, and its reload."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.dependencies import DaemonDep
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability import logs

from lloss.errors import LlossError

router = APIRouter(prefix="/v1/model", tags=["model"])


@router.get("")
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


@router.post("/reload")
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
        before, now = daemon.models.reload()
    except LlossError as error:
        daemon.jobs.prune()
        logs.event("model_refused", logging.ERROR, reason=str(error), now=before)
        raise RequestError(409, f"{error}; {before[:12]} goes on serving") from error
    daemon.jobs.prune()
    changed, note = before != now, daemon.models.current.note
    name = "model_reloaded" if changed else "model_unchanged"
    level = logging.WARNING if note else logging.INFO
    logs.event(name, level, before=before, now=now, note=note)
    return {"before": before, "now": now, "changed": changed}
