"""A project: a pool, its labels, a model, and the cycles so far.

::

    PROJECT/
      lloss.toml          what is decided by a person
      holdout.csv         labels kept for measuring, drawn once from the first ones
      cycles/001/         one turn of the loop, see lloss.cycle
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lloss.errors import LabelError, LlossError, ProjectError, SettingsError
from lloss.files import write_text
from lloss.labels import LabeledSet, label_items, open_labeled, read_labels
from lloss.pools import Pool, open_pool
from lloss.selection import SelectionSettings, draw_ids
from lloss.settings import PRESETS, TrainSettings

FILE = "lloss.toml"
HOLDOUT = "holdout.csv"
STRATEGIES = ("diverse", "top")


@dataclass(frozen=True, kw_only=True)
class Project:
    """What ``lloss.toml`` says. Paths are relative to its folder.

    Attributes:
        root: the folder.
        pool: of images, as :func:`lloss.pools.open_pool` takes it.
        labels: CSV ``id,label`` of images of the pool; it grows from cycle to cycle.
        k: images to select a cycle.
        strategy: ``diverse`` or ``top``.
        subset: see :class:`lloss.selection.SelectionSettings`.
        seed: of the random draws of selection and hold-out.
        holdout: share of the first labels kept for measuring, when there is no ``test``.
        test: labeled data to measure on, apart from the pool.
        test_labels: its labels, or those of images of the pool when ``test`` is empty.
        warm_start: start each training from the weights of the cycle before; by default afresh.
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
    train: TrainSettings

    def __post_init__(self) -> None:
        texts = dict.fromkeys(("pool", "labels", "test", "test_labels", "strategy"), str)
        numbers = {"subset": (int, float), "holdout": (int, float)}
        kinds: dict[str, Any] = {"k": int, "seed": int, "warm_start": bool, **texts, **numbers}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise SettingsError(f"{self.root / FILE}: {name} = {value!r} is of the wrong kind")
        if self.strategy not in STRATEGIES:
            choices = ", ".join(STRATEGIES)
            raise SettingsError(f"strategy {self.strategy!r}: choose one of {choices}")
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

    def open_pool(self) -> Pool:
        """The pool of images."""
        return open_pool(self.path(self.pool))

    def open_labels(self, labels: Path | None = None) -> LabeledSet:
        """All labels there are now, or those of a snapshot of them."""
        path = labels or self.path(self.labels)
        return label_items(self.open_pool(), read_labels(path), str(path))

    def open_test(self) -> LabeledSet | None:
        """The separate test set, if the project has one."""
        labels = self.path(self.test_labels) if self.test_labels else None
        if self.test:
            known = self.path(self.test)
            return open_labeled(str(known) if known.exists() else self.test, labels)
        return open_labeled(str(self.path(self.pool)), labels) if labels else None

    def split(self, labeled: LabeledSet) -> tuple[LabeledSet, LabeledSet | None]:
        """Labels to train on, and labeled images to measure on.

        Without a test set, some of the first labels are set aside, once and for all cycles: the
        images that are selected later are no fair sample, and a curve needs one yardstick.

        Raises:
            LabelError: a test image is among the labels to train on.
        """
        test = self.open_test()
        if test is not None:
            if not self.test:
                _refuse_overlap(labeled, test)
            return labeled, test
        if not self.holdout:
            return labeled, None
        path = self.root / HOLDOUT
        if not path.exists():
            write_text(path, csv_text(_stratified(labeled, self.holdout, self.seed)))
        held = read_labels(path)
        aside = [row for row, item in enumerate(labeled.items) if item.id in held]
        kept = [row for row, item in enumerate(labeled.items) if item.id not in held]
        return labeled.take(kept), labeled.take(aside) if len(aside) > 1 else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One cycle at a time: two at once would write into each other's files.

        Raises:
            ProjectError: another process is at it.
        """
        try:
            import fcntl
        except ImportError:  # no such lock on Windows
            yield
            return
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ProjectError(
                    f"{self.root}: another lloss next is at work on this project; wait for it"
                ) from error
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
    train = dict(content.pop("train", {}))
    preset = train.pop("preset", "default")
    if preset not in PRESETS:
        raise SettingsError(f"{path}: preset {preset!r}: choose one of {', '.join(PRESETS)}")
    settings = TrainSettings.from_dict({**PRESETS[preset], **train}, f"{path} [train]")
    if not settings.head:
        raise SettingsError(f"{path} [train]: head = false predicts no loss to select by")
    return Project(root=root, train=settings, **content)


def create_project(root: Path, values: Mapping[str, Any], train: Mapping[str, Any]) -> Project:
    """Write ``lloss.toml`` after checking all that it says, the labels against the pool too.

    Args:
        root: the project's folder; made when it is not there.
        values: keys of :class:`Project`; paths are relative to the working directory.
        train: ``preset`` and the training settings that differ from it.

    Raises:
        ProjectError: there is a project already.
        LlossError: a value cannot be used.
    """
    if (root / FILE).exists():
        raise ProjectError(f"{root / FILE}: is there already; edit it, or choose another folder")
    written = dict(values)
    for name in ("pool", "labels", "test", "test_labels"):
        if written.get(name) and Path(written[name]).exists():
            written[name] = os.path.relpath(written[name], root)
    made = not root.exists()
    write_text(root / FILE, _toml(written, train))
    try:
        project = load_project(root)
        labeled = project.open_labels()
        project.open_test()
        if len(labeled.classes) < 2:
            raise LabelError(
                f"{labeled.origin}: all {len(labeled)} labels are {labeled.classes[0]!r}: "
                "label a second class first"
            )
    except LlossError:
        (root / FILE).unlink()
        if made:
            root.rmdir()
        raise
    return project


def csv_text(labels: Mapping[str, str]) -> str:
    """Labels as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "label"))
    table.writerows(labels.items())
    return text.getvalue()


