"""A project: a pool, its labels, a model, and the cycles so far.

::

    PROJECT/
      lloss.toml          what is decided by a person
      holdout.csv         labels kept for measuring, drawn once from the first ones
      cycles/001/         one turn of the loop, see lloss.project.cycle
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text
from lloss.data.class_labels import DATA_ROOT
from lloss.data.class_labels import is_named_set as is_named_classes
from lloss.data.empty_labels import EMPTY, drop_empty
from lloss.data.image_overlap import find_test_images, refuse_overlap, without_test_images
from lloss.data.label_joining import labeled_pool
from lloss.data.labeled_set import LabeledSet
from lloss.data.object_labels import is_named_set as is_named_objects
from lloss.errors import ProjectError, SettingsError
from lloss.files import locked, write_text
from lloss.pools import Pool
from lloss.pools.uri import from_folder, without_secrets
from lloss.selection import SelectionSettings
from lloss.tasks import get_task
from lloss.tasks.presets import PRESETS, resolve_settings
from lloss.tasks.task import Task
from lloss.tasks.train_settings import TrainSettings
from lloss.text.similar_names import similar_note
from lloss.training.holdout import draw_holdout, held_ids, refuse_unknown, uncovered

FILE = "lloss.toml"
HOLDOUT = "holdout.csv"
STRATEGIES = ("diverse", "top")


@dataclass(frozen=True, kw_only=True)
class Project:
    """What ``lloss.toml`` says. Paths are relative to its folder.

    Attributes:
        root: the folder.
        pool: of images, as :func:`lloss.pools.open_pool` takes it.
        labels: of images of the pool, as the task reads them (for classification a CSV
            ``id,label``); they grow from cycle to cycle.
        k: images to select a cycle.
        strategy: ``diverse`` or ``top``.
        subset: see :class:`lloss.selection.SelectionSettings`.
        seed: of the random draws of selection and hold-out.
        holdout: share of the first labels kept for measuring, when there is no ``test``.
        test: labeled data to measure on, apart from the pool.
        test_labels: its labels, or those of images of the pool when ``test`` is empty.
        warm_start: start each training from the weights of the cycle before; by default afresh.
        skip_bad: leave broken annotations out instead of stopping at the first.
        empty: what labels that show nothing mean, see :mod:`lloss.data.empty_labels`.
        train: the training settings, those of ``preset`` filled in.
    """

    root: Path
    pool: str
    labels: str
    k: int
    strategy: str = "diverse"
    subset: float = 0
    seed: int = 0
    holdout: float = 0.1
    test: str = ""
    test_labels: str = ""
    warm_start: bool = False
    skip_bad: bool = False
    empty: str = ""
    train: TrainSettings

    def __post_init__(self) -> None:
        texts = dict.fromkeys(("pool", "labels", "test", "test_labels", "strategy", "empty"), str)
        flags = dict.fromkeys(("warm_start", "skip_bad"), bool)
        numbers = {"subset": (int, float), "holdout": (int, float)}
        kinds: dict[str, Any] = {"k": int, "seed": int, **flags, **texts, **numbers}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise SettingsError(f"{self.root / FILE}: {name} = {value!r} is of the wrong kind")
        for name in ("pool", "test"):
            if without_secrets(getattr(self, name)) != getattr(self, name):
                raise SettingsError(
                    f"{name} = {without_secrets(getattr(self, name))}: was given with credentials, "
                    f"which do not belong into {FILE}; leave them to the environment"
                )
        if self.strategy not in STRATEGIES:
            choices = ", ".join(STRATEGIES)
            raise SettingsError(f"strategy {self.strategy!r}: choose one of {choices}")
        if self.empty not in ("", *EMPTY):
            raise SettingsError(f"empty = {self.empty!r}: choose one of {', '.join(EMPTY)}")
        if not 0 <= self.holdout < 1:
            raise SettingsError(f"holdout = {self.holdout}: give a share of the labels below 1")
        self.selection(1, False)

    def selection(self, cycle: int, at_most: bool) -> SelectionSettings:
        """How this cycle selects; the sub-pool is another one each time."""
        return SelectionSettings(
            k=self.k,
            strategy=self.strategy,
            subset=self.subset,
            seed=self.seed * 1000 + cycle,
            at_most=at_most,
        )

    @property
    def cycles(self) -> Path:
        """The folder of the cycles."""
        return self.root / "cycles"

    def path(self, written: str) -> Path:
        """A path of ``lloss.toml`` as the process sees it."""
        return self.root / Path(written).expanduser()

    @property
    def pool_uri(self) -> str:
        """The pool as the process sees it: a path with its options, or a URL."""
        return from_folder(self.root, self.pool)

    def open_pool(self, problems: Problems | None = None) -> Pool:
        """The pool of images, without folders of labels and the project's own cycles.

        Args:
            problems: notes of what was left out or passed over go there.
        """
        labels = [self.path(written) for written in (self.labels, self.test_labels) if written]
        return labeled_pool(self.pool_uri, labels, problems, [self.cycles])

    def problems(self) -> Problems:
        """Where broken annotations go, as ``skip_bad`` decides."""
        return Problems(self.skip_bad, remedy=f"skip_bad = true in {FILE}")

    @property
    def task(self) -> Task:
        """What the network is trained for."""
        return get_task(self.train.task)

    def open_labels(
        self, labels: Path | None = None, problems: Problems | None = None
    ) -> LabeledSet:
        """All labels there are now, or those of a snapshot of them.

        Args:
            labels: the snapshot.
            problems: is told of broken annotations; by default ``skip_bad`` decides.
        """
        path, problems = labels or self.path(self.labels), problems or self.problems()
        found = self.task.read_labels(path, problems)
        joined = self.task.join(self.open_pool(problems), found, str(path), problems)
        return drop_empty(joined, self.empty, problems)

    def note_classes(
        self, labeled: LabeledSet, problems: Problems, known: Collection[str] = ()
    ) -> None:
        """See :meth:`lloss.tasks.task.Task.note_classes`."""
        self.task.note_classes(labeled.labels, problems, known)

    def labeled_ids(self) -> set[str]:
        """The ids of all images that have a label by now that can be read."""
        return {item.id for item in self.open_labels(problems=Problems(skip=True)).items}

    def open_test(self, problems: Problems | None = None) -> LabeledSet | None:
        """The separate test set, if the project has one."""
        labels = self.path(self.test_labels) if self.test_labels else None
        problems = problems or self.problems()
        if self.test:
            test = self.task.open(self._test_uri(), labels, DATA_ROOT, problems)
        elif labels is None:
            return None
        else:
            found = self.task.read_labels(labels, problems)
            test = self.task.join(self.open_pool(problems), found, str(labels), problems)
        return drop_empty(test, self.empty, problems, "test images")

    def _test_uri(self) -> str:
        uri = from_folder(self.root, self.test)
        return self.test if is_named_set(self.test) and not Path(uri).exists() else uri

    def split(
        self, labeled: LabeledSet, problems: Problems | None = None
    ) -> tuple[LabeledSet, LabeledSet | None]:
        """Labels to train on, and labeled images to measure on.

        Without a test set, some of the first labels are set aside, once and for all cycles: the
        images that are selected later are no fair sample, and a curve needs one yardstick.

        Labeled images that the test set holds too, as the same file or by their content, are left
        out, with a note.

        Args:
            labeled: all labels.
            problems: gets a note on classes that the images to measure on do not show.

        Raises:
            LabelError: a test image is among the labels to train on, by its id, or no image to
                measure on shows a class that is trained on.
        """
        training, held = self._split(labeled, problems)
        classes = self.task.classes(training.labels)
        if held is not None and classes:  # before hours of training, not after
            refuse_unknown(self.task, held, classes)
        if problems is not None and held is not None:
            for line in uncovered(self.task, training, held):
                problems.note(line)
        return training, held

    def _split(
        self, labeled: LabeledSet, problems: Problems | None
    ) -> tuple[LabeledSet, LabeledSet | None]:
        test = self.open_test(problems)
        if test is not None:
            if not self.test:
                refuse_overlap(labeled, test)
            if problems is not None:
                known, tested = (self.task.summarize(one.labels) for one in (labeled, test))
                both = {**tested, **known}
                problems.note(similar_note(both, "classes to train and to measure on", known))
            return without_test_images(labeled, test, problems or Problems()), test
        if not self.holdout:
            return labeled, None
        path = self.root / HOLDOUT
        if not path.exists():
            drawn = draw_holdout(self.task, labeled, self.holdout, self.seed)
            if not drawn:
                return labeled, None
            write_text(path, labels_text(drawn))
            if problems is not None and any(self.cycles.glob("*/summary.json")):
                problems.note(
                    f"{path}: drawn only now, as before the labels were too few: images that were "
                    "selected for their predicted loss may be among these, so they are no fair "
                    "sample of the pool"
                )
        held = held_ids(path, labeled, self.open_pool, problems or Problems())
        aside = [row for row, item in enumerate(labeled.items) if item.id in held]
        kept = [row for row, item in enumerate(labeled.items) if item.id not in held]
        return labeled.take(kept), labeled.take(aside) if len(aside) > 1 else None

    def tested(self, pool: Pool, test: LabeledSet | None, problems: Problems) -> set[str]:
        """The ids of the pool's images that :meth:`split` keeps for measuring, or copies of them.

        Args:
            pool: the project's.
            test: what :meth:`split` gave to measure on.
            problems: a note of how many images of the pool are in the test set goes there.
        """
        own = set() if self.test or test is None else {item.id for item in test.items}
        if test is None or not (self.test or self.test_labels):  # set aside from the labels
            return own
        return own | find_test_images(pool, test, own, problems)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One cycle at a time: two at once would write into each other's files.

        Raises:
            ProjectError: another process is at it.
        """
        busy = ProjectError(
            f"{self.root}: another lloss next is at work on this project; wait for it"
        )
        with locked(self.root, busy):
            yield


