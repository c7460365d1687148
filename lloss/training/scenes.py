"""Near-duplicates among images to measure on: their intervals count scenes, not images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lloss.data.labeled_set import LabeledSet
from lloss.data.near_copies import Groups, groups_among, near_copies
from lloss.statistics.confidence_intervals import Clusters
from lloss.tasks.task import Task
from lloss.text.counts import NEAR, counted, part
from lloss.training.cautions import MANY
from lloss.training.holdout import first_items, scenes_of
from lloss.training.trained_prints import PRINTS, read_prints

MOST = 5000
"""More images to measure on are not compared with each other: that takes 15 seconds of a core."""


@dataclass(frozen=True)
class Scenes:
    """Near-duplicates among N images to measure on.

    Attributes:
        clusters: the scene of each, see :data:`.Clusters`.
        groups: of the images' files; None where they were not compared.
        doubt: why intervals count images all the same; "" where nothing speaks against scenes.
        near: those that are near-duplicates of images trained on, see :func:`.near_copies`.
        unknown: why these are not known; "" where they are.
    """

    clusters: Clusters = None
    groups: Groups | None = None
    doubt: str = ""
    near: Mapping[str, int] = field(default_factory=dict)
    unknown: str = ""

    def lines(self) -> Iterator[str]:
        """Yield what must be named with the figures."""
        if self.doubt:
            yield f"{self.doubt}: intervals count images, and are too narrow where scenes repeat"
        elif self.groups and self.groups.copies:
            yield (
                f"{part(self.groups.copies, len(self.groups.first), 'images to measure on', NEAR)} "
                f"of others: intervals count {counted(self.groups.apart, 'scene')}"
            )
        if self.unknown:
            yield self.unknown
        count, of = self.near.get("near_copies", 0), self.near.get("near_copies_of", 0)
        if 0 < count < MANY * of:  # of more `cautions` warns
            yield f"{part(count, of, 'images to measure on', NEAR)} of images trained on"

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON; ``apart``, the number of scenes, where images repeat."""
        found = dict(self.near)
        if not self.doubt and self.groups is not None:
            found["near_duplicates"] = self.groups.copies
            if self.groups.copies:
                found["apart"] = self.groups.apart
        return found


NO_SCENES = Scenes()


def scenes_of_evaluation(task: Task, labeled: LabeledSet, run: Path | None) -> Scenes:
    """Find near-duplicates among images to measure on, and of those that ``run`` was trained on."""
    found = scenes_among(task, labeled)
    if run is None:
        return found
    trained = read_prints(run)
    if trained is None:
        why = f"near-duplicates of images trained on are not counted, without a {run / PRINTS}"
        return replace(found, unknown=f"{why}: the same training with --resume writes it")
    return replace(found, near=near_copies(labeled.items, trained))


def scenes_among(task: Task, labeled: LabeledSet) -> Scenes:
    """Find near-duplicates among images to measure on, unless that takes long."""
    images = [*map(task.image_of, labeled.items, labeled.labels)]
    items = first_items(images, labeled.items)
    if len(items) > MOST:
        return Scenes(doubt=f"near-duplicates are not looked for among more than {MOST:,} images")
    if any(isinstance(item.file, str) for item in items):
        return Scenes(doubt="near-duplicates are not looked for among remote images")
    groups = groups_among(items)
    if groups.doubt:
        return Scenes(doubt="more than half of the images to measure on are near-duplicates")
    return Scenes(scenes_of(images, groups), groups)
