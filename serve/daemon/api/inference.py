"""The Open Inference Protocol (KServe V2 over REST), with Triton's extensions for its clients.

The server has one model, of one name and one version. Its input is ``images``, UINT8 [N, H, W, 3]
of any H and W, or ``encoded``, BYTES [N], image files (base64 in JSON); both are resized as in
training. Its outputs are the model's, FP32, and ``error``, BYTES [N], "" for each good image.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from lloss.serve.daemon.api.inference_schemas import (
    ENCODED,
    ERROR,
    PIXELS,
    InferBody,
    InferReply,
    body_schema,
)
from lloss.serve.daemon.api.inference_tensors import (
    InferRequest,
    OutputFormat,
    encode_reply,
    is_long,
    parse_request,
)
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.deps import DaemonDep, daemon_of
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.model_manager import Scored

import lloss
from lloss.manifest import Manifest

router = APIRouter(tags=["Open Inference Protocol"])

MODEL, VERSION = "lloss", "1"
"""The model's name and version, whichever file is loaded: its sha256 identifies that."""

SERVED = {"model": MODEL, "version": VERSION}
"""The only values of the parameters in the routes' paths."""

_EXTENSIONS = ("binary_tensor_data", "model_configuration")
"""Triton's extensions that are complete here; of ``model_repository`` there is only the index."""

_COMPRESSED = 1024
"""Bytes from which a reply is compressed."""

_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*$")
"""The weight of a coding that the client does not accept."""

_LONG = 256 << 10
"""Bytes from which a thread parses a body."""


async def _check_model(model: Annotated[str, Path(json_schema_extra={"enum": [MODEL]})]) -> None:
    if model != MODEL:
        raise RequestError(404, f"no model {model[:60]!r} here: it is {MODEL!r}")


async def _check_version(
    version: Annotated[str, Path(json_schema_extra={"enum": [VERSION]})],
) -> None:
    if version != VERSION:
        raise RequestError(404, f"no version {version[:60]!r} of {MODEL!r}: it is {VERSION!r}")


def _model_route(method: str, path: str, **options: Any) -> Callable[[Any], Any]:
    """Add a route of the model, with the version in its path and without."""
    paths = {
        "/v2/models/{model}": [Depends(_check_model)],
        "/v2/models/{model}/versions/{version}": [Depends(_check_model), Depends(_check_version)],
    }

    def add(function: Any) -> Any:
        for prefix, checks in paths.items():
            router.add_api_route(
                prefix + path, function, methods=[method], dependencies=checks, **options
            )
        return function

    return add


@router.get("/v2")
def server() -> dict[str, Any]:
    """The server's name, version and extensions."""
    return {"name": "lloss", "version": lloss.__version__, "extensions": list(_EXTENSIONS)}


@_model_route("GET", "")
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


@_model_route("GET", "/ready", response_class=Response)
async def ready(daemon: DaemonDep) -> Response:
    """Whether the model can score.

    Raises:
        RequestError: 503 it cannot.
    """
    reason = await asyncio.to_thread(daemon.not_ready)  # FastAPI's threads may be busy
    if reason:
        raise RequestError(503, reason, 1.0)
    return Response(status_code=200)


@_model_route("GET", "/config")
def config(daemon: DaemonDep) -> dict[str, Any]:
    """The model's configuration in Triton's terms; the first axis of each tensor counts images."""
    described = metadata(daemon)
    types = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}

    def tensors(kind: str, **options: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": tensor["name"],
                "data_type": types[tensor["datatype"]],
                "dims": tensor["shape"],
                **options,
            }
            for tensor in described[kind]
        ]

    return {
        "name": MODEL,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": tensors("inputs", optional=True),
        "output": tensors("outputs"),
    }


@router.post("/v2/repository/index")
def index(daemon: DaemonDep) -> list[dict[str, str]]:
    """The model, and whether it can score."""
    reason = daemon.not_ready()
    state = "UNAVAILABLE" if reason else "READY"
    return [{"name": MODEL, "version": VERSION, "state": state, "reason": reason}]


_BODY = {
    "required": True,
    "description": "JSON, then binary tensors when Inference-Header-Content-Length has the length "
    "of the JSON.",
    "content": {"application/json": {"schema": body_schema(InferBody)}},
}
_REPLIES = {
    200: {
        "model": InferReply,
        "description": "The outputs, as JSON or as binary tensors after it.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@_model_route(
    "POST", "/infer", response_model=None, responses=_REPLIES, openapi_extra={"requestBody": _BODY}
)
async def infer(request: Request) -> Response:
    """Score images; see the protocol for JSON and binary tensors.

    A bad image has NaN (``null`` in JSON) in its row and the reason in ``error``.

    Raises:
        RequestError: 400 malformed; 413 too long; 422 every image is bad; 429, 503 and 504 from
            scoring.
    """
    daemon = daemon_of(request)
    parsed = await _parse(request, daemon)
    parsed.formats(_outputs(daemon.models.current.manifest))  # refuses before scoring
    count, limit = len(parsed.images), daemon.settings.limits.request_seconds
    request.state.images = count
    scored = await daemon.models.score(parsed.images, min(parsed.seconds or limit, limit))
    errors = scored.answer.errors
    if len(errors) == count:
        raise RequestError(422, f"no image could be used; the first: {errors[0]}")
    formats = parsed.formats(_outputs(scored.model.manifest))  # maybe of a newer model
    reply = partial(_reply, parsed, formats, scored, request.headers.get("accept-encoding", ""))
    return await run_in_threadpool(reply) if is_long(formats, scored.answer) else reply()


def _outputs(manifest: Manifest) -> list[str]:
    return [*manifest.outputs, ERROR]


async def _parse(request: Request, daemon: Daemon) -> InferRequest:
    body = await request.body()
    length = request.headers.get("inference-header-content-length")
    most = daemon.settings.limits.queue_images
    if len(body) < _LONG:
        return parse_request(body, length, most)
    return await run_in_threadpool(parse_request, body, length, most)


def _reply(
    parsed: InferRequest, formats: Sequence[OutputFormat], scored: Scored, accepted: str
) -> Response:
    """Encode the reply, and compress it when the client accepts that."""
    content, json_length = encode_reply(parsed, formats, scored.answer, MODEL, VERSION)
    headers, media_type = {"x-lloss-model": scored.model.sha256}, "application/json"
    binary = json_length < len(content)
    if binary:
        media_type = "application/octet-stream"
        headers["inference-header-content-length"] = str(json_length)
    coding = _coding(accepted, binary)
    if coding and len(content) >= _COMPRESSED:
        headers |= {"content-encoding": coding, "vary": "accept-encoding"}
        content = gzip.compress(content, 1) if coding == "gzip" else zlib.compress(content, 1)
    return Response(content, 200, headers, media_type)


def _coding(accepted: str, binary: bool) -> str:
    """gzip or deflate when the client accepts it; "" for none.

    Floats hardly shrink, and most HTTP libraries accept every coding: binary tensors are
    compressed only when the client accepts a single one, as Triton's client does on request.
    """
    entries = [entry for entry in accepted.split(",") if not _REFUSED.search(entry)]
    codings = [entry.partition(";")[0].strip().lower() for entry in entries]
    if binary and len(codings) != 1:
        return ""
    return next((name for name in ("gzip", "deflate") if name in codings), "")
