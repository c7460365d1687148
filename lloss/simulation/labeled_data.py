"""The fully labeled data of a simulation, opened as ``lloss train`` opens it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet, drop_empty
from lloss.data.near_copies import Groups, groups_among
from lloss.errors import ImageError, LabelError
from lloss.pools import Item
from lloss.simulation.image_variants import item_digest, variant_of
from lloss.simulation.scenarios import Source, read_share
from lloss.tasks import get_task
from lloss.tasks.task import Task
from lloss.text.counts import NEAR, part
from lloss.text.first_names import first_names
from lloss.text.progress import progress
from lloss.training.holdout import draw_holdout


@dataclass(frozen=True)
class DataOptions:
    """What the user gave; another process opens the same by it.

    Attributes:
        task: its name.
        data: as ``lloss train`` takes it.
        labels: of ``data`` where it is a pool.
        test: labeled data, or a share of ``data`` such as ``20%``.
        test_labels: of ``test`` where it is a pool.
        data_root: of downloaded data sets.
        skip_bad: whether broken annotations are left out.
        empty: what labels without objects mean.
        seed: that the share is drawn by.
        held: the ids of the images to test on, where they are drawn already.
    """

    task: str
    data: str
    labels: Path | None
    test: str
    test_labels: Path | None
    data_root: Path
    skip_bad: bool = False
    empty: str = ""
    seed: int = 0
    held: frozenset[str] = frozenset()

    def described(self, opened: SimulatedData) -> dict[str, Any]:
        """Return what identifies the data, for ``settings.json``: its labels and its images."""
        return {
            "data": self.data,
            "labels": str(self.labels or ""),
            "test": self.test,
            "test_labels": str(self.test_labels or ""),
            "skip_bad": self.skip_bad,
            "empty": self.empty,
            "labels_sha256": opened.data.sha256,
            "test_sha256": opened.test.sha256,
            "images_sha256": _joined(opened.digests),
            "test_images_sha256": _joined(opened.test_digests),
        }

    def open(self, problems: Problems | None = None) -> SimulatedData:
        """Open data and test set; raises as ``lloss train`` does."""
        task, problems = get_task(self.task), problems or Problems(self.skip_bad)
        task.check_empty(self.empty)
        data = self._opened(task, self.data, self.labels, problems)
        share = read_share(self.test, f"--test {self.test}")
        if share is None:
            test = self._opened(task, self.test, self.test_labels, problems)
            _refuse_unknown(task, data, test)
            return SimulatedData(task, data, test)
        held: Collection[str] = self.held or self._drawn(task, data, share, problems)
        if not held:
            raise LabelError(f"{self.test} of {len(data)} images are too few to test on")
        rows = [row for row, item in enumerate(data.items) if item.id in held]
        rest = [row for row, item in enumerate(data.items) if item.id not in held]
        return SimulatedData(task, data.take(rest), data.take(rows))

    def drawn(self, opened: SimulatedData) -> DataOptions:
        """Return options by which others open the same without a search for near-duplicates."""
        if read_share(self.test, f"--test {self.test}") is None:
            return self
        return dataclasses.replace(self, held=frozenset(item.id for item in opened.test.items))

    def _drawn(
        self, task: Task, data: LabeledSet, share: float, problems: Problems
    ) -> dict[str, str]:
        """Draw the images to test on: near-duplicates together."""

        def grouped(items: Sequence[Item]) -> Groups:
            found = groups_among(items)
            line = found.doubt
            if found.copies:
                line = (
                    f"{part(found.copies, len(items), 'images', NEAR)} of others: the "
                    f"test images are drawn from {found.apart} groups, none of them divided"
                )
            problems.note(f"{data.origin}: {line}" if line else "")
            return found

        return draw_holdout(task, data, share, self.seed, grouped)

    def _opened(self, task: Task, data: str, labels: Path | None, problems: Problems) -> LabeledSet:
        with problems.explaining():
            opened = task.open(data, labels, self.data_root, problems)
            return _with_loss(task, drop_empty(opened, self.empty, problems).ordered(), problems)


def _with_loss(task: Task, labeled: LabeledSet, problems: Problems) -> LabeledSet:
    """Leave out images that a network has no loss on."""
    classes = task.classes(labeled.labels)
    rows = [row for row, label in enumerate(labeled.labels) if task.has_loss(label, classes)]
    if gone := len(labeled) - len(rows):
        problems.note(
            f"{labeled.origin}: {part(gone, len(labeled), 'images', 'show')} nothing that a loss "
            "can be measured on: left out"
        )
    return labeled.take(rows)


def _digests(items: Sequence[Item]) -> list[str]:
    digests = []
    for item in progress(items, "read images", unit="images", leave=False):
        try:
            digests.append(item_digest(item))
        except ImageError:  # no trial may draw it; one that does says why
            digests.append("")
    return digests


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _refuse_unknown(task: Task, data: LabeledSet, test: LabeledSet) -> None:
    """Refuse a test set of other classes: no method could learn them."""
    known = set(task.classes(data.labels))
    unknown = [name for name in task.classes(test.labels) if name not in known]
    if unknown:
        raise LabelError(
            f"{test.origin}: shows classes that no image of {data.origin} shows: "
            f"{first_names(unknown, 5)}; leave its images out, or add some to the data"
        )


@dataclass(frozen=True)
class SimulatedData:
    """Labeled images to draw pools of, and labeled images to test on."""

    task: Task
    data: LabeledSet
    test: LabeledSet

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The class names that the data shows."""
        return self.task.classes(self.data.labels)

    @cached_property
    def digests(self) -> list[str]:
        """What identifies each image of the data; "" for one that cannot be read."""
        return _digests(self.data.items)

    @cached_property
    def test_digests(self) -> list[str]:
        """The same of the images to test on."""
        return _digests(self.test.items)

    @property
    def source(self) -> Source:
        """The data as scenarios take it."""
        labels = self.data.labels
        return Source(
            [item.id for item in self.data.items],
            labels,
            self.class_numbers(labels),
            self.names,
            self.task.metric,
            self.task.classes(self.test.labels),
        )

    def class_numbers(self, labels: Sequence[Any]) -> NDArray[np.int64] | None:
        """Return the class of each label, -1 for an unknown one; None for labels of other kinds."""
        if self.task.name != "classification":
            return None
        numbers = {name: number for number, name in enumerate(self.names)}
        return np.array([numbers.get(label, -1) for label in labels], np.int64)

    def items(self, rows: Sequence[int], variants: Sequence[int]) -> list[Item]:
        """Return the images of rows of the data, as they are or changed."""
        shifted = self.task.name == "classification"  # other labels have places
        items = self.data.items
        return [variant_of(items[row], variant, shifted) for row, variant in zip(rows, variants)]