def load_project(root: Path) -> Project:
    """Read ``lloss.toml``.

    Raises:
        ProjectError: there is none, or it is no TOML.
        SettingsError: an unknown key or an unusable value.
    """
    path = root / FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ProjectError(
            f"{root}: holds no {FILE}; start with lloss init {root} --pool POOL --labels CSV -k K"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProjectError(f"{path}: cannot be read: {error}") from error
    known = {field.name for field in fields(Project)} - {"root"}
    for name in content:
        if name not in known:
            names = ", ".join(sorted(known))
            raise SettingsError(f"{path}: unknown setting {name!r}; known are {names}")
    for name in ("pool", "labels", "k"):
        if name not in content:
            raise SettingsError(f"{path}: has no {name}")
    train = content.pop("train", {})
    if not isinstance(train, dict):
        raise SettingsError(f"{path}: train = {train!r} is no table; write [train] above its keys")
    preset = train.pop("preset", "default")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SettingsError(f"{path}: preset {preset!r}: choose one of {', '.join(PRESETS)}")
    settings = resolve_settings(preset, f"{path} [train]", **train)
    if not settings.head:
        raise SettingsError(f"{path} [train]: head = false predicts no loss to select by")
    return Project(root=root, train=settings, **content)


def is_named_set(data: str) -> bool:
    """Whether this is a data set that torchvision downloads, of any task."""
    return is_named_classes(data) or is_named_objects(data)
