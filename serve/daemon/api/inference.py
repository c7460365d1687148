"""The Open Inference Protocol (KServe V2 over REST), with Triton's binary tensors.

The server has one model, of one name and one version. Its input is ``images``, UINT8 [N, H, W, 3]
of any H and W, or ``encoded``, BYTES [N], image files (base64 in JSON); both are resized as in
training. Its outputs are the model's, FP32, and ``error``, BYTES [N], "" for each good image.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from lloss.serve.daemon.api.inference_tensors import (
    ENCODED,
    ERROR,
    PIXELS,
    encode_reply,
    is_long,
    parse_request,
)
from lloss.serve.daemon.dependencies import DaemonDep, daemon_of
from lloss.serve.daemon.errors import RequestError

import lloss
from lloss.manifest import Manifest

router = APIRouter(tags=["Open Inference Protocol"])

MODEL, VERSION = "lloss", "1"
"""The model's name and version, whichever file is loaded: its sha256 identifies that."""

_MODEL = f"/v2/models/{MODEL}"
_VERSION = f"{_MODEL}/versions/{VERSION}"

_LONG = 256 << 10
"""Bytes from which a thread parses a body."""


@router.get("/v2")
def server() -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "lloss", "version": lloss.__version__, "extensions": ["binary_tensor_data"]}


@router.get(_MODEL)
@router.get(_VERSION)
def metadata(daemon: DaemonDep) -> dict[str, Any]:
    """The model's inputs and outputs; -1 is an axis of any length."""
    outputs = daemon.models.current.manifest.outputs.items()
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            {"name": ENCODED, "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            *({"name": name, "datatype": "FP32", "shape": [-1, *shape]} for name, shape in outputs),
            {"name": ERROR, "datatype": "BYTES", "shape": [-1]},
        ],
    }


@router.get(f"{_MODEL}/ready", response_class=Response)
@router.get(f"{_VERSION}/ready", response_class=Response)
async def ready(daemon: DaemonDep) -> Response:
    """Whether the model can score.

    Raises:
        RequestError: 503 it cannot.
    """
    reason = await asyncio.to_thread(daemon.not_ready)  # FastAPI's threads may be busy
    if reason:
        raise RequestError(503, reason, 1.0)
    return Response(status_code=200)


_TENSORS = {
    "application/json": {"schema": {"type": "object"}},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
_INFER: dict[str, Any] = {
    "responses": {200: {"content": _TENSORS}},
    "openapi_extra": {"requestBody": {"required": True, "content": _TENSORS}},
}


@router.post(f"{_MODEL}/infer", **_INFER)
@router.post(f"{_VERSION}/infer", **_INFER)
async def infer(request: Request) -> Response:
    """Score images; see the protocol for JSON and binary tensors.

    Binary tensors follow the JSON, whose length the header Inference-Header-Content-Length has. A
    bad image has NaN (``null`` in JSON) in its row and the reason in ``error``.

    Raises:
        RequestError: 400 malformed; 413 too long; 422 every image is bad; 429, 503 and 504 from
            scoring.
    """
    daemon = daemon_of(request)
    limits, body = daemon.settings.limits, await request.body()
    given = body, request.headers.get("inference-header-content-length"), limits.queue_images
    long = len(body) >= _LONG
    parsed = await run_in_threadpool(parse_request, *given) if long else parse_request(*given)
    parsed.formats(_outputs(daemon.models.current.manifest))  # refuses before scoring
    request.state.images = count = len(parsed.images)
    most = limits.request_seconds
    scored = await daemon.models.score(parsed.images, min(parsed.seconds or most, most))
    answer = scored.answer
    if len(answer.errors) == count:
        raise RequestError(422, f"no image could be used; the first: {answer.errors[0]}")
    formats = parsed.formats(_outputs(scored.model.manifest))  # maybe of a newer model
    wanted = parsed, formats, answer, MODEL, VERSION
    long = is_long(formats, answer)
    content, json_length = (
        await run_in_threadpool(encode_reply, *wanted) if long else encode_reply(*wanted)
    )
    headers, media_type = {"x-lloss-model": scored.model.sha256}, "application/json"
    if json_length < len(content):
        media_type = "application/octet-stream"
        headers["inference-header-content-length"] = str(json_length)
    return Response(content, 200, headers, media_type)


def _outputs(manifest: Manifest) -> list[str]:
    return [*manifest.outputs, ERROR]
