"""Scoring for people and scripts: image files in, JSON out.

::

    curl -F image=@a.jpg -F image=@b.jpg http://127.0.0.1:8000/v1/score
    curl --data-binary @a.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/score
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from lloss.serve.daemon.api.inference_schemas import SCORE, SCORED
from lloss.serve.daemon.api.inference_tensors import MANY
from lloss.serve.daemon.deps import check_parameters, daemon_of
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.model_manager import Scored
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from lloss.manifest import Manifest, class_name

router = APIRouter(tags=["Scoring"])

MAX_FILES = 256
"""Parts of a form: a script with more images sends several forms, or uses the other protocol."""

_LONG = 16
"""Values an image from which an output is left out unless asked for."""


@router.post("/v1/score", response_model=None, openapi_extra=SCORE, responses=SCORED)
async def score(request: Request) -> Response:
    """Predict the loss of image files, sent as a form or one as the body itself.

    Raises:
        RequestError: 400 no image, or a parameter that cannot be; 413 too many; 415 another type
            of body; 422 every image is bad; 429, 503, 504 as of scoring.
    """
    daemon = daemon_of(request)
    seconds = _seconds(request, daemon.settings.limits.request_seconds)
    check_parameters(request, ("timeout", "outputs"))
    _outputs(request, daemon.models.manifest)  # to refuse before the files come
    names, files = await _files(request)
    request.state.images = len(files)
    scored = await daemon.models.score(files, seconds)
    errors = scored.answer.errors
    if len(errors) == len(files):
        first = names[0][:60]
        raise RequestError(422, f"no image could be used; the first, {first!r}: {errors[0]}")
    outputs = _outputs(request, scored.manifest)  # perhaps of a newer model
    if sum(scored.answer.columns[name].size for name in outputs) > MANY:
        content = await run_in_threadpool(_told, scored, names, outputs)
    else:
        content = _told(scored, names, outputs)
    return Response(content, 200, {"x-lloss-model": scored.sha256}, "application/json")


def _seconds(request: Request, most: float) -> float:
    text = request.query_params.get("timeout")
    if text is None:
        return most
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise RequestError(400, f"timeout is {text[:40]!r}: give seconds, more than 0")
    return min(seconds, most)


def _outputs(request: Request, manifest: Manifest) -> list[str]:
    """The short outputs, and those that are asked for."""
    text = request.query_params.get("outputs", "")
    asked = [name for name in text.split(",") if name]
    for name in asked:
        if name not in manifest.outputs:
            known = ", ".join(manifest.outputs)
            raise RequestError(400, f"outputs: {name[:40]!r} is none of {known}")
    return [
        name
        for name, shape in manifest.outputs.items()
        if name in asked or math.prod(shape) < _LONG
    ]


async def _files(request: Request) -> tuple[list[str], list[bytes]]:
    """Names and contents of the images."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        body = await request.body()
        if not body:
            raise RequestError(400, "the body is empty: send an image file")
        return ["body"], [body]
    if kind != "multipart/form-data":
        raise RequestError(
            415,
            f"a body of type {kind[:60]!r}: send a form with -F image=@FILE, or an image file "
            "as body with its type, such as image/jpeg",
        )
    try:
        async with request.form(max_files=MAX_FILES, max_fields=0) as form:
            return await _parts(form.multi_items())
    except HTTPException as error:
        if "Too many fields" in str(error.detail):
            raise RequestError(
                400, "the form has a field that is no file: -F image=@FILE"
            ) from error
        status = 413 if "Too many files" in str(error.detail) else 400
        remedy = f"; give at most {MAX_FILES}" if status == 413 else ""
        raise RequestError(status, f"the form cannot be read: {error.detail}{remedy}") from error


async def _parts(entries: Sequence[tuple[str, Any]]) -> tuple[list[str], list[bytes]]:
    names, files = [], []
    for field, entry in entries:
        if not isinstance(entry, UploadFile) or field not in ("image", "images", "file"):
            raise RequestError(400, f"the form has {field[:40]!r}: give files, as image")
        names.append(entry.filename or field)
        files.append(await entry.read())
    if not files:
        raise RequestError(400, "the form has no file: give one or more, as image")
    return names, files


def _told(scored: Scored, names: Sequence[str], outputs: Sequence[str]) -> str:
    """The reply's JSON; a row at a time, since no other thread runs while one is made."""
    rows = ", ".join(json.dumps(_row(scored, n, name, outputs)) for n, name in enumerate(names))
    return f'{{"model": "{scored.sha256}", "images": [{rows}]}}'


def _row(scored: Scored, row: int, name: str, outputs: Sequence[str]) -> dict[str, Any]:
    answer, classes = scored.answer, scored.manifest.classes
    told: dict[str, Any] = {"row": row, "name": name}
    if row in answer.errors:
        return {**told, "error": answer.errors[row]}
    for output in outputs:
        told[output] = _value(answer.columns[output][row])
    prediction = answer.columns.get("prediction")
    if prediction is not None and prediction.ndim == 1:
        told["prediction"] = int(prediction[row])
        if name_of := class_name(classes, prediction[row]):
            told["class"] = name_of
    return told


def _value(values: NDArray[np.float32]) -> Any:
    """As JSON can hold it; what is not finite is null."""
    finite = np.isfinite(values)
    told = np.asarray(values).astype(object)
    told[~finite] = None
    return told.tolist()
