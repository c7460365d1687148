"""Scoring for people and scripts: image files in, JSON out.

::

    curl -F image=@a.jpg -F image=@b.jpg http://127.0.0.1:8000/v1/score
    curl --data-binary @a.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/score
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from lloss.serve.daemon.api.inference_schemas import ScoreReply
from lloss.serve.daemon.api.inference_tensors import MANY
from lloss.serve.daemon.deps import daemon_of, reject_unknown_parameters
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.model_manager import Scored
from pydantic_core import to_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from lloss.manifest import Manifest, class_name

router = APIRouter(tags=["Scoring"], dependencies=[Depends(reject_unknown_parameters)])

MAX_FILES = 256
"""Files in a form; a script with more images sends several forms, or uses the other protocol."""

_SHORT = 16
"""Values per image below which an output is always in the reply."""

_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "array", "items": _FILE, "minItems": 1}},
}
_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": _FORM}, "image/*": {"schema": _FILE}},
}


@router.post(
    "/v1/score",
    response_model=None,
    openapi_extra={"requestBody": _BODY},
    responses={200: {"model": ScoreReply}},
)
async def score(
    request: Request,
    outputs: Annotated[
        str, Query(description="Names of outputs to add, with commas, such as `embedding`.")
    ] = "",
) -> Response:
    """Predict the loss of image files, sent as a form or one as the body itself.

    Raises:
        RequestError: 400 no image, or an unknown output; 413 too many; 415 another type of body;
            422 a bad parameter, or every image is bad; 429, 503 and 504 from scoring.
    """
    daemon = daemon_of(request)
    _chosen(outputs, daemon.models.current.manifest)  # refuses before the files arrive
    names, files = await _files(request)
    request.state.images = len(files)
    scored = await daemon.models.score(files, daemon.settings.limits.request_seconds)
    errors = scored.answer.errors
    if len(errors) == len(files):
        first = names[0][:60]
        raise RequestError(422, f"no image could be used; the first, {first!r}: {errors[0]}")
    chosen = _chosen(outputs, scored.model.manifest)  # maybe of a newer model
    if sum(scored.answer.columns[name].size for name in chosen) > MANY:
        content = await run_in_threadpool(encode_scores, scored, names, chosen)
    else:
        content = encode_scores(scored, names, chosen)
    return Response(content, 200, {"x-lloss-model": scored.model.sha256}, "application/json")


def _chosen(outputs: str, manifest: Manifest) -> list[str]:
    """The short outputs, and those that the request names."""
    named = [name for name in outputs.split(",") if name]
    for name in named:
        if name not in manifest.outputs:
            available = ", ".join(manifest.outputs)
            raise RequestError(400, f"outputs: {name[:40]!r} is none of {available}")
    return [
        name
        for name, shape in manifest.outputs.items()
        if name in named or math.prod(shape) < _SHORT
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
            return await _form_files(form.multi_items())
    except HTTPException as error:
        status = 413 if "Too many files" in str(error.detail) else 400
        remedy = f"give at most {MAX_FILES} files, each as -F image=@FILE, and no other field"
        message = f"the form cannot be read: {error.detail}; {remedy}"
        raise RequestError(status, message) from error


async def _form_files(entries: Sequence[tuple[str, Any]]) -> tuple[list[str], list[bytes]]:
    names, files = [], []
    for field, entry in entries:
        if not isinstance(entry, UploadFile) or field not in ("image", "images", "file"):
            raise RequestError(400, f"the form has {field[:40]!r}: give files, as image")
        names.append(entry.filename or field)
        files.append(await entry.read())
    if not files:
        raise RequestError(400, "the form has no file: -F image=@FILE")
    return names, files


def encode_scores(scored: Scored, names: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Encode the reply as JSON, row by row, so that other threads run in between."""
    rows = (to_json(_row(scored, n, name, outputs)) for n, name in enumerate(names))
    return b'{"model":"%s","images":[%s]}' % (scored.model.sha256.encode(), b",".join(rows))


def _row(scored: Scored, row: int, name: str, outputs: Sequence[str]) -> dict[str, Any]:
    answer = scored.answer
    fields: dict[str, Any] = {"row": row, "name": name}
    if row in answer.errors:
        return {**fields, "error": answer.errors[row]}
    for output in outputs:
        values = np.asarray(answer.columns[output][row])
        numbers = values.astype(object)
        numbers[~np.isfinite(values)] = None
        fields[output] = numbers.tolist()
    prediction = answer.columns.get("prediction")
    if prediction is not None and prediction.ndim == 1:
        fields["prediction"] = int(prediction[row])
        if label := class_name(scored.model.manifest.classes, prediction[row]):
            fields["class"] = label
    return fields
