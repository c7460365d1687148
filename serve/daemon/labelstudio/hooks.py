"""What Label Studio tells of annotations becomes labels."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from lloss.errors import PoolError

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
    webhook was set up is not known here.

    Raises:
        LlossError: the notes of annotations are damaged or cannot be written.
        RequestError: the catalog cannot be written now; then nothing is noted either.
    """
    project = _project(event.get("project"))
    with _one_by_one, Annotations.opened(daemon.settings.data_dir) as notes:
        if event["action"] in DELETED:
            places = notes.delete(project, list(_numbers(event.get("annotations"))))
        else:
            written = list(_written(project, event))
            notes.write(written)
            places = list(dict.fromkeys((one.pool, one.id) for one in written))
        return _mark(daemon, [notes.verdict(*place) for place in places])


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


def _mark(daemon: Daemon, verdicts: Iterable[Verdict]) -> Outcome:
    outcome = Outcome()
    pools: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        pools[verdict.pool].append(verdict)
    for pool, all_of_it in pools.items():
        ids = _present(daemon, pool, [verdict.id for verdict in all_of_it])
        here = [verdict for verdict in all_of_it if verdict.id in ids]
        outcome.ignored += len(all_of_it) - len(here)
        labels = {verdict.id: verdict.label for verdict in here if verdict.label is not None}
        if labels:
            daemon.selections.label(pool, labels)
        rest = [verdict.id for verdict in here if verdict.label is None]
        skipped = [verdict.id for verdict in here if verdict.skipped]
        free = [id for id in rest if id not in set(skipped)]
        if rest:
            daemon.selections.unlabel(pool, rest)
        if skipped:
            daemon.selections.skip(pool, skipped)
        if free:
            daemon.selections.give_back(pool, free)
        outcome.labeled += len(labels)
        outcome.skipped += len(skipped)
        outcome.unlabeled += len(free)
    return outcome


def _present(daemon: Daemon, pool: str, ids: list[str]) -> set[str]:
    try:
        return set(daemon.pools.items(pool, ids))
    except (RequestError, PoolError) as error:
        _log.warning("label studio's annotations of %d images are ignored: %s", len(ids), error)
        return set()
