"""Read the labels of a request: JSON, CSV, or an export of Label Studio."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping

from lloss.serve.daemon.api.pool_schemas import LabelsBody
from lloss.serve.daemon.errors import RequestError, validation_problem
from lloss.serve.daemon.labelstudio.json_export import ExportedLabels, read_labels
from pydantic import ValidationError

from lloss.annotations import Problems
from lloss.annotations.label_csv import parse_labels
from lloss.errors import LabelError


def labels_of_export(body: bytes, pool: str, control: str | None) -> ExportedLabels:
    """Read the labels of a pool in an export of Label Studio; see :func:`.json_export.read_labels`.

    Raises:
        RequestError: 422 it is not JSON.
        LabelError: it is not such an export.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(422, f"the body is not JSON: {error}") from error
    return read_labels(document, pool, control)


def labels_of_request(
    body: bytes, media_type: str, without: bool, problems: Problems
) -> Mapping[str, str]:
    """Read the labels of a body of JSON or CSV, which has empty ones only ``without`` classes.

    ``problems`` receives notes on the columns of a CSV.

    Raises:
        RequestError: 415 the content type, 422 the body cannot be read.
        LabelError: an empty or doubled id, or an empty label in a column of labels.
    """
    media_type = media_type.partition(";")[0].strip().lower()
    if media_type in ("text/csv", "application/csv"):
        return parse_labels(io.BytesIO(body), "the CSV", None, problems, blank=without)
    if media_type != "application/json":
        raise RequestError(
            415, f"Content-Type {media_type[:100]!r}: give labels as application/json or text/csv"
        )
    try:
        given = LabelsBody.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise RequestError(422, validation_problem(first)) from error
    # Readers of JSON keep the last of two equal keys, and do not complain.
    json.loads(body, object_pairs_hook=lambda pairs: _check_once("key", [key for key, _ in pairs]))
    _check_once("id", [one.id for one in given.labels])
    return {one.id: one.label for one in given.labels}


def _check_once(what: str, texts: list[str]) -> None:
    if len(set(texts)) < len(texts):
        twice = next(text for text, count in Counter(texts).items() if count > 1)
        where = " in an object" if what == "key" else ""
        raise LabelError(f"the {what} {twice[:100]!r} comes twice{where}; keep one of them")
