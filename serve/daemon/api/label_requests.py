"""Labels as requests bring them: JSON, CSV, or Label Studio's export."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lloss.serve.daemon.api.pool_schemas import IDS_MOST, LabelsBody
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.json_export import read_labels
from lloss.serve.daemon.services.label_classes import Accepted
from pydantic import ValidationError

from lloss.annotations.label_csv import parse_labels
from lloss.errors import LabelError

_MANY = 1000
"""Mistakes of which the first is not looked for: to list them takes longer than to find them."""

_CSV = ("text/csv", "application/csv")


@dataclass(frozen=True)
class Given:
    """Labels that a request brings.

    Attributes:
        labels: by id.
        accepted: what they may be, as the body says it.
        disputed: images that have annotations of different classes.
    """

    labels: Mapping[str, str]
    accepted: Accepted = Accepted()
    disputed: int = 0


def labels_of_request(
    body: bytes,
    kind: str,
    pool: str,
    label_studio: bool,
    control: str | None = None,
    without: bool = False,
) -> Given:
    """Labels by id.

    Args:
        body: of the request.
        kind: its content type.
        pool: whose labels they are.
        label_studio: whether the body is an export of Label Studio's.
        control: whose choice is the label in such an export.
        without: whether a CSV may leave some of its labels out.

    Raises:
        RequestError: 415 the content type, 422 it cannot be read.
        LabelError: an empty or doubled id, or an empty label in a column of labels.
    """
    kind = kind.partition(";")[0].strip().lower()
    if label_studio:
        exported = read_labels(_document(body), pool, control)
        found = Given(exported.labels, disputed=exported.disputed)
    elif kind in _CSV:
        found = _of_csv(body, without)
    elif kind == "application/json":
        found = _of_json(body)
    else:
        raise RequestError(
            415, f"Content-Type {kind[:100]!r}: give labels as application/json or text/csv"
        )
    if not found.labels:
        raise LabelError("the request holds no label")
    if len(found.labels) > IDS_MOST:
        raise RequestError(422, f"{len(found.labels)} labels: give at most {IDS_MOST} in a request")
    return found


def _of_csv(body: bytes, without: bool) -> Given:
    labels = parse_labels(io.BytesIO(body), "the CSV", needs_label=None, blank=without)
    bare = not any(labels.values())
    return Given(labels, Accepted(reason="; the CSV has no column 'label'" if bare else ""))


def _of_json(body: bytes) -> Given:
    try:
        given = LabelsBody.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MANY:
            raise RequestError(422, f"the body has {error.error_count():,} mistakes") from error
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RequestError(422, f"{place or 'the body'}: {first['msg']}") from error
    json.loads(body, object_pairs_hook=_check_once)
    found = {one.id: one.label for one in given.labels}
    if len(found) < len(given.labels):
        counts = Counter(one.id for one in given.labels)
        twice = next(id for id, count in counts.items() if count > 1)
        raise LabelError(f"the id {twice[:100]!r} comes twice; keep one of them")
    return Given(found, Accepted(given.allow_new_classes, given.without))


def _check_once(pairs: list[tuple[str, object]]) -> None:
    """Of a key that comes twice in an object readers of JSON take the last one, and say nothing."""
    if len({key for key, _ in pairs}) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise LabelError(f"the key {twice[:100]!r} comes twice in an object; keep one of them")


def _document(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(422, f"the body is no JSON: {error}") from error
