"""What Label Studio tells of annotations becomes labels."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.labelstudio.annotation_memory import Annotation, Annotations, Verdict
from lloss.serve.daemon.labelstudio.json_export import Age, choice_of, place_of
from lloss.serve.daemon.store.image_table import Marks

WRITTEN = frozenset(
    {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_UPDATED"}
)
DELETED = frozenset({"ANNOTATIONS_DELETED", "ANNOTATION_DELETED"})

_log = logging.getLogger(__name__)
_one_by_one = threading.Lock()
"""Of two events of an image the later must not be overtaken by the earlier."""


@dataclass
class Outcome:
    """What became of the images of an event.

    Attributes:
        labeled: images.
        unlabeled: that are free again, or were never labeled.
        skipped: images.
        ignored: that are of no pool here.
        disputed: whose annotations are of different classes; the newest one counts.
        without_class: whose annotation chooses no class, or several; they stay as they were.
        new_classes: that neither the model nor an earlier label knew; they are accepted, since
            Label Studio sends an event once.
    """

    labeled: int = 0
    unlabeled: int = 0
    skipped: int = 0
    ignored: int = 0
    disputed: int = 0
    without_class: int = 0
    new_classes: list[str] = field(default_factory=list)


def hear(daemon: Daemon, event: Mapping[str, Any], control: str | None = None) -> Outcome:
    """Follow an event of :data:`WRITTEN` or :data:`DELETED`.

    An image is labeled by its newest annotation that is no skip; one that was only skipped is
    never handed out; one whose annotations were all deleted is free again. What came before the
    webhook was set up is not known here; a label from elsewhere is not taken back. One transaction
    holds the notes of annotations and what they mark.

    Args:
        daemon: whose pools they are of.
        event: of Label Studio's.
        control: whose choice is the label; by default the only one.

    Raises:
        LlossError: the catalog is damaged or cannot be written.
        PoolError: a pool that has to be asked for its images cannot be read now; then nothing is
            noted either.
    """
    project = _project(event.get("project"))
    with _one_by_one:
        written, numbers = [], []
        if event["action"] in DELETED:
            numbers = list(_numbers(event.get("annotations")))
            with daemon.catalog.reading() as db:
                places = Annotations(db).places(project, numbers)
        else:
            written = list(_written(project, event, control))
            places = list(dict.fromkeys((one.pool, one.id) for one in written))
        # Asked before the transaction, which nobody else can write beside: it may take long.
        present = _present_in(daemon, places)
        with daemon.catalog.images.marking() as marks:
            notes = Annotations(marks.db)
            before = [notes.verdict(*place) for place in places]
            notes.write(written)
            notes.delete(project, numbers)
            after = [notes.verdict(*place) for place in places]
            outcome = _mark(daemon, marks, list(zip(before, after)), present)
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
    told = f"{fields.get('id')}.{fields.get('created_at')}"
    return told.encode(errors="replace").decode()  # halves of characters SQLite does not take


def _numbers(annotations: object) -> Iterable[int]:
    for one in annotations if isinstance(annotations, list) else [annotations]:
        number = one.get("id") if isinstance(one, dict) else None
        if _is_number(number):
            yield number


def _is_number(value: object) -> TypeGuard[int]:
    """Whether it is an integer as SQLite has them."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _written(project: str, event: Mapping[str, Any], control: str | None) -> Iterable[Annotation]:
    annotations, tasks = event.get("annotation"), event.get("task")
    if not isinstance(annotations, list):
        annotations, tasks = [annotations], [tasks]
    if not isinstance(tasks, list):
        return
    for annotation, task in zip(annotations, tasks):
        place = place_of(task.get("data")) if isinstance(task, dict) else None
        if place and isinstance(annotation, dict) and _is_number(annotation.get("id")):
            yield Annotation(
                project,
                Age.of(annotation, annotation["id"]),
                *place,
                choice_of(annotation.get("result"), control),
                bool(annotation.get("was_cancelled")),
            )


def _present_in(daemon: Daemon, places: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for pool, id in places:
        ids[pool].append(id)
    return {pool: _present(daemon, pool, some) for pool, some in ids.items()}


def _mark(
    daemon: Daemon,
    marks: Marks,
    changes: Sequence[tuple[Verdict, Verdict]],
    present: Mapping[str, set[str]],
) -> Outcome:
    """Mark images by the verdicts that were known before the event and are known now."""
    outcome = Outcome()
    pools: dict[str, list[tuple[Verdict, Verdict]]] = defaultdict(list)
    for before, after in changes:
        if after.id in present[after.pool]:
            pools[after.pool].append((before, after))
        else:
            outcome.ignored += 1
    for pool, here in pools.items():
        outcome.disputed += sum(after.disputed for _, after in here)
        if daemon.classes.required:
            outcome.without_class += sum(after.label == "" for _, after in here)
            here = [(_classed(before), _classed(after)) for before, after in here]
        names = [after.label for _, after in here if after.label]
        outcome.new_classes += daemon.classes.new_in(pool, names)
        _mark_present(marks, pool, here, outcome)
    outcome.unlabeled -= outcome.without_class
    return outcome


def _classed(verdict: Verdict) -> Verdict:
    """Of a classifier's pool: an annotation without a class labels nothing."""
    return verdict if verdict.label else replace(verdict, label=None)


def _mark_present(
    marks: Marks, pool: str, changes: Sequence[tuple[Verdict, Verdict]], outcome: Outcome
) -> None:
    """Label, skip and free; what came from elsewhere than annotations is not taken back."""
    labels = {after.id: after.label for _, after in changes if after.label is not None}
    rest = [(before, after) for before, after in changes if after.label is None]
    # A label that an annotation gave and gives no more; "" by itself would leave it.
    given = {
        before.id: before.label for before, after in changes
        if before.label is not None and not after.label
    }  # fmt: skip
    marks.unlabel(pool, marks.with_labels(pool, given))
    skipped = [after.id for _, after in rest if after.skipped]
    marks.skip(pool, skipped)
    marks.give_back(pool, [now.id for old, now in rest if old.skipped and not now.skipped])
    marks.label(pool, labels)
    outcome.labeled += len(labels)
    outcome.skipped += len(skipped)
    outcome.unlabeled += len(rest) - len(skipped)


def _present(daemon: Daemon, pool: str, ids: list[str]) -> set[str]:
    try:
        return daemon.selections.present(pool, ids)
    except RequestError as error:
        if error.status != 404:  # it may be back soon: better told than lost without a word
            raise
        _log.warning("label studio's annotations of %d images are ignored: %s", len(ids), error)
        return set()