_NOTES = {
    "pool": "images: a folder, .npy, .npz, or a .txt/.csv list of paths",
    "labels": "id,label; add a row an image you label",
    "k": "images to select each cycle",
    "strategy": "diverse: spread over the best 4k; top: the k highest predicted losses",
    "subset": "choose from a random sub-pool alone: a number of images, or a share; 0: all",
    "seed": "of sub-pool and hold-out",
    "holdout": "share of the first labels kept for measuring, when there is no test",
    "test": "labeled images to measure on",
    "test_labels": "their labels, or those of test images in the pool",
    "warm_start": "start from the cycle before; the method trains afresh",
}


def _toml(values: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    # json's strings, numbers, booleans and lists are TOML's too.
    lines = [f"{k} = {json.dumps(v)}  # {_NOTES[k]}" for k, v in values.items()]
    lines += ["", "[train]  # lloss train --help tells all settings"]
    lines += [f"{k} = {json.dumps(v)}" for k, v in train.items()]
    return "\n".join(lines) + "\n"


def _stratified(labeled: LabeledSet, share: float, seed: int) -> dict[str, str]:
    """A share of each class, so that no class is lost to the measuring."""
    held: dict[str, str] = {}
    for name in labeled.classes:
        ids = [i.id for i, label in zip(labeled.items, labeled.labels) if label == name]
        count = min(round(len(ids) * share), len(ids) - 1)
        held.update(dict.fromkeys(draw_ids(ids, count, seed), name))
    return held


def _refuse_overlap(labeled: LabeledSet, test: LabeledSet) -> None:
    tested = {item.id for item in test.items}
    both = next((item.id for item in labeled.items if item.id in tested), None)
    if both is not None:
        raise LabelError(
            f"{both!r} is in {labeled.origin} and in {test.origin}: "
            "an image is trained on or tested on, not both"
        )
