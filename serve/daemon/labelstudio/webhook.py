"""Turn Label Studio's events about annotations into labels."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability import logs

from lloss.annotations.json_fields import convert
from lloss.annotations.label_studio import Annotation, PoolImage
from lloss.annotations.problems import AnnotationError

WRITTEN = frozenset(
    {"ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_UPDATED"}
)
DELETED = frozenset({"ANNOTATIONS_DELETED", "ANNOTATION_DELETED"})


@dataclass
class Outcome:
    """How many images an event changed.

    Attributes:
        labeled: images with a label now.
        relabeled: of them, images that had another label.
        skipped: images that are not handed out any more.
        without_class: unchanged: their annotation does not choose exactly one class.
        ignored: images of no pool here, and malformed annotations.
        deleted: deleted annotations; they change nothing.
        new_classes: accepted, since Label Studio sends an event once.
    """

    labeled: int = 0
    relabeled: int = 0
    skipped: int = 0
    without_class: int = 0
    ignored: int = 0
    deleted: int = 0
    new_classes: list[str] = field(default_factory=list)


def apply_event(daemon: Daemon, event: Mapping[str, Any], control: str | None = None) -> Outcome:
    """Apply an event of :data:`WRITTEN` or :data:`DELETED`.

    An annotation labels its image, in place of an earlier label; of several in one event the newest
    counts. A skip changes no labeled image.

    Args:
        daemon: with the pools.
        event: as Label Studio sends it.
        control: name of the Choices control that gives the label; by default the only one.

    Raises:
        LlossError: the catalog cannot be written, or a pool that must be searched cannot be read.
    """
    outcome = Outcome()
    if event["action"] in DELETED:
        listed = event.get("annotations")
        outcome.deleted = len(listed) if isinstance(listed, list) else 1
        logs.event(
            "label_studio_deleted", logging.WARNING, annotations=outcome.deleted,
            note="their images keep their state here: free them by DELETE "
            "/v1/pools/NAME/labels?id=ID, or skipped ones by POST .../return",
        )  # fmt: skip
        return outcome
    pools: defaultdict[str, dict[str, Annotation]] = defaultdict(dict)
    # The last of an image stays: the newest that is not a skip.
    for image, one in sorted(
        _annotations(event, outcome), key=lambda pair: (not pair[1].was_cancelled, pair[1].age)
    ):
        pools[image.lloss_pool][image.lloss_id] = one
    for pool, images in pools.items():
        _mark(daemon, pool, images, control, outcome)
    if outcome.without_class or outcome.new_classes or outcome.relabeled:
        logs.event(
            "label_studio_doubts", logging.WARNING, without_class=outcome.without_class,
            relabeled=outcome.relabeled, new_classes=outcome.new_classes,
            note="annotations without a class label nothing",
        )  # fmt: skip
    return outcome


def _annotations(
    event: Mapping[str, Any], outcome: Outcome
) -> Iterator[tuple[PoolImage, Annotation]]:
    annotations, tasks = event.get("annotation"), event.get("task")
    if not isinstance(annotations, list) or not isinstance(tasks, list):
        annotations, tasks = [annotations], [tasks]
    for fields, task in zip(annotations, tasks):
        data = task.get("data") if isinstance(task, dict) else None
        try:
            yield convert(data, PoolImage, "data"), convert(fields, Annotation, "annotation")
        except AnnotationError:
            outcome.ignored += 1


def _mark(
    daemon: Daemon,
    pool: str,
    images: Mapping[str, Annotation],
    control: str | None,
    outcome: Outcome,
) -> None:
    """Label or skip images of a pool."""
    try:
        present = daemon.labels.present(pool, images)
    except RequestError as error:
        if error.status != 404:
            raise
        logs.event(
            "label_studio_ignored",
            logging.WARNING,
            pool=pool,
            images=len(images),
            reason=str(error),
        )
        outcome.ignored += len(images)
        return
    outcome.ignored += len(images) - len(present)
    skips = [id for id in present if images[id].was_cancelled]
    labels = {id: images[id].choice(control) for id in present.difference(skips)}
    if daemon.classes.required:
        outcome.without_class += sum(not label for label in labels.values())
        labels = {id: label for id, label in labels.items() if label}
    before = daemon.catalog.images.states(pool, labels)
    outcome.relabeled += sum(
        bool(labels[id]) and row.label not in ("", labels[id]) for id, row in before.items()
    )
    if labels:
        done = daemon.labels.label(pool, labels, new_classes=True, without=True)
        outcome.labeled += done.images
        outcome.new_classes += done.new_classes
    if skips:
        outcome.skipped += daemon.labels.skip(pool, skips)
