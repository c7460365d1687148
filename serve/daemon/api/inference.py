"""The Open Inference Protocol (KServe V2 over REST), with Triton's extensions for its clients.

One model is served, under one name and one version. Its input is ``images``, UINT8 [N, H, W, 3]
of any H and W, or ``encoded``, BYTES [N], image files (base64 in JSON); both are resized as in
training. Its outputs are the artifact's, FP32, and ``error``, BYTES [N], "" for each good image.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from lloss.serve.daemon.api.inference_schemas import INFER, INFERRED, path_parameters, refusals
from lloss.serve.daemon.api.inference_tensors import (
    ENCODED,
    ERROR,
    PIXELS,
    InferRequest,
    is_long,
    parse_request,
    reply,
)
from lloss.serve.daemon.deps import Daemon, daemon_of
from lloss.serve.daemon.errors import RequestError

import lloss
from lloss.manifest import Manifest

router = APIRouter(tags=["Open Inference Protocol"])

MODEL, VERSION = "lloss", "1"
"""What the model is called, whatever file it was loaded of: its sha256 tells which that is."""

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
"""Of Triton's, those that are here as a whole: of ``model_repository`` there is the index alone,
since nobody loads or unloads a model by this protocol."""

_WORTHWHILE = 1024
"""Bytes from which a reply is compressed."""

_LONG = 256 << 10
"""Bytes from which a body is read, or a reply compressed, beside the event loop."""

_REFUSALS, _NOTHING = refusals(404, 503), dict[str, Any]()
_EMPTY: dict[int | str, dict[str, Any]] = {200: {"description": "It can; no body."}, **_REFUSALS}

_Route = TypeVar("_Route", bound=Callable[..., Any])


def _each(
    method: str,
    path: str,
    responses: Mapping[int | str, dict[str, Any]] = _REFUSALS,
    extra: Mapping[str, Any] = _NOTHING,
    **more: Any,
) -> Callable[[_Route], _Route]:
    """A route of the model, with the version in its path and without."""

    def add(function: _Route) -> _Route:
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            router.add_api_route(
                prefix + path,
                function,
                response_model=None,
                responses=dict(responses),
                openapi_extra={**path_parameters(prefix, model=MODEL, version=VERSION), **extra},
                methods=[method],
                **more,
            )
        return function

    return add


def _check(request: Request) -> Daemon:
    """The daemon, if it has the model and version that the path names.

    Raises:
        RequestError: 404.
    """
    model, version = request.path_params["model"], request.path_params.get("version", VERSION)
    if model != MODEL:
        raise RequestError(404, f"no model {model[:60]!r} here: it is {MODEL!r}")
    if version != VERSION:
        raise RequestError(404, f"no version {version[:60]!r} of {MODEL!r}: it is {VERSION!r}")
    return daemon_of(request)


@router.get("/v2")
def server(request: Request) -> dict[str, Any]:
    """What this server is."""
    return {"name": "lloss", "version": lloss.__version__, "extensions": list(_EXTENSIONS)}


@router.get("/v2/models/stats")  # before the model of that name
@_each("GET", "/stats")
def statistics(request: Request) -> dict[str, Any]:
    """How many requests were answered since the server started."""
    models = (_check(request) if "model" in request.path_params else daemon_of(request)).models
    counted = models.statistics
    return {
        "model_stats": [
            {
                "name": MODEL,
                "version": VERSION,
                "last_inference": counted.last,
                "inference_count": counted.images,
                "execution_count": models.batches,
                "inference_stats": counted.durations(),
                "batch_stats": [],
            }
        ]
    }


@_each("GET", "")
def metadata(request: Request) -> dict[str, Any]:
    """The model's inputs and outputs; -1 is an axis of any length."""
    manifest = _check(request).models.manifest
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            {"name": ENCODED, "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            *(
                {"name": name, "datatype": "FP32", "shape": [-1, *shape]}
                for name, shape in manifest.outputs.items()
            ),
            {"name": ERROR, "datatype": "BYTES", "shape": [-1]},
        ],
    }


