"""Read the labels of a request: JSON, CSV, or an export of Label Studio."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lloss.serve.daemon.api.pool_schemas import MAX_IDS, LabelsBody
from lloss.serve.daemon.errors import RequestError, validation_problem
from lloss.serve.daemon.labelstudio.json_export import read_labels
from lloss.serve.daemon.services.label_classes import Accepted
from pydantic import ValidationError

from lloss.annotations.label_csv import parse_labels
from lloss.errors import LabelError

_MANY_ERRORS = 1000
"""Errors of which not even the first is shown: to list them all takes very long."""


@dataclass(frozen=True)
class RequestLabels:
    """Labels by id, what the request accepts, and images with annotations of different classes."""

    labels: Mapping[str, str]
    accepted: Accepted = Accepted()
    disputed: int = 0


def labels_of_request(
    body: bytes,
    media_type: str,
    pool: str,
    label_studio: bool,
    control: str | None = None,
    without: bool = False,
) -> RequestLabels:
    """Read the labels of a request.

    Args:
        body: of the request.
        media_type: its content type.
        pool: the pool's name.
        label_studio: whether the body is an export of Label Studio.
        control: see :func:`.json_export.read_labels`.
        without: whether a CSV may have empty labels.

    Raises:
        RequestError: 415 the content type, 422 the body cannot be read.
        LabelError: an empty or doubled id, or an empty label in a column of labels.
    """
    media_type = media_type.partition(";")[0].strip().lower()
    if label_studio:
        exported = read_labels(_document(body), pool, control)
        found = RequestLabels(exported.labels, disputed=exported.disputed)
    elif media_type in ("text/csv", "application/csv"):
        found = _read_csv(body, without)
    elif media_type == "application/json":
        found = _read_json(body)
    else:
        raise RequestError(
            415, f"Content-Type {media_type[:100]!r}: give labels as application/json or text/csv"
        )
    if not found.labels:
        raise LabelError("the request holds no label")
    if len(found.labels) > MAX_IDS:
        raise RequestError(422, f"{len(found.labels)} labels: give at most {MAX_IDS} in a request")
    return found


def _read_csv(body: bytes, without: bool) -> RequestLabels:
    return RequestLabels(parse_labels(io.BytesIO(body), "the CSV", needs_label=None, blank=without))


def _read_json(body: bytes) -> RequestLabels:
    try:
        given = LabelsBody.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MANY_ERRORS:
            raise RequestError(422, f"the body has {error.error_count():,} mistakes") from error
        first = error.errors(include_url=False, include_context=False)[0]
        raise RequestError(422, validation_problem(first)) from error
    # Readers of JSON keep the last of two equal keys, and do not complain.
    json.loads(body, object_pairs_hook=lambda pairs: _check_once("key", [key for key, _ in pairs]))
    _check_once("id", [one.id for one in given.labels])
    labels = {one.id: one.label for one in given.labels}
    return RequestLabels(labels, Accepted(given.allow_new_classes, given.without))


def _check_once(what: str, texts: list[str]) -> None:
    if len(set(texts)) < len(texts):
        twice = next(text for text, count in Counter(texts).items() if count > 1)
        where = " in an object" if what == "key" else ""
        raise LabelError(f"the {what} {twice[:100]!r} comes twice{where}; keep one of them")


def _document(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(422, f"the body is not JSON: {error}") from error
