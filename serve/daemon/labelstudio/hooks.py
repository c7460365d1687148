"""What Label Studio tells of annotations becomes labels."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from ..core import Daemon
from ..failures import RequestError
from .annotations import Annotation, Annotations, Verdict
from .exports import Age, choice_of, place_of

WRITTEN = frozenset(
    {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_UPDATED"}
)
DELETED = frozenset({"ANNOTATIONS_DELETED", "ANNOTATION_DELETED"})

_log = logging.getLogger(__name__)
_one_by_one = threading.Lock()
"""Of two events of an image the later must not be overtaken by the earlier."""


@dataclass
class Outcome:
    """How many images of an event became what; ``ignored`` are of no pool here."""

    labeled: int = 0
    unlabeled: int = 0
    skipped: int = 0
    ignored: int = 0


def hear(daemon: Daemon, event: Mapping[str, Any]) -> Outcome:
    """Follow an event of :data:`WRITTEN` or :data:`DELETED`.

    An image is labeled by its newest annotation that is no skip; one that was only skipped is
    never handed out; one whose annotations were all deleted is free again. What came before the
    webhook was set up is not known here; a label from elsewhere is not taken back.

    Raises:
        LlossError: the notes of annotations are damaged or cannot be written.
        PoolError: a pool that has to be asked for its images cannot be read now; then nothing is
            noted either, nor where the catalog cannot be written.
    """
    project = _project(event.get("project"))
    with _one_by_one, Annotations.opened(daemon.settings.data_dir) as notes:
        if event["action"] in DELETED:
            numbers = list(_numbers(event.get("annotations")))
            places = notes.places(project, numbers)
            before = [notes.verdict(*place) for place in places]
            notes.delete(project, numbers)
        else:
            written = list(_written(project, event))
            places = list(dict.fromkeys((one.pool, one.id) for one in written))
            before = [notes.verdict(*place) for place in places]
            notes.write(written)
        after = [notes.verdict(*place) for place in places]
        return _mark(daemon, zip(before, after))


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


def _written(project: str, event: Mapping[str, Any]) -> Iterable[Annotation]:
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
                choice_of(annotation.get("result")),
                bool(annotation.get("was_cancelled")),
            )


def _mark(daemon: Daemon, changes: Iterable[tuple[Verdict, Verdict]]) -> Outcome:
    """Mark images by the verdicts that were known before the event and are known now."""
    outcome = Outcome()
    pools: dict[str, list[tuple[Verdict, Verdict]]] = defaultdict(list)
    for before, after in changes:
        pools[after.pool].append((before, after))
    # All are asked first, so that an event of a pool that cannot be read has marked nothing.
    present = {pool: _present(daemon, pool, [now.id for _, now in pools[pool]]) for pool in pools}
    for pool, all_of_it in pools.items():
        here = [(before, after) for before, after in all_of_it if after.id in present[pool]]
        outcome.ignored += len(all_of_it) - len(here)
        if here:
            _mark_present(daemon, pool, here, outcome)
    return outcome


def _mark_present(
    daemon: Daemon, pool: str, changes: Sequence[tuple[Verdict, Verdict]], outcome: Outcome
) -> None:
    """Label, skip and free; what came from elsewhere than annotations is not taken back."""
    labels = {after.id: after.label for _, after in changes if after.label is not None}
    rest = [(before, after) for before, after in changes if after.label is None]
    given = {before.id: before.label for before, _ in rest if before.label is not None}
    held = daemon.catalog.images.states(pool, given)
    taken_back = [id for id, row in held.items() if row.label == given[id]]
    skipped = [after.id for _, after in rest if after.skipped]
    shown_again = [after.id for before, after in rest if before.skipped and not after.skipped]
    selections = daemon.selections
    for mark, ids in (
        (selections.unlabel, taken_back),
        (selections.skip, skipped),
        (selections.give_back, shown_again),
    ):
        if ids:
            mark(pool, ids)
    if labels:
        selections.label(pool, labels)
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
