"""Turn Label Studio's events about annotations into labels."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.studio_annotation import Annotation, pool_image
from lloss.serve.daemon.store.annotation_table import AnnotationRow, AnnotationTable, Verdict
from lloss.serve.daemon.store.image_table import Marks
from pydantic import ValidationError

WRITTEN = frozenset(
    {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_UPDATED"}
)
DELETED = frozenset({"ANNOTATIONS_DELETED", "ANNOTATION_DELETED"})

Image = tuple[str, str]
"""A pool and an id."""

_log = logging.getLogger(__name__)
_serial = threading.Lock()
"""Keeps two events of one image in order."""


@dataclass
class Outcome:
    """How many images an event changed.

    Attributes:
        labeled: images with a label now.
        unlabeled: images that are free again, or were never labeled.
        skipped: images that are never handed out.
        ignored: images of no pool here.
        disputed: images with annotations of different classes; the newest one counts.
        without_class: images whose annotation does not choose exactly one class; unchanged.
        new_classes: accepted, since Label Studio sends an event once.
    """

    labeled: int = 0
    unlabeled: int = 0
    skipped: int = 0
    ignored: int = 0
    disputed: int = 0
    without_class: int = 0
    new_classes: list[str] = field(default_factory=list)


def apply_event(daemon: Daemon, event: Mapping[str, Any], control: str | None = None) -> Outcome:
    """Apply an event of :data:`WRITTEN` or :data:`DELETED`, in one transaction.

    The newest annotation that is not a skip labels its image; an image with skips alone is never
    handed out; one whose annotations were all deleted is free again. Labels from elsewhere stay.

    Args:
        daemon: with the pools.
        event: as Label Studio sends it.
        control: name of the Choices control that gives the label; by default the only one.

    Raises:
        LlossError: the catalog is damaged or cannot be written.
        PoolError: a pool that must be searched for its images cannot be read; nothing is stored.
    """
    project = _project(event.get("project"))
    with _serial:
        rows: list[AnnotationRow] = []
        numbers: list[int] = []
        if event["action"] in DELETED:
            numbers = _numbers(event.get("annotations"))
            with daemon.catalog.reading() as db:
                images = AnnotationTable(db).images(project, numbers)
        else:
            rows = list(_rows(project, event, control))
            images = list(dict.fromkeys((row.pool, row.id) for row in rows))
        present = _present(daemon, images)  # may be slow: before the transaction
        with daemon.catalog.images.marking() as marks:
            table = AnnotationTable(marks.db)
            before = [table.verdict(*image) for image in present]
            table.write(rows)
            table.delete(project, numbers)
            after = [table.verdict(*image) for image in present]
            outcome = _mark(daemon, marks, present, before, after)
    outcome.ignored = len(images) - len(present)
    daemon.metrics.labeled(outcome.labeled)
    if outcome.without_class or outcome.new_classes or outcome.disputed:
        _log.warning(
            "label studio: %d images were annotated without a class and are not labeled; %d have "
            "annotations of different classes; new classes: %s",
            outcome.without_class, outcome.disputed, outcome.new_classes,
        )  # fmt: skip
    return outcome


def _project(fields: object) -> str:
    if not isinstance(fields, dict):
        return ""
    text = f"{fields.get('id')}.{fields.get('created_at')}"
    return text.encode(errors="replace").decode()  # SQLite refuses lone surrogates


def _numbers(annotations: object) -> list[int]:
    """The numbers of annotations, those that SQLite can store."""
    listed = annotations if isinstance(annotations, list) else [annotations]
    numbers = [one.get("id") for one in listed if isinstance(one, dict)]
    return [n for n in numbers if type(n) is int and abs(n) < 1 << 63]


def _rows(project: str, event: Mapping[str, Any], control: str | None) -> Iterator[AnnotationRow]:
    annotations, tasks = event.get("annotation"), event.get("task")
    if not isinstance(annotations, list):
        annotations, tasks = [annotations], [tasks]
    for fields, task in zip(annotations, tasks if isinstance(tasks, list) else ()):
        image = pool_image(task)
        if image and _numbers(fields):
            with contextlib.suppress(ValidationError):
                one = Annotation.model_validate(fields)
                label, skipped = one.choice(control), bool(one.was_cancelled)
                yield AnnotationRow(project, one.id, *image, label, skipped, one.changed)


def _present(daemon: Daemon, images: Iterable[Image]) -> list[Image]:
    """Those images that are in a pool here."""
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for pool, id in images:
        ids[pool].append(id)
    present: list[Image] = []
    for pool, some in ids.items():
        try:
            present += [(pool, id) for id in sorted(daemon.labels.present(pool, some))]
        except RequestError as error:
            if error.status != 404:
                raise
            _log.warning("label studio: ignored annotations of %d images: %s", len(some), error)
    return present


def _mark(
    daemon: Daemon,
    marks: Marks,
    images: list[Image],
    before: list[Verdict],
    after: list[Verdict],
) -> Outcome:
    """Mark images by their verdicts before and after the event."""
    outcome = Outcome(disputed=sum(verdict.disputed for verdict in after))
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for (pool, _), verdict in zip(images, after):
        classes[pool].add(verdict.label or "")
    for pool, names in classes.items():
        outcome.new_classes += daemon.classes.new_in(pool, names)
    for (pool, id), old, new in zip(images, before, after):
        if daemon.classes.required:  # an annotation without a class labels nothing
            outcome.without_class += new.label == ""
            outcome.unlabeled -= new.label == ""
            old, new = (one._replace(label=one.label or None) for one in (old, new))
        _mark_one(marks, pool, id, old, new, outcome)
    return outcome


def _mark_one(
    marks: Marks, pool: str, id: str, before: Verdict, after: Verdict, outcome: Outcome
) -> None:
    """Label, skip or free an image; a label or skip from elsewhere stays."""
    if before.label is not None and not after.label:
        marks.unlabel(pool, marks.with_labels(pool, {id: before.label}))
    if after.label is not None:
        marks.label(pool, {id: after.label})
        outcome.labeled += 1
    elif after.skipped:
        marks.skip(pool, [id])
        outcome.skipped += 1
    else:
        if before.skipped:
            marks.give_back(pool, [id])
        outcome.unlabeled += 1
