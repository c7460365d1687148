"""A project: a pool, its labels, a model, and the cycles so far.

::

    PROJECT/
      lloss.toml          the user's settings
      holdout.csv         labels kept for measuring, drawn once from the first ones
      cycles/001/         one cycle, see lloss.project.cycle
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text
from lloss.data.class_labels import DATA_ROOT
from lloss.data.image_overlap import find_test_images, without_test_images
from lloss.data.label_joining import labeled_pool
from lloss.data.label_source import nothing_in
from lloss.data.labeled_set import LabeledSet, drop_empty
from lloss.data.near_copies import Groups, groups_among
from lloss.errors import LabelError, ProjectError, SettingsError
from lloss.files import locked, within, write_text
from lloss.pools import Item, Pool
from lloss.pools.uri import PoolUri, is_fiftyone, without_secrets
from lloss.project.choice_settings import check_choice, check_class_weight
from lloss.project.labeling_tasks import TaskFormat, check_yolo
from lloss.project.picks_file import Monitored
from lloss.selection import SelectionSettings
from lloss.selection.automatic import AUTO
from lloss.selection.hashing import draw_hash
from lloss.tasks import get_task
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings, check_kind
from lloss.training.holdout import (
    AUTOMATIC_SHARE,
    draw_holdout,
    holdout_ids,
    refuse_unknown,
    too_few_note,
    uncovered,
)

FILE = "lloss.toml"
HOLDOUT = "holdout.csv"
MONITORING = 999
"""Seed of the images to monitor. It does not follow the project's: images drawn by two seeds would
not be a random sample together, see :class:`.Monitored`."""
CyclePrecision = Literal["fp32", "auto"]


MOST_RANDOM = 0.5
"""The largest share of picks drawn at random: more is not monitoring."""


AUTOMATIC_DISTANCE = -1.0
"""Stands for the distance of labeled images to changed copies of themselves."""


def _key(comment: str, default: Any = MISSING) -> Any:
    """Make a field; the comment is written beside its key."""
    return field(default=default, metadata={"comment": comment})


@dataclass(frozen=True, kw_only=True)
class Project:
    """The content of ``lloss.toml``, a field per key; paths are relative to its folder ``root``."""

    root: Path
    pool: str = _key("images: a folder, array, list, tar shards, Parquet, or a URL (s3://…)")
    labels: str = _key("add what you label")
    k: int = _key("images to select per cycle")
    strategy: str = _key(
        "herding: they represent those of high loss; or another of lloss select --strategy",
        "diverse",
    )
    by: str = _key(
        "auto: by loss, by entropy or by neither, as measured; or loss, entropy …",
        "loss",
    )
    balance: str = _key(
        "spread k over predicted classes (predicted), or over a column of metadata", ""
    )
    class_weight: str = _key(
        "balanced: images of rare predicted classes weigh more; empty: all alike", ""
    )
    metadata: str = _key("CSV or Parquet with the columns id and that of balance", "")
    min_distance: float = _key(
        "pass over picks so near to another or a labeled image (cosine); -1: as their own copies", 0
    )
    monitor: float = _key("share of k drawn at random, to see what random labels show", 0)
    subset: int = _key("select from so many random images only; 0: all", 0)
    seed: int = _key("random seed of sub-pool and hold-out", 0)
    holdout: float = _key("share of the labels kept for measuring; -1: 50 or a tenth, from 150", -1)
    test: str = _key("labeled images to measure on", "")
    test_labels: str = _key("their labels, or those of test images in the pool", "")
    precision: CyclePrecision = _key(
        "of the network that scores; auto: int8 or fp16 for large pools, where faster and faithful",
        "fp32",
    )
    warm_start: bool = _key(
        "start each cycle from the previous weights; default: from scratch", False
    )
    empty: Literal["", "background", "unlabeled"] = _key(
        "labels without objects: background, or unlabeled yet", ""
    )
    formats: tuple[TaskFormat, ...] = _key(
        "task lists of each cycle for labeling tools: coco, yolo, cvat, label-studio", ()
    )
    skip_bad: bool = _key("leave out broken annotations instead of stopping", False)
    train: TrainSettings

    def __post_init__(self) -> None:
        hints = get_type_hints(Project)
        for key in fields(self):
            if key.metadata:
                where = f"{self.root / FILE}: {key.name}"
                check_kind(where, getattr(self, key.name), hints[key.name])
        for name in ("pool", "test"):
            public = without_secrets(getattr(self, name))
            if public != getattr(self, name):
                raise SettingsError(
                    f"{name} = {public}: contains credentials, which do not belong in {FILE}; "
                    "leave them to the environment"
                )
        if not (0 <= self.holdout < 1 or self.holdout == AUTOMATIC_SHARE):
            raise SettingsError(
                f"holdout = {self.holdout}: give a share of the labels below 1, or -1 for automatic"
            )
        if not (0 <= self.min_distance <= 2 or self.min_distance == AUTOMATIC_DISTANCE):
            raise SettingsError(
                f"min_distance = {self.min_distance}: give a cosine distance from 0 to 2, or -1 "
                "for automatic"
            )
        if not 0 <= self.monitor <= MOST_RANDOM:
            raise SettingsError(
                f"monitor = {self.monitor}: give a share of k from 0 to {MOST_RANDOM}"
            )
        check_choice(self.task, self.strategy, self.by, self.balance, self.metadata)
        check_class_weight(self.task, self.class_weight)
        if self.warm_start and self.train.freeze:
            raise SettingsError(
                f"{self.root / FILE}: warm_start and freeze: a frozen network is that of weights "
                "in each cycle; leave one of the two out"
            )
        if self.warm_start and self.train.folds > 0:
            raise SettingsError(
                f"{self.root / FILE}: warm_start and folds = {self.train.folds}: the weights of a "
                "warm start have seen the images that each fold leaves out; leave one of them out"
            )
        if "yolo" in self.formats:
            check_yolo(self.train.task)
        self.selection(1).refuse_unused()

    def selection(
        self, cycle: int, at_most: bool = False, distance: float = 0.0
    ) -> SelectionSettings:
        """Return the settings of a cycle's selection; each cycle draws its own sub-pool.

        ``distance`` is that of near-duplicates where ``min_distance`` is automatic.
        """
        return SelectionSettings(
            k=self.k,
            strategy=self.strategy,
            by="loss" if self.by == AUTO else self.by,
            subset=self.subset,
            seed=self.seed * 1000 + cycle,
            at_most=at_most,
            balance=self.balance,
            class_weight=self.class_weight,
            min_distance=distance if self.measures_distance else self.min_distance,
        )

    @property
    def measures_distance(self) -> bool:
        """Whether the distance of near-duplicates is measured in each cycle."""
        return self.min_distance == AUTOMATIC_DISTANCE

    @property
    def monitored(self) -> int:
        """How many of K are drawn at random."""
        return min(max(1, round(self.k * self.monitor)), self.k - 1) if self.monitor else 0

    def first_selection(
        self, strategy: str, at_most: bool, distance: float = 0.0
    ) -> SelectionSettings:
        """Return the settings of a selection without scores, before anything is labeled."""
        settings = self.selection(0, at_most, distance)
        return replace(settings, strategy=strategy, by="", balance="", class_weight="")

    def monitoring(self, settings: SelectionSettings) -> SelectionSettings:
        """Return the settings that draw the images to monitor, the first of K, beside the others'.

        Each cycle draws by the same numbers, the smallest of the unlabeled images: so all labeled
        images up to the largest number drawn so far are a random sample of the whole pool.
        """
        return replace(
            SelectionSettings(k=settings.k, strategy="random", seed=self.monitoring_seed),
            by=settings.by,
            at_most=settings.at_most,
        )

    @property
    def monitoring_seed(self) -> int:
        """The seed of :meth:`monitoring`, the same in all cycles and for all seeds."""
        return MONITORING

    def unlabeled(self) -> bool:
        """Whether no image is labeled yet: the labels are missing, or hold none."""
        if nothing_in(self.path(self.labels)):
            return True
        problems = Problems(skip=True)
        try:
            return not self.task.read_labels(self.path(self.labels), problems) and not (
                problems.broken
            )
        except LabelError:
            return False  # reading them again says why

    def left_to_label(
        self, labeled: Sequence[Item], test: LabeledSet | None, problems: Problems
    ) -> int | None:
        """Count the images that are neither labeled nor to measure on, as ``test`` are.

        ``test`` is that of :meth:`split`. None where counting takes long.
        """
        pool = self.open_pool()
        if not pool.counted:
            return None
        taken = {item.id for item in labeled} | self.test_ids(pool, test, problems)
        return pool.count() - len(taken)

    @property
    def cycles(self) -> Path:
        """The folder of the cycles."""
        return self.root / "cycles"

    @property
    def task(self) -> Task:
        """The task that the network is trained for."""
        return get_task(self.train.task)

    def path(self, written: str) -> Path:
        """Resolve a path of ``lloss.toml`` against the project's folder."""
        path = Path(written).expanduser()
        return path if is_fiftyone(written) else within(self.root, path)

    def problems(self) -> Problems:
        """Return a new collector of broken annotations that follows ``skip_bad``."""
        return Problems(self.skip_bad, remedy=f"skip_bad = true in {FILE}")

    def open_pool(self, problems: Problems | None = None) -> Pool:
        """Open the pool, without folders of labels and the project's own cycles."""
        labels = [self.path(written) for written in (self.labels, self.test_labels) if written]
        return labeled_pool(PoolUri.parse(self.pool, self.root), labels, problems, [self.cycles])

    def open_labels(
        self, labels: Path | None = None, problems: Problems | None = None
    ) -> LabeledSet:
        """Read the current labels, or those of another file, and join them with the pool."""
        problems = problems or self.problems()
        joined = self._join(labels or self.path(self.labels), problems)
        return drop_empty(joined, self.empty, problems)

    def _join(self, path: Path, problems: Problems) -> LabeledSet:
        labels = self.task.read_labels(path, problems)
        return self.task.join(self.open_pool(problems), labels, str(path), problems)

    def open_test(self, problems: Problems) -> LabeledSet | None:
        """Open the test set, if the project has one."""
        labels = self.path(self.test_labels) if self.test_labels else None
        if self.test:
            uri = PoolUri.parse(self.test, self.root).text
            test = self.task.open(uri, labels, DATA_ROOT, problems)
        elif labels is not None:
            test = self._join(labels, problems)
        else:
            return None
        return drop_empty(test, self.empty, problems, "test images")

    def split(
        self, labeled: LabeledSet, problems: Problems | None = None
    ) -> tuple[LabeledSet, LabeledSet | None]:
        """Split the labels into images to train on and images to measure on.

        Without a test set a share of the labels is held out once, as soon as they are enough, for
        all cycles: images selected later are not a fair sample, and a learning curve needs one test
        set. Labeled
        images that the test set contains too, by path or content, are left out with a note.

        Raises:
            LabelError: no image to measure on shows a class that is trained on, or all labeled
                images are in the test set.
        """
        problems = problems or self.problems()
        test = self.open_test(problems)
        if test is None:
            training, held_out = self._hold_out(labeled, problems)
        else:
            training, held_out = without_test_images(labeled, test, problems), test
            if not len(training):
                raise LabelError(
                    f"{labeled.origin}: all {len(labeled)} labeled images are in {test.origin} too "
                    f"({labeled.items[0].id!r}, for example); label others to train on"
                )
        if held_out is not None:
            if classes := self.task.classes(training.labels):
                refuse_unknown(self.task, held_out, classes)
            for line in uncovered(self.task, training, held_out):
                problems.note(line)
        return training, held_out

    def holdout_note(self) -> str:
        """Say that a hold-out that is asked for gives way to monitored images; "" without one."""
        if self.holdout == AUTOMATIC_SHARE:
            return ""
        return (
            f"holdout = {self.holdout:g}: not drawn, since the images that are drawn at random to "
            "monitor are held out instead; holdout = -1 says so"
        )

    def _hold_out(
        self, labeled: LabeledSet, problems: Problems
    ) -> tuple[LabeledSet, LabeledSet | None]:
        path = self.root / HOLDOUT
        if not path.exists():
            ids = {item.id for item in labeled.items}
            monitored = Monitored.of(self.cycles, ids, self.monitoring_seed)
            if monitored:
                problems.note(self.holdout_note())
                problems.note(monitored.note)
                return self._monitored(labeled, monitored.bound)
        if not self.holdout:
            return labeled, None
        if not path.exists():

            def grouped(items: Sequence[Item]) -> Groups:
                found = groups_among(items)
                problems.note(f"{labeled.origin}: {found}" if str(found) else "")
                return found

            drawn = draw_holdout(self.task, labeled, self.holdout, self.seed, grouped)
            if not drawn:
                if self.holdout == AUTOMATIC_SHARE:
                    problems.note(too_few_note(len(labeled)))
                return labeled, None
            write_text(path, labels_text(drawn))
            if any(self.cycles.glob("*/summary.json")):
                problems.note(
                    f"{path}: drawn only now, since the labels were too few before: it may contain "
                    "images selected for their predicted loss, so it is not a fair sample of the "
                    "pool"
                )
        held = holdout_ids(path, labeled, self.open_pool, problems)
        aside = [row for row, item in enumerate(labeled.items) if item.id in held]
        kept = [row for row, item in enumerate(labeled.items) if item.id not in held]
        return labeled.take(kept), labeled.take(aside) if len(aside) > 1 else None

    def _monitored(self, labeled: LabeledSet, bound: int) -> tuple[LabeledSet, LabeledSet | None]:
        """Hold out the images that are a random sample of the pool, see :meth:`monitoring`."""
        images = [self.task.image_of(*each) for each in zip(labeled.items, labeled.labels)]
        drawn = {
            image
            for image, item in zip(images, labeled.items)
            if draw_hash(item.id, self.monitoring_seed) <= bound
        }
        aside = [row for row, image in enumerate(images) if image in drawn]
        if len(drawn) < 2 or len(aside) == len(labeled):
            return labeled, None
        kept = [row for row, image in enumerate(images) if image not in drawn]
        return labeled.take(kept), labeled.take(aside)

    def test_ids(self, pool: Pool, test: LabeledSet | None, problems: Problems) -> set[str]:
        """Return the ids of the pool's images that are in the test set, or copies of them.

        ``test`` are the images to measure on, from :meth:`split`; a note counts copies.
        """
        own = set() if self.test or test is None else {item.id for item in test.items}
        if test is None or not (self.test or self.test_labels):  # held out from the labels
            return own
        return own | find_test_images(pool, test, own, problems)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the project's lock, or raise: two cycles would overwrite each other's files."""
        message = f"{self.root}: another lloss next is running on this project; wait for it"
        with locked(self.root, ProjectError(message)):
            yield
