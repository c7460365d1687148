"""Scoring for people and scripts: image files in, JSON out.

::

    curl -F image=@a.jpg -F image=@b.jpg http://127.0.0.1:8000/v1/score
    curl --data-binary @a.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/v1/score
"""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from lloss.serve.daemon.dependencies import daemon_of, reject_unknown_parameters
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.model_manager import Scored
from pydantic_core import to_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from lloss.manifest import class_name

router = APIRouter(tags=["Scoring"], dependencies=[Depends(reject_unknown_parameters)])

MAX_FILES = 256
"""Files in a form; a script with more images sends several forms, or uses the other protocol."""

_SHORT = 16
"""Values per image below which an output is in the reply; the other protocol has all of them."""

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


@router.post("/v1/score", openapi_extra={"requestBody": _BODY})
async def score(request: Request) -> Response:
    """Predict the loss of image files, sent as a form or one as the body itself.

    The reply is ``{"model": sha256, "images": [{"row", "name", "loss", ...}, ...]}``; a bad image
    has ``error`` instead of values.

    Raises:
        RequestError: 400 no image; 413 too many; 415 another type of body; 422 every image is bad;
            429, 503 and 504 from scoring.
    """
    daemon = daemon_of(request)
    names, files = await _files(request)
    request.state.images = len(files)
    scored = await daemon.models.score(files, daemon.settings.limits.request_seconds)
    errors = scored.answer.errors
    if len(errors) == len(files):
        first = names[0][:60]
        raise RequestError(422, f"no image could be used; the first, {first!r}: {errors[0]}")
    images = [_row(scored, row, name) for row, name in enumerate(names)]
    content = to_json({"model": scored.model.sha256, "images": images}, inf_nan_mode="null")
    return Response(content, 200, {"x-lloss-model": scored.model.sha256}, "application/json")


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
            files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
            if not files:
                raise RequestError(400, "the form has no file: -F image=@FILE")
            return [file.filename or "" for file in files], [await file.read() for file in files]
    except HTTPException as error:
        status = 413 if "Too many files" in str(error.detail) else 400
        remedy = f"give at most {MAX_FILES} files, each as -F image=@FILE, and no other field"
        message = f"the form cannot be read: {error.detail}; {remedy}"
        raise RequestError(status, message) from error


def _row(scored: Scored, row: int, name: str) -> dict[str, Any]:
    answer = scored.answer
    fields: dict[str, Any] = {"row": row, "name": name}
    if row in answer.errors:
        return {**fields, "error": answer.errors[row]}
    for output, shape in scored.model.manifest.outputs.items():
        if math.prod(shape) < _SHORT:
            fields[output] = answer.columns[output][row].tolist()
    prediction = answer.columns.get("prediction")
    if prediction is not None and prediction.ndim == 1:
        fields["prediction"] = int(prediction[row])
        if label := class_name(scored.model.manifest.classes, prediction[row]):
            fields["class"] = label
    return fields