@_each("GET", "/ready", _EMPTY, response_class=Response)
async def ready(request: Request) -> Response:
    """200 when the model can be asked.

    Raises:
        RequestError: 503 it cannot.
    """
    daemon = _check(request)
    reason = await asyncio.to_thread(daemon.not_ready)  # as health does: other threads may be busy
    if reason:
        raise RequestError(503, reason, 1.0)
    return Response(status_code=200)


@_each("GET", "/config")
def config(request: Request) -> dict[str, Any]:
    """The model's configuration in Triton's terms; the first axis of each tensor counts images."""
    described = metadata(request)

    def tensors(kind: str, **more: Any) -> list[dict[str, Any]]:
        types = {"BYTES": "TYPE_STRING"}
        return [
            {
                "name": tensor["name"],
                "data_type": types.get(tensor["datatype"], f"TYPE_{tensor['datatype']}"),
                "dims": tensor["shape"],
                **more,
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
def index(request: Request) -> list[dict[str, str]]:
    """The one model, and whether it can be asked."""
    reason = daemon_of(request).not_ready()
    state = "UNAVAILABLE" if reason else "READY"
    return [{"name": MODEL, "version": VERSION, "state": state, "reason": reason}]


@_each("POST", "/infer", INFERRED, INFER)
async def infer(request: Request) -> Response:
    """Score images; see the protocol for JSON and binary tensors.

    A bad image has NaN (``null`` in JSON) in its row and the reason in ``error``.

    Raises:
        RequestError: 400 not a request of the protocol; 413; 422 every image is bad; 429, 503,
            504 as of scoring.
    """
    daemon = _check(request)
    asked = await _asked(request, daemon)
    count, most = len(asked.images), daemon.settings.limits.request_seconds
    request.state.images = count
    with daemon.models.statistics.request(count):
        scored = await daemon.models.score(asked.images, min(asked.seconds or most, most))
        errors = scored.answer.errors
        if len(errors) == count:
            raise RequestError(422, f"no image could be used; the first: {errors[0]}")
        wanted = asked.wanted(_outputs(scored.manifest))  # perhaps of a newer model than was asked
    given = asked, wanted, scored.answer, MODEL, VERSION
    if is_long(wanted, scored.answer):
        content, head = await run_in_threadpool(reply, *given)
    else:
        content, head = reply(*given)
    return await _response(request, scored.sha256, content, head)


SERVED = {"model": MODEL, "version": VERSION}
"""What the routes' paths name."""


def _outputs(manifest: Manifest) -> list[str]:
    return [*manifest.outputs, ERROR]


async def _asked(request: Request, daemon: Daemon) -> InferRequest:
    outputs, most = _outputs(daemon.models.manifest), daemon.settings.limits.queue_images
    body = await request.body()
    given = body, request.headers.get("inference-header-content-length"), outputs, most
    if len(body) < _LONG:
        return parse_request(*given)
    return await run_in_threadpool(parse_request, *given)


async def _response(request: Request, sha256: str, content: bytes, head: int) -> Response:
    """The reply of a body whose first bytes are JSON, compressed where that is worth it."""
    headers = {"x-lloss-model": sha256}
    binary = head < len(content)
    if binary:
        headers["inference-header-content-length"] = str(head)
    coding = _coding(request.headers.get("accept-encoding", ""), binary)
    if coding and len(content) >= _WORTHWHILE:
        headers["content-encoding"], headers["vary"] = coding, "accept-encoding"
        content = (
            _compressed(content, coding)
            if len(content) < _LONG
            else await run_in_threadpool(_compressed, content, coding)
        )
    return Response(
        content, 200, headers, "application/octet-stream" if binary else "application/json"
    )


def _coding(accepted: str, binary: bool) -> str:
    """gzip or deflate where the client takes it; "" for none.

    Floats hardly get smaller, and most HTTP libraries accept everything unasked: binary tensors
    are compressed only for who accepts one coding alone, as Triton's client does when told to.
    """
    if not accepted:
        return ""
    found = []
    for entry in accepted.split(","):
        name, _, weight = entry.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            found.append(name.strip().lower())
    if binary and len(found) != 1:
        return ""
    return next((name for name in ("gzip", "deflate") if name in found), "")


def _compressed(content: bytes, coding: str) -> bytes:
    return gzip.compress(content, 1, mtime=0) if coding == "gzip" else zlib.compress(content, 1)
